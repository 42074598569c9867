import { setTimeout as sleep } from 'node:timers/promises'
import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { defineJob, handle, Producer, type Job, type Worker } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { scrape, type Scrape } from './helpers/metrics.ts'
import { withRedis } from './helpers/redis.ts'
import { startWorker } from './helpers/workers.ts'

/**
 * Metrics tested as data: a history of 10 000 jobs is written down by its handlers and by what the test does to them, and
 * every counter and histogram is compared with what follows from it.
 */

const redis = withRedis()

/** What each job does; a plain one completes. */
const PUBLISHED = {
  plain: 9300,
  slow: 100,
  /** Fails at first, and completes at its second attempt. */
  flaky: 300,
  /** Fails until its attempts are used up. */
  poison: 40,
  /** Another worker takes it while it runs here. */
  stolen: 3,
  /** Outlives its time at first. */
  endless: 5,
  /** Somebody else acks it while it runs. */
  acked: 7,
  /** Cancelled before it runs. */
  dropped: 6,
}
const ATTEMPTS = 3
const MALFORMED = 20
/** Of a job that nobody handles. */
const STRAY = 10
/** Delivered to a worker that went away before it began. */
const GHOSTS = 215
/** Deleted from the stream while they were pending there. */
const DELETED = 4
const REFUSED = 5
const SLOW_MS = 30

interface RunOfJob {
  readonly name: string
  readonly id: string
  readonly deliveries: number
  readonly attempt: number
  how: 'completed' | 'failed' | 'timed_out' | 'lease_lost' | 'handed_back'
  ranMs: number
}

const total = (counts: Record<string, number>) => Object.values(counts).reduce((sum, count) => sum + count, 0)
const countBy = <Item>(items: readonly Item[], key: (item: Item) => string): Record<string, number> => {
  const counts: Record<string, number> = {}
  for (const item of items) counts[key(item)] = (counts[key(item)] ?? 0) + 1
  return counts
}

const settledBy = (worker: Worker | undefined) => {
  const { completed = 0, dead = 0, cancelled = 0, late = 0 } = worker?.counts ?? {}
  return completed + dead + cancelled + late
}

test('every counter and histogram agrees with a counted history of 10 000 jobs', async () => {
  const registry = new Registry()
  const history: RunOfJob[] = []
  const { client } = redis

  const did = (work: (job: Job, run: RunOfJob) => unknown) => async (_data: unknown, job: Job) => {
    const startedMs = performance.now()
    const { name, id, deliveries, attempt } = job
    const run: RunOfJob = { name, id, deliveries, attempt, how: 'completed', ranMs: 0 }
    history.push(run)
    try {
      await work(job, run)
    } catch (error) {
      if (run.how === 'completed') run.how = 'failed'
      throw error
    } finally {
      run.ranMs = performance.now() - startedMs
    }
  }
  let worker: Worker | undefined = undefined as Worker | undefined
  const ends = total(PUBLISHED) - DELETED + MALFORMED + STRAY
  const aborted = (job: Job) => new Promise<void>((resolve) => job.signal.addEventListener('abort', () => resolve()))
  const handlers = {
    plain: did(() => {}),
    slow: did(() => sleep(SLOW_MS)),
    flaky: did((job) => {
      if (job.attempt === 1) throw new Error('not yet')
    }),
    poison: did(() => {
      throw new Error('never')
    }),
    stolen: did(async (job, run) => {
      if (job.deliveries > 1) return
      run.how = 'lease_lost'
      const stopped = aborted(job)
      await client.xclaim('orders', 'main', 'thief', 0, job.id)
      await stopped
      throw new Error('it is not mine any more')
    }),
    endless: did(async (job, run) => {
      if (job.attempt > 1) return
      run.how = 'timed_out'
      await aborted(job)
      throw new Error('too late')
    }),
    dropped: did(() => {}),
    // When all others are settled: of a batch it is told how many were late, and not which.
    acked: handle(
      defineJob('acked', { timeoutMs: 60_000 }),
      did(async (job) => {
        await eventually(() => expect(settledBy(worker)).toBeGreaterThanOrEqual(ends - PUBLISHED.acked))
        await client.xack('orders', 'main', job.id)
      }),
    ),
    unended: did(async (job, run) => {
      run.how = 'handed_back'
      await aborted(job)
      throw new Error('stopped')
    }),
  }

  // Arrange: the jobs, a worker that went away with some of them, and what nobody can run.
  const producer = new Producer({ redis: redis.url, registry })
  onEnd(async () => void (await producer.close()))
  const entries = Object.entries(PUBLISHED).flatMap(([name, count]) => Array.from({ length: count }, () => name))
  await Promise.all(
    entries.map(async (name, n) => {
      const { id } = await producer.publish(name, { n }, { stream: 'orders' })
      if (name === 'dropped') await client.zadd('{orders}:cancelled', n, id)
    }),
  )
  await client.zadd('{orders}:scheduled', 1, 'without a record')
  for (let n = 0; n < REFUSED; n++) {
    await expect(producer.publish('plain', undefined, { stream: 'orders' })).rejects.toThrow('JSON-able')
  }
  await client.xgroup('CREATE', 'orders', 'main', '0')
  const ghosts = (await client.xreadgroup('GROUP', 'main', 'ghost', 'COUNT', GHOSTS, 'STREAMS', 'orders', '>')) as [
    [string, [string, string[]][]],
  ]
  const deleted = ghosts[0][1].slice(0, DELETED).map(([id]) => id)
  await client.xdel('orders', ...deleted)
  for (let n = 0; n < MALFORMED; n++) await client.xadd('orders', '*', 'no', 'job')
  for (let n = 0; n < STRAY; n++) await client.xadd('orders', '*', 'job', 'stray')

  // Act: one worker does all of it, is given one more job that does not end, and stops.
  const timeoutMs = 700
  const retry = { attempts: ATTEMPTS, delayMs: 10 }
  const own = { timeoutMs, retry, leaseMs: 1000, concurrency: 40, unknownJobMs: 0 }
  worker = await startWorker({ redis: redis.url, registry, handlers, ...own })
  await eventually(
    () => {
      const { gone } = worker.counts
      expect({ settled: settledBy(worker), gone }).toEqual({ settled: ends, gone: DELETED })
    },
    { intervalMs: 100 },
  )
  expect((await scrape(registry)).sum('millrace_in_flight_jobs')).toBe(0)
  await producer.publish('unended', null, { stream: 'orders' })
  await eventually(() => expect(history.at(-1)?.name).toBe('unended'))
  const during = await scrape(registry)
  await worker.stop({ drainMs: 0 })
  const seen = await scrape(registry)

  const checked = compare(seen, history)
  expect(during.sum('millrace_in_flight_jobs')).toBe(1)
  expect(during.sum('millrace_worker_state', { state: 'running' })).toBe(1)
  expect(during.sum('millrace_oldest_in_flight_start_timestamp_seconds')).toBeGreaterThan(Date.now() / 1000 - 60)
  expect(seen.rows('millrace_oldest_in_flight_start_timestamp_seconds')).toEqual([])
  expect(seen.duplicates()).toEqual([])

  // A metric that is added must be compared here too.
  const all = await registry.getMetricsAsJSON()
  const counters = all.filter(({ type }) => ['counter', 'histogram'].includes(String(type))).map(({ name }) => name)
  expect([...checked].sort()).toEqual(counters.sort())

  /** @returns the names of the metrics that were compared. */
  function compare(seen: Scrape, history: readonly RunOfJob[]): Set<string> {
    const checked = new Set<string>()
    const sum = (name: string, labels: Record<string, string> = {}) => {
      checked.add(name.replace(/_(count|sum|bucket)$/, ''))
      return seen.sum(name, labels) ?? 0
    }
    const by = (label: string, name: string, labels: Record<string, string> = {}) => {
      checked.add(name.replace(/_(count|sum|bucket)$/, ''))
      return seen.by(label, name, labels)
    }
    const counts = worker?.counts ?? expect.fail('there is no worker')
    const lastOf = new Map(history.map((run) => [run.id, run]))
    const completedRuns = history.filter(({ how, name }) => how === 'completed' && name !== 'acked')
    const runs = history.length

    // What the producer did.
    expect(by('job_name', 'millrace_published_jobs_total', { result: 'ok' })).toEqual({ ...PUBLISHED, unended: 1 })
    expect(by('job_name', 'millrace_published_jobs_total', { result: 'rejected' })).toEqual({ plain: REFUSED })
    expect(by('job_name', 'millrace_published_jobs_total', { result: 'unknown' })).toEqual({})
    expect(by('job_name', 'millrace_published_jobs_total', { result: 'duplicate' })).toEqual({})
    expect(sum('millrace_publish_duration_seconds_count')).toBe(total(PUBLISHED) + 1)
    expect(sum('millrace_publish_buffer_high_total')).toBe(0)
    expect(by('job_name', 'millrace_publish_shed_jobs_total')).toEqual({})
    expect(by('bound', 'millrace_publish_held_batches_total')).toEqual({})
    expect(sum('millrace_publish_unreplicated_jobs_total')).toBe(0)

    // What came, and what became of it: each entry that was taken was processed or handed back.
    const fresh = total(PUBLISHED) + 1 - GHOSTS + MALFORMED + STRAY
    const delivered = by('source', 'millrace_delivered_jobs_total')
    const untouched = counts.handedBack - 1
    const retried = { flaky: PUBLISHED.flaky, poison: (ATTEMPTS - 1) * PUBLISHED.poison, endless: PUBLISHED.endless }
    expect(delivered).toMatchObject({ new: fresh, redelivery: total(retried) })
    expect(by('job_name', 'millrace_retried_jobs_total')).toEqual(retried)
    expect(sum('millrace_promoted_jobs_total')).toBe(total(retried))
    expect(sum('millrace_set_aside_jobs_total')).toBe(1)
    // No recurring schedule.
    expect(sum('millrace_cron_fired_jobs_total')).toBe(counts.cronFired)
    expect(sum('millrace_cron_skipped_ticks_total')).toBe(counts.cronSkipped)
    // Before 7.0 Redis hands out deleted entries like others: they are claimed first and found missing then.
    const unprocessed = total(delivered) - total(by('outcome', 'millrace_processed_jobs_total')) - untouched
    expect([0, DELETED]).toContain(unprocessed)
    expect(sum('millrace_handed_back_jobs_total')).toBe(counts.handedBack)
    expect(by('outcome', 'millrace_processed_jobs_total')).toEqual({
      ...countBy(history, ({ how }) => how),
      malformed: MALFORMED,
      unknown_job: STRAY,
      cancelled: PUBLISHED.dropped,
    })
    for (const name of Object.keys(PUBLISHED)) {
      const own = history.filter((run) => run.name === name)
      const dropped = name === 'dropped' ? { cancelled: PUBLISHED.dropped } : {}
      const outcomes = { ...countBy(own, ({ how }) => how), ...dropped }
      expect(by('outcome', 'millrace_processed_jobs_total', { job_name: name })).toEqual(outcomes)
    }

    // How it ended.
    const dead = { attempts: PUBLISHED.poison, malformed: MALFORMED, 'unknown-job': STRAY }
    expect(by('reason', 'millrace_dead_jobs_total')).toEqual(dead)
    expect(by('job_name', 'millrace_finished_jobs_total', { result: 'dead' })).toEqual({
      poison: PUBLISHED.poison,
      stray: STRAY,
      __malformed__: MALFORMED,
    })
    expect(sum('millrace_finished_jobs_total', { result: 'completed' })).toBe(completedRuns.length)
    expect(by('result', 'millrace_acked_jobs_total')).toEqual({
      ok: completedRuns.length + total(dead) + total(retried) + PUBLISHED.dropped,
      lost: PUBLISHED.acked,
    })
    expect(by('job_name', 'millrace_finished_jobs_total', { result: 'cancelled' })).toEqual({
      dropped: PUBLISHED.dropped,
    })
    const finished = completedRuns.length + total(dead) + PUBLISHED.dropped
    expect(sum('millrace_job_end_to_end_seconds_count')).toBe(finished)
    expect(sum('millrace_job_attempts_count')).toBe(finished)
    const deliveries = [...lastOf.values()].filter(({ how, name }) => name !== 'acked' && how !== 'handed_back')
    const runsOfAll = deliveries.reduce((sum, run) => sum + run.attempt + run.deliveries - 1, 0)
    expect(sum('millrace_job_attempts_sum')).toBe(runsOfAll + MALFORMED + STRAY + PUBLISHED.dropped)
    expect(sum('millrace_ack_duration_seconds_count')).toBeGreaterThanOrEqual(finished / 500)
    expect(sum('millrace_ack_duration_seconds_count')).toBeLessThanOrEqual(finished + total(retried) + PUBLISHED.acked)

    // How long it took.
    const ended = history.filter(({ how }) => how === 'completed')
    expect(sum('millrace_job_duration_seconds_count', { result: 'ok' })).toBe(ended.length)
    expect(sum('millrace_job_duration_seconds_count', { result: 'error' })).toBe(runs - ended.length)
    const slow = { job_name: 'slow', result: 'ok' }
    // A timer may fire a little early.
    expect(sum('millrace_job_duration_seconds_bucket', { ...slow, le: '0.025' })).toBe(0)
    expect(sum('millrace_job_duration_seconds_bucket', { ...slow, le: '+Inf' })).toBe(PUBLISHED.slow)
    const ranSeconds = history.reduce((sum, { ranMs }) => sum + ranMs, 0) / 1000
    expect(sum('millrace_job_duration_seconds_sum')).toBeGreaterThanOrEqual(ranSeconds)
    expect(sum('millrace_worker_busy_seconds_total')).toBeCloseTo(sum('millrace_job_duration_seconds_sum'), 3)
    const first = history.filter((run) => run.deliveries === 1)
    expect(by('job_name', 'millrace_job_wait_seconds_count')).toEqual(countBy(first, ({ name }) => name))

    // How it was fetched and kept.
    const polls = by('result', 'millrace_polls_total')
    expect(sum('millrace_poll_batch_jobs_count')).toBe(polls['jobs'])
    expect(sum('millrace_poll_batch_jobs_sum')).toBe(fresh + total(retried))
    expect(polls['error']).toBeUndefined()
    expect(by('result', 'millrace_lease_renewals_total')).toMatchObject({ lost: PUBLISHED.stolen })
    expect(sum('millrace_lease_renewals_total', { result: 'ok' })).toBeGreaterThan(0)
    expect(sum('millrace_lease_renewals_total', { result: 'error' })).toBe(0)
    expect(sum('millrace_missing_jobs_total')).toBe(DELETED)
    // None of its jobs is under a limit; those that are, are counted in limit-metrics.test.ts.
    expect(by('limit', 'millrace_limited_jobs_total')).toEqual({})
    // None is handled in batches; those that are, are counted in batch.test.ts.
    expect(by('job_name', 'millrace_handler_batch_jobs_count')).toEqual({})
    expect(sum('millrace_claim_passes_total')).toBe(counts.claimPasses)
    expect(sum('millrace_trimmed_entries_total')).toBe(counts.trimmed)
    expect(sum('millrace_discarded_dead_letters_total')).toBe(counts.discarded)
    expect(sum('millrace_shutdown_abandoned_jobs_total')).toBe(0)
    expect(sum('millrace_redis_reconnects_total')).toBe(0)
    expect(by('code', 'millrace_redis_errors_total')).toEqual({})
    return checked
  }
})
