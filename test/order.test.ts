import { expect, test } from 'vitest'
import { defineJob, handle, Inspector } from '../src/index.ts'
import { cancelJob } from '../src/cancel.ts'
import { lineKey, orderKey } from '../src/redis/keys.ts'
import { newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { gate, startWorker } from './helpers/workers.ts'

/** Jobs of one key run one at a time, in the order in which they were published. */

const redis = withRedis()
const step = defineJob<{ account: string; n: number }>('step', { stream: 'orders', orderBy: 'data.account' })
const publish = async (account: string, ...numbers: number[]) => {
  const producer = newProducer({ redis: redis.url })
  const ids: string[] = []
  for (const n of numbers) ids.push((await producer.publish(step, { account, n })).id)
  return ids
}
const line = (key: string) => redis.client.zrange(lineKey('orders', 'main', key), '0', '-1')
const addRaw = (key: string, n: number) =>
  redis.client.xadd('orders', '*', 'job', 'step', 'data', JSON.stringify({ n }), 'key', key)

test('jobs of one key run one after the other in one worker, and those of other keys beside them', async () => {
  const begun: string[] = []
  const running = new Map<string, number>()
  let most = 0
  const handler = handle(step, async ({ account, n }) => {
    expect(running.get(account) ?? 0).toBe(0)
    running.set(account, 1)
    most = Math.max(most, [...running.values()].filter((count) => count > 0).length)
    begun.push(`${account}${n}`)
    await new Promise((resolve) => setTimeout(resolve, 2))
    running.set(account, 0)
  })
  for (let n = 0; n < 20; n++) for (const account of ['a', 'b', 'c']) await addRaw(account, n)
  const numbers = Array.from({ length: 20 }, (_, n) => n)
  const worker = await startWorker({
    redis: redis.url,
    handlers: [{ ...handler, run: (data, job) => handler.run({ ...(data as object), account: job.key }, job) }],
  })
  await eventually(() => expect(worker.counts.completed).toBe(60))
  for (const account of ['a', 'b', 'c']) {
    expect(begun.filter((one) => one.startsWith(account))).toEqual(numbers.map((n) => `${account}${n}`))
  }
  expect(most).toBe(3)
  expect(worker.counts).toMatchObject({ retried: 0, failed: 0, dead: 0 })
  expect(await line('a')).toEqual([])
  expect(Object.keys(await redis.client.hgetall(orderKey('orders', 'main'))).toSorted()).toEqual([
    ':position',
    ':stream',
  ])
})

test('thousands of jobs of many keys are read without a read that Redis refuses', async () => {
  const logged: string[] = []
  const keep = (_fields: object, message: string) => void logged.push(message)
  const keys = Array.from({ length: 500 }, (_, n) => `k${n}`)
  for (let n = 0; n < 6; n++) await Promise.all(keys.map((key) => addRaw(key, n)))
  const worker = await startWorker({
    redis: redis.url,
    concurrency: 50,
    handlers: [handle(step, () => {})],
    logger: { debug: () => {}, info: () => {}, warn: keep, error: keep },
  })
  await eventually(() => expect(worker.counts.completed).toBe(3000))
  expect(logged.filter((message) => message.includes('cannot'))).toEqual([])
})

test('a job that waits for its turn takes no slot, and begins when the one before it has ended in another worker', async () => {
  const held = gate()
  onEnd(() => held.open())
  const begun: number[] = []
  const handlers = [handle(step, ({ n }) => (begun.push(n), n === 1 ? held.wait() : undefined))]
  const one = await startWorker({ redis: redis.url, handlers, concurrency: 1 })
  const [first = ''] = await publish('a', 1)
  await eventually(() => expect(begun).toEqual([1]))
  const two = await startWorker({ redis: redis.url, handlers, concurrency: 1 })
  const [second = ''] = await publish('a', 2, 3)
  await eventually(() => expect(two.counts.waited).toBe(2))
  await publish('b', 9)
  await eventually(() => expect(begun).toEqual([1, 9]))
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  const { groups } = await inspector.explain('orders', second, { group: 'main' })
  const [said] = groups[0]?.sentences ?? []
  expect(said?.text).toContain(`Waits at no cost: "its turn behind job ${first} of the same key"`)
  expect(said?.text).toContain('it is due as soon as its turn comes, and else looks again ')
  expect(said?.command).toEqual(['explain', 'orders', first, '--group', 'main'])
  held.open()
  await eventually(() => expect(begun).toEqual([1, 9, 2, 3]))
  await eventually(async () => expect(await line('a')).toEqual([]))
  await eventually(() => expect(one.counts.completed + two.counts.completed).toBe(4))
})

test.each([
  ['block', [1, 1, 2]],
  ['skip', [1, 2, 1]],
] as const)('with onFailure %s a job that failed runs again as %j', async (onFailure, wanted) => {
  const begun: number[] = []
  const job = defineJob<{ n: number }>('step', { onFailure, retry: { attempts: 2, delayMs: 300, jitter: 0 } })
  const handlers = [
    handle(job, ({ n }, { attempt }) => {
      begun.push(n)
      if (n === 1 && attempt === 1) throw new Error('not yet')
    }),
  ]
  await addRaw('a', 1)
  await addRaw('a', 2)
  await addRaw('b', 7)
  const worker = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(worker.counts.completed).toBe(3))
  expect(begun.filter((n) => n !== 7)).toEqual(wanted)
  expect(begun.indexOf(7)).toBeLessThan(begun.lastIndexOf(1))
  expect(await line('a')).toEqual([])
})

test('a dead job gives its turn on, and a cancelled one that waits is out of the line', async () => {
  const held = gate()
  onEnd(() => held.open())
  const begun: number[] = []
  const job = defineJob<{ n: number }>('step', { retry: { attempts: 1 } })
  const run = async ({ n }: { n: number }) => {
    begun.push(n)
    await held.wait()
    if (n === 1) throw new Error('no')
  }
  const handlers = [handle(job, run)]
  const one = await startWorker({ redis: redis.url, handlers, concurrency: 1 })
  await publish('a', 1)
  await eventually(() => expect(begun).toEqual([1]))
  const two = await startWorker({ redis: redis.url, handlers, concurrency: 4 })
  const [second = ''] = await publish('a', 2, 3)
  await eventually(() => expect(two.counts.waited).toBe(2))
  expect(await cancelJob(redis.client, 'orders', second, { group: 'main' })).toMatchObject({ cancelled: true })
  expect(await line('a')).not.toContain(second)
  held.open()
  await eventually(() => expect(begun).toEqual([1, 3]))
  await eventually(async () => expect(await line('a')).toEqual([]))
  expect(one.counts.dead + two.counts.dead).toBe(1)
})
