import type { Ended, Outcome, Run } from './decide.ts'
import type { Delivery } from './delivery.ts'
import { CancelledError, JobTimeoutError, StoppingError, textOf } from './errors.ts'
import type { Outcome as Counted } from './metrics/worker-numbers.ts'

/** What the end of a run is called: for what is decided, for the metrics and for its span. Pure. */

/** Why a run no longer counted when it ended. */
export function endOf(reason: Error | undefined): Ended | undefined {
  if (reason === undefined) return undefined
  if (reason instanceof StoppingError) return 'stopping'
  if (reason instanceof CancelledError) return 'cancelled'
  return reason instanceof JobTimeoutError ? 'timed-out' : 'lost'
}

/** What failed a run: where the handler only says that it was aborted, the reason for which it was. */
export function causeOf(error: unknown, ended: Error | undefined): unknown {
  const isAbort = () => error instanceof Error && error.name === 'AbortError'
  return ended !== undefined && textOf(isAbort) === 'true' ? ended : error
}

/** What is told of a run that came to no good. */
export function errorOf({ ended }: Delivery, run: Run, outcome: Outcome): unknown {
  if ('error' in outcome) return outcome.error
  return run.kind === 'failed' ? causeOf(run.error, ended) : undefined
}

/** Under which outcome a run is counted; undefined where it was counted before. */
export function countedAs(run: Run, outcome: Outcome): Counted | undefined {
  if (outcome.kind === 'handed-back') return 'handed_back'
  if (outcome.kind === 'cancelled') return 'cancelled'
  switch (run.kind) {
    case 'completed':
    case 'failed':
      return run.kind
    case 'cancelled':
      return undefined
    case 'unrun':
      return run.outcome.reason === undefined ? 'waited' : UNRUN[run.outcome.reason]
  }
}

const UNRUN: Readonly<Partial<Record<string, Counted>>> = {
  malformed: 'malformed',
  'unknown-job': 'unknown_job',
  expired: 'expired',
  invalid: 'invalid',
}
