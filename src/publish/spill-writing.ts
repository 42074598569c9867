import { randomUUID } from 'node:crypto'
import { open, rm, type FileHandle } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { messageOf, SpillError } from '../errors.ts'
import { batchText, endText, headerText, jobText, NO_OWNER, sequenceText } from './spill-format.ts'
import type { SpilledBatch, SpilledJob, SpillHeader } from './spill-format.ts'

/** Lines are written together up to about this many bytes. */
const CHUNK_BYTES = 1024 * 1024

const LINE_END = Buffer.from('\n')

/** Files beside each other before somebody has to look why none of them is ever recovered. */
const MOST_FILES = 10_000

/** Ids of the files that this process is writing now: a recovery in it must not take them for left behind. */
const beingWritten = new Set<string>()

export function isWriting(id: string): boolean {
  return beingWritten.has(id)
}

/** A spill file that was written. */
export interface WrittenSpill {
  readonly file: string
  /** Jobs that somebody is owed; those of a batch that were awaited are not. */
  readonly jobs: number
}

/** What a producer could not publish. */
export interface Spilled {
  readonly batches: readonly SpilledBatch[]
  readonly jobs: readonly SpilledJob[]
}

/**
 * Writes what a producer could not publish to a new file: `path`, or with a number behind it if there is one already. It is
 * on disk when this resolves; undefined if there was nothing to write.
 * @throws SpillError if it cannot be written; then nothing of it is left to be published by anybody.
 */
export async function writeSpill(path: string, { batches, jobs }: Spilled): Promise<WrittenSpill | undefined> {
  // The jobs of a batch that were all awaited belong to whoever awaited them.
  const kept = batches.filter(({ items }) => items.some(({ ref }) => ref !== undefined))
  if (kept.length === 0 && jobs.length === 0) return undefined
  const byStream = groupedByStream(jobs)
  const streams = [...new Set([...kept.map(({ stream }) => stream), ...byStream.keys()])]
  const owed = kept.flatMap(({ items }) => items).filter(({ ref }) => ref !== undefined).length + jobs.length
  const header = newHeader(streams)
  const file = await writeNew(path, header, linesOf(header, kept, byStream))
  return { file, jobs: owed }
}

function groupedByStream(jobs: readonly SpilledJob[]): Map<string, SpilledJob[]> {
  const byStream = new Map<string, SpilledJob[]>()
  for (const job of jobs) {
    const own = byStream.get(job.stream)
    if (own === undefined) byStream.set(job.stream, [job])
    else own.push(job)
  }
  return byStream
}

/** A header for a file that this process writes now. */
export function newHeader(streams: readonly string[]): SpillHeader {
  return { id: randomUUID(), host: hostname(), pid: process.pid, at: new Date().toISOString(), streams }
}

/** The first line of a stream's jobs. */
export function newSequenceText(stream: string, jobs: number): string {
  return sequenceText('todo', { stream, jobs, generation: 0, from: 0, owner: NO_OWNER })
}

function* linesOf(
  header: SpillHeader,
  batches: readonly SpilledBatch[],
  byStream: ReadonlyMap<string, readonly SpilledJob[]>,
): Generator<string> {
  let lines = 0
  yield headerText(header)
  for (const batch of batches) {
    yield batchText({ ...batch, items: batch.items.length })
    for (const item of batch.items) yield jobText(batch.stream, item)
    lines += batch.items.length
  }
  for (const [stream, jobs] of byStream) {
    yield newSequenceText(stream, jobs.length)
    for (const job of jobs) yield jobText(stream, job)
    lines += jobs.length
  }
  yield endText(lines)
}

async function writeNew(path: string, header: SpillHeader, lines: Iterable<string>): Promise<string> {
  beingWritten.add(header.id)
  try {
    const { handle, file } = await openNew(path)
    await writeDurably(handle, file, lines)
    return file
  } finally {
    beingWritten.delete(header.id)
  }
}

/** Never over a file that is there: it holds jobs of an earlier shutdown, or is somebody else's. */
async function openNew(path: string): Promise<{ handle: FileHandle; file: string }> {
  for (let number = 1; number <= MOST_FILES; number++) {
    const file = number === 1 ? path : `${path}.${number}`
    try {
      // Payloads are nobody else's business.
      return { handle: await open(file, 'wx', 0o600), file }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw unwritten(file, error)
    }
  }
  throw new SpillError(`cannot write ${path}: there are ${MOST_FILES} spill files beside it; why is none recovered?`)
}

/**
 * Writes all lines and has them on disk, or leaves nothing: half a file would be published at the next start, and the caller,
 * who was told that nothing was written, publishes the same jobs elsewhere.
 * @throws SpillError
 */
export async function writeDurably(
  handle: FileHandle,
  file: string,
  lines: Iterable<string> | AsyncIterable<string | Buffer>,
): Promise<void> {
  try {
    let chunk: Buffer[] = []
    let bytes = 0
    for await (const line of lines) {
      const own = typeof line === 'string' ? Buffer.from(line) : line
      chunk.push(own, LINE_END)
      bytes += own.length + 1
      if (bytes < CHUNK_BYTES) continue
      await handle.writeFile(Buffer.concat(chunk))
      ;[chunk, bytes] = [[], 0]
    }
    await handle.writeFile(Buffer.concat(chunk))
    await handle.sync()
    if ((await handle.stat()).nlink === 0) throw new Error('somebody removed it while it was written')
    await syncFolder(file)
  } catch (error) {
    throw unwritten(file, error, await withdraw(handle, file))
  }
  // It is on disk: what closing may still say changes nothing.
  await handle.close().catch(() => {})
}

/** Gives what there is to say of it. An empty file is as good as none to who looks for spill files. */
async function withdraw(handle: FileHandle, file: string): Promise<string> {
  const isEmpty = await succeeds(handle.truncate(0))
  const { nlink } = await handle.stat().catch(() => ({ nlink: 1 }))
  await handle.close().catch(() => {})
  // Under its name there may be another one by now, of whoever removed it.
  const isRemoved = nlink === 0 || (await succeeds(rm(file, { force: true })))
  if (isEmpty || isRemoved) return 'nothing of it was left there'
  return 'a part of it was left there and cannot be removed: delete it before the next start, which would publish it'
}

function succeeds(doing: Promise<unknown>): Promise<boolean> {
  return doing.then(
    () => true,
    () => false,
  )
}

/** The name of a file is on disk only when its folder is. */
export async function syncFolder(file: string): Promise<void> {
  const folder = await open(dirname(file), 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function unwritten(file: string, cause: unknown, left = 'nothing was written'): SpillError {
  return new SpillError(`cannot write the spill file ${file}: ${messageOf(cause)}; ${left}`, { cause })
}
