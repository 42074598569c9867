import { createHash } from 'node:crypto'
import { OptionError } from '../errors.ts'
import { shown } from '../options.ts'

/**
 * Every key that millrace uses, one function each. All keys of a stream start with its prefix, which carries the stream's
 * hash tag: they live in the stream's own cluster slot, one script may touch them together, and one ACL pattern covers
 * them. The kind comes before any text of the user's, so that no group or producer can be named like another kind.
 */

/** Streams in use, for exporter, CLI and console. It lives in a slot of its own, so failing to write it is never fatal. */
export const STREAMS_KEY = 'millrace:streams'

/** The consumer that handed-back entries are put under; no worker can have this name. */
export const HANDBACK = ':handback'

export function settingsKey(stream: string): string {
  return `${prefix(stream)}:settings`
}

export function producerKey(stream: string, producerId: string): string {
  return `${prefix(stream)}:producer:${producerId}`
}

/** String: the id of the job that was published with this idempotency token. */
export function tokenKey(stream: string, token: string): string {
  return `${prefix(stream)}:token:${token}`
}

/** String: which job holds this uniqueness key; see scripts/holder.ts. */
export function uniqueKey(stream: string, key: string): string {
  return `${prefix(stream)}:unique:${key}`
}

/** Sorted set: ids of jobs that were published with a delay, by when they are due. They go to the stream. */
export function scheduledKey(stream: string): string {
  return `${prefix(stream)}:scheduled`
}

/** Hash beside it: what each of them will be. */
export function scheduledJobsKey(stream: string): string {
  return `${prefix(stream)}:scheduled:jobs`
}

/** Hash: the recurring schedules of the stream, by name; see scripts/cron.ts. */
export function cronKey(stream: string): string {
  return `${prefix(stream)}:cron`
}

/** Sorted set beside it: their names, by when they are to be looked at next. */
export function cronDueKey(stream: string): string {
  return `${prefix(stream)}:cron:due`
}

/** Sorted set: ids of jobs that were cancelled, by when; their entries may not have been delivered yet. */
export function cancelledKey(stream: string): string {
  return `${prefix(stream)}:cancelled`
}

/** Sorted set: ids of jobs that wait for their next attempt, by when it is due. They go to the redelivery stream. */
export function groupScheduledKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:scheduled`
}

/** Hash beside it: what each of them will be. */
export function groupScheduledJobsKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:scheduled:jobs`
}

export function redeliveryKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:redelivery`
}

export function deadKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:dead`
}

export function indexKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:index`
}

/** Hash: how far the jobs of the group that are in order are lined up; see scripts/order.ts. Its lines are named in Lua alone. */
export function orderKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:order`
}

/** Sorted set: the jobs of one key that have their outcome before them, by their order. */
export function lineKey(stream: string, group: string, key: string): string {
  return `${orderKey(stream, group)}:${key}`
}

/** String: how a job ended that was published with `result`; without a group, of one that ended before any had it. */
export function resultKey(stream: string, jobId: string, group?: string): string {
  const own = group === undefined ? prefix(stream) : `${prefix(stream)}:group:${group}`
  return `${own}:result:${jobId}`
}

/** Stream: what a producer is told of the jobs whose results it has asked for; trimmed, and gone with the last of them. */
export function repliesKey(stream: string, producerId: string): string {
  return `${prefix(stream)}:replies:${producerId}`
}

/** Hash: what the handler of a job has said of it on its way: progress, log lines, a checkpoint. */
export function notesKey(stream: string, group: string, jobId: string): string {
  return `${prefix(stream)}:group:${group}:notes:${jobId}`
}

/** Sorted set: ids of the replays into this stream or its groups, by when they were begun. */
export function replaysKey(stream: string): string {
  return `${prefix(stream)}:replays`
}

/** Hash: what one replay is of, and how far it is. */
export function replayKey(stream: string, replayId: string): string {
  return `${prefix(stream)}:replay:${replayId}`
}

/** List beside it: the entries that are meant, where it is of named jobs. */
export function replayIdsKey(stream: string, replayId: string): string {
  return `${prefix(stream)}:replay:${replayId}:ids`
}

/** Hash: up to where replays have read this stream, wherever they go to. Retention keeps what is behind that. */
export function holdsKey(stream: string): string {
  return `${prefix(stream)}:replays:holds`
}

/** Hash: job id → how it ended, where the group records outcomes; `hour` as in 2026-11-21T03. */
export function outcomesKey(stream: string, group: string, hour: string): string {
  return `${prefix(stream)}:group:${group}:outcomes:${hour}`
}

/** `hour` as in 2026-11-21T03. */
export function tallyKey(stream: string, group: string, hour: string): string {
  return `${prefix(stream)}:group:${group}:tally:${hour}`
}

/** Sorted set: consumer names by last pulse, in server milliseconds. */
export function workersKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:workers`
}

/** Hash beside it: what each worker says of itself, and under names that begin with a colon the group's shared ticks. */
export function workersInfoKey(stream: string, group: string): string {
  return `${prefix(stream)}:group:${group}:workers:info`
}

/** A limiter: a named one is of no stream, one without a name is of a group. Plain data: it crosses a thread boundary. */
export type LimiterPlace =
  { readonly name: string } | { readonly stream: string; readonly group: string; readonly id: string }

/** What the keys of named limiters begin with: each limiter has a slot of its own. */
export const LIMITERS_PREFIX = '{millrace:limit:'

/**
 * String: the times of a rate (`slots`). Sorted set: who may run, until when (`permits`). `key` tells the jobs of a limiter
 * apart; a long one, which may be anything of a payload, goes by its hash.
 */
export function limiterKey(place: LimiterPlace, what: 'slots' | 'permits', key: string | undefined): string {
  const own =
    'name' in place
      ? `${LIMITERS_PREFIX}${place.name}}`
      : `${prefix(place.stream)}:group:${place.group}:limit:${place.id}`
  if (key === undefined) return `${own}:${what}`
  const text = key.length > 200 ? `sha256.${createHash('sha256').update(key).digest('base64url')}` : key
  return `${own}:${what}:${text}`
}

/**
 * The same names in Lua, for what only a script knows: a job's uniqueness key, and which groups there are. `base` is what `baseOf`
 * gives for the settings key of the stream.
 */
export const KEY_NAMES = `
  local function baseOf(settings) return settings:sub(1, -10) end
  local function uniqueIn(base, key) return base .. ':unique:' .. key end
  local function cancelledIn(base) return base .. ':cancelled' end
  local function scheduledIn(base) return base .. ':scheduled' end
  local function ofGroup(base, group, kind) return base .. ':group:' .. group .. ':' .. kind end`

/** Refuses a stream name whose keys could land in another slot or be taken for another stream's. */
export function checkStreamName(name: unknown): string {
  const pattern = /^(?=.{1,200}$)[A-Za-z0-9_.:-]*(\{[A-Za-z0-9_.:-]+\})?[A-Za-z0-9_.:-]*$/
  if (typeof name !== 'string' || !pattern.test(name)) {
    throw new OptionError(
      `expected a stream name of letters, digits and _ . : - with at most one {tag}, got ${shown(name)}`,
      'ERR_NAME',
    )
  }
  const reserved =
    /^[^{]*\{[^}]+\}.*:(settings|scheduled|cron|producer|token|unique|cancelled|replays?|result|replies|group)(:|$)/
  if (/^\{[^}]*\}$/.test(name)) {
    const plain = name.slice(1, -1)
    throw new OptionError(
      `expected a stream name that is more than a tag, got ${shown(name)}: ${plain} has its keys`,
      'ERR_NAME',
    )
  }
  if (name === STREAMS_KEY || name.startsWith(LIMITERS_PREFIX) || reserved.test(name)) {
    throw new OptionError(
      `expected a stream name, got ${shown(name)}, which is the name of a key of millrace's own`,
      'ERR_NAME',
    )
  }
  return name
}

/** Refuses also what may one day be a group of millrace's own, and what metrics use for "all the others". */
export function checkGroupName(name: unknown): string {
  if (typeof name === 'string' && /^[A-Za-z0-9_.-]{1,64}$/.test(name)) {
    if (!/^(__|millrace([.-]|$))/.test(name)) return name
    throw new OptionError(
      `expected a group name, got ${shown(name)}: names that begin with __ or are millrace's own are reserved`,
      'ERR_NAME',
    )
  }
  throw new OptionError(`expected a group name of 1 to 64 letters, digits and _ . - , got ${shown(name)}`, 'ERR_NAME')
}

/** Whether the keys of two streams are in one cluster slot for sure: what counts is the tag, or the name without one. */
export function sharesSlot(stream: string, other: string): boolean {
  return tagOf(stream) === tagOf(other)
}

/** As Redis reads it. A stream's name has no tag that is empty. */
function tagOf(stream: string): string {
  return /\{([^}]+)\}/.exec(stream)?.[1] ?? stream
}

/** The stream's name if it carries a hash tag already, else the name as the tag. */
function prefix(stream: string): string {
  return stream.includes('{') ? stream : `{${stream}}`
}
