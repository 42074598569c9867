import { rate, worker } from '../build/expressions.ts'
import { look, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

export const limits: RowSpec = {
  title: 'Do limits hold jobs up?',
  panels: [
    series('Waiting for limits', 'short', {
      width: 12,
      description:
        'Jobs that wait for a limit in workers now. Above 0 for long: more comes than the limit lets begin, and the backlog is its doing. What waits for longer is in the scheduled set.',
      queries: [
        {
          expr: `sum by (stream, group, limit) (${worker('millrace_limit_waiting_jobs')})`,
          legend: '{{stream}}/{{group}} {{limit}}',
        },
      ],
      links: [look('How much waits behind it?', 'stream', 'Ready jobs'), look('Or scheduled?', 'stream', 'Scheduled')],
    }),
    series('Held up by limits', 'ops', {
      width: 12,
      description:
        'Jobs that had to wait for a limit, each once for each limit and time that it comes to a worker. Near what begins in all: the limit sets the pace. 0 with a lag: look elsewhere.',
      queries: [
        {
          expr: `sum by (stream, group, limit) (${rate(worker('millrace_limited_jobs_total'))})`,
          legend: '{{stream}}/{{group}} {{limit}}',
        },
      ],
      links: [
        look('How do runs end?', 'stream', 'Runs by outcome'),
        look('Are the slots full?', 'workers', 'Utilisation'),
      ],
    }),
  ],
}
