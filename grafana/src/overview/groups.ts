import { ofGroups, producer, rate, recorded, worker } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const FINISHED = worker('millrace_finished_jobs_total')

export const groups: RowSpec = {
  title: 'Groups',
  panels: [
    {
      kind: 'table',
      title: 'Groups',
      description:
        'Every group with what it has before it, the one whose lag in seconds is highest first. Slots without workers, or lag without slots, is what is wrong. A click on a name leads to its own page.',
      unit: 'short',
      width: 24,
      height: 6,
      click: 'stream',
      worstFirst: 'lag (s)',
      columns: {
        'lag (s)': 's',
        'finished/s': 'ops',
        'oldest pending': 's',
        'to drain': 's',
        'last delivered': 'dateTimeFromNow',
      },
      queries: [
        { expr: ofGroups('millrace_group_lag_seconds'), legend: 'lag (s)' },
        { expr: ofGroups('millrace_group_lag_jobs'), legend: 'ready' },
        { expr: ofGroups('millrace_group_pending_jobs'), legend: 'pending' },
        { expr: ofGroups('millrace_group_oldest_pending_seconds'), legend: 'oldest pending' },
        { expr: ofGroups('millrace_group_scheduled_jobs'), legend: 'retries' },
        { expr: ofGroups('millrace_dead_letter_entries'), legend: 'dead' },
        { expr: ofGroups('millrace_group_workers'), legend: 'workers' },
        { expr: ofGroups('millrace_group_slots'), legend: 'slots' },
        { expr: `sum by (stream, group) (${rate(FINISHED)})`, legend: 'finished/s' },
        {
          expr: `max by (stream, group) (${recorded('stream_group:millrace_drain_seconds:estimate')})`,
          legend: 'to drain',
        },
        {
          expr: `${ofGroups('millrace_group_last_delivered_timestamp_seconds')} * 1000`,
          legend: 'last delivered',
        },
      ],
      links: [look('What happened in one of them?', 'stream')],
    },
  ],
}

export const lateness: RowSpec = {
  title: 'How late, and is it getting worse?',
  panels: [
    series('Lag', 's', {
      description:
        'Age of the oldest job that a group has not taken yet. A line that rises by a second a second is a stall: nothing is taken at all. The dashed line is the threshold of the alert.',
      queries: [
        { expr: ofGroups('millrace_group_lag_seconds'), legend: '{{stream}}/{{group}}' },
        { expr: 'max(millrace:lag_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Are there enough workers?', 'workers', 'Utilisation'), runbook('What to do?', 'MillraceLagTooOld')],
    }),
    series('In and out', 'ops', {
      description:
        'What producers publish and what comes to its end, each second. Every group finishes every job of its stream, so two groups have twice as much to do as comes in; out below that for long is a backlog that grows. What others than millrace publish shows only in the count of Redis (added).',
      queries: [
        { expr: `sum(${rate(producer('millrace_published_jobs_total', 'result="ok"'))})`, legend: 'published' },
        {
          expr: `sum(max by (stream) (rate(millrace_stream_added_entries_total{stream=~"$stream"}[$__rate_interval])))`,
          legend: 'added',
        },
        { expr: `sum(${rate(FINISHED)})`, legend: 'finished' },
        { expr: `sum(${rate(worker('millrace_retried_jobs_total'))})`, legend: 'retried' },
      ],
      links: [look('Of which stream?', 'stream', 'In and out of a stream')],
    }),
  ],
}
