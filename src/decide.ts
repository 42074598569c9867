import { messageOf, textOf } from './errors.ts'
import { decideRetry, type FailedAttempt, type RetryOptions } from './retry.ts'

/** The reasons for which a job is dead, one list everywhere. */
export type DeadReason =
  'attempts' | 'deliveries' | 'malformed' | 'invalid' | 'expired' | 'unknown-job' | 'fatal' | 'manual'

/** What happened to a run; `cancelled` and `unrun` are of one that was not begun. */
export type Run =
  | { readonly kind: 'completed' }
  | { readonly kind: 'failed'; readonly error: unknown }
  | { readonly kind: 'unrun'; readonly outcome: Wait | Dead }
  | { readonly kind: 'cancelled' }

/** Why a run no longer counted when it ended. */
export type Ended = 'lost' | 'timed-out' | 'stopping' | 'cancelled'

/**
 * What becomes of the job. `left`: it stays pending, and another worker claims it when its lease is over. `handed-back`: it
 * was cut short by the stop of its worker, which gives it to the group at no cost.
 */
export type Outcome =
  | { readonly kind: 'completed' }
  | { readonly kind: 'left' }
  | { readonly kind: 'handed-back' }
  | { readonly kind: 'cancelled' }
  | {
      readonly kind: 'retry'
      readonly error: unknown
      readonly delayMs: number
      readonly complaint: string | undefined
      /** Others of its key go first. */
      readonly givesTurn?: boolean
    }
  | Wait
  | Dead

/** It comes back later at no cost: no attempt is counted, and nothing has failed. */
export interface Wait {
  readonly kind: 'wait'
  readonly delayMs: number
  /** What it waits for, for people. */
  readonly why: string
  /** What it will be dead of if it waits in vain, where its waiting has an end. */
  readonly reason?: DeadReason
  /** Names and values that replace those of the entry. */
  readonly fields?: readonly string[]
}

export interface Dead {
  readonly kind: 'dead'
  readonly reason: DeadReason
  readonly error: unknown
  readonly complaint?: string | undefined
  /** It waits on where another worker of the group, alive, knows its job in this version of the payload. */
  readonly unlessKnown?: { readonly version: number; readonly wait: Wait }
}

/** What a decision needs to know of a delivery besides how its run ended. */
export interface DecidedDelivery {
  readonly ended: Ended | undefined
  /** What the run was, if its failure is to be retried. */
  readonly attempt: Omit<FailedAttempt, 'error'>
  readonly retry: RetryOptions
}

/** Pure: the time and the chance come from the caller, and functions of the user's can change nothing by throwing. */
export function decide(run: Run, delivery: DecidedDelivery, now: { nowMs: number; chance: number }): Outcome {
  const { ended } = delivery
  switch (run.kind) {
    case 'completed':
      // Also after the end: the work is done, and Redis takes a completion from anyone who finds it pending.
      return { kind: 'completed' }
    case 'cancelled':
      return { kind: 'cancelled' }
    case 'unrun':
      return run.outcome
    case 'failed':
      if (ended === 'stopping') return { kind: 'handed-back' }
      if (ended === 'lost') return { kind: 'left' }
      if (ended === 'cancelled') return { kind: 'cancelled' }
      return { ...decideRetry(delivery.retry, { ...delivery.attempt, error: run.error }, now), error: run.error }
  }
}

/** The first `dead-*` fields of a dead letter, in their fixed order; the script adds time and field count. */
export function provenanceOf(
  dead: { reason: DeadReason; error: unknown },
  delivery: {
    id: string
    entryId: string
    source: 0 | 1
    attempt: number
    past: number
    deliveries: number
    firstFailedMs: number | undefined
  },
  worker: string,
): string[] {
  const error: unknown = dead.error
  // Of these two the last run is one that failed; else there was none, or it took its worker down.
  const hasFailed = dead.reason === 'attempts' || dead.reason === 'fatal'
  const attempts = hasFailed ? delivery.attempt : delivery.attempt - 1
  return [
    ...['dead-reason', dead.reason],
    ...['dead-id', delivery.id],
    ...['dead-origin', delivery.entryId],
    ...['dead-source', delivery.source === 0 ? 'stream' : 'redelivery'],
    ...['dead-attempts', String(attempts)],
    ...['dead-total-attempts', String(delivery.past + attempts)],
    ...['dead-deliveries', String(delivery.deliveries)],
    ...['dead-worker', worker],
    ...['dead-error', clipped(classOf(error), 100)],
    ...['dead-message', clipped(messageOf(error), 1000)],
    ...['dead-stack', clipped(stackOf(error), 4000)],
    ...['dead-first-failed', delivery.firstFailedMs === undefined ? '' : String(delivery.firstFailedMs)],
  ]
}

/** What a scheduled retry says of the failure before it. */
export function failureText(error: unknown): string {
  return clipped(`${classOf(error)}: ${messageOf(error)}`, 300)
}

/** What a job that waits says beside its time, where a retry tells of its failure. */
export function waitText(why: string): string {
  return clipped(`${WAITS}${why}`, 300)
}

/** What it waits for, of such a text; undefined of one that tells of a failure. */
export function waitedFor(text: string): string | undefined {
  return text.startsWith(WAITS) ? text.slice(WAITS.length) : undefined
}

/** Why a job waits that is not the first of its key. */
export function turnText(firstId: string): string {
  return `its turn behind job ${firstId} of the same key`
}

/** Behind which job it waits, of such a text. */
export function firstOfKey(why: string): string | undefined {
  return /^its turn behind job (\d+-\d+) of the same key$/.exec(why)?.[1]
}

const WAITS = 'waits: '

/** Handlers can throw what throws when it is asked what it is. */
function classOf(error: unknown): string {
  return textOf(() => (error instanceof Error ? error.name : typeof error))
}

function stackOf(error: unknown): string {
  return textOf(() => (error instanceof Error ? (error.stack ?? '') : ''))
}

function clipped(text: string, most: number): string {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text
}
