import type { FedJob, Feed, FeedError, FeedJob } from '../src/index.ts'
import { BEGINNING, positionOf, type BulkPlace } from './bulk-place.ts'
import { parseLine, type When } from './bulk-line.ts'
import { codeOf } from './exit.ts'
import { LineError, readLines, type Line } from './ndjson.ts'

/**
 * Publishes the jobs of an NDJSON stream: a line {"job":…,"data":…} is a job, a blank line is none; `delayMs` or `runAt` says
 * when it is due. Reads no further ahead than what is in flight allows, so memory stays the same however long the input is.
 * Stops reading at the first line or publish that fails, and at `stop()`; what is in flight then still gets its answer and
 * is counted.
 */

const MAX_LINE_BYTES = 2 * 1024 * 1024
/** Enough that a batch is ready whenever one is answered. */
const MOST_IN_FLIGHT = 2000
const MOST_BYTES_IN_FLIGHT = 16 * 1024 * 1024

export interface BulkCounts {
  published: number
  /** Of these, jobs that were there already: by their token, or as holders of their uniqueness key. Missing for none. */
  duplicates?: number
  /** Of these, jobs that took the place of another one. Missing for none. */
  replaced?: number
  /** Not in Redis. */
  failed: number
  /** In Redis or not. */
  unknown: number
  firstId: string | null
  lastId: string | null
}

export interface BulkOptions {
  /** Where the input begins. @default the beginning */
  readonly from?: BulkPlace
  /** When jobs are due whose lines do not say. @default now */
  readonly when?: When
  /** Goes on with these counts. @default nothing was counted */
  readonly counts?: BulkCounts
  /** Called, and waited for, before the first job is handed over. */
  readonly begun?: () => Promise<void>
  /** Called whenever jobs have got their answer. */
  readonly told: () => void
  /** Called when nothing more is to be read. */
  readonly failed: () => void
}

/** Jobs that were handed over together. */
interface Handed {
  readonly jobs: FeedJob[]
  /** The number of the line of each. */
  readonly lines: number[]
  bytes: number
}

export class BulkPublish {
  readonly counts: BulkCounts
  readonly #feed: Pick<Feed, 'publish'>
  readonly #options: BulkOptions
  #place: BulkPlace
  /** The first thing that went wrong: a LineError, or the error of a publish. */
  #problem: { readonly turn: number; readonly error: Error } | undefined
  #turns = 0
  #isStopped = false
  #inFlight = 0
  #bytesInFlight = 0
  #wake: (() => void) | undefined

  constructor(feed: Pick<Feed, 'publish'>, options: BulkOptions) {
    this.#feed = feed
    this.#options = options
    this.#place = options.from ?? BEGINNING
    this.counts = options.counts ?? { published: 0, failed: 0, unknown: 0, firstId: null, lastId: null }
  }

  get problem(): Error | undefined {
    return this.#problem?.error
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /** Reads no further. */
  stop(): void {
    this.#isStopped = true
    this.#wake?.()
  }

  /** Resolves when every job that was taken has its answer. An error of the input itself is thrown then. */
  async run(input: AsyncIterable<Buffer>): Promise<void> {
    let bad: LineError | undefined
    try {
      await this.#read(input)
    } catch (error) {
      if (error instanceof LineError) bad = error
      else if (!this.#isStopped) throw error
    } finally {
      await this.#until(() => this.#inFlight === 0)
    }
    // Not before: a job of a line before it may have been refused meanwhile.
    if (bad !== undefined) this.#fail(this.#turns, bad)
  }

  async #read(input: AsyncIterable<Buffer>): Promise<void> {
    for await (const lines of readLines(input, MAX_LINE_BYTES, this.#place)) {
      const { handed, bad } = this.#parse(lines)
      if (this.#isFull()) await this.#until(() => !this.#isFull() || this.#isStopped)
      if (this.#isStopped) return
      if (handed.jobs.length > 0) {
        if (this.#turns === 0) await this.#options.begun?.()
        void this.#publish(handed, this.#turns++)
      }
      if (bad !== undefined) throw bad
    }
  }

  /** The jobs of the lines before the first bad one. */
  #parse(lines: readonly Line[]): { handed: Handed; bad: LineError | undefined } {
    const handed: Handed = { jobs: [], lines: [], bytes: 0 }
    const { when = {} } = this.#options
    for (const line of lines) {
      const isBlank = line.text.trim() === ''
      try {
        const job = isBlank ? undefined : parseLine(line, when)
        const { jobs, bytes } = this.#place
        this.#place = { jobs: jobs + (isBlank ? 0 : 1), line: line.number, bytes: bytes + line.bytes, crc: line.crc }
        if (job === undefined) continue
        handed.jobs.push({ ...job, position: positionOf(this.#place) })
        handed.lines.push(line.number)
        handed.bytes += line.bytes
      } catch (error) {
        if (error instanceof LineError) return { handed, bad: error }
        throw error
      }
    }
    return { handed, bad: undefined }
  }

  async #publish({ jobs, lines, bytes }: Handed, turn: number): Promise<void> {
    this.#inFlight += jobs.length
    this.#bytesInFlight += bytes
    try {
      const fates = await this.#feed.publish(jobs)
      this.#count(fates.length, fates[0]?.id, fates.at(-1)?.id)
      this.#countOutcomes(fates)
    } catch (error) {
      this.#refused(error, { lines, turn })
    }
    this.#inFlight -= jobs.length
    this.#bytesInFlight -= bytes
    this.#wake?.()
    this.#options.told()
  }

  #count(published: number, firstId: string | undefined, lastId: string | undefined): void {
    this.counts.published += published
    this.counts.firstId ??= firstId ?? null
    this.counts.lastId = lastId ?? this.counts.lastId
  }

  #countOutcomes(fates: readonly FedJob[]): void {
    const counted = (of: FedJob['outcome']) => fates.filter(({ outcome }) => outcome === of).length
    const [duplicates, replaced] = [counted('duplicate'), counted('replaced')]
    if (duplicates > 0) this.counts.duplicates = (this.counts.duplicates ?? 0) + duplicates
    if (replaced > 0) this.counts.replaced = (this.counts.replaced ?? 0) + replaced
  }

  #refused(thrown: unknown, { lines, turn }: { lines: readonly number[]; turn: number }): void {
    const { counts } = this
    const { ids = [], uncertain = 0, why } = thrown as Partial<FeedError>
    const confirmed = ids.length
    this.#count(confirmed, ids[0], ids.at(-1))
    counts.unknown += uncertain
    const line = lines[confirmed]
    const isOfLine = ['ERR_PAYLOAD', 'ERR_OPTION', 'ERR_NAME'].includes(codeOf(thrown) ?? '')
    // Like a line that is no job: neither it nor those behind it were tried.
    if (isOfLine && line !== undefined) return this.#fail(turn, new LineError(line, why ?? (thrown as Error).message))
    counts.failed += lines.length - confirmed - uncertain
    this.#fail(turn, thrown instanceof Error ? thrown : new Error(String(thrown)))
  }

  #fail(turn: number, error: Error): void {
    if (this.#problem === undefined || turn < this.#problem.turn) this.#problem = { turn, error }
    this.stop()
    this.#options.failed()
  }

  #isFull(): boolean {
    return this.#inFlight >= MOST_IN_FLIGHT || this.#bytesInFlight >= MOST_BYTES_IN_FLIGHT
  }

  async #until(isSo: () => boolean): Promise<void> {
    while (!isSo()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    this.#wake = undefined
  }
}
