import { increase, quantiles, worker } from '../build/expressions.ts'
import { heatmap, look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const select = (name: string): string => worker(name)

export const times: RowSpec = {
  title: 'How long does it take?',
  panels: [
    series('Wait', 's', {
      width: 8,
      description:
        'From when a job was ready to the start of its handler, delays and back-off left out. It is what more workers make better. p99 far above p50: some wait behind slow jobs.',
      queries: quantiles('millrace_job_wait_seconds', select),
      links: [
        look('Are the slots full?', 'workers', 'Utilisation'),
        runbook('What to do?', 'MillraceFreshnessBudgetBurnFast'),
      ],
    }),
    series('Duration', 's', {
      width: 8,
      description:
        'How long handlers ran, failed runs included. It is what the handler and what it calls make better; more workers do not.',
      queries: quantiles('millrace_job_duration_seconds', select),
      links: [look('Of which job?', 'stream', 'Duration by job')],
    }),
    series('End to end', 's', {
      width: 8,
      description:
        'From when a job was first published to its end, with all delays, retries and waiting. What the one who published sees.',
      queries: quantiles('millrace_job_end_to_end_seconds', select),
      links: [look('Is it waiting?', 'stream', 'Wait'), look('Or retries?', 'stream', 'Retries')],
    }),
    heatmap('Wait, all of it', 's', {
      description:
        'How many jobs waited how long. Two bands are two kinds of jobs, or some workers that are slower; a band that climbs is a backlog.',
      queries: [{ expr: `sum by (le) (${increase(worker('millrace_job_wait_seconds_bucket'))})`, legend: '{{le}}' }],
      links: [look('Is there a backlog?', 'stream', 'Ready jobs')],
    }),
    heatmap('Duration, all of it', 's', {
      description: 'How many runs took how long. A band at the top is jobs that hit their timeout.',
      queries: [
        { expr: `sum by (le) (${increase(worker('millrace_job_duration_seconds_bucket'))})`, legend: '{{le}}' },
      ],
      links: [look('Do any time out?', 'stream', 'Runs by outcome')],
    }),
    series('Duration by job', 's', {
      description: 'The slow end (p95) of each job. One that grew since a deploy is where to look first.',
      queries: [
        {
          expr: `histogram_quantile(0.95, sum by (le, job_name) (${increase(worker('millrace_job_duration_seconds_bucket'))}))`,
          legend: '{{job_name}}',
        },
      ],
      links: [look('Do they fail too?', 'stream', 'Failing jobs')],
    }),
    series('Wait by job', 's', {
      description:
        'The slow end (p95) of the wait of each job. All jobs of a group wait in one line: if one floods it, give it a stream of its own.',
      queries: [
        {
          expr: `histogram_quantile(0.95, sum by (le, job_name) (${increase(worker('millrace_job_wait_seconds_bucket'))}))`,
          legend: '{{job_name}}',
        },
      ],
      links: [look('Which one takes the slots?', 'stream', 'Duration by job')],
    }),
  ],
}
