import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test, vi } from 'vitest'
import { limiterKey } from '../src/redis/keys.ts'
import { KeptPermits } from '../src/lease/kept-permits.ts'
import type { Connection } from '../src/redis/connection.ts'
import { askForPermits } from '../src/redis/limiting.ts'
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

  await eventually(async () => {
    const [[same, untilMs = 0] = [], ...others] = await permits()
    expect([same, others]).toEqual([holder, []])
    expect(untilMs).toBeGreaterThan(takenUntilMs + 2 * LEASE_MS)
  })
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

test('jobs that wait for a limit while the loop stands still are handed back, and run elsewhere', async () => {
  const held = [{ name: 'one', jobs: ['quick'], concurrency: 1 }]
  const first = await startWorkerProcess({ redis: redis.url, leaseMs: LEASE_MS, limits: held })
  await redis.client.zadd(ONE, Date.now() * 2, 'another')
  // One read brings both: the first one asks for its permit, and before anybody answers the loop stands still.
  const waiting = '1-1'
  const entries = redis.client.multi().xadd('orders', waiting, 'job', 'quick', 'data', '{}')
  await entries.xadd('orders', '1-2', 'job', 'block', 'data', '{"ms":600000}').exec()
  await eventually(() => expect(first.log()).toHaveLength(1))
  await eventually(async () => {
    const row = (await pending(redis.client)).find(({ id }) => id === waiting)
    expect(row?.consumer).toContain(':handback')
  })
  await redis.client.del(ONE)
  const ran: number[] = []
  const handlers = { quick: (_: unknown, { attempt }: { attempt: number }) => void ran.push(attempt) }
  await startWorker({ redis: redis.url, leaseMs: LEASE_MS, limits: held, handlers })

  await eventually(() => expect(ran).toEqual([1]))
})

test('what a job holds that was handed back by the keeper is free at once, and what others hold is not', async () => {
  const limiter = { name: 'one' }
  const holders = ['me 1 orders 0 1-1', 'me 2 orders 0 1-2', 'me 3 orders 1 1-1']
  const asks = holders.map((holder) => ({ key: undefined, most: 5, holder }))
  await askForPermits(redis.client, limiter, asks, 60_000)
  const kept = new KeptPermits(holders.map((holder) => ({ limiter, key: undefined, holder })))
  const connection = { client: redis.client } as Connection
  await kept.handedBack(connection, [{ source: 0, id: '1-1' }])
  await redis.client.zrem(ONE, 'me 3 orders 1 1-1')

  expect((await permits()).map(([holder]) => holder)).toEqual(['me 2 orders 0 1-2'])
  // What it gave back it does not look for any more.
  expect((await kept.renew(connection, 60_000)).gone.map(({ holder }) => holder)).toEqual(['me 3 orders 1 1-1'])
})

test('jobs wait where Redis refuses the keys of a limit, and run once it allows them', async () => {
  const refused = ['resetkeys', '~orders*', '~{orders}*']
  await redis.client.acl('SETUSER', 'narrow', 'on', '>secret', '+@all', '&*', ...refused)
  const url = new URL(redis.url)
  Object.assign(url, { username: 'narrow', password: 'secret' })
  const [attempts, warned] = [[] as number[], [] as string[]]
  const handlers = { x: (_: unknown, { attempt }: { attempt: number }) => void attempts.push(attempt) }
  const warn = (_: object, message: string) => void warned.push(message)
  const logger = { debug() {}, info() {}, warn, error() {} }
  await startWorker({ redis: url.href, leaseMs: LEASE_MS, limits, handlers, logger })
  await add(redis.client, 'x')
  await eventually(() => expect(warned).toContain('cannot ask for a limit now; its jobs wait'))
  expect(attempts).toEqual([])
  await redis.client.acl('SETUSER', 'narrow', '~*')

  await eventually(() => expect(attempts).toEqual([1]))
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

test('a job for which a rate has no slot soon waits without its permit, and without a slot of another rate', async () => {
  const hourly = { jobs: 1, perMs: 3_600_000 }
  const several = [
    ...limits,
    { name: 'free', jobs: ['x'], rate: { ...hourly, burst: 10 } },
    { name: 'spent', jobs: ['x'], rate: hourly },
  ]
  const [free, spent] = ['free', 'spent'].map((name) => limiterKey({ name }, 'slots', undefined)) as [string, string]
  await redis.client.set(spent, `${((await serverMs(redis.client)) + hourly.perMs) * 1000} 0`)
  const options = { redis: redis.url, leaseMs: LEASE_MS, limits: several }
  const worker = await startWorker({ ...options, handlers: { x() {}, y() {} } })
  await add(redis.client, 'x')
  await eventually(() => expect(worker.counts.waited).toBe(1))
  await add(redis.client, 'y')

  await eventually(() => expect(worker.counts.completed).toBe(1))
  expect(await redis.client.exists(free)).toBe(0)
  await eventually(async () => expect(await permits()).toEqual([]))
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
