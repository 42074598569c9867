import { defineJob, type JobDefinition, type Producer } from '../src/index.ts'
import { codeOf } from './exit.ts'
import { parseZonedInstant, ZONED_FORM } from './instant.ts'
import { LineError, readLines, type Line } from './ndjson.ts'

/**
 * Publishes the jobs of an NDJSON stream: a line {"job":…,"data":…} is a job, a blank line is none; `delayMs` or `runAt` says
 * when it is due. Reads no further ahead than what is in flight allows, so memory stays the same however long the input is.
 * Stops reading at the first line or publish that fails, and at `stop()`; what is in flight then still gets its answer and
 * is counted.
 */

const MAX_LINE_BYTES = 2 * 1024 * 1024
/** Only lines from here on can be over the producer's limit, even if their numbers get longer when they are written out. */
const LARGE_LINE_BYTES = 100_000
const MOST_IN_FLIGHT = 1000
const MOST_BYTES_IN_FLIGHT = 16 * 1024 * 1024
/** The first publish tells whether Redis is there at all, which nobody should wait longer for. */
const REACH_MS = 5000
/** Job names that are remembered as checked; a file with more different ones is only slower. */
const MOST_NAMES = 1000

export interface BulkCounts {
  published: number
  /** Not in Redis. */
  failed: number
  /** In Redis or not. */
  unknown: number
  firstId: string | null
  lastId: string | null
}

/** When a job is due; now if it does not say. */
export interface When {
  readonly delayMs?: number
  readonly runAt?: number
}

interface LineJob {
  readonly job: JobDefinition
  readonly data: unknown
  /** Undefined where the line does not say. */
  readonly when: When | undefined
}

export class BulkPublish {
  readonly counts: BulkCounts = { published: 0, failed: 0, unknown: 0, firstId: null, lastId: null }
  /** The first thing that went wrong: a LineError, or the error of a publish. */
  problem: Error | undefined
  readBytes = 0
  readonly #producer: Pick<Producer, 'publish'>
  readonly #stream: string
  readonly #timeoutMs: number
  readonly #when: When
  readonly #told: () => void
  readonly #failed: () => void
  readonly #jobs = new Map<string, JobDefinition>()
  #isStopped = false
  #inFlight = 0
  #bytesInFlight = 0
  #wake: (() => void) | undefined

  /**
   * `when` is for lines that do not say; `told` is called whenever a job has got its answer, `failed` when nothing more is to
   * be read.
   */
  constructor(
    producer: Pick<Producer, 'publish'>,
    stream: string,
    { timeoutMs, when = {}, told, failed }: { timeoutMs: number; when?: When; told: () => void; failed: () => void },
  ) {
    this.#producer = producer
    this.#stream = stream
    this.#timeoutMs = timeoutMs
    this.#when = when
    this.#told = told
    this.#failed = failed
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
    try {
      await this.#read(input)
    } catch (error) {
      if (error instanceof LineError) this.#fail(error)
      else if (!this.#isStopped) throw error
    } finally {
      await this.#until(() => this.#inFlight === 0)
    }
  }

  async #read(input: AsyncIterable<Buffer>): Promise<void> {
    let isFirst = true
    for await (const lines of readLines(input, MAX_LINE_BYTES)) {
      for (const line of lines) {
        this.readBytes += line.bytes
        if (line.text.trim() === '') continue
        const parsed = this.#parse(line)
        if (this.#isFull()) await this.#until(() => !this.#isFull() || this.#isStopped)
        if (this.#isStopped) return
        this.#publish(line, parsed, isFirst)
        if (isFirst) await this.#until(() => this.#inFlight === 0)
        // A payload that is too large, or a time that is none, is refused at once; here is when we hear of it, before another
        // line is taken.
        else if (line.bytes > LARGE_LINE_BYTES || parsed.when !== undefined) await Promise.resolve()
        isFirst = false
      }
    }
  }

  #publish(line: Line, { job, data, when = this.#when }: LineJob, isFirst: boolean): void {
    this.#inFlight += 1
    this.#bytesInFlight += line.bytes
    const timeoutMs = isFirst ? Math.min(this.#timeoutMs, REACH_MS) : this.#timeoutMs
    const answered = () => {
      this.#inFlight -= 1
      this.#bytesInFlight -= line.bytes
      this.#wake?.()
      this.#told()
    }
    this.#producer.publish(job, data, { stream: this.#stream, timeoutMs, ...when }).then(
      ({ id }) => {
        this.counts.published += 1
        this.counts.firstId ??= id
        this.counts.lastId = id
        answered()
      },
      (error: unknown) => {
        this.#refused(line, error)
        answered()
      },
    )
  }

  #refused(line: Line, error: unknown): void {
    const refusal = error instanceof Error ? error : new Error(String(error))
    const code = codeOf(refusal)
    if (code === 'ERR_PAYLOAD' || code === 'ERR_OPTION') return this.#fail(new LineError(line.number, refusal.message))
    if ((refusal as { published?: unknown }).published === 'unknown') this.counts.unknown += 1
    else this.counts.failed += 1
    this.#fail(refusal)
  }

  #fail(problem: Error): void {
    this.problem ??= problem
    this.stop()
    this.#failed()
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

  #parse({ number, text }: Line): LineJob {
    const wanted = 'expected {"job":"send-receipt","data":…}'
    let parsed: unknown
    try {
      parsed = JSON.parse(text)
    } catch (error) {
      // Without the parser's own words, which quote the line: it may be a payload.
      const position = /position \d+/.exec((error as Error).message)?.[0]
      throw new LineError(number, `${wanted}, got what is not JSON${position === undefined ? '' : ` at ${position}`}`)
    }
    if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
      throw new LineError(number, `${wanted}, got ${Array.isArray(parsed) ? 'an array' : `a ${typeof parsed}`}`)
    }
    const { job, data = null, delayMs, runAt, ...others } = parsed as Partial<Record<string, unknown>>
    const [unknownKey] = Object.keys(others)
    if (unknownKey !== undefined) {
      throw new LineError(
        number,
        `unknown key ${JSON.stringify(unknownKey.slice(0, 60))} (known: job, data, delayMs, runAt)`,
      )
    }
    if (job === undefined) throw new LineError(number, `${wanted}, got no job`)
    return { job: this.#jobNamed(number, job), data, when: whenOf(number, delayMs, runAt) }
  }

  #jobNamed(number: number, name: unknown): JobDefinition {
    const known = this.#jobs.get(name as string)
    if (known !== undefined) return known
    try {
      const job = defineJob(name as string)
      if (this.#jobs.size >= MOST_NAMES) this.#jobs.clear()
      this.#jobs.set(job.name, job)
      return job
    } catch (error) {
      throw new LineError(number, (error as Error).message)
    }
  }
}

/** What is no number is left for the producer to refuse, in its words. */
function whenOf(number: number, delayMs: unknown, runAt: unknown): When | undefined {
  if (delayMs === undefined && runAt === undefined) return undefined
  const atMs = typeof runAt === 'string' ? parseZonedInstant(runAt) : runAt
  if (runAt !== undefined && atMs === undefined) {
    throw new LineError(number, `expected \`runAt\` to be ${ZONED_FORM}, got another text`)
  }
  return { ...(delayMs !== undefined && { delayMs }), ...(atMs !== undefined && { runAt: atMs }) } as When
}
