import type { Redis } from 'ioredis'
import { isEntryId, tallySlot } from './entry-id.ts'
import { withoutArguments } from './faults.ts'
import {
  deadKey,
  groupScheduledKey,
  redeliveryKey,
  scheduledKey,
  settingsKey,
  STREAMS_KEY,
  tallyKey,
  workersInfoKey,
  workersKey,
} from './keys.ts'
import { pauseOf, type Pause } from './pause.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { inspectGroup, inspectStream } from './scripts/inspect.ts'
import { run, type Argument, type Script } from './scripts/script.ts'

/**
 * What an inspector asks of Redis. Nothing here writes: scripts go as EVALSHA_RO, which the server holds to reading and for
 * which reading is permission enough; where the server or its permissions do not have that, as EVALSHA.
 */

/** Names in the list of streams in use, at most `most`; `more` if there are others. In no order. */
export async function readStreams(client: Redis, most: number): Promise<{ names: string[]; more: boolean }> {
  const names = new Set<string>()
  let cursor = '0'
  do {
    const [next, found] = await client.sscan(STREAMS_KEY, cursor, 'COUNT', 500).catch((error: unknown) => {
      throw withoutArguments(error)
    })
    cursor = next
    for (const name of found) names.add(name)
  } while (cursor !== '0' && names.size <= most)
  return { names: [...names].slice(0, most), more: cursor !== '0' || names.size > most }
}

/** Jobs that wait until they are due. */
export interface ScheduledSeen {
  readonly jobs: number
  /** Those of them that could not be moved when they were due. */
  readonly setAside: number
  /** When the next of the others is due; undefined if there is none. */
  readonly nextDueMs: number | undefined
}

export type StreamSeen =
  | { readonly kind: 'missing' }
  /** The key is of another type. */
  | { readonly kind: 'other'; readonly type: string }
  | {
      readonly kind: 'stream'
      readonly nowMs: number
      readonly entries: number
      readonly oldestId: string | undefined
      readonly scheduled: ScheduledSeen
      /** Undefined if the stream as a whole is not paused now. */
      readonly paused: Pause | undefined
      /** Names of groups, and whether there are others. */
      readonly groups: readonly string[]
      readonly more: boolean
    }

export async function readStream(client: Redis, stream: string, mostGroups: number): Promise<StreamSeen> {
  const reply = asArray(
    await look(client, inspectStream, [stream, scheduledKey(stream), settingsKey(stream)], [mostGroups]),
  )
  const [type, nowMs, entries, oldestId, scheduled, paused, count, ...groups] = reply
  if (type === 'none') return { kind: 'missing' }
  if (type !== 'stream') return { kind: 'other', type: asText(type) }
  return {
    kind: 'stream',
    nowMs: asNumber(nowMs),
    entries: asNumber(entries),
    oldestId: asOptionalId(oldestId),
    scheduled: asScheduled(scheduled),
    paused: pauseOf(paused, asNumber(nowMs)),
    groups: groups.map(asText),
    more: asNumber(count) > groups.length,
  }
}

/** What one key, the stream or the redelivery stream, has for a group. */
export interface Backlog {
  /** Undefined where Redis does not know. */
  readonly lag: number | undefined
  readonly unreadId: string | undefined
  readonly pending: number
  readonly oldestPendingId: string | undefined
  readonly handedBack: number
}

export interface GroupSeen {
  readonly nowMs: number
  readonly stream: Backlog
  readonly redelivery: Backlog
  /** Retries. */
  readonly scheduled: ScheduledSeen
  readonly dead: number
  readonly workers: number
  /** What each of them says of itself; empty where it has not said anything yet. */
  readonly about: readonly string[]
  /** When a pulse of the group was last heard; undefined if none ever was. */
  readonly lastSeenMs: number | undefined
  readonly lastHour: LastHour
  /** Undefined if the group itself is not paused now; its stream may be. */
  readonly paused: Pause | undefined
}

/** Outcomes of the jobs that were published in the last 60 minutes. */
export interface LastHour {
  readonly completed: number
  readonly dead: number
  readonly late: number
  readonly retried: number
  readonly cancelled: number
  /** Jobs that the group does not want. */
  readonly skipped: number
}

/**
 * Undefined if the group is gone, unless what it left behind is asked for. `nowMs` is the server's time, for the tallies of
 * the last hour.
 */
export async function readGroup(
  client: Redis,
  stream: string,
  group: string,
  asked: { nowMs: number; presentMs: number; mostWorkers: number; evenIfGone?: boolean },
): Promise<GroupSeen | undefined> {
  const { hour, minute } = tallySlot(`${asked.nowMs}-0`)
  const { hour: hourBefore } = tallySlot(`${asked.nowMs - 3_600_000}-0`)
  const keys = [
    stream,
    redeliveryKey(stream, group),
    workersKey(stream, group),
    workersInfoKey(stream, group),
    deadKey(stream, group),
    groupScheduledKey(stream, group),
    tallyKey(stream, group, hour),
    tallyKey(stream, group, hourBefore),
    settingsKey(stream),
  ]
  const args = [group, minute, asked.presentMs, asked.mostWorkers]
  const reply = asArray(await look(client, inspectGroup, keys, args))
  const [at, onStream, onRedelivery, scheduled, dead, workers, about, lastSeenMs, lastHour, paused] = reply
  if (asArray(onStream).length === 0 && asked.evenIfGone !== true) return undefined
  return {
    nowMs: asNumber(at),
    stream: asBacklog(onStream),
    redelivery: asBacklog(onRedelivery),
    scheduled: asScheduled(scheduled),
    dead: asNumber(dead),
    workers: asNumber(workers),
    about: asArray(about).map(asText),
    lastSeenMs: asOptionalNumber(lastSeenMs),
    lastHour: asLastHour(lastHour),
    paused: pauseOf(paused, asNumber(at)),
  }
}

function asLastHour(reply: unknown): LastHour {
  const [completed, dead, late, retried, cancelled, skipped] = asArray(reply)
  return {
    completed: asNumber(completed),
    dead: asNumber(dead),
    late: asNumber(late),
    retried: asNumber(retried),
    cancelled: asNumber(cancelled),
    skipped: asNumber(skipped),
  }
}

export function asScheduled(reply: unknown): ScheduledSeen {
  const [jobs, setAside, nextDueMs] = asArray(reply)
  return { jobs: asNumber(jobs), setAside: asNumber(setAside), nextDueMs: asOptionalNumber(nextDueMs) }
}

/** A key that the group does not read, and that none of its workers has made yet, has nothing for it. */
export function asBacklog(reply: unknown): Backlog {
  const [lag = 0, unreadId = '', pending = 0, oldestPendingId = '', handedBack = 0] = asArray(reply)
  return {
    lag: asOptionalNumber(lag),
    unreadId: asOptionalId(unreadId),
    pending: asNumber(pending),
    oldestPendingId: asOptionalId(oldestPendingId),
    handedBack: asNumber(handedBack),
  }
}

export function asOptionalId(reply: unknown): string | undefined {
  const text = asText(reply)
  return isEntryId(text) ? text : undefined
}

/** Clients whose server, or whose permissions, are without EVALSHA_RO: Redis before 7.0. */
const withoutReadOnly = new WeakSet<Redis>()

/** Runs a script that only reads. */
export async function look(
  client: Redis,
  script: Script,
  keys: readonly string[],
  args: readonly Argument[],
): Promise<unknown> {
  if (withoutReadOnly.has(client)) return run(client, script, keys, args)
  try {
    return await client.evalsha_ro(script.sha, keys.length, ...keys, ...args)
  } catch (error) {
    const message = error instanceof Error ? error.message : ''
    if (message.startsWith('NOSCRIPT')) {
      return client.eval_ro(script.lua, keys.length, ...keys, ...args).catch((again: unknown) => {
        throw withoutArguments(again)
      })
    }
    if (!/unknown command|NOPERM.*evalsha_ro/i.test(message)) throw withoutArguments(error)
    withoutReadOnly.add(client)
    return run(client, script, keys, args)
  }
}
