import { randomUUID } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { defineJob, Feed, type FeedError, type FeedJob, type FeedOptions } from '../src/index.ts'
import { fittingJobs, type WaitingFeedJob } from '../src/publish/feed-line.ts'
import { producerKey, scheduledKey, settingsKey, tokenKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy, type Match } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { loadScripts, storedNumbers } from './fixtures/producers.ts'

const redis = withRedis()

/** A feed on `orders` that is closed at the end of the test, whatever waits in it. */
function newFeed(options: Partial<FeedOptions> = {}): Feed {
  const feed = new Feed({ redis: redis.url, stream: 'orders', id: 'import', logger: false, ...options })
  onEnd(() => feed.close({ timeoutMs: 0 }))
  return feed
}

async function openedFeed(options: Partial<FeedOptions> = {}): Promise<Feed> {
  const feed = newFeed({ isNew: true, ...options })
  expect(await feed.open({ timeoutMs: 20_000 })).toEqual({ position: '' })
  return feed
}

/** Jobs whose payload is a number and whose position is the one behind it. */
const numbers = (from: number, to: number): FeedJob[] =>
  Array.from({ length: to - from }, (_, at) => ({ job: 'x', data: from + at, position: String(from + at + 1) }))

const range = (to: number): number[] => Array.from({ length: to }, (_, at) => at)

const failureOf = (publishing: Promise<unknown>): Promise<FeedError> =>
  publishing.then(
    () => expect.fail('it was published'),
    (error: unknown) => error as FeedError,
  )

const isOpening: Match = ([name, , keys]) => name === 'evalsha' && keys === '1'
const isBatch: Match = ([name, , keys]) => name === 'evalsha' && keys === '5'

/** A proxy before this file's Redis, which knows the scripts, so that each call of one is one command. */
async function provenProxy(): ReturnType<typeof startProxy> {
  await loadScripts(redis.client)
  const feed = newFeed({ id: 'load', stream: 'load', isNew: true })
  await feed.open()
  await feed.publish(numbers(0, 1))
  return startProxy(redis.url)
}

describe('a feed', () => {
  test('publishes its jobs in their order, and the next to open it hears where it was', async () => {
    const feed = await openedFeed()
    const both = await Promise.all([feed.publish(numbers(0, 3)), feed.publish(numbers(3, 5))])
    expect(await storedNumbers(redis.client)).toEqual(range(5))
    const ids = (await redis.client.xrange('orders', '-', '+')).map(([id]) => id)
    expect(both.flat()).toEqual(ids.map((id) => ({ id, outcome: 'added' })))
    expect(await newFeed().open()).toEqual({ position: '5' })
    expect(await redis.client.smembers('millrace:streams')).toEqual(['orders'])
  })

  test('takes any number of jobs at once: no script call carries more than 500, or 1 MiB beyond one job', async () => {
    const feed = await openedFeed()
    const large = 'x'.repeat(400_000)
    const jobs = [...numbers(0, 1200), ...range(4).map((at) => ({ job: 'x', data: large, position: `large ${at}` }))]
    await feed.publish(numbers(0, 1))
    await redis.client.config('RESETSTAT')
    await feed.publish(jobs)
    const stats = await redis.client.info('commandstats')
    expect(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1]).toBe('4')
    expect(await redis.client.xlen('orders')).toBe(1205)
    expect(await newFeed().open()).toEqual({ position: 'large 3' })
  })

  test('carries jobs for later, jobs with tokens and defined jobs', async () => {
    const feed = await openedFeed()
    const mail = defineJob<{ order: number }>('mail')
    const fates = await feed.publish([
      { job: mail, data: { order: 1 }, position: 'a', delayMs: 3_600_000 },
      { job: 'x', data: null, position: 'b', runAt: new Date(0) },
      { job: 'x', data: 1, position: 'c', idempotencyToken: 'once' },
      { job: 'x', data: 2, position: 'd', idempotencyToken: 'once' },
    ])
    expect(fates.map(({ outcome }) => outcome)).toEqual(['scheduled', 'added', 'added', 'duplicate'])
    expect(fates[3]?.id).toBe(fates[2]?.id)
    expect(await redis.client.zrange('{orders}:scheduled', '0', '-1')).toEqual([fates[0]?.id])
    expect(await redis.client.xlen('orders')).toBe(2)
  })

  test('ends at a job that cannot be published: those before it are, none behind it is, until it is opened again', async () => {
    const feed = await openedFeed()
    const bad = { job: 'x', data: undefined, position: '3' }
    const first = feed.publish([...numbers(0, 2), bad, ...numbers(3, 5)])
    const second = feed.publish(numbers(5, 7))
    expect(await failureOf(second)).toMatchObject({ code: 'ERR_PAYLOAD', published: 'no', confirmed: 0 })
    expect(await failureOf(first)).toMatchObject({ code: 'ERR_PAYLOAD', published: 'no', confirmed: 2 })
    expect(await feed.open()).toEqual({ position: '2' })
    await feed.publish(numbers(2, 4))
    expect(await storedNumbers(redis.client)).toEqual(range(4))
  })

  test('that was closed waits for what is on its way and takes no more', async () => {
    const feed = await openedFeed()
    const publishing = feed.publish(numbers(0, 600))
    await feed.close()
    expect(await publishing).toHaveLength(600)
    expect(await failureOf(feed.publish(numbers(0, 1)))).toMatchObject({ code: 'ERR_PRODUCER_CLOSED' })
    await expect(feed.open()).rejects.toMatchObject({ code: 'ERR_PRODUCER_CLOSED' })
  })

  test('whose key expires when nobody publishes for 14 days is remembered that long after each opening', async () => {
    await openedFeed()
    const days = (await redis.client.pttl(producerKey('orders', 'import'))) / 86_400_000
    expect(Math.round(days)).toBe(14)
  })

  test('that is closed as finished is known for another hour only', async () => {
    const feed = await openedFeed()
    await feed.publish(numbers(0, 2))
    await feed.close({ isFinished: true })
    const minutes = (await redis.client.pttl(producerKey('orders', 'import'))) / 60_000
    expect(Math.round(minutes)).toBe(60)
  })
})

describe('a feed that is interrupted', () => {
  test.each(['swallowReplyTo', 'cutBefore'] as const)(
    'has each job once after %s of each of its batches',
    async (fault) => {
      const proxy = await provenProxy()
      const feed = await openedFeed({ redis: proxy.url })
      for (let at = 0; at < 5; at++) {
        const happened = proxy[fault](isBatch)
        const published = await feed.publish(numbers(at * 2, at * 2 + 2))
        await happened
        expect(published).toHaveLength(2)
      }
      expect(await storedNumbers(redis.client)).toEqual(range(10))
    },
  )

  test('opens although the reply to its opening is lost', async () => {
    const proxy = await provenProxy()
    const lost = proxy.swallowReplyTo(isOpening)
    const feed = await openedFeed({ redis: proxy.url })
    await lost
    await feed.publish(numbers(0, 2))
    expect(await storedNumbers(redis.client)).toEqual([0, 1])
  })

  test('is fenced off by the next one: what it still has on its way is not appended', async () => {
    const proxy = await provenProxy()
    const old = await openedFeed({ redis: proxy.url })
    await old.publish(numbers(0, 2))
    const hold = proxy.holdBefore(isBatch)
    const late = failureOf(old.publish(numbers(2, 4)))
    await hold.held
    const next = newFeed()
    expect(await next.open()).toEqual({ position: '2' })
    await next.publish(numbers(2, 3))
    hold.release()
    expect(await late).toMatchObject({ code: 'ERR_FEED_TAKEN', published: 'no', confirmed: 0, uncertain: 0 })
    expect(await failureOf(old.publish(numbers(4, 5)))).toMatchObject({ code: 'ERR_FEED_TAKEN' })
    await next.publish(numbers(3, 4))
    expect(await storedNumbers(redis.client)).toEqual(range(4))
  })

  test('says unknown when its time is up with a batch on its way, and hears at its next opening that it is in Redis', async () => {
    const proxy = await provenProxy()
    const feed = await openedFeed({ redis: proxy.url, timeoutMs: 300 })
    void proxy.swallowReplyKeepOpen(isBatch)
    const [first, second] = [feed.publish(numbers(0, 400)), feed.publish(numbers(400, 700))]
    expect(await failureOf(first)).toMatchObject({
      code: 'ERR_PUBLISH_TIMEOUT',
      published: 'unknown',
      uncertain: 400,
    })
    expect(await failureOf(second)).toMatchObject({ published: 'unknown', uncertain: 100 })
    proxy.cut()
    expect(await feed.open({ timeoutMs: 20_000 })).toEqual({ position: '500' })
    await feed.publish(numbers(500, 700))
    expect(await storedNumbers(redis.client)).toEqual(range(700))
  })

  test('says unknown as well when it has lost the connection since, and no copy gets an answer', async () => {
    const proxy = await provenProxy()
    const feed = await openedFeed({ redis: proxy.url, timeoutMs: 300 })
    void proxy.swallowReplyTo(isBatch, 1000)
    expect(await failureOf(feed.publish(numbers(0, 2)))).toMatchObject({ published: 'unknown', uncertain: 2 })
    await eventually(async () => expect(await storedNumbers(redis.client)).toEqual([0, 1]))
  })

  test('appends nothing late: a batch that arrives after its time and the next opening is not executed', async () => {
    const proxy = await provenProxy()
    const feed = await openedFeed({ redis: proxy.url, timeoutMs: 300 })
    const hold = proxy.holdBefore(isBatch)
    const publishing = failureOf(feed.publish(numbers(0, 2)))
    await hold.held
    expect(await publishing).toMatchObject({ published: 'unknown', uncertain: 2 })
    const next = newFeed()
    expect(await next.open()).toEqual({ position: '' })
    await redis.client.config('RESETSTAT')
    hold.release()
    await next.publish(numbers(0, 2))
    await eventually(async () => {
      const stats = await redis.client.info('commandstats')
      expect(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1]).toBe('2')
    })
    expect(await storedNumbers(redis.client)).toEqual([0, 1])
  })

  test('has each job once and in order after Redis was killed and restarted in the middle, five times', async () => {
    const server = await startServer({ aof: true })
    const client = connectTo(server.url)
    const feed = await openedFeed({ redis: server.url })
    let next = 0
    const publishing: Promise<unknown>[] = []
    for (let kills = 0; kills < 5; kills++) {
      for (let calls = 0; calls < 10; calls++, next += 100) publishing.push(feed.publish(numbers(next, next + 100)))
      const before = kills * 1000
      await eventually(async () => expect(await client.xlen('orders')).toBeGreaterThanOrEqual(before), {
        intervalMs: 1,
      })
      await server.kill()
      await server.restart()
    }
    await Promise.all(publishing)
    expect(await storedNumbers(client)).toEqual(range(5000))
  })

  test('hears of it when Redis has lost what it had confirmed, and goes on from what is there', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const feed = await openedFeed({ redis: server.url })
    await feed.publish(numbers(0, 2))
    await client.save()
    await feed.publish(numbers(2, 4))
    await feed.publish(numbers(4, 6))
    await server.kill()
    await server.restart()
    expect(await failureOf(feed.publish(numbers(6, 8)))).toMatchObject({ code: 'ERR_FEED_BEHIND', published: 'no' })
    expect(await feed.open()).toEqual({ position: '2' })
    await feed.publish(numbers(2, 8))
    await eventually(async () => expect(await storedNumbers(client)).toEqual(range(8)))
  })
})

describe('a feed that Redis does not know', () => {
  test('is begun only where it is new', async () => {
    await expect(newFeed().open()).rejects.toMatchObject({ code: 'ERR_FEED_LOST' })
    expect(await redis.client.exists(producerKey('orders', 'import'))).toBe(0)
    await openedFeed()
    expect(await newFeed().open()).toEqual({ position: '' })
  })

  test('any more publishes nothing again, and is not begun again by the one that had opened it as new', async () => {
    const feed = await openedFeed()
    await feed.publish(numbers(0, 2))
    await redis.client.del(producerKey('orders', 'import'))
    expect(await failureOf(feed.publish(numbers(2, 4)))).toMatchObject({ code: 'ERR_FEED_LOST', published: 'no' })
    await expect(feed.open()).rejects.toMatchObject({ code: 'ERR_FEED_LOST' })
    expect(await storedNumbers(redis.client)).toEqual([0, 1])
  })
})

describe('a stream with a maxBacklog', () => {
  const bounded = async (maxBacklog: number) => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await redis.client.hset(settingsKey('orders'), 'maxBacklog', maxBacklog)
  }

  const settle = async (count: number) => {
    const read = (await redis.client.xreadgroup('GROUP', 'main', 'c', 'COUNT', count, 'STREAMS', 'orders', '>')) as
      [string, [string, string[]][]][] | null
    const ids = read?.[0]?.[1].map(([id]) => id) ?? []
    if (ids.length > 0) await redis.client.xack('orders', 'main', ...ids)
  }

  test('is filled exactly to it, and the feed goes on by itself as the backlog is settled', async () => {
    await bounded(7)
    const feed = await openedFeed()
    const publishing = feed.publish(numbers(0, 20))
    await eventually(async () => expect(await redis.client.xlen('orders')).toBe(7))
    await settle(3)
    await eventually(async () => expect(await redis.client.xlen('orders')).toBe(10))
    await settle(100)
    await eventually(async () => expect(await redis.client.xlen('orders')).toBe(17))
    await settle(100)
    expect(await publishing).toHaveLength(20)
    expect(await storedNumbers(redis.client)).toEqual(range(20))
  })

  test('refuses the rest when nothing was settled in time, and says how many are in Redis', async () => {
    await bounded(7)
    const feed = await openedFeed({ timeoutMs: 1000 })
    const error = await failureOf(feed.publish(numbers(0, 20)))
    expect(error).toMatchObject({ code: 'ERR_STREAM_FULL', published: 'no', confirmed: 7, uncertain: 0 })
    expect(error.message).toContain('the stream has a backlog of 7, and its maxBacklog is 7')
    expect(await newFeed().open()).toEqual({ position: '7' })
  })

  test('that was full at every try leaves nothing uncertain, also over a slow network', async () => {
    await bounded(7)
    const proxy = await provenProxy()
    const feed = await openedFeed({ redis: proxy.url, timeoutMs: 300 })
    proxy.delay(20)
    const error = await failureOf(feed.publish(numbers(0, 20)))
    expect(error).toMatchObject({ code: 'ERR_STREAM_FULL', published: 'no', confirmed: 7, uncertain: 0 })
  })

  test('has a batch that may have been executed sent again whole, whatever the backlog is by then', async () => {
    const proxy = await provenProxy()
    await bounded(7)
    const feed = await openedFeed({ redis: proxy.url })
    const lost = proxy.swallowReplyTo(isBatch)
    const publishing = feed.publish(numbers(0, 7))
    await lost
    expect(await publishing).toHaveLength(7)
    expect(await storedNumbers(redis.client)).toEqual(range(7))
  })

  test('is filled to it by jobs whose time is over, which count as those for now do', async () => {
    await bounded(5)
    const feed = await openedFeed()
    const publishing = feed.publish(numbers(0, 10).map((job) => ({ ...job, runAt: 1000 })))
    await eventually(async () => expect(await redis.client.xlen('orders')).toBe(5))
    await settle(5)
    expect(await publishing).toHaveLength(10)
    expect(await storedNumbers(redis.client)).toEqual(range(10))
  })

  test('that is full takes a job for later which comes before one whose time is over', async () => {
    await bounded(1)
    await redis.client.xadd('orders', '*', 'job', 'x', 'data', '0')
    const feed = await openedFeed()
    const times = [Date.now() + 3_600_000, 1000]
    const publishing = feed.publish(numbers(1, 3).map((job, at) => ({ ...job, runAt: times[at] ?? 0 })))
    await eventually(async () => expect(await redis.client.zcard(scheduledKey('orders'))).toBe(1))
    await settle(1)
    expect((await publishing).map(({ outcome }) => outcome)).toEqual(['scheduled', 'added'])
  })

  test.each([
    [['now', 'now', 'now'], 2, 2],
    [['later', 'now', 'later', 'now'], 1, 3],
    [['now'], 0, 0],
    [['later', 'now'], -3, 1],
    [['now', 'now'], 5, 2],
  ])('has room for the jobs %j in a room of %i: the first %i', (jobs, room, fitting) => {
    const waiting = jobs.map((when) => ({ packed: { due: when === 'later' ? '+1' : undefined } }))
    expect(fittingJobs(waiting as WaitingFeedJob[], room)).toBe(fitting)
  })
})

describe('a Redis that has used its share of maxmemory', () => {
  test('is fed no more, and the feed goes on by itself when there is room again', async () => {
    const server = await startServer({ args: ['--maxmemory', '29mb', '--maxmemory-policy', 'noeviction'] })
    const client = connectTo(server.url)
    await client.setrange('filling', 22_000_000, 'x')
    const held = await openedFeed({ redis: server.url, id: 'held', timeoutMs: 100 })
    expect(await failureOf(held.publish(numbers(0, 2)))).toMatchObject({ code: 'ERR_MEMORY_FULL', published: 'no' })
    expect(await client.exists('orders')).toBe(0)
    const feed = await openedFeed({ redis: server.url })
    const publishing = feed.publish(numbers(0, 2))
    await client.del('filling')
    expect(await publishing).toHaveLength(2)
    const unbound = await openedFeed({ redis: server.url, id: 'unbound', maxMemoryShare: false })
    await client.setrange('filling', 22_000_000, 'x')
    expect(await unbound.publish(numbers(2, 4))).toHaveLength(2)
  })
})

describe('what cannot be done is said', () => {
  test('when Redis refuses one job of a batch: which; nothing behind it is in Redis, and the feed goes on with it', async () => {
    await redis.client.lpush(tokenKey('orders', 'taken'), 'x')
    const feed = await openedFeed()
    const [first, second, third] = numbers(0, 3) as [FeedJob, FeedJob, FeedJob]
    const error = await failureOf(feed.publish([first, { ...second, idempotencyToken: 'taken' }, third]))
    expect(error).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', confirmed: 1, published: 'no', uncertain: 0 })
    expect(error.message).toMatch(/the job before position 2, and nothing behind it/)
    expect(await storedNumbers(redis.client)).toEqual([0])
    await redis.client.del(tokenKey('orders', 'taken'))
    expect(await feed.open()).toEqual({ position: '1' })
    await feed.publish([{ ...second, idempotencyToken: 'taken' }, third])
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 2])
  })

  test('when unique jobs need a group by name: nothing is taken as published, whichever batch they are in', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await redis.client.xgroup('CREATE', 'orders', 'mails', '0')
    const feed = await openedFeed()
    const unique = numbers(0, 700).map((job, at) => ({ ...job, uniqueKey: `key-${at}` }))
    expect(await failureOf(feed.publish(unique))).toMatchObject({ confirmed: 0, published: 'no', uncertain: 0 })
    expect(await feed.open()).toEqual({ position: '' })
    const named = unique.map((job) => ({ ...job, unique: { group: 'mails' } }))
    expect(await feed.publish(named)).toHaveLength(700)
    expect(await storedNumbers(redis.client)).toHaveLength(700)
  })

  test('when the stream is a key of another type: at once, and nothing is in Redis', async () => {
    await redis.client.lpush('orders', 'x')
    const feed = await openedFeed()
    expect(await failureOf(feed.publish(numbers(0, 3)))).toMatchObject({ code: 'ERR_PUBLISH_REFUSED', published: 'no' })
  })

  test('when Redis is away: it cannot be opened', async () => {
    const feed = newFeed({ redis: 'redis://127.0.0.1:1', isNew: true, timeoutMs: 50 })
    await expect(feed.open()).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
  })

  test('when Redis hangs: it is given up in its time', async () => {
    const proxy = await provenProxy()
    const feed = await openedFeed({ redis: proxy.url })
    const hold = proxy.holdBefore(isOpening)
    const opening = feed.open({ timeoutMs: 50 })
    await hold.held
    await expect(opening).rejects.toMatchObject({
      code: 'ERR_REDIS_UNREACHABLE',
      message: 'could not open feed import of orders: Redis did not answer',
    })
  })

  test('when it is to wait for longer than a timer can, which would be over at once', async () => {
    const feed = newFeed({ isNew: true })
    for (const waiting of [feed.open({ timeoutMs: 2 ** 31 }), feed.close({ timeoutMs: 2 ** 31 })]) {
      await expect(waiting).rejects.toThrow('up to 2147483647, got 2147483648')
    }
    expect(await feed.open({ timeoutMs: 2 ** 31 - 1 })).toEqual({ position: '' })
  })

  test('when it is used before it is opened, or opened while it publishes', async () => {
    const feed = newFeed({ isNew: true })
    await expect(feed.publish(numbers(0, 1))).rejects.toThrow('expected the feed to be opened before')
    await feed.open()
    const publishing = feed.publish(numbers(0, 1))
    await expect(feed.open()).rejects.toThrow('opened again only when nothing of it is on its way')
    await publishing
    expect(await feed.open()).toEqual({ position: '1' })
  })

  test.each<[object, string]>([
    [{ stream: undefined }, 'expected a stream name'],
    [{ stream: '{orders}:settings' }, 'expected a stream name'],
    [{ id: '' }, 'expected `id` to be 1 to 100 letters, digits and _ . - , got ""'],
    [{ id: 'a:b' }, 'expected `id` to be 1 to 100 letters'],
    [{ id: randomUUID().repeat(3) }, 'expected `id` to be 1 to 100 letters'],
    [{ isNew: 'yes' }, 'expected `isNew` to be true or false, got "yes"'],
    [{ maxMemoryShare: 0 }, 'expected `maxMemoryShare` to be a number from 0.01 to 1, or false, got 0'],
    [{ timeoutMs: 0 }, 'expected `timeoutMs` to be a positive integer up to 2147483647, got 0'],
    [{ timeoutMs: 30 * 86_400_000 }, 'expected `timeoutMs` to be a positive integer up to 2147483647, got 2592000000'],
    [{ position: 'x' }, 'unknown option `position` of Feed'],
  ])('when it is made with %j', (options, message) => {
    expect(() => new Feed({ stream: 'orders', id: 'x', ...options })).toThrow(message)
  })

  test.each<[object, string]>([
    [{ position: '' }, 'expected `position` to be 1 to 1000 printable ASCII characters, got 0 others'],
    [{ position: 'ü' }, 'expected `position` to be 1 to 1000 printable ASCII characters'],
    [{ position: 7 }, 'expected `position` to be 1 to 1000 printable ASCII characters, got 7'],
    [{ job: 'a b' }, 'expected a job name'],
    [{ job: null }, 'expected a job name'],
    [{ delayMs: -1 }, 'expected `delayMs` to be an integer of 0 or more'],
    [{ stream: 'others' }, 'unknown option `stream` of a job of a feed'],
    [{ data: undefined }, 'expected the data of x to be JSON-able, got undefined'],
    [{ data: 'x'.repeat(1_048_575) }, 'to be at most 1048576 bytes of JSON, got 1048577'],
    [{ idempotencyToken: '' }, 'expected `idempotencyToken` to be 1 to 200 visible'],
  ])('when a job is %j', async (job, message) => {
    const feed = await openedFeed()
    const error = await failureOf(feed.publish([{ job: 'x', data: 1, position: '1', ...job }]))
    expect(error.message).toContain(message)
    expect(error).toMatchObject({ published: 'no', confirmed: 0 })
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('when its data cannot be read, and says nothing that was thrown', async () => {
    const data = { toJSON: () => BigInt('secret') }
    const error = await failureOf((await openedFeed()).publish([{ job: 'x', data, position: '1' }]))
    expect(error).toMatchObject({ code: 'ERR_PAYLOAD', cause: expect.any(SyntaxError) as Error })
    expect(error.message).toContain('to be JSON-able: what reads it threw SyntaxError; see the cause')
  })
})
