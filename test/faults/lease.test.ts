import { expect, test, vi } from 'vitest'
import type * as threading from 'node:worker_threads'
import { beginDeliveries, settleCompleted } from '../../src/redis/scripts/delivery.ts'
import { settle, settleOthers, type FencedOutcome } from '../../src/redis/settling.ts'
import { begin, handBackAll, renew } from '../../src/redis/stream.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { startProxy } from '../helpers/proxy.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, gate, LEASE_MS, pending, startWorker, startWorkerProcess, tally } from '../helpers/workers.ts'

/** Leases: kept through blocked loops and dead threads, fenced by owner and delivery count. */

const redis = withRedis()
const threads: threading.Worker[] = []

// The real threads, only remembered: a test must be able to kill one.
vi.mock('node:worker_threads', async (original) => {
  const real = await original<typeof threading>()
  class Remembered extends real.Worker {
    constructor(...args: ConstructorParameters<typeof real.Worker>) {
      super(...args)
      threads.push(this)
    }
  }
  return { ...real, Worker: Remembered }
})

test('a handler that blocks its event loop for three leases is not stolen', async () => {
  const blocked = await startWorkerProcess({ redis: redis.url })
  const id = await add(redis.client, 'block', { ms: LEASE_MS * 3 })
  await blocked.line(/^started/)
  const stolen: string[] = []
  const other = await startWorker({ redis: redis.url, handlers: { block: (_data, job) => void stolen.push(job.id) } })
  await blocked.line(/^ended/)

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
  expect(stolen).toEqual([])
  expect(other.counts.claimPasses).toBeGreaterThan(0)
  expect(blocked.log()).toEqual([`started ${id} 1 ${blocked.pid}`, `ended ${id} 1 ${blocked.pid}`])
})

test('jobs prefetched behind a blocked event loop are handed back and run elsewhere meanwhile', async () => {
  const blocked = await startWorkerProcess({ redis: redis.url, concurrency: 2 })
  // Both slots are given to jobs before the first of them blocks, so the second is held without being started.
  const ids = await Promise.all([add(redis.client, 'block', { ms: LEASE_MS * 4 }), add(redis.client, 'quick')])
  await blocked.line(/^started/)
  const ran: string[] = []
  await startWorker({ redis: redis.url, handlers: { quick: (_data, job) => void ran.push(job.id), block() {} } })

  await waitFor(() => ran.length === 1 || blocked.log().some((line) => line.startsWith('ran')))
  expect([...ran, ...blocked.log().filter((line) => line.startsWith('ran'))]).toHaveLength(1)
  await blocked.line(/^ended/)
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: ids.length }))
})

test('leases hold while the thread that keeps them is killed again and again', async () => {
  const { wait, open } = gate()
  const starts: string[] = []
  threads.length = 0
  const keeping = await startWorker({
    redis: redis.url,
    handlers: {
      hold: async (_data, job) => {
        starts.push(job.id)
        await wait()
      },
    },
  })
  const id = await add(redis.client, 'hold')
  await eventually(() => expect(starts).toEqual([id]))
  const other = await startWorker({ redis: redis.url, handlers: { hold: (_data, job) => void starts.push(job.id) } })
  const passes = other.counts.claimPasses
  const own = [threads[0]]
  for (let killed = 0; killed < 4; killed++) {
    const thread = own.at(-1) as threading.Worker
    const known = threads.length
    await thread.terminate()
    await waitFor(() => threads.length > known, { what: 'another thread is started' })
    own.push(threads.at(-1))
  }
  await waitFor(() => other.counts.claimPasses + keeping.counts.claimPasses > passes + 3)
  open()

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
  expect(starts).toEqual([id])
  expect(keeping.counts.leaseLost).toBe(0)
})

test('a worker on several streams keeps the leases of all of them when that thread is killed', async () => {
  const { wait, open } = gate()
  const streams = ['orders', 'mails', 'bills']
  const starts: string[] = []
  const hold = async (_data: unknown, job: { stream: string }) => {
    starts.push(job.stream)
    await wait()
  }
  const options = { redis: redis.url, stream: undefined as unknown as string, streams, handlers: { hold } }
  threads.length = 0
  const keeping = await startWorker(options)
  for (const stream of streams) await add(redis.client, 'hold', {}, stream)
  await eventually(() => expect(starts.toSorted()).toEqual(streams.toSorted()))
  const other = await startWorker(options)
  const passes = other.counts.claimPasses + keeping.counts.claimPasses
  const known = threads.length
  await (threads[0] as threading.Worker).terminate()
  await waitFor(() => threads.length > known, { what: 'another thread is started' })
  await waitFor(() => other.counts.claimPasses + keeping.counts.claimPasses > passes + 3 * streams.length)
  open()

  for (const stream of streams) {
    await eventually(async () => expect(await tally(redis.client, stream)).toEqual({ completed: 1 }))
  }
  expect(starts).toHaveLength(streams.length)
  expect([keeping.counts.leaseLost, other.counts.claimed]).toEqual([0, 0])
})

/** An entry delivered to `old`, then claimed and begun by `owner`: two deliveries. */
async function takenOver(): Promise<{ id: string; old: Member; owner: Member }> {
  const [old, owner] = [member('old'), member('owner')]
  const id = await add(redis.client, 'x')
  await redis.client.call('XGROUP', 'CREATE', 'orders', 'main', '0')
  await redis.client.call('XREADGROUP', 'GROUP', 'main', 'old', 'STREAMS', 'orders', '>')
  await redis.client.call('XCLAIM', 'orders', 'main', 'owner', 0, id, 'JUSTID')
  expect(await begin(redis.client, owner, 0, [{ id, deliveries: 1 }])).toMatchObject([{ state: 'ok' }])
  return { id, old, owner }
}

interface Member {
  stream: string
  group: string
  consumer: string
}

const member = (consumer: string): Member => ({ stream: 'orders', group: 'main', consumer })

/** Each outcome that is no completion, of the first delivery. */
const othersOf = (id: string): FencedOutcome[] => [
  { kind: 'retry', entryId: id, id, deliveries: 1, delayMs: 0, attempt: 1, firstFailedMs: undefined, error: 'x' },
  { kind: 'dead', entryId: id, id, deliveries: 1, provenance: ['dead-reason', 'fatal'] },
  { kind: 'cancelled', entryId: id, id, deliveries: 1 },
]

test('a former owner can neither renew, nor hand back, nor retry, bury or cancel: only its completion counts', async () => {
  const { id, old } = await takenOver()
  const before = await pending(redis.client)

  expect(await renew(redis.client, old, { source: 0, held: [{ id, deliveries: 1 }], youngMs: 0 })).toEqual([0])
  expect(await handBackAll(redis.client, old, 0, [{ id, deliveries: 1, newDeliveries: 0 }])).toBe(0)
  expect(await settleOthers(redis.client, old, { source: 0, outcomes: othersOf(id), resent: false })).toEqual([
    'stale',
    'stale',
    'stale',
  ])
  expect(await begin(redis.client, old, 0, [{ id, deliveries: 1 }])).toEqual([{ state: 'lost', fields: [] }])
  expect(await pending(redis.client)).toMatchObject(
    before.map(({ id, consumer, deliveries }) => ({ id, consumer, deliveries })),
  )
  expect(await settle(redis.client, old, { source: 0, done: [{ entryId: id, id }], resent: false })).toEqual({
    late: 0,
    skippedLate: 0,
  })
  expect(await pending(redis.client)).toEqual([])
})

test('an owner under its old delivery count is refused like a stranger', async () => {
  const { id, owner } = await takenOver()

  expect(await renew(redis.client, owner, { source: 0, held: [{ id, deliveries: 1 }], youngMs: 0 })).toEqual([0])
  expect(await handBackAll(redis.client, owner, 0, [{ id, deliveries: 1, newDeliveries: 0 }])).toBe(0)
  expect(await settleOthers(redis.client, owner, { source: 0, outcomes: othersOf(id), resent: false })).toEqual([
    'stale',
    'stale',
    'stale',
  ])
  expect(await renew(redis.client, owner, { source: 0, held: [{ id, deliveries: 2 }], youngMs: 0 })).toEqual([])
  expect(await handBackAll(redis.client, owner, 0, [{ id, deliveries: 2, newDeliveries: 1 }])).toBe(1)
})

test('renewing resets the idle time and never the delivery count', async () => {
  const { id, owner } = await takenOver()
  await redis.client.call('XCLAIM', 'orders', 'main', 'owner', 0, id, 'IDLE', 5000, 'JUSTID')
  expect(await renew(redis.client, owner, { source: 0, held: [{ id, deliveries: 2 }], youngMs: 10_000 })).toEqual([])
  expect((await pending(redis.client))[0]?.idleMs).toBeGreaterThanOrEqual(5000)
  expect(await renew(redis.client, owner, { source: 0, held: [{ id, deliveries: 2 }], youngMs: 1000 })).toEqual([])

  const [row] = await pending(redis.client)
  expect(row?.deliveries).toBe(2)
  expect(row?.idleMs).toBeLessThan(5000)
})

test('a begin whose reply was lost is not counted twice', async () => {
  const proxy = await startProxy(redis.url)
  const id = await add(redis.client, 'x')
  await redis.client.call('XGROUP', 'CREATE', 'orders', 'main', '0')
  await redis.client.call('XREADGROUP', 'GROUP', 'main', 'ghost', 'STREAMS', 'orders', '>')
  await redis.client.call('XCLAIM', 'orders', 'main', 'ghost', 0, id, 'IDLE', 600_000, 'JUSTID')
  await redis.client.call('SCRIPT', 'LOAD', beginDeliveries.lua)
  const swallowed = proxy.swallowReplyTo(([name, sha]) => name === 'evalsha' && sha === beginDeliveries.sha)
  const ran: number[] = []
  await startWorker({ redis: proxy.url, handlers: { x: (_data, job) => void ran.push(job.deliveries) } })
  await swallowed

  await eventually(() => expect(ran).toEqual([2]))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
})

test('a settlement whose reply was lost is neither lost nor counted as late', async () => {
  const proxy = await startProxy(redis.url)
  await redis.client.call('SCRIPT', 'LOAD', settleCompleted.lua)
  const ran: string[] = []
  const worker = await startWorker({ redis: proxy.url, handlers: { x: (_data, job) => void ran.push(job.id) } })
  const swallowed = proxy.swallowReplyTo(([name, sha]) => name === 'evalsha' && sha === settleCompleted.sha)
  await add(redis.client, 'x')
  await swallowed

  await eventually(() => expect(worker.counts.completed).toBe(1))
  expect(ran).toHaveLength(1)
  expect(await tally(redis.client)).toEqual({ completed: 1 })
})
