import type { Redis } from 'ioredis'
import { expect, test } from 'vitest'
import { Producer } from '../../src/index.ts'
import { promote } from '../../src/redis/scripts/schedule.ts'
import { promoteNow } from '../../src/redis/scheduling.ts'
import { settleFenced } from '../../src/redis/scripts/outcomes.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { type FaultProxy, startProxy } from '../helpers/proxy.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import {
  add,
  gate,
  LEASE_MS,
  pending,
  startWorker,
  startWorkerProcess,
  tally,
  type WorkerProcess,
} from '../helpers/workers.ts'

/** Jobs that fail while workers, connections and memory do: where each of them is, and how often it ran. */

const redis = withRedis()
const REDELIVERY = '{orders}:group:main:redelivery'

/** A call of this script whose arguments say `word`. */
const calls =
  ({ sha }: { sha: string }, word: string) =>
  ([name, called, ...args]: string[]) =>
    name === 'evalsha' && called === sha && args.some((arg) => arg.includes(word))

/** Every place that a job of the group can be in but the stream, as job ids. */
async function placesOf(
  client: Redis,
  group = 'main',
): Promise<{ scheduled: string[]; dead: string[]; pending: string[] }> {
  const key = (kind: string) => `{orders}:group:${group}:${kind}`
  const letters = await client.xrange(key('dead'), '-', '+')
  const rows = [...(await pending(client, 'orders', group)), ...(await pending(client, key('redelivery'), group))]
  return {
    scheduled: await client.zrangebyscore(key('scheduled'), '-inf', '+inf'),
    dead: letters.map(([, fields]) => fields[fields.indexOf('dead-id') + 1] ?? ''),
    pending: rows.map(({ id }) => id),
  }
}

test('5000 jobs of which many fail: killed before and after each script, every job ends in one place, settled once', async () => {
  const JOBS = 5000
  const producer = new Producer({ redis: redis.url })
  onEnd(async () => void (await producer.close()))
  const failures = (n: number) => [0, 0, 0, 1, 2, 9][n % 6] ?? 0
  const jobs = await Promise.all(
    Array.from({ length: JOBS }, async (_, n) => {
      const { id } = await producer.publish<object>('flaky', { failures: failures(n) }, { stream: 'orders' })
      return { id, failures: failures(n) }
    }),
  )
  const faults: ((proxy: FaultProxy) => Promise<void>)[] = [
    (proxy) => proxy.cutBefore(calls(settleFenced, 'retry')),
    (proxy) => proxy.swallowReplyTo(calls(settleFenced, 'retry')),
    (proxy) => proxy.cutBefore(calls(promote, '')),
    (proxy) => proxy.swallowReplyTo(calls(promote, '')),
    (proxy) => proxy.cutBefore(calls(settleFenced, 'dead')),
    (proxy) => proxy.swallowReplyTo(calls(settleFenced, 'dead')),
  ]
  const workers: WorkerProcess[] = []
  const retry = { attempts: 3, backoff: 'fixed', delayMs: 300, jitter: 0 } as const
  const settings = { concurrency: 100, maxDeliveries: 20, retry }
  for (const arrange of faults) {
    const proxy = await startProxy(redis.url)
    const happened = arrange(proxy)
    const worker = await startWorkerProcess({ ...settings, redis: proxy.url })
    workers.push(worker)
    await happened
    worker.signal('SIGKILL')
    await worker.exited
  }
  workers.push(await startWorkerProcess({ ...settings, redis: redis.url }))

  const dead = jobs.filter((job) => job.failures > 2).map(({ id }) => id)
  const counts = await eventually(
    async () => {
      const sums = await tally(redis.client)
      expect((sums['completed'] ?? 0) + (sums['dead'] ?? 0)).toBeGreaterThanOrEqual(JOBS)
      return sums
    },
    { intervalMs: 200 },
  )
  expect(counts).toMatchObject({ completed: JOBS - dead.length, dead: dead.length })
  expect(counts['late']).toBeUndefined()
  expect(counts['retried']).toBe(jobs.reduce((sum, job) => sum + Math.min(2, job.failures), 0))
  const places = await placesOf(redis.client)
  expect([places.scheduled, places.pending]).toEqual([[], []])
  expect(places.dead.sort()).toEqual(dead.sort())
  expect(await redis.client.hlen('{orders}:group:main:index')).toBe(dead.length)
  expect(await redis.client.exists('{orders}:group:main:scheduled:jobs')).toBe(0)

  // A job that was settled does not run: it succeeds in its last run, or fails in its last attempt, and in none before.
  const ran = new Map<string, string[]>()
  for (const line of workers.flatMap((worker) => worker.log())) {
    const [, id = '', attempt = '', , how = ''] = line.split(' ')
    ran.set(id, [...(ran.get(id) ?? []), `${attempt} ${how}`])
  }
  for (const { id, failures } of jobs) {
    const runs = ran.get(id) ?? []
    const distinct = [1, 2, 3].slice(0, Math.min(3, failures + 1)).map((n) => `${n} ${n <= failures ? 'failed' : 'ok'}`)
    // The attempts come in order; one that was cut off by a kill before its outcome was written comes again, and no earlier one.
    expect([...new Set(runs)]).toEqual(distinct)
    expect([...runs].sort()).toEqual(runs)
  }
}, 120_000)

test('three drains, a crash and two failures of one job: attempts and deliveries are counted apart', async () => {
  const runs: string[] = []
  const note = (job: { attempt: number; deliveries: number }) => runs.push(`${job.attempt}/${job.deliveries}`)
  const id = await add(redis.client, 'slow', { ms: 60_000 })
  const drainOnce = async () => {
    const before = runs.length
    const held = gate()
    const worker = await startWorker({
      redis: redis.url,
      handlers: { slow: (_data, job) => (note(job), held.wait()) },
    })
    await waitFor(() => runs.length > before, { what: 'runs' })
    await worker.stop({ drainMs: 0 })
    held.open()
  }
  const failOnce = async () => {
    const before = runs.length
    const worker = await startWorker({
      redis: redis.url,
      retry: { delayMs: 3_600_000 },
      handlers: {
        slow: (_data, job) => {
          note(job)
          throw new Error('no')
        },
      },
    })
    await waitFor(() => worker.counts.retried === 1, { what: 'retried' })
    await worker.stop({ drainMs: 0 })
    await promoteNow(redis.client, { stream: 'orders', group: 'main' }, [id])
    expect(runs).toHaveLength(before + 1)
  }
  await drainOnce()
  await drainOnce()
  const victim = await startWorkerProcess({ redis: redis.url })
  const started = await victim.line(/^started (\S+) (\d+)/)
  runs.push(`1/${started[2]}`)
  victim.signal('SIGKILL')
  await victim.exited
  await drainOnce()
  await failOnce()
  await failOnce()
  const seen: unknown[] = []
  await startWorker({
    redis: redis.url,
    handlers: { slow: (_data, { id, attempt, deliveries }) => void seen.push({ id, attempt, deliveries }) },
  })

  await eventually(() => expect(seen).toEqual([{ id, attempt: 3, deliveries: 1 }]))
  // The first run, two that were handed back at no cost, the crash that counts, a drain that does not, two failures.
  expect(runs).toEqual(['1/1', '1/1', '1/1', '1/2', '1/2', '2/1'])
})

test('two groups, of which one fails everything: the other runs each job once and sees nothing of it', async () => {
  const ids = await Promise.all(Array.from({ length: 300 }, (_, n) => add(redis.client, 'x', { n })))
  const seen: string[] = []
  let isBroken = true
  const failing = () => {
    if (isBroken) throw new Error('never')
  }
  const retry = { attempts: 3, delayMs: 1 }
  const good = { group: 'good', handlers: { x: (_: unknown, job: { id: string }) => void seen.push(job.id) } }
  await Promise.all([
    startWorker({ redis: redis.url, group: 'bad', startAt: 'oldest', retry, handlers: { x: failing } }),
    startWorker({ redis: redis.url, startAt: 'oldest', ...good }),
  ])

  await eventually(async () => {
    expect(await tally(redis.client, 'orders', 'bad')).toEqual({ retried: 600, dead: 300 })
    expect(await tally(redis.client, 'orders', 'good')).toEqual({ completed: 300 })
  })
  isBroken = false
  const inspector = newInspector(redis.url)
  expect(await inspector.dead.redrive('orders', 'bad', { execute: true })).toMatchObject({ done: 300 })
  await eventually(async () => {
    const redriven = { retried: 600, dead: 300, redriven: 300, completed: 300 }
    expect(await tally(redis.client, 'orders', 'bad')).toEqual(redriven)
  })
  expect(await tally(redis.client, 'orders', 'good')).toEqual({ completed: 300 })
  expect([...seen].sort()).toEqual([...ids].sort())
  expect(await redis.client.xlen('{orders}:group:good:redelivery')).toBe(0)
  expect(await placesOf(redis.client, 'good')).toEqual({ scheduled: [], dead: [], pending: [] })
  expect(await redis.client.xlen('orders')).toBe(300)
})

test('a retry that Redis refuses is kept, and the lease with it, until Redis takes it', async () => {
  const worker = await startWorker({
    redis: redis.url,
    retry: { attempts: 2, delayMs: 1 },
    handlers: {
      x: (_data, job) => {
        if (job.attempt === 1) throw new Error('no')
      },
    },
  })
  await redis.client.set('{orders}:group:main:scheduled', 'of another type')
  const id = await add(redis.client, 'x')
  await eventually(() => expect(worker.counts.failed).toBe(1))
  const untilMs = Date.now() + LEASE_MS * 2
  await waitFor(() => Date.now() > untilMs, { what: 'two leases' })
  expect(await pending(redis.client)).toMatchObject([{ id, consumer: worker.consumer, deliveries: 1 }])
  await redis.client.del('{orders}:group:main:scheduled')

  await eventually(async () => expect(await tally(redis.client)).toEqual({ retried: 1, completed: 1 }))
  expect(await pending(redis.client, REDELIVERY)).toEqual([])
})

test('Redis runs out of memory in the midst of failures: completions still settle, nothing is lost, and it heals', async () => {
  const server = await startServer({ args: ['--maxmemory-policy', 'noeviction'] })
  const client = connectTo(server.url)
  const ids = await Promise.all(Array.from({ length: 400 }, (_, n) => add(client, n % 2 === 0 ? 'good' : 'bad', { n })))
  const held = gate()
  const ran = new Map<string, number>()
  const count = (job: { id: string }) => ran.set(job.id, (ran.get(job.id) ?? 0) + 1)
  await startWorker({
    redis: server.url,
    concurrency: 400,
    retry: { attempts: 3, backoff: 'fixed', delayMs: 50 },
    handlers: {
      good: async (_data, job) => {
        count(job)
        await held.wait()
      },
      bad: async (_data, job) => {
        count(job)
        await held.wait()
        throw new Error('no')
      },
    },
  })
  await waitFor(() => ran.size === 400, { what: 'all run' })
  await client.config('SET', 'maxmemory', '1mb')
  await expect(client.xadd('orders', '*', 'job', 'good')).rejects.toThrow('OOM')
  held.open()
  await eventually(async () => expect((await tally(client))['completed']).toBe(200))
  await eventually(async () => expect(await tally(client)).toEqual({ completed: 200, retried: 400, dead: 200 }))
  await expect(client.xadd('orders', '*', 'job', 'good')).rejects.toThrow('OOM')

  await client.config('SET', 'maxmemory', '0')
  const last = await add(client, 'good')
  await eventually(async () => expect((await tally(client))['completed']).toBe(201))
  expect(ran.size).toBe(401)
  expect(ids.map((id) => ran.get(id))).toEqual(ids.map((_, n) => (n % 2 === 0 ? 1 : 3)))
  expect(ran.get(last)).toBe(1)
  expect(await pending(client)).toEqual([])
})
