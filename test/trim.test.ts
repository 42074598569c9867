import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { TrimOptions } from '../src/index.ts'
import { settingsKey } from '../src/redis/keys.ts'
import type { TrimSeen } from '../src/redis/trimming.ts'
import { planOf } from '../src/trim-plan.ts'
import { onEnd } from './helpers/cleanup.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'

const redis = withRedis()

const inspect = (url = redis.url) => newInspector(url)

const trim = (options?: TrimOptions) => inspect().trim('orders', options)

/** Entries one ms apart, from so long ago on; returns the ms of the first. */
async function fill(count: number, { agoMs = 100_000, bytes = 1 } = {}): Promise<number> {
  const firstMs = (await serverMs(redis.client)) - agoMs
  const pipeline = redis.client.pipeline()
  for (let n = 0; n < count; n++) pipeline.xadd('orders', `${firstMs + n}-0`, 'job', 'x', 'data', 'x'.repeat(bytes))
  await pipeline.exec()
  return firstMs
}

async function work(group: string, count: number, { pending = [] as string[] } = {}): Promise<void> {
  await redis.client.xgroup('CREATE', 'orders', group, '0')
  const reply = (await redis.client.xreadgroup('GROUP', group, 'c', 'COUNT', count, 'STREAMS', 'orders', '>')) as
    [string, [string, string[]][]][] | null
  const ids = (reply?.[0]?.[1] ?? []).map(([id]) => id).filter((id) => !pending.includes(id))
  if (ids.length > 0) await redis.client.xack('orders', group, ...ids)
}

const firstId = async () => (await redis.client.xrange('orders', '-', '+', 'COUNT', 1))[0]?.[0]

describe('the plan of a trim', () => {
  test('names who holds the watermark: the group, and the consumer of its oldest pending entry', async () => {
    const firstMs = await fill(300)
    await work('main', 300)
    await work('billing', 250, { pending: [`${firstMs + 40}-0`] })

    const plan = await trim()
    expect(plan).toMatchObject({
      stream: 'orders',
      entries: 300,
      oldestEntryMs: firstMs,
      bounds: { maxAgeMs: 86_400_000, maxBytes: 1024 ** 3, maxEntries: null },
      watermark: {
        id: `${firstMs + 40}-0`,
        group: 'billing',
        heldBy: 'pending',
        pending: { consumer: 'c', idleMs: expect.any(Number) as number, deliveries: 1 },
      },
      settled: { entries: 40, isExact: true },
      wouldRemove: { entries: 0, isExact: true },
      isExecuted: false,
      removed: 0,
    })
    expect(plan.bytes).toBeGreaterThan(1000)
    expect(plan.watermark?.seconds).toBeGreaterThan(99)
  })

  test('names the group that has read the least where nothing is pending', async () => {
    const firstMs = await fill(300)
    await work('main', 300)
    await work('billing', 250)
    expect(await trim()).toMatchObject({
      watermark: { id: `${firstMs + 249}-0`, group: 'billing', heldBy: 'last-delivered', pending: null },
      settled: { entries: 249, isExact: true },
    })
  })

  test('of a group that has read nothing tells of the oldest entry, and removes nothing', async () => {
    await fill(300, { agoMs: 50_000 })
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    const plan = await trim({ maxAgeMs: 0 })
    expect(plan).toMatchObject({ watermark: { id: '0-0', group: 'main' }, settled: { entries: 0, isExact: true } })
    expect(plan.watermark?.seconds).toBeLessThan(1000)
  })

  test('of a stream without a group has no watermark, and removes nothing', async () => {
    await fill(300)
    const result = await trim({ maxAgeMs: 0, execute: true })
    expect(result).toMatchObject({ watermark: null, wouldRemove: { entries: 0, isExact: true }, removed: 0 })
    expect(await redis.client.xlen('orders')).toBe(300)
  })

  test('goes by the settings of the stream, and by what is asked for before them', async () => {
    await fill(400)
    await work('main', 400)
    await redis.client.hset(settingsKey('orders'), 'retention:maxEntries', 300, 'retention:maxBytes', 999_999)
    expect(await trim()).toMatchObject({
      bounds: { maxEntries: 300, maxBytes: 999_999 },
      wouldRemove: { entries: 100, isExact: true },
    })
    expect(await trim({ maxEntries: 150, maxBytes: 10 ** 9 })).toMatchObject({
      bounds: { maxEntries: 150, maxBytes: 10 ** 9 },
      wouldRemove: { entries: 250, isExact: true },
    })
  })

  test('is exact where counting is cheap, and says so where it is not', async () => {
    const firstMs = await fill(5000, { agoMs: 5000 })
    await work('main', 5000)
    const cheap = await trim({ maxEntries: 4900 })
    expect(cheap.wouldRemove).toEqual({ entries: 100, isExact: true })
    const dear = await trim({ maxEntries: 1000 })
    expect(dear.wouldRemove).toEqual({ entries: 4000, isExact: false })
    expect((await trim({ maxAgeMs: 86_400_000 })).wouldRemove).toEqual({ entries: 0, isExact: true })

    const halfMs = (await serverMs(redis.client)) - (firstMs + 2500)
    const { wouldRemove } = await trim({ maxAgeMs: halfMs })
    expect(wouldRemove.isExact).toBe(false)
    expect(Math.abs(wouldRemove.entries - 2500)).toBeLessThan(1100)
  })

  test('that is exact is what the trim then removes', async () => {
    await fill(450, { agoMs: 90_000 })
    await fill(450, { agoMs: 30_000 })
    await work('main', 900, { pending: [] })
    for (const options of [{ maxAgeMs: 60_000 }, { maxEntries: 200 }, { maxAgeMs: 0 }]) {
      const { wouldRemove } = await trim(options)
      const { removed } = await trim({ ...options, execute: true })
      expect({ removed, isExact: wouldRemove.isExact }).toEqual({ removed: wouldRemove.entries, isExact: true })
      expect(removed).toBeGreaterThan(100)
    }
  })

  test('needs no permission but to read, and writes nothing', async () => {
    await fill(10)
    await work('main', 10)
    const viewer = ['on', '>secret', 'resetkeys', '%R~*', '-@all', '+@read', '+time', '+info', '+client', '+select']
    await redis.client.acl('SETUSER', 'viewer', 'reset', ...viewer, '+evalsha_ro', '+eval_ro')
    onEnd(async () => void (await redis.client.acl('DELUSER', 'viewer')))
    const url = redis.url.replace('//', '//viewer:secret@')
    expect(await inspect(url).trim('orders', { maxAgeMs: 0 })).toMatchObject({ wouldRemove: { entries: 9 } })
    expect(await redis.client.xlen('orders')).toBe(10)
  })

  test('of a stream that is not there is ERR_NOT_FOUND', async () => {
    await expect(trim()).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })

  test.each([
    [{ maxAgeMs: -1 }, 'expected `maxAgeMs` to be an integer of 0 or more'],
    [{ maxEntries: 0.5 }, 'expected `maxEntries` to be an integer of 0 or more'],
    [{ maxBytes: '1GiB' }, 'expected `maxBytes` to be an integer of 0 or more'],
    [{ excute: true }, 'unknown option `excute` of trim (did you mean `execute`?)'],
  ])('with %j is refused', async (options, message) => {
    await expect(trim(options as TrimOptions)).rejects.toThrow(message)
  })
})

describe('a trim', () => {
  test('removes all that the bounds do not keep, and nothing that a group has not settled', async () => {
    const firstMs = await fill(3000)
    await work('main', 3000)
    await work('billing', 3000, { pending: [`${firstMs + 2000}-0`] })
    expect((await trim({ execute: true, maxEntries: 1500 })).removed).toBe(1500)
    expect(await trim({ execute: true, maxAgeMs: 0 })).toMatchObject({ removed: 500, isInterrupted: false })
    expect(await firstId()).toBe(`${firstMs + 2000}-0`)
  })

  test('tells how far it is, and can be ended between two steps', async () => {
    await fill(5000)
    await work('main', 5000)
    const told: number[] = []
    const ended = new AbortController()
    const result = await trim({
      execute: true,
      maxAgeMs: 0,
      signal: ended.signal,
      onProgress(removed) {
        told.push(removed)
        if (told.length === 3) ended.abort()
      },
    })
    expect(result).toMatchObject({ isInterrupted: true, removed: told[2] })
    expect(told).toHaveLength(3)
    expect(await redis.client.xlen('orders')).toBe(5000 - result.removed)
    expect((await trim({ execute: true, maxAgeMs: 0 })).removed).toBe(4999 - result.removed)
  })
})

describe('an estimate', () => {
  const seenOf = (values: Partial<TrimSeen>): TrimSeen => ({
    nowMs: 1_000_000,
    entries: 10_000,
    bytes: 1_000_000,
    oldestId: '500000-0',
    newestId: '900000-0',
    bounds: {},
    watermark: { id: '900000-0', group: 'main', pending: undefined },
    counted: { overAge: 500, settled: 500, isAll: false },
    read: [{ id: '900000-0', entries: 10_000 }],
    ...values,
  })

  test('of an age goes by the times of ids, between what groups have read', () => {
    const plan = (read: TrimSeen['read']) =>
      planOf('orders', seenOf({ bounds: { maxAgeMs: 300_000 }, read })).wouldRemove
    expect(plan([])).toEqual({ entries: 5000, isExact: false })
    expect(plan([{ id: '800000-0', entries: 9000 }])).toEqual({ entries: 6000, isExact: false })
    expect(plan([{ id: '700000-0', entries: 1234 }])).toEqual({ entries: 1234, isExact: false })
  })

  test('of a size takes all entries to be alike', () => {
    expect(planOf('orders', seenOf({ bounds: { maxBytes: 250_000 } })).wouldRemove.entries).toBe(7500)
    expect(planOf('orders', seenOf({ bounds: { maxBytes: 1_000_000 } })).wouldRemove.entries).toBe(0)
    expect(planOf('orders', seenOf({ bounds: { maxBytes: 1 }, bytes: undefined })).wouldRemove.entries).toBe(0)
  })

  test('is never negative, never more than there are, and of no more than is settled', () => {
    const ms = fc.integer({ min: 0, max: 2_000_000 })
    const id = ms.map((time) => `${time}-0`)
    const counts = fc.integer({ min: 0, max: 20_000 })
    fc.assert(
      fc.property(
        fc.record({ maxAgeMs: fc.option(ms, { nil: undefined }), maxBytes: fc.option(ms, { nil: undefined }) }),
        fc.record({ oldest: id, newest: id, watermark: id, at: id }),
        fc.record({ entries: counts, read: counts, settled: fc.integer({ min: 1, max: 500 }), isAll: fc.boolean() }),
        (bounds, ids, { entries, read, settled, isAll }) => {
          const total = Math.max(entries, settled)
          const plan = planOf(
            'orders',
            seenOf({
              bounds,
              entries: total,
              oldestId: ids.oldest,
              newestId: ids.newest,
              watermark: { id: ids.watermark, group: 'main', pending: undefined },
              counted: { overAge: settled, settled, isAll },
              read: [{ id: ids.at, entries: Math.min(read, total) }],
            }),
          )
          expect(plan.wouldRemove.entries).toBeGreaterThanOrEqual(0)
          expect(plan.settled.entries).toBeLessThanOrEqual(total)
          expect(plan.wouldRemove.entries).toBeLessThanOrEqual(plan.settled.entries)
          expect(Number.isInteger(plan.wouldRemove.entries)).toBe(true)
        },
      ),
    )
  })
})
