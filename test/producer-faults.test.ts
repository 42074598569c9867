import { inspect } from 'node:util'
import { beforeEach, describe, expect, test } from 'vitest'
import {
  failureOf,
  isBatch,
  isOpening,
  loadScripts,
  newProducer,
  publish,
  scriptCalls,
  stored,
  storedNumbers,
} from './fixtures/producers.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()

beforeEach(() => loadScripts(redis.client))

async function throughProxy() {
  const proxy = await startProxy(redis.url)
  return { proxy, producer: newProducer({ redis: proxy.url }) }
}

describe('a lost connection', () => {
  test.each([1, 3])('that swallows the reply to a batch %i times leaves each job there once', async (times) => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    const swallowed = proxy.swallowReplyTo(isBatch, times)
    const ids = await Promise.all([1, 2, 3].map((n) => publish(producer, n)))
    await swallowed
    await publish(producer, 4)

    const found = await stored(redis.client)
    expect(found.numbers).toEqual([0, 1, 2, 3, 4])
    expect(found.ids.slice(1, 4)).toEqual(ids)
  })

  test('that stays open and silent after the batch leaves each job there once', async () => {
    const { proxy, producer } = await throughProxy()
    const swallowed = proxy.swallowReplyKeepOpen(isBatch)
    const id = await publish(producer, 1)
    await swallowed

    expect(await stored(redis.client)).toEqual({ ids: [id], numbers: [1] })
  })

  test.each([
    ['the call that opens the sequence', isOpening],
    ['the very first batch', isBatch],
  ])('before %s leaves each job there once', async (_what, match) => {
    const { proxy, producer } = await throughProxy()
    const cut = proxy.cutBefore(match)
    await Promise.all([1, 2].map((n) => publish(producer, n)))
    await cut

    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('before a later batch leaves each job there once', async () => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    const cut = proxy.cutBefore(isBatch, 2)
    await Promise.all([1, 2].map((n) => publish(producer, n)))
    await cut

    expect(await storedNumbers(redis.client)).toEqual([0, 1, 2])
  })

  test('that swallows the reply to the opening call leaves each job there once', async () => {
    const { proxy, producer } = await throughProxy()
    const swallowed = proxy.swallowReplyTo(isOpening)
    await Promise.all([1, 2].map((n) => publish(producer, n)))
    await swallowed

    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('whose batch arrives late, after it was sent again and others after it, doubles nothing', async () => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const first = publish(producer, 1)
    await hold.held
    await first
    await publish(producer, 2)
    const calls = await scriptCalls(redis.client)
    hold.release()

    await eventually(async () => expect(await scriptCalls(redis.client)).toBe(calls + 1))
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 2])
  })

  test('and a key that is gone make the fate of a batch unknown, and the next one goes in once', async () => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    const swallowed = proxy.swallowReplyKeepOpen(isBatch)
    const failure = failureOf(publish(producer, 1))
    await swallowed
    await redis.client.del(...(await redis.client.keys('{orders}:producer:*')))

    expect(await failure).toMatchObject({ published: 'unknown' })
    await publish(producer, 2)
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 2])
  })
})

describe('a publish whose time is up', () => {
  test('while Redis is away is not in Redis, and nothing of it is there afterwards', async () => {
    const server = await startServer()
    await server.kill()
    const producer = newProducer({ redis: server.url })
    const failure = await failureOf(publish(producer, 1, { timeoutMs: 100 }))

    expect(failure).toMatchObject({ name: 'PublishError', code: 'ERR_PUBLISH_TIMEOUT', published: 'no' })
    expect(failure.message).toMatch(/orders.*ECONNREFUSED.*the job is not in Redis/)
    await server.restart()
    await publish(producer, 2)
    expect(await storedNumbers(connectTo(server.url))).toEqual([2])
  })

  test('while its batch is on its way is unknown; the batch goes in once when it arrives, and so does the next', async () => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    proxy.blackhole(true)
    const failure = await failureOf(publish(producer, 1, { timeoutMs: 100 }))
    const next = publish(producer, 2)
    proxy.blackhole(false)
    await next

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT', published: 'unknown' })
    expect(failure.message).toContain('may be in Redis or not')
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 2])
  })

  test('while it waits behind a silent batch is not in Redis, now or later', async () => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const onItsWay = publish(producer, 1)
    await hold.held
    const waiting = await failureOf(publish(producer, 2, { timeoutMs: 100 }))
    hold.release()
    await onItsWay
    await publish(producer, 3)

    expect(waiting).toMatchObject({ published: 'no' })
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 3])
  })

  test('and whose batch arrives after the producer went on under a new id is there once', async () => {
    const { proxy, producer } = await throughProxy()
    await publish(producer, 0)
    const hold = proxy.holdBefore(isBatch)
    const failure = await failureOf(publish(producer, 1, { timeoutMs: 100 }))
    await publish(producer, 2)
    expect(await storedNumbers(redis.client)).toEqual([0, 2])
    hold.release()

    expect(failure).toMatchObject({ published: 'unknown' })
    await eventually(async () => expect(await storedNumbers(redis.client)).toEqual([0, 2, 1]))
    await publish(producer, 3)
    expect(await storedNumbers(redis.client)).toEqual([0, 2, 1, 3])
  })
})

describe('a Redis that refuses', () => {
  test('every single append: the jobs are not in Redis, and that is no timeout', async () => {
    await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'last')
    const failure = await failureOf(publish(newProducer({ redis: redis.url }), 1))

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', published: 'no' })
    expect(await redis.client.xlen('orders')).toBe(1)
  })

  test('as a read-only replica: tried until the time is up, and in Redis once after a promotion', async () => {
    const [primary, replica] = await Promise.all([startServer(), startServer()])
    const client = connectTo(replica.url)
    await client.replicaof('127.0.0.1', primary.port)
    const producer = newProducer({ redis: replica.url })
    const failure = await failureOf(publish(producer, 1, { timeoutMs: 300 }))
    const patient = publish(producer, 2)
    await eventually(async () => expect(await client.info('errorstats')).toMatch(/errorstat_READONLY:count=\d{2}/))
    await client.replicaof('NO', 'ONE')
    await patient

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT', published: 'no' })
    expect(failure.message).toContain('READONLY')
    expect(await storedNumbers(client)).toEqual([2])
  })

  test('as long as it loads its data: tried until the time is up, and in Redis once it is loaded', async () => {
    // 300 ms for each of ten keys, large enough that commands are answered between them.
    const server = await startServer({
      args: ['--save', '900 1', '--rdbcompression', 'no', '--key-load-delay', '300000'],
    })
    for (let key = 0; key < 10; key++) await connectTo(server.url).set(`key${key}`, Buffer.alloc(2_200_000, key))
    const producer = newProducer({ redis: server.url })
    const restarted = server.restart()
    const visitor = () => connectTo(server.url, { enableReadyCheck: false, maxRetriesPerRequest: 0 }).ping()
    await eventually(() => expect(visitor()).rejects.toThrow('LOADING'))
    const failure = await failureOf(publish(producer, 1, { timeoutMs: 200 }))
    const patient = publish(producer, 2)
    await restarted
    await patient

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_TIMEOUT', published: 'no' })
    expect(await storedNumbers(connectTo(server.url))).toEqual([2])
  })
})

describe('a password', () => {
  const secret = 'hunter2-is-secret'

  async function protectedServer() {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.acl('SETUSER', 'default', 'resetpass', '>right')
    return { client, urlWith: (user: string) => server.url.replace('//', `//${user}@`), url: server.url }
  }

  test('that is wrong rejects at once and is in no message, no cause and no log', async () => {
    const { urlWith } = await protectedServer()
    const logged: unknown[] = []
    const log = (...told: unknown[]) => void logged.push(told)
    const logger = { debug: log, info: log, warn: log, error: log }
    const producer = newProducer({ redis: urlWith(`:${secret}`), logger })
    const failure = await failureOf(publish(producer, 1, { timeoutMs: 300_000 }))

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', published: 'no' })
    expect(failure.message).toMatch(/WRONGPASS/)
    expect(inspect([failure, logged], { depth: 20, showHidden: true })).not.toContain(secret)
  })

  test('that is missing rejects at once', async () => {
    const { url } = await protectedServer()
    const failure = await failureOf(publish(newProducer({ redis: url }), 1, { timeoutMs: 300_000 }))

    expect(failure).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', published: 'no' })
    expect(failure.message).toMatch(/NOAUTH/)
  })

  test('that is made right at the server lets the same producer publish', async () => {
    const { client, urlWith } = await protectedServer()
    const producer = newProducer({ redis: urlWith(`:${secret}`) })
    await failureOf(publish(producer, 1))
    await client.acl('SETUSER', 'default', `>${secret}`)

    await eventually(() => publish(producer, 2), { timeoutMs: 5000 })
    expect(await storedNumbers(client)).toEqual([2])
  })
})
