import type { DeadLetter, GroupStats, PendingJob, StreamStats, WorkerRow } from '../../src/index.ts'
import { compactCount } from '../compact.ts'
import { busyText, jobText, leftText, seenText } from '../job-text.ts'
import { printable, spanText } from '../output.ts'
import type { Seen } from './state.ts'

/** The rows of a view: what is in them, and what the cursor knows them by. Pure. */

export interface TopColumn {
  readonly title: string
  readonly align?: 'left' | 'right'
  /** Takes what the others leave. */
  readonly isFlexible?: true
}

export interface TopRow {
  readonly key: string
  readonly cells: readonly string[]
}

export interface TopTable {
  readonly columns: readonly TopColumn[]
  readonly rows: readonly TopRow[]
}

const right = (title: string): TopColumn => ({ title, align: 'right' })

const STREAMS = [
  { title: 'stream', isFlexible: true as const },
  ...['entries', 'lag', 'age', 'pending', 'dead', 'sched', 'jobs/s'].map(right),
]
const GROUPS = [
  { title: 'group', isFlexible: true as const },
  ...['lag', 'age', 'pending', 'dead', 'sched', 'workers', 'busy', 'jobs/s'].map(right),
]
const PENDING = [
  { title: 'id' },
  { title: 'job', isFlexible: true as const },
  ...['idle', 'left', 'sent'].map(right),
  { title: 'worker' },
]
const DEAD = [
  { title: 'id' },
  { title: 'job' },
  { title: 'reason' },
  right('tries'),
  right('died'),
  { title: 'error', isFlexible: true as const },
]
const WORKERS = [
  { title: 'worker', isFlexible: true as const },
  ...['seen', 'busy', 'jobs/s', 'pending', 'version'].map(right),
]

export function tableOf(seen: Seen, nowMs: number): TopTable {
  switch (seen.kind) {
    case 'streams':
      return { columns: STREAMS, rows: seen.streams.map(streamRow) }
    case 'groups':
      return { columns: GROUPS, rows: seen.stats.groups.map(groupRow) }
    case 'jobs':
      return jobsTable(seen.of, nowMs)
  }
}

/** The keys alone, for the cursor. */
export function keysOf(seen: Seen | undefined): string[] {
  return seen === undefined ? [] : tableOf(seen, 0).rows.map(({ key }) => key)
}

function jobsTable(of: (Seen & { kind: 'jobs' })['of'], nowMs: number): TopTable {
  switch (of.tab) {
    case 'pending':
      return { columns: PENDING, rows: of.page.jobs.map(pendingRow) }
    case 'dead':
      return { columns: DEAD, rows: of.page.letters.map((letter) => deadRow(letter, nowMs)) }
    case 'workers':
      return { columns: WORKERS, rows: of.page.workers.map(workerRow) }
  }
}

function streamRow(stats: StreamStats): TopRow {
  const { groups } = stats
  const lags = groups.map(({ lag }) => lag)
  const retries = sum(groups.map(({ scheduled }) => scheduled))
  return {
    key: stats.stream,
    cells: [
      nameText(stats.stream, stats),
      compactCount(stats.entries),
      lags.includes(null) ? '?' : compactCount(sum(lags.map((lag) => lag ?? 0))),
      ageText(Math.max(0, ...groups.map(({ lagSeconds }) => lagSeconds))),
      compactCount(sum(groups.map(({ pending }) => pending))),
      compactCount(sum(groups.map(({ dead }) => dead))),
      compactCount(stats.scheduled + retries),
      rateText(sum(groups.map(({ perSecond }) => perSecond))),
    ],
  }
}

function groupRow(stats: GroupStats): TopRow {
  return {
    key: stats.group,
    cells: [
      nameText(stats.group, stats),
      stats.lag === null ? '?' : compactCount(stats.lag),
      ageText(stats.lagSeconds),
      compactCount(stats.pending),
      compactCount(stats.dead),
      compactCount(stats.scheduled),
      compactCount(stats.workers),
      `${stats.running}/${stats.slots}`,
      rateText(stats.perSecond),
    ],
  }
}

function pendingRow(row: PendingJob): TopRow {
  const { jobId, idleMs, deliveries, worker } = row
  return {
    key: `${row.source}:${row.entryId}`,
    cells: [
      jobId,
      jobText(row),
      spanText(idleMs / 1000),
      leftText(row),
      compactCount(deliveries),
      worker === null ? '(handed back)' : printable(worker),
    ],
  }
}

function deadRow(letter: DeadLetter, nowMs: number): TopRow {
  const { deadId, id, job, reason, totalAttempts, attempts, deadMs, error, message } = letter
  return {
    key: deadId,
    cells: [
      id === '' ? `(${deadId})` : id,
      job === null ? '-' : printable(job),
      printable(reason),
      String(totalAttempts ?? attempts ?? '-'),
      spanText(Math.max(0, nowMs - deadMs) / 1000),
      printable(error === '' ? message : `${error}: ${message}`),
    ],
  }
}

function workerRow(row: WorkerRow): TopRow {
  return {
    key: row.worker,
    cells: [
      printable(row.worker),
      seenText(row),
      busyText(row),
      rateText(row.perSecond),
      compactCount(row.pending),
      row.version === null ? '-' : printable(row.version),
    ],
  }
}

function nameText(name: string, { paused }: Pick<StreamStats | GroupStats, 'paused'>): string {
  return paused !== null ? `${printable(name)} (paused)` : printable(name)
}

function ageText(seconds: number): string {
  return seconds === 0 ? '-' : spanText(seconds)
}

function rateText(perSecond: number): string {
  return perSecond < 1000 ? perSecond.toFixed(1) : compactCount(perSecond)
}

function sum(counts: readonly number[]): number {
  return counts.reduce((total, count) => total + count, 0)
}
