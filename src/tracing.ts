import { messageOf, OptionError } from './errors.ts'
import type { Logger } from './logger.ts'
import { shown } from './options.ts'
import { QuietWarnings } from './quiet-warnings.ts'
import type { EntryTrace, TraceContext } from './wire.ts'

/**
 * What traces publishes, runs and settlements: `openTelemetry()` of `millrace/otel`, or anything of this shape. A hook that
 * returns undefined does not trace that publish or job, and nothing more is called for it. What a hook throws is logged and
 * changes nothing: tracing must not cost a job.
 */
export interface Tracing {
  /** A publish begins, or a `publishMany`. */
  publish(about: PublishToTrace): TracedPublish | undefined
  /** A run begins: the handler is called next, in `run` of what this returns. */
  process(job: RunToTrace): TracedRun | undefined
  /** Outcomes are about to be written to Redis, among them those of traced runs. */
  settle(about: SettleToTrace): TracedSettle | undefined
  /** Sends what is traced but not sent yet. Called by `millrace worker` before its processes end, and by nobody else. */
  flush?(): Promise<void>
}

export interface PublishToTrace {
  readonly stream: string
  readonly job: string
  /** Whether it is a `publishMany`: of its jobs nobody knows yet how many they are. */
  readonly isMany: boolean
}

export interface TracedPublish {
  /** Travels in each of its entries. */
  readonly context: TraceContext | undefined
  ended(end: PublishEnd): void
}

export interface PublishEnd {
  /** Jobs that are certainly in Redis. */
  readonly published: number
  /** The id of the job, of a single one that was published. */
  readonly id?: string | undefined
  /** Why it failed, if it did. */
  readonly error?: unknown
}

/** A run as it begins. The payload is not there: a trace is no place for it. */
export interface RunToTrace {
  readonly stream: string
  readonly group: string
  /** The name that the worker has in Redis. */
  readonly consumer: string
  readonly id: string
  readonly name: string
  readonly attempt: number
  readonly deliveries: number
  /** Not a retry, nor another delivery, redrive or replay. */
  readonly isFirstRun: boolean
  /** What its entry carries of traces, as it was written there: by anybody. Read only when it is asked for. */
  readonly trace: EntryTrace
}

export interface TracedRun {
  /** Travels in the entry of the next attempt, if there is one. */
  readonly context: TraceContext | undefined
  /**
   * Calls `work` once, at once, and returns what it returns: the handler, and where that is of batches also each `publish` hook for what
   * the run publishes.
   */
  run<Result>(work: () => Result): Result
  /** Called once: the handler is done, or goes on for too long after its signal was aborted. */
  ended(outcome: RunOutcome, error?: unknown): void
}

/**
 * What was decided when the handler ended; Redis is told next. `left`: it stays pending and is delivered again. `overdue`: the
 * handler goes on though its signal is aborted.
 */
export type RunOutcome = 'completed' | 'retry' | 'dead' | 'cancelled' | 'left' | 'handed-back' | 'overdue'

export interface SettleToTrace {
  readonly stream: string
  readonly group: string
  readonly consumer: string
  /** `ack`: completions | `settle`: retries, dead letters, cancelled ones. */
  readonly operation: 'ack' | 'settle'
  /** Outcomes in the batch. */
  readonly jobs: number
  /** What `process` returned for those of them that are traced: at least one. */
  readonly runs: readonly TracedRun[]
}

export interface TracedSettle {
  ended(error?: unknown): void
}

/** @throws OptionError for what is no tracing. */
export function checkTracing(given: Tracing | undefined): Tracing | undefined {
  if (given === undefined || isTracing(given)) return given
  throw new OptionError(
    `expected \`tracing\` to be what openTelemetry() of millrace/otel returns, or an object with the methods publish, process ` +
      `and settle, got ${shown(given)}`,
  )
}

/** The tracing with all that it throws contained; undefined if there is none. */
export function containedTracing(given: Tracing | undefined, logger: Logger): ContainedTracing | undefined {
  return given && new ContainedTracing(given, logger)
}

/** What a producer and a worker call. It never throws. */
export class ContainedTracing {
  readonly #given: Tracing
  readonly #logger: Logger
  readonly #warnings = new QuietWarnings()

  constructor(given: Tracing, logger: Logger) {
    this.#given = given
    this.#logger = logger
  }

  publish(about: PublishToTrace): ContainedPublish | undefined {
    try {
      const traced = this.heeded('publish', this.#given.publish(about))
      return isObject(traced) ? new ContainedPublish(this, traced) : undefined
    } catch (error) {
      return this.failed('publish', error)
    }
  }

  process(job: RunToTrace): ContainedRun | undefined {
    try {
      const traced = this.heeded('process', this.#given.process(job))
      return isObject(traced) ? new ContainedRun(this, traced) : undefined
    } catch (error) {
      return this.failed('process', error)
    }
  }

  settle(about: SettleToTrace): TracedSettle | undefined {
    try {
      const traced = this.heeded('settle', this.#given.settle(about))
      if (!isObject(traced)) return undefined
      return { ended: (error) => this.try('settle', () => traced.ended(error)) }
    } catch (error) {
      return this.failed('settle', error)
    }
  }

  try<Result>(hook: string, call: () => Result): Result | undefined {
    try {
      return this.heeded(hook, call())
    } catch (error) {
      return this.failed(hook, error)
    }
  }

  /** A hook may be async for all its type says, and a rejection that nobody hears ends the process. */
  heeded<Result>(hook: string, result: Result): Result {
    if (result instanceof Promise) result.catch((error: unknown) => this.failed(hook, error))
    return result
  }

  failed(hook: string, error: unknown): undefined {
    const unsaid = this.#warnings.due(hook)
    if (unsaid === undefined) return
    const about = { hook, failures: unsaid + 1, error: messageOf(error) }
    this.#logger.error(about, 'the tracing failed; publishes and jobs are not affected')
  }
}

export class ContainedPublish {
  readonly #tracing: ContainedTracing
  readonly #given: TracedPublish
  readonly context: TraceContext | undefined

  constructor(tracing: ContainedTracing, given: TracedPublish) {
    this.#tracing = tracing
    this.#given = given
    this.context = contextOf(given)
  }

  end(end: PublishEnd): void {
    this.#tracing.try('publish', () => this.#given.ended(end))
  }
}

/** One run: its work is done once, and it ends once, whatever the hooks do. */
export class ContainedRun {
  readonly #tracing: ContainedTracing
  readonly given: TracedRun
  #hasEnded = false

  constructor(tracing: ContainedTracing, given: TracedRun) {
    this.#tracing = tracing
    this.given = given
  }

  /** Asked for where there is a next attempt. */
  get context(): TraceContext | undefined {
    return this.#tracing.try('process', () => contextOf(this.given))
  }

  run<Result>(work: () => Result): Result {
    let done: { readonly result: Result } | { readonly thrown: unknown } | undefined
    const once = (): Result => {
      if (done === undefined) {
        try {
          done = { result: work() }
        } catch (thrown) {
          done = { thrown }
        }
      }
      if ('result' in done) return done.result
      throw done.thrown
    }
    try {
      const returned: unknown = this.given.run(once)
      // A promise of its own, which fails because the handler's does: that one is told of, and this one by nobody.
      if (returned instanceof Promise) returned.catch(() => {})
    } catch (error) {
      if (done === undefined || !('thrown' in done)) this.#tracing.failed('process', error)
    }
    return once()
  }

  end(outcome: RunOutcome, error?: unknown): void {
    if (this.#hasEnded) return
    this.#hasEnded = true
    this.#tracing.try('process', () => this.given.ended(outcome, error))
  }
}

function contextOf({ context }: { readonly context: TraceContext | undefined }): TraceContext | undefined {
  return typeof context?.traceparent === 'string' ? context : undefined
}

function isTracing(given: unknown): given is Tracing {
  const { publish, process, settle } = isObject(given) ? (given as Partial<Tracing>) : {}
  return [publish, process, settle].every((hook) => typeof hook === 'function')
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}
