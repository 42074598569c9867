import { compareIds, timeOf } from './redis/entry-id.ts'
import type { Pause } from './redis/pause.ts'
import type { Backlog, GroupSeen, LastHour, ScheduledSeen, StreamSeen } from './redis/inspection.ts'

/** How streams and groups stand: what an inspector tells, and how it follows from what Redis told. Pure. */

/** A group of which nobody was heard for this long, in ms, is taken for abandoned: somebody forgot to remove it. */
export const ABANDONED_AFTER_MS = 24 * 3_600_000

/** Jobs that wait until they are due. */
export interface ScheduledStats {
  /** How many there are. */
  readonly scheduled: number
  /** How long the most overdue of them has been due, in seconds; 0 if none is. */
  readonly overdueSeconds: number
  /** Those of them that could not be moved when they were due: they wait for somebody to look at them. */
  readonly setAside: number
}

/** A stream. Its `scheduled` jobs are delayed publishes: no group sees them before they are due. */
export interface StreamStats extends ScheduledStats {
  readonly stream: string
  /** Entries that the stream holds: what is not read yet, what is pending, and the history that retention keeps. */
  readonly entries: number
  /** When its oldest entry was published, in ms since the epoch; null if it is empty. The history goes back to it. */
  readonly oldestEntryMs: number | null
  /** Whether the stream as a whole is paused: no group begins jobs of it then. */
  readonly paused: Pause | null
  readonly groups: readonly GroupStats[]
}

/**
 * What a group has before it and in hand. Lag and pending include what the group alone sees again, its redelivery stream;
 * `scheduled` are its retries. A job that is not settled is in exactly one of: lag, pending, scheduled (here or of the
 * stream), dead.
 */
export interface GroupStats extends ScheduledStats {
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
  /** When a worker of the group was last heard of, in ms since the epoch; null if none ever was. */
  readonly lastSeenMs: number | null
  /** Nobody was heard of for `ABANDONED_AFTER_MS`; of a group that never had a worker, its oldest job waits that long. */
  readonly abandoned: boolean
  /** What the stream must keep for this group, whatever its retention says; null if that is nothing. */
  readonly pins: Pins | null
  /** What became so far of the jobs that were published in the last 60 minutes. */
  readonly lastHour: LastHour
  /** Whether the group itself is paused; it begins nothing either while its stream is. */
  readonly paused: Pause | null
}

/** From this entry on a stream cannot be trimmed: the group has not settled it. */
export interface Pins {
  readonly oldestId: string
  /** Age of that entry, in seconds. */
  readonly seconds: number
  /** Entries of the stream that the group has not settled; null where Redis does not know. Settled ones may lie between. */
  readonly entries: number | null
}

export function streamStats(
  stream: string,
  { nowMs, entries, oldestId, scheduled, paused }: StreamSeen & { kind: 'stream' },
  groups: readonly GroupStats[],
): StreamStats {
  const oldestEntryMs = oldestId === undefined ? null : timeOf(oldestId)
  return { stream, entries, oldestEntryMs, ...scheduledStats(scheduled, nowMs), paused: paused ?? null, groups }
}

/** What Redis told of a group, on the stream and on its redelivery stream, as one. */
export function groupStats(group: string, seen: GroupSeen): GroupStats {
  const parts = [seen.stream, seen.redelivery]
  const lags = parts.map(({ lag }) => lag)
  const workers = seen.about.map(workerOf)
  const { lag } = seen.redelivery
  const lagSeconds = Math.max(...parts.map(({ unreadId }) => ageSeconds(unreadId, seen.nowMs)))
  const oldestPendingSeconds = Math.max(...parts.map(({ oldestPendingId }) => ageSeconds(oldestPendingId, seen.nowMs)))
  return {
    group,
    lag: sumOrNull(lags),
    lagSeconds,
    pending: total(parts, 'pending'),
    handedBack: total(parts, 'handedBack'),
    oldestPendingSeconds,
    ...scheduledStats(seen.scheduled, seen.nowMs),
    workers: seen.workers,
    slots: total(workers, 'slots'),
    running: total(workers, 'running'),
    perSecond: Math.round(total(workers, 'perSecond') * 10) / 10,
    dead: seen.dead,
    redelivery: lag === undefined ? null : lag + seen.redelivery.pending,
    lastSeenMs: seen.lastSeenMs ?? null,
    abandoned: isAbandoned(seen, Math.max(lagSeconds, oldestPendingSeconds) * 1000),
    pins: pinsOf(seen.stream, seen.nowMs),
    lastHour: seen.lastHour,
    paused: seen.paused ?? null,
  }
}

function scheduledStats({ jobs, setAside, nextDueMs }: ScheduledSeen, nowMs: number): ScheduledStats {
  const overdueSeconds = nextDueMs === undefined ? 0 : Math.max(0, nowMs - nextDueMs) / 1000
  return { scheduled: jobs, overdueSeconds, setAside }
}

/** A group that never had a worker may be one that was made a moment ago, before its workers. */
function isAbandoned({ workers, lastSeenMs, nowMs }: GroupSeen, waitedMs: number): boolean {
  if (workers > 0) return false
  return (lastSeenMs === undefined ? waitedMs : nowMs - lastSeenMs) >= ABANDONED_AFTER_MS
}

function pinsOf({ lag, unreadId, pending, oldestPendingId }: Backlog, nowMs: number): Pins | null {
  const ids = [oldestPendingId, unreadId].filter((id) => id !== undefined).sort(compareIds)
  const [oldestId] = ids
  if (oldestId === undefined) return null
  return { oldestId, seconds: ageSeconds(oldestId, nowMs), entries: lag === undefined ? null : lag + pending }
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
export function workerOf(about: string): { slots: number; running: number; perSecond: number } {
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
