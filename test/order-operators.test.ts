import { expect, test } from 'vitest'
import { defineJob, handle, type Handler } from '../src/index.ts'
import { groupScheduledKey, lineKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { awaitPulses } from './helpers/pulses.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { gate, startWorker, tally } from './helpers/workers.ts'

/** Order per key beside what people do, and what becomes of Redis. */

const redis = withRedis()
const add = async (...numbers: number[]) => {
  const ids: string[] = []
  for (const n of numbers) {
    const fields = ['job', 'step', 'data', JSON.stringify({ n }), 'key', 'k']
    ids.push((await redis.client.xadd('orders', '*', ...fields)) as string)
  }
  return ids
}
const line = () => redis.client.zrange(lineKey('orders', 'main', 'k'), '0', '-1')
const scheduled = () => redis.client.zcard(groupScheduledKey('orders', 'main'))

/** Handlers that note what begins; the job of the number `held` waits until it is let go, and that of `fails` fails once. */
function recorder({ held = 0, fails = 0 } = {}) {
  const door = gate()
  onEnd(() => door.open())
  const begun: number[] = []
  let isFailing = true
  const run = async ({ n }: { n: number }) => {
    begun.push(n)
    if (n === held) await door.wait()
    if (n !== fails || !isFailing) return
    isFailing = false
    throw new Error('once')
  }
  const handlers: Handler[] = [handle(defineJob<{ n: number }>('step', { retry: { attempts: 1 } }), run)]
  return { begun, open: door.open, handlers }
}

/** One worker has the job of the number 1, and the next that is started those that wait for it. */
async function twoWorkers({ begun, handlers }: ReturnType<typeof recorder>, waiting: number[]) {
  const ids = await add(1)
  const one = await startWorker({ redis: redis.url, handlers, concurrency: 1 })
  await eventually(() => expect(begun).toEqual([1]))
  const two = await startWorker({ redis: redis.url, handlers, concurrency: 4 })
  ids.push(...(await add(...waiting)))
  await eventually(async () => expect(await scheduled()).toBe(waiting.length))
  return { one, two, ids }
}

test('the next in line looks soon by itself whether it has the turn, those behind it ever more seldom', async () => {
  await twoWorkers(recorder({ held: 1 }), [2, 3, 4])
  const key = groupScheduledKey('orders', 'main')
  const due = (await redis.client.zrange(key, '0', '-1', 'WITHSCORES')).flatMap((one, at) =>
    at % 2 ? [Number(one)] : [],
  )
  const [second = 0, third = 0, fourth = 0] = due
  const at = (await serverMs(redis.client)) + 30_000
  expect(second).toBeLessThanOrEqual(at)
  expect(third).toBeGreaterThan(second + 15_000)
  expect(fourth).toBeGreaterThan(third + 30_000)
})

test('a dead job that is redriven lines up behind those that are there by then', async () => {
  const { begun, open, handlers } = recorder({ held: 2, fails: 1 })
  const [first] = await add(1, 2, 3)
  const worker = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(begun).toEqual([1, 2]))
  await newInspector(redis.url).dead.redrive('orders', 'main', { execute: true })
  await eventually(async () => expect((await line()).at(-1)).toBe(first))
  open()
  await eventually(() => expect(begun).toEqual([1, 2, 3, 1]))
  await eventually(() => expect(worker.counts).toMatchObject({ completed: 3, dead: 1 }))
  expect(await line()).toEqual([])
})

test('copies that a replay brings run in their order, behind those of their key that are there', async () => {
  const { begun, open, handlers } = recorder({ held: 4 })
  const ids = await add(1, 2, 3, 4, 5)
  const worker = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(begun).toEqual([1, 2, 3, 4]))
  await eventually(() => expect(worker.counts.completed).toBe(3))
  const range = { from: ids[0] as string, to: ids[2] as string, group: 'main' }
  await newInspector(redis.url).replays.start('orders', range)
  await eventually(async () => expect(await line()).toHaveLength(5))
  open()
  await eventually(() => expect(begun).toEqual([1, 2, 3, 4, 5, 1, 2, 3]))
  await eventually(async () => expect(await line()).toEqual([]))
})

test('a pause begins no job of a key, and when it is over they go on in their order', async () => {
  const now = recorder({ held: 1 })
  const { one, two } = await twoWorkers(now, [2, 3, 4])
  const inspector = newInspector(redis.url)
  await inspector.pause('orders', { group: 'main' })
  await awaitPulses(redis.client, 2, { workers: 2 })
  now.open()
  await eventually(() => expect(one.counts.completed).toBe(1))
  await add(5)
  await awaitPulses(redis.client, 1, { workers: 2 })
  expect(now.begun).toEqual([1])
  await inspector.resume('orders', { group: 'main' })
  await eventually(() => expect(now.begun).toEqual([1, 2, 3, 4, 5]))
  await eventually(async () => expect(await tally(redis.client)).toMatchObject({ completed: 5 }))
  expect([one.counts.failed, two.counts.failed]).toEqual([0, 0])
})

test('lines go on in their order while Redis has no memory left', async () => {
  const now = recorder({ held: 1 })
  const ids = await add(1)
  await startWorker({ redis: redis.url, handlers: now.handlers, concurrency: 1 })
  await eventually(() => expect(now.begun).toEqual([1]))
  ids.push(...(await add(2, 3, 4)))
  onEnd(async () => void (await redis.client.config('SET', 'maxmemory', '0')))
  await redis.client.config('SET', 'maxmemory', '1')
  await startWorker({ redis: redis.url, handlers: now.handlers, concurrency: 4 })
  await eventually(async () => expect(await scheduled()).toBe(3))
  expect(await line()).toEqual(ids)
  now.open()
  await eventually(() => expect(now.begun).toEqual([1, 2, 3, 4]))
  await eventually(async () => expect(await line()).toEqual([]))
})

test('a job that has the turn and is cancelled while it runs gives it on', async () => {
  const begun: number[] = []
  const run = ({ n }: { n: number }, { signal }: { signal: AbortSignal }) => {
    begun.push(n)
    if (n > 1) return undefined
    return new Promise<void>((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
  }
  const [first] = await add(1, 2, 3)
  const worker = await startWorker({ redis: redis.url, handlers: [handle(defineJob<{ n: number }>('step'), run)] })
  await eventually(() => expect(begun).toEqual([1]))
  await newInspector(redis.url).cancel('orders', first as string, { group: 'main' })
  await eventually(() => expect(begun).toEqual([1, 2, 3]))
  await eventually(async () => expect(await line()).toEqual([]))
  expect(worker.counts).toMatchObject({ cancelled: 1, completed: 2 })
})

test.each(['emptied', 'without the group'])('a Redis that is %s leaves no line that stops', async (how) => {
  const now = recorder({ held: 1 })
  const { one, two } = await twoWorkers(now, [2, 3])
  if (how === 'emptied') await redis.client.flushall()
  else await newInspector(redis.url).groups.remove('orders', 'main', { force: true })
  // The group is made again when a worker finds it gone; what comes behind what is no more has the turns.
  await add(4, 5)
  await eventually(() => expect(now.begun.slice(1)).toEqual([4, 5]))
  now.open()
  await add(6)
  await eventually(() => expect(now.begun.slice(1)).toEqual([4, 5, 6]))
  await eventually(async () => expect(await line()).toEqual([]))
  expect(one.counts.failed + two.counts.failed).toBe(0)
})
