import { timeOf } from './redis/entry-id.ts'
import type { GroupSeen } from './redis/inspection.ts'

/** How streams and groups stand: what an inspector tells, and how it follows from what Redis told. Pure. */

export interface StreamStats {
  readonly stream: string
  /** Entries that the stream holds: what is not read yet, what is pending, and the history that retention keeps. */
  readonly entries: number
  /** When its oldest entry was published, in ms since the epoch; null if it is empty. */
  readonly oldestEntryMs: number | null
  readonly groups: readonly GroupStats[]
}

/** What a group has before it and in hand. All of it includes what the group alone sees again, its redelivery stream. */
export interface GroupStats {
  readonly group: string
  /** Entries not yet delivered; null where Redis does not know (an unread entry was deleted, or Redis is older than 7.0). */
  readonly lag: number | null
  /** Age of the oldest entry not yet delivered, in seconds; 0 if there is none. Always known. */
  readonly lagSeconds: number
  /** Entries delivered and not settled. */
  readonly pending: number
  /** Pending entries that a worker gave back and no other has taken yet; at most 1000 are counted. */
  readonly handedBack: number
  /** Age of the oldest pending entry, in seconds; 0 if there is none. */
  readonly oldestPendingSeconds: number
  /** Workers that were heard of in the last 5 seconds. */
  readonly workers: number
  /** How many handlers these workers can run at once. */
  readonly slots: number
  /** How many they run. */
  readonly running: number
  /** Jobs that they complete a second. */
  readonly perSecond: number
  /** Dead letters. */
  readonly dead: number
  /** Part of lag and pending that is in the redelivery stream; null where its lag is not known. */
  readonly redelivery: number | null
  /** What became so far of the jobs that were published in the last 60 minutes. */
  readonly lastHour: { readonly completed: number; readonly dead: number; readonly late: number }
}

/** What Redis told of a group, on the stream and on its redelivery stream, as one. */
export function groupStats(group: string, seen: GroupSeen): GroupStats {
  const parts = [seen.stream, seen.redelivery]
  const lags = parts.map(({ lag }) => lag)
  const workers = seen.about.map(workerOf)
  const { lag } = seen.redelivery
  return {
    group,
    lag: sumOrNull(lags),
    lagSeconds: Math.max(...parts.map(({ unreadId }) => ageSeconds(unreadId, seen.nowMs))),
    pending: total(parts, 'pending'),
    handedBack: total(parts, 'handedBack'),
    oldestPendingSeconds: Math.max(...parts.map(({ oldestPendingId }) => ageSeconds(oldestPendingId, seen.nowMs))),
    workers: seen.workers,
    slots: total(workers, 'slots'),
    running: total(workers, 'running'),
    perSecond: Math.round(total(workers, 'perSecond') * 10) / 10,
    dead: seen.dead,
    redelivery: lag === undefined ? null : lag + seen.redelivery.pending,
    lastHour: seen.lastHour,
  }
}

/** What is not known in one part is not known of the sum. */
function sumOrNull(counts: readonly (number | undefined)[]): number | null {
  let sum = 0
  for (const count of counts) {
    if (count === undefined) return null
    sum += count
  }
  return sum
}

/** Ids may lie in the future: after a jump of the server's clock, or chosen by a foreign producer. */
function ageSeconds(id: string | undefined, nowMs: number): number {
  return id === undefined ? 0 : Math.max(0, nowMs - timeOf(id)) / 1000
}

/** What a worker says of itself. Any process could have written it, so what is no count is taken for 0. */
function workerOf(about: string): { slots: number; running: number; perSecond: number } {
  let told: Record<string, unknown> = {}
  try {
    const parsed: unknown = JSON.parse(about)
    if (typeof parsed === 'object' && parsed !== null) told = parsed as Record<string, unknown>
  } catch {
    // nothing said yet, or not by one of ours
  }
  const count = (value: unknown) => (typeof value === 'number' && value > 0 && value < 1e9 ? value : 0)
  return { slots: count(told['slots']), running: count(told['running']), perSecond: count(told['perSecond']) }
}

function total<Name extends string>(parts: readonly Readonly<Record<Name, number>>[], name: Name): number {
  return parts.reduce((sum, part) => sum + part[name], 0)
}
