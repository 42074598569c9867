import { describe, expect, test } from 'vitest'
import { defineJob, Feed, Producer, type ProducerOptions, type PublishOptions } from '../src/index.ts'
import { deadKey, uniqueKey } from '../src/redis/keys.ts'
import { failureOf, newProducer, storedNumbers } from './fixtures/producers.ts'
import { spillPath } from './fixtures/spills.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { gate, startWorker, startWorkerProcess } from './helpers/workers.ts'

const redis = withRedis()

const publish = (n: unknown, options: PublishOptions = {}, producer: Producer = newProducer({ redis: redis.url })) =>
  producer.publish('x', n, { stream: 'orders', uniqueKey: 'a', timeoutMs: 30_000, ...options })

function bufferedProducer(options: ProducerOptions<'buffered'>): Producer<'buffered'> {
  const producer = new Producer({ ...options, durability: 'buffered', logger: false })
  onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
  return producer
}

const isHeld = async () => (await redis.client.exists(uniqueKey('orders', 'a'))) === 1

describe('a worker', () => {
  test('holds the key of a job that it runs until that is completed, and lets go of it then', async () => {
    const handler = gate()
    const began: unknown[] = []
    await startWorker({ redis: redis.url, handlers: { x: (n) => (began.push(n), handler.wait()) } })
    const first = await publish(1)
    await eventually(() => expect(began).toEqual([1]))
    const second = await publish(2)
    handler.open()
    await eventually(async () => expect(await isHeld()).toBe(false))
    const third = await publish(3)

    expect(second).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(third.outcome).toBe('added')
  })

  test('keeps the key over the attempts of a job, and lets go of it when that dies', async () => {
    const held: boolean[] = []
    const fails = async () => {
      held.push(await isHeld())
      throw new Error('no')
    }
    const retry = { attempts: 2, backoff: () => 1 }
    await startWorker({ redis: redis.url, retry, handlers: { x: fails } })
    await publish(1)
    await eventually(async () => expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(1))
    await eventually(async () => expect(await isHeld()).toBe(false))

    expect(held).toEqual([true, true])
  })

  test('lets go of a key that is held until it is started before it calls the handler', async () => {
    const handler = gate()
    const held: boolean[] = []
    const x = async () => {
      held.push(await isHeld())
      await handler.wait()
    }
    await startWorker({ redis: redis.url, handlers: { x } })
    const first = await publish(1, { unique: { scope: 'until-started' } })
    await eventually(() => expect(held).toEqual([false]))
    const second = await publish(2, { unique: { scope: 'until-started' } })
    handler.open()

    expect([first.outcome, second.outcome]).toEqual(['added', 'added'])
  })

  test('does not start such a job while it cannot let go of its key, and loses none of it', async () => {
    const server = await startServer({ aof: true })
    const began: unknown[] = []
    const proxy = await startProxy(server.url)
    const isRelease = (args: string[]) => args.includes(uniqueKey('orders', 'a'))
    await startWorker({ redis: proxy.url, leaseMs: 10_000, handlers: { x: (n) => void began.push(n) } })
    const held = proxy.holdBefore(isRelease)
    const producer = newProducer({ redis: server.url })
    const first = await publish(1, { unique: { scope: 'until-started' } }, producer)
    await held.held
    expect(began).toEqual([])
    expect(await publish(2, {}, producer)).toEqual({ id: first.id, outcome: 'duplicate' })
    await server.kill()
    held.release()
    expect(began).toEqual([])
    await server.restart()
    await eventually(() => expect(began).toEqual([1]), { timeoutMs: 30_000 })
    expect((await publish(3, {}, producer)).outcome).toBe('added')
    await eventually(() => expect(began).toEqual([1, 3]))
  }, 60_000)

  test('that is killed holds the keys of its jobs still: they are run by others of the group, and free then', async () => {
    const processes = await Promise.all(
      Array.from({ length: 4 }, () => startWorkerProcess({ redis: redis.url, leaseMs: 1000, concurrency: 1 })),
    )
    const keys = ['k0', 'k1', 'k2', 'k3']
    const slow = (key: string, ms: number) =>
      newProducer({ redis: redis.url }).publish('slow', { ms }, { stream: 'orders', uniqueKey: key })
    const firsts = await Promise.all(keys.map((key) => slow(key, 2500)))
    const lines = () => processes.flatMap((process) => process.log())
    await eventually(() => expect(lines().filter((line) => line.startsWith('started'))).toHaveLength(4))
    const victim = processes[0]
    const held = victim
      ?.log()
      .find((line) => line.startsWith('started'))
      ?.split(' ')[1]
    victim?.signal('SIGKILL')
    const again = await Promise.all(keys.map((key) => slow(key, 1)))
    expect(again).toEqual(firsts.map(({ id }) => ({ id, outcome: 'duplicate' })))
    await eventually(() => expect(lines()).toContainEqual(expect.stringMatching(new RegExp(`^ended ${held} 2 `))))
    await eventually(async () => {
      expect(await redis.client.exists(...keys.map((key) => uniqueKey('orders', key)))).toBe(0)
    })
    expect((await slow(keys[0] ?? '', 1)).outcome).toBe('added')
  }, 60_000)
})

describe('publishing', () => {
  test('one key from four producers at once adds exactly one job, and all are told its id', async () => {
    const producers = Array.from({ length: 4 }, () => newProducer({ redis: redis.url }))
    const keys = Array.from({ length: 50 }, (_, n) => `k${n}`)
    const all = await Promise.all(
      producers.map((producer) => Promise.all(keys.map((uniqueKey, n) => publish(n, { uniqueKey }, producer)))),
    )
    expect((await storedNumbers(redis.client)).sort((a, b) => a - b)).toEqual(keys.map((_, n) => n))
    for (const n of keys.keys()) {
      const results = all.map((of) => of[n])
      expect(new Set(results.map((result) => result?.id)).size).toBe(1)
      expect(results.map((result) => result?.outcome).sort()).toEqual(['added', 'duplicate', 'duplicate', 'duplicate'])
    }
  })

  test('whose answer is lost is sent again, and told as what it was: added, and not a duplicate of itself', async () => {
    await publish(0, { uniqueKey: 'load' })
    const proxy = await startProxy(redis.url)
    const swallowed = proxy.swallowReplyTo((args) => args.includes(uniqueKey('orders', 'a')), 2)
    const result = await publish(1, {}, newProducer({ redis: proxy.url }))
    await swallowed
    expect(result.outcome).toBe('added')
    expect(await storedNumbers(redis.client)).toEqual([0, 1])
  })

  test('a defined job is unique by its payload, also of publishMany, unless it has no key', async () => {
    const key = ({ user }: { user?: number }) => (user === undefined ? undefined : `user:${user}`)
    const sync = defineJob('sync', { stream: 'orders', unique: { key } })
    const producer = newProducer({ redis: redis.url })
    const first = await producer.publish(sync, { user: 1 })
    expect(await producer.publish(sync, { user: 1 })).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await producer.publishMany(sync, [{ user: 1 }, { user: 2 }, {}, {}])).toEqual({ published: 4 })
    expect(await redis.client.xlen('orders')).toBe(4)
    expect(await producer.publish(sync, { user: 1 }, { uniqueKey: 'other' })).toMatchObject({ outcome: 'added' })
  })

  test('a buffered job is told of by its event: as a duplicate, or with what it replaced', async () => {
    const producer = bufferedProducer({ redis: redis.url })
    const told: object[] = []
    producer.on('job:published', ({ outcome, replacedId }) => told.push({ outcome, replacedId }))
    const options = { stream: 'orders', uniqueKey: 'a' }
    await producer.publish('x', 1, options)
    await producer.publish('x', 2, options)
    await producer.publish('x', 3, { ...options, unique: { mode: 'replace' } })
    await eventually(() => expect(told).toHaveLength(3))
    const [first] = (await redis.client.xrange('orders', '-', '+')).map(([id]) => id)
    expect(told).toEqual([
      { outcome: 'added', replacedId: undefined },
      { outcome: 'duplicate', replacedId: undefined },
      { outcome: 'replaced', replacedId: first },
    ])
  })

  test('unique jobs that were spilled are published as what they are by the next producer', async () => {
    const server = await startServer()
    const spillFile = await spillPath()
    const open = () => bufferedProducer({ redis: server.url, buffer: { spillFile } })
    const producer = open()
    await server.kill()
    const options = { stream: 'orders', uniqueKey: 'a', delayMs: 3_600_000 }
    await producer.publish('x', 1, options)
    await producer.publish('x', 2, options)
    await producer.publish('x', 3, {
      ...options,
      unique: { mode: 'debounce', scope: { ttlMs: 60_000 }, maxWaitMs: 5000 },
    })
    expect(await producer.close({ timeoutMs: 0 })).toMatchObject({ spilled: 3 })
    await server.restart()
    const recovered = new Promise((resolve) => open().once('spill:recovered', resolve))
    expect(await recovered).toMatchObject({ published: 3, broken: 0, unknown: 0 })
    const client = connectTo(server.url)
    expect(await client.zcard('{orders}:scheduled')).toBe(1)
    expect(await client.get(uniqueKey('orders', 'a'))).toMatch(/ - l : \d+$/)
    const [packed = ''] = await client.hvals('{orders}:scheduled:jobs')
    expect(packed).toContain('3')
  })

  test('a feed tells of its jobs likewise', async () => {
    const feed = new Feed({ redis: redis.url, stream: 'orders', id: 'f', isNew: true, logger: false })
    onEnd(async () => void (await feed.close({ timeoutMs: 0 })))
    await feed.open()
    const jobs = [1, 2].map((n) => ({ job: 'x', data: n, position: String(n), uniqueKey: 'a' }))
    const fates = await feed.publish(jobs)
    expect(fates.map(({ outcome }) => outcome)).toEqual(['added', 'duplicate'])
  })

  test('without a group where several read the stream fails with a code of its own', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await redis.client.xgroup('CREATE', 'orders', 'mails', '0')
    const error = await failureOf(publish(1))
    expect(error).toMatchObject({ code: 'ERR_UNIQUE_GROUP', published: 'no' })
    expect(error.message).toContain('does not say which `group` settles it')
  })

  test.each<[object, string]>([
    [{ uniqueKey: '' }, 'expected `uniqueKey` to be a text of 1 to 256 characters, got 0'],
    [{ uniqueKey: 'x'.repeat(257) }, 'got 257'],
    [{ uniqueKey: 7 }, 'got a number'],
    [{ uniqueKey: '\uD800' }, 'half of a surrogate pair'],
    [{ uniqueKey: undefined, unique: {} }, 'expected `unique` only with a `uniqueKey`'],
    [{ unique: { scope: 'for-ever' } }, "expected `unique.scope` to be 'until-settled', 'until-started' or { ttlMs }"],
    [{ unique: { scope: { ttlMs: 0 } } }, 'expected `unique.scope.ttlMs` to be a positive integer'],
    [{ unique: { scope: {} } }, 'expected `unique.scope` to have `ttlMs`'],
    [{ unique: { scope: { ttl: 1 } } }, 'unknown option `ttl` of unique.scope'],
    [{ unique: { mode: 'queue' } }, 'expected `unique.mode` to be one of reject, replace, debounce'],
    [{ unique: { modes: 'reject' } }, 'unknown option `modes` of unique'],
    [{ unique: { group: '*' } }, 'expected a group name'],
    [{ unique: { mode: 'debounce' } }, "expected `delayMs` or `runAt` with `mode: 'debounce'`"],
    [{ unique: { maxWaitMs: 5 } }, "expected `unique.maxWaitMs` only with `mode: 'debounce'`"],
  ])('refuses %j', async (options, wanted) => {
    const error = await failureOf(publish(1, options))
    expect(error).toMatchObject({ name: 'PublishError', published: 'no' })
    expect(error.message).toContain(wanted)
    expect(await redis.client.keys('*')).toEqual([])
  })

  test('refuses a definition whose key is none, and a publishMany with one key for all', async () => {
    expect(() => defineJob('x', { unique: {} as never })).toThrow('expected `unique.key` to be a function')
    expect(() => defineJob('x', { unique: { key: () => 'a', scope: 'never' as never } })).toThrow('`unique.scope`')
    const options: object = { stream: 'orders', uniqueKey: 'a' }
    const many = newProducer({ redis: redis.url }).publishMany('x', [1], options)
    expect((await failureOf(many)).message).toContain('expected no `uniqueKey` of publishMany')
  })

  test('a key function that throws fails its publish, and the text says nothing of the payload', async () => {
    const key = (data: string) => {
      throw new Error(`cannot use ${data}`)
    }
    const error = await failureOf(
      newProducer({ redis: redis.url }).publish(defineJob('x', { stream: 'orders', unique: { key } }), 'secret'),
    )
    expect(error.message).not.toContain('secret')
    expect(error.cause).toBeInstanceOf(Error)
  })
})
