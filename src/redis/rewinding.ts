import type { Redis } from 'ioredis'
import { compareIds, hasMadeId, isEntryId } from './entry-id.ts'
import { withoutArguments } from './faults.ts'
import { indexKey, settingsKey, workersKey } from './keys.ts'
import { look } from './inspection.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { countEntries, lookBack, setBack } from './scripts/rewind.ts'
import { run } from './scripts/script.ts'
import { groupFields } from './settings.ts'

/** Setting a group back: where it is, how many entries that would be, and doing it. */

/** Pending entries that one rewind settles, at most. */
export const PENDING_MOST = 500

/** Where a group is, and what a rewind would find. */
export interface GroupPoint {
  readonly nowMs: number
  readonly lastId: string
  /** Entries that it has read so far; undefined where Redis does not know. */
  readonly entriesRead: number | undefined
  readonly lag: number | undefined
  readonly unreadId: string | undefined
  /** The oldest entry of the stream; undefined if it is empty. */
  readonly oldestId: string | undefined
  /** Whether entries of the stream were removed; undefined before Redis 7.0. */
  readonly hasLost: boolean | undefined
  readonly workers: number
  /** Pending entries behind the point, counted up to one more than `PENDING_MOST`. */
  readonly pendingAgain: number
}

/** Undefined if there is no such group. */
export async function readPoint(
  client: Redis,
  stream: string,
  { group, toId, presentMs }: { group: string; toId: string; presentMs: number },
): Promise<GroupPoint | undefined> {
  const reply = asArray(await look(client, lookBack, [stream, workersKey(stream, group)], [group, toId, presentMs]))
  if (reply.length === 0) return undefined
  const [nowMs, lastId, entriesRead, lag, unreadId, added, oldestId, entries, workers, pendingAgain] = reply
  const entriesAdded = asOptionalNumber(added)
  return {
    nowMs: asNumber(nowMs),
    lastId: asText(lastId),
    entriesRead: asOptionalNumber(entriesRead),
    lag: asOptionalNumber(lag),
    unreadId: asText(unreadId) || undefined,
    oldestId: asText(oldestId) || undefined,
    hasLost: entriesAdded === undefined ? undefined : entriesAdded > asNumber(entries),
    workers: asNumber(workers),
    pendingAgain: asNumber(pendingAgain),
  }
}

export interface CountedPage {
  readonly entries: number
  readonly firstId: string | undefined
  readonly lastId: string | undefined
  /** Where the next page begins; undefined if this one is the last. */
  readonly next: string | undefined
  /** Entries that the stream ever got, at the moment of the count; undefined before Redis 7.0. */
  readonly added: number | undefined
}

/** Counts a page of a range, whose ends are as XRANGE takes them. */
export async function countPage(
  client: Redis,
  stream: string,
  { from, to }: { from: string; to: string },
): Promise<CountedPage> {
  const [entries, firstId, lastId, next, added] = asArray(await look(client, countEntries, [stream], [from, to]))
  return {
    entries: asNumber(entries),
    firstId: asText(firstId) || undefined,
    lastId: asText(lastId) || undefined,
    next: asText(next) || undefined,
    added: asOptionalNumber(added),
  }
}

export type SetBack =
  | {
      readonly how: 'rewound'
      readonly fromId: string
      /** Entries that the group was given after those that were counted. */
      readonly further: number
      readonly pendingAgain: number
      readonly lag: number | undefined
      readonly workers: number
    }
  /** It was done before, since the caller first looked. */
  | { readonly how: 'same'; readonly fromId: string }
  | { readonly how: 'alive'; readonly workers: number }
  | { readonly how: 'trimmed'; readonly oldestId: string | undefined }
  | { readonly how: 'moved' }
  | { readonly how: 'gone' | 'pending' }

/** Sets the group back, or tells why not; see the script. */
export async function setGroupBack(
  client: Redis,
  stream: string,
  asked: {
    group: string
    presentMs: number
    force: boolean
    toId: string
    firstId: string
    countedTo: string
    entriesRead: number | undefined
    lookedMs: number
  },
): Promise<SetBack> {
  const { group, presentMs, force, toId, firstId, countedTo, entriesRead, lookedMs } = asked
  const keys = [stream, settingsKey(stream), workersKey(stream, group)]
  const where = [toId, firstId, countedTo, entriesRead ?? '', lookedMs]
  const args = [group, groupFields(group), presentMs, force ? 1 : 0, ...where]
  const [how, ...told] = asArray(await run(client, setBack, keys, args))
  switch (how) {
    case 'rewound':
      return {
        how,
        fromId: asText(told[0]),
        further: asNumber(told[1]),
        pendingAgain: asNumber(told[2]),
        lag: asOptionalNumber(told[3]),
        workers: asNumber(told[4]),
      }
    case 'same':
      return { how, fromId: asText(told[0]) }
    case 'alive':
      return { how, workers: asNumber(told[0]) }
    case 'trimmed':
      return { how, oldestId: asText(told[0]) || undefined }
    case 'moved':
      return { how }
    default:
      return { how: asText(how) as 'gone' | 'pending' }
  }
}

/** Jobs of a range of entries that a group also has elsewhere, where they run beside the rewind. */
export interface Elsewhere {
  /** Retries that wait for their time. */
  readonly scheduled: number
  /** Dead letters. */
  readonly dead: number
  /** Jobs in the redelivery stream. */
  readonly redelivery: number
}

/** Index entries that are looked at; what is beyond that is not counted. */
const INDEX_MOST = 10_000

/**
 * Undefined where the group has too many such jobs to count in passing. Jobs that were published with a delay are left out:
 * their ids are not those of their entries.
 */
export async function countElsewhere(
  client: Redis,
  stream: string,
  { group, toId, lastId }: { group: string; toId: string; lastId: string },
): Promise<Elsewhere | undefined> {
  const key = indexKey(stream, group)
  const refused = (error: unknown) => {
    throw withoutArguments(error)
  }
  if ((await client.hlen(key).catch(refused)) > INDEX_MOST) return undefined
  const found = new Map<string, string>()
  let cursor = '0'
  do {
    const [next, flat] = await client.hscan(key, cursor, 'COUNT', 500).catch(refused)
    cursor = next
    for (let at = 0; at + 1 < flat.length; at += 2) found.set(flat[at] ?? '', flat[at + 1] ?? '')
  } while (cursor !== '0' && found.size <= INDEX_MOST)
  const counts: Record<string, number> = { scheduled: 0, dead: 0, redelivery: 0 }
  for (const [id, where] of found) {
    if (!isEntryId(id) || hasMadeId(id) || compareIds(id, toId) <= 0 || compareIds(id, lastId) > 0) continue
    const [place = ''] = where.split(' ')
    if (place in counts) counts[place] = (counts[place] ?? 0) + 1
  }
  return { scheduled: counts['scheduled'] ?? 0, dead: counts['dead'] ?? 0, redelivery: counts['redelivery'] ?? 0 }
}
