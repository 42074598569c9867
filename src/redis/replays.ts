import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'
import {
  holdsKey,
  indexKey,
  redeliveryKey,
  replayIdsKey,
  replayKey,
  replaysKey,
  settingsKey,
  tallyKey,
} from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { tallySlot } from './entry-id.ts'
import { copyReplay, createReplay, forgetReplay, holdHistory, noteReplayIds, turnReplay } from './scripts/replay.ts'
import { run, type Argument } from './scripts/script.ts'
import { TALLY_TTL_MS } from './tally.ts'

/** What replays ask of Redis: one function per script, replies narrowed. */

/**
 * Copies that one call brings into the target, at most, and about how many bytes. With 500 a call held Redis up for 4 ms and
 * the whole was no faster (measured, jobs of 100 bytes).
 */
export const COPY_BATCH = 250
export const COPY_BYTES = 1_048_576
/** Values of one entry that a script can append. */
export const MOST_VALUES = 7800

/** Where a replay is kept: the stream that it brings jobs into, itself or one of its groups, and its own id. */
export interface ReplayPlace {
  readonly stream: string
  readonly id: string
}

const HOUR_MS = 3_600_000
/** How long the list of ids of a replay that never began is kept. */
const IDS_TTL_MS = 3_600_000
/** How long a hold lasts if nobody renews it. */
export const HOLD_MS = 24 * HOUR_MS
/** Replays that may hold a stream at once. */
export const MOST_HOLDS = 100

/** @returns false if the id is taken. */
export async function takeUpReplay(
  client: Redis,
  { stream, id }: ReplayPlace,
  { token, fields }: { token: string; fields: Readonly<Record<string, string>> },
): Promise<boolean> {
  const keys = [replaysKey(stream), replayKey(stream, id), replayIdsKey(stream, id)]
  return asNumber(await run(client, createReplay, keys, [id, token, ...Object.entries(fields).flat()])) === 1
}

/** Notes entries behind the `given` ones that are noted already; at most 500. */
export async function noteIds(
  client: Redis,
  { stream, id }: ReplayPlace,
  { given, ids }: { given: number; ids: readonly string[] },
): Promise<void> {
  await run(client, noteReplayIds, [replayIdsKey(stream, id)], [given, IDS_TTL_MS, ...ids])
}

/** The noted entries from this number on, at most `most`. */
export async function readNotedIds(
  client: Redis,
  { stream, id }: ReplayPlace,
  { from, most }: { from: number; most: number },
): Promise<string[]> {
  return client.lrange(replayIdsKey(stream, id), from, from + most - 1).catch((error: unknown) => {
    throw withoutArguments(error)
  })
}

/** What the hash of a replay says; undefined if there is none. */
export async function readReplay(
  client: Redis,
  { stream, id }: ReplayPlace,
): Promise<Record<string, string> | undefined> {
  const fields = await client.hgetall(replayKey(stream, id)).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  return Object.keys(fields).length === 0 ? undefined : fields
}

/** Ids of the newest replays into a stream, the newest first. */
export async function listReplays(client: Redis, stream: string, most: number): Promise<string[]> {
  return client.zrevrange(replaysKey(stream), 0, most === Infinity ? -1 : most - 1).catch((error: unknown) => {
    throw withoutArguments(error)
  })
}

/** Forgets replays that are over, where there are more than `kept`; those that run or are paused stay. */
export async function forgetOldReplays(client: Redis, stream: string, kept: number): Promise<void> {
  const ids = await client.zrange(replaysKey(stream), '0', String(-kept - 1)).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  for (const id of ids.slice(0, FORGOTTEN_AT_ONCE)) {
    await run(client, forgetReplay, [replaysKey(stream), replayKey(stream, id), replayIdsKey(stream, id)], [id])
  }
}

const FORGOTTEN_AT_ONCE = 100

/** @returns the status after it; undefined if there is no such replay. */
export async function turn(
  client: Redis,
  { stream, id }: ReplayPlace,
  { wanted, perSecond }: { wanted: 'running' | 'paused' | 'cancelled'; perSecond?: number | undefined },
): Promise<string | undefined> {
  const keys = [replayKey(stream, id), replayIdsKey(stream, id)]
  return asText(await run(client, turnReplay, keys, [wanted, perSecond ?? ''])) || undefined
}

/** A copy as it is written: flat names and values. */
export interface Copy {
  readonly fields: readonly (string | Buffer)[]
  /** What it is a copy of, as its field says it. */
  readonly replayOf: string
}

export interface CopyAsked {
  /** Undefined for copies into the stream itself. */
  readonly group: string | undefined
  readonly cursor: string
  readonly nextCursor: string
  readonly copies: readonly Copy[]
  /** What else is noted of the replay with this step. */
  readonly fields: Readonly<Record<string, string>>
  /** About the server's time. */
  readonly nowMs: number
}

export type Copied =
  /** It is done | the time that was given is not the server's, which is told. */
  | { readonly kind: 'ok' | 'clock'; readonly nowMs: number }
  /** The cursor is elsewhere or it is not running | there is no such replay | the group is gone. */
  | { readonly kind: 'moved' | 'missing' | 'gone' }

/** Brings copies into the target and moves the cursor, in one step. */
export async function copyStep(client: Redis, { stream, id }: ReplayPlace, asked: CopyAsked): Promise<Copied> {
  const { group, cursor, nextCursor, copies, nowMs } = asked
  const own = [replayKey(stream, id), replayIdsKey(stream, id)]
  const firstHour = Math.floor(nowMs / HOUR_MS) - 1
  const keys = group === undefined ? [...own, stream] : [...own, ...groupKeys({ stream, group }, firstHour)]
  const noted = Object.entries(asked.fields).flat()
  const args: Argument[] = [cursor, group ?? '', firstHour, TALLY_TTL_MS, copies.length, nextCursor, noted.length]
  args.push(...noted)
  for (const { fields, replayOf } of copies) {
    const added = group === undefined ? ['replay-of', replayOf] : ['id', '', 'replay-of', replayOf]
    args.push(fields.length + added.length, ...fields, ...added)
  }
  const [kind, at] = asArray(await run(client, copyReplay, keys, args))
  if (kind === 'ok' || kind === 'clock') return { kind, nowMs: asNumber(at) }
  return { kind: kind === 'missing' || kind === 'gone' ? kind : 'moved' }
}

function groupKeys({ stream, group }: { stream: string; group: string }, firstHour: number): string[] {
  const hours = [0, 1, 2].map((after) => tallySlot(`${(firstHour + after) * HOUR_MS}-0`).hour)
  return [
    redeliveryKey(stream, group),
    stream,
    indexKey(stream, group),
    settingsKey(stream),
    ...hours.map((hour) => tallyKey(stream, group, hour)),
    holdsKey(stream),
  ]
}

/** How a hold is called in the stream that a replay reads. */
export function holdName({ stream, id }: ReplayPlace): string {
  return `${stream} ${id}`
}

/**
 * Has retention keep what is behind the cursor, for `ttlMs` from now on.
 * @returns the id of the oldest entry, undefined if the stream is empty; `full` if too many replays hold it.
 */
export async function hold(
  client: Redis,
  source: string,
  { place, cursor, ttlMs = HOLD_MS }: { place: ReplayPlace; cursor: string; ttlMs?: number },
): Promise<{ oldestId: string | undefined } | 'full'> {
  const args = [holdName(place), cursor, ttlMs, MOST_HOLDS]
  const [kind, oldestId] = asArray(await run(client, holdHistory, [source, holdsKey(source)], args))
  return kind === 'full' ? 'full' : { oldestId: asText(oldestId) || undefined }
}

/** Lets retention have what a replay has held, and drops the list of its entries: it is over. */
export async function release(client: Redis, source: string, place: ReplayPlace): Promise<void> {
  try {
    await client.hdel(holdsKey(source), holdName(place))
    await client.unlink(replayIdsKey(place.stream, place.id))
  } catch (error) {
    throw withoutArguments(error)
  }
}

/** Where replays of this id that read the stream are kept: the streams that they bring jobs into. */
export async function targetsOf(client: Redis, source: string, id: string): Promise<string[]> {
  const names = await client.hkeys(holdsKey(source)).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  return names.filter((name) => name.endsWith(` ${id}`)).map((name) => name.slice(0, name.indexOf(' ')))
}

/** The first and the last entry of a range, by id; undefined if it has none. */
export async function endsOf(
  client: Redis,
  stream: string,
  { low, high }: { low: string; high: string },
): Promise<{ fromId: string; toId: string } | undefined> {
  try {
    const [first] = await client.xrange(stream, low, high, 'COUNT', 1)
    const [last] = await client.xrevrange(stream, high, low, 'COUNT', 1)
    return first === undefined || last === undefined ? undefined : { fromId: first[0], toId: last[0] }
  } catch (error) {
    throw withoutArguments(error)
  }
}
