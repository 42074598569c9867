import { Cancelled } from '../cancelled.ts'
import { EVENT_CHANNELS } from '../channels.ts'
import { newCounts } from '../counts.ts'
import type { DeadReason } from '../decide.ts'
import type { Delivery } from '../delivery.ts'
import { CancelledError, LeaseLostError, OptionError, StoppingError } from '../errors.ts'
import { Events } from '../events.ts'
import { Executor } from '../executor.ts'
import type { ExecutorDeps } from '../executor-deps.ts'
import type { Failed } from '../fenced-settler.ts'
import type { Handler } from '../job.ts'
import { Holdings } from '../holdings.ts'
import { tollsOf } from '../limits/passage.ts'
import { bookOf } from '../metrics/book.ts'
import { WorkerNumbers } from '../metrics/worker-numbers.ts'
import type { Onward } from '../onward/onward.ts'
import { OnwardPublisher } from '../onward/publisher.ts'
import { causeOf, endOf } from '../run-end.ts'
import { isThenable } from '../thenable.ts'
import { containedTracing } from '../tracing.ts'
import { UniqueStarts } from '../unique-starts.ts'
import { KeptNotes } from './notes.ts'
import type { AbortWhy } from './aborts.ts'
import type { Asked } from './asked.ts'
import type { Entry } from './entries.ts'

/**
 * A worker's executor with nothing around it: no Redis, no leases that run out, no other jobs. What the parts around it would be
 * told is kept as what became of the run; what they would let it wait for, it has.
 */

/**
 * What becomes of a job. `skipped`: its group does not want it | `waits`: it comes back at no cost, since this worker cannot run it | `handed-back`: the worker stops, and
 * another one runs it | `left`: another worker has it already | `overdue`: its signal was aborted, and the handler goes on.
 */
export type RunResult =
  'completed' | 'skipped' | 'retry' | 'waits' | 'dead' | 'cancelled' | 'handed-back' | 'left' | 'overdue'

/** A run, with what there is to say of its outcome. */
export interface JobRun {
  readonly outcome: RunResult
  /** What the handler gave back, if it is not undefined. */
  readonly result?: unknown
  /** Of `completed`: what the handler has published with `job.publish`, in its order, if it has. */
  readonly published?: readonly PublishedByRun[]
  /** What it failed with, or why it did not run; where it only says that it was aborted, the reason of its signal. */
  readonly error?: unknown
  /** How long until it comes back, in ms: of `retry` and `waits`. */
  readonly delayMs?: number
  /** What it is dead of; of `waits`, what it will be dead of. */
  readonly reason?: DeadReason
  /** What it waits for. */
  readonly why?: string
  /** What the handler said last of how far it is, if it did. */
  readonly progress?: unknown
  /** The lines that it kept with the job, of all runs, if it did. */
  readonly log?: readonly string[]
  /** What it has kept last for the next run, if it did. */
  readonly checkpoint?: unknown
  /** What is wrong with functions among its retry options: the default was taken instead. */
  readonly complaint?: string
}

/** A job that a run publishes. */
export interface PublishedByRun {
  readonly job: string
  readonly stream: string
  /** As the handler of that job would get it, but for its schema. */
  readonly data: unknown
  /** When it is due, if that is later: ms since the epoch. */
  readonly dueMs?: number
  /** What else its entry carries, by field: `h-<name>` are headers, see docs/design.md. */
  readonly fields?: Readonly<Record<string, string>>
}

/** A run, and its delivery, which tells what the next one begins with. */
export interface Ran {
  readonly run: JobRun
  readonly delivery: Delivery
  /** Of one that waits: the fields that its next entry has anew. */
  readonly renewed: readonly string[]
}

/** The longest that a timer can wait. */
const LONGEST_MS = 2 ** 31 - 1

type Seen = Omit<Ran, 'delivery'>

export class LoneWorker {
  /** What handlers say of their jobs; a checkpoint stays from one run to the next. */
  readonly notes = new KeptNotes()
  readonly #asked: Asked
  readonly #executor: Executor
  readonly #holdings: Holdings
  readonly #cancelled = new Cancelled()
  readonly #timers: NodeJS.Timeout[] = []
  #current: Delivery | undefined
  #begun: () => void = () => {}
  #ended: (seen: Seen) => void = () => {}
  #thrown: { readonly error: unknown } | undefined
  #result: unknown

  constructor(asked: Asked) {
    this.#asked = asked
    const { stream, worker } = asked
    const member = { stream, group: worker.group, consumer: `testing:${process.pid}:000000000000` }
    const onward = new OnwardPublisher(member, {
      book: bookOf(undefined),
      logger: worker.logger,
      tracing: containedTracing(worker.tracing, worker.logger),
      isUnderWay: (run) => this.#holdings.isUnderWay(run),
      nowMs: () => asked.clock.nowMs,
    })
    this.#holdings = new Holdings({ ...member, notes: this.notes, onward }, 1)
    for (const [name, handler] of worker.handlers) worker.handlers.set(name, this.#watched(handler))
    const events = new Events(worker.logger, EVENT_CHANNELS)
    events.on('job:started', () => this.#begun())
    events.on('job:failed', ({ error }) => (this.#thrown = { error }))
    this.#executor = new Executor({ ...worker, ...this.#parts(events) })
  }

  /** Runs a delivery until something has become of it. */
  run(entry: Entry): Promise<Ran> {
    const { entryId, fields } = entry
    // The claimer's rule; what it buries has not been begun again.
    const isSpent = entry.deliveries > this.#asked.worker.maxDeliveries
    const deliveries = isSpent ? entry.deliveries - 1 : entry.deliveries
    const delivery = this.#holdings.adopt(entry.source, { entryId, deliveries, fields })
    if (delivery === undefined) throw new Error('the run before this one has not ended')
    this.#current = delivery
    this.#thrown = undefined
    this.#result = undefined
    return new Promise<Ran>((resolve, reject) => {
      this.#begun = () => this.#watch(delivery, reject)
      this.#ended = ({ run, renewed }) => resolve({ run: { ...run, ...this.notes.told }, renewed, delivery })
      if (isSpent) void this.#executor.buryUnrun(delivery)
      else this.#executor.start(delivery)
    }).finally(() => this.#forget())
  }

  #parts(
    events: Events,
  ): Omit<
    ExecutorDeps,
    'handlers' | 'logger' | 'timeoutMs' | 'maxResultBytes' | 'retry' | 'unknownJobMs' | 'accepts' | 'limits'
  > {
    const { clock, chance, worker, stream } = this.#asked
    return {
      ...{ holdings: this.#holdings, cancelled: this.#cancelled, events, chance },
      counts: newCounts(),
      numbers: new WorkerNumbers(stream, worker.group, () => {}),
      clock: { at: () => clock.nowMs },
      uniqueStarts: new UniqueStarts(() => Promise.resolve({ cancelled: new Set(), hasNotes: false }), worker.logger),
      tracing: containedTracing(worker.tracing, worker.logger),
      settler: {
        complete: (delivery) => {
          const published = publishedBy(delivery.onward, clock.nowMs)
          const told = { ...given('result', this.#result), ...given('published', published) }
          this.#settled(delivery, { outcome: 'completed', ...told })
        },
        skip: (delivery) => this.#settled(delivery, { outcome: 'skipped' }),
        fail: (delivery, outcome) => this.#settled(delivery, this.#runOf(delivery, outcome), renewedBy(outcome)),
      },
      readRaw: ({ fields = [] }) => Promise.resolve(fields.map((text) => Buffer.from(text))),
      limiter: { ask: begin, leave: () => {} },
      onEnded: () => this.#unsettled(),
      onDeferred: () => {},
      onUndeferred: () => {},
      onUncounted: () => {},
    }
  }

  #settled(delivery: Delivery, run: JobRun, renewed: readonly string[] = []): void {
    this.#holdings.release(delivery)
    this.#ended({ run, renewed })
  }

  #runOf({ ended }: Delivery, outcome: Failed): JobRun {
    return outcome.kind === 'cancelled' ? { outcome: 'cancelled', ...this.#failure(ended) } : runOf(outcome)
  }

  /** After what was settled this says nothing any more. */
  #unsettled(): void {
    const ended = this.#current?.ended
    const outcome = endOf(ended) === 'stopping' ? 'handed-back' : 'left'
    this.#ended({ run: { outcome, ...this.#failure(ended) }, renewed: [] })
  }

  #failure(ended: Error | undefined): { error?: unknown } {
    return this.#thrown === undefined ? given('error', ended) : { error: causeOf(this.#thrown.error, ended) }
  }

  /** Keeps what it gives back, which a worker has no use for. */
  #watched(handler: Handler): Handler {
    const keep = (result: unknown) => (this.#result = result)
    return {
      ...handler,
      run: (data, job) => {
        const result = handler.run(data, job)
        return isThenable(result) ? Promise.resolve(result).then(keep) : keep(result)
      },
    }
  }

  /** Its handler is called next. */
  #watch(delivery: Delivery, failed: (error: unknown) => void): void {
    const { abort, heedMs } = this.#asked
    const tooLong = (): void => {
      if (delivery.ended === undefined) return
      const overdue = () => this.#ended({ run: { outcome: 'overdue', error: delivery.ended }, renewed: [] })
      this.#timers.push(setTimeout(overdue, heedMs))
    }
    const timeOver = (): void => {
      this.#executor.endOverdue()
      tooLong()
    }
    if (delivery.timeoutMs !== Infinity) {
      this.#timers.push(setTimeout(timeOver, Math.min(LONGEST_MS, delivery.timeoutMs + 1)))
    }
    if (abort === undefined) return
    const when = abort.when ?? new Promise((resolve) => setImmediate(resolve))
    const aborted = (): void => {
      if (!this.#holdings.holds(delivery)) return
      this.#abort(delivery, abort.why)
      tooLong()
    }
    Promise.resolve(when).then(aborted).catch(failed)
  }

  /** As the part of the worker does that finds out. */
  #abort(delivery: Delivery, why: AbortWhy): void {
    const { stream, id } = delivery
    switch (why) {
      case 'timeout':
        if (delivery.timeoutMs === Infinity) {
          throw new OptionError(`expected \`abort: 'timeout'\` of a job that has a timeout; \`timeoutMs\` is false`)
        }
        delivery.startedAtMs -= delivery.timeoutMs
        return this.#executor.endOverdue()
      case 'stop':
        return delivery.end(new StoppingError(stream, id))
      case 'cancel':
        this.#cancelled.add([id])
        return delivery.end(new CancelledError(stream, id))
      case 'lease-lost':
        this.#holdings.abandon(delivery)
        return delivery.end(new LeaseLostError(stream, id))
    }
  }

  #forget(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer)
  }
}

/** The limits let it begin, if it can be told what they are for it. */
const begin: NonNullable<ExecutorDeps['limiter']>['ask'] = (delivery, limits, data, proceed) => {
  const tolls = tollsOf(delivery, limits, data)
  if (typeof tolls === 'string') return tolls
  setImmediate(proceed)
  return undefined
}

/** Undefined for a run that has published nothing. */
function publishedBy(onward: Onward | undefined, nowMs: number): PublishedByRun[] | undefined {
  if (onward === undefined || onward.publishes.length === 0) return undefined
  return onward.publishes.map(({ item: { fields, due }, target: { stream } }) => {
    const [, job = '', , data = '', ...others] = fields
    const names = others.filter((_, at) => at % 2 === 0)
    const more = Object.fromEntries(names.map((name, at) => [name, others[2 * at + 1] ?? '']))
    const dueMs = due === undefined ? undefined : (due.startsWith('+') ? nowMs : 0) + Number(due)
    const own = { ...given('dueMs', dueMs), ...given('fields', names.length === 0 ? undefined : more) }
    return { job, stream, data: JSON.parse(data) as unknown, ...own }
  })
}

type Undone = Exclude<Failed, { readonly kind: 'cancelled' }>

function runOf(outcome: Undone & { readonly complaint?: string | undefined }): JobRun {
  switch (outcome.kind) {
    case 'retry': {
      const { error, delayMs, complaint } = outcome
      return { outcome: 'retry', error, delayMs, ...given('complaint', complaint) }
    }
    case 'wait': {
      const { delayMs, why, reason } = outcome
      return { outcome: 'waits', delayMs, why, ...given('reason', reason) }
    }
    case 'dead': {
      const { reason, error, complaint } = outcome
      return { outcome: 'dead', reason, error, ...given('complaint', complaint) }
    }
  }
}

function renewedBy(outcome: Failed): readonly string[] {
  return outcome.kind === 'wait' ? (outcome.fields ?? []) : []
}

function given<Name extends string, Value>(name: Name, value: Value | undefined): { [Key in Name]?: Value } {
  return (value === undefined ? {} : { [name]: value }) as { [Key in Name]?: Value }
}
