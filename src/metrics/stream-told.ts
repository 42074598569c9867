import { createHash } from 'node:crypto'
import { timeOf } from '../redis/entry-id.ts'
import { nameOfId, type ConsumerObserved, type GroupObserved, type Observed, type Waiting } from '../redis/observing.ts'
import type { StreamObserved } from '../redis/observing.ts'
import { groupStats, type GroupStats } from '../stats.ts'

/** Streams and groups as their metrics tell of them, and how that follows from what Redis told. Pure. */

export interface StreamTold {
  readonly stream: string
  readonly entries: number
  /** Undefined where Redis does not say. */
  readonly added: number | undefined
  readonly clockAheadSeconds: number
  readonly scheduled: WaitingTold
  /** Recurring schedules. */
  readonly schedules: { readonly count: number; readonly setAside: number; readonly overdueSeconds: number }
  readonly isPaused: boolean
  readonly groups: readonly GroupTold[]
  readonly memoryBytes?: number
}

/** Jobs that wait until they are due. */
export interface WaitingTold {
  readonly jobs: number
  readonly setAside: number
  readonly overdueSeconds: number
  readonly overdueJobs: number
  readonly nextDueMs: number | undefined
}

export interface GroupTold {
  readonly id: string
  /** Its name as a label shows it. */
  readonly label: string
  readonly stats: GroupStats
  readonly scheduled: WaitingTold
  readonly entriesRead: number | undefined
  readonly lastDeliveredMs: number | undefined
  readonly consumers: number
  readonly isPaused: boolean
  readonly oldestDeadMs: number | undefined
  readonly stuck?: number
  readonly topConsumers?: readonly ConsumerTold[]
}

export interface ConsumerTold {
  readonly label: string
  readonly pending: number
  readonly lastSeenMs: number
}

export function streamTold(
  stream: string,
  seen: StreamObserved & { kind: 'stream' },
  groups: readonly GroupTold[],
): StreamTold {
  const { nowMs, entries, added, lastId, scheduled, schedules, paused } = seen
  const isPaused = paused !== undefined
  return {
    stream,
    entries,
    added,
    clockAheadSeconds: lastId === undefined ? 0 : Math.max(0, timeOf(lastId) - nowMs) / 1000,
    scheduled: waitingTold(scheduled, nowMs),
    schedules: {
      count: schedules.jobs,
      setAside: schedules.setAside,
      overdueSeconds: waitingTold(schedules, nowMs).overdueSeconds,
    },
    isPaused,
    groups: labelled(groups.map((group) => ({ ...group, isPaused: isPaused || group.isPaused }))),
  }
}

export function groupTold(id: string, seen: GroupObserved, nowMs: number): GroupTold {
  const parts = [seen.stream, seen.redelivery ?? NOTHING]
  const read = parts.map(({ entriesRead }) => entriesRead)
  const label = labelOf(id)
  return {
    id,
    label,
    // The same numbers as an inspector tells, by the same rules; what is not told of here is not asked for.
    stats: groupStats(label, { ...seen, nowMs, redelivery: seen.redelivery ?? NOTHING, lastHour: NO_HOUR }),
    scheduled: waitingTold(seen.scheduled, nowMs),
    entriesRead: read.includes(undefined) ? undefined : read.reduce<number>((sum, count) => sum + (count ?? 0), 0),
    lastDeliveredMs: deliveredMs(seen.stream),
    consumers: seen.stream.consumers,
    isPaused: seen.paused !== undefined,
    oldestDeadMs: seen.oldestDeadId === undefined ? undefined : timeOf(seen.oldestDeadId),
  }
}

export function consumersTold(seen: readonly ConsumerObserved[]): ConsumerTold[] {
  return labelled(
    seen.map(({ consumerId, pending, lastSeenMs }) => ({ label: labelOf(consumerId), pending, lastSeenMs })),
  )
}

/**
 * A name that may be any bytes as a label shows it: on one line, at most about 100 characters, and nothing in it that a
 * terminal obeys or that ends a page of metrics (a NUL does).
 */
export function labelOf(id: string): string {
  const text = (nameOfId(id) ?? id).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (sign) => {
    return `\\u{${(sign.codePointAt(0) ?? 0).toString(16)}}`
  })
  if (text.length <= LONGEST_LABEL) return text
  return `${text.slice(0, LONGEST_LABEL - 12)}...${createHash('sha1').update(id).digest('hex').slice(0, 8)}`
}

const LONGEST_LABEL = 100
const NOTHING: Observed = {
  lag: 0,
  unreadId: undefined,
  pending: 0,
  oldestPendingId: undefined,
  handedBack: 0,
  entriesRead: 0,
  lastDeliveredId: undefined,
  consumers: 0,
}
const NO_HOUR = { completed: 0, dead: 0, late: 0, retried: 0, cancelled: 0, skipped: 0 }

/** Two names may look alike, and the same series twice is an error of the whole page. */
function labelled<Named extends { readonly label: string }>(all: readonly Named[]): Named[] {
  const taken = new Set<string>()
  return all.map((one) => {
    let { label } = one
    for (let n = 2; taken.has(label); n++) label = `${one.label}~${n}`
    taken.add(label)
    return { ...one, label }
  })
}

function waitingTold({ jobs, setAside, nextDueMs, dueJobs }: Waiting, nowMs: number): WaitingTold {
  const overdueSeconds = nextDueMs === undefined ? 0 : Math.max(0, nowMs - nextDueMs) / 1000
  return { jobs, setAside, nextDueMs, overdueSeconds, overdueJobs: dueJobs }
}

/** A group that begins at the oldest entry has 0-0 until something is delivered. */
function deliveredMs({ lastDeliveredId }: Observed): number | undefined {
  return lastDeliveredId === undefined || lastDeliveredId === '0-0' ? undefined : timeOf(lastDeliveredId)
}
