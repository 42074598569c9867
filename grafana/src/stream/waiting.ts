import { ofConsumers, ofGroups, ofStreams } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const OF_GROUP = '{{stream}}/{{group}}'
const OF_STREAM = '{{stream}} (delayed)'

export const taken: RowSpec = {
  title: 'What is taken, and by whom?',
  panels: [
    series('Pending', 'short', {
      width: 8,
      description:
        'Jobs taken and not settled, and the part of lag and pending jobs that is in the redelivery stream: retries, redriven and replayed jobs. Pending above the slots for long: settling is slow.',
      queries: [
        { expr: ofGroups('millrace_group_pending_jobs'), legend: OF_GROUP },
        { expr: ofGroups('millrace_group_redelivery_jobs'), legend: `${OF_GROUP} redelivery` },
      ],
      links: [look('Is the settling slow?', 'workers', 'Settling')],
    }),
    series('Oldest pending', 's', {
      width: 8,
      description:
        'Age of the oldest job taken and not settled. As long as the longest handler is fine. A rise without end is a job that nobody settles: `millrace pending` shows it.',
      queries: [{ expr: ofGroups('millrace_group_oldest_pending_seconds'), legend: OF_GROUP }],
      links: [look('Does it still run?', 'workers', 'Oldest run'), look('Or is it stuck?', 'stream', 'Stuck jobs')],
    }),
    series('Stuck jobs', 'short', {
      width: 8,
      description:
        'Of the oldest pending jobs, those that nobody has renewed for three leases: no live worker has them and none claims them. Should be 0 but for seconds.',
      queries: [{ expr: ofGroups('millrace_group_stuck_jobs'), legend: OF_GROUP }],
      links: [
        look('Does anybody claim?', 'workers', 'Claims and hand-backs'),
        runbook('What to do?', 'MillracePendingStuck'),
      ],
    }),
    series('Workers', 'short', {
      width: 8,
      description:
        'Workers heard of in the last 5 s, and the consumers that Redis knows. More consumers than workers: some went away with jobs that are still pending; they go when these are claimed.',
      queries: [
        { expr: ofGroups('millrace_group_workers'), legend: `${OF_GROUP} workers` },
        { expr: ofGroups('millrace_group_consumers'), legend: `${OF_GROUP} consumers` },
      ],
      links: [
        look('In which state are they?', 'workers', 'Workers by state'),
        runbook('None: what to do?', 'MillraceNoWorkers'),
      ],
    }),
    series('Slots', 'short', {
      width: 8,
      description: 'How many handlers the workers of the group can run at once. It drops while workers are deployed.',
      queries: [{ expr: ofGroups('millrace_group_slots'), legend: OF_GROUP }],
      links: [look('Are they used?', 'workers', 'In flight and slots')],
    }),
    series('Abandoned groups', 'none', {
      width: 8,
      description:
        '1 where no worker was heard of for 24 hours. Such a group keeps its stream from being trimmed. If nobody needs it, `millrace groups remove` it.',
      queries: [{ expr: ofGroups('millrace_group_abandoned'), legend: OF_GROUP }],
      links: [look('Does the stream grow?', 'stream', 'Entries'), runbook('What to do?', 'MillraceGroupAbandoned')],
    }),
    series('Pending by consumer', 'short', {
      description:
        'Jobs of each consumer, the 50 with the most. Only where the exporter runs with --consumers. One with far more than the others hangs, or has died.',
      queries: [{ expr: ofConsumers('millrace_consumer_pending_jobs'), legend: '{{stream}}/{{group}} {{consumer}}' }],
      links: [look('When was it seen?', 'stream', 'Consumers last seen')],
    }),
    series('Consumers last seen', 's', {
      description:
        'How long ago each of these consumers asked Redis for something. Only with --consumers. A live one asks every few seconds.',
      queries: [
        {
          expr: `time() - ${ofConsumers('millrace_consumer_last_seen_timestamp_seconds')}`,
          legend: '{{stream}}/{{group}} {{consumer}}',
        },
      ],
      links: [look('What does it hold?', 'stream', 'Pending by consumer')],
    }),
  ],
}

export const later: RowSpec = {
  title: 'What comes later?',
  panels: [
    series('Scheduled', 'short', {
      width: 8,
      description: 'Jobs that wait for their time: retries of the group, and delayed publishes of the stream.',
      queries: [
        { expr: ofGroups('millrace_group_scheduled_jobs'), legend: `${OF_GROUP} retries` },
        { expr: ofStreams('millrace_stream_scheduled_jobs'), legend: OF_STREAM },
      ],
      links: [look('When is the next due?', 'stream', 'Next due')],
    }),
    series('Next due', 's', {
      width: 8,
      description: 'In how long the next one is due. Below 0 it is overdue. No line where none waits.',
      queries: [
        { expr: `${ofGroups('millrace_group_scheduled_next_due_timestamp_seconds')} - time()`, legend: OF_GROUP },
        { expr: `${ofStreams('millrace_stream_scheduled_next_due_timestamp_seconds')} - time()`, legend: OF_STREAM },
      ],
      links: [look('Is any overdue?', 'stream', 'Overdue')],
    }),
    series('Overdue', 's', {
      width: 8,
      description:
        'How long the most overdue one has been due. Workers of the group move what is due, within a second or so; those of any group of the stream move delayed publishes.',
      queries: [
        { expr: ofGroups('millrace_group_scheduled_overdue_seconds'), legend: OF_GROUP },
        { expr: ofStreams('millrace_stream_scheduled_overdue_seconds'), legend: OF_STREAM },
        { expr: 'max(millrace:overdue_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Are there workers?', 'stream', 'Workers'), runbook('What to do?', 'MillraceSchedulerStuck')],
    }),
    series('Recurring schedules', 's', {
      width: 8,
      description:
        'How long the most overdue schedule has waited for its tick to be fired. Any worker of the stream fires it, within a second or so.',
      queries: [
        { expr: ofStreams('millrace_stream_schedules_overdue_seconds'), legend: OF_STREAM },
        { expr: 'max(millrace:overdue_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Are there workers?', 'stream', 'Workers'), runbook('What to do?', 'MillraceSchedulesOverdue')],
    }),
    series('Schedules', 'short', {
      width: 8,
      description:
        'Recurring schedules of the stream, and those of them that could not be fired and were set aside. One that goes was removed; `millrace cron list` shows those that are there.',
      queries: [
        { expr: ofStreams('millrace_stream_schedules'), legend: OF_STREAM },
        { expr: ofStreams('millrace_stream_set_aside_schedules'), legend: '{{stream}} set aside' },
      ],
      links: [
        look('Are any overdue?', 'stream', 'Recurring schedules'),
        runbook('Set aside: what to do?', 'MillraceSchedulesSetAside'),
      ],
    }),
    series('Overdue jobs', 'short', {
      description:
        'How many are due and not moved yet. A few after a burst are fine; many for long are a scheduler that does not get through.',
      queries: [
        { expr: ofGroups('millrace_group_scheduled_overdue_jobs'), legend: OF_GROUP },
        { expr: ofStreams('millrace_stream_scheduled_overdue_jobs'), legend: OF_STREAM },
      ],
      links: [look('Are any moved?', 'workers', 'Promoted and set aside')],
    }),
    series('Set aside', 'short', {
      description:
        'Scheduled jobs that could not be moved when they were due. They wait for somebody: `millrace scheduled list` shows them and what was wrong.',
      queries: [
        { expr: ofGroups('millrace_group_set_aside_jobs'), legend: OF_GROUP },
        { expr: ofStreams('millrace_stream_set_aside_jobs'), legend: OF_STREAM },
      ],
      links: [runbook('What to do?', 'MillraceJobsSetAside'), look('Since when?', 'workers', 'Promoted and set aside')],
    }),
  ],
}
