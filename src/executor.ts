import { monotonicMs } from './clock.ts'
import type { Cancelled } from './cancelled.ts'
import { runChannel } from './channels.ts'
import type { WorkerCounts } from './counts.ts'
import { decide, type Ended, type Outcome, type Run } from './decide.ts'
import type { Delivery } from './delivery.ts'
import { jobEventOf, type Events } from './events.ts'
import { CancelledError, JobTimeoutError, messageOf, StoppingError, textOf } from './errors.ts'
import type { Holdings } from './holdings.ts'
import type { Handler } from './job.ts'
import type { Logger } from './logger.ts'
import { NO_JOB } from './metrics/job-names.ts'
import type { JobNumbers, WorkerNumbers } from './metrics/worker-numbers.ts'
import { timeOf } from './redis/entry-id.ts'
import { mergeRetry, type RetryOptions } from './retry.ts'
import type { ServerClock } from './server-clock.ts'
import type { Settler } from './settler.ts'
import type { ContainedTracing } from './tracing.ts'
import { decodeJob, decodeRaw, jobIdOf, type Malformed, type WireJob } from './wire.ts'

/**
 * One delivery from start to settled: decode, find its handler, run it under its timeout and signal, decide, settle. The
 * order of the steps is the specification. Not async: an await per step would cost more than most of the steps.
 *
 * A handler that is not done when its time is over has its signal aborted and its lease no longer renewed: the job runs on
 * another worker. Its slot stays taken until the handler ends, since it still uses what a running handler uses; one that
 * goes on for OVERDUE_MS more is reported.
 */
export interface ExecutorDeps {
  readonly handlers: ReadonlyMap<string, Handler>
  readonly holdings: Holdings
  readonly settler: Settler
  readonly counts: WorkerCounts
  readonly numbers: WorkerNumbers
  readonly clock: ServerClock
  readonly logger: Logger
  readonly events: Events
  readonly cancelled: Cancelled
  readonly tracing: ContainedTracing | undefined
  readonly timeoutMs: number | false
  /** What a job's own definition leaves open. */
  readonly retry: RetryOptions
  readonly maxDeliveries: () => number
  /** The raw fields of an entry whose text may not be its bytes; undefined if it is gone. */
  readonly readRaw: (delivery: Delivery) => Promise<Buffer[] | undefined>
  /** The delivery needs its slot no more. */
  readonly onEnded: () => void
}

/** What jobs of one name share. */
interface JobKind {
  readonly name: string
  readonly numbers: JobNumbers
  readonly handler: Handler | undefined
  readonly retry: RetryOptions
}

/** How long a handler may go on after its signal was aborted before it is said not to heed it. */
const OVERDUE_MS = 5000

export class Executor {
  readonly #deps: ExecutorDeps
  /** While a run's end is being dealt with: when it was. */
  #endedAtMs = 0
  #lastKind: JobKind | undefined

  constructor(deps: ExecutorDeps) {
    this.#deps = deps
  }

  /** Runs a delivery that has its fields; returns at once, `onEnded` is called when the slot is free again. */
  start(delivery: Delivery): void {
    const decoded = decodeJob(delivery.entryId, delivery.fields ?? [])
    if (decoded.kind === 'suspect') void this.#startRaw(delivery)
    else this.#startDecoded(delivery, decoded)
  }

  /** Dead-letters a claimed delivery that has used up its deliveries, without running it. */
  async buryUnrun(delivery: Delivery): Promise<void> {
    const raw = (await this.#deps.readRaw(delivery)) ?? []
    const decoded = decodeRaw(delivery.entryId, raw)
    const kind = decoded.kind === 'job' ? this.#kindOf(decoded.name) : undefined
    const fields = raw.map((field) => field.toString())
    this.#identify(delivery, jobIdOf(delivery.entryId, fields), kind)
    if (decoded.kind === 'job') this.#know(delivery, decoded)
    const why = `delivered ${delivery.deliveries} times and its workers went away before it had an outcome`
    this.#deps.settler.fail(delivery, { kind: 'dead', reason: 'deliveries', error: new Error(why) })
  }

  /** Ends the runs that are past their time. */
  endOverdue(): void {
    const nowMs = monotonicMs()
    for (const delivery of this.#deps.holdings.underWay()) {
      if (delivery.ended !== undefined) this.#sayOverdue(delivery, nowMs)
      else if (nowMs - delivery.startedAtMs >= delivery.timeoutMs) this.#timedOut(delivery)
    }
  }

  /** Runs that go on though their signal was aborted: they hold slots, and nothing comes of it. */
  get overdue(): number {
    return this.#deps.holdings.underWay().filter(({ ended }) => ended !== undefined).length
  }

  #timedOut(delivery: Delivery): void {
    const { stream, id, timeoutMs } = delivery
    this.#deps.counts.timedOut += 1
    delivery.count('timed_out')
    this.#deps.holdings.abandon(delivery)
    delivery.end(new JobTimeoutError(stream, id, timeoutMs))
    const about = { ...jobEventOf(delivery), timeoutMs }
    this.#deps.logger.warn(about, 'job ran out of time: its signal is aborted and its lease no longer renewed')
    this.#deps.events.emit('job:timed-out', about)
  }

  #sayOverdue(delivery: Delivery, nowMs: number): void {
    if (!delivery.becomesOverdue(nowMs, OVERDUE_MS)) return
    const about = { ...jobEventOf(delivery), ranMs: Math.round(nowMs - delivery.startedAtMs) }
    this.#deps.logger.warn(
      { ...about, why: delivery.ended?.message ?? '' },
      'the handler does not heed its aborted signal: its slot stays taken until it ends',
    )
    this.#deps.events.emit('job:overdue', about)
    // It may never end, and a span that does not is never seen.
    delivery.traced?.end('overdue', delivery.ended)
  }

  #startDecoded(delivery: Delivery, decoded: WireJob | Malformed): void {
    delivery.startedAtMs = this.#endedAtMs === 0 ? monotonicMs() : this.#endedAtMs
    if (decoded.kind !== 'job') {
      this.#identify(delivery, jobIdOf(delivery.entryId, delivery.fields ?? []))
      if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
      return this.#ended(delivery, { kind: 'malformed', malformed: decoded })
    }
    const kind = this.#kindOf(decoded.name)
    this.#identify(delivery, decoded.id, kind)
    this.#know(delivery, decoded)
    const { handler } = kind
    const timeoutMs = handler?.job.timeoutMs ?? this.#deps.timeoutMs
    delivery.timeoutMs = timeoutMs === false ? Infinity : timeoutMs
    if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
    if (this.#deps.cancelled.has(delivery.id)) return this.#ended(delivery, { kind: 'cancelled' })
    if (handler === undefined) return this.#ended(delivery, { kind: 'unknown-job' })
    this.#run(delivery, handler, decoded.data)
  }

  /** The handler is called here. */
  #run(delivery: Delivery, handler: Handler, data: unknown): void {
    this.#began(delivery)
    const { tracing } = this.#deps
    if (tracing !== undefined) delivery.traced = tracing.process(delivery)
    const isObserved = delivery.traced !== undefined || runChannel.hasSubscribers
    let awaited: Promise<unknown> | undefined
    try {
      const result = isObserved ? runObserved(delivery, handler, data) : handler.run(data, delivery)
      // A promise settles once; what merely looks like one may not.
      if (isThenable(result)) awaited = Promise.resolve(result)
    } catch (error) {
      return this.#returned(delivery, { kind: 'failed', error })
    }
    if (awaited === undefined) return this.#returned(delivery, COMPLETED)
    awaited.then(
      () => this.#returned(delivery, COMPLETED),
      (error: unknown) => this.#returned(delivery, { kind: 'failed', error }),
    )
  }

  #began(delivery: Delivery): void {
    const { numbers, clock, events } = this.#deps
    const { startedAtMs, entryId } = delivery
    numbers.started(startedAtMs)
    if (events.has('job:started')) events.emit('job:started', jobEventOf(delivery))
    // Another delivery has not waited: it ran before, and its worker went away.
    if (delivery.deliveries > 1) return
    const readyMs = delivery.earlier?.dueMs ?? (entryId === delivery.id ? delivery.publishedMs : timeOf(entryId))
    delivery.numbers?.wait.observe(Math.max(0, clock.at(startedAtMs) - readyMs) / 1000)
  }

  #returned(delivery: Delivery, run: Run): void {
    const { numbers } = delivery
    const endedAtMs = monotonicMs()
    const ranMs = this.#deps.numbers.ended(delivery.startedAtMs, endedAtMs)
    if (numbers !== undefined) {
      const duration = run.kind === 'completed' ? numbers.okDuration : numbers.errorDuration
      duration.observe(ranMs / 1000)
    }
    if (run.kind === 'failed' && this.#deps.events.has('job:failed')) {
      this.#deps.events.emit('job:failed', { ...jobEventOf(delivery), error: run.error })
    }
    // What takes the slot over starts in this call, and so at this moment: one reading of the clock for both.
    this.#endedAtMs = endedAtMs
    try {
      this.#ended(delivery, run)
    } finally {
      this.#endedAtMs = 0
    }
  }

  #ended(delivery: Delivery, run: Run): void {
    const { settler, holdings, onEnded } = this.#deps
    const outcome = run.kind === 'completed' ? COMPLETED : this.#decided(delivery, run)
    this.#count(delivery, run, outcome)
    if (delivery.traced !== undefined) delivery.traced.end(outcome.kind, errorOf(delivery, run, outcome))
    switch (outcome.kind) {
      case 'completed':
        settler.complete(delivery)
        break
      case 'left':
        holdings.release(delivery)
        break
      case 'handed-back':
        // Still held as running: the stop, which waits for this end, hands it back.
        break
      case 'retry':
      case 'dead':
      case 'cancelled':
        settler.fail(delivery, outcome)
        break
    }
    onEnded()
  }

  /** Never throws: a slot that is not given back is lost for good. */
  #decided(delivery: Delivery, run: Run): Outcome {
    try {
      return this.#decide(delivery, run)
    } catch (error) {
      const about = { ...jobEventOf(delivery), fault: messageOf(error) }
      this.#deps.logger.error(about, 'cannot tell what becomes of a job')
      return { kind: 'left' }
    }
  }

  #decide(delivery: Delivery, run: Run): Outcome {
    const { clock, maxDeliveries, logger } = this.#deps
    const { id, name, attempt, publishedMs, firstFailedMs, deliveries } = delivery
    const nowMs = clock.at(monotonicMs())
    const outcome = decide(
      run.kind === 'failed' ? { kind: 'failed', error: causeOf(run.error, delivery.ended) } : run,
      {
        deliveries,
        maxDeliveries: maxDeliveries(),
        ended: endOf(delivery.ended),
        attempt: { id, name, attempt, publishedMs, firstFailedMs: firstFailedMs ?? nowMs },
        retry: run.kind === 'failed' ? this.#kindOf(name).retry : {},
      },
      { nowMs, chance: Math.random() },
    )
    const isFailure = outcome.kind === 'retry' || (outcome.kind === 'dead' && run.kind === 'failed')
    if (isFailure) delivery.failed(nowMs)
    if ('complaint' in outcome && outcome.complaint !== undefined) {
      const about = { ...jobEventOf(delivery), complaint: outcome.complaint }
      logger.error(about, "the job's retry options failed; the default was taken")
    }
    return outcome
  }

  #count(delivery: Delivery, run: Run, outcome: Outcome): void {
    if (outcome.kind === 'handed-back') return delivery.count('handed_back')
    if (outcome.kind === 'cancelled') return delivery.count('cancelled')
    if (run.kind === 'cancelled') return
    delivery.count(OUTCOME_OF[run.kind])
    if (run.kind === 'failed') this.#deps.counts.failed += 1
    if (run.kind === 'unknown-job' && outcome.kind === 'left') this.#sayLeft(delivery)
  }

  async #startRaw(delivery: Delivery): Promise<void> {
    try {
      const raw = await this.#deps.readRaw(delivery)
      if (raw === undefined) return this.#dropped(delivery)
      this.#startDecoded(delivery, decodeRaw(delivery.entryId, raw))
    } catch {
      // Redis is away: the entry stays pending and is claimed when its lease is over.
      this.#dropped(delivery)
    }
  }

  /** What is known of a job from here on, and where it is counted; without a kind it is no job. */
  #identify(delivery: Delivery, id: string, kind?: JobKind): void {
    delivery.id = id
    delivery.name = kind?.name ?? ''
    delivery.publishedMs = timeOf(id)
    delivery.numbers = kind?.numbers ?? this.#deps.numbers.jobs.of(NO_JOB)
  }

  #know(delivery: Delivery, { failed, earlier, extra }: WireJob): void {
    delivery.attempt = failed + 1
    delivery.earlier = earlier
    delivery.extra = extra
  }

  /** The next job has the same name more often than not. */
  #kindOf(name: string): JobKind {
    const last = this.#lastKind
    if (last?.name === name) return last
    const { numbers, handlers, retry } = this.#deps
    const handler = handlers.get(name)
    const kind = { name, numbers: numbers.jobs.of(name), handler, retry: mergeRetry(handler?.job.retry, retry) }
    this.#lastKind = kind
    return kind
  }

  /** Not ours any more, or not to be run now. */
  #dropped(delivery: Delivery): void {
    this.#deps.holdings.release(delivery)
    this.#deps.onEnded()
  }

  #sayLeft(delivery: Delivery): void {
    this.#deps.logger.warn(
      jobEventOf(delivery),
      'no handler for this job here: it stays pending and is delivered again when its lease is over',
    )
  }
}

function endOf(reason: Error | undefined): Ended | undefined {
  if (reason === undefined) return undefined
  if (reason instanceof StoppingError) return 'stopping'
  if (reason instanceof CancelledError) return 'cancelled'
  return reason instanceof JobTimeoutError ? 'timed-out' : 'lost'
}

/** In its span, and told to whoever subscribes to its channel. */
function runObserved(delivery: Delivery, handler: Handler, data: unknown): unknown {
  const { traced } = delivery
  const work = () => handler.run(data, delivery)
  // A promise in any case: its end is what the channel tells of.
  const told = () => runChannel.tracePromise(() => Promise.resolve(work()), jobEventOf(delivery))
  const run = runChannel.hasSubscribers ? told : work
  return traced === undefined ? run() : traced.run(run)
}

function errorOf({ ended }: Delivery, run: Run, outcome: Outcome): unknown {
  if ('error' in outcome) return outcome.error
  return run.kind === 'failed' ? causeOf(run.error, ended) : undefined
}

/** What failed a run: where the handler only says that it was aborted, the reason for which it was. */
function causeOf(error: unknown, ended: Error | undefined): unknown {
  const isAbort = () => error instanceof Error && error.name === 'AbortError'
  return ended !== undefined && textOf(isAbort) === 'true' ? ended : error
}

const COMPLETED = { kind: 'completed' } as const

const OUTCOME_OF = {
  completed: 'completed',
  failed: 'failed',
  malformed: 'malformed',
  'unknown-job': 'unknown_job',
} as const

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
