import { timeOf } from '../redis/entry-id.ts'

/** What is kept of a replay, and how it reads from its hash. Pure. */

export const REPLAY_STATUSES = ['running', 'paused', 'cancelled', 'done'] as const
export type ReplayStatus = (typeof REPLAY_STATUSES)[number]

export interface ReplayTarget {
  /** The stream that jobs are brought into, itself or one of its groups: the replay is kept there. */
  readonly stream: string
  /** Null where copies are appended to the stream itself. */
  readonly group: string | null
}

/** A replay as it stands. */
export interface Replay {
  readonly id: string
  /** The stream that is read. */
  readonly source: string
  readonly target: ReplayTarget
  /** The first and the last entry of what is read, both included. */
  readonly fromId: string
  readonly toId: string
  readonly job: string | null
  readonly where: string | null
  /** How many jobs were named by their ids; null for a range. */
  readonly ids: number | null
  readonly limit: number | null
  readonly perSecond: number | null
  readonly includeReplays: boolean
  readonly status: ReplayStatus
  /** Up to where the source was read. */
  readonly cursor: string
  readonly scanned: number
  readonly copied: number
  /** Entries that were left because they are copies of a replay themselves. */
  readonly skippedReplays: number
  /** Jobs of which the filter could not tell, which counts as no, and why it could not of the first. */
  readonly unclear: { readonly count: number; readonly firstWhy: string | null }
  /** Jobs with more fields than a script can append (about 3 900), and the first ten of them. */
  readonly refused: { readonly count: number; readonly firstIds: readonly string[] }
  /** Named jobs whose entries were gone when their turn came. */
  readonly missing: number
  readonly createdMs: number
  readonly updatedMs: number
  readonly finishedMs: number | null
}

/** What changes while a replay runs. */
export interface ReplayCounts {
  scanned: number
  skippedReplays: number
  unclear: number
  firstWhy: string
  refused: number
  refusedIds: string
  missing: number
}

/** Refused jobs whose ids are kept. */
export const MOST_REFUSED_IDS = 10

export function replayOfFields(id: string, target: string, fields: Readonly<Record<string, string>>): Replay {
  const text = (name: string) => fields[name] || null
  const count = (name: string) => Number(fields[name] ?? 0) || 0
  const optional = (name: string) => (text(name) === null ? null : count(name))
  return {
    id,
    source: fields['source'] ?? '',
    target: { stream: target, group: text('group') },
    fromId: fields['fromId'] ?? '',
    toId: fields['toId'] ?? '',
    job: text('job'),
    where: text('where'),
    ids: optional('ids'),
    limit: optional('limit'),
    perSecond: optional('perSecond'),
    includeReplays: fields['includeReplays'] === '1',
    status: REPLAY_STATUSES.find((status) => status === fields['status']) ?? 'paused',
    cursor: fields['cursor'] ?? '',
    scanned: count('scanned'),
    copied: count('copied'),
    skippedReplays: count('skippedReplays'),
    unclear: { count: count('unclear'), firstWhy: text('firstWhy') },
    refused: { count: count('refused'), firstIds: fields['refusedIds']?.split(' ').filter(Boolean) ?? [] },
    missing: count('missing'),
    createdMs: count('createdMs'),
    updatedMs: count('updatedMs'),
    finishedMs: optional('finishedMs'),
  }
}

export function countsOf(replay: Replay): ReplayCounts {
  const { scanned, skippedReplays, unclear, refused, missing } = replay
  return {
    scanned,
    skippedReplays,
    unclear: unclear.count,
    firstWhy: unclear.firstWhy ?? '',
    refused: refused.count,
    refusedIds: refused.firstIds.join(' '),
    missing,
  }
}

export function isOver({ status }: Pick<Replay, 'status'>): boolean {
  return status === 'done' || status === 'cancelled'
}

/** How much of it is done, from 0 to 1: by how many jobs where that is known, else by time. */
export function fractionOf(replay: Replay): number {
  const { status, limit, ids, copied, scanned, cursor, fromId, toId } = replay
  if (status === 'done') return 1
  const byLimit = limit === null ? 0 : copied / limit
  if (ids !== null) return Math.min(1, Math.max(byLimit, ids === 0 ? 1 : scanned / ids))
  const [first, last, at] = [timeOf(fromId), timeOf(toId), timeOf(cursor)]
  const byTime = last > first ? (at - first) / (last - first) : 0
  return Math.min(1, Math.max(0, byLimit, byTime))
}
