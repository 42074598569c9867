import { ofGroups, rate, worker } from '../build/expressions.ts'
import { look, runbook, stat } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const FINISHED = worker('millrace_finished_jobs_total')
const DEAD = worker('millrace_finished_jobs_total', 'result="dead"')
/** As the budgets count: a cancelled job is neither good nor bad. */
const ENDED = worker('millrace_finished_jobs_total', 'result=~"completed|dead"')

export const flow: RowSpec = {
  title: 'Does work flow?',
  panels: [
    stat('Oldest waiting', 's', {
      description:
        'Age of the oldest job that no worker has taken yet, over all groups chosen. Red above the threshold of the alert MillraceLagTooOld. If it grows, see whether work comes in faster than it goes out.',
      queries: [
        { expr: `max(${ofGroups('millrace_group_lag_seconds')})`, legend: 'oldest' },
        { expr: 'max(millrace:lag_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Which group is late?', 'overview', 'Lag'), runbook('What to do?', 'MillraceLagTooOld')],
    }),
    stat('Ready', 'short', {
      description:
        'Jobs that no worker has taken yet (lag). Many are fine while they are young: judge by the age. Groups whose lag Redis does not know are left out.',
      queries: [{ expr: `sum(${ofGroups('millrace_group_lag_jobs')})`, legend: 'ready' }],
      links: [look('When will they be done?', 'stream', 'Time to drain')],
    }),
    stat('Pending', 'short', {
      description:
        'Jobs that a worker has taken and not settled: they run, or wait in a worker for a slot. More than the slots for long means that settling, or Redis, is slow.',
      queries: [{ expr: `sum(${ofGroups('millrace_group_pending_jobs')})`, legend: 'pending' }],
      links: [look('Is any of them stuck?', 'stream', 'Stuck jobs')],
    }),
    stat('Finished', 'ops', {
      description: 'Jobs that came to their end each second, whichever it was. None while jobs are ready is a stall.',
      queries: [{ expr: `sum(${rate(FINISHED)})`, legend: 'finished' }],
      links: [look('What became of them?', 'stream', 'Finished by result')],
    }),
    stat('Dying', 'percentunit', {
      description:
        'Share of the jobs completed or dead-lettered that are dead. Red above the failure budget. Look at the reason first: attempts are errors of handlers, deliveries are workers that died.',
      queries: [
        // Where nothing ends none dies either: 0, where a share of nothing would be no number.
        { expr: `sum(${rate(DEAD)}) / (sum(${rate(ENDED)}) > 0) or sum(${rate(DEAD)})`, legend: 'dying' },
        { expr: 'max(millrace:failure_budget:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [look('Why do they die?', 'stream', 'Dead by reason')],
    }),
    stat('Dead letters', 'short', {
      description:
        'Jobs that failed for good and wait for somebody to look. Any is work not done. `millrace dead list` shows why, `millrace dead redrive` runs them again.',
      queries: [{ expr: `sum(${ofGroups('millrace_dead_letter_entries')})`, legend: 'dead letters' }],
      colours: [[1, 'orange']],
      links: [look('Of which group?', 'stream', 'Dead letters'), runbook('What to do?', 'MillraceDeadLetterGrowing')],
    }),
    stat('Workers', 'short', {
      description: 'Workers heard of in the last 5 s. None while jobs wait means that nothing will be done.',
      queries: [{ expr: `sum(${ofGroups('millrace_group_workers')})`, legend: 'workers' }],
      colours: [
        [-1, 'red'],
        [1, 'green'],
      ],
      links: [look('In which state are they?', 'workers', 'Workers by state')],
    }),
    stat('Slots busy', 'percentunit', {
      description:
        'Share of the slots that handlers take. Near 100 % with a growing lag: add workers or concurrency. Low with a growing lag: workers do not read; look at their polls.',
      queries: [
        {
          expr: `sum(${rate(worker('millrace_worker_busy_seconds_total'))}) / sum(${worker('millrace_worker_concurrency')})`,
          legend: 'busy',
        },
      ],
      links: [look('Of which worker?', 'workers', 'Utilisation')],
    }),
  ],
}
