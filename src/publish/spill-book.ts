import { constants, fstatSync, statSync, unlinkSync } from 'node:fs'
import { open, type FileHandle } from 'node:fs/promises'
import { SpillError } from '../errors.ts'
import type { SpillFile } from './spill-files.ts'
import { headerOf, isJobLine, lineOf, sequenceText, STATE_OFFSET, stateText } from './spill-format.ts'
import type { BatchLine, LineState, SpillLine, SpillSequence } from './spill-format.ts'

const CHUNK_BYTES = 256 * 1024

/** Bytes that the last line has at most. */
const LONGEST_END = 100

/** The longest value that Redis takes, and what JSON may make of it: a longer line was never a job, and memory is bounded. */
const MOST_LINE_BYTES = 1024 * 1024 * 1024

/** A line, where it begins, and where the next one does. */
export interface RawLine {
  readonly offset: number
  readonly next: number
  readonly bytes: Buffer
}

/** What is to be done of a spill file. */
export interface SpillPlan {
  readonly batches: readonly PlannedBatch[]
  readonly sequences: readonly PlannedSequence[]
}

/** A batch and where its items are. */
export interface PlannedBatch {
  readonly offset: number
  readonly itemsOffset: number
  readonly state: LineState
  readonly batch: BatchLine
}

/** A sequence and where its jobs are. */
export interface PlannedSequence {
  readonly offset: number
  readonly jobsOffset: number
  readonly stream: string
  readonly jobs: number
}

/**
 * A spill file, opened. It is the open file that counts and not its name, under which there may be another one by the time
 * that this one is done: whoever finishes it removes it, and the next shutdown writes a new one.
 */
export class SpillBook {
  readonly file: string
  readonly id: string
  readonly #handle: FileHandle
  readonly #headerEnd: number

  private constructor({ file, header }: SpillFile, handle: FileHandle, headerEnd: number) {
    this.file = file
    this.id = header.id
    this.#handle = handle
    this.#headerEnd = headerEnd
  }

  /** Undefined if the file is no longer the one that was found. */
  static async open(found: SpillFile): Promise<SpillBook | undefined> {
    const handle = await open(found.file, constants.O_RDWR).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw error
    })
    if (handle === undefined) return undefined
    for await (const { bytes, next } of linesFrom(handle, 0)) {
      const header = headerOf(bytes.toString())
      if (header !== undefined && 'id' in header && header.id === found.header.id) {
        return new SpillBook(found, handle, next)
      }
      break
    }
    await handle.close()
    return undefined
  }

  /** Reads it once from beginning to end, jobs not. */
  async plan(): Promise<SpillPlan> {
    const [batches, sequences]: [PlannedBatch[], PlannedSequence[]] = [[], []]
    for await (const { offset, next, bytes } of this.rawLines()) {
      if (isJobLine(bytes)) continue
      const line = lineOf(bytes)
      if (line.kind === 'batch') batches.push({ offset, itemsOffset: next, state: line.state, batch: line.batch })
      if (line.kind === 'sequence') sequences.push({ offset, jobsOffset: next, ...line.sequence })
    }
    return { batches, sequences }
  }

  /** The lines from `offset` on, or those behind the header. */
  rawLines(offset = this.#headerEnd): AsyncGenerator<RawLine> {
    return linesFrom(this.#handle, offset)
  }

  /** At most `count` lines of jobs from `offset` on; a line that cannot be read counts, one of another kind is the end. */
  async *jobLines(offset: number, count: number): AsyncGenerator<RawLine> {
    let left = count
    if (left === 0) return
    for await (const raw of this.rawLines(offset)) {
      if (!isJobLine(raw.bytes) && lineOf(raw.bytes).kind !== 'broken') return
      yield raw
      left -= 1
      if (left === 0) return
    }
  }

  /** What the line of a batch says now. */
  async stateAt(offset: number): Promise<LineState> {
    for await (const { bytes } of this.rawLines(offset)) {
      const line = lineOf(bytes)
      if (line.kind === 'batch') return line.state
      break
    }
    throw this.#changed()
  }

  /** What a sequence's line says now: another process may have written over it. */
  async sequenceAt(offset: number): Promise<SpillLine & { kind: 'sequence' }> {
    for await (const { bytes } of this.rawLines(offset)) {
      const line = lineOf(bytes)
      if (line.kind === 'sequence') return line
      break
    }
    throw this.#changed()
  }

  #changed(): SpillError {
    return new SpillError(`cannot read the spill file ${this.file}: somebody changed it while it was published`)
  }

  /** On disk when it resolves. */
  async writeSequence(offset: number, state: LineState, sequence: SpillSequence): Promise<void> {
    await this.#handle.write(sequenceText(state, sequence), offset)
    await this.#handle.datasync()
  }

  /** Notes what became of the lines at these places; on disk when it resolves. */
  async writeStates(offsets: readonly number[], state: LineState): Promise<void> {
    if (offsets.length === 0) return
    for (const offset of offsets) await this.#handle.write(stateText(state), offset + STATE_OFFSET)
    await this.#handle.datasync()
  }

  /** Whether its writer came to its end. */
  async isEnded(): Promise<boolean> {
    const { size } = await this.#handle.stat()
    const tail = await this.bytesAt(Math.max(0, size - LONGEST_END), Math.min(size, LONGEST_END))
    return lineOf(tail.subarray(tail.lastIndexOf('{'))).kind === 'end'
  }

  async bytesAt(offset: number, length: number): Promise<Buffer> {
    const { buffer, bytesRead } = await this.#handle.read(Buffer.alloc(length), 0, length, offset)
    return buffer.subarray(0, bytesRead)
  }

  /** When it was last written to, in ms since the epoch. */
  async writtenAtMs(): Promise<number> {
    return (await this.#handle.stat()).mtimeMs
  }

  /** Somebody else was done with it. */
  isRemoved(): boolean {
    return fstatSync(this.#handle.fd).nlink === 0
  }

  /** Removes it, if it is still what is found under its name; both in one step of this process. */
  remove(): void {
    const { ino, dev } = fstatSync(this.#handle.fd)
    const named = statSync(this.file, { throwIfNoEntry: false })
    if (named?.ino === ino && named.dev === dev) unlinkSync(this.file)
  }

  async close(): Promise<void> {
    await this.#handle.close()
  }
}

/** The last line may lack its end: it was cut, or everything but its end was written. */
async function* linesFrom(handle: FileHandle, from: number): AsyncGenerator<RawLine> {
  let [offset, position] = [from, from]
  let parts: Buffer[] = []
  for (;;) {
    const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(CHUNK_BYTES), 0, CHUNK_BYTES, position)
    if (bytesRead === 0) break
    const chunk = buffer.subarray(0, bytesRead)
    let start = 0
    for (let end = chunk.indexOf(10); end !== -1; end = chunk.indexOf(10, start)) {
      const piece = chunk.subarray(start, end)
      const bytes = parts.length === 0 ? piece : Buffer.concat([...parts, piece])
      start = end + 1
      const next = position + start
      yield { offset, next, bytes }
      ;[offset, parts] = [next, []]
    }
    if (start < bytesRead) parts.push(chunk.subarray(start))
    position += bytesRead
    if (position - offset > MOST_LINE_BYTES) throw new SpillError('cannot read the spill file: a line has no end')
  }
  if (parts.length > 0) yield { offset, next: position, bytes: Buffer.concat(parts) }
}
