import { describe, expect, test } from 'vitest'
import { Inspector, Producer, removeStream, type Groups } from '../src/index.ts'
import {
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  redeliveryKey,
  settingsKey,
  STREAMS_KEY,
  tallyKey,
  workersInfoKey,
  workersKey,
} from '../src/redis/keys.ts'
import { tallySlot } from '../src/redis/entry-id.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'
import { add, startWorker, tally } from './helpers/workers.ts'

const redis = withRedis()

const groupsOf = (url = redis.url): Groups => newInspector(url).groups

/** When the groups of these tests were last seen: within the day in which a removal leaves its mark for workers. */
const SEEN_MS = Date.now() - 3_600_000

const nowMs = () => serverMs(redis.client)
const names = async () =>
  ((await redis.client.xinfo('GROUPS', 'orders')) as unknown[][]).map((group) => group[group.indexOf('name') + 1])

/** A group with something in each of the places that are its own. */
async function use(group: string): Promise<void> {
  await redis.client.xgroup('CREATE', 'orders', group, '0', 'MKSTREAM')
  await redis.client.xreadgroup('GROUP', group, 'w', 'COUNT', 1, 'STREAMS', 'orders', '>')
  await redis.client.xgroup('CREATE', redeliveryKey('orders', group), group, '0', 'MKSTREAM')
  await redis.client.xadd(redeliveryKey('orders', group), '*', 'job', 'mail')
  await redis.client.zadd(groupScheduledKey('orders', group), 1, 'a', 2, 'b')
  await redis.client.hset(groupScheduledJobsKey('orders', group), 'a', 'x', 'b', 'x')
  for (let n = 0; n < 3; n++) await redis.client.xadd(deadKey('orders', group), '*', 'dead-reason', 'attempts')
  await redis.client.hset(indexKey('orders', group), 'a', 'scheduled')
  await redis.client.hset(workersInfoKey('orders', group), ':beat', SEEN_MS)
  await redis.client.zadd(workersKey('orders', group), SEEN_MS, 'gone')
  for (const hoursAgo of [0, 100, 7 * 24]) {
    const { hour } = tallySlot(`${(await nowMs()) - hoursAgo * 3_600_000}-0`)
    await redis.client.hset(tallyKey('orders', group, hour), '5:completed', 1)
  }
  const settings = { leaseMs: 5000, maxDeliveries: 4, floor: '0-0' }
  for (const [name, value] of Object.entries(settings)) {
    await redis.client.hset(settingsKey('orders'), `group:${group}:${name}`, value)
  }
}

async function publish(count: number): Promise<void> {
  for (let n = 0; n < count; n++) await add(redis.client, 'mail')
}

describe('the list of groups', () => {
  test('has each with what it has before it, by name', async () => {
    await publish(4)
    await use('main')
    await use('billing')
    expect(await groupsOf().list('orders')).toMatchObject(
      ['billing', 'main'].map((group) => ({
        group,
        lag: 4,
        pending: 1,
        scheduled: 2,
        dead: 3,
        workers: 0,
        lastSeenMs: SEEN_MS,
        pins: { entries: 4 },
      })),
    )
  })

  test('of a stream that is not there is ERR_NOT_FOUND', async () => {
    await expect(groupsOf().list('orders')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })
})

describe('a group that is made', () => {
  test('sees from its start on what workers that come later would have missed', async () => {
    await publish(2)
    const groups = groupsOf()
    await groups.create('orders', 'late', { startAt: 'now' })
    await groups.create('orders', 'all', { startAt: 'oldest' })
    await publish(1)
    const ran: Record<string, number> = { late: 0, all: 0 }
    for (const group of ['late', 'all']) {
      const handlers = { mail: () => void (ran[group] = (ran[group] ?? 0) + 1) }
      await startWorker({ redis: redis.url, group, handlers })
    }
    await eventually(() => expect(ran).toEqual({ late: 1, all: 3 }))
  })

  test('has its redelivery stream, and the settings that it was given; others are for its first worker', async () => {
    await publish(1)
    await groupsOf().create('orders', 'billing', { startAt: 'oldest', leaseMs: 20_000 })
    expect(await redis.client.hgetall(settingsKey('orders'))).toEqual({
      'group:billing:floor': '0-0',
      'group:billing:start': '0-0',
      'group:billing:leaseMs': '20000',
    })
    expect(await redis.client.xinfo('GROUPS', redeliveryKey('orders', 'billing'))).toHaveLength(1)
    const worker = await startWorker({ redis: redis.url, group: 'billing', leaseMs: 700, maxDeliveries: 8 })
    expect(worker.groupSettings).toEqual({ leaseMs: 20_000, maxDeliveries: 8 })
  })

  test('makes its stream where there is none yet, and lists it', async () => {
    const groups = groupsOf()
    await groups.create('orders', 'billing', { startAt: 'now' })
    expect(await groups.list('orders')).toMatchObject([
      { group: 'billing', lag: 0, lastSeenMs: null, abandoned: false },
    ])
    expect(await redis.client.smembers(STREAMS_KEY)).toEqual(['orders'])
    const producer = new Producer({ redis: redis.url })
    onEnd(async () => void (await producer.close()))
    await producer.publish('mail', {}, { stream: 'orders' })
    expect(await groups.list('orders')).toMatchObject([{ lag: 1 }])
  })

  test('is refused where it exists, and nothing is changed', async () => {
    await publish(2)
    const groups = groupsOf()
    await groups.create('orders', 'billing', { startAt: 'oldest', leaseMs: 5000 })
    const before = [await redis.client.hgetall(settingsKey('orders')), await redis.client.xinfo('GROUPS', 'orders')]
    await expect(groups.create('orders', 'billing', { startAt: 'now', leaseMs: 900 })).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: 'stream orders has a group billing already; nothing was changed',
    })
    const after = [await redis.client.hgetall(settingsKey('orders')), await redis.client.xinfo('GROUPS', 'orders')]
    expect(after).toEqual(before)
  })

  test('twenty times at once is made once', async () => {
    const groups = groupsOf()
    const tries = Array.from({ length: 20 }, () => groups.create('orders', 'billing', { startAt: 'now' }))
    const outcomes = await Promise.allSettled(tries)
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  })

  test('starts where it is told though a floor of an older one of its name is left', async () => {
    await publish(3)
    await use('billing')
    await redis.client.xgroup('DESTROY', 'orders', 'billing')
    await groupsOf().create('orders', 'billing', { startAt: 'now' })
    expect(await groupsOf().list('orders')).toMatchObject([{ group: 'billing', lag: 1 }]) // of its redelivery stream
    const [last] = await redis.client.xrevrange('orders', '+', '-', 'COUNT', 1)
    expect(await redis.client.hget(settingsKey('orders'), 'group:billing:floor')).toBe(last?.[0])
  })

  test('on a key of another type is refused, and says so', async () => {
    await redis.client.lpush('orders', 'x')
    await expect(groupsOf().create('orders', 'billing', { startAt: 'now' })).rejects.toMatchObject({
      code: 'ERR_REDIS_REFUSED',
      message: expect.stringContaining('holds a list') as string,
    })
    expect(await redis.client.keys('*')).toEqual(['orders'])
  })

  test('can be made while Redis is out of memory', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.xadd('orders', '*', 'job', 'mail')
    await client.config('SET', 'maxmemory', 1)
    await groupsOf(server.url).create('orders', 'billing', { startAt: 'oldest' })
    expect(await groupsOf(server.url).list('orders')).toMatchObject([{ group: 'billing', lag: 1 }])
  })

  test.each([
    [{}, "expected `startAt` to say where the group starts: 'oldest' or 'now'"],
    [{ startAt: 'end' }, 'expected `startAt` to be one of oldest, now, got "end"'],
    [{ startAt: 'now', leaseMs: 5 }, 'expected `leaseMs` to be an integer of 500 or more'],
    [{ startAt: 'now', maxDeliveries: 0 }, 'expected `maxDeliveries` to be a positive integer up to 1000'],
    [{ startAt: 'now', lease: 5000 }, 'unknown option `lease` of create (did you mean `leaseMs`?)'],
  ])('with %j is refused before Redis is asked', async (options, message) => {
    await expect(groupsOf().create('orders', 'billing', options as { startAt: 'now' })).rejects.toThrow(message)
    expect(await redis.client.dbsize()).toBe(0)
  })
})

describe('a group that is removed', () => {
  test('is told of first: what would be abandoned, and nothing is touched', async () => {
    await publish(4)
    await use('billing')
    const keys = (await redis.client.keys('*')).sort()
    expect(await groupsOf().removal('orders', 'billing')).toEqual({
      stream: 'orders',
      group: 'billing',
      lag: 4,
      pending: 1,
      redelivery: 1,
      scheduled: 2,
      dead: 3,
      workers: 0,
      lastSeenMs: SEEN_MS,
      isLastGroup: true,
    })
    expect((await redis.client.keys('*')).sort()).toEqual(keys)
    expect(await names()).toEqual(['billing'])
  })

  test('leaves nothing of its own, and of others and of the stream it takes nothing', async () => {
    await publish(4)
    await use('main')
    await redis.client.hset(settingsKey('orders'), 'retention:maxBytes', 5)
    const before = (await redis.client.keys('*')).sort()
    const settings = await redis.client.hgetall(settingsKey('orders'))
    await use('main.2')
    await use('billing')

    expect(await groupsOf().remove('orders', 'billing')).toMatchObject({ lag: 4, pending: 1, isLastGroup: false })
    await groupsOf().remove('orders', 'main.2')
    expect((await redis.client.keys('*')).sort()).toEqual(before)
    // Up to where the stream was, for a worker that was there and finds its group gone.
    const {
      'removed:billing': one,
      'removed:main.2': two,
      ...others
    } = await redis.client.hgetall(settingsKey('orders'))
    expect(others).toEqual(settings)
    const [[newest = ''] = []] = await redis.client.xrevrange('orders', '+', '-', 'COUNT', 1)
    expect([one, two]).toEqual([newest, newest])
    expect(await names()).toEqual(['main'])
    expect(await groupsOf().list('orders')).toMatchObject([
      { group: 'main', lag: 4, pending: 1, scheduled: 2, dead: 3 },
    ])
  })

  test('whose workers were last seen over a day ago leaves no mark for them', async () => {
    await publish(1)
    await use('main')
    await redis.client.hset(workersInfoKey('orders', 'main'), ':beat', SEEN_MS - 86_400_000)
    await groupsOf().remove('orders', 'main')
    expect(await redis.client.hget(settingsKey('orders'), 'removed:main')).toBeNull()
  })

  test('is unknown again: a worker of its name must say where it starts', async () => {
    await publish(1)
    await use('main')
    await use('billing')
    await groupsOf().remove('orders', 'billing')
    await expect(startWorker({ redis: redis.url, group: 'billing' })).rejects.toMatchObject({
      code: 'ERR_UNKNOWN_GROUP',
    })
    expect(await names()).toEqual(['main'])
  })

  test('lets go of what it pinned', async () => {
    await publish(3)
    await use('main')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    await redis.client.xack('orders', 'main', ...(await redis.client.xrange('orders', '-', '+')).map(([id]) => id))
    await use('billing')
    const inspector = new Inspector({ redis: redis.url })
    onEnd(() => inspector.close())
    const trim = async () => (await inspector.trim('orders', { maxAgeMs: 0, execute: true })).removed
    expect(await trim()).toBe(0)
    await inspector.groups.remove('orders', 'billing')
    expect(await trim()).toBe(2)
  })

  test('by force under a running worker: it makes the group anew and runs what comes then, and no history once more', async () => {
    const seen: string[] = []
    await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void seen.push(job.id) } })
    const before = [await add(redis.client, 'x'), await add(redis.client, 'x')]
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2 }))
    await groupsOf().remove('orders', 'main', { force: true })
    const after = await add(redis.client, 'x')

    await eventually(() => expect(seen).toEqual([...before, after]))
    expect(await redis.client.hget(settingsKey('orders'), 'removed:main')).toBeNull()
  })

  test('while a worker of it lives is refused, and nothing is touched, unless it is forced', async () => {
    const heard = () =>
      eventually(async () => expect(await groupsOf().removal('orders', 'billing')).toMatchObject({ workers: 1 }))
    const worker = await startWorker({ redis: redis.url, group: 'billing' })
    await startWorker({ redis: redis.url, group: 'main', startAt: 'oldest' })
    await heard()
    await expect(groupsOf().remove('orders', 'billing')).rejects.toMatchObject({
      code: 'ERR_WORKERS_ALIVE',
      message: expect.stringContaining('has 1 live worker; stop them first') as string,
    })
    expect((await names()).sort()).toEqual(['billing', 'main'])

    await worker.stop()
    expect(await groupsOf().remove('orders', 'billing')).toMatchObject({ workers: 0 })
    await startWorker({ redis: redis.url, group: 'billing', startAt: 'now' })
    await heard()
    expect(await groupsOf().remove('orders', 'billing', { force: true })).toMatchObject({ workers: 1 })
  })

  test('is found by what is left of it where the stream has lost the group itself', async () => {
    await publish(1)
    await use('main')
    await use('billing')
    await redis.client.xgroup('DESTROY', 'orders', 'billing')
    expect(await groupsOf().removal('orders', 'billing')).toMatchObject({ pending: 0, scheduled: 2, dead: 3 })
    await groupsOf().remove('orders', 'billing')
    expect((await redis.client.keys('*')).filter((key) => key.includes('billing'))).toEqual([])
    await expect(groupsOf().removal('orders', 'billing')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
  })

  test('that is not there is ERR_UNKNOWN_GROUP, with the one that may have been meant', async () => {
    await publish(1)
    await use('billing')
    for (const ask of ['removal', 'remove'] as const) {
      await expect(groupsOf()[ask]('orders', 'biling')).rejects.toMatchObject({
        code: 'ERR_UNKNOWN_GROUP',
        message: expect.stringContaining('did you mean billing?') as string,
      })
    }
  })

  test('and made again begins with nothing of the old one', async () => {
    await publish(2)
    await use('billing')
    const groups = groupsOf()
    await groups.remove('orders', 'billing')
    await groups.create('orders', 'billing', { startAt: 'oldest' })
    expect(await groups.list('orders')).toMatchObject([
      { group: 'billing', lag: 2, pending: 0, scheduled: 0, dead: 0, lastSeenMs: null },
    ])
    await removeStream({ redis: redis.url }, 'orders')
  })
})
