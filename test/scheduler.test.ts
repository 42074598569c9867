import { describe, expect, test } from 'vitest'
import { openMonitor } from '../bench/measures/monitor.ts'
import { monotonicMs } from '../src/clock.ts'
import type { Logger } from '../src/logger.ts'
import { ServerClock } from '../src/server-clock.ts'
import { DELAYED, keysOf, promotedIds, RETRIES, scheduleFields, scheduleMany } from './helpers/scheduled.ts'
import { newScheduler } from './fixtures/schedulers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { serverMs, withRedis } from './helpers/redis.ts'

const redis = withRedis()
/** Stands in for a million: enough for many calls. */
const MANY_DUE = 10_000
const HOUR_MS = 3_600_000
const job = (n: number, id = `1-${n}`) => ({ id, fields: ['job', 'x', 'data', String(n), 'id', id] })

const sum = (counts: readonly number[]) => counts.reduce((all, count) => all + count, 0)

/** Calls of the scripts since the last CONFIG RESETSTAT. */
async function looks(): Promise<number> {
  return Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.client.info('commandstats'))?.[1] ?? 0)
}

describe('one run', () => {
  test('moves what is due of both sets, each into its own stream, until nothing is', async () => {
    const promoted: [number, number][] = []
    const onPromoted = (count: number, into: number) => void promoted.push([count, into])
    const { scheduler, counts } = await newScheduler(redis.url, { onPromoted })
    await scheduleMany(redis.client, DELAYED, { count: 700, dueMs: 1 })
    await scheduleMany(redis.client, RETRIES, { count: 300, dueMs: 1 })
    await scheduleFields(redis.client, DELAYED, { ...job(9999), dueMs: (await serverMs(redis.client)) + HOUR_MS })

    expect(await scheduler.runOnce()).toEqual({ promoted: 1000, setAside: 0 })
    expect(await promotedIds(redis.client, DELAYED)).toHaveLength(700)
    expect(await promotedIds(redis.client, RETRIES)).toHaveLength(300)
    expect(await scheduler.runOnce()).toEqual({ promoted: 0, setAside: 0 })
    expect(counts).toEqual({ promoted: 1000, setAside: 0 })
    const into = (source: number) => promoted.filter(([, to]) => to === source).reduce((sum, [count]) => sum + count, 0)
    expect([into(0), into(1)]).toEqual([700, 300])
  })

  test('sets aside what cannot be moved, and says so once', async () => {
    const told: unknown[] = []
    const logger = { debug() {}, info() {}, warn() {}, error: (about: unknown) => void told.push(about) } as Logger
    const { scheduler, counts } = await newScheduler(redis.url, { logger })
    for (let n = 0; n < 600; n++) await redis.client.zadd(keysOf(DELAYED).set, n, `0-${n}`)
    await scheduleMany(redis.client, DELAYED, { count: 10, dueMs: 1000 })

    expect(await scheduler.runOnce()).toEqual({ promoted: 10, setAside: 600 })
    expect(counts).toEqual({ promoted: 10, setAside: 600 })
    expect(told).toEqual([{ jobs: 600, firstJobId: '0-0' }])
    expect(await redis.client.zcount(keysOf(DELAYED).set, '+inf', '+inf')).toBe(600)
  })

  test('that is asked for while one is under way is that one', async () => {
    const { scheduler } = await newScheduler(redis.url)
    await scheduleMany(redis.client, DELAYED, { count: 1000, dueMs: 1 })

    expect(await Promise.all([scheduler.runOnce(), scheduler.runOnce()])).toEqual([
      { promoted: 1000, setAside: 0 },
      { promoted: 1000, setAside: 0 },
    ])
  })

  test.each([
    ['stream', DELAYED, RETRIES],
    ['redelivery stream', RETRIES, DELAYED],
  ])(
    'whose %s is of another type fails, leaves those jobs where they are and moves the others',
    async (_key, bad, good) => {
      const { scheduler } = await newScheduler(redis.url)
      await redis.client.set(keysOf(bad).target, 'text')
      await scheduleMany(redis.client, bad, { count: 300, dueMs: 1 })
      await scheduleMany(redis.client, good, { count: 300, dueMs: 1 })

      await expect(scheduler.runOnce()).rejects.toThrow('WRONGTYPE')
      expect(await redis.client.zcount(keysOf(bad).set, 1, 1)).toBe(300)
      expect(await promotedIds(redis.client, good)).toHaveLength(300)
    },
  )

  test('of as many as there are, by many at once, moves each once', async () => {
    await scheduleMany(redis.client, DELAYED, { count: 2000, dueMs: 1 })
    await scheduleMany(redis.client, RETRIES, { count: 2000, dueMs: 1 })
    const both = await Promise.all([newScheduler(redis.url), newScheduler(redis.url)])
    const told = await Promise.all(both.map(({ scheduler }) => scheduler.runOnce()))

    expect(told.reduce((sum, { promoted }) => sum + promoted, 0)).toBe(4000)
    for (const where of [DELAYED, RETRIES]) {
      const ids = await promotedIds(redis.client, where)
      expect([ids.length, new Set(ids).size]).toEqual([2000, 2000])
    }
  })

  test(`moves ${MANY_DUE} that are due at once in calls of 250 at most, and leaves Redis to others in between`, async () => {
    await scheduleMany(redis.client, DELAYED, { count: MANY_DUE, dueMs: 1 })
    const { scheduler, connection } = await newScheduler(redis.url)
    /** What each call of a script appended, and how often others were served between the first call and the last. */
    const appended: number[] = []
    let others = 0
    let isOver = false
    const monitor = await openMonitor(redis.url, ({ name, isOfScript }) => {
      if (name === 'evalsha' || name === 'eval') appended.push(0)
      else if (name === 'xadd' && isOfScript) appended.push((appended.pop() ?? 0) + 1)
      else if (name === 'ping' && appended.length > 0 && sum(appended) < MANY_DUE) others += 1
      else if (name === 'echo') isOver = true
    })
    onEnd(() => monitor.close())
    let isRunning = true
    const pinging = (async () => {
      while (isRunning) await Promise.all([redis.client.ping(), connection.client.ping()])
    })()

    expect(await scheduler.runOnce()).toEqual({ promoted: MANY_DUE, setAside: 0 })
    isRunning = false
    await pinging
    await redis.client.echo('the end')
    await eventually(() => expect(isOver).toBe(true))
    expect([Math.max(...appended), sum(appended)]).toEqual([250, MANY_DUE])
    expect(others).toBeGreaterThan(0)
    expect(await redis.client.xlen('orders')).toBe(MANY_DUE)
    expect(await redis.client.exists(keysOf(DELAYED).set, keysOf(DELAYED).jobs)).toBe(0)
  })

  test('ends between two calls when the scheduler is stopped; what is left is whole', async () => {
    let stopped: Promise<void> | undefined
    const { scheduler } = await newScheduler(redis.url, { onPromoted: () => void (stopped ??= scheduler.stop()) })
    await scheduleMany(redis.client, DELAYED, { count: 1000, dueMs: 1 })

    const { promoted } = await scheduler.runOnce()
    await stopped
    expect(promoted).toBe(250)
    expect(await redis.client.zcard(keysOf(DELAYED).set)).toBe(750)
    expect(await scheduler.runOnce()).toEqual({ promoted: 0, setAside: 0 })
  })
})

describe('a started scheduler', () => {
  test('moves what is due already, and what will be when it is', async () => {
    await scheduleFields(redis.client, DELAYED, { ...job(1), dueMs: 1 })
    const dueMs = (await serverMs(redis.client)) + 300
    await scheduleFields(redis.client, RETRIES, { ...job(2), dueMs })
    const { scheduler } = await newScheduler(redis.url)
    scheduler.start()

    await eventually(async () => expect(await promotedIds(redis.client, DELAYED)).toEqual(['1-1']))
    await eventually(async () => expect(await promotedIds(redis.client, RETRIES)).toEqual(['1-2']))
    const [entry] = await redis.client.xrange(keysOf(RETRIES).target, '-', '+')
    expect(entry?.[1].slice(-2)).toEqual(['at', String(dueMs)])
    expect(Number(entry?.[0].split('-')[0])).toBeGreaterThanOrEqual(dueMs)
  })

  test('that is told of a due time moves what is due then, and asks Redis nothing before', async () => {
    const { scheduler, counts } = await newScheduler(redis.url)
    scheduler.start()
    await eventually(async () => expect(await looks()).toBeGreaterThan(0))
    await scheduler.runOnce()
    await redis.client.config('RESETSTAT')
    const dueMs = (await serverMs(redis.client)) + 400
    await scheduleFields(redis.client, DELAYED, { ...job(1), dueMs })
    scheduler.note(dueMs + HOUR_MS)
    scheduler.note(dueMs)
    scheduler.note(dueMs + 1)
    scheduler.note(NaN)

    await eventually(() => expect(counts.promoted).toBe(1))
    // One look is a call for each set; the first look may have been a moment early.
    expect(await looks()).toBeLessThanOrEqual(4)
  })

  test('told by a clock that is hours behind is not late: what the last look brought counts', async () => {
    const clock = new ServerClock()
    clock.sync((await serverMs(redis.client)) - 2 * HOUR_MS, monotonicMs())
    const { scheduler, counts } = await newScheduler(redis.url, { clock })
    scheduler.start()
    const dueMs = (await serverMs(redis.client)) + 200
    await scheduleFields(redis.client, DELAYED, { ...job(1), dueMs })
    scheduler.note(dueMs)
    // Twice: the first one may be the look of the start, which began before the job was scheduled.
    await scheduler.runOnce()
    await scheduler.runOnce()

    await eventually(() => expect(counts.promoted).toBe(1))
  })

  test('told by a clock that is hours ahead does not ask again and again: what the look brought counts', async () => {
    const clock = new ServerClock()
    clock.sync((await serverMs(redis.client)) + 2 * HOUR_MS, monotonicMs())
    const { scheduler, counts } = await newScheduler(redis.url, { clock })
    await scheduler.runOnce()
    await redis.client.config('RESETSTAT')
    const dueMs = (await serverMs(redis.client)) + 500
    await scheduleFields(redis.client, RETRIES, { ...job(1), dueMs })
    scheduler.start()
    for (let n = 0; n < 1000; n++) scheduler.note(dueMs)

    await eventually(() => expect(counts.promoted).toBe(1))
    // The first look, one for what was told, one when it was due and perhaps one a moment before: two calls each.
    expect(await looks()).toBeLessThanOrEqual(8)
  })

  test('that was stopped looks no more, whatever it is told', async () => {
    const { scheduler } = await newScheduler(redis.url)
    scheduler.start()
    await scheduler.stop()
    await redis.client.config('RESETSTAT')
    scheduler.note(1)
    scheduler.start()
    await scheduleFields(redis.client, DELAYED, { ...job(1), dueMs: 1 })

    const { scheduler: other } = await newScheduler(redis.url)
    other.start()
    await eventually(async () => expect(await promotedIds(redis.client, DELAYED)).toEqual(['1-1']))
    expect(await looks()).toBe(2)
  })

  test('with a job due in years asks once and waits', async () => {
    await scheduleFields(redis.client, DELAYED, { ...job(1), dueMs: Date.now() + 10 * 365 * 24 * HOUR_MS })
    const { scheduler } = await newScheduler(redis.url)
    await scheduler.runOnce()
    await redis.client.config('RESETSTAT')
    scheduler.start()
    await eventually(async () => expect(await looks()).toBe(2))
    await scheduler.runOnce()
    await scheduler.stop()

    expect(await looks()).toBe(4)
  })

  test('whose stream is of another type says so once, and goes on when it is none any more', async () => {
    const told: unknown[] = []
    const logger = { debug() {}, info() {}, warn() {}, error: (...all: unknown[]) => void told.push(all) } as Logger
    const { scheduler, counts } = await newScheduler(redis.url, { logger })
    await redis.client.set('orders', 'text')
    await scheduleFields(redis.client, DELAYED, { ...job(1), dueMs: 1 })
    scheduler.start()
    await eventually(async () => {
      const errors = await redis.client.info('errorstats')
      expect(Number(/errorstat_WRONGTYPE:count=(\d+)/.exec(errors)?.[1])).toBeGreaterThanOrEqual(3)
    })
    await redis.client.del('orders')

    await eventually(() => expect(counts.promoted).toBe(1))
    expect(told).toEqual([[{ fault: expect.stringContaining('WRONGTYPE') as string }, 'cannot promote scheduled jobs']])
  })
})
