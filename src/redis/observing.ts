import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'
import { asBacklog, asOptionalId, asScheduled, look, type Backlog, type ScheduledSeen } from './inspection.ts'
import {
  cronDueKey,
  cronKey,
  deadKey,
  groupScheduledKey,
  redeliveryKey,
  scheduledKey,
  settingsKey,
  STREAMS_KEY,
} from './keys.ts'
import { workersInfoKey, workersKey } from './keys.ts'
import { pauseOf, type Pause } from './pause.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { countStuck, listConsumers, observeStream } from './scripts/observe.ts'

/**
 * What metrics ask of Redis: as inspection.ts, for many streams at a time and therefore lean. Groups and consumers go by the
 * ids of scripts/observe.ts, since their names may be any bytes.
 */

/** Jobs that wait until they are due. */
export interface Waiting extends ScheduledSeen {
  /** Those of them that are due now and not moved yet. */
  readonly dueJobs: number
}

/** What one key has for a group. */
export interface Observed extends Backlog {
  /** Entries delivered so far; undefined where Redis does not know. */
  readonly entriesRead: number | undefined
  readonly lastDeliveredId: string | undefined
  readonly consumers: number
}

export interface GroupObserved {
  readonly stream: Observed
  /** Undefined where the group has no redelivery stream. */
  readonly redelivery: Observed | undefined
  /** Retries. */
  readonly scheduled: Waiting
  readonly dead: number
  readonly oldestDeadId: string | undefined
  readonly workers: number
  /** What each of them says of itself; empty where it has not said anything yet. */
  readonly about: readonly string[]
  readonly lastSeenMs: number | undefined
  /** Undefined if the group itself is not paused now; its stream may be. */
  readonly paused: Pause | undefined
}

export type StreamObserved =
  | { readonly kind: 'missing' }
  /** The key is of another type. */
  | { readonly kind: 'other'; readonly type: string }
  | {
      readonly kind: 'stream'
      readonly nowMs: number
      readonly entries: number
      /** Entries ever added; undefined where Redis does not say: before 7.0, and while the key is missing. */
      readonly added: number | undefined
      readonly lastId: string | undefined
      readonly scheduled: Waiting
      /** Recurring schedules, by their next tick. */
      readonly schedules: Waiting
      readonly paused: Pause | undefined
      /** How many groups there are, and the ids of the first ones. */
      readonly groupCount: number
      readonly groupIds: readonly string[]
      /** As they were asked for, undefined for one that is gone; may be fewer than were asked for. */
      readonly groups: readonly (GroupObserved | undefined)[]
    }

/** Most groups that one call may ask for. */
export const MOST_GROUPS_A_CALL = 32

export async function observe(
  client: Redis,
  stream: string,
  groupIds: readonly string[],
  asked: { presentMs: number; mostWorkers: number; mostGroups: number },
): Promise<StreamObserved> {
  const keys = [stream, scheduledKey(stream), settingsKey(stream), cronDueKey(stream), cronKey(stream)]
  for (const id of groupIds) {
    if (isPlain(id)) keys.push(...groupKeys(stream, id))
  }
  const args = [asked.presentMs, asked.mostWorkers, asked.mostGroups, ...groupIds]
  const reply = asArray(await look(client, observeStream, keys, args))
  const [type, nowMs, entries, added, lastId, scheduled, schedules, paused, groupCount, ids, ...groups] = reply
  if (type === 'none') return { kind: 'missing' }
  if (type !== 'stream') return { kind: 'other', type: asText(type) }
  const atMs = asNumber(nowMs)
  return {
    kind: 'stream',
    nowMs: atMs,
    entries: asNumber(entries),
    added: asOptionalNumber(added),
    lastId: asOptionalId(lastId),
    scheduled: asWaiting(scheduled),
    schedules: asWaiting(schedules),
    paused: pauseOf(paused, atMs),
    groupCount: asNumber(groupCount),
    groupIds: asArray(ids).map(asText),
    groups: groups.map((group) => (group === '' ? undefined : asGroup(group, atMs))),
  }
}

/** The name that an id stands for; undefined if it is no UTF-8. */
export function nameOfId(id: string): string | undefined {
  if (!id.includes('%')) return id
  try {
    return decodeURIComponent(id)
  } catch {
    return undefined
  }
}

/**
 * Of the oldest pending entries, at most `most` a key, those that nobody has renewed for so many leases.
 * @param isAhead whether ids of the stream are ahead of the server's clock.
 */
export async function readStuck(
  client: Redis,
  { stream, groupId }: { stream: string; groupId: string },
  { most, leases, leaseMs, isAhead }: { most: number; leases: number; leaseMs: number; isAhead: boolean },
): Promise<number> {
  const keys = [stream, settingsKey(stream)]
  if (isPlain(groupId)) keys.push(redeliveryKey(stream, groupId))
  return asNumber(await look(client, countStuck, keys, [groupId, most, leases, leaseMs, isAhead ? 1 : 0]))
}

export interface ConsumerObserved {
  readonly consumerId: string
  readonly pending: number
  readonly lastSeenMs: number
}

/** The consumers of a group that hold the most. */
export async function readConsumers(
  client: Redis,
  { stream, groupId }: { stream: string; groupId: string },
  most: number,
): Promise<ConsumerObserved[]> {
  const keys = isPlain(groupId) ? [stream, redeliveryKey(stream, groupId)] : [stream]
  const [nowMs, ...rows] = asArray(await look(client, listConsumers, keys, [groupId, most]))
  return rows.map((row) => {
    const [id, pending, idleMs] = asArray(row)
    return { consumerId: asText(id), pending: asNumber(pending), lastSeenMs: asNumber(nowMs) - asNumber(idleMs) }
  })
}

/** What the key of a stream takes; undefined if it is missing. */
export async function readMemory(client: Redis, stream: string): Promise<number | undefined> {
  return asOptionalNumber(
    await client.memory('USAGE', stream).catch((error: unknown) => {
      throw withoutArguments(error)
    }),
  )
}

/** How many names the list of streams in use has. */
export async function countStreams(client: Redis): Promise<number> {
  return client.scard(STREAMS_KEY).catch((error: unknown) => {
    throw withoutArguments(error)
  })
}

/** A group of such an id can have keys of its own; of others there is nothing but what the stream has of them. */
function isPlain(id: string): boolean {
  return id.length <= 64 && !id.includes('%')
}

function groupKeys(stream: string, group: string): string[] {
  return [
    redeliveryKey(stream, group),
    workersKey(stream, group),
    workersInfoKey(stream, group),
    deadKey(stream, group),
    groupScheduledKey(stream, group),
  ]
}

function asGroup(reply: unknown, nowMs: number): GroupObserved {
  const [stream, redelivery, scheduled, dead, oldestDeadId, workers, about, lastSeenMs, paused] = asArray(reply)
  return {
    stream: asObserved(stream),
    redelivery: asArray(redelivery).length === 0 ? undefined : asObserved(redelivery),
    scheduled: asWaiting(scheduled),
    dead: asNumber(dead),
    oldestDeadId: asOptionalId(oldestDeadId),
    workers: asNumber(workers),
    about: asArray(about).map(asText),
    lastSeenMs: asOptionalNumber(lastSeenMs),
    paused: pauseOf(paused, nowMs),
  }
}

function asObserved(reply: unknown): Observed {
  const [lag, unreadId, pending, oldestPendingId, entriesRead, lastDeliveredId, consumers] = asArray(reply)
  return {
    ...asBacklog([lag, unreadId, pending, oldestPendingId, 0]),
    entriesRead: asOptionalNumber(entriesRead),
    lastDeliveredId: asOptionalId(lastDeliveredId),
    consumers: asNumber(consumers),
  }
}

function asWaiting(reply: unknown): Waiting {
  return { ...asScheduled(reply), dueJobs: asNumber(asArray(reply)[3]) }
}
