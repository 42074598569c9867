import { monotonicMs } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import { decide, type Ended, type Run } from './decide.ts'
import type { Delivery } from './delivery.ts'
import { JobTimeoutError, messageOf, StoppingError } from './errors.ts'
import type { Holdings } from './holdings.ts'
import type { Handler } from './job.ts'
import type { Logger } from './logger.ts'
import { NO_JOB } from './metrics/job-names.ts'
import type { JobNumbers, WorkerNumbers } from './metrics/worker-numbers.ts'
import { timeOf } from './redis/entry-id.ts'
import type { ServerClock } from './server-clock.ts'
import type { Settler } from './settler.ts'
import { decodeJob, decodeRaw, jobIdOf, type Malformed, type WireJob } from './wire.ts'

/**
 * One delivery from start to settled: decode, find its handler, run it under its timeout and signal, decide, settle. The
 * order of the steps is the specification. Not async: an await per step would cost more than most of the steps.
 *
 * A handler that is not done when its time is over has its signal aborted and its lease no longer renewed: the job runs on
 * another worker. Its slot stays taken until the handler ends, since it still uses what a running handler uses.
 */
export interface ExecutorDeps {
  readonly handlers: ReadonlyMap<string, Handler>
  readonly holdings: Holdings
  readonly settler: Settler
  readonly counts: WorkerCounts
  readonly numbers: WorkerNumbers
  readonly clock: ServerClock
  readonly logger: Logger
  readonly timeoutMs: number | false
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
}

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
    const why = `delivered ${delivery.deliveries} times and its workers went away before it had an outcome`
    this.#deps.settler.bury(delivery, 'deliveries', new Error(why))
  }

  /** Ends the runs that are past their time. */
  endOverdue(): void {
    const nowMs = monotonicMs()
    for (const delivery of this.#deps.holdings.running()) {
      if (nowMs - delivery.startedAtMs < delivery.timeoutMs) continue
      this.#deps.counts.timedOut += 1
      delivery.count('timed_out')
      this.#deps.holdings.abandon(delivery)
      delivery.end(new JobTimeoutError(delivery.stream, delivery.id, delivery.timeoutMs))
      this.#deps.logger.warn(
        {
          stream: delivery.stream,
          group: delivery.group,
          id: delivery.id,
          job: delivery.name,
          timeoutMs: delivery.timeoutMs,
        },
        'job ran out of time: its signal is aborted and its lease no longer renewed',
      )
    }
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
    delivery.attempt = decoded.failed + 1
    const { handler } = kind
    const timeoutMs = handler?.job.timeoutMs ?? this.#deps.timeoutMs
    delivery.timeoutMs = timeoutMs === false ? Infinity : timeoutMs
    if (!this.#deps.holdings.start(delivery)) return this.#dropped(delivery)
    if (handler === undefined) return this.#ended(delivery, { kind: 'unknown-job' })
    this.#run(delivery, handler, decoded.data)
  }

  /** The handler is called here. */
  #run(delivery: Delivery, handler: Handler, data: unknown): void {
    this.#began(delivery)
    let awaited: Promise<unknown> | undefined
    try {
      const result = handler.run(data, delivery)
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
    const { numbers, clock } = this.#deps
    const { startedAtMs, entryId } = delivery
    numbers.started(startedAtMs)
    // Another delivery has not waited: it ran before, and its worker went away.
    if (delivery.deliveries > 1) return
    const readyMs = entryId === delivery.id ? delivery.publishedMs : timeOf(entryId)
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
    // What takes the slot over starts in this call, and so at this moment: one reading of the clock for both.
    this.#endedAtMs = endedAtMs
    try {
      this.#ended(delivery, run)
    } finally {
      this.#endedAtMs = 0
    }
  }

  #ended(delivery: Delivery, run: Run): void {
    const { settler, holdings, counts, maxDeliveries, onEnded } = this.#deps
    const ended = endOf(delivery.ended)
    const outcome = decide(run, { deliveries: delivery.deliveries, maxDeliveries: maxDeliveries(), ended })
    delivery.count(outcome.kind === 'handed-back' ? 'handed_back' : OUTCOME_OF[run.kind])
    if ((run.kind === 'failed' || run.kind === 'unknown-job') && outcome.kind !== 'handed-back') {
      counts.failed += 1
      if (outcome.kind === 'left' && ended === undefined) this.#sayLeft(delivery, run)
    }
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
      case 'dead':
        settler.bury(delivery, outcome.reason, outcome.error)
        break
    }
    onEnded()
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

  /** The next job has the same name more often than not. */
  #kindOf(name: string): JobKind {
    const last = this.#lastKind
    if (last?.name === name) return last
    const { numbers, handlers } = this.#deps
    const kind = { name, numbers: numbers.jobs.of(name), handler: handlers.get(name) }
    this.#lastKind = kind
    return kind
  }

  /** Not ours any more, or not to be run now. */
  #dropped(delivery: Delivery): void {
    this.#deps.holdings.release(delivery)
    this.#deps.onEnded()
  }

  #sayLeft(delivery: Delivery, run: Run): void {
    const { id, name, stream, group, deliveries } = delivery
    const error = run.kind === 'failed' ? messageOf(run.error) : 'no handler for it here'
    this.#deps.logger.warn(
      { stream, group, id, job: name, deliveries, error },
      'job failed: it stays pending and is delivered again when its lease is over',
    )
  }
}

function endOf(reason: Error | undefined): Ended | undefined {
  if (reason === undefined) return undefined
  return reason instanceof StoppingError ? 'stopping' : reason instanceof JobTimeoutError ? 'timed-out' : 'lost'
}

const COMPLETED: Run = { kind: 'completed' }

const OUTCOME_OF = {
  completed: 'completed',
  failed: 'failed',
  malformed: 'malformed',
  'unknown-job': 'unknown_job',
} as const

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
