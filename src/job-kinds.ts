import type { Accepts } from './accept.ts'
import type { Handler } from './job.ts'
import type { Limit } from './limits/limit.ts'
import type { JobNumbers, WorkerNumbers } from './metrics/worker-numbers.ts'
import { isChecked } from './prepare.ts'
import { mergeRetry, type RetryOptions } from './retry.ts'

/** What jobs of one name share. */
export interface JobKind {
  readonly name: string
  readonly numbers: JobNumbers
  readonly handler: Handler | undefined
  /** Whether its group does not want them. */
  readonly isSkipped: boolean
  /** Whether its payloads are checked or brought to a newer version. */
  readonly isChecked: boolean
  readonly retry: RetryOptions
  /** Those that it is under; undefined if there are none. */
  readonly limits: readonly Limit[] | undefined
}

export interface JobKindsDeps {
  readonly handlers: ReadonlyMap<string, Handler>
  readonly numbers: Pick<WorkerNumbers, 'jobs'>
  /** What a job's own definition leaves open. */
  readonly retry: RetryOptions
  /** Whether the group wants a job; undefined where it wants all. */
  readonly accepts: Accepts | undefined
  readonly limits: readonly Limit[]
}

/** What a worker knows of jobs by their names. */
export class JobKinds {
  readonly #deps: JobKindsDeps
  #last: JobKind | undefined

  constructor(deps: JobKindsDeps) {
    this.#deps = deps
  }

  /** The next job has the same name more often than not. */
  of(name: string): JobKind {
    const last = this.#last
    if (last?.name === name) return last
    const { numbers, handlers, retry, limits, accepts } = this.#deps
    const handler = handlers.get(name)
    const own = handler === undefined ? [] : limits.filter(({ covers }) => covers(name))
    const kind = {
      name,
      numbers: numbers.jobs.of(name),
      handler,
      // What has a handler is wanted: the options say so.
      isSkipped: handler === undefined && accepts?.(name) === false,
      isChecked: handler !== undefined && isChecked(handler),
      retry: mergeRetry(handler?.job.retry, retry),
      limits: own.length === 0 ? undefined : own,
    }
    this.#last = kind
    return kind
  }
}
