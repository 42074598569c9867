import type { Metric, Row } from './metric.ts'
import type { GroupTold, StreamTold, WaitingTold } from './stream-told.ts'

/** The metrics of streams and their groups as Redis knows them, whoever works on them. */
export const GROUP_METRICS: readonly Metric<StreamTold>[] = [
  perStream(
    'millrace_stream_entries',
    'Entries that the stream holds: not read yet, pending, and the history that retention keeps.',
    ({ entries }) => entries,
  ),
  {
    ...perStream(
      'millrace_stream_added_entries_total',
      "Entries ever added to the stream, by Redis's own count; no series before Redis 7.0.",
      ({ added }) => added,
    ),
    type: 'counter',
  },
  perStream(
    'millrace_stream_paused',
    'Whether the stream as a whole is paused (1) or not (0): then none of its groups begins jobs.',
    ({ isPaused }) => (isPaused ? 1 : 0),
  ),
  perStream(
    'millrace_stream_scheduled_jobs',
    'Jobs published with a delay that no group sees yet, those set aside included.',
    ({ scheduled }) => scheduled.jobs,
  ),
  perStream(
    'millrace_stream_scheduled_overdue_seconds',
    'How long the most overdue of them has been due, by the time of Redis; 0 if none is.',
    ({ scheduled }) => scheduled.overdueSeconds,
  ),
  perStream(
    'millrace_stream_scheduled_overdue_jobs',
    'Delayed publishes that are due now and not moved to the stream yet, without those set aside.',
    ({ scheduled }) => scheduled.overdueJobs,
  ),
  perStream(
    'millrace_stream_scheduled_next_due_timestamp_seconds',
    'When the next delayed publish is due; no series while none waits.',
    ({ scheduled }) => nextDueSeconds(scheduled),
  ),
  perStream(
    'millrace_stream_set_aside_jobs',
    'Those of them that could not be moved to the stream when they were due.',
    ({ scheduled }) => scheduled.setAside,
  ),
  perStream(
    'millrace_stream_schedules',
    'Recurring schedules of the stream, those that have ended or were set aside included.',
    ({ schedules }) => schedules.count,
  ),
  perStream(
    'millrace_stream_schedules_overdue_seconds',
    'How long the most overdue of them has waited for a worker to fire its tick, by the time of Redis; 0 if none does.',
    ({ schedules }) => schedules.overdueSeconds,
  ),
  perStream(
    'millrace_stream_set_aside_schedules',
    'Those of them that could not be fired, and are not until they are set again; of those that are never due the first 500 are looked at.',
    ({ schedules }) => schedules.setAside,
  ),
  perStream(
    'millrace_stream_memory_bytes',
    'Memory that the key of the stream takes, as Redis estimates it; only where asked for.',
    ({ memoryBytes }) => memoryBytes,
  ),
  perStream(
    'millrace_redis_clock_ahead_seconds',
    "How far the last id of the stream is ahead of Redis's clock; above 0 after the clock went back, or where ids are made up.",
    ({ clockAheadSeconds }) => clockAheadSeconds,
  ),
  perGroup(
    'millrace_group_lag_jobs',
    'Entries not yet delivered to the group; no series while Redis does not know.',
    ({ stats }) => stats.lag,
  ),
  perGroup(
    'millrace_group_lag_known',
    'Whether the lag in jobs is known (1) or not (0); the lag in seconds always is.',
    ({ stats }) => (stats.lag === null ? 0 : 1),
  ),
  perGroup(
    'millrace_group_lag_seconds',
    'Age of the oldest entry not yet delivered to the group, by the time of Redis; 0 if there is none.',
    ({ stats }) => stats.lagSeconds,
  ),
  perGroup(
    'millrace_group_entries_read',
    "Entries delivered to the group so far, of the stream and of its redelivery stream, by Redis's own count; no series while Redis does not know.",
    ({ entriesRead }) => entriesRead,
  ),
  perGroup(
    'millrace_group_last_delivered_timestamp_seconds',
    'When the entry was published that was delivered last from the stream, by its id; no series before the first.',
    ({ lastDeliveredMs }) => inSeconds(lastDeliveredMs),
  ),
  perGroup(
    'millrace_group_pending_jobs',
    'Entries delivered to the group and not settled.',
    ({ stats }) => stats.pending,
  ),
  perGroup(
    'millrace_group_oldest_pending_seconds',
    'Age of the oldest pending entry, by the time of Redis; 0 if there is none.',
    ({ stats }) => stats.oldestPendingSeconds,
  ),
  perGroup(
    'millrace_group_redelivery_jobs',
    'The part of lag and pending jobs that only this group sees again, in its redelivery stream; no series while its lag is not known.',
    ({ stats }) => stats.redelivery,
  ),
  perGroup(
    'millrace_group_stuck_jobs',
    'Of the 200 oldest pending jobs of the stream and of the redelivery stream, those that nobody has renewed for three leases; read every 30 s.',
    ({ stuck }) => stuck,
  ),
  perGroup(
    'millrace_group_consumers',
    'Consumers that Redis knows of the group on the stream: its workers, those that are gone and not removed yet, and one for what was handed back.',
    ({ consumers }) => consumers,
  ),
  perGroup(
    'millrace_group_paused',
    'Whether the group begins no jobs (1) because it or its stream is paused, or does (0).',
    ({ isPaused }) => (isPaused ? 1 : 0),
  ),
  perGroup(
    'millrace_group_scheduled_jobs',
    'Jobs of the group that wait for their time, those set aside included: retries, and jobs that wait for a limit, their turn or a worker that knows them.',
    ({ scheduled }) => scheduled.jobs,
  ),
  perGroup(
    'millrace_group_scheduled_overdue_seconds',
    'How long the most overdue retry has been due, by the time of Redis; 0 if none is.',
    ({ scheduled }) => scheduled.overdueSeconds,
  ),
  perGroup(
    'millrace_group_scheduled_overdue_jobs',
    'Retries that are due now and not moved to the redelivery stream yet, without those set aside.',
    ({ scheduled }) => scheduled.overdueJobs,
  ),
  perGroup(
    'millrace_group_scheduled_next_due_timestamp_seconds',
    'When the next retry is due; no series while none waits.',
    ({ scheduled }) => nextDueSeconds(scheduled),
  ),
  perGroup(
    'millrace_group_set_aside_jobs',
    'Retries of the group that could not be moved to its redelivery stream when they were due.',
    ({ scheduled }) => scheduled.setAside,
  ),
  perGroup(
    'millrace_group_abandoned',
    'Whether no worker of the group was heard of for 24 hours (1) or not (0); the stream is not trimmed past what it has not settled.',
    ({ stats }) => (stats.abandoned ? 1 : 0),
  ),
  perGroup(
    'millrace_group_workers',
    'Workers of the group that were heard of in the last 5 seconds.',
    ({ stats }) => stats.workers,
  ),
  perGroup('millrace_group_slots', 'Handlers that these workers can run at once.', ({ stats }) => stats.slots),
  perGroup('millrace_dead_letter_entries', 'Dead letters of the group.', ({ stats }) => stats.dead),
  perGroup(
    'millrace_dead_letter_oldest_timestamp_seconds',
    'When the oldest dead letter of the group died; no series while it has none.',
    ({ oldestDeadMs }) => inSeconds(oldestDeadMs),
  ),
  perConsumer(
    'millrace_consumer_pending_jobs',
    'Entries that the consumer holds, on the stream and the redelivery stream; of the 50 that hold the most, only where asked for.',
    ({ pending }) => pending,
  ),
  perConsumer(
    'millrace_consumer_last_seen_timestamp_seconds',
    'When the consumer last asked Redis for something, by the time of Redis; of the 50 that hold the most, only where asked for.',
    ({ lastSeenMs }) => lastSeenMs / 1000,
  ),
]

/** Whoever looks sees the same, so of several the highest is as good as any. */
export function observed(name: string, help: string): Pick<Metric<never>, 'name' | 'type' | 'help' | 'aggregator'> {
  return { name, type: 'gauge', help, aggregator: 'max' }
}

function perStream(
  name: string,
  help: string,
  value: (told: StreamTold) => number | null | undefined,
): Metric<StreamTold> {
  return {
    ...observed(name, help),
    labels: ['stream'],
    *read(told): Generator<Row> {
      const known = value(told) ?? undefined
      if (known !== undefined) yield [{ stream: told.stream }, known]
    },
  }
}

function perGroup(
  name: string,
  help: string,
  value: (group: GroupTold) => number | null | undefined,
): Metric<StreamTold> {
  return {
    ...observed(name, help),
    labels: ['stream', 'group'],
    *read({ stream, groups }): Generator<Row> {
      for (const told of groups) {
        const known = value(told) ?? undefined
        if (known !== undefined) yield [{ stream, group: told.label }, known]
      }
    },
  }
}

function perConsumer(
  name: string,
  help: string,
  value: (consumer: { pending: number; lastSeenMs: number }) => number,
): Metric<StreamTold> {
  return {
    ...observed(name, help),
    labels: ['stream', 'group', 'consumer'],
    *read({ stream, groups }): Generator<Row> {
      for (const { label: group, topConsumers = [] } of groups) {
        for (const one of topConsumers) yield [{ stream, group, consumer: one.label }, value(one)]
      }
    },
  }
}

function nextDueSeconds({ nextDueMs }: WaitingTold): number | undefined {
  return inSeconds(nextDueMs)
}

function inSeconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : ms / 1000
}
