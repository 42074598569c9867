import { describe, expect, test } from 'vitest'
import { defineJob, handle, type Handler } from '../src/index.ts'
import { lineKey } from '../src/redis/keys.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { gate, pending, startWorker } from './helpers/workers.ts'

/** Order per key beside what else may happen to a job. */

const redis = withRedis()
const addRaw = (key: string, n: number, ...more: string[]) =>
  redis.client.xadd('orders', '*', 'job', 'step', 'data', JSON.stringify({ n }), 'key', key, ...more) as Promise<string>
const line = (key: string) => redis.client.zrange(lineKey('orders', 'main', key), '0', '-1')

/** A handler that holds the jobs with the number 1, and what began. */
function held() {
  const door = gate()
  onEnd(() => door.open())
  const begun: number[] = []
  const step = defineJob<{ n: number }>('step', { retry: { attempts: 1 } })
  const handlers: Handler[] = [handle(step, ({ n }) => (begun.push(n), n === 1 ? door.wait() : undefined))]
  return { begun, handlers, open: door.open }
}

test('a job whose deadline is over while it waits for its turn is dead by then, and the next one has the turn', async () => {
  const { begun, handlers, open } = held()
  await addRaw('k', 1)
  const one = await startWorker({ redis: redis.url, handlers, concurrency: 1 })
  await eventually(() => expect(begun).toEqual([1]))
  const two = await startWorker({ redis: redis.url, handlers })
  await addRaw('k', 2, 'expires', '+1')
  const third = await addRaw('k', 3)
  await eventually(() => expect(one.counts.dead + two.counts.dead).toBe(1))
  expect(await line('k')).toHaveLength(2)
  expect(await line('k')).toContain(third)
  open()
  await eventually(() => expect(begun).toEqual([1, 3]))
})

test('a job that no worker knows yet keeps its turn until one does', async () => {
  const { begun, handlers } = held()
  await redis.client.xadd('orders', '*', 'job', 'later', 'data', '{"n":7}', 'key', 'k')
  await addRaw('k', 2)
  await addRaw('other', 3)
  const old = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(begun).toEqual([3]))
  await eventually(() => expect(old.counts.waited).toBeGreaterThanOrEqual(1))
  const known = [...handlers, handle(defineJob<{ n: number }>('later'), ({ n }) => void begun.push(n))]
  await old.stop({ drainMs: 0 })
  await startWorker({ redis: redis.url, handlers: known })
  await eventually(() => expect(begun).toEqual([3, 7, 2]))
})

test('a worker that stops hands back what waits for its turn here, at no cost, and the order is as it was', async () => {
  const { begun, handlers, open } = held()
  for (let n = 1; n <= 5; n++) await addRaw('k', n)
  const one = await startWorker({ redis: redis.url, handlers, leaseMs: 6000 })
  await eventually(async () => expect(await line('k')).toHaveLength(5))
  const stopped = one.stop({ drainMs: 10_000 })
  await eventually(async () => expect(await pending(redis.client, 'orders', 'main', ':handback')).toHaveLength(4))
  open()
  await stopped
  await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(begun).toEqual([1, 2, 3, 4, 5]))
  await eventually(async () => expect(await line('k')).toEqual([]))
})

test('a group that is set back runs the jobs of a key in their order again', async () => {
  const { begun, handlers, open } = held()
  open()
  const ids: string[] = []
  for (let n = 1; n <= 6; n++) ids.push(await addRaw('k', n))
  const one = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(one.counts.completed).toBe(6))
  await one.stop()
  // One that was delivered and has no outcome: it is in line, and must not go before the others.
  await addRaw('k', 7)
  const seventh = { entries: await redis.client.xrange('orders', '-', '+') }.entries.at(-1)?.[0] ?? ''
  await redis.client.xreadgroup('GROUP', 'main', 'gone', 'COUNT', 1, 'STREAMS', 'orders', '>')
  await redis.client.zadd(lineKey('orders', 'main', 'k'), '1', seventh)
  await newInspector(redis.url).groups.rewind('orders', 'main', { to: ids[0] ?? '', execute: true })
  await startWorker({ redis: redis.url, handlers, concurrency: 3 })
  await eventually(() => expect(begun).toEqual([1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 7]))
})

test('a group that vanished runs what it has not settled in order when it is made again', async () => {
  const { begun, handlers } = held()
  for (let n = 2; n <= 4; n++) await addRaw('k', n)
  const one = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(one.counts.completed).toBe(3))
  await redis.client.xgroup('DESTROY', 'orders', 'main')
  for (let n = 5; n <= 7; n++) await addRaw('k', n)
  await eventually(() => expect(begun.slice(-3)).toEqual([5, 6, 7]))
})

test('a job of a key that is under a limit waits for it with its turn', async () => {
  const { begun, handlers, open } = held()
  open()
  for (let n = 1; n <= 6; n++) await addRaw('k', n)
  const limits = [
    { name: 'slow', rate: { jobs: 2, perMs: 200 } },
    { name: 'few', concurrency: 1 },
  ]
  await startWorker({ redis: redis.url, handlers, limits })
  await startWorker({ redis: redis.url, handlers, limits })
  await eventually(() => expect(begun).toHaveLength(6))
  expect(begun).toEqual([1, 2, 3, 4, 5, 6])
})

test('a worker of several streams keeps the order of each', async () => {
  const begun: string[] = []
  const step = defineJob<{ n: number }>('step')
  const streams = ['left', 'right']
  for (let n = 0; n < 10; n++)
    for (const stream of streams) await redis.client.xadd(stream, '*', 'job', 'step', 'data', `{"n":${n}}`, 'key', 'k')
  const handlers = [handle(step, ({ n }, job) => void begun.push(`${job.stream}${n}`))]
  await startWorker({ redis: redis.url, stream: undefined, streams, handlers } as never)
  await eventually(() => expect(begun).toHaveLength(20))
  for (const stream of streams) {
    expect(begun.filter((one) => one.startsWith(stream))).toEqual(Array.from({ length: 10 }, (_, n) => `${stream}${n}`))
  }
})

test.each([
  ['of 257 bytes', 'ä'.repeat(128) + 'xx'],
  ['that is empty', ''],
  ['with a line break', 'a\nb'],
])('an entry with a key %s is malformed, and holds up nobody', async (_, key) => {
  const { begun, handlers } = held()
  await addRaw(key, 2)
  await addRaw('ok', 3)
  const worker = await startWorker({ redis: redis.url, handlers })
  await eventually(() => expect(worker.counts).toMatchObject({ dead: 1, completed: 1 }))
  expect(begun).toEqual([3])
  expect(await redis.client.keys('{orders}:group:main:order:*')).toEqual([])
})

describe('a publish', () => {
  const keyOf = async () => {
    const [[, fields] = ['', []]] = await redis.client.xrevrange('orders', '+', '-', 'COUNT', 1)
    return fields[fields.indexOf('key') + 1]
  }
  const job = defineJob<{ account?: unknown }>('step', { stream: 'orders', orderBy: 'data.account' })

  test('has the key that its definition finds in the payload, or the one that it is given', async () => {
    const producer = newProducer({ redis: redis.url })
    await producer.publish(job, { account: 42 })
    expect(await keyOf()).toBe('42')
    await producer.publish(job, { account: 42 }, { key: 'other' })
    expect(await keyOf()).toBe('other')
    await producer.publish(job, { account: 'x'.repeat(300) })
    expect(await keyOf()).toMatch(/^sha256\.[\w-]{43}$/)
    await producer.publishMany(job, [{ account: 'many' }])
    expect(await keyOf()).toBe('many')
    await producer.publish(job, { account: 'u' }, { uniqueKey: 'u' })
    expect(await keyOf()).toBe('u')
  })

  test('whose payload has no key, or whose key is none, is refused and says what is expected, not what was found', async () => {
    const producer = newProducer({ redis: redis.url })
    const missing = await failureOf(producer.publish(job, { account: { secret: 1 } }))
    expect(missing).toMatchObject({ code: 'ERR_OPTION', published: 'no' })
    expect(missing.message).toBe(
      'expected a key in the data of step: `orderBy` needs `data.account` to be a text, a number or a boolean, and it is not',
    )
    for (const key of ['', 'a\nb', '\ud800', 'ä'.repeat(129)]) {
      const { message } = await failureOf(producer.publish(job, {}, { key }))
      expect(message).toMatch(/^expected `key` to be 1 to 256 bytes of printable text, got \d+ bytes$/)
    }
  })

  test('cannot be of a definition whose path or mode is none', () => {
    expect(() => defineJob('x', { orderBy: 'account' as never })).toThrow(
      'expected `orderBy` to be a path as data.account',
    )
    expect(() => defineJob('x', { onFailure: 'wait' as never })).toThrow('onFailure')
  })
})
