import { increase, ofGroups, ofStreams, producer, rate, recorded, worker } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const OF_GROUP = '{{stream}}/{{group}}'

export const backlog: RowSpec = {
  title: 'What is there to do?',
  panels: [
    series('Ready jobs', 'short', {
      width: 8,
      description:
        'Entries that the group has not taken yet. No line while Redis does not know; the age beside it is always known. A line that only rises is a group that is too slow.',
      queries: [{ expr: ofGroups('millrace_group_lag_jobs'), legend: OF_GROUP }],
      links: [
        look('How fast do they go?', 'stream', 'In and out'),
        runbook('What to do?', 'MillraceGroupFallingBehind'),
      ],
    }),
    series('Age of the oldest', 's', {
      width: 8,
      description:
        'How long the oldest entry not yet taken has waited. Above the dashed line the alert fires. A steady rise by a second a second means that nothing is taken: stalled, paused, or no workers.',
      queries: [
        { expr: ofGroups('millrace_group_lag_seconds'), legend: OF_GROUP },
        { expr: 'max(millrace:lag_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Does anybody work on it?', 'stream', 'Workers'), runbook('What to do?', 'MillraceLagTooOld')],
    }),
    series('Time to drain', 's', {
      width: 8,
      description:
        'How long the ready jobs would take at the rate of the last five minutes, if no more came. No line while nothing is done. Hours mean that waiting is no plan: add workers.',
      queries: [{ expr: recorded('stream_group:millrace_drain_seconds:estimate'), legend: OF_GROUP }],
      links: [look('Are the slots used?', 'workers', 'Utilisation')],
    }),
    series('In and out of a stream', 'ops', {
      description:
        'Entries that the stream gets, by the count of Redis and by that of our producers; and jobs that each group finishes. The two first differ where others publish too. Each group has to keep up with the first.',
      queries: [
        {
          expr: 'max by (stream) (rate(millrace_stream_added_entries_total{stream=~"$stream"}[$__rate_interval]))',
          legend: '{{stream}} added',
        },
        {
          expr: `sum by (stream) (${rate(producer('millrace_published_jobs_total', 'result="ok"'))})`,
          legend: '{{stream}} published',
        },
        {
          expr: `sum by (stream, group) (${rate(worker('millrace_finished_jobs_total'))})`,
          legend: `${OF_GROUP} finished`,
        },
      ],
      links: [look('Do publishes fail?', 'workers', 'Publishes by result')],
    }),
    series('In and out', 'ops', {
      description:
        'What the workers took each second, by where from: new in the stream, due again after a retry (redelivery), or claimed from a worker that went away. Many claims mean that workers die or hang.',
      queries: [
        {
          expr: `sum by (source) (${rate(worker('millrace_delivered_jobs_total'))})`,
          legend: '{{source}}',
        },
        {
          expr: `max by (stream, group) (deriv(millrace_group_entries_read{stream=~"$stream", group=~"$group"}[$__rate_interval]))`,
          legend: `${OF_GROUP} read, by Redis`,
        },
      ],
      links: [look('Do workers go away?', 'workers', 'Claims and hand-backs')],
    }),
    series('Last delivered', 's', {
      width: 8,
      description:
        'How far behind now the last entry is that the group took, by the time in its id. It follows the traffic: on a quiet stream it grows and nothing is wrong; with ready jobs it is the lag.',
      queries: [{ expr: `time() - ${ofGroups('millrace_group_last_delivered_timestamp_seconds')}`, legend: OF_GROUP }],
      links: [look('Does work wait?', 'stream', 'Ready jobs'), runbook('Stalled: what to do?', 'MillraceGroupStalled')],
    }),
    series('Paused', 'none', {
      width: 8,
      description:
        '1 while the group begins no jobs, because it or its stream is paused by somebody. `millrace groups list` says who, why and until when.',
      queries: [
        { expr: ofGroups('millrace_group_paused'), legend: OF_GROUP },
        { expr: ofStreams('millrace_stream_paused'), legend: '{{stream}} as a whole' },
      ],
      links: [look('What waits meanwhile?', 'stream', 'Ready jobs'), runbook('What to do?', 'MillraceGroupPausedLong')],
    }),
    series('Is the lag known?', 'none', {
      width: 8,
      description:
        '0 while Redis does not know how many jobs wait: an entry ahead of the group was deleted. The age is known all the same. It is known again when the group has caught up.',
      queries: [{ expr: ofGroups('millrace_group_lag_known'), legend: OF_GROUP }],
      links: [
        look('How old is the oldest?', 'stream', 'Age of the oldest'),
        runbook('What to do?', 'MillraceLagUnknown'),
      ],
    }),
  ],
}

export const outcomes: RowSpec = {
  title: 'What becomes of them?',
  panels: [
    series('Finished by result', 'ops', {
      width: 8,
      stacked: true,
      description:
        'Jobs that came to their end each second: completed, dead-lettered, cancelled. Any dead is work not done.',
      queries: [{ expr: `sum by (result) (${rate(worker('millrace_finished_jobs_total'))})`, legend: '{{result}}' }],
      links: [
        look('Why are they dead?', 'stream', 'Dead by reason'),
        runbook('What to do?', 'MillraceSuccessBudgetBurnFast'),
      ],
    }),
    series('Runs by outcome', 'ops', {
      width: 8,
      stacked: true,
      description:
        'What ended each run of a handler. A run that failed is not a lost job: it is retried. timed_out and lost are runs whose work may have been done twice.',
      queries: [{ expr: `sum by (outcome) (${rate(worker('millrace_processed_jobs_total'))})`, legend: '{{outcome}}' }],
      links: [look('Of which job?', 'stream', 'Failing jobs')],
    }),
    series('Failing jobs', 'ops', {
      width: 8,
      description:
        'Runs that did not complete, by the name of the job: one name alone is its handler or what it calls; all names are something they share.',
      queries: [
        {
          expr: `sum by (job_name) (${rate(worker('millrace_processed_jobs_total', 'outcome!~"completed|skipped"'))})`,
          legend: '{{job_name}}',
        },
      ],
      links: [look('Are they slow too?', 'stream', 'Duration by job')],
    }),
    series('Retries', 'ops', {
      width: 8,
      description:
        'Attempts that failed and were scheduled again, by job. Retries are fine while they are few; a wave of them comes back as load later.',
      queries: [{ expr: `sum by (job_name) (${rate(worker('millrace_retried_jobs_total'))})`, legend: '{{job_name}}' }],
      links: [look('When do they come back?', 'stream', 'Scheduled'), look('Do they succeed?', 'stream', 'Attempts')],
    }),
    series('Attempts', 'short', {
      width: 8,
      description:
        'Deliveries that jobs took to their end: 1 is as it should be. A rising p95 means that jobs fail before they succeed, or that workers die with them.',
      queries: [0.5, 0.95, 0.99].map((quantile) => ({
        expr: `histogram_quantile(${quantile}, sum by (le) (${rate(worker('millrace_job_attempts_bucket'))}))`,
        legend: `p${quantile * 100}`,
      })),
      links: [look('Why do they fail?', 'stream', 'Runs by outcome')],
    }),
    series('Dead by reason', 'short', {
      width: 8,
      stacked: true,
      description:
        'Jobs dead-lettered, by reason. attempts: the handler failed each time. deliveries: it took its workers down. malformed, invalid, unknown-job: the publisher and the handlers do not fit. expired: too late.',
      queries: [{ expr: `sum by (reason) (${increase(worker('millrace_dead_jobs_total'))})`, legend: '{{reason}}' }],
      links: [
        look('How many lie there?', 'stream', 'Dead letters'),
        runbook('What to do?', 'MillraceDeadLetterGrowing'),
      ],
    }),
  ],
}
