import { describe, expect, test } from 'vitest'
import { newCounts } from '../src/counts.ts'
import { resolveLogger } from '../src/logger.ts'
import { Connection } from '../src/redis/connection.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { redeliveryKey } from '../src/redis/keys.ts'
import { trimStep } from '../src/redis/stream.ts'
import { Trimmer, type Retention } from '../src/trimmer.ts'
import { onEnd } from './helpers/cleanup.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()
const REDELIVERY = redeliveryKey('orders', 'main')
/** Everything that is settled may go. */
const KEEP_NOTHING: Retention = { maxAgeMs: 0, maxBytes: Number.MAX_SAFE_INTEGER }
const KEEP_ALL: Retention = { maxAgeMs: 3_600_000, maxBytes: Number.MAX_SAFE_INTEGER }

async function newTrimmer(retention: Retention, url = redis.url) {
  const connection = new Connection(resolveRedis(url), { role: 'test', socketTimeoutMs: 5000 })
  onEnd(() => connection.close())
  await connection.ready(5000)
  const member = { stream: 'orders', group: 'main', consumer: 'c' }
  const counts = newCounts()
  return { counts, trimmer: new Trimmer({ connection, member, retention, counts, logger: resolveLogger(false) }) }
}

/** Entries 1-0, 2-0, … of long ago. */
async function fill(
  count: number,
  { key = 'orders', client = redis.client, firstMs = 1, bytes = 1 } = {},
): Promise<void> {
  const pipeline = client.pipeline()
  for (let n = 0; n < count; n++) pipeline.xadd(key, `${firstMs + n}-0`, 'job', 'x', 'data', 'x'.repeat(bytes))
  await pipeline.exec()
}

/** Has a group read this many entries, and settle all but those of these ids. */
async function work(
  group: string,
  count: number,
  { pending = [] as string[], key = 'orders', client = redis.client } = {},
) {
  await client.xgroup('CREATE', key, group, '0', 'MKSTREAM').catch(() => {})
  const reply = (await client.xreadgroup('GROUP', group, 'c', 'COUNT', count, 'STREAMS', key, '>')) as
    [string, [string, string[]][]][] | null
  const ids = (reply?.[0]?.[1] ?? []).map(([id]) => id).filter((id) => !pending.includes(id))
  if (ids.length > 0) await client.xack(key, group, ...ids)
}

const idsIn = async (key = 'orders', client = redis.client): Promise<string[]> =>
  (await client.xrange(key, '-', '+')).map(([id]) => id)

describe('the watermark', () => {
  test('is the slowest group: what it has not read stays, though another has settled all', async () => {
    const { trimmer, counts } = await newTrimmer(KEEP_NOTHING)
    await fill(500)
    await work('main', 500)
    await work('billing', 123)

    expect(await trimmer.runOnce()).toEqual({ trimmed: 122 })
    expect((await idsIn())[0]).toBe('123-0')
    expect(await redis.client.xlen('orders')).toBe(378)
    expect(counts.trimmed).toBe(122)
  })

  test('is the oldest pending entry of any group, wherever the groups are', async () => {
    const { trimmer } = await newTrimmer(KEEP_NOTHING)
    await fill(500)
    await work('main', 500)
    await work('billing', 400, { pending: ['7-0', '300-0'] })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 6 })
    expect((await idsIn())[0]).toBe('7-0')
  })

  test('moves on when the pending entry is settled', async () => {
    const { trimmer } = await newTrimmer(KEEP_NOTHING)
    await fill(500)
    await work('main', 500, { pending: ['7-0'] })
    await trimmer.runOnce()
    await redis.client.xack('orders', 'main', '7-0')
    await trimmer.runOnce()

    expect(await idsIn()).toEqual(['500-0'])
  })

  test('holds everything for a group that has read nothing', async () => {
    const { trimmer } = await newTrimmer(KEEP_NOTHING)
    await fill(300)
    await work('main', 300)
    await redis.client.xgroup('CREATE', 'orders', 'late', '0')

    expect(await trimmer.runOnce()).toEqual({ trimmed: 0 })
    expect(await redis.client.xlen('orders')).toBe(300)
  })

  test('is told apart in ids whose halves are wider than a Lua number', async () => {
    const { trimmer } = await newTrimmer({ maxAgeMs: 0, maxBytes: 1 })
    const ids = ['18446744073709551614-18446744073709551614', '18446744073709551614-18446744073709551615']
    for (const id of ['9999999999999999999-1', ...ids]) await redis.client.xadd('orders', id, 'job', 'x')
    await work('main', 3, { pending: [ids[1] ?? ''] })
    await work('billing', 2)

    await trimmer.runOnce()
    expect(await idsIn()).toEqual(ids)
  })
})

test('a stream without a group is never trimmed: nobody has read it', async () => {
  const { trimmer } = await newTrimmer({ maxAgeMs: 0, maxBytes: 1 })
  await fill(1000)

  expect(await trimmer.runOnce()).toEqual({ trimmed: 0 })
  expect(await redis.client.xlen('orders')).toBe(1000)
})

test('a stream that does not exist is no error and comes not into being', async () => {
  const { trimmer } = await newTrimmer(KEEP_NOTHING)

  expect(await trimmer.runOnce()).toEqual({ trimmed: 0 })
  expect(await redis.client.exists('orders', REDELIVERY)).toBe(0)
})

test('lag stays exact: it counts what was not read, trimmed or not', async () => {
  const { trimmer } = await newTrimmer(KEEP_NOTHING)
  await fill(500)
  await work('main', 450)
  await trimmer.runOnce()

  const [group] = (await redis.client.xinfo('GROUPS', 'orders')) as unknown[][]
  expect(group?.[group.indexOf('lag') + 1]).toBe(50)
})

describe('retention', () => {
  test('keeps what is younger than its age, though all have settled it', async () => {
    const { trimmer } = await newTrimmer(KEEP_ALL)
    const nowMs = Date.now()
    await fill(150, { firstMs: nowMs - 7_200_000 })
    await fill(150, { firstMs: nowMs - 1_800_000 })
    await work('main', 300)

    expect(await trimmer.runOnce()).toEqual({ trimmed: 150 })
    expect((await idsIn())[0]).toBe(`${nowMs - 1_800_000}-0`)
  })

  test('lets settled entries go before their age when the stream is too large, and no more than needed', async () => {
    const { trimmer } = await newTrimmer({ ...KEEP_ALL, maxBytes: 3_000_000 })
    const firstMs = Date.now() - 100_000
    await fill(5000, { firstMs, bytes: 1000 })
    await work('main', 5000)
    await trimmer.runOnce()

    const bytes = Number(await redis.client.memory('USAGE', 'orders', 'SAMPLES', 0))
    expect(bytes).toBeLessThan(3_100_000)
    expect(await redis.client.xlen('orders')).toBeGreaterThan(2000)
  })

  test('drops nothing that is not settled, however large the stream is', async () => {
    const { trimmer } = await newTrimmer({ ...KEEP_ALL, maxBytes: 1 })
    await fill(3000, { firstMs: Date.now() - 100_000, bytes: 1000 })
    await work('main', 1000)
    await trimmer.runOnce()

    expect(await redis.client.xlen('orders')).toBe(2001)
  })

  test('is not misled by many pending entries into thinking the stream large', async () => {
    const { trimmer } = await newTrimmer({ ...KEEP_ALL, maxBytes: 2_000_000 })
    await fill(3000, { firstMs: Date.now() - 100_000 })
    const ids = await idsIn()
    await work('main', 3000, { pending: ids.slice(10) })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 0 })
  })
})

describe('the redelivery stream', () => {
  test('loses what is settled at once, whatever the age that the stream keeps', async () => {
    const { trimmer } = await newTrimmer(KEEP_ALL)
    await fill(5)
    await work('main', 5)
    await fill(700, { key: REDELIVERY, firstMs: Date.now() - 10_000 })
    await work('main', 700, { key: REDELIVERY })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 699 + 4 })
    expect(await redis.client.xlen(REDELIVERY)).toBe(1)
  })

  test('keeps what is pending or not read', async () => {
    const { trimmer } = await newTrimmer(KEEP_ALL)
    const firstMs = Date.now() - 10_000
    await fill(700, { key: REDELIVERY, firstMs })
    await work('main', 600, { key: REDELIVERY, pending: [`${firstMs + 41}-0`] })
    await trimmer.runOnce()

    expect((await idsIn(REDELIVERY))[0]).toBe(`${firstMs + 41}-0`)
    expect(await redis.client.xlen(REDELIVERY)).toBe(659)
  })
})

describe('a step', () => {
  const step = { ...KEEP_NOTHING, limit: 400 }

  test('removes at most its limit, and many of them remove it all', async () => {
    await fill(5000)
    await work('main', 5000)
    const removed: number[] = []
    for (let more = true; more;) {
      const trimmed = await trimStep(redis.client, 'orders', step)
      removed.push(trimmed.removed)
      more = trimmed.more
    }

    expect(Math.max(...removed)).toBeLessThanOrEqual(400)
    expect(removed.reduce((sum, count) => sum + count)).toBe(4999)
    expect(removed.length).toBeLessThan(30)
  })

  test('removes at most its limit also where a node of the stream holds far more entries', async () => {
    const server = await startServer({ args: ['--stream-node-max-entries', '0', '--stream-node-max-bytes', '0'] })
    const client = connectTo(server.url)
    await fill(5000, { client })
    await work('main', 5000, { client })

    const { removed, more } = await trimStep(client, 'orders', step)
    expect(removed).toBeLessThanOrEqual(400)
    expect({ removed: removed > 0, more }).toEqual({ removed: true, more: true })
  })

  test('says where the watermark is', async () => {
    await fill(20)
    await work('main', 15, { pending: ['9-0'] })

    expect(await trimStep(redis.client, 'orders', step)).toEqual({ removed: 8, watermark: '9-0', more: false })
  })
})
