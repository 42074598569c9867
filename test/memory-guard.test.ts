import type { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import { memoryFault, MemoryGuard, type MemoryFault } from '../src/publish/memory-guard.ts'
import { Connection } from '../src/redis/connection.ts'
import { memorySeen } from '../src/redis/memory.ts'
import { open } from '../src/redis/publishing.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { failureOf, newProducer, publish, storedNumbers } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { keepingLogger } from './helpers/log.ts'
import { connectTo, startServer } from './helpers/redis.ts'
import { gate, startWorker } from './helpers/workers.ts'

/** What keeps producers from filling Redis to the brim. Each test has a Redis of its own, for its memory. */

const usedBytes = async (client: Redis) => memorySeen(await client.info('memory')).usedBytes

describe('the memory of a server', () => {
  test('is counted as Redis counts it: without the buffers that it exempts from its bound', () => {
    const info = '# Memory\r\nused_memory:1000\r\nused_memory_rss:9\r\nmaxmemory:500\r\nmaxmemory_human:5B\r\n'
    const more = 'maxmemory_policy:noeviction\r\nmem_not_counted_for_evict:300\r\n'
    expect(memorySeen(info + more)).toEqual({ usedBytes: 700, maxBytes: 500, evictionPolicy: 'noeviction' })
    expect(memorySeen(info)).toEqual({ usedBytes: 1000, maxBytes: 500, evictionPolicy: undefined })
  })

  test.each(['', 'ERR', 'used_memory:-5\r\nmaxmemory:many\r\nmem_not_counted_for_evict:7\r\n', 'xmaxmemory:5\n'])(
    'of which it says %j is no reason to hold anything',
    (info) => expect(memoryFault(memorySeen(info), 0.5)).toBeUndefined(),
  )

  test('is too full above the share, and only where writes are refused for it', () => {
    const seen = { usedBytes: 80, maxBytes: 100, evictionPolicy: 'noeviction' }
    expect(memoryFault(seen, 0.8)).toBeUndefined()
    expect(memoryFault({ ...seen, usedBytes: 81 }, 0.8)).toEqual({ usedBytes: 81, maxBytes: 100, share: 0.8 })
    expect(memoryFault({ ...seen, usedBytes: 200 }, 1)).toEqual({ usedBytes: 200, maxBytes: 100, share: 1 })
    expect(memoryFault({ ...seen, usedBytes: 200, maxBytes: 0 }, 0.8)).toBeUndefined()
    for (const evictionPolicy of ['allkeys-lru', 'volatile-ttl', undefined]) {
      expect(memoryFault({ ...seen, usedBytes: 99, evictionPolicy }, 0.8)).toBeUndefined()
    }
  })
})

describe('the memory guard', () => {
  interface Guarded {
    readonly guard: MemoryGuard
    readonly connection: Connection
    readonly messages: () => string[]
    /** What was told at each change. */
    readonly changes: (MemoryFault | undefined)[]
  }

  async function guarding(url: string, share = 0.8): Promise<Guarded> {
    const connection = new Connection(resolveRedis(url), { role: 'producer', socketTimeoutMs: 5000 })
    onEnd(() => connection.close())
    await connection.ready(5000)
    const { logger, lines } = keepingLogger()
    const changes: (MemoryFault | undefined)[] = []
    const guard: MemoryGuard = new MemoryGuard(connection, {
      share,
      logger,
      onChange: () => void changes.push(guard.fault),
    })
    onEnd(() => guard.stop())
    return { guard, connection, changes, messages: () => lines.map(({ level, message }) => `${level}: ${message}`) }
  }

  const HELD = 'warn: Redis has used its share of maxmemory: publishes are held until it has less'
  const EASED = 'info: publishes are no longer held for the memory of Redis'

  test('holds while Redis has used more than the share, and says when that begins and ends', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const { guard, changes, messages } = await guarding(server.url)
    expect(await guard.runOnce()).toBeUndefined()
    const maxBytes = Math.floor((await usedBytes(client)) * 1.1)
    await client.config('SET', 'maxmemory', maxBytes)
    expect(await guard.runOnce()).toMatchObject({ maxBytes, share: 0.8 })
    expect(guard.fault).toEqual(await guard.runOnce())
    await client.config('SET', 'maxmemory', maxBytes * 2)
    expect(await guard.runOnce()).toBeUndefined()
    expect(guard.fault).toBeUndefined()
    expect(messages()).toEqual([HELD, EASED])
    expect(changes).toMatchObject([{ maxBytes }, undefined])
  })

  test('does not tell of each time that a memory at its edge goes over it', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const { guard, changes, messages } = await guarding(server.url)
    for (let n = 0; n < 3; n++) {
      await client.config('SET', 'maxmemory', 1)
      expect(await guard.runOnce()).toBeDefined()
      await client.config('SET', 'maxmemory', '1gb')
      expect(await guard.runOnce()).toBeUndefined()
    }
    expect(messages()).toEqual([HELD, EASED])
    expect(changes).toHaveLength(6)
  })

  test('lets a Redis alone that evicts', async () => {
    const server = await startServer({ args: ['--maxmemory', '1', '--maxmemory-policy', 'volatile-lru'] })
    const { guard } = await guarding(server.url)
    expect(await guard.runOnce()).toBeUndefined()
  })

  test('looks by itself while there is work, and on until what it holds need not be held any more', async () => {
    const server = await startServer({ args: ['--maxmemory', '1gb'] })
    const client = connectTo(server.url)
    const { guard } = await guarding(server.url)
    guard.start()
    await client.config('SET', 'maxmemory', 1)
    await eventually(() => expect(guard.fault).toBeDefined())
    guard.stop()
    await client.config('SET', 'maxmemory', '1gb')
    await eventually(() => expect(guard.fault).toBeUndefined())
  })

  test('that begins with a connection knows before the answer to what is sent next', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const { guard, connection } = await guarding(server.url)
    await client.config('SET', 'maxmemory', Math.floor((await usedBytes(client)) * 1.2))
    guard.start()
    await open(connection.client, 'orders', 'p')
    expect(guard.fault).toBeDefined()
  })

  test('asks nothing a second time before it is time to, however often there is work', async () => {
    const server = await startServer({ args: ['--maxmemory', '1gb'] })
    const client = connectTo(server.url)
    const { guard, connection } = await guarding(server.url)
    await client.config('RESETSTAT')
    for (let n = 0; n < 500; n++) {
      guard.start()
      guard.stop()
    }
    await Promise.all([guard.runOnce(), guard.runOnce()])
    await connection.client.ping()
    expect(await client.info('commandstats')).toMatch(/cmdstat_info:calls=1,/)
  })

  test('looks at once at another server, or at one that has started anew, and holds nothing for one that is away', async () => {
    const server = await startServer({ args: ['--maxmemory', '1'] })
    const client = connectTo(server.url)
    // Without a bound it would be looked at seldom.
    await client.config('SET', 'maxmemory', 0)
    const { guard } = await guarding(server.url)
    guard.start()
    expect(await guard.runOnce()).toBeUndefined()
    await server.restart()
    await eventually(() => expect(guard.fault).toBeDefined())
    await server.kill()
    await eventually(() => expect(guard.fault).toBeUndefined())
  })

  test('goes on without where it may not look, and says so once', async () => {
    const server = await startServer({ args: ['--maxmemory', '1'] })
    const client = connectTo(server.url)
    await client.call('ACL', 'SETUSER', 'blind', 'on', '>p', '~*', '+@all', '-info')
    const { guard, messages } = await guarding(server.url.replace('//', '//blind:p@'))
    for (let n = 0; n < 3; n++) expect(await guard.runOnce()).toBeUndefined()
    expect(messages()).toEqual(['warn: cannot see how full Redis is: it is published to until it refuses'])
    await client.call('ACL', 'SETUSER', 'blind', '+info')
    expect(await guard.runOnce()).toBeDefined()
  })

  test('never rejects, also when the connection is closed under it', async () => {
    const server = await startServer({ args: ['--maxmemory', '1'] })
    const { guard, connection } = await guarding(server.url)
    expect(await guard.runOnce()).toBeDefined()
    const looking = guard.runOnce()
    connection.close()
    await looking
    expect(await guard.runOnce()).toBeUndefined()
  })
})

describe('while Redis has used its share of memory', () => {
  const MEMORY_FULL = { code: 'ERR_MEMORY_FULL', published: 'no' }

  /** A server that can be filled to between the share and its bound, where it takes all writes. */
  async function fillable() {
    const server = await startServer({ args: ['--maxmemory', '1gb'] })
    const client = connectTo(server.url)
    // So that what the test itself needs is small beside it.
    await client.setrange('filler', 30_000_000, 'x')
    const fill = async () => client.config('SET', 'maxmemory', Math.floor((await usedBytes(client)) * 1.15))
    const ease = () => client.config('SET', 'maxmemory', '1gb')
    return { server, client, fill, ease }
  }

  test('publishes wait, workers finish, retry and bury what is there, and then all goes on by itself', async () => {
    const { server, client, fill, ease } = await fillable()
    const held = gate()
    const ended: string[] = []
    const worker = await startWorker({
      redis: server.url,
      retry: { attempts: 2, delayMs: 1 },
      handlers: { x: () => held.wait().then(() => Promise.reject(new Error('no'))), y: () => held.wait() },
    })
    worker.on('job:dead', ({ job }) => ended.push(`${job} dead`))
    worker.on('job:completed', ({ job }) => ended.push(`${job} completed`))
    const producer = newProducer({ redis: server.url })
    await publish(producer, 0)
    await producer.publish('y', 1, { stream: 'orders' })
    await fill()
    // Those that were published before it was looked at are in; from then on they wait.
    const waiting: Promise<string>[] = []
    await eventually(async () => {
      waiting.push(publish(producer, waiting.length + 2))
      expect((await failureOf(publish(producer, 0, { timeoutMs: 100 }))).code).toBe('ERR_MEMORY_FULL')
    })
    const before = await client.xlen('orders')
    held.open()
    await eventually(() => expect(ended).toEqual(expect.arrayContaining(['x dead', 'y completed'])))
    expect(await client.xlen('orders')).toBe(before)
    await ease()
    await Promise.all(waiting)
  })

  test('a publish fails with `reject`, and is in Redis again as soon as it has memory', async () => {
    const { server, fill, ease } = await fillable()
    const producer = newProducer({ redis: server.url, whenStreamFull: 'reject', timeoutMs: 600_000 })
    await publish(producer, 0)
    await fill()
    const failure = await eventually(() => failureOf(publish(producer, 1)))
    expect(failure).toMatchObject(MEMORY_FULL)
    expect(failure.message).toMatch(
      /^could not publish to orders: Redis uses \d+ bytes of \d+, more than its share of 0\.8; the job is not in Redis$/,
    )
    expect(await failureOf(publish(producer, 1))).toMatchObject(MEMORY_FULL)
    await ease()
    await eventually(() => publish(producer, 2))
  })

  test('a producer that may use all of it goes on', async () => {
    const { server, client, fill } = await fillable()
    await fill()
    await publish(newProducer({ redis: server.url, maxMemoryShare: false }), 2)
    await publish(newProducer({ redis: server.url, maxMemoryShare: 1 }), 3)
    expect(await storedNumbers(client)).toEqual([2, 3])
  })

  test('workers drain a Redis that refuses every write, and what waits to be published goes in afterwards', async () => {
    const { server, client, ease } = await fillable()
    const held = gate()
    const worker = await startWorker({ redis: server.url, handlers: { x: () => held.wait() } })
    let completed = 0
    worker.on('job:completed', () => (completed += 1))
    const producer = newProducer({ redis: server.url })
    await producer.publishMany(
      'x',
      Array.from({ length: 200 }, (_, n) => n),
      { stream: 'orders' },
    )
    await client.config('SET', 'maxmemory', 1)
    const waiting = publish(producer, 200)
    held.open()
    await eventually(() => expect(completed).toBe(200))
    await eventually(async () => {
      expect(await client.xinfo('GROUPS', 'orders')).toMatchObject([expect.arrayContaining(['pending', 0, 'lag'])])
    })
    expect(await client.xlen('orders')).toBe(200)
    await ease()
    await waiting
    await eventually(() => expect(completed).toBe(201))
  })
})
