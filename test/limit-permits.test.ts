import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { limiterKey } from '../src/redis/keys.ts'
import { KeeperHost } from '../src/lease/keeper-host.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess } from './helpers/workers.ts'

/** Permits through what goes wrong: a loop that stands still, a thread or a process that dies, runs that fail or take too long. */

const redis = withRedis()
const LEASE_MS = 800
const ONE = limiterKey({ name: 'one' }, 'permits', undefined)
const limits = [{ name: 'one', concurrency: 1 }]

/** When the permits of a key are over, by holder. */
async function permits(key = ONE): Promise<[holder: string, untilMs: number][]> {
  const flat = await redis.client.zrange(key, '0', '-1', 'WITHSCORES')
  return flat.flatMap((holder, at) => (at % 2 === 0 ? [[holder, Number(flat[at + 1])] as [string, number]] : []))
}

test('a handler that blocks its loop for longer than two leases keeps its permit, until it is killed', async () => {
  const first = await startWorkerProcess({ redis: redis.url, leaseMs: LEASE_MS, limits })
  await add(redis.client, 'block', { ms: 600_000 })
  await eventually(() => expect(first.log()).toHaveLength(1))
  const [[holder = '', takenUntilMs = 0] = []] = await permits()
  expect(holder).toContain(first.consumer)
  const ran: number[] = []
  const handlers = { quick: () => void ran.push(1), block: () => void ran.push(2) }
  const second = await startWorker({ redis: redis.url, leaseMs: LEASE_MS, limits, handlers })
  await add(redis.client, 'quick')
  await eventually(async () => expect(await serverMs(redis.client)).toBeGreaterThan(takenUntilMs + 2 * LEASE_MS))
  // The blocked worker's read may have brought it: then the other one has claimed it.
  await eventually(() => expect(second.counts.delivered + second.counts.claimed).toBeGreaterThan(0))

  expect((await permits()).map(([one]) => one)).toEqual([holder])
  expect(ran).toEqual([])
  first.signal('SIGKILL')
  await first.exited
  const [[, untilMs = 0] = []] = await permits()
  expect(untilMs - (await serverMs(redis.client))).toBeLessThanOrEqual(LEASE_MS)
  await eventually(() => expect(ran.toSorted()).toEqual([1, 2]))
})

test('permits are renewed through the death of the keeper thread, by the main thread and by the next one', async () => {
  const hosts: KeeperHost[] = []
  const started = vi.spyOn(KeeperHost.prototype, 'start').mockImplementation(async function (this: KeeperHost) {
    hosts.push(this)
    started.mockRestore()
    await this.start()
  })
  const held = gate()
  onEnd(() => held.open())
  await startWorker({ redis: redis.url, leaseMs: LEASE_MS, limits, handlers: { x: () => held.wait() } })
  const [host] = hosts
  await add(redis.client, 'x')
  await eventually(async () => expect(await permits()).toHaveLength(1))
  const [[holder = '', takenUntilMs = 0] = []] = await permits()
  const thread = host?.thread
  await thread?.terminate()
  const renewed = () =>
    eventually(async () => {
      const [[same, untilMs = 0] = []] = await permits()
      expect(same).toBe(holder)
      expect(untilMs).toBeGreaterThan(takenUntilMs + LEASE_MS)
    })
  await eventually(() => expect(host?.thread).not.toBe(thread))
  await renewed()
  held.open()

  await eventually(async () => expect(await permits()).toEqual([]))
})

test('a permit that Redis has lost is taken again by the job that runs, though another has it now', async () => {
  const held = gate()
  onEnd(() => held.open())
  await startWorker({ redis: redis.url, leaseMs: LEASE_MS, limits, handlers: { x: () => held.wait() } })
  await add(redis.client, 'x')
  await eventually(async () => expect(await permits()).toHaveLength(1))
  const [[holder = ''] = []] = await permits()
  await redis.client.del(ONE)
  await redis.client.zadd(ONE, (await serverMs(redis.client)) + 60_000, 'another')

  await eventually(async () =>
    expect((await permits()).map(([one]) => one).toSorted()).toEqual(['another', holder].toSorted()),
  )
  held.open()
  await eventually(async () => expect((await permits()).map(([one]) => one)).toEqual(['another']))
})

test('a job that fails, and one that is settled by its timeout, give their permits back when their handlers end', async () => {
  const held = gate()
  onEnd(() => held.open())
  const ran: string[] = []
  const handlers = {
    fails: () => {
      ran.push('fails')
      throw new Error('no')
    },
    deaf: async (_: unknown, { signal }: { signal: AbortSignal }) => {
      ran.push('deaf')
      signal.addEventListener('abort', () => ran.push('timed out'))
      await held.wait()
    },
    last: () => void ran.push('last'),
  }
  const options = { redis: redis.url, leaseMs: LEASE_MS, limits, handlers, timeoutMs: 100, retry: { attempts: 1 } }
  const worker = await startWorker(options)
  for (const job of ['fails', 'deaf', 'last']) await add(redis.client, job)
  await eventually(() => expect(ran).toEqual(['fails', 'deaf', 'timed out']))
  await eventually(() => expect(worker.counts.delivered).toBe(3))
  const [[holder = ''] = []] = await permits()

  expect(holder).not.toBe('')
  expect(ran).not.toContain('last')
  held.open()
  await eventually(() => expect(ran).toEqual(['fails', 'deaf', 'timed out', 'last']))
  await eventually(async () => expect(await redis.client.exists(ONE)).toBe(0))
})

test('jobs that wait for a limit while the loop stands still are handed back, with the permits they have', async () => {
  // Both have their permit, and the second one waits for its slot.
  const slow = [{ name: 'one', rate: { jobs: 1, perMs: 1900, burst: 1 }, concurrency: 5 }]
  const options = { redis: redis.url, leaseMs: LEASE_MS, limits: slow, concurrency: 5 }
  const first = await startWorkerProcess(options)
  const blocking = await add(redis.client, 'block', { ms: 600_000 })
  const waiting = await add(redis.client, 'quick')
  await eventually(() => expect(first.log()).toHaveLength(1))
  await eventually(async () => {
    expect((await pending(redis.client)).filter(({ id }) => id === waiting)[0]?.consumer ?? '').toContain(':handback')
  })

  await eventually(async () => {
    const holders = (await permits()).map(([holder]) => holder)
    expect(holders).toHaveLength(1)
    expect(holders[0]).toContain(blocking)
  })
})

test('two workers that take two limits in different order come to an end, and nothing of either is kept', async () => {
  const both = [
    { name: 'one', concurrency: 1 },
    { name: 'two', concurrency: 1 },
    { name: 'three', rate: { jobs: 1000, burst: 100 } },
  ]
  const ids: string[] = []
  let [running, most] = [0, 0]
  const handlers = {
    x: async (_: unknown, { id }: { id: string }) => {
      most = Math.max(most, ++running)
      await sleep(1)
      running -= 1
      ids.push(id)
    },
  }
  for (const stream of ['orders', 'mails']) for (let n = 0; n < 10; n++) await add(redis.client, 'x', n, stream)
  await startWorker({ redis: redis.url, handlers, limits: both })
  await startWorker({ redis: redis.url, handlers, stream: 'mails', limits: both.toReversed() })
  await eventually(() => expect(ids).toHaveLength(20))

  expect(most).toBe(1)
  await eventually(async () => expect(await redis.client.keys('*:permits')).toEqual([]))
})

test('a job that one of its limits refuses keeps nothing of the others', async () => {
  const [spent, free] = ['spent', 'free'].map((name) => limiterKey({ name }, 'slots', undefined)) as [string, string]
  const several = [
    { name: 'one', concurrency: 5 },
    { name: 'free', rate: { jobs: 1, perMs: 3_600_000, burst: 10 } },
    { name: 'spent', rate: { jobs: 1, perMs: 3_600_000, burst: 1 } },
    { name: 'full', jobs: ['x'], concurrency: 1 },
  ]
  await redis.client.zadd(limiterKey({ name: 'full' }, 'permits', undefined), Date.now() * 2, 'another')
  const worker = await startWorker({
    redis: redis.url,
    limits: several,
    handlers: { x() {}, y() {} },
    leaseMs: LEASE_MS,
  })
  await add(redis.client, 'y')
  await eventually(() => expect(worker.counts.completed).toBe(1))
  const before = await redis.client.mget(spent, free)
  await eventually(async () => expect(await redis.client.exists(ONE)).toBe(0))
  await add(redis.client, 'x')
  await eventually(() => expect(worker.counts.delivered).toBe(2))
  await eventually(async () => expect(await permits()).toEqual([]))

  expect(before.every((one) => one !== null)).toBe(true)
  expect(await redis.client.mget(spent, free)).toEqual(before)
})
