import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, describe, expect, test } from 'vitest'
import { Producer, type Durability, type ProducerOptions } from '../src/index.ts'
import { failureOf, isBatch, loadScripts, publish, stored, storedNumbers } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()
const ORDERS = { stream: 'orders' }
const AWAY = 'redis://127.0.0.1:1'
const keyOfProducer = async (): Promise<string> => (await redis.client.keys('{orders}:producer:*'))[0] ?? ''

beforeEach(() => loadScripts(redis.client))

function newProducer<Default extends Durability = 'redis'>(options: ProducerOptions<Default>): Producer<Default> {
  const producer = new Producer({ logger: false, ...options })
  onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
  return producer
}

describe('a signal that is aborted while a job', () => {
  test('of its batch is told of changes nothing for the others, which are in Redis', async () => {
    const producer = newProducer({ redis: redis.url })
    const controller = new AbortController()
    producer.on('job:published', () => controller.abort())
    const buffered = producer.publish('x', 1, { ...ORDERS, durability: 'buffered' })
    const awaited = producer.publish('x', 2, { ...ORDERS, signal: controller.signal })
    await Promise.all([buffered, awaited])
    await publish(producer, 3)

    expect((await stored(redis.client)).ids[1]).toBe((await awaited).id)
    expect(await storedNumbers(redis.client)).toEqual([1, 2, 3])
  })

  test('is on its way and the producer closes does not say that it is not in Redis', async () => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const controller = new AbortController()
    const failure = failureOf(producer.publish('x', 1, { ...ORDERS, signal: controller.signal }))
    await hold.held
    const closing = producer.close({ timeoutMs: 0 })
    controller.abort()
    hold.release()

    expect(await failure).toMatchObject({ published: 'unknown' })
    expect((await closing).unpublished).toMatchObject([{ data: 1, published: 'unknown' }])
  })
})

describe('those who wait for room', () => {
  const TEXT = (length: number) => 'a'.repeat(length)

  test.each([
    ['was taken back', true],
    ['has waited too long', false],
  ])('are let in when one before them that is too large %s', async (_why, isAborted) => {
    const producer = newProducer({
      redis: AWAY,
      durability: 'buffered',
      buffer: { maxBytes: 1000, whenFull: 'wait' },
    })
    const controller = new AbortController()
    await producer.publish('x', TEXT(500), ORDERS)
    const timeoutMs = isAborted ? 60_000 : 50
    const large = failureOf(producer.publish('x', TEXT(800), { ...ORDERS, timeoutMs, signal: controller.signal }))
    const small = producer.publish('x', TEXT(100), { ...ORDERS, timeoutMs: 60_000 })
    if (isAborted) controller.abort()

    expect((await large).published).toBe('no')
    expect(await small).toMatchObject({ outcome: 'buffered' })
  })

  test('have no ref yet when the producer closes, nor has one that is shed at once', async () => {
    const waiting = newProducer({ redis: AWAY, durability: 'buffered', buffer: { maxJobs: 1, whenFull: 'wait' } })
    const { ref } = await waiting.publish('x', 1, ORDERS)
    const atDoor = failureOf(waiting.publish('x', 2, ORDERS))
    const { unpublished } = await waiting.close({ timeoutMs: 0 })
    await atDoor
    const shed: unknown[] = []
    const onShed = (job: { ref: string | undefined }): void => void shed.push(job.ref)
    const shedding = newProducer({
      redis: AWAY,
      durability: 'buffered',
      buffer: { maxJobs: 1, whenFull: 'shed', onShed },
    })
    const first = await shedding.publish('x', 1, { ...ORDERS, bufferPriority: 4 })
    await failureOf(shedding.publish('x', 2, { ...ORDERS, bufferPriority: 0 }))
    await shedding.publish('x', 3, ORDERS)

    expect(unpublished.map((job) => job.ref)).toEqual([ref, undefined])
    expect(shed).toEqual([undefined, first.ref])
  })
})

describe('publishMany', () => {
  test('is given up in time where so much waits for Redis that it never has a turn', async () => {
    const producer = newProducer({ redis: AWAY })
    for (let n = 0; n < 1000; n++) await producer.publish('x', n, { ...ORDERS, durability: 'buffered' })

    expect(await failureOf(producer.publishMany('x', [1, 2], { ...ORDERS, timeoutMs: 100 }))).toMatchObject({
      code: 'ERR_PUBLISH_TIMEOUT',
      published: 'no',
      confirmed: 0,
    })
  })

  test('leaves nothing at a signal that outlives it', async () => {
    const producer = newProducer({ redis: redis.url })
    const { signal } = new AbortController()
    let listeners = 0
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)]
    signal.addEventListener = (...given: Parameters<typeof add>) => ((listeners += 1), add(...given))
    signal.removeEventListener = (...given: Parameters<typeof remove>) => ((listeners -= 1), remove(...given))
    await producer.publishMany('x', [1, 2], { ...ORDERS, signal })

    expect(listeners).toBe(0)
  })
})

describe('a Redis that has lost batches', () => {
  test('and finds them again never takes one batch for another', async () => {
    const producer = newProducer({ redis: redis.url })
    for (const n of [1, 2, 3]) await publish(producer, n)
    const key = await keyOfProducer()
    const ids = (await redis.client.hget(key, 'ids')) ?? ''
    // As after a failover to a replica that was two batches behind ...
    await redis.client.hset(key, { seq: 1, ids: '1-1' })
    await publish(producer, 4)
    // ... and back.
    await redis.client.hset(key, { seq: 3, ids })
    await publish(producer, 5)

    expect(await storedNumbers(redis.client)).toEqual([1, 2, 3, 4, 5])
  })

  test('while replicas were waited for gets the job again: nobody is told of a job that is nowhere', async () => {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    for (const n of [1, 2]) await publish(producer, n)
    const key = await keyOfProducer()
    const hold = proxy.holdBefore(([name]) => name === 'wait')
    const durability = { replicas: 1, timeoutMs: 60_000 }
    const publishing = producer.publish('x', 3, { ...ORDERS, durability, timeoutMs: 60_000 })
    await hold.held
    // A failover to a replica that lacks the last two batches.
    const { ids } = await stored(redis.client)
    await redis.client.xdel('orders', ids[1] ?? '', ids[2] ?? '')
    await redis.client.hset(key, { seq: 1, ids: ids[0] ?? '' })
    proxy.cut()
    hold.release()

    await eventually(async () => expect(await storedNumbers(redis.client)).toEqual([1, 3]))
    await producer.close({ timeoutMs: 0 })
    expect(await publishing).toMatchObject({ id: (await stored(redis.client)).ids[1], isReplicated: false })
  })
})

describe('close', () => {
  test('that is called again may shorten the time, and resolves when all is done, too', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'millrace-close-'))
    onEnd(() => rm(folder, { recursive: true }))
    const spillFile = join(folder, 'spill')
    const producer = newProducer({ redis: AWAY, durability: 'buffered', buffer: { spillFile } })
    await producer.publish('x', 1, ORDERS)
    const first = producer.close({ timeoutMs: 60_000 })

    expect((await producer.close({ timeoutMs: 0 })).unpublished).toEqual([])
    expect(await readFile(spillFile, 'utf8')).toContain('"end":true')
    expect(await first).toMatchObject({ unpublished: [{ data: 1, spilled: true }], spilled: 1 })
  })

  test('by the payload that is being published leaves no publish without an answer', async () => {
    const producer = newProducer({ redis: AWAY })
    const closing = { toJSON: () => (void producer.close({ timeoutMs: 0 }), 1) }

    expect(await failureOf(producer.publish('x', closing, ORDERS))).toMatchObject({ code: 'ERR_PRODUCER_CLOSED' })
    expect(await eventually(() => producer.close())).toMatchObject({ unpublished: [] })
  })
})
