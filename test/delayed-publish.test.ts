import type { Redis } from 'ioredis'
import { beforeEach, describe, expect, test } from 'vitest'
import { openMonitor } from '../bench/measures/monitor.ts'
import { PublishError, type PublishOptions } from '../src/index.ts'
import { resolveDue } from '../src/publish/due.ts'
import { producerKey, scheduledJobsKey, scheduledKey, settingsKey } from '../src/redis/keys.ts'
import { append, open, type Item } from '../src/redis/publishing.ts'
import { decodeJob } from '../src/wire.ts'
import { failureOf, isBatch, loadScripts, newProducer, scriptCalls, storedNumbers } from './fixtures/producers.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()
const HOUR_MS = 3_600_000
const YEARS_10_MS = 10 * 365 * 24 * HOUR_MS
const KEYS = [scheduledKey('orders'), scheduledJobsKey('orders'), settingsKey('orders')] as const
const [SCHEDULED, JOBS, SETTINGS] = KEYS

beforeEach(() => loadScripts(redis.client))

/** Publishes a number as job `x` on `orders`, due in an hour if not said otherwise. */
async function publishLater(producer: ReturnType<typeof newProducer>, n: number, options: PublishOptions = {}) {
  const due = options.runAt === undefined ? { delayMs: HOUR_MS } : {}
  return producer.publish('x', n, { stream: 'orders', timeoutMs: 30_000, ...due, ...options })
}

interface Scheduled {
  readonly id: string
  readonly dueMs: number
  readonly error: string
  readonly fields: string[]
}

/** What is in the scheduled set, in its order; fails if the hash beside it holds anything else. */
async function scheduled(client: Redis = redis.client): Promise<Scheduled[]> {
  const flat = await client.zrange(SCHEDULED, '0', '-1', 'WITHSCORES')
  const found: Scheduled[] = []
  for (let at = 0; at < flat.length; at += 2) {
    const [id = '', score] = flat.slice(at)
    const script = "return cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1]))"
    const [error, fields] = (await client.eval(script, 1, JOBS, id)) as [string, string[]]
    found.push({ id, dueMs: Number(score), error, fields })
  }
  expect(await client.hlen(JOBS)).toBe(found.length)
  return found
}

const scheduledNumbers = async (client: Redis = redis.client): Promise<number[]> =>
  (await scheduled(client)).map(({ fields }) => Number(fields[3])).sort((a, b) => a - b)

async function serverMs(client: Redis = redis.client): Promise<number> {
  const [seconds, micros] = await client.time()
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

describe('a publish for later', () => {
  test('is in the scheduled set by its due time, and nothing is in the stream', async () => {
    const before = await serverMs()
    const { id, outcome } = await publishLater(newProducer({ redis: redis.url }), 42)
    const after = await serverMs()
    const [job, ...others] = await scheduled()

    expect(outcome).toBe('scheduled')
    expect(others).toEqual([])
    expect(job).toMatchObject({ id, error: '', fields: ['job', 'x', 'data', '42', 'id', id] })
    expect(job?.dueMs).toBeGreaterThanOrEqual(before + HOUR_MS)
    expect(job?.dueMs).toBeLessThanOrEqual(after + HOUR_MS)
    expect(await redis.client.exists('orders')).toBe(0)
    expect(await redis.client.smembers('millrace:streams')).toEqual(['orders'])
  })

  test('has an id of its time with sixteen digits behind it, which the wire format takes', async () => {
    const producer = newProducer({ redis: redis.url })
    const { id: first } = await publishLater(producer, 1)
    const { id: second } = await publishLater(producer, 2)

    expect([first, second].map((id) => id.split('-')[1])).toEqual(['1000000000000001', '1000000000000002'])
    expect(Math.abs(Number(first.split('-')[0]) - (await serverMs()))).toBeLessThan(60_000)
    const [job] = await scheduled()
    expect(decodeJob('1-0', job?.fields ?? [])).toMatchObject({ kind: 'job', id: first, name: 'x', data: 1 })
  })

  test.each<[string, (ms: number) => Date | number]>([
    ['a Date', (ms) => new Date(ms)],
    ['ms', (ms) => ms],
  ])('may say when as %s', async (_what, as) => {
    const atMs = (await serverMs()) + 5 * HOUR_MS
    await publishLater(newProducer({ redis: redis.url }), 1, { runAt: as(atMs) })

    expect(await scheduled()).toMatchObject([{ dueMs: atMs }])
  })

  test.each<[string, PublishOptions]>([
    ['a time that is over', { runAt: new Date(Date.now() - HOUR_MS) }],
    ['the beginning of time', { runAt: 0 }],
    ['no delay', { delayMs: 0 }],
  ])('with %s is in the stream at once, as any other', async (_what, due) => {
    const { id, outcome } = await newProducer({ redis: redis.url }).publish('x', 1, { stream: 'orders', ...due })

    expect(outcome).toBe('added')
    expect(await redis.client.xrange('orders', '-', '+')).toEqual([[id, ['job', 'x', 'data', '1']]])
    expect(await redis.client.exists(SCHEDULED, JOBS)).toBe(0)
  })

  test('may be as far away as 10 years', async () => {
    const producer = newProducer({ redis: redis.url })
    await publishLater(producer, 1, { delayMs: YEARS_10_MS })
    await publishLater(producer, 2, { runAt: Date.now() + YEARS_10_MS })

    for (const { dueMs } of await scheduled()) expect(dueMs).toBeGreaterThan(Date.now() + YEARS_10_MS - HOUR_MS)
  })

  test('travels in one batch with jobs for now, each with its own answer, in their order', async () => {
    const producer = newProducer({ redis: redis.url })
    await producer.publish('x', 0, { stream: 'orders' })
    await redis.client.config('RESETSTAT')
    const answers = await Promise.all(
      [1, 2, 3, 4, 5, 6].map((n) => producer.publish('x', n, { stream: 'orders', ...(n % 3 === 0 && { delayMs: n }) })),
    )

    expect(await scriptCalls(redis.client)).toBe(1)
    expect(answers.map(({ outcome }) => outcome)).toEqual([
      ...['added', 'added', 'scheduled', 'added', 'added', 'scheduled'],
    ])
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 2, 4, 5])
    expect(await scheduledNumbers()).toEqual([3, 6])
    expect((await scheduled()).map(({ id }) => id).sort()).toEqual([answers[2]?.id, answers[5]?.id].sort())
  })

  test('of data that is not ASCII keeps its bytes', async () => {
    const data = 'é\0\uD83D\uDE00'.repeat(100)
    await newProducer({ redis: redis.url }).publish('x', data, { stream: 'orders', delayMs: HOUR_MS })

    expect((await scheduled())[0]?.fields[3]).toBe(JSON.stringify(data))
  })

  test('in thousands by publishMany: all are there, each under an id of its own', async () => {
    const producer = newProducer({ redis: redis.url })
    const numbers = Array.from({ length: 2000 }, (_, n) => n)

    expect(await producer.publishMany('x', numbers, { stream: 'orders', delayMs: HOUR_MS })).toEqual({
      published: 2000,
    })
    expect(await scheduledNumbers()).toEqual(numbers)
  })

  test('leaves jobs for now alone: their batches name no key but the stream and the producer, but to look at settings once a second', async () => {
    const seen: string[][] = []
    const monitor = await openMonitor(redis.url, ({ words }) => seen.push([...words]))
    const producer = newProducer({ redis: redis.url })
    for (let n = 1; n <= 20; n++) await producer.publish('x', n, { stream: 'orders' })
    await producer.publishMany('x', [21, 22], { stream: 'orders' })
    await eventually(() => expect(seen.filter(isBatch)).toHaveLength(21))
    monitor.close()

    const looks = seen.filter(isBatch).filter(([, , keys]) => keys === '5')
    expect(looks.length).toBeGreaterThan(0)
    expect(looks.length).toBeLessThan(21)
  })
})

describe('publish refuses, as not in Redis,', () => {
  const delay = 'expected `delayMs` to be an integer of 0 or more up to 315360000000, got '
  const instant = 'expected `runAt` to be a Date or ms since the epoch, at most 10 years ahead, got '
  test.each<[object, string]>([
    [{ delayMs: -1 }, `${delay}-1`],
    [{ delayMs: NaN }, `${delay}NaN`],
    [{ delayMs: Infinity }, `${delay}Infinity`],
    [{ delayMs: 1.5 }, `${delay}1.5`],
    [{ delayMs: '5m' }, `${delay}"5m"`],
    [{ delayMs: YEARS_10_MS + 1 }, `${delay}315360000001`],
    [{ delayMs: null }, `${delay}null`],
    [{ runAt: -1 }, `${instant}-1`],
    [{ runAt: NaN }, `${instant}NaN`],
    [{ runAt: Infinity }, `${instant}Infinity`],
    [{ runAt: new Date(NaN) }, `${instant}an invalid Date`],
    [{ runAt: new Date('2500-01-01T00:00:00Z') }, `${instant}2500-01-01T00:00:00.000Z`],
    [{ runAt: 9e15 }, `${instant}9000000000000000`],
    [{ runAt: '2026-01-01T00:00:00Z' }, `${instant}"2026-01-01T00:00:00Z"`],
    [{ runAt: null }, `${instant}null`],
    [{ delayMs: 1, runAt: 1 }, 'expected either `delayMs` or `runAt`, got both'],
    [{ delay: 1 }, 'unknown option `delay` of publish (did you mean `delayMs`?)'],
  ])('the options %j', async (options, message) => {
    const producer = newProducer({ redis: redis.url })
    const asked = { stream: 'orders', ...options }
    for (const publishing of [() => producer.publish('x', 1, asked), () => producer.publishMany('x', [1], asked)]) {
      const failure = await failureOf(publishing())
      expect(failure).toBeInstanceOf(PublishError)
      expect(failure).toMatchObject({ code: 'ERR_OPTION', published: 'no', message })
    }
    expect(await redis.client.keys('*orders*')).toEqual([])
  })

  test('an instant further ahead of now, whenever now is', () => {
    expect(resolveDue({ runAt: YEARS_10_MS + 5 }, 5)).toBe(String(YEARS_10_MS + 5))
    expect(() => resolveDue({ runAt: YEARS_10_MS + 6 }, 5)).toThrow('10 years ahead')
  })
})

/** The answer for a job that was scheduled. */
const isLater = expect.stringMatching(/^@\d+-1\d{15}$/) as string

/** Items of numbers, each due in an hour. */
const later = (...numbers: number[]): Item[] =>
  numbers.map((n) => ({ fields: ['job', 'x', 'data', String(n)], due: `+${HOUR_MS}` }))

const send = (client: Redis, seq: number, items: Item[]) => append(client, 'orders', { producerId: 'p', seq, items })

describe('one batch with jobs for later', () => {
  beforeEach(async () => void (await open(redis.client, 'orders', 'p')))

  test('that is sent again answers with the same ids and schedules nothing', async () => {
    const items = [...later(10), { fields: ['job', 'x', 'data', '11'] }, ...later(12)]
    const first = await send(redis.client, 1, items)

    expect(await send(redis.client, 1, items)).toEqual(first)
    expect(await scheduledNumbers()).toEqual([10, 12])
    expect(await storedNumbers(redis.client)).toEqual([11])
    expect(first).toMatchObject({ kind: 'done', ids: [isLater, expect.stringMatching(/^\d/), isLater] })
  })

  test('older than the last one is stale, of a producer that is gone forgotten, after lost ones behind: nothing is scheduled', async () => {
    await send(redis.client, 1, later(10))
    await send(redis.client, 2, later(11))

    expect(await send(redis.client, 1, later(12))).toEqual({ kind: 'stale' })
    expect(await send(redis.client, 4, later(12))).toEqual({ kind: 'behind', stored: 2 })
    await redis.client.del(producerKey('orders', 'p'))
    expect(await send(redis.client, 3, later(12))).toEqual({ kind: 'forgotten' })
    expect(await scheduledNumbers()).toEqual([10, 11])
  })

  test('keeps its ids apart from those given before, even if the counter was lost', async () => {
    const first = await send(redis.client, 1, later(10, 11))
    await redis.client.del(SETTINGS)
    const second = await send(redis.client, 2, later(12, 13))

    const ids = [first, second].flatMap((answer) => (answer.kind === 'done' ? answer.ids : []))
    expect(new Set(ids).size).toBe(4)
  })

  test('whose due time has come by the time that it arrives is appended, and says so', async () => {
    const nowMs = await serverMs()
    const answer = await send(redis.client, 1, [
      { fields: ['job', 'x', 'data', '1'], due: String(nowMs) },
      { fields: ['job', 'x', 'data', '2', 'h-a', 'b'], due: '+0' },
    ])

    const entries = await redis.client.xrange('orders', '-', '+')
    expect(answer).toEqual({ kind: 'done', ids: entries.map(([id]) => id) })
    expect(entries.map(([, fields]) => fields)).toEqual([
      ['job', 'x', 'data', '1'],
      ['job', 'x', 'data', '2', 'h-a', 'b'],
    ])
  })

  test.each([
    ['the scheduled set', SCHEDULED],
    ['the hash beside it', JOBS],
    ['the settings', SETTINGS],
    ['the stream', 'orders'],
  ])('with a key of another type in place of %s: an error, and nothing is written', async (_what, key) => {
    await redis.client.set(key, 'text')
    const items = [...later(10), { fields: ['job', 'x', 'data', '11'] }]

    await expect(send(redis.client, 1, items)).rejects.toThrow('WRONGTYPE')
    expect(await redis.client.hget(producerKey('orders', 'p'), 'seq')).toBe('0')
    expect((await redis.client.keys('*orders*')).sort()).toEqual([key, producerKey('orders', 'p')].sort())
  })

  test('with a counter that is no number: an error, and nothing is written', async () => {
    await redis.client.hset(SETTINGS, 'scheduled-seq', 'x')

    await expect(send(redis.client, 1, later(10))).rejects.toThrow('hash value is not an integer')
    expect(await redis.client.hget(producerKey('orders', 'p'), 'seq')).toBe('0')
    expect(await redis.client.exists(SCHEDULED, JOBS, 'orders')).toBe(0)
  })

  test('out of memory leaves the sequence and everything else where it was', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await open(client, 'orders', 'p')
    await client.config('SET', 'maxmemory', '1')

    await expect(send(client, 1, [...later(10), { fields: ['job', 'x'] }])).rejects.toThrow('OOM')
    expect(await client.hget(producerKey('orders', 'p'), 'seq')).toBe('0')
    expect(await client.exists('orders', ...KEYS)).toBe(0)
  })

  test('that Redis refuses to append one by one says so, and what is for later is scheduled all the same', async () => {
    await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'last')
    const answer = await send(redis.client, 1, [...later(10), { fields: ['job', 'x'] }])

    expect(answer).toMatchObject({ kind: 'done', ids: [isLater, undefined] })
    expect(await scheduledNumbers()).toEqual([10])
  })
})

describe('a publish for later whose connection is lost', () => {
  async function throughProxy() {
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    await publishLater(producer, 0)
    return { proxy, producer }
  }

  const idOf = async (n: number) => (await scheduled()).find(({ fields }) => fields[3] === String(n))?.id

  test.each([1, 3])('with the reply to its batch, %i times, is scheduled once, under the id it got', async (times) => {
    const { proxy, producer } = await throughProxy()
    const swallowed = proxy.swallowReplyTo(isBatch, times)
    const answers = await Promise.all([1, 2, 3].map((n) => publishLater(producer, n)))
    await swallowed

    expect(await scheduledNumbers()).toEqual([0, 1, 2, 3])
    expect(await Promise.all([1, 2, 3].map(idOf))).toEqual(answers.map(({ id }) => id))
    expect(answers.map(({ outcome }) => outcome)).toEqual(['scheduled', 'scheduled', 'scheduled'])
  })

  test('while it stays open and silent is scheduled once', async () => {
    const { proxy, producer } = await throughProxy()
    const swallowed = proxy.swallowReplyKeepOpen(isBatch)
    const { id } = await publishLater(producer, 1)
    await swallowed

    expect(await scheduledNumbers()).toEqual([0, 1])
    expect(await idOf(1)).toBe(id)
  })

  test('before its batch reaches Redis is scheduled once', async () => {
    const { proxy, producer } = await throughProxy()
    const cut = proxy.cutBefore(isBatch, 2)
    await Promise.all([1, 2].map((n) => publishLater(producer, n)))
    await cut

    expect(await scheduledNumbers()).toEqual([0, 1, 2])
  })

  test('and whose batch arrives late, after it was sent again and others after it, is scheduled once', async () => {
    const { proxy, producer } = await throughProxy()
    const hold = proxy.holdBefore(isBatch)
    const first = publishLater(producer, 1)
    await hold.held
    await first
    await publishLater(producer, 2)
    const calls = await scriptCalls(redis.client)
    hold.release()

    await eventually(async () => expect(await scriptCalls(redis.client)).toBe(calls + 1))
    expect(await scheduledNumbers()).toEqual([0, 1, 2])
  })

  test('and whose producer is forgotten meanwhile is unknown, and the next one is scheduled once', async () => {
    const { proxy, producer } = await throughProxy()
    const swallowed = proxy.swallowReplyKeepOpen(isBatch)
    const failure = failureOf(publishLater(producer, 1))
    await swallowed
    await redis.client.del(...(await redis.client.keys('{orders}:producer:*')))

    expect(await failure).toMatchObject({ published: 'unknown' })
    await publishLater(producer, 2)
    expect(await scheduledNumbers()).toEqual([0, 1, 2])
  })
})

test('a publish for later that a full server refuses goes in when there is room, once', async () => {
  const server = await startServer()
  const client = connectTo(server.url)
  const producer = newProducer({ redis: server.url })
  await publishLater(producer, 0)
  await client.config('SET', 'maxmemory', '1')
  const publishing = [1, 2].map((n) => publishLater(producer, n))
  await eventually(async () => expect(await client.info('errorstats')).toContain('errorstat_OOM'))
  expect(await scheduledNumbers(client)).toEqual([0])

  await client.config('SET', 'maxmemory', '0')
  await Promise.all(publishing)
  expect(await scheduledNumbers(client)).toEqual([0, 1, 2])
})
