import type { Dead, Wait } from './decide.ts'
import type { Handler } from './job.ts'
import { checkData, placesText } from './schema.ts'
import { upcastData } from './versions.ts'
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

export function prepare(preparing: Preparing, now: Moment): Prepared {
  const { decoded, handler } = preparing
  if (decoded.kind !== 'job') return { kind: 'dead', reason: 'malformed', error: new Error(decoded.why) }
  const { extra } = decoded
  const late = extra?.expiresMs === undefined ? undefined : expiredBy(extra.expiresMs, now.nowMs)
  if (late !== undefined) return late
  const { unknownJobMs } = preparing
  if (handler === undefined) {
    return unknown('no worker of the group that received it has a handler for it', { decoded, unknownJobMs }, now)
  }
  const { schema, version: newest = 1, upcast } = handler.job
  const version = versionOf(decoded, newest)
  if (version === undefined) return invalid(new Error('its field version is not a version'))
  if (version > newest) {
    const why = `its payload has version ${version}, and the workers that received it know versions up to ${newest}`
    return unknown(why, { decoded, unknownJobMs }, now)
  }
  const upcasted = upcastData(decoded.data, { from: version, to: newest, upcast })
  if (upcasted.kind === 'failed') return invalid(upcasted.error)
  if (schema === undefined) return { kind: 'run', handler, data: upcasted.data }
  const checked = checkData(schema, upcasted.data)
  switch (checked.kind) {
    case 'fits':
      return { kind: 'run', handler, data: checked.value }
    case 'invalid':
      return invalid(new Error(`its data does not fit the schema of its job at ${placesText(checked.issues)}`))
    case 'broken':
      return invalid(new Error(checked.why, checked.cause === undefined ? undefined : { cause: checked.cause }))
  }
}

/** Whether there is more to be done for jobs of this handler than to call it. */
export function isChecked({ job: { schema, version = 1 } }: Handler): boolean {
  return schema !== undefined || version > 1
}

/** A job that has never had a second version may have a field of that name for something else. */
function versionOf({ extra }: WireJob, newest: number): number | undefined {
  const { version = 1 } = extra ?? {}
  if (!Number.isNaN(version)) return version
  return newest === 1 ? 1 : undefined
}

function invalid(error: Error): Dead {
  return { kind: 'dead', reason: 'invalid', error }
}

export type Expired = Dead & { readonly error: Error }

/** The end of a job that was not started in time; undefined while there is time. */
export function expiredBy(expiresMs: number, nowMs: number): Expired | undefined {
  if (nowMs < expiresMs) return undefined
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
  const { waitedSinceMs, version: told = 1 } = decoded.extra ?? {}
  const sinceMs = Math.min(waitedSinceMs ?? nowMs, nowMs)
  const waitedMs = nowMs - sinceMs
  const backOffMs = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, waitedMs)) * (1 - 0.2 * chance)
  const waitFor = (delayMs: number): Wait => {
    const fields = ['waited-since', String(Math.floor(sinceMs))]
    return { kind: 'wait', delayMs: Math.ceil(delayMs), why, reason: 'unknown-job', fields }
  }
  if (waitedMs < unknownJobMs) return waitFor(Math.min(backOffMs, unknownJobMs - waitedMs))
  const dead = { kind: 'dead', reason: 'unknown-job', error: new Error(why) } as const
  // It may only have been unlucky: most workers are old ones still, or those that know it are busy.
  return unknownJobMs === 0
    ? dead
    : { ...dead, unlessKnown: { version: Number.isNaN(told) ? 1 : told, wait: waitFor(backOffMs) } }
}

/** Dates end where a field of 15 digits does not. */
function instantText(ms: number): string {
  return ms <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`
}
