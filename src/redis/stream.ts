import type { Redis } from 'ioredis'
import { monotonicMs } from '../clock.ts'
import { UnknownGroupError } from '../errors.ts'
import { didYouMean } from '../options.ts'
import { withoutArguments } from './faults.ts'
import { STREAMS_KEY } from './keys.ts'
import { memberKeys, sourceKey, type Member, type Source } from './member.ts'
import { pauseInForce, type Pause } from './pause.ts'
import { asArray, asEntries, asNumber, asOptionalNumber, asText, type RawEntry } from './replies.ts'
import { claim } from './scripts/claim.ts'
import { beginDeliveries, handBack, renewLeases } from './scripts/delivery.ts'
import { forgetConsumers, joinGroup, leaveGroup, pulse } from './scripts/group.ts'
import { run, type Argument } from './scripts/script.ts'
import { settleAsGone } from './settling.ts'

/**
 * What a member of a group asks of Redis: one function per script or command, keys and arguments by name, replies narrowed.
 */

export interface Joined {
  readonly how: 'joined' | 'created' | 'restored'
  readonly leaseMs: number
  readonly maxDeliveries: number
  readonly floor: string
  /** The server's time. */
  readonly nowMs: number
}

/**
 * `again`: for a worker whose group is gone; see the script.
 * @throws UnknownGroupError if the stream has other groups and `startAt` is not given. Nothing was created then.
 */
export async function join(
  client: Redis,
  member: Member,
  wanted: { startAt: 'oldest' | 'now' | 'again' | undefined; leaseMs: number; maxDeliveries: number },
): Promise<Joined> {
  const { stream, group } = member
  const keys = [stream, sourceKey(member, 1), memberKeys.settings(member), memberKeys.info(member)]
  const args = [group, wanted.startAt ?? '', wanted.leaseMs, wanted.maxDeliveries]
  const [how, ...rest] = asArray(await run(client, joinGroup, keys, args)).map(asText)
  if (how === 'unknown') {
    throw new UnknownGroupError({ stream, group, groups: rest }, didYouMean(group, rest), 'to join')
  }
  const [leaseMs = '', maxDeliveries = '', floor = '', nowMs = ''] = rest
  const settings = { leaseMs: Number(leaseMs), maxDeliveries: Number(maxDeliveries) }
  return { how: how as Joined['how'], ...settings, floor, nowMs: Number(nowMs) }
}

/** Writes the stream into the list of streams in use. The list lives in another slot and is a convenience: failing is fine. */
export async function listStream(client: Redis, stream: string): Promise<void> {
  await client.sadd(STREAMS_KEY, stream).catch(withoutArguments)
}

/** Entries never delivered to the group, from the stream and its redelivery stream; waits up to `blockMs` for the first. */
export async function readNew(
  client: Redis,
  member: Member,
  { count, blockMs }: { count: number; blockMs: number },
): Promise<[RawEntry[], RawEntry[]]> {
  const [stream, redelivery] = [sourceKey(member, 0), sourceKey(member, 1)]
  const { group, consumer } = member
  const reply: unknown = await client
    .xreadgroup('GROUP', group, consumer, 'COUNT', count, 'BLOCK', blockMs, 'STREAMS', stream, redelivery, '>', '>')
    .catch((error: unknown) => {
      throw withoutArguments(error)
    })
  const found: [RawEntry[], RawEntry[]] = [[], []]
  if (reply === null) return found
  for (const part of asArray(reply)) {
    const [key, entries] = part as [string, unknown]
    found[key === stream ? 0 : 1] = asEntries(entries)
  }
  return found
}

/** The raw bytes of an entry's fields, or undefined if it is gone: for entries whose text may not be what was written. */
export async function readRaw(
  client: Redis,
  member: Member,
  source: Source,
  id: string,
): Promise<Buffer[] | undefined> {
  const rows = await client.xrangeBuffer(sourceKey(member, source), id, id)
  return rows[0]?.[1]
}

export interface PulseReply {
  /** The server's time. */
  readonly nowMs: number
  /** When it was received, by the monotonic clock. */
  readonly receivedAtMs: number
  readonly leaseMs: number | undefined
  readonly maxDeliveries: number | undefined
  readonly claimDue: boolean
  /** When the next delayed publish or retry is due, by the server's time. */
  readonly nextDueMs: number | undefined
  /** When the next recurring schedule is to be looked at, by the server's time. */
  readonly cronDueMs: number | undefined
  /** Ids of jobs that were cancelled since the pulse whose cursor was sent, for this group. */
  readonly cancelled: readonly string[]
  readonly cancelCursor: string
  /** Others are to be asked for at once. */
  readonly moreCancelled: boolean
  /** Whether the group is to begin nothing: it is paused, or its whole stream is. */
  readonly paused: Pause | undefined
}

export async function sendPulse(
  client: Redis,
  member: Member,
  { pulseMs, leaseMs, about, cancelCursor }: { pulseMs: number; leaseMs: number; about: string; cancelCursor: string },
): Promise<PulseReply> {
  const keys = [
    member.stream,
    sourceKey(member, 1),
    memberKeys.settings(member),
    memberKeys.workers(member),
    memberKeys.info(member),
    memberKeys.scheduled(member),
    memberKeys.retries(member),
    memberKeys.cancelled(member),
    memberKeys.cronDue(member),
  ]
  const args = [member.group, member.consumer, pulseMs, leaseMs, about, cancelCursor]
  const reply = asArray(await run(client, pulse, keys, args))
  const [nowMs, lease, most, claimDue, nextDue, cursor, pauses, ...cancels] = reply
  const [jobsDue, cronDue] = asArray(nextDue)
  return {
    nowMs: asNumber(nowMs),
    receivedAtMs: monotonicMs(),
    leaseMs: asOptionalNumber(lease),
    maxDeliveries: asOptionalNumber(most),
    claimDue: asNumber(claimDue) === 1,
    nextDueMs: asOptionalNumber(jobsDue),
    cronDueMs: asOptionalNumber(cronDue),
    cancelled: cancels.map(asText).flatMap((text) => cancelledFor(member.group, text)),
    cancelCursor: asText(cursor),
    moreCancelled: cancels.length === 500,
    paused: pauseInForce(pauses, asNumber(nowMs)),
  }
}

/** Before the first cancel. */
export const NO_CANCELS = '0'

/** Cancels after the cursor, for a worker that begins; at most 500, none if there are no more. */
export async function readCancelled(
  client: Redis,
  member: Member,
  cursor: string,
): Promise<{ ids: string[]; cursor: string; more: boolean }> {
  const key = memberKeys.cancelled(member)
  const flat = await client
    .zrangebyscore(key, `(${cursor}`, '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
    .catch((error: unknown) => {
      throw withoutArguments(error)
    })
  const members = flat.filter((_, at) => at % 2 === 0)
  return {
    ids: members.flatMap((text) => cancelledFor(member.group, text)),
    cursor: flat.at(-1) ?? cursor,
    more: members.length === 500,
  }
}

/** A member of the cancelled ones is a job id, for all groups, or a job id and a group. */
function cancelledFor(group: string, text: string): string[] {
  const [id = '', only] = text.split(' ')
  return only === undefined || only === group ? [id] : []
}

/** Where a sweep of the pending lists stands. Kept between calls; see the claim script. */
export interface SweepCursors {
  stream: string
  redelivery: string
}

export interface Claimed {
  readonly state: 'taken' | 'quiet' | 'done' | 'more'
  readonly cursors: SweepCursors
  /** Entries that had been deleted while they were pending; they no longer are. */
  readonly gone: readonly { source: Source; id: string }[]
  readonly rows: { source: Source; id: string; deliveries: number }[]
}

export async function claimStalled(
  client: Redis,
  member: Member,
  asked: {
    mode: 'take' | 'go'
    leaseMs: number
    pulseMs: number
    room: number
    cursors: SweepCursors
    avoided: readonly string[]
  },
): Promise<Claimed> {
  const keys = [member.stream, sourceKey(member, 1), memberKeys.info(member)]
  const { mode, leaseMs, pulseMs, room, cursors, avoided } = asked
  const args = [mode, member.group, member.consumer, leaseMs, pulseMs, room, cursors.stream, cursors.redelivery]
  const [state, cursor, redeliveryCursor, gone, ...rows] = asArray(
    await run(client, claim, keys, [...args, ...avoided]),
  )
  return {
    state: asText(state) as Claimed['state'],
    cursors: { stream: asText(cursor), redelivery: asText(redeliveryCursor) },
    gone: asPairs(gone).map(([source, id]) => ({ source: (asNumber(source) - 1) as Source, id: asText(id) })),
    rows: rows.map((row) => {
      const [source, id, deliveries] = asArray(row)
      return { source: (asNumber(source) - 1) as Source, id: asText(id), deliveries: asNumber(deliveries) }
    }),
  }
}

function asPairs(reply: unknown): [unknown, unknown][] {
  const flat = asArray(reply)
  return Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at], flat[2 * at + 1]])
}

export type Begun = { state: 'ok'; fields: string[] } | { state: 'lost' | 'gone'; fields: string[] }

/**
 * Counts the deliveries of claimed entries and brings their fields; those whose entries were deleted are settled as gone. The
 * answer may be shorter than `claimed`. It may be asked again.
 */
export async function begin(
  client: Redis,
  member: Member,
  source: Source,
  claimed: readonly { id: string; deliveries: number }[],
): Promise<Begun[]> {
  const args: Argument[] = [member.group, member.consumer]
  for (const { id, deliveries } of claimed) args.push(id, deliveries)
  const begun = asArray(await run(client, beginDeliveries, [sourceKey(member, source)], args)).map((row) => {
    const [state, fields] = row as [Begun['state'], string[]]
    return { state, fields }
  })
  const gone = claimed.flatMap(({ id }, at) => (begun[at]?.state === 'gone' ? [id] : []))
  if (gone.length > 0) await settleAsGone(client, member, { source, ids: gone, isAcked: false })
  return begun
}

/** Entries per call of the hand-back script. */
const HAND_BACK_BATCH = 200

/** Hands entries back to the group, each with the count it shall have from now on. Returns how many were still ours. */
export async function handBackAll(
  client: Redis,
  member: Member,
  source: Source,
  held: readonly { id: string; deliveries: number; newDeliveries: number }[],
): Promise<number> {
  let handed = 0
  for (let from = 0; from < held.length; from += HAND_BACK_BATCH) {
    const args: Argument[] = [member.group, member.consumer]
    for (const one of held.slice(from, from + HAND_BACK_BATCH)) args.push(one.id, one.deliveries, one.newDeliveries)
    handed += asNumber(await run(client, handBack, [sourceKey(member, source)], args))
  }
  return handed
}

/** Renews the leases of at most 400 entries in rising order of id; returns the positions of those that are lost. */
export async function renew(
  client: Redis,
  member: Member,
  { source, held, youngMs }: { source: Source; held: readonly { id: string; deliveries: number }[]; youngMs: number },
): Promise<number[]> {
  const args: Argument[] = [member.group, member.consumer, Math.floor(youngMs)]
  for (const { id, deliveries } of held) args.push(id, deliveries)
  const lost = asArray(await run(client, renewLeases, [sourceKey(member, source)], args))
  return lost.map((position) => asNumber(position) - 1)
}

/** Takes a worker off the list; its consumers are deleted if they hold nothing. Returns how many entries they hold. */
export async function leave(client: Redis, member: Member): Promise<number> {
  const keys = [member.stream, sourceKey(member, 1), memberKeys.workers(member), memberKeys.info(member)]
  return asNumber(await run(client, leaveGroup, keys, [member.group, member.consumer]))
}

/** Deletes consumers that are gone and empty. */
export async function forget(client: Redis, member: Member, forgetMs: number): Promise<number> {
  const keys = [member.stream, sourceKey(member, 1), memberKeys.workers(member), memberKeys.info(member)]
  return asNumber(await run(client, forgetConsumers, keys, [member.group, forgetMs]))
}
