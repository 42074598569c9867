import { increase, quantiles, rate, worker } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const select = (name: string): string => worker(name)
const perGroup = (name: string): string => `sum by (stream, group) (${increase(worker(name))})`

export const reading: RowSpec = {
  title: 'Do they get jobs, and can they settle them?',
  panels: [
    series('Polls by result', 'ops', {
      width: 8,
      stacked: true,
      description:
        'Reads of new entries: that brought jobs, that came back empty, that failed. All empty while jobs are ready: they read another stream or group. Errors: Redis, or rights.',
      queries: [{ expr: `sum by (result) (${rate(worker('millrace_polls_total'))})`, legend: '{{result}}' }],
      links: [look('Which errors?', 'workers', 'Redis errors'), look('Is work there?', 'stream', 'Ready jobs')],
    }),
    series('Batch size', 'short', {
      width: 8,
      description:
        'Entries that one read brought, of reads that brought any. It grows with the load, up to the slots that are free: 1 is a quiet stream or one that is full of slow jobs.',
      queries: quantiles('millrace_poll_batch_jobs', select),
      links: [look('Are the slots full?', 'workers', 'Utilisation')],
    }),
    series('Settling', 's', {
      width: 8,
      description:
        'Round trip of one batch of outcomes to Redis. Tens of milliseconds: Redis is busy or far away, or its disk is slow with appendfsync always.',
      queries: quantiles('millrace_ack_duration_seconds', select),
      links: [look('Are outcomes refused?', 'workers', 'Outcomes')],
    }),
    series('Outcomes', 'ops', {
      width: 8,
      description:
        'Outcomes sent to Redis. error: refused or unanswered, sent again. lost: the entry was no longer ours, so the job ran twice.',
      queries: [{ expr: `sum by (result) (${rate(worker('millrace_acked_jobs_total'))})`, legend: '{{result}}' }],
      links: [look('Were leases lost?', 'workers', 'Lease renewals'), runbook('What to do?', 'MillraceLateAcks')],
    }),
    series('Lease renewals', 'ops', {
      width: 8,
      description:
        'Leases that the keepers renewed; lost ones went to another worker; error is a round that Redis did not answer. Losses without a crash mean that a keeper did not get to run: the machine is short of CPU.',
      queries: [{ expr: `sum by (result) (${rate(worker('millrace_lease_renewals_total'))})`, legend: '{{result}}' }],
      links: [look('Did jobs run twice?', 'workers', 'Outcomes'), runbook('What to do?', 'MillraceLeasesLost')],
    }),
    series('Claims and hand-backs', 'short', {
      width: 8,
      description:
        'Jobs claimed from workers that went away, handed back by workers that stop, and abandoned by those that could do neither. Claims without hand-backs are crashes. Abandoned: give the stop more time.',
      queries: [
        {
          expr: `sum by (stream, group) (${increase(worker('millrace_delivered_jobs_total', 'source="claimed"'))})`,
          legend: '{{stream}}/{{group}} claimed',
        },
        { expr: perGroup('millrace_handed_back_jobs_total'), legend: '{{stream}}/{{group}} handed back' },
        { expr: perGroup('millrace_shutdown_abandoned_jobs_total'), legend: '{{stream}}/{{group}} abandoned' },
      ],
      links: [
        look('Do processes crash?', 'workers', 'Replaced processes'),
        look('Are any stuck?', 'stream', 'Stuck jobs'),
      ],
    }),
    series('Claim passes', 'ops', {
      width: 12,
      description:
        'Passes of the claimers over what is pending, each second: a group makes about one every two seconds, whatever its number of workers. None at all: jobs of dead workers stay where they are.',
      queries: [
        {
          expr: `sum by (stream, group) (${rate(worker('millrace_claim_passes_total'))})`,
          legend: '{{stream}}/{{group}}',
        },
      ],
      links: [look('Are any stuck?', 'stream', 'Stuck jobs')],
    }),
    series('Promoted and set aside', 'short', {
      width: 12,
      description:
        'Delayed jobs and retries that became due and were moved to where they run, and those that could not be moved. Any of the second waits for somebody.',
      queries: [
        { expr: perGroup('millrace_promoted_jobs_total'), legend: '{{stream}}/{{group}} promoted' },
        { expr: perGroup('millrace_set_aside_jobs_total'), legend: '{{stream}}/{{group}} set aside' },
      ],
      links: [look('Is any overdue?', 'stream', 'Overdue'), look('Which are set aside?', 'stream', 'Set aside')],
    }),
    series('Recurring schedules', 'short', {
      width: 12,
      description:
        'Jobs that recurring schedules have published, and ticks of theirs that were left out, as the job of the one before had not ended. Many of the second: those jobs take longer than the time between two ticks.',
      queries: [
        { expr: perGroup('millrace_cron_fired_jobs_total'), legend: '{{stream}}/{{group}} fired' },
        { expr: perGroup('millrace_cron_skipped_ticks_total'), legend: '{{stream}}/{{group}} left out' },
      ],
      links: [look('Are any stuck?', 'stream', 'Stuck jobs')],
    }),
  ],
}
