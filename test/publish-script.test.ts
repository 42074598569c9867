import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { once } from 'node:events'
import type { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import { producerKey } from '../src/redis/keys.ts'
import { append, open, type Appended } from '../src/redis/publishing.ts'
import { isBatch, loadScripts, newProducer, publish, scriptCalls, storedNumbers } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()
const KEY = producerKey('orders', 'p')

/** Sends one batch of numbers as producer `p`. */
function send(client: Redis, seq: number, ...numbers: number[]): Promise<Appended> {
  const items = numbers.map((n) => ({ fields: ['job', 'x', 'data', String(n)] }))
  return append(client, 'orders', { producerId: 'p', seq, items })
}

/** The keys of all producers of the stream. */
const producerKeys = (client: Redis): Promise<string[]> => client.keys('{orders}:producer:*')

describe('one batch', () => {
  test('is appended in its order and answered with the ids of its entries', async () => {
    expect(await open(redis.client, 'orders', 'p')).toBe(true)
    const answer = await send(redis.client, 1, 10, 11, 12)

    const entries = await redis.client.xrange('orders', '-', '+')
    expect(answer).toEqual({ kind: 'done', ids: entries.map(([id]) => id) })
    expect(entries.map(([, fields]) => fields)).toEqual(['10', '11', '12'].map((n) => ['job', 'x', 'data', n]))
  })

  test('that is sent again answers with the same ids and appends nothing', async () => {
    await open(redis.client, 'orders', 'p')
    const first = await send(redis.client, 1, 10, 11)

    expect(await send(redis.client, 1, 10, 11)).toEqual(first)
    expect(await storedNumbers(redis.client)).toEqual([10, 11])
  })

  test('older than the last one is stale and appends nothing', async () => {
    await open(redis.client, 'orders', 'p')
    await send(redis.client, 1, 10)
    await send(redis.client, 2, 11)

    expect(await send(redis.client, 1, 10)).toEqual({ kind: 'stale' })
    expect(await storedNumbers(redis.client)).toEqual([10, 11])
  })

  test('of a producer whose key is gone is forgotten, appends nothing and leaves no key behind', async () => {
    await open(redis.client, 'orders', 'p')
    await send(redis.client, 1, 10)
    await redis.client.del(KEY)

    expect(await send(redis.client, 1, 10)).toEqual({ kind: 'forgotten' })
    expect(await send(redis.client, 2, 11)).toEqual({ kind: 'forgotten' })
    expect(await storedNumbers(redis.client)).toEqual([10])
    expect(await redis.client.exists(KEY)).toBe(0)
  })

  test('of a producer whose key has expired is forgotten', async () => {
    await open(redis.client, 'orders', 'p')
    await redis.client.pexpire(KEY, 1)
    await eventually(async () => expect(await redis.client.exists(KEY)).toBe(0))

    expect(await send(redis.client, 1, 10)).toEqual({ kind: 'forgotten' })
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('whose number is noted and nothing of what became of it is forgotten: nobody knows what is there', async () => {
    await open(redis.client, 'orders', 'p')
    await redis.client.hset(KEY, 'seq', 1, 'ids', '')

    expect(await send(redis.client, 1, 10)).toEqual({ kind: 'forgotten' })
    expect(await storedNumbers(redis.client)).toEqual([])
  })

  test('keeps its producer remembered for an hour more', async () => {
    await open(redis.client, 'orders', 'p')
    expect(await redis.client.pttl(KEY)).toBeGreaterThan(3_000_000)
    await redis.client.pexpire(KEY, 60_000)
    await send(redis.client, 1, 10)

    expect(await redis.client.pttl(KEY)).toBeGreaterThan(3_000_000)
  })

  test('after batches that the server has lost is behind, with the number it still knows, and appends nothing', async () => {
    await open(redis.client, 'orders', 'p')
    for (const seq of [1, 2, 3]) await send(redis.client, seq, seq)
    await redis.client.hset(KEY, 'seq', 1)

    expect(await send(redis.client, 4, 4)).toEqual({ kind: 'behind', stored: 1 })
    expect(await storedNumbers(redis.client)).toEqual([1, 2, 3])
  })

  test('runs by its text on a server that does not know the script', async () => {
    await open(redis.client, 'orders', 'p')
    await redis.client.script('FLUSH')

    expect(await send(redis.client, 1, 10)).toMatchObject({ kind: 'done' })
    expect(await storedNumbers(redis.client)).toEqual([10])
  })

  test('whose appends Redis refuses one by one says so for each, also when it is sent again', async () => {
    await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'last')
    await open(redis.client, 'orders', 'p')

    expect(await send(redis.client, 1, 10, 11)).toEqual({ kind: 'done', ids: [undefined, undefined] })
    expect(await send(redis.client, 1, 10, 11)).toEqual({ kind: 'done', ids: [undefined, undefined] })
    expect(await redis.client.xlen('orders')).toBe(1)
  })
})

test('a producer id that is taken opens no second sequence', async () => {
  await open(redis.client, 'orders', 'p')
  await send(redis.client, 1, 10)

  expect(await open(redis.client, 'orders', 'p')).toBe(false)
  expect(await redis.client.hget(KEY, 'seq')).toBe('1')
})

describe('a key of another type', () => {
  test('in place of the stream: an error, and the sequence stands where it was', async () => {
    await open(redis.client, 'orders', 'p')
    await redis.client.set('orders', 'text')

    await expect(send(redis.client, 1, 10)).rejects.toThrow('WRONGTYPE')
    expect(await redis.client.hget(KEY, 'seq')).toBe('0')
    expect(await redis.client.get('orders')).toBe('text')
  })

  test('in place of the producer: an error, and nothing is appended', async () => {
    await redis.client.set(KEY, 'text')

    await expect(send(redis.client, 1, 10)).rejects.toThrow('WRONGTYPE')
    expect(await redis.client.exists('orders')).toBe(0)
    expect(await redis.client.get(KEY)).toBe('text')
  })
})

describe('a server that lost batches', () => {
  /** Takes the stream and its producer back to how they are now. */
  async function snapshot(client: Redis): Promise<() => Promise<void>> {
    const [producer = ''] = await producerKeys(client)
    const keys = ['orders', producer]
    const dumps = await Promise.all(keys.map((key) => client.dumpBuffer(key)))
    return async () => {
      for (const [at, key] of keys.entries()) await client.restore(key, 3_600_000, dumps[at] ?? '', 'REPLACE')
    }
  }

  test('gets the next batch once, though its number is ahead', async () => {
    const producer = newProducer({ redis: redis.url })
    await publish(producer, 1)
    const goBack = await snapshot(redis.client)
    for (const n of [2, 3]) await publish(producer, n)
    await goBack()
    for (const n of [4, 5]) await publish(producer, n)

    expect(await storedNumbers(redis.client)).toEqual([1, 4, 5])
  })

  test('gets a batch again whose answer was lost, once', async () => {
    await loadScripts(redis.client)
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publish(producer, 1)
    const goBack = await snapshot(redis.client)
    for (const n of [2, 3]) await publish(producer, n)
    const swallowed = proxy.swallowReplyKeepOpen(isBatch)
    const last = publish(producer, 4)
    await swallowed
    await goBack()

    await last
    expect(await storedNumbers(redis.client)).toEqual([1, 4])
  })

  test('a promoted replica that had not heard of the last batches gets the next one, once', async () => {
    const [primary, replica] = await Promise.all([startServer(), startServer()])
    const road = await startRoad(primary.port)
    const client = connectTo(replica.url)
    await client.replicaof('127.0.0.1', primary.port)
    const producer = newProducer({ redis: `redis://127.0.0.1:${road.port}` })
    await publish(producer, 1)
    await eventually(async () => expect(await storedNumbers(client)).toEqual([1]))
    await client.replicaof('NO', 'ONE')
    for (const n of [2, 3]) await publish(producer, n)
    expect(await storedNumbers(client)).toEqual([1])

    road.leadTo(replica.port)
    for (const n of [4, 5]) await publish(producer, n)
    expect(await storedNumbers(client)).toEqual([1, 4, 5])
  })
})

describe('a server with limits of its own', () => {
  test('out of memory refuses the whole batch, which goes in later, once', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const producer = newProducer({ redis: server.url })
    await publish(producer, 0)
    await client.config('SET', 'maxmemory', '1')
    const publishing = [1, 2, 3].map((n) => publish(producer, n))
    await eventually(async () => expect(await client.info('errorstats')).toContain('errorstat_OOM'))
    expect(await storedNumbers(client)).toEqual([0])

    await client.config('SET', 'maxmemory', '0')
    await Promise.all(publishing)
    expect(await storedNumbers(client)).toEqual([0, 1, 2, 3])
  })

  test('out of memory leaves the sequence where it was', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await open(client, 'orders', 'p')
    await client.config('SET', 'maxmemory', '1')

    await expect(send(client, 1, 10)).rejects.toThrow('OOM')
    expect(await client.hget(KEY, 'seq')).toBe('0')
    expect(await client.exists('orders')).toBe(0)
  })

  test('is given no batch of more than 1 MiB, or of one job, and has them all in order', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await loadScripts(client)
    // Three fit, a fourth does not; then each is a batch of its own.
    const small = Array.from({ length: 30 }, (_, n) => `${String(n).padStart(6, '0')}${'x'.repeat(300 * 1024)}`)
    const large = Array.from(
      { length: 10 },
      (_, n) => `${String(30 + n).padStart(6, '0')}${'x'.repeat(1024 * 1024 - 8)}`,
    )
    const producer = newProducer({ redis: server.url })
    await producer.publish('x', 'first', { stream: 'orders' })
    const before = await scriptCalls(client)
    await producer.publishMany('x', [...small, ...large], { stream: 'orders' })

    expect((await scriptCalls(client)) - before).toBeGreaterThanOrEqual(30 / 3 + 10)
    const found: number[] = []
    for (let from = '-'; found.length < 40;) {
      const entries = await client.xrange('orders', from, '+', 'COUNT', 10)
      if (entries.length === 0) break
      for (const [, fields] of entries) if (fields[3] !== '"first"') found.push(Number(fields[3]?.slice(1, 7)))
      from = `(${entries.at(-1)?.[0]}`
    }
    expect(found).toEqual([...small, ...large].map((_, n) => n))
  })
})

/** A port that leads to one server and later to another, as the address of a primary does. */
async function startRoad(first: number): Promise<{ port: number; leadTo(port: number): void }> {
  let target = first
  const open = new Set<Socket>()
  const listener = createServer((client) => {
    const server = connect(target, '127.0.0.1')
    for (const socket of [client, server]) {
      open.add(socket)
      socket.on('error', () => {}).on('close', () => open.delete(socket))
    }
    client.pipe(server).pipe(client)
  }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const cut = () => open.forEach((socket) => socket.destroy())
  onEnd(() => {
    listener.close()
    cut()
  })
  return {
    port: (listener.address() as AddressInfo).port,
    leadTo(port) {
      target = port
      cut()
    },
  }
}
