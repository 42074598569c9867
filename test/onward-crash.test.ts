import { describe, expect, test } from 'vitest'
import { settleCompleted } from '../src/redis/scripts/delivery.ts'
import { settlePublishing } from '../src/redis/scripts/onward.ts'
import { publishChecked } from '../src/redis/scripts/publish.ts'
import type { Script } from '../src/redis/scripts/script.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy, type Match } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

/** What becomes of what a handler publishes when its worker, its connection or Redis fails at every step of it. */

const redis = withRedis()
const NEAR = '{orders}:receipts'
const FAR = 'receipts'

/** A call of this script, by its hash, which Redis has been told before. */
async function callOf(script: Script): Promise<Match> {
  await redis.client.script('LOAD', script.lua)
  return ([name, sha]) => name === 'evalsha' && sha === script.sha
}

async function numbers(stream: string): Promise<number[]> {
  const found: number[] = []
  for (let from = '-'; ;) {
    const rows = await redis.client.xrange(stream, from, '+', 'COUNT', 1000)
    for (const [, fields] of rows) found.push((JSON.parse(fields[3] ?? '') as { n: number }).n)
    if (rows.length < 1000) return found.toSorted((a, b) => a - b)
    from = `(${rows.at(-1)?.[0] ?? ''}`
  }
}

const relay = (n: number, way: string[]) => add(redis.client, 'relay', { n, way })
const settled = (count: number) =>
  eventually(async () => {
    expect(await tally(redis.client)).toMatchObject({ completed: count })
    expect(await pending(redis.client)).toEqual([])
  })

describe.each<[string, string, Script]>([
  ['in one step with the ack', NEAR, settlePublishing],
  ['between the publish under a token and the ack', FAR, settleCompleted],
])('a worker that is killed %s', (_, stream, script) => {
  test('before Redis hears of it leaves a job that runs again, and what it publishes is there once', async () => {
    const proxy = await startProxy(redis.url)
    const held = proxy.holdBefore(await callOf(script))
    const worker = await startWorkerProcess({ redis: proxy.url })
    await relay(1, [stream])
    await held.held
    worker.signal('SIGKILL')
    await worker.exited
    expect(await pending(redis.client)).toHaveLength(1)
    expect(await redis.client.xlen(stream)).toBe(stream === NEAR ? 0 : 1)

    const second = await startWorkerProcess({ redis: redis.url })
    await settled(1)
    expect(second.log()).toHaveLength(1)
    expect(await numbers(stream)).toEqual([1])
    // What was on its way still arrives, and comes too late.
    held.release()
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1, late: 1 }))
    expect(await numbers(stream)).toEqual([1])
  })

  test('after Redis has done it leaves nothing to be done, and what it publishes is there once', async () => {
    const proxy = await startProxy(redis.url)
    const swallowed = proxy.swallowReplyKeepOpen(await callOf(script))
    const worker = await startWorkerProcess({ redis: proxy.url })
    await relay(1, [stream])
    await swallowed
    worker.signal('SIGKILL')
    await worker.exited

    const second = await startWorkerProcess({ redis: redis.url })
    await relay(2, [stream])
    await settled(2)
    expect(second.log()).toHaveLength(1)
    expect(await numbers(stream)).toEqual([1, 2])
  })

  test('is as if it was not, where only the answer was lost: the batch is sent again, and nothing counts as late', async () => {
    const proxy = await startProxy(redis.url)
    const swallowed = proxy.swallowReplyTo(await callOf(script))
    const worker = await startWorker({
      redis: proxy.url,
      handlers: { x: (n, job) => job.publish('y', { n }, { stream }) },
    })
    await add(redis.client, 'x', 7)
    await swallowed
    await settled(1)
    await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, late: 0, failed: 0 }))
    expect(await numbers(stream)).toEqual([7])
  })
})

test('a worker that is killed when its publish under a token was done and not answered: the next run meets the token', async () => {
  const proxy = await startProxy(redis.url)
  const swallowed = proxy.swallowReplyKeepOpen(await callOf(publishChecked))
  const worker = await startWorkerProcess({ redis: proxy.url })
  await relay(1, [FAR])
  await swallowed
  worker.signal('SIGKILL')
  await worker.exited
  expect(await numbers(FAR)).toEqual([1])

  const second = await startWorkerProcess({ redis: redis.url })
  await settled(1)
  expect(second.log()).toHaveLength(1)
  expect(await numbers(FAR)).toEqual([1])
})

test('a publish under a token whose answer was lost is sent again by the same worker, and is there once', async () => {
  const proxy = await startProxy(redis.url)
  const swallowed = proxy.swallowReplyTo(await callOf(publishChecked))
  const handlers = { x: (n: unknown, job: { publish: Publish }) => job.publish('y', { n }, { stream: FAR }) }
  await startWorker({ redis: proxy.url, handlers })
  await add(redis.client, 'x', 7)
  await swallowed
  await settled(1)
  expect(await numbers(FAR)).toEqual([7])
})

type Publish = (job: string, data: unknown, options: { stream: string }) => void

describe.each([NEAR, FAR])('of two workers that complete one job', (stream) => {
  test(`the first one publishes it to ${stream}, and the second one nothing more`, async () => {
    const proxy = await startProxy(redis.url)
    const held = gate()
    onEnd(() => held.open())
    const began = gate()
    const first = await startWorker({
      redis: proxy.url,
      leaseMs: 1000,
      handlers: {
        x: async (n, job) => {
          job.publish('y', { n }, { stream })
          began.open()
          await held.wait()
        },
      },
    })
    await add(redis.client, 'x', 1)
    await began.wait()
    proxy.blackhole(true)
    await startWorker({
      redis: redis.url,
      leaseMs: 1000,
      handlers: { x: (n, job) => job.publish('y', { n }, { stream }) },
    })
    await settled(1)
    expect(await numbers(stream)).toEqual([1])
    held.open()
    proxy.blackhole(false)
    await eventually(() => expect(first.counts.late + first.counts.leaseLost).toBeGreaterThan(0))
    await first.stop()
    expect(await numbers(stream)).toEqual([1])
    expect(first.counts.completed).toBe(0)
  })
})

test('under OOM what goes to its own slot is settled and published; the rest is kept, and published when there is memory', async () => {
  const server = await startServer()
  const own = connectTo(server.url)
  const held = gate()
  onEnd(() => held.open())
  const worker = await startWorker({
    redis: server.url,
    handlers: {
      near: async (n, job) => {
        job.publish('y', { n }, { stream: NEAR })
        if (n === 2) await held.wait()
      },
      far: async (n, job) => {
        job.publish('y', { n }, { stream: FAR })
        if (n === 2) await held.wait()
      },
    },
  })
  await add(own, 'near', 1)
  await add(own, 'far', 1)
  await eventually(() => expect(worker.counts.completed).toBe(2))
  await add(own, 'far', 2)
  await add(own, 'near', 2)
  await eventually(async () => expect(await pending(own)).toHaveLength(2))
  await own.config('SET', 'maxmemory', '1')
  held.open()
  await eventually(() => expect(worker.counts.completed).toBe(3))
  expect(await own.xlen(NEAR)).toBe(2)
  expect(await own.xlen(FAR)).toBe(1)
  expect(await pending(own)).toHaveLength(1)
  await own.config('SET', 'maxmemory', '0')
  await eventually(() => expect(worker.counts.completed).toBe(4))
  expect(await own.xlen(FAR)).toBe(2)
  expect(worker.counts).toMatchObject({ failed: 0, late: 0, delivered: 4 })
})

test('a slow Redis makes it slow, and nothing else', async () => {
  const proxy = await startProxy(redis.url)
  proxy.delay(150)
  const worker = await startWorker({
    redis: proxy.url,
    handlers: {
      x: (n, job) => {
        job.publish('y', { n }, { stream: NEAR })
        job.publish('y', { n }, { stream: FAR })
      },
    },
  })
  for (let n = 0; n < 50; n++) await add(redis.client, 'x', n)
  await settled(50)
  const all = Array.from({ length: 50 }, (_, n) => n)
  expect(await numbers(NEAR)).toEqual(all)
  expect(await numbers(FAR)).toEqual(all)
  expect(worker.counts).toMatchObject({ late: 0, failed: 0 })
})

test('a server that is a cluster node takes both ways: no script touches two slots', async () => {
  const server = await startServer({ args: ['--cluster-enabled', 'yes'] })
  const own = connectTo(server.url)
  await own.cluster('ADDSLOTS', ...Array.from({ length: 16_384 }, (_, slot) => slot))
  await eventually(async () => expect(await own.cluster('INFO')).toContain('cluster_state:ok'))
  const worker = await startWorker({
    redis: server.url,
    handlers: {
      x: (n, job) => {
        job.publish('y', { n }, { stream: NEAR })
        job.publish('y', { n }, { stream: 'audit{orders}', delayMs: 3_600_000 })
        job.publish('y', { n }, { stream: FAR })
        job.publish('y', { n }, { stream: '{acme}:orders' })
      },
    },
  })
  await add(own, 'x', 1)
  await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, failed: 0 }))
  const lengths = [NEAR, FAR, '{acme}:orders'].map((stream) => own.xlen(stream))
  expect(await Promise.all(lengths)).toEqual([1, 1, 1])
  expect(await own.zcard('audit{orders}:scheduled')).toBe(1)
})

test(
  'through three streams, with workers killed all the time, every job arrives once',
  { timeout: 240_000 },
  async () => {
    const [jobs, slice] = [2000, 250]
    const [near, far] = ['{orders}:second', 'third']
    const streams = ['orders', near, far].map((stream) => ({ stream }))
    const own = { ...({ stream: undefined } as object), streams, concurrency: 20, maxDeliveries: 1000 }
    const start = () => startWorkerProcess({ redis: redis.url, ...own })
    const live = await Promise.all([start(), start()])
    for (let from = 0; from < jobs; from += slice) {
      const before = await redis.client.xlen(far)
      const line = redis.client.pipeline()
      for (let n = from; n < from + slice; n++) {
        line.xadd('orders', '*', 'job', 'relay', 'data', JSON.stringify({ n, way: [near, far] }))
      }
      await line.exec()
      // While the slice is on its way.
      await eventually(async () => expect(await redis.client.xlen(far)).toBeGreaterThan(before))
      const victim = live.shift()
      victim?.signal('SIGKILL')
      await victim?.exited
      live.push(await start())
    }
    const done = async () => (await tally(redis.client, far))['completed'] ?? 0
    await eventually(async () => expect(await done()).toBe(jobs), { timeoutMs: 120_000 })
    const all = Array.from({ length: jobs }, (_, n) => n)
    expect(await numbers(near)).toEqual(all)
    expect(await numbers(far)).toEqual(all)
  },
)
