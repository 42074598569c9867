import { monotonicMs } from '../clock.ts'
import type { WorkerCounts } from '../counts.ts'
import type { Labels, Metric, Row } from './metric.ts'
import { OUTCOMES, type JobNumbers, type WorkerNumbers, type WorkerState } from './worker-numbers.ts'

/** The metrics of workers, one entry each: name, type, labels, help, and how it is read from a group's numbers. */

type Read = (numbers: WorkerNumbers) => Iterable<Row>
type Shape = Pick<Metric<WorkerNumbers>, 'type' | 'labels' | 'aggregator'>

export const WORKER_METRICS: readonly Metric<WorkerNumbers>[] = [
  metric(
    counter('source'),
    'millrace_delivered_jobs_total',
    'Entries that workers took, by where from: new in the stream, due again in the redelivery stream, or claimed from a worker that went away or handed them back.',
    (numbers) => {
      const redelivered = numbers.count('redelivered')
      return [
        [{ source: 'new' }, numbers.count('delivered') - redelivered],
        [{ source: 'redelivery' }, redelivered],
        [{ source: 'claimed' }, numbers.count('claimed')],
      ]
    },
  ),
  metric(
    counter('job_name', 'outcome'),
    'millrace_processed_jobs_total',
    'Runs of handlers by what ended them first, each counted once, and entries for which nothing was run (malformed, unknown_job, invalid, expired, cancelled before, skipped) or that had to wait (waited).',
    (numbers) => perJob(numbers, ({ outcomes }) => OUTCOMES.map((outcome): Row => [{ outcome }, outcomes[outcome]])),
  ),
  metric(
    counter('job_name', 'result'),
    'millrace_finished_jobs_total',
    'Jobs that reached their end, confirmed by Redis: completed, dead-lettered or cancelled. The base of success rates.',
    (numbers) =>
      perJob(numbers, ({ completed, dead, cancelled }) => [
        [{ result: 'completed' }, completed],
        [{ result: 'dead' }, dead],
        [{ result: 'cancelled' }, cancelled],
      ]),
  ),
  metric(
    counter('job_name'),
    'millrace_retried_jobs_total',
    'Failed attempts after which the job was scheduled for another one, confirmed by Redis.',
    (numbers) => perJob(numbers, ({ retried }) => [[{}, retried]]),
  ),
  ...plain(
    'promoted_jobs_total',
    'promoted',
    'Delayed publishes and retries that became due and were moved to where they run.',
  ),
  ...plain(
    'set_aside_jobs_total',
    'setAside',
    'Scheduled jobs that could not be moved when they were due and were set aside; they wait for somebody to look at them.',
  ),
  ...plain('cron_fired_jobs_total', 'cronFired', 'Jobs that recurring schedules have published here.'),
  ...plain(
    'cron_skipped_ticks_total',
    'cronSkipped',
    'Ticks of recurring schedules that were left out here, as the job of the one before had not ended.',
  ),
  metric(counter('reason'), 'millrace_dead_jobs_total', 'Jobs that were dead-lettered, by reason.', (numbers) =>
    Object.entries(numbers.dead).map(([reason, count]): Row => [{ reason }, count]),
  ),
  metric(
    counter('result'),
    'millrace_acked_jobs_total',
    'Outcomes sent to Redis: ok; lost, because the entry was no longer pending here or at all, so the job ran twice; error, sent again because Redis refused or did not answer.',
    (numbers) => Object.entries(numbers.acks).map(([result, count]): Row => [{ result }, count]),
  ),
  metric(
    counter('result'),
    'millrace_lease_renewals_total',
    'Leases renewed by the lease keeper; lost to another worker; or rounds of renewals that failed (error).',
    (numbers) => Object.entries(numbers.renewals).map(([result, count]): Row => [{ result }, count]),
  ),
  ...plain(
    'handed_back_jobs_total',
    'handedBack',
    'Jobs that were given back to the group at no cost: by a stop, or because they waited too long for a slot here.',
  ),
  ...plain(
    'missing_jobs_total',
    'gone',
    'Pending entries that were found deleted from the stream: somebody trimmed or deleted what was not settled.',
  ),
  ...plain('claim_passes_total', 'claimPasses', "Passes of the claimer over the group's pending entries."),
  ...plain('trimmed_entries_total', 'trimmed', 'Settled entries that retention removed.'),
  ...plain(
    'discarded_dead_letters_total',
    'discarded',
    'Dead letters that were removed because they were past their age.',
  ),
  metric(
    histogram('job_name', 'result'),
    'millrace_job_duration_seconds',
    'How long handlers ran, by whether they succeeded.',
    (numbers) =>
      perJob(numbers, ({ okDuration, errorDuration }) => [
        [{ result: 'ok' }, okDuration],
        [{ result: 'error' }, errorDuration],
      ]),
  ),
  metric(
    histogram('job_name'),
    'millrace_job_wait_seconds',
    'From when a job was ready (published, or due again) to the start of its first delivery, by the time of Redis.',
    (numbers) => perJob(numbers, ({ wait }) => [[{}, wait]]),
  ),
  metric(
    histogram('job_name'),
    'millrace_job_end_to_end_seconds',
    'From when a job was first published to its end, confirmed by Redis and by the time of Redis.',
    (numbers) => perJob(numbers, ({ endToEnd }) => [[{}, endToEnd]]),
  ),
  metric(
    histogram(),
    'millrace_job_attempts',
    'Deliveries that a job took to its end: attempts that failed, workers that went away with it, and the last.',
    ({ attempts }) => [[{}, attempts]],
  ),
  metric(
    histogram('job_name'),
    'millrace_handler_batch_jobs',
    'Jobs that the function of a handleBatch was given at once; no series for other jobs.',
    (numbers) => perJob(numbers, ({ handlerBatch }) => (handlerBatch === undefined ? [] : [[{}, handlerBatch]])),
  ),
  metric(
    counter('limit'),
    'millrace_limited_jobs_total',
    'Jobs that had to wait for a limit, each once for each limit and time that it comes to a worker; no series where there is no limit.',
    ({ held }) => [...held].map(([limit, count]): Row => [{ limit }, count]),
  ),
  metric(
    gauge('limit'),
    'millrace_limit_waiting_jobs',
    'Jobs that wait for a limit in workers now; those that wait for longer are in the scheduled set.',
    heldNow,
  ),
  metric(gauge(), 'millrace_in_flight_jobs', 'Handlers that run now.', ({ running }) => [[{}, running]]),
  metric(
    gauge(),
    'millrace_overdue_handlers',
    'Handlers that go on though their signal is aborted (timeout, lost lease, cancel); they hold slots.',
    ({ live }) => [[{}, [...live].reduce((sum, worker) => sum + worker.overdue(), 0)]],
  ),
  metric(gauge(), 'millrace_worker_concurrency', 'Slots: how many handlers can run at once.', ({ live }) => [
    [{}, [...live].reduce((sum, { slots }) => sum + slots, 0)],
  ]),
  metric(
    counter(),
    'millrace_worker_busy_seconds_total',
    'Time that slots were taken, summed over them; its rate over the concurrency is the utilisation.',
    (numbers) => [[{}, numbers.busyMs(monotonicMs()) / 1000]],
  ),
  metric(
    { ...gauge(), aggregator: 'min' },
    'millrace_oldest_in_flight_start_timestamp_seconds',
    'When the oldest run that is still going on began; no series while nothing runs.',
    ({ live }) => earliest([...live].map((worker) => worker.oldestStartMs())),
  ),
  metric(
    counter('result'),
    'millrace_polls_total',
    'Reads of new entries: that brought jobs, that came back empty, that failed.',
    ({ polls }) => Object.entries(polls).map(([result, count]): Row => [{ result }, count]),
  ),
  metric(
    histogram(),
    'millrace_poll_batch_jobs',
    'Entries that one read brought, of reads that brought any.',
    ({ pollBatch }) => [[{}, pollBatch]],
  ),
  metric(
    histogram(),
    'millrace_ack_duration_seconds',
    'Round trip of one batch of outcomes to Redis.',
    ({ ackDuration }) => [[{}, ackDuration]],
  ),
  metric(gauge('state'), 'millrace_worker_state', 'Workers of this process or pool in each state.', ({ live }) =>
    STATES.map((state): Row => [{ state }, [...live].filter((worker) => worker.state === state).length]),
  ),
  metric(
    { ...gauge(), aggregator: 'min' },
    'millrace_heartbeat_timestamp_seconds',
    'When the event loop of the worker last proved that it turns; of several, the one that is furthest behind.',
    ({ live }) => earliest([...live].map(({ tickedAtMs }) => tickedAtMs)),
  ),
  metric(
    counter(),
    'millrace_shutdown_abandoned_jobs_total',
    'Jobs that a stopping worker could neither settle nor hand back; they run again when their lease is over.',
    ({ abandoned }) => [[{}, abandoned]],
  ),
]

const STATES: readonly WorkerState[] = ['starting', 'running', 'draining', 'stopped']

/** Every metric of workers carries stream and group. */
function metric(shape: Shape, name: string, help: string, read: Read): Metric<WorkerNumbers> {
  return {
    ...shape,
    name,
    help,
    labels: ['stream', 'group', ...shape.labels],
    *read(numbers) {
      const { stream, group } = numbers
      for (const [labels, value] of read(numbers)) yield [{ stream, group, ...labels }, value]
    },
  }
}

/** By limit, also where none waits. */
function heldNow({ held, live }: WorkerNumbers): Row[] {
  const now = [...live].map((worker) => worker.held())
  return [...held.keys()].map((limit) => [{ limit }, now.reduce((sum, counts) => sum + (counts.get(limit) ?? 0), 0)])
}

function plain(name: string, count: keyof WorkerCounts, help: string): [Metric<WorkerNumbers>] {
  return [metric(counter(), `millrace_${name}`, help, (numbers) => [[{}, numbers.count(count)]])]
}

function* perJob(numbers: WorkerNumbers, read: (job: JobNumbers) => Iterable<Row>): Generator<Row> {
  for (const [job_name, job] of numbers.jobs) {
    for (const [labels, value] of read(job)) yield [{ job_name, ...labels } satisfies Labels, value]
  }
}

function counter(...labels: string[]): Shape {
  return { type: 'counter', labels, aggregator: 'sum' }
}

function gauge(...labels: string[]): Shape {
  return { type: 'gauge', labels, aggregator: 'sum' }
}

function histogram(...labels: string[]): Shape {
  return { type: 'histogram', labels, aggregator: 'sum' }
}

/** As a timestamp in seconds; no series where there is none. */
function earliest(timesMs: readonly (number | undefined)[]): Row[] {
  const known = timesMs.filter((ms) => ms !== undefined)
  return known.length === 0 ? [] : [[{}, Math.min(...known) / 1000]]
}
