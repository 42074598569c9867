import { OptionError } from '../errors.ts'
import { oneOf, refuseUnknownKeys, shown } from '../options.ts'
import { isThenable } from '../thenable.ts'

/** Why the signal of a run is aborted: its time is over, the worker stops, the job is cancelled, its lease is lost. */
export type AbortWhy = 'timeout' | 'stop' | 'cancel' | 'lease-lost'

export interface AbortedRun {
  why: AbortWhy
  /** When this is fulfilled, once the handler has been called. @default after what the handler does before it waits */
  when?: PromiseLike<unknown>
}

/** @throws OptionError */
export function checkAbort(abort: AbortWhy | AbortedRun | undefined): AbortedRun | undefined {
  if (abort === undefined) return undefined
  const words = ['timeout', 'stop', 'cancel', 'lease-lost'] as const
  if (typeof abort !== 'object' || abort === null) {
    const why = oneOf('abort', abort, words)
    return why && { why }
  }
  refuseUnknownKeys('abort', abort, ['why', 'when'])
  const { why, when } = abort
  if (oneOf('abort.why', why, words) === undefined) throw new OptionError('expected `abort` to have a `why`')
  if (when === undefined || isThenable(when)) return abort
  throw new OptionError(`expected \`abort.when\` to be a promise, got ${shown(when)}`)
}
