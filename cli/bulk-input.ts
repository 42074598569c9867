import { open } from 'node:fs/promises'
import { pipeline, Readable } from 'node:stream'
import { crc32, createGunzip } from 'node:zlib'
import type { BulkPlace } from './bulk-place.ts'
import type { CliContext } from './context.ts'
import { usageError } from './exit.ts'

/** What jobs are read from: a file or stdin, packed by gzip or not, which its first two bytes say. */
export interface BulkInput {
  /** What is in it, unpacked. */
  readonly chunks: AsyncIterable<Buffer>
  /** How large the file is; undefined where nobody knows: stdin, a pipe, a device. Only what has a size can be read again. */
  readonly size: number | undefined
  /** How much of it has been read, as it is on the disk. */
  readonly readBytes: number
  /** Reads no further. */
  destroy(): void
}

/** The published part of a file is not what it was when it was published: what else would be published is anybody's guess. */
export class ChangedInputError extends Error {
  override readonly name = 'ChangedInputError'
}

export async function openInput(context: CliContext, path: string): Promise<BulkInput> {
  if (path === '-') {
    if (context.stdin.isTTY) context.say('reading jobs from the terminal, one a line; Ctrl-D ends')
    return inputOf(context.stdin, undefined)
  }
  try {
    // Opened here and not by the stream: its error would come when nobody listens yet.
    const file = await open(path)
    const found = await file.stat()
    if (found.isDirectory()) {
      await file.close()
      throw new Error('it is a directory')
    }
    return inputOf(file.createReadStream(), found.isFile() ? found.size : undefined)
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === 'ENOENT'
    throw usageError(`cannot read ${path}: ${isMissing ? 'there is no such file' : (error as Error).message}`)
  }
}

function inputOf(source: Readable, size: number | undefined): BulkInput {
  let readBytes = 0
  async function* counted(): AsyncGenerator<Buffer, void> {
    for await (const chunk of source as AsyncIterable<Buffer>) {
      readBytes += chunk.length
      yield chunk
    }
  }
  return {
    chunks: unpacked(counted()),
    size,
    get readBytes() {
      return readBytes
    },
    destroy: () => void source.destroy(),
  }
}

/** The chunks as they are, or what gzip has packed into them. */
export async function* unpacked(chunks: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  let head = Buffer.alloc(0)
  // One byte tells of all other texts: a line that somebody types is not kept waiting for the next.
  while (head.length === 0 || (head.length < 2 && head[0] === 0x1f)) {
    const next = await chunks.next()
    if (next.done === true) break
    head = Buffer.concat([head, next.value])
  }
  if (head[0] !== 0x1f || head[1] !== 0x8b) {
    if (head.length > 0) yield* joined(head, chunks)
    return
  }
  const source = Readable.from(joined(head, chunks), { objectMode: false, highWaterMark: 64 * 1024 })
  const gunzip = createGunzip({ chunkSize: 64 * 1024 })
  // Its error is met by whoever reads on.
  pipeline(source, gunzip, () => {})
  yield* gunzip as AsyncIterable<Buffer>
}

async function* joined(head: Buffer, chunks: AsyncGenerator<Buffer, void>): AsyncGenerator<Buffer, void> {
  yield head
  yield* chunks
}

/**
 * What is behind a place of the text.
 * @throws ChangedInputError, before anything is handed out, if what is before it is not what it was.
 */
export async function* behind(chunks: AsyncIterable<Buffer>, place: BulkPlace): AsyncGenerator<Buffer, void> {
  let [left, crc] = [place.bytes, 0]
  let isChecked = false
  const check = () => {
    if (left > 0 || crc !== place.crc) throw new ChangedInputError('what was published of it has changed since')
    isChecked = true
  }
  for await (const chunk of chunks) {
    const before = chunk.subarray(0, left)
    if (before.length > 0) crc = crc32(before, crc)
    left -= before.length
    if (left > 0) continue
    if (!isChecked) check()
    if (before.length < chunk.length) yield chunk.subarray(before.length)
  }
  if (!isChecked) check()
}
