import { Delivery } from '../delivery.ts'
import type { Job } from '../job.ts'
import { expiredBy } from '../prepare.ts'

/**
 * Whether a job's run still counts, as its signal tells. What a worker runs tells it without one: a signal that nobody asked for would cost
 * more than all else that is done for a job in its batch.
 */

/** Calls back when the run counts no longer; of several listeners of one job the last. */
export function whenEnded(job: Job, listener: () => void): void {
  if (job instanceof Delivery) job.onEnd(listener)
  else job.signal.addEventListener('abort', listener, { once: true })
}

/** Why the run counts no longer; undefined while it does. */
export function endedBy(job: Job): { readonly reason: unknown } | undefined {
  if (job instanceof Delivery) return job.ended && { reason: job.ended }
  return job.signal.aborted ? { reason: job.signal.reason } : undefined
}

/** Until when a job is to have begun, in ms since the epoch by the time of Redis; Infinity for one without a deadline. */
export function deadlineOf(job: Job): number {
  return job instanceof Delivery ? (job.extra?.expiresMs ?? Infinity) : Infinity
}

/** Ends a job that was to have begun before now. @returns whether it was. */
export function endIfLate(job: Job, serverMs: () => number): boolean {
  const expiresMs = deadlineOf(job)
  const late = expiresMs === Infinity ? undefined : expiredBy(expiresMs, serverMs())
  if (late === undefined || !(job instanceof Delivery)) return false
  job.endLate(late)
  return true
}
