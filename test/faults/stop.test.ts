import { expect, test } from 'vitest'
import { Worker } from '../../src/index.ts'
import { handBack, renewLeases } from '../../src/redis/scripts/delivery.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { startProxy } from '../helpers/proxy.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, gate, LEASE_MS, pending, startWorker, tally } from '../helpers/workers.ts'

/** What a stop leaves: nothing that is lost, nothing that is charged. */

const redis = withRedis()

test('60 stops that race with reads leave no entry behind: all jobs run, each once', async () => {
  const ran = new Map<string, number>()
  const handlers = { x: (_data: unknown, job: { id: string }) => void ran.set(job.id, (ran.get(job.id) ?? 0) + 1) }
  const orphans: unknown[] = []
  for (let round = 0; round < 60; round++) {
    const worker = new Worker({ redis: redis.url, stream: 'orders', handlers, concurrency: 4, logger: false })
    await worker.start()
    const published = (async () => {
      for (let n = 0; n < 5; n++) await add(redis.client, 'x', { round, n })
    })()
    for (let turns = round % 20; turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
    await worker.stop({ drainMs: 0 })
    await published
    orphans.push(...(await pending(redis.client, 'orders', 'main', worker.consumer)))
  }
  await startWorker({ redis: redis.url, handlers })

  await waitFor(() => ran.size === 300, { what: 'all 300 ran' })
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  expect(orphans).toEqual([])
  expect([...ran.values()].filter((times) => times !== 1)).toEqual([])
}, 180_000)

test('a long job that is drained three times in a row is still at its first delivery, and moves on at the next pass', async () => {
  const started: { worker: number; deliveries: number }[] = []
  const workers: Worker[] = []
  const begin = (worker: number) =>
    startWorker({
      redis: redis.url,
      handlers: {
        long: (_data, job) =>
          new Promise<void>((_resolve, reject) => {
            started.push({ worker, deliveries: job.deliveries })
            job.signal.addEventListener('abort', () => reject(new Error('stopped in the middle')))
          }),
      },
    })
  workers.push(await begin(0))
  const id = await add(redis.client, 'long')
  await eventually(() => expect(started).toHaveLength(1))
  const passes: number[] = []
  for (let drain = 1; drain <= 3; drain++) {
    const next = await begin(drain)
    workers.push(next)
    await workers[drain - 1]?.stop({ drainMs: 0 })
    const before = next.counts.claimPasses
    await eventually(() => expect(started).toHaveLength(drain + 1))
    passes.push(next.counts.claimPasses - before)
  }

  expect(started).toEqual([0, 1, 2, 3].map((worker) => ({ worker, deliveries: 1 })))
  expect(await pending(redis.client)).toMatchObject([{ id, deliveries: 1, consumer: workers[3]?.consumer }])
  expect(Math.max(...passes)).toBeLessThanOrEqual(2)
})

test('a stopping worker finishes what runs, hands back what does not, and is off the list', async () => {
  const ran: string[] = []
  let finish = () => {}
  const stopping = await startWorker({
    redis: redis.url,
    concurrency: 1,
    handlers: {
      x: async (_data, job) => {
        await new Promise<void>((resolve) => (finish = resolve))
        ran.push(job.id)
      },
    },
  })
  const ids = [await add(redis.client, 'x'), await add(redis.client, 'x'), await add(redis.client, 'x')]
  await eventually(async () => expect(await pending(redis.client)).not.toEqual([]))
  const stopped = stopping.stop({ drainMs: 60_000 })
  const others: string[] = []
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void others.push(job.id) } })
  await eventually(() => expect(others.toSorted()).toEqual(ids.slice(1)))
  finish()

  expect((await stopped).unsettled).toBe(0)
  expect(ran).toEqual(ids.slice(0, 1))
  expect(await redis.client.zscore('{orders}:group:main:workers', stopping.consumer)).toBeNull()
  expect(await tally(redis.client)).toEqual({ completed: 3 })
})

test('a handler that does not heed the stop is handed back, and its late completion is counted', async () => {
  let finish = () => {}
  const stopping = await startWorker({
    redis: redis.url,
    handlers: { x: () => new Promise<void>((resolve) => (finish = resolve)) },
  })
  await add(redis.client, 'x')
  await eventually(() => expect(stopping.counts.delivered).toBe(1))
  const result = await stopping.stop({ drainMs: 0 })
  const ran: number[] = []
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void ran.push(job.deliveries) } })

  await eventually(() => expect(ran).toEqual([1]))
  finish()
  expect(result).toEqual({ handedBack: 1, unsettled: 0 })
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
})

test('a stop that comes during the start waits for it, and leaves neither worker nor entry behind', async () => {
  const id = await add(redis.client, 'x')
  const worker = new Worker({ redis: redis.url, stream: 'orders', handlers: { x() {} }, logger: false })
  const started = worker.start()
  const stopped = worker.stop()
  await started
  await stopped

  const orphans = await pending(redis.client, 'orders', 'main', worker.consumer)
  expect(orphans).toEqual([])
  expect(await redis.client.zcard('{orders}:group:main:workers')).toBe(0)
  const ran: string[] = []
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void ran.push(job.id) } })
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
  expect(ran.length === 0 || ran[0] === id).toBe(true)
})

test('stopping twice, or before the start, is fine', async () => {
  const worker = new Worker({
    redis: redis.url,
    stream: 'orders',
    handlers: { x() {} },
    leaseMs: LEASE_MS,
    logger: false,
  })
  expect(await worker.stop()).toEqual({ handedBack: 0, unsettled: 0 })
  const started = await startWorker({ redis: redis.url })
  const [first, second] = await Promise.all([started.stop(), started.stop()])
  expect(first).toEqual(second)
  await expect(started.start()).rejects.toMatchObject({ code: 'ERR_WORKER_STATE' })
})

test('of jobs that are handed back in several calls none is told as lost, however long these take', async () => {
  const proxy = await startProxy(redis.url)
  await redis.client.call('script', 'load', handBack.lua)
  for (let n = 0; n < 300; n++) await add(redis.client, 'x')
  const { wait, open } = gate()
  let started = 0
  const handlers = {
    x: async () => {
      started += 1
      await wait()
    },
  }
  const worker = await startWorker({ redis: proxy.url, handlers, concurrency: 400, limits: [{ concurrency: 1 }] })
  await waitFor(async () => started === 1 && (await pending(redis.client)).length === 300, {
    what: 'one runs, all wait',
  })
  let [calls, rounds] = [0, 0]
  const second = proxy.holdBefore(([, sha]) => {
    if (sha === handBack.sha) calls += 1
    return calls === 2
  })
  const stopped = worker.stop({ drainMs: 60_000 })
  await second.held
  const held = await pending(redis.client, 'orders', 'main', worker.consumer)
  const renewed = proxy.holdBefore(([, sha]) => sha === renewLeases.sha && ++rounds === 3)
  await renewed.held
  renewed.release()
  open()
  second.release()

  expect(held).toHaveLength(100)
  expect(await stopped).toEqual({ handedBack: 299, unsettled: 0 })
  expect(worker.counts).toMatchObject({ handedBack: 299, leaseLost: 0, completed: 1 })
})
