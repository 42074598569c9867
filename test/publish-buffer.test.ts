import { getEventListeners } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { describe, expect, expectTypeOf, test } from 'vitest'
import {
  defineJob,
  Producer,
  SpillError,
  type BufferedJob,
  type Durability,
  type ProducerOptions,
  type PublishedJob,
  type ReplicatedJob,
} from '../src/index.ts'
import { settingsKey } from '../src/redis/keys.ts'
import { failureOf, isBatch, loadScripts, publish, stored, storedNumbers } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()
const ORDERS = { stream: 'orders' }
const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n)

function newProducer<Default extends Durability = 'redis'>(options: ProducerOptions<Default>): Producer<Default> {
  const producer = new Producer({ logger: false, ...options })
  onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
  return producer
}

/** A Redis that is away until it is told to come. */
async function awayServer() {
  const server = await startServer({ aof: true })
  await server.kill()
  return server
}

describe('a full buffer that rejects', () => {
  test('says so with a BufferFullError and takes jobs again once Redis has taken those that wait', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 2 } })
    const waiting = [0, 1].map((n) => publish(producer, n))

    expect(await failureOf(publish(producer, 2))).toMatchObject({
      name: 'BufferFullError',
      code: 'ERR_BUFFER_FULL',
      published: 'no',
    })
    await server.restart()
    await Promise.all(waiting)
    await publish(producer, 3)
    expect(await storedNumbers(connectTo(server.url))).toEqual([0, 1, 3])
  })

  test('counts bytes as well, and takes a job that is larger than all of it when it is empty', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxBytes: 100 } })
    const large = producer.publish('x', 'a'.repeat(200), ORDERS)

    expect(await failureOf(publish(producer, 1))).toMatchObject({ code: 'ERR_BUFFER_FULL' })
    await server.restart()
    await large
    await publish(producer, 2)
  })

  test('has room again when what waited was given up', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 1 } })
    expect(await failureOf(publish(producer, 0, { timeoutMs: 50 }))).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT' })

    expect(await failureOf(publish(producer, 1, { timeoutMs: 50 }))).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT' })
  })
})

describe('a full buffer that has publishers wait', () => {
  test('lets them in as there is room, in their order, and each of them is in Redis once', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 3, whenFull: 'wait' } })
    const publishing = upTo(6).map((n) => publish(producer, n))
    await server.restart()
    await Promise.all(publishing)

    expect(await storedNumbers(connectTo(server.url))).toEqual(upTo(6))
  })

  test('fails those whose time is up before there was room, as a full buffer does', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 1, whenFull: 'wait' } })
    const first = publish(producer, 0)

    expect(await failureOf(publish(producer, 1, { timeoutMs: 50 }))).toMatchObject({ code: 'ERR_BUFFER_FULL' })
    await server.restart()
    await first
    expect(await storedNumbers(connectTo(server.url))).toEqual([0])
  })

  test('has no endless line before it: as many as it holds may wait for room', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 2, whenFull: 'wait' } })
    const all = upTo(5).map((n) => failureOf(publish(producer, n, { timeoutMs: 300 })))

    expect(await Promise.all(all)).toMatchObject([
      { code: 'ERR_PUBLISH_TIMEOUT' },
      { code: 'ERR_PUBLISH_TIMEOUT' },
      { code: 'ERR_BUFFER_FULL' },
      { code: 'ERR_BUFFER_FULL' },
      { code: 'ERR_BUFFER_FULL' },
    ])
  })

  test('resolves a buffered publish only once it is in the buffer', async () => {
    const server = await awayServer()
    const producer = newProducer({
      redis: server.url,
      durability: 'buffered',
      buffer: { maxJobs: 1, whenFull: 'wait' },
      timeoutMs: 30_000,
    })
    await producer.publish('x', 0, ORDERS)
    let isIn = false
    const second = producer.publish('x', 1, ORDERS).then(() => (isIn = true))
    expect(await failureOf(producer.publish('x', 2, { ...ORDERS, timeoutMs: 50 }))).toMatchObject({
      code: 'ERR_BUFFER_FULL',
    })
    expect(isIn).toBe(false)
    await server.restart()
    await second
    await eventually(async () => expect(await storedNumbers(connectTo(server.url))).toEqual([0, 1]))
  })

  test('keeps a buffered job, once it is in, as long as its priority may wait, not its caller', async () => {
    const server = await awayServer()
    const buffer = { maxJobs: 1, whenFull: 'wait', maxAgeMs: { 0: 50 } } as const
    const producer = newProducer({ redis: server.url, durability: 'buffered', buffer, timeoutMs: 1000 })
    await producer.publish('x', 0, { ...ORDERS, bufferPriority: 0 })
    await producer.publish('x', 1, ORDERS)
    // Its caller waits as long as that of the one before it would have.
    expect(await failureOf(producer.publish('x', 2, ORDERS))).toMatchObject({ code: 'ERR_BUFFER_FULL' })
    await server.restart()
    await eventually(async () => expect(await storedNumbers(connectTo(server.url))).toEqual([1]))
  })
})

test('a batch that Redis refuses for now goes back before what came after it: the order stays', async () => {
  const server = await startServer()
  const client = connectTo(server.url)
  await client.config('SET', 'maxmemory', '1')
  const producer = newProducer({ redis: server.url, maxMemoryShare: false })
  const first = upTo(5).map((n) => publish(producer, n))
  await eventually(async () => expect(await client.info('errorstats')).toMatch(/errorstat_OOM:count=\d/))
  const more = upTo(5).map((n) => publish(producer, n + 5))
  await client.config('SET', 'maxmemory', '0')
  await Promise.all([...first, ...more])

  expect(await storedNumbers(client)).toEqual(upTo(10))
})

describe('a signal', () => {
  test('takes back a job that waits in the buffer, and one that waits for room', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxJobs: 2, whenFull: 'wait' } })
    const [inBuffer, atDoor] = [new AbortController(), new AbortController()]
    const stays = publish(producer, 0)
    const taken = failureOf(producer.publish('x', 1, { ...ORDERS, signal: inBuffer.signal }))
    const waits = failureOf(producer.publish('x', 2, { ...ORDERS, signal: atDoor.signal }))
    atDoor.abort()
    inBuffer.abort()

    for (const failure of [await taken, await waits]) {
      expect(failure).toMatchObject({ code: 'ERR_PUBLISH_ABORTED', published: 'no' })
    }
    const last = publish(producer, 3)
    await server.restart()
    await Promise.all([stays, last])
    expect(await storedNumbers(connectTo(server.url))).toEqual([0, 3])
  })

  test('may be that of many publishes at once: all of them are taken back, and Node sees no leak of listeners', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url })
    const controller = new AbortController()
    const { signal } = controller
    const failures = upTo(20).map((n) => failureOf(producer.publish('x', n, { ...ORDERS, signal })))
    expect(getEventListeners(signal, 'abort')).toHaveLength(1)
    controller.abort()
    for (const failure of await Promise.all(failures)) expect(failure).toMatchObject({ code: 'ERR_PUBLISH_ABORTED' })
    expect(getEventListeners(signal, 'abort')).toHaveLength(0)
  })

  test('that was aborted before publishes nothing, and one that is aborted afterwards changes nothing', async () => {
    const producer = newProducer({ redis: redis.url })
    const late = new AbortController()
    const { id } = await producer.publish('x', 1, { ...ORDERS, signal: late.signal })
    late.abort()

    expect(await failureOf(producer.publish('x', 2, { ...ORDERS, signal: late.signal }))).toMatchObject({
      code: 'ERR_PUBLISH_ABORTED',
    })
    await publish(producer, 3)
    expect((await stored(redis.client)).ids[0]).toBe(id)
    expect(await storedNumbers(redis.client)).toEqual([1, 3])
  })

  test('does not take back a job that is on its way: it gets its answer', async () => {
    await loadScripts(redis.client)
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const controller = new AbortController()
    const publishing = producer.publish('x', 1, { ...ORDERS, signal: controller.signal })
    await hold.held
    controller.abort()
    hold.release()
    await publishing

    expect(await storedNumbers(redis.client)).toEqual([0, 1])
  })

  test.each([
    ['the stream has no room', true],
    ['Redis has no memory', false],
  ])('takes back a job on its way as soon as %s for it, and no other of its batch', async (_why, isBound) => {
    await loadScripts(redis.client)
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url, maxMemoryShare: false })
    await redis.client.hset(settingsKey('orders'), 'maxBacklog', isBound ? 1 : 100)
    await publish(producer, 0)
    onEnd(async () => void (await redis.client.config('SET', 'maxmemory', '0')))
    if (!isBound) await redis.client.config('SET', 'maxmemory', '1')
    const hold = proxy.holdBefore(isBatch)
    const controller = new AbortController()
    const taken = failureOf(producer.publish('x', 1, { ...ORDERS, signal: controller.signal, timeoutMs: 30_000 }))
    const waits = publish(producer, 2)
    await hold.held
    controller.abort()
    hold.release()

    expect(await taken).toMatchObject({ code: 'ERR_PUBLISH_ABORTED', published: 'no' })
    await redis.client.config('SET', 'maxmemory', '0')
    await redis.client.del(settingsKey('orders'))
    await waits
    expect(await storedNumbers(redis.client)).toEqual([0, 2])
  })

  test('ends a publishMany, which says how many are in Redis', async () => {
    const producer = newProducer({ redis: redis.url })
    const controller = new AbortController()
    function* numbers(): Generator<number> {
      for (let n = 0; ; n++) {
        if (n === 1500) controller.abort()
        yield n
      }
    }
    const failure = await failureOf(producer.publishMany('x', numbers(), { ...ORDERS, signal: controller.signal }))

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_ABORTED' })
    expect(await storedNumbers(redis.client)).toEqual(upTo(failure.confirmed))
  })
})

describe('a full buffer that sheds', () => {
  async function shedding(maxJobs: number) {
    const server = await awayServer()
    const shed: unknown[] = []
    const onShed = (job: { data: unknown }): void => void shed.push(job.data)
    const producer = newProducer({ redis: server.url, buffer: { maxJobs, whenFull: 'shed', onShed } })
    const add = (data: string, bufferPriority: 0 | 5 | 9) => producer.publish('x', data, { ...ORDERS, bufferPriority })
    return { server, shed, add, producer }
  }

  test('has the youngest job of the lowest priority give way, and hands each with its payload to onShed', async () => {
    const { server, shed, add } = await shedding(4)
    const kept = [add('a9', 9)]
    const failures = [add('b0', 0), add('c0', 0)].map(failureOf)
    kept.push(add('d5', 5), add('e9', 9))
    failures.push(failureOf(add('f5', 5)))
    kept.push(add('g9', 9))

    expect(shed).toEqual(['c0', 'b0', 'f5'])
    for (const failure of await Promise.all(failures)) {
      expect(failure).toMatchObject({ code: 'ERR_PUBLISH_SHED', published: 'no' })
    }
    await server.restart()
    await Promise.all(kept)
    const entries = await connectTo(server.url).xrange('orders', '-', '+')
    expect(entries.map(([, fields]) => JSON.parse(fields[3] ?? '') as string)).toEqual(['a9', 'd5', 'e9', 'g9'])
  })

  test('sheds the newcomer where nobody is of a lower priority', async () => {
    const { shed, add } = await shedding(1)
    failureOf(add('a5', 5)).catch(() => {})

    expect(await failureOf(add('b5', 5))).toMatchObject({ code: 'ERR_PUBLISH_SHED' })
    expect(shed).toEqual(['b5'])
  })

  test('keeps those that could not make room enough, and sheds only the newcomer then', async () => {
    const server = await awayServer()
    const shed: unknown[] = []
    const onShed = (job: { data: unknown }): void => void shed.push(String(job.data).length)
    const producer = newProducer({ redis: server.url, buffer: { maxBytes: 300, whenFull: 'shed', onShed } })
    const add = (length: number, bufferPriority: 0 | 9) =>
      producer.publish('x', 'a'.repeat(length), { ...ORDERS, bufferPriority })
    const kept = [add(100, 9), add(50, 0), add(50, 0)]

    expect(await failureOf(add(250, 9))).toMatchObject({ code: 'ERR_PUBLISH_SHED' })
    expect(shed).toEqual([250])
    await server.restart()
    await Promise.all(kept)
  })

  test('goes on when onShed throws, and says that it did', async () => {
    const server = await awayServer()
    const said: string[] = []
    const say = (_: object, message: string): void => void said.push(message)
    const producer = new Producer({
      redis: server.url,
      logger: { debug: () => {}, info: () => {}, warn: say, error: say },
      buffer: {
        maxJobs: 1,
        whenFull: 'shed',
        onShed: () => {
          throw new Error('no')
        },
      },
    })
    onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
    const given = failureOf(producer.publish('x', 1, { ...ORDERS, bufferPriority: 0 }))
    const kept = failureOf(producer.publish('x', 2, ORDERS))

    expect(await given).toMatchObject({ code: 'ERR_PUBLISH_SHED' })
    expect(said.filter((message) => message.startsWith('onShed failed'))).toHaveLength(1)
    await producer.close({ timeoutMs: 0 })
    expect(await kept).toMatchObject({ published: 'no' })
  })
})

describe('a publish whose batch was sent', () => {
  test('and refused for now is not in Redis, and says so when its time is up', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const producer = newProducer({ redis: server.url })
    await publish(producer, 0)
    await client.replicaof('127.0.0.1', 1)
    expect(await failureOf(publish(producer, 1, { timeoutMs: 300 }))).toMatchObject({ published: 'no' })
    await client.replicaof('NO', 'ONE')
    await publish(producer, 2)

    expect(await storedNumbers(client)).toEqual([0, 2])
  })

  test('and not answered before Redis wants a password may be in Redis', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const proxy = await startProxy(server.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const publishing = failureOf(publish(producer, 1, { timeoutMs: 50_000 }))
    await hold.held
    await client.config('SET', 'requirepass', 'secret')
    proxy.cut()

    const failure = await publishing
    expect(failure).toMatchObject({ published: 'unknown' })
    expect(failure.message).toContain('NOAUTH')
  })
})

describe('a buffered publish', () => {
  test('resolves while Redis is away, at start too, and events tell its ref and its id once it is there', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, durability: 'buffered' })
    const told = new Map<string, string>()
    producer.on('job:published', ({ ref, id }) => told.set(ref, id))
    const refs: string[] = []
    for (const n of upTo(1200)) refs.push((await producer.publish('x', n, ORDERS)).ref)
    expect(new Set(refs).size).toBe(1200)
    await server.restart()
    await eventually(() => expect(told.size).toBe(1200))

    const found = await stored(connectTo(server.url))
    expect(found.numbers).toEqual(upTo(1200))
    expect(refs.map((ref) => told.get(ref))).toEqual(found.ids)
  })

  test('is given up when it is older than its priority allows, with its payload, and is not in Redis', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, durability: 'buffered', buffer: { maxAgeMs: { 0: 100 } } })
    const given = new Promise((resolve) => void producer.on('job:unpublished', resolve))
    const { ref } = await producer.publish('x', 'low', { ...ORDERS, bufferPriority: 0, delayMs: 5 })
    await producer.publish('x', 9, { ...ORDERS, bufferPriority: 9 })

    expect(await given).toMatchObject({
      ref,
      job: 'x',
      data: 'low',
      published: 'no',
      spilled: false,
      options: { stream: 'orders', bufferPriority: 0, delayMs: 5 },
    })
    await server.restart()
    await eventually(async () => expect(await storedNumbers(connectTo(server.url))).toEqual([9]))
  })

  test('or an awaited one waits no longer than its priority may', async () => {
    const server = await awayServer()
    const producer = newProducer({ redis: server.url, buffer: { maxAgeMs: { 0: 50 } } })
    const failed: number[] = []
    const fails = async (n: number, bufferPriority: 0 | 9, timeoutMs: number) => {
      await failureOf(producer.publish('x', n, { ...ORDERS, bufferPriority, timeoutMs }))
      failed.push(n)
    }
    await Promise.all([fails(0, 0, 2000), fails(1, 9, 300)])
    expect(failed).toEqual([0, 1])
  })

  test('outlives a password that Redis wants meanwhile, while one that is awaited is told at once', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.config('SET', 'requirepass', 'secret')
    const producer = newProducer({ redis: server.url, durability: 'buffered' })
    await producer.publish('x', 1, ORDERS)
    const awaited = await failureOf(producer.publish('x', 2, { ...ORDERS, durability: 'redis', timeoutMs: 30_000 }))
    expect(awaited).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', published: 'no' })
    await client.config('SET', 'requirepass', '')

    await eventually(async () => expect(await storedNumbers(client)).toEqual([1]))
  })

  test('may be so for one publish of a producer that waits for Redis, and the other way round', async () => {
    const waiting = newProducer({ redis: redis.url })
    const buffering = newProducer({ redis: redis.url, durability: 'buffered' })

    expect(await waiting.publish('x', 1, { ...ORDERS, durability: 'buffered' })).toMatchObject({ outcome: 'buffered' })
    expect(await buffering.publish('x', 2, { ...ORDERS, durability: 'redis' })).toMatchObject({ outcome: 'added' })
    expect(await buffering.publishMany('x', [3, 4], ORDERS)).toEqual({ published: 2 })
    await eventually(async () => expect((await storedNumbers(redis.client)).sort()).toEqual([1, 2, 3, 4]))
  })

  test('and its durability show in the type of what it resolves with', () => {
    const options = { stream: 'orders' }
    const plain = (producer: Producer) => producer.publish('x', 1, options)
    const buffered = (producer: Producer<'buffered'>) => producer.publish('x', 1)
    const own = (producer: Producer) => producer.publish('x', 1, { durability: { replicas: 1, timeoutMs: 5 } })
    const back = (producer: Producer<'buffered'>) => producer.publish('x', 1, { durability: 'redis' })
    expectTypeOf(plain).returns.resolves.toEqualTypeOf<PublishedJob>()
    expectTypeOf(buffered).returns.resolves.toEqualTypeOf<BufferedJob>()
    expectTypeOf(own).returns.resolves.toEqualTypeOf<ReplicatedJob>()
    expectTypeOf(back).returns.resolves.toEqualTypeOf<PublishedJob>()
    expectTypeOf(new Producer({ durability: 'buffered' })).toEqualTypeOf<Producer<'buffered'>>()
    expectTypeOf(new Producer({})).toEqualTypeOf<Producer>()
  })
})

test('a buffer that fills says so at 80 %, and again once it has eased', async () => {
  const server = await awayServer()
  const producer = newProducer({ redis: server.url, durability: 'buffered', buffer: { maxJobs: 10 } })
  const seen: unknown[] = []
  producer.on('buffer:high', ({ jobs, maxJobs }) => seen.push(['high', jobs, maxJobs]))
  producer.on('buffer:eased', ({ jobs }) => seen.push(['eased', jobs]))
  for (const n of upTo(10)) await producer.publish('x', n, ORDERS)
  expect(seen).toEqual([['high', 8, 10]])
  await server.restart()
  await eventually(() =>
    expect(seen).toEqual([
      ['high', 8, 10],
      ['eased', 5],
    ]),
  )
})

describe('replicas that are asked for', () => {
  test('have the job when its publish resolves', async () => {
    const [primary, replica] = await Promise.all([startServer(), startServer()])
    await connectTo(replica.url).replicaof('127.0.0.1', primary.port)
    await eventually(async () => expect(await connectTo(primary.url).info('replication')).toContain('state=online'))
    const producer = newProducer({ redis: primary.url })
    const durability = { replicas: 1, timeoutMs: 10_000 }

    const result = await producer.publish('x', 1, { ...ORDERS, durability })
    expect(result).toMatchObject({ outcome: 'added', replicas: 1, isReplicated: true })
    expect(await storedNumbers(connectTo(replica.url))).toEqual([1])
    expect(await producer.publishMany('x', upTo(700), { ...ORDERS, durability })).toEqual({
      published: 700,
      replicated: 700,
    })
  })

  test('that are not there in time are no failure: the result says so, and the job is in Redis once', async () => {
    const producer = newProducer({ redis: redis.url })
    const durability = { replicas: 2, timeoutMs: 50 }
    const [short, plain] = await Promise.all([
      producer.publish('x', 1, { ...ORDERS, durability }),
      producer.publish('x', 2, ORDERS),
    ])

    expect(short).toMatchObject({ outcome: 'added', replicas: 0, isReplicated: false })
    expect(plain).toEqual({ id: (await stored(redis.client)).ids[1], outcome: 'added' })
    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('are not taken for there after a lost connection, which has written nothing of its own yet', async () => {
    const [primary, replica] = await Promise.all([startServer(), startServer()])
    await connectTo(replica.url).replicaof('127.0.0.1', primary.port)
    const client = connectTo(primary.url)
    await eventually(async () => expect(await client.info('replication')).toContain('state=online'))
    const proxy = await startProxy(primary.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 0)
    replica.stopProcess()
    const names: (string | undefined)[] = []
    proxy.holdBefore(([name]) => names.push(name) === 0)
    const cut = proxy.cutBefore(([name]) => name === 'wait')
    const result = await producer.publish('x', 1, { ...ORDERS, durability: { replicas: 1, timeoutMs: 1500 } })
    await cut
    replica.continueProcess()

    expect(result).toMatchObject({ replicas: 0, isReplicated: false })
    expect(await storedNumbers(client)).toEqual([0, 1])
    // Where Redis counts only writes for WAIT, as since 7.2, a batch that was there already is none.
    const before = names.filter((_, at) => names[at + 1] === 'wait')
    expect(new Set(before)).toEqual(new Set(['pexpire']))
  })
})

describe('a stream that has its maxBacklog', () => {
  const bound = (most: number) => redis.client.hset(settingsKey('orders'), 'maxBacklog', most)

  test('takes just as many jobs as it has room for, and the rest as they are settled', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await bound(30)
    const producer = newProducer({ redis: redis.url, timeoutMs: 60_000 })
    const publishing = producer.publishMany('x', upTo(100), ORDERS)
    for (let settled = 0; settled < 100;) {
      const read = (await redis.client.xreadgroup('GROUP', 'main', 'me', 'COUNT', 10, 'STREAMS', 'orders', '>')) as
        [string, [string, string[]][]][] | null
      const ids = read?.[0]?.[1].map(([id]) => id) ?? []
      expect(await redis.client.xlen('orders')).toBeLessThanOrEqual(settled + 30)
      if (ids.length > 0) settled += await redis.client.xack('orders', 'main', ...ids)
    }

    expect(await publishing).toEqual({ published: 100 })
    expect(await storedNumbers(redis.client)).toEqual(upTo(100))
  })

  test('fails publishes whose time is up as full, and at once where that is wanted; buffered ones wait', async () => {
    await bound(1)
    const patient = newProducer({ redis: redis.url })
    const hasty = newProducer({ redis: redis.url, whenStreamFull: 'reject' })
    await publish(patient, 0)
    const full = { code: 'ERR_STREAM_FULL', published: 'no' }

    // Again where its last try was not answered in time, as on a busy machine: then nobody can say that it is full.
    await eventually(async () => expect(await failureOf(publish(patient, 1, { timeoutMs: 1000 }))).toMatchObject(full))
    expect(await failureOf(publish(hasty, 2, { timeoutMs: 60_000 }))).toMatchObject(full)
    await hasty.publish('x', 3, { ...ORDERS, durability: 'buffered' })
    expect(await failureOf(publish(hasty, 4, { timeoutMs: 60_000 }))).toMatchObject(full)
    await bound(10)
    await eventually(async () => expect(await storedNumbers(redis.client)).toEqual([0, 3]))
  })
})

test('what a close could not publish comes back with all that is needed to publish it again', async () => {
  const server = await awayServer()
  const producer = newProducer({ redis: server.url })
  const told: unknown[] = []
  producer.on('job:unpublished', ({ ref }) => told.push(ref))
  const awaited = failureOf(producer.publish('x', 1, { ...ORDERS, idempotencyToken: 'a', runAt: 5 }))
  const { ref } = await producer.publish('y', { a: 'b' }, { stream: 'mail', durability: 'buffered', delayMs: 10 })
  const { unpublished } = await producer.close({ timeoutMs: 0 })

  expect(unpublished).toMatchObject([
    {
      job: 'x',
      data: 1,
      ref: undefined,
      published: 'no',
      options: { stream: 'orders', runAt: 5, idempotencyToken: 'a', tokenTtlMs: 86_400_000 },
    },
    { job: 'y', data: { a: 'b' }, ref, published: 'no', options: { stream: 'mail', delayMs: 10 } },
  ])
  expect(await awaited).toMatchObject({ published: 'no' })
  expect(told).toEqual([ref])
  await server.restart()
  const again = newProducer({ redis: server.url })
  for (const { job, data, options } of unpublished) await again.publish(job, data, options)
  expect(await storedNumbers(connectTo(server.url))).toEqual([1])
})

test('what is given back keeps the version of its payload and its deadline, published again by its name', async () => {
  const job = defineJob<number>('x', { stream: 'orders', version: 2, upcast: { 1: (old) => old } })
  const expiresAt = Date.now() + 3_600_000
  const deadlines = [{ ttlMs: 60_000 }, { expiresAt: new Date(expiresAt) }]
  const away = newProducer({ redis: 'redis://127.0.0.1:1', durability: 'buffered' })
  for (const deadline of deadlines) await away.publish(job, 1, deadline)
  const { unpublished } = await away.close({ timeoutMs: 0 })

  expect(unpublished.map(({ options }) => options)).toEqual([
    { stream: 'orders', version: 2, ttlMs: 60_000 },
    { stream: 'orders', version: 2, expiresAt },
  ])
  const producer = newProducer({ redis: redis.url })
  for (const deadline of deadlines) await producer.publish(job, 1, deadline)
  for (const again of unpublished) await producer.publish(again.job, again.data, again.options)
  const fields = (await redis.client.xrange('orders', '-', '+')).map(([, entry]) => entry)
  expect(fields.slice(2)).toEqual(fields.slice(0, 2))
})

describe('a spill file', () => {
  async function spilling() {
    const server = await awayServer()
    const folder = await mkdtemp(join(tmpdir(), 'millrace-spill-'))
    onEnd(() => rm(folder, { recursive: true, force: true }))
    const buffer = { spillFile: join(folder, 'spill.ndjson') }
    const make = () => newProducer({ redis: server.url, durability: 'buffered', buffer })
    return { server, make, file: buffer.spillFile }
  }

  test('takes the buffered jobs of a close, and the next producer publishes them before its own', async () => {
    const { server, make, file } = await spilling()
    const first = make()
    for (const n of upTo(700)) await first.publish('x', n, ORDERS)
    const awaited = failureOf(first.publish('x', 700, { ...ORDERS, durability: 'redis' }))
    const closed = await first.close({ timeoutMs: 0 })

    expect(closed).toMatchObject({ spilled: 700, spillFile: file })
    expect(closed.unpublished.map(({ spilled }) => spilled)).toEqual([...upTo(700).map(() => true), false])
    expect(await awaited).toMatchObject({ published: 'no' })
    const second = make()
    const recovered = new Promise((resolve) => void second.on('spill:recovered', resolve))
    await second.publish('x', 701, ORDERS)
    await server.restart()
    expect(await recovered).toMatchObject({ file, published: 700, unknown: 0, broken: 0 })
    expect(await second.close({ timeoutMs: 10_000 })).toEqual({ unpublished: [], spilled: 0 })
    expect(await storedNumbers(connectTo(server.url))).toEqual([...upTo(700), 701])
    expect(existsSync(file)).toBe(false)
  })

  test('keeps the identity of a batch whose reply never came: its jobs are there once', async () => {
    const { server, make, file } = await spilling()
    await server.restart()
    await loadScripts(connectTo(server.url))
    const proxy = await startProxy(server.url)
    const first = newProducer({ redis: proxy.url, durability: 'buffered', buffer: { spillFile: file } })
    await first.publish('x', 0, { ...ORDERS, durability: 'redis' })
    const silenced = proxy.swallowReplyKeepOpen(isBatch)
    for (const n of [1, 2]) await first.publish('x', n, ORDERS)
    await silenced
    await first.publish('x', 3, ORDERS)
    const { unpublished, spilled } = await first.close({ timeoutMs: 0 })
    expect(unpublished.map(({ data, published }) => [data, published])).toEqual([
      [1, 'unknown'],
      [2, 'unknown'],
      [3, 'no'],
    ])
    expect(spilled).toBe(3)
    const second = make()
    const recovered = new Promise((resolve) => void second.on('spill:recovered', resolve))
    expect(await recovered).toMatchObject({ published: 3, unknown: 0 })
    expect(await storedNumbers(connectTo(server.url))).toEqual([0, 1, 2, 3])
  })

  test('has none of those that waited for room: they come back, and their publishes fail', async () => {
    const { server, file } = await spilling()
    const buffer = { maxJobs: 1, whenFull: 'wait', spillFile: file } as const
    const producer = newProducer({ redis: server.url, durability: 'buffered', buffer })
    await producer.publish('x', 0, ORDERS)
    const atDoor = failureOf(producer.publish('x', 1, ORDERS))
    const { unpublished, spilled } = await producer.close({ timeoutMs: 0 })

    expect([
      spilled,
      unpublished.map(({ data, published, spilled: isSpilled }) => [data, published, isSpilled]),
    ]).toEqual([
      1,
      [
        [0, 'no', true],
        [1, 'no', false],
      ],
    ])
    expect(await atDoor).toMatchObject({ published: 'no' })
  })

  test('that is not ours is refused when the producer is made, and one that cannot be written costs no job', async () => {
    const { server, make, file } = await spilling()
    await writeFile(file, 'my notes\n')
    expect(make).toThrow(SpillError)
    expect(await readFile(file, 'utf8')).toBe('my notes\n')
    await rm(file)
    const producer = make()
    await producer.publish('x', 1, ORDERS)
    await rm(dirname(file), { recursive: true })
    const { unpublished, spilled, spillError } = await producer.close({ timeoutMs: 0 })

    expect(spillError).toBeInstanceOf(SpillError)
    expect([spilled, unpublished.map(({ data, spilled: isSpilled }) => [data, isSpilled])]).toEqual([0, [[1, false]]])
    await server.restart()
    expect(await storedNumbers(connectTo(server.url))).toEqual([])
  })
})
