import { ofGroups, ofStreams } from '../build/expressions.ts'
import { look, runbook, stat } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

export const obstacles: RowSpec = {
  title: 'Is anything in the way?',
  panels: [
    stat('Firing alerts', 'short', {
      width: 4,
      description: 'Alerts of millrace that fire now, in this Prometheus. Each names its section of the runbook.',
      queries: [{ expr: 'count(ALERTS{alertname=~"Millrace.*", alertstate="firing"}) or vector(0)', legend: 'firing' }],
      colours: [[1, 'red']],
      links: [look('Which?', 'overview', 'Alerts')],
    }),
    stat('Paused groups', 'short', {
      width: 4,
      description:
        'Groups that begin no jobs because somebody paused them or their stream. `millrace groups list` says who and why, `millrace resume` ends it.',
      queries: [{ expr: `sum(${ofGroups('millrace_group_paused')})`, legend: 'paused' }],
      colours: [[1, 'orange']],
      links: [look('Which?', 'stream', 'Paused'), runbook('What to do?', 'MillraceGroupPausedLong')],
    }),
    stat('Overdue', 's', {
      width: 4,
      description:
        'How long the most overdue delayed job or retry has been due. Workers move what is due; more than a few seconds means that none does.',
      queries: [
        {
          expr: `max(${ofGroups('millrace_group_scheduled_overdue_seconds')} or ${ofStreams('millrace_stream_scheduled_overdue_seconds')})`,
          legend: 'overdue',
        },
        { expr: 'max(millrace:overdue_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Of which stream?', 'stream', 'Overdue'), runbook('What to do?', 'MillraceSchedulerStuck')],
    }),
    stat('Unsafe Redis settings', 'short', {
      width: 4,
      description:
        'Settings or states of Redis under which jobs can be lost: eviction, no persistence, failing saves. Replicas are a choice and do not count. `millrace doctor` names each with its fix.',
      queries: [{ expr: 'sum(max by (check) (millrace_redis_unsafe_config{check!="no_replicas"}))', legend: 'unsafe' }],
      colours: [[1, 'red']],
      links: [look('Which?', 'overview', 'Redis safety'), runbook('What to do?', 'MillraceUnsafeRedisConfig')],
    }),
    stat('Groups of unknown lag', 'short', {
      width: 4,
      description:
        'Groups whose lag in jobs Redis does not know, as after an entry ahead of them was deleted. Their lag in seconds is known all the same. It comes back by itself when they have caught up.',
      queries: [{ expr: `sum(1 - ${ofGroups('millrace_group_lag_known')})`, legend: 'unknown' }],
      colours: [[1, 'orange']],
      links: [look('How late are they?', 'overview', 'Lag'), runbook('What to do?', 'MillraceLagUnknown')],
    }),
    stat('Exporter', 'none', {
      width: 4,
      description:
        'Whether the exporters reach Redis. While none does, nothing on this page about lag, pending jobs or dead letters is known, and alerts on them are blind.',
      queries: [{ expr: 'max(millrace_exporter_up) or vector(-1)', legend: 'exporter' }],
      words: { '-1': 'none', '0': 'no Redis', '1': 'up' },
      colours: [
        [-1, 'red'],
        [1, 'green'],
      ],
      links: [look('Since when?', 'overview', 'Exporters'), runbook('What to do?', 'MillraceExporterDown')],
    }),
  ],
}
