import { messageOf, textOf } from './errors.ts'
import type { Malformed } from './wire.ts'

/** The reasons for which a job is dead, one list everywhere. */
export type DeadReason =
  'attempts' | 'deliveries' | 'malformed' | 'invalid' | 'expired' | 'unknown-job' | 'fatal' | 'manual'

/** What happened to a run. */
export type Run =
  | { readonly kind: 'completed' }
  | { readonly kind: 'failed'; readonly error: unknown }
  | { readonly kind: 'malformed'; readonly malformed: Malformed }
  | { readonly kind: 'unknown-job' }

/** Why a run no longer counted when it ended. */
export type Ended = 'lost' | 'timed-out' | 'stopping'

/**
 * What becomes of the job. `left`: it stays pending, and another worker claims it when its lease is over. `handed-back`: it
 * was cut short by the stop of its worker, which gives it to the group at no cost.
 */
export type Outcome =
  | { readonly kind: 'completed' }
  | { readonly kind: 'left' }
  | { readonly kind: 'handed-back' }
  | { readonly kind: 'dead'; readonly reason: DeadReason; readonly error: unknown }

/** Pure: no clock, no Redis. */
export function decide(
  run: Run,
  delivery: { deliveries: number; maxDeliveries: number; ended: Ended | undefined },
): Outcome {
  const { deliveries, maxDeliveries, ended } = delivery
  switch (run.kind) {
    case 'completed':
      // Also after the end: the work is done, and Redis takes a completion from anyone who finds it pending.
      return { kind: 'completed' }
    case 'malformed':
      return { kind: 'dead', reason: 'malformed', error: new Error(run.malformed.why) }
    case 'unknown-job':
      // During a rolling deploy another worker may know it: it has until its deliveries are used up.
      if (deliveries < maxDeliveries) return { kind: 'left' }
      return {
        kind: 'dead',
        reason: 'unknown-job',
        error: new Error('no worker that received it has a handler for it'),
      }
    case 'failed':
      if (ended === 'stopping') return { kind: 'handed-back' }
      if (ended !== undefined || deliveries < maxDeliveries) return { kind: 'left' }
      return { kind: 'dead', reason: 'deliveries', error: run.error }
  }
}

/** The first `dead-*` fields of a dead letter, in their fixed order; the script adds time and field count. */
export function provenanceOf(
  dead: { reason: DeadReason; error: unknown },
  delivery: { id: string; entryId: string; source: 0 | 1; attempt: number; deliveries: number },
  worker: string,
): string[] {
  const error: unknown = dead.error
  const [name, stack] =
    error instanceof Error ? [() => error.name, () => error.stack ?? ''] : [() => typeof error, () => '']
  return [
    ...['dead-reason', dead.reason],
    ...['dead-id', delivery.id],
    ...['dead-origin', delivery.entryId],
    ...['dead-source', delivery.source === 0 ? 'stream' : 'redelivery'],
    ...['dead-attempts', String(delivery.attempt)],
    ...['dead-deliveries', String(delivery.deliveries)],
    ...['dead-worker', worker],
    ...['dead-error', clipped(textOf(name), 100)],
    ...['dead-message', clipped(messageOf(error), 1000)],
    ...['dead-stack', clipped(textOf(stack), 4000)],
  ]
}

function clipped(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text
}
