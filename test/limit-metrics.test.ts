import { Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { Inspector } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { scrape } from './helpers/metrics.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, startWorker } from './helpers/workers.ts'

/** What metrics tell of jobs that wait for limits: the only place where one sees those that wait in workers. */

const redis = withRedis()

/** By limit: what had to wait so far, and what waits in workers now, also where it is 0. */
async function told(registry: Registry): Promise<Record<string, [waited: number, waiting: number]>> {
  const seen = await scrape(registry)
  expect(seen.duplicates()).toEqual([])
  const waiting = (limit: string) => seen.sum('millrace_limit_waiting_jobs', { limit }) ?? -1
  const rows = seen.rows('millrace_limited_jobs_total', { stream: 'orders', group: 'main' })
  return Object.fromEntries(rows.map(({ labels: { limit = '' }, value }) => [limit, [value, waiting(limit)]]))
}

test('a job that waits for a permit is told while it waits, and counted once', async () => {
  const [held, registry] = [gate(), new Registry()]
  onEnd(() => held.open())
  const limits = [{ concurrency: 1 }, { jobs: ['x'], key: 'to:{data.account}', concurrency: 5 }]
  const worker = await startWorker({ redis: redis.url, registry, limits, handlers: { x: () => held.wait() } })
  expect(await told(registry)).toEqual({ all: [0, 0], 'x by to:{data.account}': [0, 0] })
  await add(redis.client, 'x', { account: 1 })
  await eventually(async () => expect((await scrape(registry)).sum('millrace_in_flight_jobs')).toBe(1))
  expect((await told(registry))['all']).toEqual([0, 0])
  await add(redis.client, 'x', { account: 1 })
  await eventually(async () => expect((await told(registry))['all']).toEqual([1, 1]))
  held.open()
  await eventually(() => expect(worker.counts.completed).toBe(2))

  expect(await told(registry)).toEqual({ all: [1, 0], 'x by to:{data.account}': [0, 0] })
})

test('of several rates a job waits for the one that lets it begin last', async () => {
  const registry = new Registry()
  const limits = [
    { name: 'wide', rate: { jobs: 1000, burst: 100 } },
    { name: 'narrow', jobs: ['x'], rate: { jobs: 10, burst: 1 } },
    { name: 'wider', rate: { jobs: 2000, burst: 200 } },
  ]
  const published = redis.client.multi()
  for (let n = 0; n < 4; n++) published.xadd('orders', '*', 'job', 'x')
  await published.exec()
  const worker = await startWorker({ redis: redis.url, registry, limits, handlers: { x() {}, other() {} } })
  await eventually(() => expect(worker.counts.completed).toBe(4))

  const { narrow: [waited = 0, waiting = -1] = [], ...others } = await told(registry)
  // The first of them, too, if this machine is too busy to begin it in time.
  expect(waited - 3).toBeLessThanOrEqual(1)
  expect(waited).toBeGreaterThanOrEqual(3)
  expect([waiting, others]).toEqual([0, { wide: [0, 0], wider: [0, 0] }])
})

test('a job that waits in the scheduled set does not wait in a worker, and is counted for each time that it comes', async () => {
  const registry = new Registry()
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  const limits = [{ name: 'hourly', jobs: ['x'], rate: { jobs: 1, perMs: 3_600_000 } }]
  const worker = await startWorker({ redis: redis.url, registry, limits, handlers: { x() {}, other() {} } })
  for (let n = 0; n < 2; n++) await add(redis.client, 'x', n)
  await eventually(() => expect(worker.counts.waited).toBe(1))
  expect(await told(registry)).toEqual({ hourly: [1, 0] })
  const { jobs } = await inspector.scheduled.list('orders', { group: 'main' })
  await inspector.scheduled.promote('orders', jobs[0]?.id ?? '', { group: 'main' })

  await eventually(() => expect(worker.counts.waited).toBe(2))
  expect(await told(registry)).toEqual({ hourly: [2, 0] })
})

test('what waited in a worker that was stopped waits nowhere, and its count stays', async () => {
  const [held, registry] = [gate(), new Registry()]
  onEnd(() => held.open())
  const options = { redis: redis.url, registry, limits: [{ concurrency: 1 }] }
  const worker = await startWorker({ ...options, handlers: { x: () => held.wait() } })
  await add(redis.client, 'x')
  await eventually(async () => expect((await scrape(registry)).sum('millrace_in_flight_jobs')).toBe(1))
  await add(redis.client, 'x')
  await eventually(async () => expect(await told(registry)).toEqual({ all: [1, 1] }))
  const stopped = worker.stop()
  await eventually(() => expect(worker.counts.handedBack).toBe(1))
  expect(await told(registry)).toEqual({ all: [1, 0] })
  held.open()
  await stopped

  expect(await told(registry)).toEqual({ all: [1, 0] })
})
