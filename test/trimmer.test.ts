import { describe, expect, test } from 'vitest'
import { newCounts } from '../src/counts.ts'
import { resolveLogger } from '../src/logger.ts'
import { Connection } from '../src/redis/connection.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { deadKey, indexKey, redeliveryKey, settingsKey } from '../src/redis/keys.ts'
import { trimStep } from '../src/redis/trimming.ts'
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

    expect(await trimmer.runOnce()).toEqual({ trimmed: 122, discarded: 0 })
    expect((await idsIn())[0]).toBe('123-0')
    expect(await redis.client.xlen('orders')).toBe(378)
    expect(counts.trimmed).toBe(122)
  })

  test('is the oldest pending entry of any group, wherever the groups are', async () => {
    const { trimmer } = await newTrimmer(KEEP_NOTHING)
    await fill(500)
    await work('main', 500)
    await work('billing', 400, { pending: ['7-0', '300-0'] })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 6, discarded: 0 })
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

    expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 0 })
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

  expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 0 })
  expect(await redis.client.xlen('orders')).toBe(1000)
})

test('a stream that does not exist is no error and comes not into being', async () => {
  const { trimmer } = await newTrimmer(KEEP_NOTHING)

  expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 0 })
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

    expect(await trimmer.runOnce()).toEqual({ trimmed: 150, discarded: 0 })
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

    expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 0 })
  })
})

describe('a bound of entries', () => {
  const keep = (maxEntries: number): Retention => ({ ...KEEP_ALL, maxEntries })

  test('lets the oldest settled entries go before their age, and not one more', async () => {
    const { trimmer } = await newTrimmer(keep(123))
    const firstMs = Date.now() - 100_000
    await fill(1500, { firstMs })
    await work('main', 1500)

    expect(await trimmer.runOnce()).toEqual({ trimmed: 1377, discarded: 0 })
    expect((await idsIn())[0]).toBe(`${firstMs + 1377}-0`)
  })

  test('never reaches past the watermark, wherever it lies', async () => {
    const { trimmer } = await newTrimmer(keep(0))
    const firstMs = Date.now() - 100_000
    await fill(1500, { firstMs })
    await work('main', 1500)
    await work('billing', 1000, { pending: [`${firstMs + 700}-0`] })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 700, discarded: 0 })
    expect((await idsIn())[0]).toBe(`${firstMs + 700}-0`)
    expect(await redis.client.xlen('orders')).toBe(800)
  })

  test('counts besides the age: what is too old goes though there are few', async () => {
    const { trimmer } = await newTrimmer({ ...keep(250), maxAgeMs: 60_000 })
    const nowMs = Date.now()
    await fill(150, { firstMs: nowMs - 7_200_000 })
    await fill(300, { firstMs: nowMs - 30_000 })
    await work('main', 450)

    expect(await trimmer.runOnce()).toEqual({ trimmed: 200, discarded: 0 })
  })
})

describe('the settings of the stream', () => {
  const KEY = settingsKey('orders')

  test('count before the defaults, from the next pass on, for every worker', async () => {
    const trimmers = [await newTrimmer(KEEP_ALL), await newTrimmer(KEEP_ALL)].map(({ trimmer }) => trimmer)
    await fill(1000, { firstMs: Date.now() - 100_000 })
    await work('main', 1000)
    const [one, other] = trimmers
    expect(await one?.runOnce()).toEqual({ trimmed: 0, discarded: 0 })

    await redis.client.hset(KEY, 'retention:maxEntries', 900)
    expect(await one?.runOnce()).toEqual({ trimmed: 100, discarded: 0 })
    await redis.client.hset(KEY, 'retention:maxEntries', 850)
    expect(await other?.runOnce()).toEqual({ trimmed: 50, discarded: 0 })
    await redis.client.hset(KEY, 'retention:maxBytes', 1)
    expect(await one?.runOnce()).toEqual({ trimmed: 849, discarded: 0 })
  })

  test('may keep for longer than the default, and that is in effect at once', async () => {
    const { trimmer } = await newTrimmer({ ...KEEP_ALL, maxAgeMs: 1 })
    await fill(1000, { firstMs: Date.now() - 100_000 })
    await work('main', 1000)
    await redis.client.hset(KEY, 'retention:maxAgeMs', 3_600_000)

    expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 0 })
  })

  test('that are no numbers count as not set, and an age beyond all time keeps all', async () => {
    const { trimmer } = await newTrimmer(KEEP_ALL)
    await fill(500)
    await work('main', 500)
    await redis.client.hset(KEY, 'retention:maxAgeMs', '9'.repeat(15), 'retention:maxBytes', '-1')
    await redis.client.hset(KEY, 'retention:maxEntries', 'nan')
    expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 0 })

    await redis.client.hset(KEY, 'retention:maxAgeMs', '0x1')
    expect(await trimmer.runOnce()).toEqual({ trimmed: 499, discarded: 0 })
  })

  test('are not those of the redelivery stream, which holds only what is unsettled', async () => {
    const { trimmer } = await newTrimmer(KEEP_ALL)
    await redis.client.hset(KEY, 'retention:maxAgeMs', 3_600_000)
    await fill(300, { key: REDELIVERY, firstMs: Date.now() - 10_000 })
    await work('main', 300, { key: REDELIVERY })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 299, discarded: 0 })
  })
})

describe('the redelivery stream', () => {
  test('loses what is settled at once, whatever the age that the stream keeps', async () => {
    const { trimmer } = await newTrimmer(KEEP_ALL)
    await fill(5)
    await work('main', 5)
    await fill(700, { key: REDELIVERY, firstMs: Date.now() - 10_000 })
    await work('main', 700, { key: REDELIVERY })

    expect(await trimmer.runOnce()).toEqual({ trimmed: 699 + 4, discarded: 0 })
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

  test('looks at about a MiB at most, and many of them remove it all the same', async () => {
    const server = await startServer({ args: ['--stream-node-max-bytes', '0', '--stream-node-max-entries', '500'] })
    const client = connectTo(server.url)
    await fill(100, { client, bytes: 300_000 })
    await work('main', 100, { client })
    const removed: number[] = []
    for (let more = true; more;) {
      const trimmed = await trimStep(client, 'orders', { maxEntries: 10, limit: 400 })
      removed.push(trimmed.removed)
      more = trimmed.more
    }

    expect(Math.max(...removed)).toBeLessThanOrEqual(8)
    expect(removed.reduce((sum, count) => sum + count)).toBe(90)
    expect(await client.xlen('orders')).toBe(10)
  })

  test('says where the watermark is', async () => {
    await fill(20)
    await work('main', 15, { pending: ['9-0'] })

    expect(await trimStep(redis.client, 'orders', step)).toEqual({ removed: 8, watermark: '9-0', more: false })
  })
})

test('dead letters past the age that the settings say are discarded with their place in the index, younger ones stay', async () => {
  const dead = deadKey('orders', 'main')
  const letter = (id: string) => ['dead-reason', 'fatal', 'dead-id', id, 'dead-fields', '1', 'job', 'x'] as const
  for (let n = 1; n <= 450; n++) await redis.client.xadd(dead, `${n}-0`, ...letter(`${n}-7`))
  const young = await redis.client.xadd(dead, '*', ...letter('999-7'))
  await redis.client.hset(
    indexKey('orders', 'main'),
    '3-7',
    'dead 3-0',
    '4-7',
    'redelivery 8-0',
    '999-7',
    `dead ${young}`,
  )
  await redis.client.hset(settingsKey('orders'), 'dead:maxAgeMs', 3_600_000)
  await work('main', 1)
  const { trimmer, counts } = await newTrimmer(KEEP_ALL)

  expect(await trimmer.runOnce()).toEqual({ trimmed: 0, discarded: 450 })
  expect(await idsIn(dead)).toEqual([young])
  expect(counts.discarded).toBe(450)
  const index = { '4-7': 'redelivery 8-0', '999-7': `dead ${young}` }
  expect(await redis.client.hgetall(indexKey('orders', 'main'))).toEqual(index)
})
