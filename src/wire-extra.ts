import { tickOf, type CronTick } from './cron/tick.ts'
import { noteHeader, type Headers } from './headers.ts'
import { timeOf } from './redis/entry-id.ts'
import { replyOf, type Reply } from './results/reply.ts'

/**
 * The fields that few jobs have, as every part of a worker reads them. They hang on one optional object, so that a job without
 * them costs nothing. Taken for hostile like all fields: what cannot be read is left out where the job may run without it.
 */

export interface Extra {
  /** Until when the job is to be started, in ms since the epoch by the time of Redis. */
  readonly expiresMs?: number
  /** What holds its uniqueness key, and for how long. */
  readonly unique?: { readonly key: string; readonly until: 'settled' | 'started' | 'ttl' }
  /** The version of its payload; NaN where the field is no version. */
  readonly version?: number
  /** When it first had to wait for what is no failure of its own, in ms since the epoch. */
  readonly waitedSinceMs?: number
  /** Deliveries that had no outcome before it was last put off: its new entry's count begins there. */
  readonly pastDeliveries?: number
  /** What it is in order by: one job of a key at a time. */
  readonly key?: string
  /** What limits have granted it, in their own words. */
  readonly granted?: string
  /** The recurring schedule that has published it. */
  readonly cron?: CronTick
  /** Who wants to know how it ends. */
  readonly reply?: Reply
  /** What its publisher sent along, by lower-case name; an object without a prototype. */
  readonly headers?: Headers
}

/** The fields as they stand in the entry, the first of each name. */
export interface ExtraFields {
  expires?: string
  unique?: string
  'unique-until'?: string
  key?: string
  version?: string
  'waited-since'?: string
  'past-deliveries'?: string
  granted?: string
  cron?: string
  reply?: string
  headers?: Record<string, string>
}

/** Notes a header; what cannot be the name of one is left out. */
export function addHeader(to: ExtraFields, field: string, value: string): void {
  const headers = noteHeader(to.headers, field, value)
  if (headers !== undefined) to.headers = headers
}

/** The text of `why` tells that the job must not run: what it was published with cannot be kept. */
export function extraOf(given: ExtraFields, jobId: string): Extra | { readonly why: string } {
  const expiresMs = deadlineOf(given.expires, jobId)
  if (Number.isNaN(expiresMs)) return { why: 'its field expires is not a time in ms' }
  if (given.key !== undefined && !isOrderKey(given.key)) {
    return { why: 'its field key is not 1 to 256 bytes of printable text' }
  }
  const waitedSinceMs = countOf(given['waited-since'])
  const pastDeliveries = countOf(given['past-deliveries'])
  const cron = tickOf(given.cron)
  const reply = replyOf(given.reply)
  return {
    ...(expiresMs !== undefined && { expiresMs }),
    ...(given.unique !== undefined && { unique: { key: given.unique, until: untilOf(given['unique-until']) } }),
    ...(given.key !== undefined && { key: given.key }),
    ...(given.version !== undefined && { version: versionOf(given.version) }),
    ...(waitedSinceMs !== undefined && { waitedSinceMs }),
    ...(pastDeliveries !== undefined && { pastDeliveries }),
    ...(given.granted !== undefined && { granted: given.granted }),
    ...(cron !== undefined && { cron }),
    ...(reply !== undefined && { reply }),
    ...(given.headers !== undefined && { headers: Object.freeze(given.headers) }),
  }
}

/**
 * Whether a text can be a key that jobs are in order by. One with a replacement character may have been other bytes: Redis would
 * have it in another line than we do.
 */
export function isOrderKey(text: string): boolean {
  return /^[^\p{Cc}\p{Surrogate}\uFFFD]{1,256}$/u.test(text) && Buffer.byteLength(text) <= 256
}

/** A count or a time; undefined for what is none. */
export function countOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

/** A time, or `+` and ms from when the job was published, which its id tells; NaN for what is neither. */
function deadlineOf(text: string | undefined, jobId: string): number | undefined {
  if (text === undefined) return undefined
  if (!text.startsWith('+')) return countOf(text) ?? NaN
  return timeOf(jobId) + (countOf(text.slice(1)) ?? NaN)
}

function versionOf(text: string): number {
  return /^[1-9]\d{0,8}$/.test(text) ? Number(text) : NaN
}

function untilOf(text: string | undefined): 'settled' | 'started' | 'ttl' {
  return text === 'started' || text === 'ttl' ? text : 'settled'
}
