import type { GroupStats, StreamStats } from '../stats.ts'
import type { Metric, Row } from './metric.ts'

/** The metrics of streams and their groups as Redis knows them, whoever works on them: one entry each. */
export const GROUP_METRICS: readonly Metric<StreamStats>[] = [
  perStream(
    'millrace_stream_entries',
    'Entries that the stream holds: not read yet, pending, and the history that retention keeps.',
    ({ entries }) => entries,
  ),
  perStream(
    'millrace_stream_scheduled_jobs',
    'Jobs published with a delay that no group sees yet, those set aside included.',
    ({ scheduled }) => scheduled,
  ),
  perStream(
    'millrace_stream_scheduled_overdue_seconds',
    'How long the most overdue of them has been due, by the time of Redis; 0 if none is.',
    ({ overdueSeconds }) => overdueSeconds,
  ),
  perStream(
    'millrace_stream_set_aside_jobs',
    'Those of them that could not be moved to the stream when they were due.',
    ({ setAside }) => setAside,
  ),
  perGroup(
    'millrace_group_lag_jobs',
    'Entries not yet delivered to the group; no series while Redis does not know.',
    ({ lag }) => lag,
  ),
  perGroup(
    'millrace_group_lag_known',
    'Whether the lag in jobs is known (1) or not (0); the lag in seconds always is.',
    ({ lag }) => (lag === null ? 0 : 1),
  ),
  perGroup(
    'millrace_group_lag_seconds',
    'Age of the oldest entry not yet delivered to the group, by the time of Redis; 0 if there is none.',
    ({ lagSeconds }) => lagSeconds,
  ),
  perGroup('millrace_group_pending_jobs', 'Entries delivered to the group and not settled.', ({ pending }) => pending),
  perGroup(
    'millrace_group_oldest_pending_seconds',
    'Age of the oldest pending entry, by the time of Redis; 0 if there is none.',
    ({ oldestPendingSeconds }) => oldestPendingSeconds,
  ),
  perGroup(
    'millrace_group_scheduled_jobs',
    'Retries of the group that wait for their time, those set aside included.',
    ({ scheduled }) => scheduled,
  ),
  perGroup(
    'millrace_group_scheduled_overdue_seconds',
    'How long the most overdue retry has been due, by the time of Redis; 0 if none is.',
    ({ overdueSeconds }) => overdueSeconds,
  ),
  perGroup(
    'millrace_group_set_aside_jobs',
    'Retries of the group that could not be moved to its redelivery stream when they were due.',
    ({ setAside }) => setAside,
  ),
  perGroup(
    'millrace_group_abandoned',
    'Whether no worker of the group was heard of for 24 hours (1) or not (0); the stream is not trimmed past what it has not settled.',
    ({ abandoned }) => (abandoned ? 1 : 0),
  ),
  perGroup(
    'millrace_group_workers',
    'Workers of the group that were heard of in the last 5 seconds.',
    ({ workers }) => workers,
  ),
  perGroup('millrace_group_slots', 'Handlers that these workers can run at once.', ({ slots }) => slots),
  perGroup('millrace_dead_letter_entries', 'Dead letters of the group.', ({ dead }) => dead),
]

/** How the reading of the above goes. */
export interface ReadingState {
  readonly up: boolean
  readonly failures: number
  /** When Redis last told all of it, in ms since the epoch; undefined if it never has. */
  readonly lastSuccessMs: number | undefined
}

export const READING_METRICS: readonly Metric<ReadingState>[] = [
  {
    ...gauge(
      'millrace_exporter_up',
      'Whether Redis told of streams and groups at this scrape (1) or not (0); then their series are missing.',
    ),
    labels: [],
    *read({ up }) {
      yield [{}, up ? 1 : 0]
    },
  },
  {
    ...gauge(
      'millrace_exporter_last_success_timestamp_seconds',
      'When Redis last told of streams and groups; no series before.',
    ),
    labels: [],
    *read({ lastSuccessMs }) {
      if (lastSuccessMs !== undefined) yield [{}, lastSuccessMs / 1000]
    },
  },
  {
    name: 'millrace_exporter_scrape_errors_total',
    type: 'counter',
    help: 'Times that Redis did not tell of streams and groups, or not in time.',
    aggregator: 'sum',
    labels: [],
    *read({ failures }) {
      yield [{}, failures]
    },
  },
]

function gauge(name: string, help: string): Pick<Metric<never>, 'name' | 'type' | 'help' | 'aggregator'> {
  // Whoever looks sees the same, so of several the highest is as good as any.
  return { name, type: 'gauge', help, aggregator: 'max' }
}

function perStream(name: string, help: string, value: (stats: StreamStats) => number): Metric<StreamStats> {
  return {
    ...gauge(name, help),
    labels: ['stream'],
    *read(stats): Generator<Row> {
      yield [{ stream: stats.stream }, value(stats)]
    },
  }
}

function perGroup(name: string, help: string, value: (group: GroupStats) => number | null): Metric<StreamStats> {
  return {
    ...gauge(name, help),
    labels: ['stream', 'group'],
    *read({ stream, groups }): Generator<Row> {
      for (const stats of groups) {
        const known = value(stats)
        if (known !== null) yield [{ stream, group: stats.group }, known]
      }
    },
  }
}
