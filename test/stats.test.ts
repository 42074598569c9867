import { describe, expect, test } from 'vitest'
import { ABANDONED_AFTER_MS, type GroupStats, type StreamStats } from '../src/index.ts'
import {
  deadKey,
  groupScheduledKey,
  redeliveryKey,
  scheduledKey,
  tallyKey,
  workersInfoKey,
  workersKey,
} from '../src/redis/keys.ts'
import { tallySlot } from '../src/redis/entry-id.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'

const redis = withRedis()

async function statsOf(stream = 'orders'): Promise<StreamStats> {
  const [stats] = await newInspector(redis.url).stats(stream)
  return stats as StreamStats
}

const groupStatsOf = async (): Promise<GroupStats> => (await statsOf()).groups[0] as GroupStats

const nowMs = () => serverMs(redis.client)

/** Entries of so long ago, and a group that has read none of them. */
async function arrange(...agesMs: number[]): Promise<string[]> {
  const now = await nowMs()
  const ids = agesMs.map((age) => `${now - age}-0`)
  for (const id of ids) await redis.client.xadd('orders', id, 'job', 'mail')
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  return ids
}

describe('what is scheduled', () => {
  test('is counted for the stream and for each group apart', async () => {
    await arrange(1000)
    const now = await nowMs()
    await redis.client.zadd(scheduledKey('orders'), now + 60_000, 'a')
    await redis.client.zadd(groupScheduledKey('orders', 'main'), now + 60_000, 'b', now + 70_000, 'c')

    expect(await statsOf()).toMatchObject({ scheduled: 1, overdueSeconds: 0, setAside: 0 })
    expect(await groupStatsOf()).toMatchObject({ scheduled: 2, overdueSeconds: 0, setAside: 0 })
  })

  test('is overdue by the time of the most overdue, by the clock of the server', async () => {
    await arrange(1000)
    const now = await nowMs()
    await redis.client.zadd(groupScheduledKey('orders', 'main'), now - 40_000, 'a', now - 9000, 'b', now + 9000, 'c')

    const { overdueSeconds } = await groupStatsOf()
    expect(overdueSeconds).toBeGreaterThanOrEqual(40)
    expect(overdueSeconds).toBeLessThan(1000)
  })

  test('counts what was set aside among it, and calls it overdue never', async () => {
    await arrange(1000)
    await redis.client.zadd(groupScheduledKey('orders', 'main'), '+inf', 'a', '+inf', 'b')
    expect(await groupStatsOf()).toMatchObject({ scheduled: 2, overdueSeconds: 0, setAside: 2 })

    await redis.client.zadd(groupScheduledKey('orders', 'main'), (await nowMs()) - 5000, 'c')
    expect(await groupStatsOf()).toMatchObject({ scheduled: 3, setAside: 2 })
    expect((await groupStatsOf()).overdueSeconds).toBeGreaterThanOrEqual(5)
  })

  test('makes a stream of its own, also before its first entry', async () => {
    await redis.client.zadd(scheduledKey('orders'), (await nowMs()) + 60_000, 'a')
    expect(await statsOf()).toMatchObject({ entries: 0, oldestEntryMs: null, scheduled: 1, groups: [] })
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('adds up with lag, pending and dead letters to all there is to do', async () => {
    await arrange(9000, 8000, 7000, 6000, 5000)
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 2, 'STREAMS', 'orders', '>')
    const redelivery = redeliveryKey('orders', 'main')
    await redis.client.xgroup('CREATE', redelivery, 'main', '0', 'MKSTREAM')
    await redis.client.xadd(redelivery, '*', 'job', 'mail')
    await redis.client.zadd(groupScheduledKey('orders', 'main'), '+inf', 'a', 1, 'b')
    await redis.client.zadd(scheduledKey('orders'), (await nowMs()) + 60_000, 'c')
    await redis.client.xadd(deadKey('orders', 'main'), '*', 'dead-reason', 'attempts')

    const stats = await statsOf()
    const { lag, pending, scheduled, dead } = stats.groups[0] as GroupStats
    expect({ lag, pending, scheduled, delayed: stats.scheduled, dead }).toEqual({
      lag: 4,
      pending: 2,
      scheduled: 2,
      delayed: 1,
      dead: 1,
    })
  })
})

describe('a group', () => {
  const beat = async (agoMs: number) =>
    redis.client.hset(workersInfoKey('orders', 'main'), ':beat', (await nowMs()) - agoMs)

  test('says when a worker was last heard of, and null if none ever was', async () => {
    await arrange(1000)
    expect((await groupStatsOf()).lastSeenMs).toBe(null)
    await redis.client.hset(workersInfoKey('orders', 'main'), ':beat', 1795245552380)
    expect((await groupStatsOf()).lastSeenMs).toBe(1795245552380)
    await redis.client.hset(workersInfoKey('orders', 'main'), ':beat', 'nonsense')
    expect((await groupStatsOf()).lastSeenMs).toBe(null)
  })

  test('is abandoned when nobody was heard of for a day, whatever it has before it', async () => {
    await arrange()
    await beat(ABANDONED_AFTER_MS - 60_000)
    expect((await groupStatsOf()).abandoned).toBe(false)
    await beat(ABANDONED_AFTER_MS)
    expect((await groupStatsOf()).abandoned).toBe(true)
  })

  test('is not abandoned while a worker is there, nor where the clock of the server has jumped back', async () => {
    await arrange(2 * ABANDONED_AFTER_MS)
    await beat(-ABANDONED_AFTER_MS)
    expect((await groupStatsOf()).abandoned).toBe(false)
    await beat(2 * ABANDONED_AFTER_MS)
    await redis.client.zadd(workersKey('orders', 'main'), (await nowMs()) + 4000, 'w')
    expect((await groupStatsOf()).abandoned).toBe(false)
  })

  test('that never had a worker is abandoned once a job has waited for it for a day', async () => {
    await arrange(ABANDONED_AFTER_MS - 60_000)
    expect((await groupStatsOf()).abandoned).toBe(false)
    await redis.client.del('orders')
    await arrange(ABANDONED_AFTER_MS + 60_000, 1000)
    expect((await groupStatsOf()).abandoned).toBe(true)
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    expect((await groupStatsOf()).abandoned).toBe(true)
  })

  test('pins what it has not settled, from its oldest pending or unread entry on, and nothing else', async () => {
    const ids = await arrange(50_000, 40_000, 30_000, 20_000)
    expect((await groupStatsOf()).pins).toMatchObject({ oldestId: ids[0], entries: 4 })
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 3, 'STREAMS', 'orders', '>')
    await redis.client.xack('orders', 'main', ids[0] ?? '', ids[2] ?? '')
    const { pins } = await groupStatsOf()
    expect(pins).toMatchObject({ oldestId: ids[1], entries: 2 })
    expect(pins?.seconds).toBeGreaterThanOrEqual(40)
    await redis.client.xack('orders', 'main', ids[1] ?? '')
    expect((await groupStatsOf()).pins).toMatchObject({ oldestId: ids[3], entries: 1 })
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    await redis.client.xack('orders', 'main', ids[3] ?? '')
    expect((await groupStatsOf()).pins).toBe(null)
  })

  test('tells what of the last hour was retried and cancelled', async () => {
    await arrange(1000)
    const { hour, minute } = tallySlot(`${await nowMs()}-0`)
    await redis.client.hset(tallyKey('orders', 'main', hour), `${minute}:retried`, 7, `${minute}:cancelled`, 2)
    expect((await groupStatsOf()).lastHour).toEqual({
      completed: 0,
      dead: 0,
      late: 0,
      retried: 7,
      cancelled: 2,
      skipped: 0,
    })
  })
})
