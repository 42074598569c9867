import { setImmediate as nextTurn } from 'node:timers/promises'
import { beforeEach, describe, expect, test } from 'vitest'
import { PublishError, type Producer } from '../src/index.ts'
import { failureOf, isBatch, loadScripts, newProducer, publish, storedNumbers } from './fixtures/producers.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'
import { gate } from './helpers/workers.ts'

const redis = withRedis()

beforeEach(() => loadScripts(redis.client))

/** Jobs that publishMany lets wait: two batches. */
const AHEAD = 1000
const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n)
const numbersIn = () => storedNumbers(redis.client)

function publishMany(producer: Producer, items: Iterable<unknown> | AsyncIterable<unknown>, timeoutMs = 30_000) {
  return producer.publishMany('x', items, { stream: 'orders', timeoutMs })
}

function* counted(count: number, pulled: { jobs: number }): Generator<number> {
  for (let n = 0; n < count; n++) {
    pulled.jobs += 1
    yield n
  }
}

async function* slowly(items: Iterable<unknown>): AsyncGenerator<unknown> {
  for (const item of items) {
    await nextTurn()
    yield item
  }
}

test.each([
  ['an array', upTo(2500)],
  ['a generator', counted(2500, { jobs: 0 })],
  ['a set', new Set(upTo(2500))],
  ['an async generator', slowly(upTo(2500))],
])('all jobs of %s are published, each once and in its order', async (_what, items) => {
  const published = await publishMany(newProducer({ redis: redis.url }), items)

  expect(published).toEqual({ published: 2500 })
  expect(await numbersIn()).toEqual(upTo(2500))
})

test('nothing to publish is no error', async () => {
  expect(await publishMany(newProducer({ redis: redis.url }), [])).toEqual({ published: 0 })
})

describe('memory', () => {
  test.each([
    ['a generator', (pulled: { jobs: number }) => counted(5000, pulled)],
    ['an async generator', (pulled: { jobs: number }) => slowly(counted(5000, pulled))],
  ])('%s is not taken from while Redis does not confirm', async (_what, items) => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const pulled = { jobs: 0 }
    const publishing = publishMany(producer, items(pulled))
    await hold.held
    for (let turns = 0; turns < 5000; turns++) await nextTurn()
    const ahead = pulled.jobs
    hold.release()
    await publishing

    expect(ahead).toBeLessThanOrEqual(AHEAD + 1)
    expect(await numbersIn()).toEqual([0, ...upTo(5000)])
  })

  test('an endless generator is never more than two batches ahead of what Redis has', async () => {
    const producer = newProducer({ redis: redis.url })
    let pulled = 0
    let farthest = 0
    async function* endless(): AsyncGenerator<number> {
      for (;;) {
        if (pulled % 250 === 0) farthest = Math.max(farthest, pulled - (await redis.client.xlen('orders')))
        yield pulled++
      }
    }
    const failure = failureOf(publishMany(producer, endless()))
    await eventually(() => expect(pulled).toBeGreaterThan(20_000))
    await producer.close()

    expect(await failure).toMatchObject({ code: 'ERR_PRODUCER_CLOSED', published: 'no' })
    expect((await failure).confirmed).toBe(await redis.client.xlen('orders'))
    expect(farthest).toBeLessThanOrEqual(AHEAD + 1)
  })

  test('what an iterable yields after the producer was closed is not waited for', async () => {
    const producer = newProducer({ redis: redis.url })
    const hold = gate()
    async function* held(): AsyncGenerator<number> {
      yield 0
      await hold.wait()
      yield 1
    }
    const failure = failureOf(publishMany(producer, held(), 3_600_000))
    await eventually(async () => expect(await numbersIn()).toEqual([0]))
    await producer.close()
    hold.open()

    expect(await failure).toMatchObject({ code: 'ERR_PRODUCER_CLOSED', published: 'no', confirmed: 1 })
    expect(await numbersIn()).toEqual([0])
  })

  test('an async iterable that ends after the producer was closed has published all there was', async () => {
    const producer = newProducer({ redis: redis.url })
    const hold = gate()
    async function* held(): AsyncGenerator<number> {
      yield* upTo(2)
      await hold.wait()
    }
    const publishing = publishMany(producer, held())
    await eventually(async () => expect(await numbersIn()).toEqual([0, 1]))
    await producer.close()
    hold.open()

    expect(await publishing).toEqual({ published: 2 })
  })

  test('large jobs wait by their bytes: at most 4 MiB and one job', async () => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    let pulled = 0
    function* large(): Generator<string> {
      for (; pulled < 40; pulled++) yield 'x'.repeat(1024 * 1000)
    }
    const publishing = publishMany(producer, large())
    await hold.held
    for (let turns = 0; turns < 1000; turns++) await nextTurn()
    const ahead = pulled
    hold.release()
    await publishing

    expect(ahead).toBeLessThanOrEqual(7)
    expect(await redis.client.xlen('orders')).toBe(41)
  })
})

describe('an error on the way', () => {
  test('of the iterable passes as it is, and what was taken is in Redis', async () => {
    const broken = new Error('disk full')
    function* items(): Generator<number> {
      yield* upTo(1500)
      throw broken
    }

    expect(await failureOf(publishMany(newProducer({ redis: redis.url }), items()))).toBe(broken)
    expect(await numbersIn()).toEqual(upTo(1500))
  })

  test('of an async iterable passes as it is, and what was taken is in Redis', async () => {
    const broken = new Error('disk full')
    async function* items(): AsyncGenerator<number> {
      yield* upTo(1500)
      throw broken
    }

    expect(await failureOf(publishMany(newProducer({ redis: redis.url }), items()))).toBe(broken)
    expect(await numbersIn()).toEqual(upTo(1500))
  })

  test('that is a payload no JSON can hold ends it there, and `confirmed` counts those before it', async () => {
    const items = [...upTo(1200), 1n, ...upTo(10)]
    const failure = await failureOf(publishMany(newProducer({ redis: redis.url }), items))

    expect(failure).toBeInstanceOf(PublishError)
    expect(await numbersIn()).toEqual(upTo(1200))
    expect(failure).toMatchObject({ code: 'ERR_PAYLOAD', published: 'no', confirmed: 1200 })
  })

  test('closes the iterable, which may hold a file open', async () => {
    let closed = false
    function* items(): Generator<unknown> {
      try {
        yield* [1, 1n]
      } finally {
        closed = true
      }
    }
    await failureOf(publishMany(newProducer({ redis: redis.url }), items()))

    expect(closed).toBe(true)
  })

  test('that is the time of a batch on its way is unknown, and `confirmed` counts what is certain', async () => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    let batches = 0
    const silenced = proxy.swallowReplyKeepOpen((command) => isBatch(command) && ++batches === 3)
    const failure = failureOf(publishMany(producer, upTo(5000), 2000))
    await silenced

    expect(await failure).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT', published: 'unknown' })
    const { confirmed } = await failure
    expect(confirmed).toBeGreaterThan(0)
    const numbers = (await numbersIn()).slice(1)
    expect(numbers).toEqual(upTo(numbers.length))
    expect(numbers.length).toBeGreaterThan(confirmed)
    expect(numbers.length).toBeLessThanOrEqual(confirmed + 500)
  })

  test('that is the time while Redis is away is certain: nothing is in Redis', async () => {
    const producer = newProducer({ redis: 'redis://127.0.0.1:1' })
    const failure = await failureOf(publishMany(producer, upTo(5000), 100))

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT', published: 'no', confirmed: 0 })
  })
})
