import { Batcher, type Outgoing } from './batcher.ts'
import { publishChannel, type PublishMessage } from './channels.ts'
import { monotonicMs } from './clock.ts'
import { resolveDue } from './due.ts'
import { messageOf, OptionError, PublishError, type ErrorCode } from './errors.ts'
import { checkJobName, type JobDefinition } from './job.ts'
import { resolveLogger, withFields, type Logger } from './logger.ts'
import { bookOf, type MetricsBook } from './metrics/book.ts'
import { checkRegistry, type MetricsRegistry } from './metrics/metric.ts'
import type { ProducerNumbers, PublishNumbers } from './metrics/producer-numbers.ts'
import { publishEach } from './publish-many.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { Connection } from './redis/connection.ts'
import { resolveRedis, type RedisOption } from './redis/target.ts'
import { checkStreamName } from './redis/keys.ts'
import { fateOf } from './redis/publishing.ts'
import { listStream } from './redis/stream.ts'
import {
  checkTracing,
  containedTracing,
  type ContainedPublish,
  type ContainedTracing,
  type Tracing,
} from './tracing.ts'
import { encodeJob, traceFields } from './wire.ts'

export interface ProducerOptions {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** How long a publish may take before it fails, in ms. @default 10000 */
  timeoutMs?: number
  /** Largest payload, as JSON, in bytes. @default 1048576 */
  maxPayloadBytes?: number
  /** Most jobs that may wait for Redis, per stream; further ones are refused. @default 100000 */
  maxWaitingJobs?: number
  /** Most bytes of payload that may wait for Redis, per stream; further jobs are refused. @default 67108864 */
  maxWaitingBytes?: number
  /** A prom-client Registry that the producer's metrics are put into. @default none */
  registry?: MetricsRegistry
  /** What traces the publishes: `openTelemetry()` of `millrace/otel`. @default none */
  tracing?: Tracing
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

export interface PublishOptions {
  /** The stream to publish to. @default the job definition's */
  stream?: string
  /** How long this publish may take, in ms. @default the producer's timeoutMs */
  timeoutMs?: number
  /** How long the job waits before it is delivered, in ms from when Redis has it; up to 10 years. @default 0 */
  delayMs?: number
  /** From when on the job is delivered: a Date or ms since the epoch, at most 10 years ahead; past is now. @default now */
  runAt?: Date | number
}

/** A publish that succeeded: the job is in Redis. */
export interface PublishResult {
  /** The job's id; it stays the same through everything that happens to the job. */
  readonly id: string
  /** `scheduled`: it waits for its time. `added`: it is in the stream, since it had no time to wait for, or that was over. */
  readonly outcome: 'added' | 'scheduled'
}

/** What became of the jobs that were waiting when a producer was closed. */
export interface CloseResult {
  /** Jobs that are not in Redis, or may not be; their publishes were rejected. */
  readonly unpublished: number
}

/**
 * Publishes jobs. A publish that resolved is in Redis, once; one that rejected says whether it may be there all the same.
 * Connects at the first publish; an idle producer does not keep the process running.
 * @throws OptionError at construction, on an unknown or impossible option.
 */
export class Producer {
  readonly #book: MetricsBook
  readonly #connection: Connection
  readonly #logger: Logger
  readonly #tracing: ContainedTracing | undefined
  readonly #timeoutMs: number
  readonly #maxPayloadBytes: number
  readonly #maxWaitingJobs: number
  readonly #maxWaitingBytes: number
  readonly #batchers = new Map<string, Batcher>()
  readonly #lines = new Map<ProducerNumbers, Line>()
  readonly #names = new Set<string>()
  #progress = new Set<() => void>()
  #closed = false

  constructor(options: ProducerOptions = {}) {
    refuseUnknownKeys('Producer', options, KNOWN)
    const target = resolveRedis(options.redis)
    const registry = checkRegistry(options.registry)
    this.#logger = resolveLogger(options.logger)
    this.#tracing = containedTracing(checkTracing(options.tracing), this.#logger)
    this.#timeoutMs = wholeNumber('timeoutMs', options.timeoutMs, { or: 10_000 })
    this.#maxPayloadBytes = wholeNumber('maxPayloadBytes', options.maxPayloadBytes, { or: 1024 * 1024, max: 2 ** 29 })
    this.#maxWaitingJobs = wholeNumber('maxWaitingJobs', options.maxWaitingJobs, { or: 100_000 })
    this.#maxWaitingBytes = wholeNumber('maxWaitingBytes', options.maxWaitingBytes, { or: 64 * 1024 * 1024 })
    this.#book = bookOf(registry)
    this.#connection = new Connection(target, {
      role: 'producer',
      socketTimeoutMs: 5000,
      onDemand: true,
      numbers: this.#book.connection('producer'),
    })
  }

  /**
   * Publishes one job; publishes of the same turn travel in one batch.
   * @returns its id, once it is in Redis: in the stream, or scheduled.
   * @throws PublishError; `published` says whether the job may be in Redis all the same.
   */
  publish<Data>(job: JobDefinition<Data> | string, data: Data, options = NO_OPTIONS): Promise<PublishResult> {
    if (!publishChannel.hasSubscribers) return this.#publish(job, data, options)
    return publishChannel.tracePromise(() => this.#publish(job, data, options), toldOf(job, options, false))
  }

  /**
   * Publishes every payload of an iterable, in its order, taking no more from it than what Redis keeps up with.
   * @returns how many were published: all of them.
   * @throws PublishError at the first job that fails, after the jobs on their way have their answer; `confirmed` says how
   * many are certainly in Redis. An error of the iterable itself is thrown as it is.
   */
  async publishMany<Data>(
    job: JobDefinition<Data> | string,
    items: Iterable<Data> | AsyncIterable<Data>,
    options: PublishOptions = {},
  ): Promise<{ published: number }> {
    if (!publishChannel.hasSubscribers) return this.#publishMany(job, items, options)
    return publishChannel.tracePromise(() => this.#publishMany(job, items, options), toldOf(job, options, true))
  }

  /**
   * Takes no more jobs, waits until those that wait are in Redis or `timeoutMs` is over, and ends the connection. Closing
   * twice is fine.
   */
  async close({ timeoutMs }: { timeoutMs?: number } = {}): Promise<CloseResult> {
    const untilMs = monotonicMs() + wholeNumber('timeoutMs', timeoutMs, { or: 5000, min: 0 })
    this.#closed = true
    const batchers = [...this.#batchers.values()]
    const left = () => batchers.reduce((sum, batcher) => sum + batcher.jobs, 0)
    const rejected = () => batchers.reduce((sum, batcher) => sum + batcher.rejected, 0)
    const before = rejected()
    while (left() > 0 && monotonicMs() < untilMs) await this.#progressed()
    for (const batcher of batchers) batcher.abandon('the producer was closed')
    this.#connection.close()
    for (const [numbers, line] of this.#lines) numbers.open.delete(line)
    return { unpublished: rejected() - before }
  }

  #publish(job: Named, data: unknown, options: PublishOptions): Promise<PublishResult> {
    return new Promise((resolve, reject) => {
      const route = this.#route(job, options)
      const settled: Outgoing['settled'] = (answer, error) =>
        answer === undefined ? reject(error ?? closedError()) : resolve(fateOf(answer))
      if (this.#tracing === undefined) this.#push(route, data, settled)
      else this.#pushTraced(this.#tracing, route, data, settled)
    })
  }

  #push(route: Route, data: unknown, settled: Outgoing['settled']): void {
    const item = this.#pack(route, data)
    item.settled = settled
    this.#checkRoom(route)
    route.batcher.push(item)
  }

  #pushTraced(tracing: ContainedTracing, route: Route, data: unknown, settled: NonNullable<Outgoing['settled']>): void {
    const traced = tracing.publish({ stream: route.batcher.numbers.stream, job: route.name, isMany: false })
    if (traced === undefined) return this.#push(route, data, settled)
    try {
      this.#push({ ...route, ...carrying(traced) }, data, (answer, error) => {
        if (answer === undefined) traced.end({ published: 0, error: error ?? closedError() })
        else traced.end({ published: 1, id: fateOf(answer).id })
        settled(answer, error)
      })
    } catch (error) {
      traced.end({ published: 0, error })
      throw error
    }
  }

  async #publishMany<Data>(
    job: Named,
    items: Iterable<Data> | AsyncIterable<Data>,
    options: PublishOptions,
  ): Promise<{ published: number }> {
    const route = this.#route(job, options)
    checkIterable(items)
    const traced = this.#tracing?.publish({ stream: route.batcher.numbers.stream, job: route.name, isMany: true })
    if (traced === undefined) return this.#publishEach(route, items)
    try {
      const done = await this.#publishEach({ ...route, ...carrying(traced) }, items)
      traced.end(done)
      return done
    } catch (error) {
      traced.end({ published: error instanceof PublishError ? (error.confirmed ?? 0) : 0, error })
      throw error
    }
  }

  async #publishEach<Data>(route: Route, items: Iterable<Data> | AsyncIterable<Data>): Promise<{ published: number }> {
    const { confirmed, cut, ...ended } = await publishEach(items, {
      batcher: route.batcher,
      pack: (data) => this.#pack(route, data),
      progressed: () => this.#progressed(),
      isClosed: () => this.#closed,
    })
    const failure = ended.failure ?? (cut ? closedError() : undefined)
    if (failure === undefined) return { published: confirmed }
    const { code, message, published, cause } = failure
    throw new PublishError(code, `${message} (${confirmed} jobs were published before)`, {
      published,
      confirmed,
      cause,
    })
  }

  #route(job: Named, options: PublishOptions): Route {
    if (this.#closed) throw closedError()
    try {
      if (options !== NO_OPTIONS) refuseUnknownKeys('publish', options, PUBLISH_KNOWN)
      const name = typeof job === 'string' ? job : job?.name
      if (!this.#names.has(name)) this.#rememberName(checkJobName(name))
      const stream = options.stream ?? (typeof job === 'string' ? undefined : job.stream)
      if (stream === undefined) throw new OptionError(`expected \`stream\`: job ${name} does not say where it goes`)
      const timeoutMs = wholeNumber('timeoutMs', options.timeoutMs, { or: this.#timeoutMs })
      const due = resolveDue(options, Date.now())
      const batcher = this.#batchers.get(stream) ?? this.#openStream(stream)
      const numbers = batcher.numbers.jobs.of(name)
      return { batcher, name, timeoutMs, due, trace: undefined, traceBytes: 0, numbers }
    } catch (error) {
      throw error instanceof OptionError ? new PublishError(error.code, error.message, { published: 'no' }) : error
    }
  }

  #openStream(stream: string): Batcher {
    checkStreamName(stream)
    let listed = false
    const logger = withFields(this.#logger, { stream })
    const numbers = this.#book.producer(stream, logger)
    const onProgress = (appended: boolean) => {
      if (appended && !listed) void listStream(this.#connection.client, stream)
      listed ||= appended
      for (const told of this.#progress) told()
    }
    const batcher = new Batcher(this.#connection, numbers, { logger, onProgress })
    this.#batchers.set(stream, batcher)
    const line: Line = {
      get jobs() {
        return batcher.jobs
      },
      mostJobs: this.#maxWaitingJobs,
    }
    this.#lines.set(numbers, line)
    numbers.open.add(line)
    return batcher
  }

  /** Names that were checked need no second check; hostile callers must not make the set grow without end. */
  #rememberName(name: string): void {
    if (this.#names.size >= 1000) this.#names.clear()
    this.#names.add(name)
  }

  #pack({ name, timeoutMs, due, trace, traceBytes, numbers }: Route, data: unknown): Outgoing {
    const publishedAtMs = monotonicMs()
    let json: string | undefined
    try {
      json = JSON.stringify(data)
    } catch (error) {
      throw refused(numbers, `expected the data of ${name} to be JSON-able: ${messageOf(error).split('\n')[0]}`)
    }
    if (json === undefined) {
      throw refused(numbers, `expected the data of ${name} to be JSON-able, got ${shown(data)}; null is no data`)
    }
    const bytes = Buffer.byteLength(json)
    if (bytes > this.#maxPayloadBytes) {
      throw refused(
        numbers,
        `expected the data of ${name} to be at most ${this.#maxPayloadBytes} bytes of JSON, got ${bytes}; ` +
          'store large data elsewhere and publish where it is',
      )
    }
    return {
      fields: trace === undefined ? encodeJob(name, json) : [...encodeJob(name, json), ...trace],
      due,
      bytes: bytes + name.length + traceBytes,
      numbers,
      publishedAtMs,
      deadlineMs: publishedAtMs + timeoutMs,
      settled: undefined,
    }
  }

  #checkRoom({ batcher, numbers }: Route): void {
    if (batcher.jobs < this.#maxWaitingJobs && batcher.bytes < this.#maxWaitingBytes) return
    throw refused(
      numbers,
      `${batcher.jobs} jobs (${batcher.bytes} bytes) wait for Redis already; the job is not in Redis, publish it later`,
      'ERR_PRODUCER_FULL',
    )
  }

  /** Resolves when a batch was answered, or soon: what it waits for may also have timed out. */
  #progressed(): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#progress.delete(done)
        resolve()
      }
      const timer = setTimeout(done, 50)
      this.#progress.add(done)
    })
  }
}

/** Where a publish goes, and where it is counted. */
interface Route {
  readonly batcher: Batcher
  readonly name: string
  readonly timeoutMs: number
  /** As `Item.due`. */
  readonly due: string | undefined
  /** The fields that carry its trace, if it is traced. */
  readonly trace: readonly string[] | undefined
  readonly traceBytes: number
  readonly numbers: PublishNumbers
}

type Named = Pick<JobDefinition, 'name' | 'stream'> | string

function carrying({ context }: ContainedPublish): Pick<Route, 'trace' | 'traceBytes'> {
  const trace = context && traceFields(context)
  return { trace, traceBytes: trace === undefined ? 0 : trace.join('').length }
}

/** What its channel says of a publish whose options nobody has checked yet. */
function toldOf(job: Named, options: PublishOptions, isMany: boolean): PublishMessage {
  const [name, stream] = typeof job === 'string' ? [job, undefined] : [job?.name, job?.stream]
  return { stream: options?.stream ?? stream, job: name, isMany }
}

/** What the metrics tell of a stream's line of jobs. */
interface Line {
  readonly jobs: number
  readonly mostJobs: number
}

/** A job that goes nowhere; it is counted. */
function refused(numbers: PublishNumbers, why: string, code: ErrorCode = 'ERR_PAYLOAD'): PublishError {
  numbers.rejected += 1
  return new PublishError(code, why, { published: 'no' })
}

const KNOWN = [
  'redis',
  'timeoutMs',
  'maxPayloadBytes',
  'maxWaitingJobs',
  'maxWaitingBytes',
  'registry',
  'tracing',
  'logger',
]
const PUBLISH_KNOWN = ['stream', 'timeoutMs', 'delayMs', 'runAt']
const NO_OPTIONS: PublishOptions = {}

/** A text is iterable too, but nobody means to publish its letters. */
function checkIterable(items: unknown): void {
  const given = typeof items === 'object' && items !== null ? items : {}
  if (Symbol.iterator in given || Symbol.asyncIterator in given) return
  throw new PublishError('ERR_OPTION', `expected the items of publishMany to be an iterable, got ${shown(items)}`)
}

function closedError(): PublishError {
  return new PublishError('ERR_PRODUCER_CLOSED', 'the producer is closed; the job is not in Redis', { published: 'no' })
}
