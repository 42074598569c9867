import { setImmediate as nextTurn } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'
import { freePort } from '../cli/free-port.ts'
import { PublishError } from '../src/index.ts'
import {
  failureOf,
  isBatch,
  loadScripts,
  newProducer,
  publish,
  scriptCalls,
  stored,
  storedNumbers,
} from './fixtures/producers.ts'
import { startChild } from './helpers/child.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()

beforeEach(() => loadScripts(redis.client))

const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n)

test('a publish resolves with the id of its entry, which holds the name and the data', async () => {
  const producer = newProducer({ redis: redis.url })
  const { id, outcome } = await producer.publish('send-receipt', { order: 42, text: 'é\0' }, { stream: 'orders' })

  expect(outcome).toBe('added')
  const json = JSON.stringify({ order: 42, text: 'é\0' })
  expect(await redis.client.xrange('orders', '-', '+')).toEqual([[id, ['job', 'send-receipt', 'data', json]]])
})

test('null, false, 0 and the empty string are data as good as any', async () => {
  const producer = newProducer({ redis: redis.url })
  for (const data of [null, false, 0, '']) await producer.publish('x', data, { stream: 'orders' })

  const entries = await redis.client.xrange('orders', '-', '+')
  expect(entries.map(([, fields]) => fields[3])).toEqual(['null', 'false', '0', '""'])
})

test('the first publish puts its stream on the list of streams', async () => {
  const producer = newProducer({ redis: redis.url })
  await publish(producer, 1)
  await producer.close()

  expect(await redis.client.smembers('millrace:streams')).toEqual(['orders'])
})

describe('batches', () => {
  test('publishes of one turn travel in one call, in their order', async () => {
    const producer = newProducer({ redis: redis.url })
    await publish(producer, 0)
    await redis.client.config('RESETSTAT')
    const ids = await Promise.all(upTo(500).map((n) => publish(producer, n + 1)))

    expect(await scriptCalls(redis.client)).toBe(1)
    expect(await storedNumbers(redis.client)).toEqual(upTo(501))
    expect((await stored(redis.client)).ids.slice(1)).toEqual(ids)
  })

  test('grow while one is on its way', async () => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    await redis.client.config('RESETSTAT')
    const hold = proxy.holdBefore(isBatch)
    const publishing = [publish(producer, 1)]
    await hold.held
    for (let n = 2; n <= 100; n++) {
      publishing.push(publish(producer, n))
      await nextTurn()
    }
    hold.release()
    await Promise.all(publishing)

    expect(await scriptCalls(redis.client)).toBe(2)
    expect(await storedNumbers(redis.client)).toEqual(upTo(101))
  })

  test('hold at most 500 jobs', async () => {
    const producer = newProducer({ redis: redis.url })
    await publish(producer, 0)
    await redis.client.config('RESETSTAT')
    await Promise.all(upTo(1001).map((n) => publish(producer, n + 1)))

    expect(await scriptCalls(redis.client)).toBe(3)
    expect(await storedNumbers(redis.client)).toEqual(upTo(1002))
  })

  test('hold at most 1 MiB, and a larger job travels alone', async () => {
    const producer = newProducer({ redis: redis.url, maxPayloadBytes: 3 * 1024 * 1024 })
    await publish(producer, 0)
    await redis.client.config('RESETSTAT')
    const kibibytes = [600, 400, 600, 2000, 10]
    await Promise.all(kibibytes.map((size) => producer.publish('x', 'x'.repeat(size * 1024), { stream: 'orders' })))

    expect(await scriptCalls(redis.client)).toBe(4)
    const entries = await redis.client.xrange('orders', '-', '+')
    expect(entries.slice(1).map(([, fields]) => ((fields[3]?.length ?? 0) - 2) / 1024)).toEqual(kibibytes)
  })

  test('to a key that is no stream are refused at once, and those to other streams go their way', async () => {
    await redis.client.set('mails', 'text')
    const producer = newProducer({ redis: redis.url })
    const refused = failureOf(producer.publish('x', 1, { stream: 'mails', timeoutMs: 300_000 }))
    await publish(producer, 1)

    expect(await refused).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', published: 'no' })
    expect((await refused).message).toContain('WRONGTYPE')
    expect(await redis.client.get('mails')).toBe('text')
    expect(await storedNumbers(redis.client)).toEqual([1])
  })
})

describe('the waiting line', () => {
  test('refuses a job beyond its bound while Redis is away, and says that it is not in Redis', async () => {
    const server = await startServer({ aof: true })
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 3 } })
    await publish(producer, 0)
    await server.kill()
    const waiting = [1, 2, 3].map((n) => publish(producer, n))
    const refused = await failureOf(publish(producer, 4))

    expect(refused).toBeInstanceOf(PublishError)
    expect(refused).toMatchObject({ code: 'ERR_BUFFER_FULL', published: 'no' })
    await server.restart()
    await Promise.all(waiting)
    await publish(producer, 5)
    expect(await storedNumbers(connectTo(server.url))).toEqual([0, 1, 2, 3, 5])
  })

  test('is bounded in bytes too', async () => {
    const producer = newProducer({ redis: `redis://127.0.0.1:${await freePort()}`, buffer: { maxBytes: 1000 } })
    const first = failureOf(producer.publish('x', 'x'.repeat(2000), { stream: 'orders' }))
    const second = await failureOf(publish(producer, 2))

    expect(second).toMatchObject({ code: 'ERR_BUFFER_FULL', published: 'no' })
    await producer.close({ timeoutMs: 0 })
    expect(await first).toMatchObject({ published: 'no' })
  })

  test('has room again when its jobs have run out of time', async () => {
    const producer = newProducer({ redis: `redis://127.0.0.1:${await freePort()}`, buffer: { maxJobs: 1 } })
    expect(await failureOf(publish(producer, 1, { timeoutMs: 50 }))).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT' })

    expect(await failureOf(publish(producer, 2, { timeoutMs: 50 }))).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT' })
  })
})

describe('close', () => {
  test('brings what waits into Redis, and then nothing more is taken', async () => {
    const producer = newProducer({ redis: redis.url })
    const publishing = upTo(700).map((n) => publish(producer, n))

    expect(await producer.close()).toEqual({ unpublished: [], spilled: 0 })
    await Promise.all(publishing)
    expect(await storedNumbers(redis.client)).toEqual(upTo(700))
    expect(await failureOf(publish(producer, 700))).toMatchObject({ code: 'ERR_PRODUCER_CLOSED', published: 'no' })
    expect(await producer.close()).toEqual({ unpublished: [], spilled: 0 })
  })

  test('whose time is over rejects what waits as not in Redis', async () => {
    const producer = newProducer({ redis: `redis://127.0.0.1:${await freePort()}` })
    const publishing = [1, 2].map((n) => failureOf(publish(producer, n)))

    expect(await producer.close({ timeoutMs: 50 })).toMatchObject({
      unpublished: [1, 2].map((data) => ({ stream: 'orders', job: 'x', data, published: 'no', spilled: false })),
    })
    for (const failure of await Promise.all(publishing)) {
      expect(failure).toMatchObject({ published: 'no' })
      expect(failure.message).toContain('the producer was closed')
    }
  })

  test('whose time is over rejects what is on its way as unknown', async () => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    const silenced = proxy.swallowReplyKeepOpen(isBatch)
    const publishing = failureOf(publish(producer, 1))
    await silenced

    expect(await producer.close({ timeoutMs: 50 })).toMatchObject({ unpublished: [{ data: 1, published: 'unknown' }] })
    expect(await publishing).toMatchObject({ published: 'unknown' })
    expect(await storedNumbers(redis.client)).toEqual([0, 1])
  })

  test('before the first publish ends at once', async () => {
    expect(await newProducer({ redis: 'redis://127.0.0.1:1' }).close()).toEqual({ unpublished: [], spilled: 0 })
  })
})

describe('an idle producer', () => {
  const fixture = new URL('./fixtures/idle-producer.ts', import.meta.url)

  test('does not keep its process running', async () => {
    const child = startChild(fixture, { args: ['idle', redis.url] })

    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toEqual(['added'])
  })

  test('does not keep its process running when Redis has gone away', async () => {
    const server = await startServer()
    const child = startChild(fixture, { args: ['lost', server.url] })

    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toEqual(['added'])
  })

  test('does not keep its process running when Redis was never there', async () => {
    const child = startChild(fixture, { args: ['unreachable', `redis://127.0.0.1:${await freePort()}`] })

    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toEqual(['no'])
  })

  test('whose key was removed meanwhile publishes its next job once', async () => {
    const producer = newProducer({ redis: redis.url })
    await publish(producer, 1)
    await redis.client.del(...(await redis.client.keys('{orders}:producer:*')))
    for (const n of [2, 3]) await publish(producer, n)

    expect(await storedNumbers(redis.client)).toEqual([1, 2, 3])
  })
})
