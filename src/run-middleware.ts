import { MillraceError } from './errors.ts'
import type { Handler, HandlerFunction, Job } from './job.ts'
import { throughOnion, type Layer } from './onion.ts'

/**
 * Middleware of a worker: around each run of a handler, within its span, its timeout and its signal. It is put around the
 * handlers before the worker starts, so that a worker without any runs its handlers as they are.
 */

/** A run as middleware sees it. */
export interface RunContext<State = object> {
  readonly job: Job<Partial<State>>
  /** The payload, as the handler gets it. */
  readonly data: unknown
  /** `job.state` of the handler, to be filled: a new object for each run. */
  readonly state: { -readonly [Name in keyof State]?: State[Name] }
}

/**
 * Calls `next` once, which runs the handler and gives its result. What this throws fails the run, as if the handler had thrown
 * it; a handler that failed has failed whatever this returns.
 */
export type RunMiddleware<State = object> = (run: RunContext<State>, next: () => Promise<unknown>) => unknown

/** Puts the middleware around the handlers, the first one outermost. */
export function wrapHandlers<State>(handlers: Map<string, Handler>, middleware: readonly RunMiddleware<State>[]): void {
  const layers = middleware as readonly Layer<RunContext, unknown>[]
  for (const [name, handler] of handlers) handlers.set(name, { ...handler, run: within(layers, handler.run) })
}

function within(layers: readonly Layer<RunContext, unknown>[], run: HandlerFunction): HandlerFunction {
  return (data, job) =>
    throughOnion<RunContext, unknown>({
      layers,
      context: { job, data, state: job.state },
      innermost: () => run(data, job),
      failed: (thrown) => thrown,
      refused: (text) => new MillraceError('ERR_MIDDLEWARE', `${text}; the run of the job has failed`),
    })
}
