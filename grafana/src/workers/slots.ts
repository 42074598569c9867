import { process, quantiles, rate, worker } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

export const slots: RowSpec = {
  title: 'Are they busy?',
  panels: [
    series('Utilisation', 'percentunit', {
      width: 8,
      description:
        'Share of its slots that each worker has taken. All near 100 % with a lag: add workers or concurrency. One near 0 beside busy ones: it does not read.',
      queries: [
        {
          expr: `sum by (instance, stream, group) (${rate(worker('millrace_worker_busy_seconds_total'))}) / sum by (instance, stream, group) (${worker('millrace_worker_concurrency')})`,
          legend: '{{instance}} {{stream}}/{{group}}',
        },
      ],
      links: [
        look('Does work wait?', 'stream', 'Ready jobs'),
        look('Does it read?', 'workers', 'Polls by result'),
        look('Do limits hold it up?', 'workers', 'Waiting for limits'),
      ],
    }),
    series('In flight and slots', 'short', {
      width: 8,
      description: 'Handlers that run now, and how many could.',
      queries: [
        {
          expr: `sum by (stream, group) (${worker('millrace_in_flight_jobs')})`,
          legend: '{{stream}}/{{group}} in flight',
        },
        {
          expr: `sum by (stream, group) (${worker('millrace_worker_concurrency')})`,
          legend: '{{stream}}/{{group}} slots',
        },
      ],
      links: [look('What takes so long?', 'stream', 'Duration by job')],
    }),
    series('Oldest run', 's', {
      width: 8,
      description:
        'How long the oldest run that still goes on has taken. A rise without end is a handler that hangs; its timeout (30 min if not set) ends it.',
      queries: [
        {
          expr: `time() - min by (instance, stream, group) (${worker('millrace_oldest_in_flight_start_timestamp_seconds')})`,
          legend: '{{instance}} {{stream}}/{{group}}',
        },
      ],
      links: [look('Do any ignore their end?', 'workers', 'Overdue handlers')],
    }),
    series('Overdue handlers', 'short', {
      width: 8,
      description:
        'Handlers that go on though their signal is aborted. They hold slots and do work that may be done elsewhere too: pass `job.signal` on to what they call.',
      queries: [
        {
          expr: `sum by (instance, stream, group) (${worker('millrace_overdue_handlers')})`,
          legend: '{{instance}} {{stream}}/{{group}}',
        },
      ],
      links: [look('How do runs end?', 'stream', 'Runs by outcome'), runbook('What to do?', 'MillraceHandlersOverdue')],
    }),
    series('Workers by state', 'short', {
      width: 8,
      stacked: true,
      description:
        'Workers that are starting, running or draining. Draining for longer than the drain time, or starting for minutes: look at the log of that one.',
      queries: [{ expr: `sum by (state) (${worker('millrace_worker_state')})`, legend: '{{state}}' }],
      links: [
        look('Do they reach Redis?', 'workers', 'Redis connections'),
        runbook('None runs: what to do?', 'MillraceNoWorkers'),
      ],
    }),
    series('Heartbeat', 's', {
      width: 8,
      description:
        'How long ago the event loop of each worker last proved that it turns. Seconds mean that a handler blocks it; leases are renewed all the same, by a thread of their own.',
      queries: [
        {
          expr: `time() - min by (instance) (${worker('millrace_heartbeat_timestamp_seconds')})`,
          legend: '{{instance}}',
        },
        { expr: 'max(millrace:heartbeat_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [
        look('Is the loop blocked?', 'workers', 'Event loop'),
        runbook('What to do?', 'MillraceWorkerNotAnswering'),
      ],
    }),
    series('Jobs a batch', 'short', {
      width: 8,
      description:
        'Jobs that functions of batches were given at once, by job. Far below the size of its batches: a longer lingerMs makes fewer calls of more jobs. Always at the size: a larger one may be had.',
      queries: quantiles('millrace_handler_batch_jobs', worker, 'job_name'),
      links: [look('Are the slots full?', 'workers', 'Utilisation')],
    }),
    series('Pool processes', 'short', {
      width: 8,
      description:
        'Processes that the pools should have, and those that are ready. Below for more than the start of one: they do not come up.',
      queries: [
        { expr: `sum by (instance) (${process('millrace_pool_processes')})`, legend: '{{instance}} wanted' },
        { expr: `sum by (instance) (${process('millrace_pool_ready_processes')})`, legend: '{{instance}} ready' },
      ],
      links: [look('Do they crash?', 'workers', 'Replaced processes')],
    }),
    series('Replaced processes', 'short', {
      width: 8,
      description:
        'Processes that ended by themselves and were replaced. One now and then is a crash to look into; a steady row is a job that takes its worker down: after three it is a dead letter.',
      queries: [
        {
          expr: `sum by (instance) (increase(${process('millrace_pool_replaced_processes_total')}[$__rate_interval]))`,
          legend: '{{instance}}',
        },
      ],
      links: [
        look('Is it one job?', 'stream', 'Dead by reason'),
        look('Is it memory?', 'workers', 'Memory'),
        runbook('What to do?', 'MillraceWorkersReplaced'),
      ],
    }),
  ],
}
