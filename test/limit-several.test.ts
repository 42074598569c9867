import { expect, test } from 'vitest'
import { limiterKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { excessUs } from './helpers/slot-model.ts'
import { add, gate, pending, startWorker } from './helpers/workers.ts'

/** Jobs under several limits at once. */

const redis = withRedis()
const HOUR_MS = 3_600_000

test('a job under two rates takes one slot of each, and the slower of them is kept', async () => {
  const begunMs: number[] = []
  const handlers = { x: () => void begunMs.push(performance.now()) }
  // Each slot of the first takes an hour: how far ahead it is tells how many were taken.
  const limits = [
    { name: 'wide', rate: { jobs: 1, perMs: HOUR_MS, burst: 500 } },
    { name: 'narrow', rate: { jobs: 5, perMs: 1000, burst: 1 } },
  ]
  for (let n = 0; n < 4; n++) await add(redis.client, 'x', n)
  await startWorker({ redis: redis.url, handlers, limits })
  await eventually(() => expect(begunMs).toHaveLength(4))
  const [tatUs = ''] = ((await redis.client.get(limiterKey({ name: 'wide' }, 'slots', undefined))) ?? '').split(' ')
  const taken = Math.round((Number(tatUs) / 1000 - (await serverMs(redis.client))) / HOUR_MS)

  expect(taken).toBeGreaterThanOrEqual(4)
  // Some may be missed on a busy machine. Missing all of them would be eleven for each job that had to wait.
  expect(taken).toBeLessThan(20)
  const begun = begunMs.map((atMs) => ({ atUs: atMs * 1000, costUs: 200_000 }))
  expect(excessUs(begun, 200_000)).toBeLessThanOrEqual(100_000)
})

test('jobs that wait for the permit of a busy key do not keep a worker from reading, where a limit for all jobs stands beside', async () => {
  const held = gate()
  onEnd(() => held.open())
  const cold: unknown[] = []
  const handlers = { hot: () => held.wait(), cold: (data: unknown) => void cold.push(data) }
  // Five are read at first, and no more while as many wait for this one.
  const limits = [{ rate: { jobs: 20, perMs: 1000 } }, { key: '{job}', jobs: ['hot'], concurrency: 1 }]
  for (let n = 0; n < 24; n++) await add(redis.client, 'hot', n)
  for (let n = 0; n < 3; n++) await add(redis.client, 'cold', n)
  await startWorker({ redis: redis.url, handlers, limits })

  await eventually(async () => expect((await pending(redis.client)).length).toBeGreaterThan(15))
  await eventually(() => expect(cold).toEqual([0, 1, 2]))
})

test('jobs that wait for the rate of a busy key do not keep a worker from reading, where a limit for all jobs stands beside', async () => {
  const cold: unknown[] = []
  const handlers = { hot() {}, cold: (data: unknown) => void cold.push(data) }
  // One of them begins in a second: those that are read at first take half a minute.
  const limits = [
    { rate: { jobs: 100, perMs: 1000 } },
    { key: '{job}', jobs: ['hot'], rate: { jobs: 10, perMs: 10_100 } },
  ]
  for (let n = 0; n < 150; n++) await add(redis.client, 'hot', n)
  for (let n = 0; n < 3; n++) await add(redis.client, 'cold', n)
  const worker = await startWorker({ redis: redis.url, handlers, limits })

  await eventually(() => expect(cold).toEqual([0, 1, 2]))
  expect(worker.counts.completed).toBeLessThan(100)
})
