import { describe, expect, test, vi } from 'vitest'
import { removeStream, type Job, type Replay, type ReplayOptions } from '../src/index.ts'
import { compareIds, isCopyId, tallySlot } from '../src/redis/entry-id.ts'
import {
  holdsKey,
  indexKey,
  redeliveryKey,
  replayIdsKey,
  replayKey,
  replaysKey,
  STREAMS_KEY,
  tallyKey,
} from '../src/redis/keys.ts'
import { copyStep, MOST_VALUES, turn } from '../src/redis/replays.ts'
import { newProducer } from './fixtures/producers.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'
import { copies, HISTORY_MS, history, holds, originals } from './helpers/replays.ts'
import { startWorker, tally } from './helpers/workers.ts'

const redis = withRedis()

const replays = () => newInspector(redis.url).replays
const group = 'main'

/** A group that has read and settled nothing. */
async function makeGroup(stream = 'orders', name = group): Promise<void> {
  await redis.client.xgroup('CREATE', stream, name, '0', 'MKSTREAM')
}

async function arrange(count: number, options?: Parameters<typeof history>[2]): Promise<string[]> {
  await makeGroup(options?.stream)
  return history(redis.client, count, options)
}

const start = (options: Partial<ReplayOptions> = {}) => replays().start('orders', { from: 0, group, ...options })

describe('a plan', () => {
  test('tells the matches, how many of each job, when they were, three samples and the ends, and changes nothing', async () => {
    const ids = await arrange(1200, { job: (n) => (n % 3 === 0 ? 'mail' : 'charge') })
    const before = (await redis.client.keys('*')).sort()
    const plan = await replays().plan('orders', { from: HISTORY_MS + 1000, to: HISTORY_MS + 10_000, group })
    expect(plan).toMatchObject({
      executed: false,
      stream: 'orders',
      target: { stream: 'orders', group },
      fromId: ids[100],
      toId: ids[999],
      scanned: 900,
      matches: 900,
      byJob: [
        { job: 'charge', count: 600 },
        { job: 'mail', count: 300 },
      ],
      samples: [
        { id: ids[100], job: 'charge', publishedMs: HISTORY_MS + 1000, payload: '{"n":100}' },
        { id: ids[101] },
        { id: ids[102], job: 'mail' },
      ],
      skippedReplays: 0,
      unclear: { count: 0, firstWhy: null },
      unknownIds: [],
      interrupted: false,
    })
    expect(plan.histogram?.buckets.reduce((sum, { count }) => sum + count, 0)).toBe(900)
    expect(plan.histogram?.buckets.length).toBeLessThanOrEqual(24)
    expect(plan.bytes).toBeGreaterThan(900 * 15)
    expect((await redis.client.keys('*')).sort()).toEqual(before)
  })

  test('says which jobs its condition cannot tell of, which it leaves', async () => {
    await arrange(10)
    await redis.client.xadd('orders', '*', 'job', 'mail', 'data', '{"other":1}')
    const plan = await replays().plan('orders', { from: 0, group, where: 'data.n >= 4' })
    expect(plan).toMatchObject({ scanned: 11, matches: 6, unclear: { count: 1 } })
    expect(plan.unclear.firstWhy).toMatch(/n/)
  })

  test('takes as long as its rate says', async () => {
    await arrange(500)
    expect((await replays().plan('orders', { from: 0, group, perSecond: 10 })).seconds).toBe(50)
  })

  test('ends at its limit, and at a signal that has aborted', async () => {
    await arrange(1200)
    expect(await replays().plan('orders', { from: 0, group, limit: 700 })).toMatchObject({ matches: 700, scanned: 700 })
    const plan = await replays().plan('orders', { from: 0, group, signal: AbortSignal.abort() })
    expect(plan).toMatchObject({ interrupted: true, matches: 0 })
  })
})

describe('a replay into a group', () => {
  test('brings each match once, in order, as a new job that says what it is a copy of, and counts it', async () => {
    const ids = await arrange(1200, { job: (n) => (n % 2 === 0 ? 'mail' : 'charge') })
    const result = await start({ job: 'mail', where: 'data.n >= 100' })
    const meant = ids.filter((_, n) => n % 2 === 0 && n >= 100)
    expect(result).toMatchObject({ executed: true, status: 'done', scanned: 1200, copied: 550, unknownIds: [] })
    expect(await originals(redis.client)).toEqual(meant)

    const seen = await copies(redis.client)
    const copyIds = seen.map(({ fields }) => fields['id'] ?? '')
    expect(new Set(copyIds).size).toBe(550)
    expect(copyIds.every(isCopyId)).toBe(true)
    expect(seen[0]?.fields).toEqual({ job: 'mail', data: '{"n":100}', id: copyIds[0], 'replay-of': ids[100] })
    const index = await redis.client.hgetall(indexKey('orders', group))
    expect(index).toEqual(Object.fromEntries(seen.map(({ id }, at) => [copyIds[at], `redelivery ${id}`])))
    expect(await tally(redis.client)).toEqual({ replayed: 550 })
    expect(await holds(redis.client)).toEqual({})
  })

  test('is told to its handlers, through retries too', async () => {
    const [first = '', second = ''] = await arrange(2)
    const seen: [number, Job['replayOf']][] = []
    const worker = await startWorker({
      redis: redis.url,
      retry: { delayMs: 1 },
      handlers: {
        mail(_data, { replayOf, attempt }) {
          seen.push([attempt, replayOf])
          if (replayOf !== undefined && attempt === 1) throw new Error('once more')
        },
      },
    })
    await eventually(() => expect(seen).toHaveLength(2))
    expect(seen).toEqual([
      [1, undefined],
      [1, undefined],
    ])
    await start()
    await eventually(() => expect(worker.counts.completed).toBe(4))
    const copied = [first, second].map((id) => ({ stream: 'orders', id }))
    expect(seen.filter(([attempt]) => attempt === 2).map(([, of]) => of)).toEqual(expect.arrayContaining(copied))
    expect(seen).toHaveLength(6)
    await eventually(async () => expect(await redis.client.hlen(indexKey('orders', group))).toBe(0))
  })

  test('leaves other groups alone', async () => {
    await arrange(5)
    await makeGroup('orders', 'billing')
    await start()
    expect(await redis.client.exists(redeliveryKey('orders', 'billing'))).toBe(0)
    expect(await redis.client.xlen('orders')).toBe(5)
  })

  test('keeps bytes that are no text and hostile names, and leaves what belonged to the delivery', async () => {
    await makeGroup()
    const bytes = Buffer.from([0xff, 0x00, 0xfe, 0x0a])
    const name = Buffer.from([0x80, 0x81])
    await redis.client.xadd('orders', '1-1', 'data', bytes, name, bytes, '__proto__', 'x', 'h-a', 'b', 'id', 'x')
    await redis.client.xadd(
      'orders',
      '1-2',
      ...['id', '7-1', 'id', '8-1', 'attempt', '3', 'at', '5', 'first-failed', '6', 'past-attempts', '7'],
      ...['expires', '8', 'unique', 'k', 'reply', 'r', 'job', 'mail', 'job', 'twice'],
    )
    expect(await start()).toMatchObject({ copied: 2 })
    const [one, two] = (await redis.client.xrangeBuffer(redeliveryKey('orders', group), '-', '+')).map(
      ([, flat]) => flat,
    )
    expect(one?.slice(0, -4)).toEqual([
      ...[Buffer.from('data'), bytes, name, bytes],
      ...['__proto__', 'x', 'h-a', 'b'].map((text) => Buffer.from(text)),
    ])
    expect(one?.slice(-2).map(String)).toEqual(['replay-of', '1-1'])
    expect(two?.map(String)).toEqual(['job', 'mail', 'job', 'twice', 'id', expect.any(String), 'replay-of', '7-1'])
  })

  test('copies what a foreign producer says to be a copy of something that is no job', async () => {
    await makeGroup()
    const garbage = ['', ' ', 'yes', 'orders 1', '\u0000', ' 1-1']
    for (const text of garbage) await redis.client.xadd('orders', '*', 'job', 'mail', 'replay-of', text)
    await redis.client.xadd('orders', '*', 'job', 'mail', 'replay-of', 'other 1-1')
    await redis.client.xadd('orders', '*', 'job', 'mail', 'replay-of', '1-1')
    expect(await replays().plan('orders', { from: 0, group })).toMatchObject({ matches: 6, skippedReplays: 2 })
    expect(await start()).toMatchObject({ copied: 6, skippedReplays: 2 })
    const ids = (await redis.client.xrange('orders', '-', '+')).map(([id]) => id)
    expect(await originals(redis.client)).toEqual(ids.slice(0, 6))
  })

  test('copies jobs of thousands of fields without text, of which a step takes only a few', async () => {
    await makeGroup()
    const empty = Array.from({ length: 3800 }, () => ['', '']).flat()
    for (let n = 0; n < 150; n++) await redis.client.xadd('orders', '*', ...empty)
    const steps: number[] = []
    await start({ onProgress: ({ copied }) => void steps.push(copied) })
    expect(steps.at(-1)).toBe(150)
    expect(Math.max(...steps.map((copied, at) => copied - (steps[at - 1] ?? 0)))).toBeLessThan(20)
  })

  test('refuses what has more fields than a script can append, and says which', async () => {
    const [small] = await arrange(1)
    const wide = Array.from({ length: MOST_VALUES / 2 }, (_, n) => [`f${n}`, 'x']).flat()
    const id = (await redis.client.xadd('orders', '*', ...wide)) as string
    const fits = (await redis.client.xadd('orders', '*', ...wide.slice(4))) as string
    expect(await start()).toMatchObject({ copied: 2, refused: { count: 1, firstIds: [id] }, status: 'done' })
    expect(await originals(redis.client)).toEqual([small, fits])
  })

  test('copies large jobs in steps of about a MiB', async () => {
    await makeGroup()
    const large = 'x'.repeat(700_000)
    for (let n = 0; n < 6; n++) await redis.client.xadd('orders', '*', 'job', 'mail', 'data', JSON.stringify(large))
    const steps: number[] = []
    await start({ onProgress: ({ copied }) => void steps.push(copied) })
    expect(steps).toEqual([0, 2, 4, 6, 6])
    expect((await copies(redis.client)).every(({ fields }) => fields['data']?.length === 700_002)).toBe(true)
  })

  test('ends at its limit, and with the newest entry of when it began', async () => {
    const ids = await arrange(1200)
    expect(await start({ limit: 3 })).toMatchObject({ copied: 3, status: 'done' })
    expect(await originals(redis.client)).toEqual(ids.slice(0, 3))
    let added = false
    const onProgress = () => {
      if (!added) void redis.client.xadd('orders', '*', 'job', 'late')
      added = true
    }
    expect(await start({ onProgress })).toMatchObject({ copied: 1200, toId: ids[1199] })
  })

  test('is refused where a key is of another type, before anything is written', async () => {
    await arrange(3)
    await redis.client.set(indexKey('orders', group), 'text')
    await expect(start()).rejects.toMatchObject({
      code: 'ERR_REDIS_REFUSED',
      message: /WRONGTYPE.*it is paused: resume/,
    })
    expect(await redis.client.exists(redeliveryKey('orders', group))).toBe(0)
    await redis.client.del(indexKey('orders', group))
    const [replay] = await replays().list('orders')
    expect(replay).toMatchObject({ status: 'paused', copied: 0 })
    expect(await replays().resume('orders', replay?.id ?? '')).toMatchObject({ status: 'done', copied: 3 })
  })

  test('stands where it was when its group is removed, and goes on when it is made again', async () => {
    const ids = await arrange(1200)
    const removing: Promise<unknown>[] = []
    const onProgress = ({ copied }: { copied: number }) => {
      if (copied === 500) removing.push(redis.client.xgroup('DESTROY', 'orders', group))
    }
    await expect(start({ onProgress, perSecond: 5000 })).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
    const [replay] = await replays().list('orders')
    expect(replay?.status).toBe('paused')
    await makeGroup()
    await replays().resume('orders', replay?.id ?? '')
    expect(await originals(redis.client)).toEqual(ids)
  })
})

describe('the pace of a replay', () => {
  test('is never more than its rate in any second, in steps of a tenth', async () => {
    await arrange(1000)
    const steps: number[] = []
    await start({ perSecond: 500, limit: 900, onProgress: ({ copied }) => void steps.push(copied) })
    expect(Math.max(...steps.map((copied, at) => copied - (steps[at - 1] ?? 0)))).toBe(50)
    // By the clock of Redis, which the ids of copies are of.
    const times = (await copies(redis.client)).map(({ id }) => Number(id.split('-')[0]))
    expect(times).toHaveLength(900)
    for (const from of times)
      expect(times.filter((ms) => ms >= from && ms < from + 1000).length).toBeLessThanOrEqual(500)
  })

  test('does not depend on the clock of this machine, nor does where copies are counted', async () => {
    await arrange(10)
    const wrong = vi.spyOn(Date, 'now').mockReturnValue(Date.now() - 50 * 3_600_000)
    try {
      expect(await start()).toMatchObject({ copied: 10 })
    } finally {
      wrong.mockRestore()
    }
    const { hour } = tallySlot(`${await serverMs(redis.client)}-0`)
    expect(await redis.client.keys('*:tally:*')).toEqual([tallyKey('orders', group, hour)])
    expect(await redis.client.pttl(tallyKey('orders', group, hour))).toBeGreaterThan(6 * 86_400_000)
  })
})

describe('a replay into another stream', () => {
  test('appends copies as plain jobs that name the stream they are of', async () => {
    const ids = await arrange(700)
    await makeGroup('copies')
    expect(await replays().start('orders', { from: 0, toStream: 'copies' })).toMatchObject({
      copied: 700,
      target: { stream: 'copies', group: null },
    })
    const seen = await copies(redis.client, 'copies')
    expect(seen.map(({ fields }) => fields['replay-of'])).toEqual(ids.map((id) => `orders ${id}`))
    expect(seen[0]?.fields).toEqual({ job: 'mail', data: '{"n":0}', 'replay-of': `orders ${ids[0]}` })
    expect((await redis.client.keys('{copies}*')).filter((key) => !key.includes(':replay'))).toEqual([])
    const told: unknown[] = []
    await startWorker({
      redis: redis.url,
      stream: 'copies',
      handlers: { mail: (_data, { replayOf }) => void told.push(replayOf) },
    })
    await eventually(() => expect(told).toEqual(ids.map((id) => ({ stream: 'orders', id }))))
  })

  test('skips on the next replay what a replay brought, unless it is asked for', async () => {
    await arrange(5)
    await makeGroup('copies')
    await replays().start('orders', { from: 0, toStream: 'copies' })
    await redis.client.xadd('copies', '*', 'job', 'own')
    const own = { from: 0, group }
    expect(await replays().plan('copies', own)).toMatchObject({ scanned: 6, matches: 1, skippedReplays: 5 })
    expect(await replays().start('copies', own)).toMatchObject({ copied: 1, skippedReplays: 5 })
    const all = { ...own, includeReplays: true }
    expect(await replays().plan('copies', all)).toMatchObject({ matches: 6, skippedReplays: 0 })
    expect(await replays().start('copies', all)).toMatchObject({ copied: 6, includeReplays: true })
  })

  test('needs a stream that exists, and says how to make one', async () => {
    await arrange(1)
    await makeGroup('copies')
    await redis.client.sadd(STREAMS_KEY, 'orders', 'copies')
    await expect(replays().start('orders', { from: 0, toStream: 'copis' })).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: expect.stringMatching(
        /did you mean copies\?.*millrace groups create copis main --start oldest/,
      ) as string,
    })
    expect(await redis.client.exists('copis')).toBe(0)
    expect(await holds(redis.client)).toEqual({})
  })
})

describe('a replay of named jobs', () => {
  test('is of their entries in order, each once, also of those published with a delay', async () => {
    await makeGroup()
    const producer = newProducer({ redis: redis.url })
    const delayed = await producer.publish('mail', { d: 1 }, { stream: 'orders', delayMs: 1 })
    const worker = await startWorker({ redis: redis.url, handlers: { mail() {} } })
    await eventually(() => expect(worker.counts.completed).toBe(1))
    await worker.stop()
    const startMs = (await serverMs(redis.client)) + 1000
    const ids = await history(redis.client, 1100, { startMs })
    const named = [...ids.slice(1, 1001).reverse(), ids[5] ?? '', delayed.id, '1-1', '2-1000000000000001']
    const plan = await replays().plan('orders', { ids: named, group })
    expect(plan).toMatchObject({ matches: 1001, unknownIds: ['2-1000000000000001', '1-1'], toId: ids[1000] })
    const result = await replays().start('orders', { ids: named, group })
    expect(result).toMatchObject({ copied: 1001, ids: 1001, status: 'done', unknownIds: ['2-1000000000000001', '1-1'] })
    expect(await originals(redis.client)).toEqual([delayed.id, ...ids.slice(1, 1001)])
    expect(await redis.client.exists(replayIdsKey('orders', result.id))).toBe(0)
  })

  test('counts those that are gone when their turn comes', async () => {
    const ids = await arrange(1200)
    const removing: Promise<unknown>[] = []
    const onProgress = ({ copied }: { copied: number }) => {
      if (copied === 0) removing.push(redis.client.xdel('orders', ids[1100] ?? ''))
    }
    expect(await replays().start('orders', { ids, group, onProgress, perSecond: 20_000 })).toMatchObject({
      copied: 1199,
      missing: 1,
    })
  })

  test('is not of copies: their originals are to be named', async () => {
    await arrange(1)
    await expect(replays().plan('orders', { ids: ['5-2000000000000000'], group })).rejects.toThrow(
      /which a replay has made: name the job that it is a copy of/,
    )
  })

  test('is refused if the stream holds none of them', async () => {
    await arrange(1)
    await expect(replays().start('orders', { ids: ['1-1'], group })).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    expect(await redis.client.keys('{orders}:replay*')).toEqual([])
  })
})

describe('what is refused', () => {
  test.each([
    [{ group }, 'expected `from` or `ids`'],
    [{ from: 0 }, 'expected either `group` or `toStream`, got neither'],
    [{ from: 0, group, toStream: 'x' }, 'got both'],
    [{ from: 0, toStream: 'orders' }, 'expected `toStream` to be another stream than orders'],
    [{ from: 5, to: 3, group }, 'expected `to` to be after `from`'],
    [{ from: 0, ids: ['1-1'], group }, 'expected either `ids` or a range'],
    [{ ids: [], group }, 'a list of 1 to 100000 job ids, got 0'],
    [{ from: 0, group, where: 'data.n >' }, 'at character'],
    [{ from: 0, group, job: 'a b' }, 'expected a job name'],
    [{ from: 0, group, perSecond: 0 }, 'expected `perSecond` to be a positive integer'],
    [{ from: 0, group, limit: 1.5 }, 'expected `limit` to be a positive integer'],
    [{ from: 0, group, until: 5 }, 'unknown option `until`'],
  ])('%j', async (options, message) => {
    await arrange(1)
    for (const verb of ['plan', 'start'] as const) {
      await expect(replays()[verb]('orders', options as ReplayOptions)).rejects.toThrow(message)
    }
    expect(await redis.client.keys('{orders}:replay*')).toEqual([])
  })

  test('a group or a stream that does not exist, with the name that may have been meant', async () => {
    await arrange(1)
    await redis.client.sadd(STREAMS_KEY, 'orders')
    await expect(start({ group: 'mian' })).rejects.toThrow('did you mean main?')
    await expect(replays().start('order', { from: 0, group })).rejects.toThrow('did you mean orders?')
    expect(await redis.client.keys('*replay*')).toEqual([])
  })

  test('a range that begins before the history does, with since when there is one', async () => {
    const ids = await arrange(10)
    await redis.client.xtrim('orders', 'MINID', ids[4] ?? '')
    for (const verb of ['plan', 'start'] as const) {
      await expect(replays()[verb]('orders', { from: HISTORY_MS, group })).rejects.toMatchObject({
        code: 'ERR_HISTORY',
        message: expect.stringContaining(`ask from ${ids[4]} on`) as string,
      })
    }
    expect(await holds(redis.client)).toEqual({})
    expect(await start({ from: ids[4] ?? '' })).toMatchObject({ copied: 6 })
  })

  test('a range in which there is nothing', async () => {
    await arrange(2)
    const options = { from: HISTORY_MS + 1_000_000, group }
    expect(await replays().plan('orders', options)).toMatchObject({ matches: 0, fromId: null, histogram: null })
    await expect(replays().start('orders', options)).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })

  test('more replays than may hold a stream', async () => {
    await arrange(2)
    for (let n = 0; n < 100; n++) await redis.client.hset(holdsKey('orders'), `x r${n}`, '1-1 9999999999999')
    await expect(start()).rejects.toMatchObject({ code: 'ERR_REPLAY' })
    for (let n = 0; n < 100; n++) await redis.client.hset(holdsKey('orders'), `x r${n}`, '1-1 5')
    expect(await start()).toMatchObject({ copied: 2 })
    expect(await holds(redis.client)).toEqual({})
  })
})

describe('pausing', () => {
  test('stands where it was, holds the history, and goes on when it is resumed, to the end that it had', async () => {
    const ids = await arrange(1200)
    const stopping = new AbortController()
    const paused = await start({
      signal: stopping.signal,
      perSecond: 2000,
      onProgress: ({ copied }) => void (copied >= 400 && stopping.abort()),
    })
    expect(paused).toMatchObject({ status: 'paused', copied: 400, cursor: ids[399], perSecond: 2000 })
    expect(Object.keys(await holds(redis.client))).toEqual([`orders ${paused.id}`])
    await history(redis.client, 3, { startMs: HISTORY_MS + 1_000_000 })
    const done = await replays().resume('orders', paused.id, { perSecond: 1_000_000 })
    expect(done).toMatchObject({ status: 'done', copied: 1200, toId: ids[1199], perSecond: 1_000_000 })
    expect(await originals(redis.client)).toEqual(ids)
    expect(await replays().resume('orders', paused.id)).toMatchObject({ status: 'done', copied: 1200 })
    expect(await holds(redis.client)).toEqual({})
  })

  test('before it begins changes nothing', async () => {
    await arrange(3)
    await expect(start({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ERR_REPLAY' })
    expect(await redis.client.keys('{orders}:replay*')).toEqual([])
  })

  test('by somebody else ends the run', async () => {
    await arrange(3000)
    let cancelling: Promise<Replay> | undefined
    const result = await start({
      perSecond: 1000,
      onProgress: ({ id, copied }) => void (copied > 0 && (cancelling ??= replays().cancel('orders', id))),
    })
    expect(await cancelling).toMatchObject({ status: 'cancelled' })
    expect(result.status).toBe('cancelled')
    expect(result.copied).toBeLessThan(3000)
    expect(await originals(redis.client)).toHaveLength(result.copied)
    expect(await holds(redis.client)).toEqual({})
    await expect(replays().resume('orders', result.id)).rejects.toMatchObject({ code: 'ERR_REPLAY' })
    expect(await replays().cancel('orders', result.id)).toMatchObject({ status: 'cancelled' })
  })
})

describe('retention', () => {
  /** All of it settled, so that only a replay holds it. */
  async function settled(count: number): Promise<string[]> {
    const ids = await arrange(count)
    for (let from = 0; from < count; from += 1000) {
      await redis.client.xreadgroup('GROUP', group, 'c', 'COUNT', 1000, 'STREAMS', 'orders', '>')
      await redis.client.xack('orders', group, ...ids.slice(from, from + 1000))
    }
    return ids
  }
  const trimAll = () => newInspector(redis.url).trim('orders', { maxAgeMs: 0, execute: true })

  test('does not eat what a running replay has not read', async () => {
    const ids = await settled(3000)
    const trims: Promise<unknown>[] = []
    const result = await start({
      perSecond: 10_000,
      onProgress: ({ copied }) => void (copied % 1000 === 0 && trims.push(trimAll())),
    })
    await Promise.all(trims)
    expect(result).toMatchObject({ status: 'done', copied: 3000 })
    expect(await originals(redis.client)).toEqual(ids)
    await trimAll()
    expect(await redis.client.xlen('orders')).toBeLessThan(2)
  })

  test('does not eat what a paused one has not read, and its plan names the replay', async () => {
    const ids = await settled(1200)
    const stopping = new AbortController()
    const { signal } = stopping
    const paused = await start({
      signal,
      perSecond: 2000,
      onProgress: ({ copied }) => void (copied && stopping.abort()),
    })
    const { watermark } = await trimAll()
    expect(watermark).toMatchObject({
      id: ids[199],
      group: null,
      heldBy: 'replay',
      replay: { stream: 'orders', id: paused.id },
      pending: null,
    })
    expect((await redis.client.xrange('orders', '-', '+', 'COUNT', 1))[0]?.[0]).toBe(ids[199])
    expect(await replays().resume('orders', paused.id)).toMatchObject({ copied: 1200 })
    expect(await originals(redis.client)).toEqual(ids)
  })

  test('goes on when the hold is over, and then the replay cannot: it says what to do', async () => {
    const ids = await settled(1200)
    const stopping = new AbortController()
    const { signal } = stopping
    const paused = await start({
      signal,
      perSecond: 2000,
      onProgress: ({ copied }) => void (copied && stopping.abort()),
    })
    await redis.client.hset(holdsKey('orders'), `orders ${paused.id}`, `${ids[199]} 5`)
    await redis.client.xtrim('orders', 'MINID', ids[600] ?? '')
    await expect(replays().resume('orders', paused.id)).rejects.toMatchObject({
      code: 'ERR_HISTORY',
      message: expect.stringContaining(`begin another one from ${ids[600]} on`) as string,
    })
    expect(await replays().show('orders', paused.id)).toMatchObject({ status: 'paused', copied: 200 })
    expect(await originals(redis.client)).toHaveLength(200)
  })

  test('is let go by the last step itself, for the runner may die behind it', async () => {
    const ids = await arrange(3)
    const stop = new AbortController()
    const { id, cursor } = await replays().start('orders', {
      ...{ ids, group, signal: stop.signal, perSecond: 1 },
      onProgress: () => stop.abort(),
    })
    const place = { stream: 'orders', id }
    expect(await turn(redis.client, place, { wanted: 'running' })).toBe('running')
    expect(Object.keys(await holds(redis.client))).toEqual([`orders ${id}`])
    const step = { group, cursor, nextCursor: ids[2] ?? '', copies: [], fields: { status: 'done' } }
    expect((await copyStep(redis.client, place, { ...step, nowMs: await serverMs(redis.client) })).kind).toBe('ok')
    expect(await holds(redis.client)).toEqual({})
    expect(await redis.client.exists(replayIdsKey('orders', id))).toBe(0)
    expect(await replays().show('orders', id)).toMatchObject({
      status: 'done',
      finishedMs: expect.any(Number) as number,
    })
  })

  test('that takes what was copied keeps no replay from its end', async () => {
    const ids = await arrange(3)
    const stop = new AbortController()
    const { id, cursor } = await start({ signal: stop.signal, perSecond: 1, onProgress: () => stop.abort() })
    const place = { stream: 'orders', id }
    await turn(redis.client, place, { wanted: 'running' })
    const step = { group, cursor, nextCursor: ids[2] ?? '', copies: [], fields: {} }
    // Killed after its last copies, and before it has noted that these were the last.
    expect((await copyStep(redis.client, place, { ...step, nowMs: await serverMs(redis.client) })).kind).toBe('ok')
    await redis.client.xadd('orders', '*', 'job', 'later')
    await redis.client.xtrim('orders', 'MAXLEN', '=', 1)
    expect(await replays().resume('orders', id)).toMatchObject({ status: 'done' })
  })

  test('of somebody who heeds no hold is noticed, and not taken for the end', async () => {
    await settled(3000)
    let cut: Promise<unknown> | undefined
    const run = start({
      perSecond: 1000,
      onProgress: ({ copied }) => void (copied > 0 && (cut ??= redis.client.xtrim('orders', 'MAXLEN', 0))),
    })
    await expect(run).rejects.toMatchObject({ code: 'ERR_HISTORY' })
    expect((await replays().list('orders'))[0]).toMatchObject({ status: 'paused' })
  })
})

describe('replays', () => {
  test('are listed, the newest first, and shown; of another stream it is said where they are', async () => {
    await arrange(2)
    await makeGroup('copies')
    const first = await start({ limit: 1 })
    const second = await start({ job: 'none' })
    expect(second).toMatchObject({ copied: 0, scanned: 2, job: 'none', status: 'done' })
    const listed = await replays().list('orders')
    expect(listed.map(({ id }) => id).sort()).toEqual([first.id, second.id].sort())
    expect(await replays().show('orders', first.id)).toMatchObject({ limit: 1, copied: 1, source: 'orders' })
    await expect(replays().show('orders', 'raaaaaaaa')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await expect(replays().show('orders', 'nonsense')).rejects.toThrow('expected the id of a replay')
    await redis.client.hset(holdsKey('orders'), 'copies raaaaaaab', '1-1 9999999999999')
    await expect(replays().cancel('orders', 'raaaaaaab')).rejects.toThrow('it reads orders and goes into copies')
  })

  test('that are over are kept, the newest 1000 of them; others stay', async () => {
    await arrange(1)
    const pipeline = redis.client.pipeline()
    for (let n = 0; n < 1003; n++) {
      pipeline.zadd(replaysKey('orders'), n, `r${n}`)
      pipeline.hset(replayKey('orders', `r${n}`), 'status', n === 1 ? 'paused' : 'done')
    }
    await pipeline.exec()
    await start()
    expect(await redis.client.exists(replayKey('orders', 'r0'), replayKey('orders', 'r2'))).toBe(0)
    expect(await redis.client.exists(replayKey('orders', 'r1'), replayKey('orders', 'r3'))).toBe(2)
    expect(await redis.client.zcard(replaysKey('orders'))).toBe(1002)
  })

  test('go with their stream, and what they held of others', async () => {
    await arrange(3)
    await makeGroup('copies')
    await redis.client.sadd(STREAMS_KEY, 'copies')
    await replays().start('orders', { ids: [`${HISTORY_MS}-0`], toStream: 'copies' })
    const [{ id } = { id: '' }] = await replays().list('copies')
    await redis.client.hset(holdsKey('orders'), `copies ${id}`, '1-1 9999999999999')
    await redis.client.hset(holdsKey('copies'), 'x raaaaaaaa', '1-1 9999999999999')
    await removeStream({ redis: redis.url }, 'copies')
    expect(await redis.client.keys('*copies*')).toEqual([])
    expect(await holds(redis.client)).toEqual({})
  })
})

test('out of memory pauses a replay, which goes on when there is some', async () => {
  const server = await startServer()
  const client = connectTo(server.url)
  await client.xgroup('CREATE', 'orders', group, '0', 'MKSTREAM')
  const ids = await history(client, 1200)
  const inspector = newInspector(server.url)
  let squeezing: Promise<unknown> | undefined
  const onProgress = ({ copied }: { copied: number }) => {
    if (copied > 0) squeezing ??= client.config('SET', 'maxmemory', '1')
  }
  const run = inspector.replays.start('orders', { from: 0, group, perSecond: 2000, onProgress })
  await expect(run).rejects.toMatchObject({ code: 'ERR_REDIS_REFUSED', message: /out of memory.*it is paused/ })
  await squeezing
  await client.config('SET', 'maxmemory', '0')
  const [replay] = await inspector.replays.list('orders')
  expect(replay?.status).toBe('paused')
  expect(await inspector.replays.resume('orders', replay?.id ?? '')).toMatchObject({ status: 'done', copied: 1200 })
  expect(await originals(client)).toEqual(ids)
})

test('copies are in the order of their originals by any clock', async () => {
  const ids = await arrange(1100)
  await start()
  const seen = await copies(redis.client)
  expect(seen.map(({ fields }) => fields['replay-of'])).toEqual(ids)
  const copyIds = seen.map(({ fields }) => fields['id'] ?? '')
  expect([...copyIds].sort(compareIds)).toEqual(copyIds)
})
