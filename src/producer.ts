import { randomUUID } from 'node:crypto'
import { PRODUCER_EVENT_CHANNELS, publishChannel } from './channels.ts'
import { monotonicMs } from './clock.ts'
import { PublishError } from './errors.ts'
import { Events, type ProducerEventListener } from './events.ts'
import type { JobDefinition } from './job.ts'
import { resolveLogger, withFields, type Logger } from './logger.ts'
import { bookOf, type MetricsBook } from './metrics/book.ts'
import { checkRegistry } from './metrics/metric.ts'
import { checkMiddleware } from './onion.ts'
import { refuseUnknownKeys, oneOf, wholeNumber } from './options.ts'
import type { ProducerEventName, ProducerEventPayloads } from './producer-events.ts'
import {
  checkBuffer,
  checkDurability,
  checkShare,
  PRODUCER_KNOWN,
  type AnyPublishOptions,
  type AwaitedPublishOptions,
  type BufferRules,
  type DurablePublishOptions,
  type ProducerOptions,
  type PublishManyOptions,
  type PublishOptions,
} from './producer-options.ts'
import { Batcher } from './publish/batcher.ts'
import type { Durability } from './publish/durability.ts'
import { settleLeft } from './publish/leftovers.ts'
import { publishEach } from './publish/many.ts'
import { MemoryGuard } from './publish/memory-guard.ts'
import { publishThrough, type PublishMiddleware } from './publish/middleware.ts'
import { OutageBuffer } from './publish/outage-buffer.ts'
import { Outcomes, resultOf, type BufferedJob, type PublishedJob, type PublishResult } from './publish/outcomes.ts'
import type { Outgoing, Settled } from './publish/outgoing.ts'
import { pack, type Route } from './publish/packing.ts'
import { Progress } from './publish/progress.ts'
import { Recovering } from './publish/recovering.ts'
import { manyResult, type CloseResult, type PublishedMany } from './publish/results.ts'
import { NO_OPTIONS, Router, type Named } from './publish/router.ts'
import { checkSpill } from './publish/spill-files.ts'
import { isOwed, spillLeft } from './publish/spilling.ts'
import {
  abortedError,
  behind,
  carrying,
  checkIterable,
  closedError,
  toldOf,
  type Answer,
  type Told,
} from './publish/telling.ts'
import { withSignal } from './publish/withdrawal.ts'
import { Connection } from './redis/connection.ts'
import { checkStreamName } from './redis/keys.ts'
import { fateOf } from './redis/publishing.ts'
import { listStream } from './redis/stream.ts'
import { resolveRedis } from './redis/target.ts'
import type { WithResult } from './results/options.ts'
import { Replies } from './results/replies.ts'
import { checkTracing, containedTracing, type ContainedTracing } from './tracing.ts'

/**
 * Publishes jobs. A publish that resolved is in Redis, once (with `durability: 'buffered'`: in the buffer of this process); one
 * that rejected says whether it may be there all the same. Connects at the first publish; an idle producer does not keep the
 * process running.
 * @throws OptionError at construction, on an unknown or impossible option; SpillError if the spill file is none.
 */
export class Producer<Default extends Durability = 'redis'> {
  readonly #book: MetricsBook
  readonly #connection: Connection
  readonly #logger: Logger
  readonly #events: Events<ProducerEventPayloads>
  readonly #tracing: ContainedTracing | undefined
  readonly #maxPayloadBytes: number
  readonly #rules: BufferRules
  readonly #whenStreamFull: 'wait' | 'reject'
  readonly #router: Router
  /** Undefined while there is none: a publish without any takes no further turn. */
  #middleware: readonly PublishMiddleware[] | undefined
  readonly #guard: MemoryGuard | undefined
  readonly #recovering: Recovering | undefined
  /** The results that somebody waits for. */
  readonly #replies: Replies
  /** Streams that have something to send. */
  #holders = 0
  readonly #streams = new Map<string, { readonly batcher: Batcher; readonly outcomes: Outcomes }>()
  /** What the refs of buffered jobs begin with. */
  readonly #refs = randomUUID().slice(0, 8)
  #refCount = 0
  readonly #progress = new Progress()
  #closed = false
  #closing: Promise<CloseResult> | undefined
  /** By the monotonic clock. */
  #closeAtMs = Infinity

  constructor(options: ProducerOptions<Default> = {}) {
    refuseUnknownKeys('Producer', options, PRODUCER_KNOWN)
    const target = resolveRedis(options.redis)
    const registry = checkRegistry(options.registry)
    this.#logger = resolveLogger(options.logger)
    this.#events = new Events(this.#logger, PRODUCER_EVENT_CHANNELS)
    this.#tracing = containedTracing(checkTracing(options.tracing), this.#logger)
    this.#maxPayloadBytes = wholeNumber('maxPayloadBytes', options.maxPayloadBytes, { or: 1024 * 1024, max: 2 ** 29 })
    this.#rules = checkBuffer(options.buffer)
    this.#whenStreamFull = oneOf('whenStreamFull', options.whenStreamFull, ['wait', 'reject']) ?? 'wait'
    const share = checkShare(options.maxMemoryShare)
    this.#router = new Router({
      timeoutMs: wholeNumber('timeoutMs', options.timeoutMs, { or: 10_000 }),
      durability: checkDurability(options.durability) ?? 'redis',
      buffer: this.#rules,
      batcherOf: (stream) => (this.#streams.get(stream) ?? this.#openStream(stream)).batcher,
      nowMs: () => Date.now(),
      replyTo: () => this.#replies.id,
    })
    this.#book = bookOf(registry)
    this.#connection = new Connection(target, {
      ...{ role: 'producer', socketTimeoutMs: 5000, onDemand: true },
      numbers: this.#book.connection('producer'),
    })
    const numbers = this.#book.connection('producer')
    this.#replies = new Replies({ target, commands: this.#connection, numbers, logger: this.#logger })
    const spillFiles = this.#rules.spillFile === undefined ? [] : checkSpill(this.#rules.spillFile)
    this.#guard = share === false ? undefined : new MemoryGuard(this.#connection, { share, logger: this.#logger })
    if (spillFiles.length === 0) return
    this.#recovering = new Recovering(this.#connection, spillFiles, {
      logger: this.#logger,
      onDone: (recovered) => this.#events.emit('spill:recovered', recovered),
      isHeld: () => this.#memoryFault() !== undefined,
    })
    this.#recovering.start()
  }

  /**
   * Publishes one job; publishes of the same turn travel in one batch.
   * @returns its id, once it is in Redis: in the stream, or scheduled. What else it says, and when it resolves, is a matter of
   * its `durability`.
   * @throws PublishError; `published` says whether the job may be in Redis all the same.
   */
  publish<Data, Own extends Exclude<Durability, 'buffered'>, Result = unknown>(
    job: JobDefinition<Data, unknown, string, Result> | string,
    data: NoInfer<Data>,
    options: DurablePublishOptions<Own> & AwaitedPublishOptions,
  ): Promise<PublishResult<Own> & WithResult<Result>>
  publish<Data, Result = unknown>(
    job: JobDefinition<Data, unknown, string, Result> | string,
    data: NoInfer<Data>,
    options: Default extends 'buffered' ? never : AwaitedPublishOptions,
  ): Promise<PublishResult<Default> & WithResult<Result>>
  publish<Data, Own extends Durability>(
    job: JobDefinition<Data, unknown> | string,
    data: NoInfer<Data>,
    options: DurablePublishOptions<Own>,
  ): Promise<PublishResult<Own>>
  publish<Data>(
    job: JobDefinition<Data, unknown> | string,
    data: NoInfer<Data>,
    options?: PublishOptions,
  ): Promise<PublishResult<Default>>
  publish(job: Named, data: unknown, options: AnyPublishOptions = NO_OPTIONS): Promise<PublishedJob | BufferedJob> {
    if (!publishChannel.hasSubscribers) return this.#publish(job, data, options)
    return publishChannel.tracePromise(() => this.#publish(job, data, options), toldOf(job, options, false))
  }

  /**
   * Publishes every payload of an iterable, in its order, taking no more from it than what Redis keeps up with. It waits until
   * Redis has all of them, whatever the durability of the producer.
   * @returns how many were published: all of them; and of replicas that were asked for, how many of the jobs have them.
   * @throws PublishError at the first job that fails, after the jobs on their way have their answer; `confirmed` says how
   * many are certainly in Redis. An error of the iterable itself is thrown as it is.
   */
  async publishMany<Data>(
    job: JobDefinition<Data, unknown> | string,
    items: Iterable<NoInfer<Data>> | AsyncIterable<NoInfer<Data>>,
    options: PublishManyOptions = {},
  ): Promise<PublishedMany> {
    if (!publishChannel.hasSubscribers) return this.#publishMany(job, items, options)
    return publishChannel.tracePromise(() => this.#publishMany(job, items, options), toldOf(job, options, true))
  }

  /**
   * Puts a middleware around the publishes that begin from here on; of several the first one is outermost.
   * @throws OptionError for what is no function.
   */
  use(middleware: PublishMiddleware): this {
    this.#middleware = [...(this.#middleware ?? []), checkMiddleware(middleware)]
    return this
  }

  /** Calls the listener whenever the event occurs. @throws OptionError on an event that there is not. */
  on<Name extends ProducerEventName>(name: Name, listener: ProducerEventListener<Name>): this {
    this.#events.on(name, listener)
    return this
  }

  /** The same, for the next time only. */
  once<Name extends ProducerEventName>(name: Name, listener: ProducerEventListener<Name>): this {
    this.#events.once(name, listener)
    return this
  }

  /** Takes back the last `on` or `once` of this listener, if there is one. */
  off<Name extends ProducerEventName>(name: Name, listener: ProducerEventListener<Name>): this {
    this.#events.off(name, listener)
    return this
  }

  /**
   * Takes no more jobs, waits until those that wait are in Redis or `timeoutMs` is over, and ends the connection. Closing
   * twice is fine: a second call may shorten the time, resolves once it is closed, and gives nothing back.
   */
  async close(options: { timeoutMs?: number } = {}): Promise<CloseResult> {
    refuseUnknownKeys('close', options, ['timeoutMs'])
    const untilMs = monotonicMs() + wholeNumber('timeoutMs', options.timeoutMs, { or: 5000, min: 0 })
    this.#closed = true
    this.#closeAtMs = Math.min(this.#closeAtMs, untilMs)
    if (this.#closing === undefined) return (this.#closing = this.#close())
    await this.#closing
    return { unpublished: [], spilled: 0 }
  }

  async #close(): Promise<CloseResult> {
    const streams = [...this.#streams.values()]
    const isLeft = () => streams.some(({ batcher }) => batcher.jobs > 0)
    while (isLeft() && monotonicMs() < this.#closeAtMs) await this.#progress.next()
    const left = streams.map(({ batcher, outcomes }) => ({ batcher, outcomes, ...batcher.abandon() }))
    this.#streams.clear()
    this.#replies.close()
    this.#connection.close()
    await this.#recovering?.stop()
    for (const { batcher } of streams) batcher.numbers.open.delete(batcher.buffer)
    const spilling = await spillLeft(this.#rules.spillFile, left)
    if (spilling.spillError !== undefined) {
      this.#logger.error(
        { fault: spilling.spillError.message },
        'cannot write the spill file; close() gives all jobs back',
      )
    }
    return { unpublished: settleLeft(left, (item) => spilling.spilled > 0 && isOwed(item)), ...spilling }
  }

  #publish(job: Named, data: unknown, options: AnyPublishOptions): Promise<PublishedJob | BufferedJob> {
    const layers = this.#middleware
    return new Promise((resolve, reject) => {
      if (this.#closed) throw closedError()
      const route = this.#router.route(job, options)
      if (layers === undefined) return this.#send(route, data, { resolve, reject })
      const send = (wanted: Route, sent: unknown) =>
        new Promise<PublishedJob | BufferedJob>((done, failed) =>
          this.#send(wanted, sent, { resolve: done, reject: failed }),
        )
      resolve(publishThrough({ layers, route, options, isMany: false, data }, send))
    })
  }

  #send(route: Route, data: unknown, { resolve, reject }: Answer): void {
    const mark = route.result && this.#replies.mark(route.batcher.numbers.stream)
    const settled: Settled = (answer, error, item, replicas) => {
      if (answer === undefined) return reject(error ?? closedError())
      const published = resultOf(answer, item, replicas)
      resolve(mark === undefined ? published : this.#replies.attachTo(published, route, mark))
    }
    const admitted = route.isBuffered
      ? ({ ref = '' }: Outgoing) => resolve({ ref, outcome: 'buffered' as const })
      : undefined
    if (this.#tracing === undefined) this.#push(route, data, { settled, admitted })
    else this.#pushTraced(this.#tracing, route, data, { settled, admitted })
  }

  #push(route: Route, data: unknown, told: Told): void {
    const { batcher, signal, numbers } = route
    if (signal?.aborted === true) throw abortedError()
    const item = pack(route, data, this.#maxPayloadBytes)
    // The payload's own toJSON may have closed it.
    if (this.#closed) throw closedError()
    item.settled = behind(told.ended, told.settled)
    if (route.isBuffered) this.#makeBuffered(item, route, told)
    const forgetSignal = signal && withSignal(item, batcher, signal)
    try {
      batcher.push(item)
    } catch (error) {
      forgetSignal?.()
      item.settled = undefined
      numbers.rejected += 1
      throw error
    }
  }

  /** Until it is in the buffer its caller waits, at most as long as for any publish; from then on it waits alone. */
  #makeBuffered(item: Outgoing, { batcher, maxAgeMs, timeoutMs }: Route, { admitted, ended }: Told): void {
    const outcomes = this.#streams.get(batcher.numbers.stream)?.outcomes
    item.ref = `${this.#refs}-${(this.#refCount += 1)}`
    item.deadlineMs = item.publishedAtMs + (batcher.buffer.hasRoom(item.bytes) ? maxAgeMs : timeoutMs)
    item.admitted = () => {
      item.deadlineMs = item.publishedAtMs + maxAgeMs
      item.settled = behind(ended, outcomes?.settleBuffered)
      admitted?.(item)
    }
  }

  #pushTraced(tracing: ContainedTracing, route: Route, data: unknown, told: Told): void {
    const traced = tracing.publish({ stream: route.batcher.numbers.stream, job: route.name, isMany: false })
    if (traced === undefined) return this.#push(route, data, told)
    const ended: Settled = (answer, error) => {
      if (answer === undefined) traced.end({ published: 0, error: error ?? closedError() })
      else traced.end({ published: 1, id: fateOf(answer).id })
    }
    try {
      this.#push({ ...route, ...carrying(traced) }, data, { ...told, ended })
    } catch (error) {
      traced.end({ published: 0, error })
      throw error
    }
  }

  async #publishMany<Data>(
    job: Named,
    items: Iterable<Data> | AsyncIterable<Data>,
    options: PublishManyOptions,
  ): Promise<PublishedMany> {
    if (this.#closed) throw closedError()
    const route = this.#router.routeMany(job, options)
    checkIterable(items)
    const layers = this.#middleware
    if (layers === undefined) return this.#sendMany(route, items)
    const about = { layers, route, options, isMany: true, data: undefined }
    return publishThrough(about, (wanted) => this.#sendMany(wanted, items))
  }

  async #sendMany<Data>(route: Route, items: Iterable<Data> | AsyncIterable<Data>): Promise<PublishedMany> {
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

  async #publishEach<Data>(route: Route, items: Iterable<Data> | AsyncIterable<Data>): Promise<PublishedMany> {
    const done = await publishEach(items, {
      batcher: route.batcher,
      pack: (data) => pack(route, data, this.#maxPayloadBytes),
      progressed: () => this.#progress.next(),
      isClosed: () => this.#closed,
      signal: route.signal,
    })
    return manyResult(done, route)
  }

  #openStream(stream: string): { batcher: Batcher; outcomes: Outcomes } {
    checkStreamName(stream)
    let listed = false
    const logger = withFields(this.#logger, { stream })
    const numbers = this.#book.producer(stream, logger)
    const outcomes = new Outcomes(numbers, { events: this.#events, logger, rules: this.#rules })
    const buffer = new OutageBuffer({
      rules: this.#rules,
      numbers,
      logger,
      reject: (item, error) => outcomes.reject(item, error),
      shed: (item, error) => outcomes.shed(item, error),
      onLevel: (event, level) => this.#events.emit(event, level),
    })
    const batcher = new Batcher(this.#connection, {
      buffer,
      numbers,
      logger,
      whenStreamFull: this.#whenStreamFull,
      memoryFault: () => this.#memoryFault(),
      before: () => this.#recovering?.before(stream),
      hold: (held) => this.#hold(held),
      onProgress: (appended) => {
        if (appended && !listed) void listStream(this.#connection.client, stream)
        listed ||= appended
        this.#progress.made()
      },
      resolve: (item, answer, replicated, nowMs) => outcomes.resolve(item, answer, replicated, nowMs),
      reject: (item, error) => outcomes.reject(item, error),
    })
    numbers.open.add(buffer)
    const opened = { batcher, outcomes }
    this.#streams.set(stream, opened)
    return opened
  }

  #hold(held: boolean): void {
    this.#connection.hold(held)
    this.#holders += held ? 1 : -1
    if (this.#holders === 0) this.#guard?.stop()
  }

  #memoryFault(): string | undefined {
    this.#guard?.start()
    const fault = this.#guard?.fault
    return fault && `Redis uses ${fault.usedBytes} bytes of ${fault.maxBytes}, more than its share of ${fault.share}`
  }
}
