import { setTimeout as sleep } from 'node:timers/promises'
import { Registry } from 'prom-client'
import { expect, test, vi } from 'vitest'
import { SlotClock } from '../src/limits/slot-clock.ts'
import { limiterKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { scrape } from './helpers/metrics.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'
import { add, gate, startWorker, startWorkerProcess } from './helpers/workers.ts'

/** Limits through a Redis that loses its data or goes away, and through event loops that stand still. */

const redis = withRedis()
const ONE = limiterKey({ name: 'one' }, 'permits', undefined)

/** One job runs and holds the permit, one waits for it, and further ones wait for their slots; all of it in one worker. */
async function startWaiting(url: string, client: ReturnType<typeof connectTo>) {
  const [held, ran] = [gate(), [] as string[]]
  onEnd(() => held.open())
  const limits = [
    { name: 'one', concurrency: 1 },
    { name: 'slow', jobs: ['x'], rate: { jobs: 10, perMs: 1000, burst: 1 } },
  ]
  const handlers = {
    hold: (data: unknown) => (ran.push(`hold ${String(data)}`), held.wait()),
    x: (data: unknown) => void ran.push(`x ${String(data)}`),
  }
  const worker = await startWorker({ redis: url, limits, handlers })
  await add(client, 'hold', 1)
  await eventually(() => expect(ran).toEqual(['hold 1']))
  await add(client, 'hold', 2)
  await eventually(() => expect(worker.counts.delivered).toBe(2))
  return { worker, ran, open: () => held.open() }
}

const freed = (client: ReturnType<typeof connectTo>) =>
  eventually(async () => expect(await client.zrange(ONE, '0', '-1')).toEqual([]))

test('after a FLUSHALL what runs has its permit again, what waited in workers does not run, and new jobs do', async () => {
  const { client } = redis
  const { worker, ran, open } = await startWaiting(redis.url, client)
  const [holder] = await client.zrange(ONE, '0', '-1')
  await client.flushall()
  await eventually(async () => expect(await client.zrange(ONE, '0', '-1')).toEqual([holder]))
  // What waits is known to be lost.
  await eventually(() => expect(worker.counts.leaseLost).toBeGreaterThanOrEqual(1))
  await eventually(async () => expect(await client.exists('orders')).toBe(1))
  for (let n = 1; n <= 3; n++) await add(client, 'x', n)
  open()

  await eventually(() => expect(ran.slice(1).toSorted()).toEqual(['x 1', 'x 2', 'x 3']))
  await freed(client)
})

test.for([true, false])(
  'when a Redis that was killed is back, its data kept: %s, what waited and what is new goes on within the limit',
  async (isKept) => {
    const server = await startServer({ aof: isKept })
    const client = connectTo(server.url)
    const { ran, open } = await startWaiting(server.url, client)
    await server.kill()
    await server.restart()
    await add(client, 'x', 1)
    await add(client, 'x', 2)
    if (isKept) await eventually(async () => expect(await client.zcard(ONE)).toBe(1))
    expect(ran).toEqual(['hold 1'])
    open()

    await eventually(() =>
      expect(ran).toEqual(expect.arrayContaining(isKept ? ['hold 2', 'x 1', 'x 2'] : ['x 1', 'x 2'])),
    )
    expect(new Set(ran).size).toBe(ran.length)
    await freed(client)
  },
)

test('a job that came too late for ten slots begins all the same, in the eleventh', async () => {
  const later = vi.spyOn(SlotClock.prototype, 'at').mockImplementation((monotonicMs) => monotonicMs + 1e15)
  onEnd(() => later.mockRestore())
  // Each slot takes an hour of the rate: what was taken is seen by how far it is ahead.
  const [hourMs, late] = [3_600_000, [] as number[]]
  const limits = [{ name: 'api', rate: { jobs: 1, perMs: hourMs, burst: 100 } }]
  const handlers = { x: (_: unknown, { attempt }: { attempt: number }) => void late.push(attempt) }
  await startWorker({ redis: redis.url, limits, handlers })
  await add(redis.client, 'x')
  await eventually(() => expect(late).toEqual([1]))
  const [tatUs = ''] = ((await redis.client.get(limiterKey({ name: 'api' }, 'slots', undefined))) ?? '').split(' ')

  expect(Math.round((Number(tatUs) / 1000 - (await serverMs(redis.client))) / hourMs)).toBe(11)
})

test('a permit is free again when its job has ended, though the next handler blocks the loop before that is sent', async () => {
  const limits = [{ name: 'one', concurrency: 2 }]
  const first = await startWorkerProcess({ redis: redis.url, leaseMs: 800, limits })
  // One read and one answer for both: the first one ends, and in the same turn of the loop the second one begins to block.
  const both = redis.client.multi().xadd('orders', '1-1', 'job', 'quick', 'data', '{}')
  await both.xadd('orders', '1-2', 'job', 'block', 'data', '{"ms":600000}').exec()
  await eventually(() => expect(first.log().map((line) => line.split(' ')[1])).toEqual(['1-1', '1-2']))

  await eventually(async () => {
    const held = await redis.client.zrangebyscore(ONE, await serverMs(redis.client), '+inf')
    expect(held).toEqual([expect.stringMatching(/ 1-2$/)])
  })
})

test('what has passed its limit and waits for a slot while the loop stands still begins after that, and is not handed back', async () => {
  const [held, registry] = [gate(), new Registry()]
  onEnd(() => held.open())
  let begun = 0
  const hold = async () => {
    begun += 1
    await held.wait()
    await sleep(150)
  }
  const limits = [{ name: 'api', jobs: ['x'], rate: { jobs: 1000, perMs: 1000, burst: 200 } }]
  const handlers = { hold, x() {} }
  const worker = await startWorker({ redis: redis.url, registry, leaseMs: 2500, concurrency: 2, limits, handlers })
  // Both slots are taken before the others may begin.
  const tatMs = (await serverMs(redis.client)) + 1000
  await redis.client.set(limiterKey({ name: 'api' }, 'slots', undefined), `${tatMs * 1000} 0`)
  for (const job of ['x', 'x', 'hold', 'hold']) await add(redis.client, job)
  await eventually(() => expect(begun).toBe(2))
  const waiting = async () => (await scrape(registry)).sum('millrace_limit_waiting_jobs')
  await eventually(async () => expect(await waiting()).toBe(0))
  held.open()
  await new Promise((resolve) => setImmediate(resolve))
  // Longer than anything may wait here for a slot: both become free meanwhile, and nobody can know.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1100)

  await eventually(() => expect(worker.counts.completed).toBe(4))
  expect(worker.counts.handedBack).toBe(0)
})
