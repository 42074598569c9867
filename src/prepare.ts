import type { Dead, Wait } from './decide.ts'
import type { Handler } from './job.ts'
import type { Malformed, WireJob } from './wire.ts'

/**
 * What becomes of a delivery before its handler is called: it runs, it waits at no cost, or it is dead without a run. Pure;
 * the order of the checks is the specification. An executor asks only where there is something to check.
 */

export type Prepared = { readonly kind: 'run'; readonly handler: Handler; readonly data: unknown } | Wait | Dead

export interface Preparing {
  readonly decoded: WireJob | Malformed
  /** The worker's for jobs of this name. */
  readonly handler: Handler | undefined
  /** How long a job may wait for a worker that knows it, in ms. */
  readonly unknownJobMs: number
}

/** The time is the server's; the chance is a number from 0 to 1. */
export interface Moment {
  readonly nowMs: number
  readonly chance: number
}

export function prepare({ decoded, handler, unknownJobMs }: Preparing, now: Moment): Prepared {
  if (decoded.kind !== 'job') return { kind: 'dead', reason: 'malformed', error: new Error(decoded.why) }
  const { extra } = decoded
  if (extra?.expiresMs !== undefined && now.nowMs >= extra.expiresMs) return expired(extra.expiresMs)
  if (handler === undefined) {
    return unknown('no worker of the group that received it has a handler for it', { decoded, unknownJobMs }, now)
  }
  return { kind: 'run', handler, data: decoded.data }
}

function expired(expiresMs: number): Dead {
  const error = new Error(`it was to be started by ${instantText(expiresMs)}; its handler was not called`)
  return { kind: 'dead', reason: 'expired', error }
}

/** The shortest and the longest wait for a worker that knows a job, in ms. */
const SHORTEST_MS = 1000
const LONGEST_MS = 60_000

/**
 * During a rolling deploy a worker that knows it is on its way: it waits, each time for as long as it has waited in all, so
 * that the waits double. A first wait in the future was written by somebody else: it counts from now, or it would wait for ever.
 */
function unknown(
  why: string,
  { decoded, unknownJobMs }: { decoded: WireJob; unknownJobMs: number },
  { nowMs, chance }: Moment,
): Wait | Dead {
  const sinceMs = Math.min(decoded.extra?.waitedSinceMs ?? nowMs, nowMs)
  const waitedMs = nowMs - sinceMs
  if (waitedMs >= unknownJobMs) return { kind: 'dead', reason: 'unknown-job', error: new Error(why) }
  const fullMs = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waitedMs))
  const delayMs = Math.ceil(Math.min(fullMs * (1 - 0.2 * chance), unknownJobMs - waitedMs))
  return { kind: 'wait', delayMs, why, reason: 'unknown-job', fields: ['waited-since', String(Math.floor(sinceMs))] }
}

/** Dates end where a field of 15 digits does not. */
function instantText(ms: number): string {
  return ms <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`
}
