import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'
import { SOURCES, sourceKey, type Member } from './member.ts'
import { asArray, asEntries, asNumber, asText, type RawEntry } from './replies.ts'
import { readLanes } from './scripts/lanes.ts'
import { run, type Argument } from './scripts/script.ts'

/** Reading several streams of one worker at once. In a cluster all of them are in one slot. */

/** One stream to read, and how much of it: its quota first, and up to `want` where others leave room. */
export interface LaneAsked {
  readonly member: Member
  readonly quota: number
  readonly want: number
}

/** What came of one stream. */
export interface LaneRead {
  /** Whether it had fewer than it was asked for: for now there are no more. */
  readonly isShort: boolean
  /** Why it could not be read. What was delivered before is in `entries` all the same. */
  readonly fault: Error | undefined
  readonly entries: [RawEntry[], RawEntry[]]
}

/** What is there now of entries never delivered to the group, at most `total` of all streams, in their order. */
export async function readWithin(
  client: Redis,
  asked: readonly LaneAsked[],
  { total, turn }: { total: number; turn: 0 | 1 },
): Promise<LaneRead[]> {
  const { group, consumer } = asked[0]?.member ?? { group: '', consumer: '' }
  const args: Argument[] = [group, consumer, total, turn]
  for (const { quota, want } of asked) args.push(quota, want)
  const reply = asArray(await run(client, readLanes, keysOf(asked), args))
  return reply.map((row) => {
    const [wanted, came, fault, entries, redelivered] = asArray(row)
    return {
      isShort: asNumber(came) < asNumber(wanted),
      fault: asFault(asText(fault)),
      entries: [asEntries(entries), asEntries(redelivered)],
    }
  })
}

/** Waits up to `blockMs` for the first entry in any of them; `count` of each key at most. */
export async function readFirst(
  client: Redis,
  lanes: readonly { readonly member: Member }[],
  { count, blockMs }: { count: number; blockMs: number },
): Promise<[RawEntry[], RawEntry[]][]> {
  const { group, consumer } = lanes[0]?.member ?? { group: '', consumer: '' }
  const keys = keysOf(lanes)
  const ids = keys.map(() => '>')
  const reply: unknown = await client
    .xreadgroup('GROUP', group, consumer, 'COUNT', count, 'BLOCK', blockMs, 'STREAMS', ...keys, ...ids)
    .catch((error: unknown) => {
      throw withoutArguments(error)
    })
  const byKey = new Map((reply === null ? [] : asArray(reply)).map((part) => part as [string, unknown]))
  return lanes.map(({ member }) => {
    const [stream = [], redelivered = []] = SOURCES.map((source) => {
      const entries = byKey.get(sourceKey(member, source))
      return entries === undefined ? [] : asEntries(entries)
    })
    return [stream, redelivered]
  })
}

function keysOf(lanes: readonly { readonly member: Member }[]): string[] {
  return lanes.flatMap(({ member }) => SOURCES.map((source) => sourceKey(member, source)))
}

/** As if the command had failed by itself: what it means is told by its words. */
function asFault(text: string): Error | undefined {
  if (text === '') return undefined
  return Object.assign(new Error(text), { name: 'ReplyError' })
}
