import { Delivery } from '../delivery.ts'
import type { Job } from '../job.ts'

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
