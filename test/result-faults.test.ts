import { expect, test } from 'vitest'
import { resultKey, repliesKey } from '../src/redis/keys.ts'
import { settleCompleted } from '../src/redis/scripts/delivery.ts'
import { newProducer } from './fixtures/producers.ts'
import { startChild } from './helpers/child.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { keepingLogger } from './helpers/log.ts'
import { startProxy } from './helpers/proxy.ts'
import { startServer, connectTo, withRedis } from './helpers/redis.ts'
import { gate, pending, startWorker, startWorkerProcess } from './helpers/workers.ts'

/** Results while workers are killed, connections break, and what tells of them is trimmed. */

const redis = withRedis()
const LONG = { timeoutMs: 60_000 }
const options = { stream: 'orders', result: true as const, timeoutMs: 30_000 }
const isReading = ([name]: string[]) => name === 'xread'
const isSettling = ([name, sha]: string[]) => name === 'evalsha' && sha === settleCompleted.sha

test('a job whose worker is killed between the end of its handler and the ack runs again, and its result comes', async () => {
  const proxy = await startProxy(redis.url)
  await redis.client.script('LOAD', settleCompleted.lua)
  const settle = proxy.holdBefore(isSettling)
  const producer = newProducer({ redis: redis.url })
  const { id, result } = await producer.publish('deaf', { ms: 1 }, options)
  const waiting = result(LONG)
  const first = await startWorkerProcess({ redis: proxy.url })
  await settle.held
  first.signal('SIGKILL')
  expect(await redis.client.exists(resultKey('orders', id, 'main'))).toBe(0)
  expect(await pending(redis.client)).toHaveLength(1)
  const second = await startWorkerProcess({ redis: redis.url })
  expect(await waiting).toBeUndefined()
  expect(second.log().filter((line) => line.startsWith(`ended ${id}`))).toHaveLength(1)
  expect(await pending(redis.client)).toEqual([])
})

test('a job that was acked has its answer, though the worker was killed before it heard of that', async () => {
  const proxy = await startProxy(redis.url)
  await redis.client.script('LOAD', settleCompleted.lua)
  const swallowed = proxy.swallowReplyKeepOpen(isSettling)
  const producer = newProducer({ redis: redis.url })
  const { id, result } = await producer.publish('quick', 1, options)
  const worker = await startWorkerProcess({ redis: proxy.url })
  await swallowed
  worker.signal('SIGKILL')
  expect(await pending(redis.client)).toEqual([])
  expect(await newInspector(redis.url).result('orders', id)).toMatchObject({ state: 'completed', group: 'main' })
  expect(await result(LONG)).toBeUndefined()
})

test('a settlement whose reply was lost is told once', async () => {
  const proxy = await startProxy(redis.url)
  await redis.client.script('LOAD', settleCompleted.lua)
  const swallowed = proxy.swallowReplyTo(isSettling)
  const worker = await startWorker({ redis: proxy.url, handlers: { x: () => 1 } })
  const producer = newProducer({ redis: redis.url })
  const { result } = await producer.publish('x', 1, options)
  expect(await result(LONG)).toBe(1)
  await swallowed
  await eventually(() => expect(worker.counts.completed).toBe(1))
  const [replies = ''] = await redis.client.keys('*:replies:*')
  expect(await redis.client.xlen(replies)).toBe(1)
})

test('a producer whose connection is reset while it waits has every result', async () => {
  const proxy = await startProxy(redis.url)
  const producer = newProducer({ redis: proxy.url })
  const run = gate()
  await startWorker({ redis: redis.url, handlers: { x: async (n) => (await run.wait(), n) } })
  const reading = proxy.holdBefore(isReading)
  const published = await Promise.all([1, 2, 3].map((n) => producer.publish('x', n, options)))
  const waiting = published.map(({ result }) => result(LONG))
  await reading.held
  reading.release()
  proxy.cut()
  run.open()
  expect(await Promise.all(waiting)).toEqual([1, 2, 3])
})

test('a producer that loses the reply which told of results has every one of them', async () => {
  const proxy = await startProxy(redis.url)
  const producer = newProducer({ redis: proxy.url })
  const worker = await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
  const lost = proxy.swallowReplyTo(isReading)
  const published = await Promise.all([1, 2, 3].map((n) => producer.publish('x', n, options)))
  await eventually(() => expect(worker.counts.completed).toBe(3))
  expect(await Promise.all(published.map(({ result }) => result(LONG)))).toEqual([1, 2, 3])
  // What comes first may be what was looked up; the read goes on all the same while somebody waits.
  const { result } = await producer.publish('none', 4, options)
  const waiting = result(LONG).catch(() => {})
  await lost
  void producer.close({ timeoutMs: 0 })
  await waiting
})

test('a producer that Redis is away from while jobs end has every result when it is back', async () => {
  const proxy = await startProxy(redis.url)
  const producer = newProducer({ redis: proxy.url })
  const run = gate()
  const worker = await startWorker({ redis: redis.url, handlers: { x: async (n) => (await run.wait(), n) } })
  const published = await Promise.all([1, 2, 3].map((n) => producer.publish('x', n, options)))
  const waiting = published.map(({ result }) => result(LONG))
  proxy.blackhole(true)
  run.open()
  await eventually(() => expect(worker.counts.completed).toBe(3))
  proxy.cut()
  proxy.blackhole(false)
  expect(await Promise.all(waiting)).toEqual([1, 2, 3])
})

test.each(['was trimmed', 'was deleted', 'is of another type'])(
  'a result comes though its reply stream %s',
  async (how) => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    const worker = await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
    const reading = proxy.holdBefore(isReading)
    const published = await Promise.all([1, 2, 3].map((n) => producer.publish('x', n, options)))
    const waiting = published.map(({ result }) => result(LONG))
    await reading.held
    await eventually(() => expect(worker.counts.completed).toBe(3))
    const [replies = ''] = await redis.client.keys('*:replies:*')
    if (how === 'was trimmed') await redis.client.xtrim(replies, 'MAXLEN', 0)
    else await redis.client.del(replies)
    if (how === 'is of another type') await redis.client.set(replies, 'x')
    const late = await producer.publish('x', 4, options)
    reading.release()
    expect(await Promise.all([...waiting, late.result(LONG)])).toEqual([1, 2, 3, 4])
  },
)

test('results that cannot be read where they are told come before the net of every five seconds', async () => {
  const { logger, lines } = keepingLogger()
  const producer = newProducer({ redis: redis.url, logger })
  const run = gate()
  await startWorker({ redis: redis.url, handlers: { x: async (n) => (await run.wait(), n) } })
  const { result } = await producer.publish('x', 1, options)
  const published = await redis.client.xrange('orders', '-', '+')
  const [id = ''] = /^\S+/.exec(published[0]?.[1][5] ?? '') ?? []
  await redis.client.set(repliesKey('orders', id), 'x')
  const waiting = result({ timeoutMs: 4500 })
  const said = await eventually(() => {
    const line = lines.find(({ message }) => message.startsWith('cannot read results from Redis now'))
    expect(line).toBeDefined()
    return line
  })
  expect(said?.fields).toMatchObject({ producer: id, fault: expect.stringContaining('WRONGTYPE') as string })
  run.open()
  expect(await waiting).toBe(1)
})

test('results on a further stream are heard of while another one is read', async () => {
  const producer = newProducer({ redis: redis.url })
  for (const stream of ['orders', 'mails', 'bills'])
    await startWorker({ redis: redis.url, stream, handlers: { x: (n) => n } })
  const first = await producer.publish('x', 1, options)
  expect(await first.result(LONG)).toBe(1)
  for (const [n, stream] of ['mails', 'bills', 'orders'].entries()) {
    const { result } = await producer.publish('x', n, { ...options, stream })
    expect(await result(LONG)).toBe(n)
  }
})

test('a worker out of memory settles, and the result is told where there is room for it', async () => {
  const server = await startServer()
  const client = connectTo(server.url)
  const run = gate()
  const worker = await startWorker({ redis: server.url, handlers: { x: async (n) => (await run.wait(), n) } })
  const producer = newProducer({ redis: server.url, maxMemoryShare: false })
  const { result } = await producer.publish('x', 1, options)
  const waiting = result(LONG)
  await eventually(() => expect(worker.counts.delivered).toBe(1))
  await client.config('SET', 'maxmemory', '1')
  run.open()
  expect(await waiting).toBe(1)
  await eventually(() => expect(worker.counts.completed).toBe(1))
  await client.config('SET', 'maxmemory', '0')
})

test('keys of another type in the way of an answer do not keep a job from being settled', async () => {
  const worker = await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
  const producer = newProducer({ redis: redis.url })
  await redis.client.set(repliesKey('orders', 'p'), 'x')
  await redis.client.xadd('orders', '*', 'job', 'x', 'data', '1', 'reply', 'p * 60000')
  const { result } = await producer.publish('x', 2, options)
  expect(await result(LONG)).toBe(2)
  await eventually(() => expect(worker.counts.completed).toBe(2))
})

test('of 400 results, with a killed worker, a reset connection and a trimmed reply stream, each comes once', async () => {
  const proxy = await startProxy(redis.url)
  const { logger } = keepingLogger()
  const producer = newProducer({ redis: proxy.url, logger })
  const workers = await Promise.all([0, 1, 2].map(() => startWorkerProcess({ redis: redis.url, leaseMs: 1000 })))
  const numbers = Array.from({ length: 400 }, (_, n) => n)
  let ended = 0
  const waiting = numbers.map(async () => {
    const { result } = await producer.publish('slow', { ms: 20 }, options)
    await result({ timeoutMs: 120_000 })
    ended += 1
  })
  await eventually(() => expect(ended).toBeGreaterThan(40))
  workers[0]?.signal('SIGKILL')
  await eventually(() => expect(ended).toBeGreaterThan(80))
  proxy.cut()
  const [replies = ''] = await redis.client.keys('*:replies:*')
  await redis.client.xtrim(replies, 'MAXLEN', 0)
  await Promise.all(waiting)
  expect(ended).toBe(400)
}, 180_000)

test('a process that waits for nothing ends, though its producer is open', async () => {
  await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
  const child = startChild(new URL('./fixtures/result-waiter.ts', import.meta.url), { env: { URL: redis.url } })
  await child.line(/^result 1$/)
  expect(await child.exited).toMatchObject({ code: 0 })
})
