import type { Redis } from 'ioredis'
import { look } from './inspection.ts'
import { redeliveryKey, settingsKey } from './keys.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { pendingPage } from './scripts/pending.ts'

/** What a group has pending, page by page. */

/** Entries that one page looks at, at most: each of them is read. */
export const PENDING_PAGE = 200

export type PendingSource = 'stream' | 'redelivery'

const SOURCES: readonly PendingSource[] = ['stream', 'redelivery']

/** A pending entry: where it is, of which key. */
export interface PendingAt {
  readonly source: PendingSource
  readonly entryId: string
}

export interface PendingSeen extends PendingAt {
  /** The consumer that has it. */
  readonly worker: string
  readonly idleMs: number
  readonly deliveries: number
  readonly isGone: boolean
  /** As the entry says; empty where it says nothing. */
  readonly job: string
  readonly id: string
}

export interface PendingPageSeen {
  readonly leaseMs: number | undefined
  readonly onStream: number
  readonly onRedelivery: number
  /** How many entries were looked at, whether they are meant or not. */
  readonly looked: number
  /** Behind which the next page begins; undefined if this one is the last. */
  readonly next: PendingAt | undefined
  readonly rows: readonly PendingSeen[]
}

/** Undefined if the group is gone. */
export async function readPending(
  client: Redis,
  { stream, group }: { readonly stream: string; readonly group: string },
  asked: { after: PendingAt | undefined; most: number; minIdleMs: number; worker: string | undefined },
): Promise<PendingPageSeen | undefined> {
  const { after, most, minIdleMs, worker } = asked
  // Of two entries with one id that of the stream comes first.
  const fromStream = after === undefined ? '-' : `(${after.entryId}`
  const fromRedelivery = after?.source === 'stream' ? after.entryId : fromStream
  const keys = [stream, redeliveryKey(stream, group), settingsKey(stream)]
  const args = [group, fromStream, fromRedelivery, Math.min(most, PENDING_PAGE), minIdleMs, worker ?? '']
  const reply = asArray(await look(client, pendingPage, keys, args))
  if (reply.length === 0) return undefined
  const [, leaseMs, onStream, onRedelivery, looked, more, lastSource, lastId, ...rows] = reply
  const next = { source: sourceOf(lastSource), entryId: asText(lastId) }
  return {
    leaseMs: asOptionalNumber(leaseMs),
    onStream: asNumber(onStream),
    onRedelivery: asNumber(onRedelivery),
    looked: asNumber(looked),
    next: asNumber(more) === 1 ? next : undefined,
    rows: rows.map(asRow),
  }
}

function asRow(reply: unknown): PendingSeen {
  const [source, entryId, worker, idleMs, deliveries, exists, job, id] = asArray(reply)
  return {
    source: sourceOf(source),
    entryId: asText(entryId),
    worker: asText(worker),
    idleMs: asNumber(idleMs),
    deliveries: asNumber(deliveries),
    isGone: asNumber(exists) === 0,
    job: asText(job),
    id: asText(id),
  }
}

function sourceOf(reply: unknown): PendingSource {
  return SOURCES[asNumber(reply) - 1] ?? 'stream'
}
