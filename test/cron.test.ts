import { describe, expect, test } from 'vitest'
import { declareCron, resolveCron } from '../src/cron/declared.ts'
import { defineJob, type CronSchedule } from '../src/index.ts'
import type { Logger } from '../src/logger.ts'
import { fireDue, readDueCron } from '../src/redis/cron.ts'
import { cancelledKey, cronDueKey, cronKey, deadKey, groupScheduledKey } from '../src/redis/keys.ts'
import { firedJobs, firedTicks, makeDue, newFirer } from './helpers/cron.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { gate, startWorker } from './helpers/workers.ts'

const redis = withRedis()
const HOUR_MS = 3_600_000

const cron = () => newInspector(redis.url).cron
const set = (schedule: Partial<CronSchedule> = {}) =>
  cron().set('orders', { name: 'a', job: 'x', everyMs: HOUR_MS, ...schedule })
const one = async (name = 'a') => (await cron().list('orders')).schedules.find((schedule) => schedule.name === name)

/**
 * An hourly schedule of which so many ticks are over and none was fired: the last half an hour ago, and the next as far away, so
 * that no test is between two. Gives those ticks.
 */
async function overdue(count: number, schedule: Partial<CronSchedule> = {}): Promise<number[]> {
  const startMs = (await serverMs(redis.client)) - (count - 0.5) * HOUR_MS
  await set({ start: startMs, ...schedule })
  await makeDue(redis.client, schedule.name ?? 'a', startMs)
  return Array.from({ length: count }, (_, at) => startMs + at * HOUR_MS)
}

describe('a schedule', () => {
  test('is fired when it is due, once, as a job with its payload, its headers and its tick', async () => {
    const [tick = 0] = await overdue(1, { data: { order: 42 }, headers: { tenant: 'acme' }, ttlMs: 5000 })
    const { firer } = await newFirer(redis.url)

    expect(await firer.runOnce()).toEqual({ cronFired: 1, cronSkipped: 0 })
    expect(await firer.runOnce()).toEqual({ cronFired: 0, cronSkipped: 0 })
    const [job, ...others] = await firedJobs(redis.client)
    expect(others).toEqual([])
    expect(job?.fields).toEqual({
      ...{ job: 'x', data: '{"order":42}', expires: '+5000', 'h-tenant': 'acme' },
      ...{ cron: `a ${tick}`, at: String(tick) },
    })
    expect(await one()).toMatchObject({ state: 'waiting', lastTickMs: tick, lastJobId: job?.id, fired: 1, skipped: 0 })
    expect((await one())?.nextMs).toBe(tick + HOUR_MS)
  })

  test('is run by a worker, whose handler is told of the schedule and the tick', async () => {
    const seen: unknown[] = []
    await set({ everyMs: 100, data: 7 })
    const handlers = { x: (data: unknown, job: { cron: unknown }) => void seen.push([data, job.cron]) }
    const worker = await startWorker({ redis: redis.url, handlers })
    await eventually(() => expect(seen.length).toBeGreaterThan(2))
    await cron().remove('orders', 'a')

    const ticks = (await firedTicks(redis.client)).map((text) => Number(text.split(' ')[1]))
    expect(ticks.every((tick) => tick % 100 === 0)).toBe(true)
    expect(new Set(ticks).size).toBe(ticks.length)
    expect(seen[0]).toEqual([7, { name: 'a', tickMs: ticks[0] }])
    await eventually(() => expect([worker.counts.cronFired, seen.length]).toEqual([ticks.length, ticks.length]))
  })

  test('whose end comes is fired until then, and is over', async () => {
    const [first = 0, second = 0] = await overdue(2, { catchUp: 'all', end: (await serverMs(redis.client)) + 1000 })
    await (await newFirer(redis.url)).firer.runOnce()

    expect(await firedTicks(redis.client)).toEqual([`a ${first}`, `a ${second}`])
    expect(await one()).toMatchObject({ state: 'ended', nextMs: null })
  })

  test('that cannot be read is set aside and told, and those behind it are fired', async () => {
    const told: unknown[] = []
    const logger = { debug() {}, info() {}, warn() {}, error: (about: unknown) => void told.push(about) } as Logger
    const ticks = new Map<string, number | undefined>()
    for (const name of ['a', 'b', 'c', 'd']) ticks.set(name, (await overdue(1, { name }))[0])
    await redis.client.hset(cronKey('orders'), 'a', '{"at":"no","zone":"UTC"}\n{"overlap":"allow"}')
    await redis.client.hset(cronKey('orders'), 'b/job', '["job"]')
    await redis.client.hset(cronKey('orders'), 'c/state', 'what')
    await (await newFirer(redis.url, logger)).firer.runOnce()

    expect(await firedTicks(redis.client)).toEqual([`d ${ticks.get('d')}`])
    expect(told).toMatchObject([{ schedule: 'a' }, { schedule: 'b' }, { schedule: 'c' }])
    for (const name of ['a', 'b', 'c']) expect(await one(name)).toMatchObject({ state: 'set-aside', nextMs: null })
    await set({ name: 'b' })
    expect(await one('b')).toMatchObject({ state: 'waiting' })
  })

  test('of a job that is in order by its payload has the key of its line, and without one it is refused', async () => {
    const job = defineJob<{ account?: string }>('x', { orderBy: 'data.account' })
    await overdue(1, { job, data: { account: 'ada' } })
    await (await newFirer(redis.url)).firer.runOnce()

    expect((await firedJobs(redis.client))[0]?.fields).toMatchObject({ job: 'x', key: 'ada' })
    await expect(set({ job, data: {} })).rejects.toThrow('expected a key in the data of x')
  })

  test('of large payloads is fired a MiB at a time, however many of its ticks were missed', async () => {
    const startMs = (await serverMs(redis.client)) - 49.5 * HOUR_MS
    await set({ start: startMs, catchUp: 'all', data: 'x'.repeat(60_000) })
    await makeDue(redis.client, 'a', startMs)
    const { rows } = await readDueCron(redis.client, 'orders', 1)
    const ticks = Array.from({ length: 50 }, (_, at) => startMs + at * HOUR_MS)
    const firing = { name: 'a', version: rows[0]?.state?.version ?? '', dueMs: startMs, overlap: 'allow', ticks }
    const { outcomes } = await fireDue(redis.client, 'orders', [{ ...firing, nextMs: startMs + 50 * HOUR_MS }], 1000)

    expect(outcomes).toEqual([{ fired: 18, skipped: 0, isHeld: false }])
    expect(await one()).toMatchObject({ state: 'overdue', nextMs: ticks[18], fired: 18 })
    await (await newFirer(redis.url)).firer.runOnce()
    expect(await firedTicks(redis.client)).toEqual(ticks.map((tick) => `a ${tick}`))
  })

  test('of which only the name is left is forgotten', async () => {
    await redis.client.zadd(cronDueKey('orders'), 1, 'ghost')
    await (await newFirer(redis.url)).firer.runOnce()

    expect(await redis.client.exists(cronDueKey('orders'), 'orders')).toBe(0)
  })
})

describe('ticks that nobody was there for', () => {
  test.each([
    ['none', 0],
    ['one', 1],
    ['all', 300],
  ] as const)('are fired as catch-up %s says: %i of 300', async (catchUp, count) => {
    const ticks = await overdue(300, { catchUp })
    await (await newFirer(redis.url)).firer.runOnce()

    expect(await firedTicks(redis.client)).toEqual(ticks.slice(300 - count).map((tick) => `a ${tick}`))
    expect(await one()).toMatchObject({ state: 'waiting', fired: count })
  })
})

describe('while the job of the tick before has not ended', () => {
  const dueWith = (overlap: NonNullable<CronSchedule['overlap']>) => overdue(3, { overlap, catchUp: 'all' })

  test('overlap allow fires each tick', async () => {
    const ticks = await dueWith('allow')
    const { firer } = await newFirer(redis.url)
    expect(await firer.runOnce()).toEqual({ cronFired: 3, cronSkipped: 0 })
    expect(await firedTicks(redis.client)).toEqual(ticks.map((tick) => `a ${tick}`))
  })

  test('overlap skip leaves ticks out until it has ended, in every group', async () => {
    const handler = gate()
    await startWorker({ redis: redis.url, handlers: { x: () => handler.wait() } })
    await redis.client.xgroup('CREATE', 'orders', 'other', '0')
    const [tick, , last = 0] = await dueWith('skip')
    const { firer } = await newFirer(redis.url)
    await firer.runOnce()
    await eventually(async () => expect(await one()).toMatchObject({ state: 'waiting', fired: 1, skipped: 2 }))
    expect(await firedTicks(redis.client)).toEqual([`a ${tick}`])

    await makeDue(redis.client, 'a', last)
    await firer.runOnce()
    expect(await one()).toMatchObject({ fired: 1, skipped: 3 })

    handler.open()
    await eventually(async () => expect((await redis.client.xpending('orders', 'main'))[0]).toBe(0))
    await makeDue(redis.client, 'a', last)
    await firer.runOnce()
    // The other group has not had it yet.
    expect(await one()).toMatchObject({ fired: 1, skipped: 4 })
    await redis.client.xgroup('DESTROY', 'orders', 'other')
    await makeDue(redis.client, 'a', last)
    await firer.runOnce()
    await eventually(async () => expect(await one()).toMatchObject({ fired: 2, skipped: 4 }))
  })

  test('a job that was cancelled, or whose entry is gone, has ended', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const [tick = 0] = await overdue(1, { overlap: 'skip' })
    const { firer } = await newFirer(redis.url)
    for (const end of ['cancelled', 'deleted', 'waits']) {
      await makeDue(redis.client, 'a', tick)
      await firer.runOnce()
      const { lastJobId } = (await one()) ?? {}
      if (end === 'cancelled') await redis.client.zadd(cancelledKey('orders'), 1, lastJobId ?? '')
      if (end === 'deleted') await redis.client.xdel('orders', lastJobId ?? '')
    }
    await makeDue(redis.client, 'a', tick)
    await firer.runOnce()

    expect(await one()).toMatchObject({ fired: 3, skipped: 1 })
  })

  test('a job that waits for its next attempt has not, and one that is dead has', async () => {
    const [tick = 0] = await overdue(1, { overlap: 'skip' })
    const x = (_data: unknown, job: { attempt: number }) => {
      throw new Error(`attempt ${job.attempt}`)
    }
    await startWorker({ redis: redis.url, retry: { attempts: 2, delayMs: HOUR_MS }, handlers: { x } })
    const retries = groupScheduledKey('orders', 'main')
    await eventually(async () => expect(await redis.client.zcard(retries)).toBe(1))
    const { firer } = await newFirer(redis.url)
    await makeDue(redis.client, 'a', tick)
    await firer.runOnce()
    await eventually(async () => expect(await one()).toMatchObject({ fired: 1, skipped: 1 }))

    const { lastJobId = '' } = (await one()) ?? {}
    await newInspector(redis.url).scheduled.promote('orders', lastJobId ?? '')
    await eventually(async () => expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(1))
    await makeDue(redis.client, 'a', tick)
    await firer.runOnce()
    await eventually(async () => expect(await one()).toMatchObject({ fired: 2, skipped: 1 }))
  })

  test('overlap queue-one keeps one tick, and fires it when that job has ended', async () => {
    const handler = gate()
    let running = 0
    let most = 0
    const x = async () => {
      most = Math.max(most, ++running)
      await handler.wait()
      running -= 1
    }
    const ticks = await dueWith('queue-one')
    const { firer, counts } = await newFirer(redis.url)
    await firer.runOnce()
    expect(await firedTicks(redis.client)).toEqual([`a ${ticks[0]}`])
    expect(await one()).toMatchObject({ state: 'queued', fired: 1, nextMs: ticks[1] })

    await startWorker({ redis: redis.url, handlers: { x } })
    await eventually(() => expect(running).toBe(1))
    await redis.client.zadd(cronDueKey('orders'), 1, 'a')
    await firer.runOnce()
    expect(await one()).toMatchObject({ state: 'queued', fired: 1 })

    handler.open()
    await eventually(async () => expect(await one()).toMatchObject({ state: 'waiting', fired: 2 }))
    expect(await firedTicks(redis.client)).toEqual([`a ${ticks[0]}`, `a ${ticks[1]}`])
    expect([most, counts.cronSkipped]).toEqual([1, 0])
  })
})

describe('set', () => {
  test('of what is there changes nothing; of another payload it keeps the tick, of other times it does not', async () => {
    const [start = 0] = await overdue(1)
    const before = await redis.client.hgetall(cronKey('orders'))
    expect(await set({ start })).toEqual({ stream: 'orders', name: 'a', outcome: 'same', nextMs: start })
    expect(await redis.client.hgetall(cronKey('orders'))).toEqual(before)

    expect(await set({ start, data: 1 })).toMatchObject({ outcome: 'set', nextMs: start })
    expect(await set({ start: start + 1, data: 1 })).toMatchObject({ outcome: 'set', nextMs: start + 1 + HOUR_MS })
  })

  test('of what is there makes it due again where its place by time was lost', async () => {
    await set()
    await redis.client.del(cronDueKey('orders'))

    expect(await set()).toMatchObject({ outcome: 'set' })
    expect(await one()).toMatchObject({ state: 'waiting' })
  })

  test('makes what was worked out before worthless, also after a removal', async () => {
    const [tick = 0] = await overdue(1)
    const { rows } = await readDueCron(redis.client, 'orders', 1)
    const version = rows[0]?.state?.version ?? ''
    await cron().remove('orders', 'a')
    await set({ start: tick, data: 'new' })
    await makeDue(redis.client, 'a', tick)
    const firing = { name: 'a', version, dueMs: tick, overlap: 'allow', ticks: [tick], nextMs: undefined }
    const { outcomes } = await fireDue(redis.client, 'orders', [firing], 1000)

    expect(outcomes).toEqual(['gone'])
    expect(await firedJobs(redis.client)).toEqual([])
  })

  test('takes a definition, whose schema and version count', async () => {
    const job = defineJob('x', { version: 2, upcast: { 1: (data: unknown) => data } })
    await set({ job, data: 1 })
    await cron().run('orders', 'a')
    expect((await firedJobs(redis.client))[0]?.fields).toMatchObject({ job: 'x', version: '2' })
  })

  test.each<[string, object, string]>([
    ['too few fields', { at: '0 3 * *' }, 'expected `at` to be five fields'],
    ['a year', { at: '0 0 3 * * * 2027' }, 'expected `at` to be five fields'],
    ['a minute that there is not', { at: '61 3 * * *' }, 'Invalid value for minute: 61'],
    ['a day that there is not', { at: '0 0 32 * *' }, 'Invalid value for day: 32'],
    ['a month that there is not', { at: '0 0 1 0 *' }, 'Invalid value for month: 0'],
    ['a date', { at: '2026-01-01T00:00:00' }, 'expected `at` to be five fields'],
    ['no text', { at: 5 }, 'expected `at` to be five fields'],
    ['a day that never comes', { at: '0 0 30 2 *' }, 'which never does'],
    ['an end before the start', { everyMs: 1000, start: 5000, end: 4000 }, 'expected `end` to be behind `start`'],
    ['a zone that there is not', { at: '0 3 * * *', zone: 'Mars/Olympus' }, 'a time zone such as "Europe/Berlin"'],
    ['a zone beside every', { everyMs: 1000, zone: 'UTC' }, 'expected no `zone` beside `everyMs`'],
    ['both times', { at: '0 3 * * *', everyMs: 1000 }, 'expected either `at` or `everyMs`, got both'],
    ['no time', {}, 'expected either `at` or `everyMs`, got neither'],
    ['too short a step', { everyMs: 99 }, 'expected `everyMs` to be an integer of 100 or more'],
    ['an unknown overlap', { everyMs: 1000, overlap: 'queue' }, 'expected `overlap` to be one of'],
    ['an unknown option', { every: 1000 }, 'did you mean `everyMs`?'],
    ['a name with a slash', { everyMs: 1000, name: 'a/b' }, 'expected the `name` of a schedule'],
    ['no job', { everyMs: 1000, job: undefined }, 'expected `job` to be a job or its name'],
    ['a start that is no time', { everyMs: 1000, start: 'soon' }, 'expected `start` to be a Date'],
    ['too much data', { everyMs: 1000, data: 'x'.repeat(65_536) }, 'at most 65536 bytes of JSON'],
  ])('refuses %s with what was expected, before Redis is asked', async (_what, wrong, message) => {
    const nowhere = newInspector('redis://127.0.0.1:1').cron
    const setting = nowhere.set('orders', { name: 'a', job: 'x', ...wrong })
    await expect(setting).rejects.toThrow(message)
  })
})

describe('list, remove and run', () => {
  test('pages go by when schedules are due, and each is on one of them', async () => {
    for (const name of ['e', 'c', 'a', 'd', 'b']) await set({ name })
    await makeDue(redis.client, 'd', 1000)
    const seen: string[] = []
    let after: string | undefined
    do {
      const page = await cron().list('orders', { limit: 2, ...(after !== undefined && { after }) })
      seen.push(...page.schedules.map(({ name, state }) => `${name} ${state}`))
      after = page.next ?? undefined
    } while (after !== undefined)

    expect(seen).toEqual(['d overdue', 'a waiting', 'b waiting', 'c waiting', 'e waiting'])
  })

  test('of a stream that there is not, and of a schedule that there is not, are told', async () => {
    await expect(cron().list('orders')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await expect(cron().remove('orders', 'a')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await expect(cron().run('orders', 'a')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })

  test('a run publishes its job now, tells the id, leaves the ticks as they are, and explain names the schedule', async () => {
    await set({ data: 3 })
    const before = await one()
    const { id } = await cron().run('orders', 'a')

    expect(await firedJobs(redis.client)).toEqual([{ id, fields: { job: 'x', data: '3', cron: 'a run' } }])
    expect(await one()).toEqual({ ...before, fired: 1, lastJobId: id })
    const { job, sentences } = await newInspector(redis.url).explain('orders', id)
    expect(job?.cron).toEqual({ name: 'a', tickMs: null })
    expect(sentences.map(({ text }) => text)).toContain(
      'The schedule "a" has published it, out of turn, as somebody asked.',
    )
  })
})

describe('what code declares', () => {
  const declare = (cronList: object[], redisUrl = redis.url) =>
    startWorker({ redis: redisUrl, cron: cronList as never, handlers: { x() {} } })
  const declared = { name: 'a', job: 'x', at: '0 3 * * *', zone: 'Europe/Berlin' }

  test('is made at the start of a worker, and the same again changes nothing', async () => {
    await declare([declared])
    const before = await redis.client.hgetall(cronKey('orders'))
    expect(await one()).toMatchObject({ at: '0 3 * * *', zone: 'Europe/Berlin', state: 'waiting' })
    await declare([declared])
    expect(await redis.client.hgetall(cronKey('orders'))).toEqual(before)
  })

  test('and was changed or removed by hand stays so, until the declaration says something else', async () => {
    await declare([declared, { ...declared, name: 'b' }])
    await cron().set('orders', { name: 'a', job: 'x', everyMs: HOUR_MS })
    await cron().remove('orders', 'b')
    await declare([declared, { ...declared, name: 'b' }])
    expect(await one('a')).toMatchObject({ everyMs: HOUR_MS })
    expect(await one('b')).toBeUndefined()

    const changed = { ...declared, at: '0 4 * * *' }
    await declare([changed, { ...changed, name: 'b' }])
    expect(await one('a')).toMatchObject({ at: '0 4 * * *' })
    expect(await one('b')).toMatchObject({ at: '0 4 * * *' })
  })

  test('belongs to the stream that it names, else to that of its job, else to the only one of its worker', async () => {
    const job = defineJob('x', { stream: 'mails' })
    const of = (one: object, streams: string[]) => resolveCron([{ ...declared, ...one }], streams)[0]?.stream
    expect(of({ job }, ['orders', 'mails'])).toBe('mails')
    expect(of({ job, stream: 'orders' }, ['orders'])).toBe('orders')
    expect(of({}, ['orders'])).toBe('orders')
    expect(() => of({}, ['orders', 'mails'])).toThrow("one of the worker's streams (orders, mails), got none")
    expect(() => of({ job }, ['orders', 'letters'])).toThrow('(orders, letters), got "mails", which is its job\'s')
  })

  test('is there again after everything in Redis was deleted, while the worker that has declared it goes on', async () => {
    await declare([declared])
    await redis.client.flushall()

    await eventually(async () => expect(await one()).toMatchObject({ at: '0 3 * * *', state: 'waiting' }))
  })

  test('again by a worker that goes on takes nothing from a newer declaration, from a removal, or from a change by hand', async () => {
    const of = (...list: object[]) => resolveCron(list, ['orders'])
    const again = (...list: object[]) =>
      declareCron(redis.client, of(...list), { nowMs: Date.now(), most: 10, isAgain: true })
    const all = ['a', 'b', 'c', 'd'].map((name) => ({ ...declared, name }))
    const newer = { ...declared, name: 'a', at: '0 4 * * *' }
    await declareCron(redis.client, of(newer, ...all.slice(1, 2)), { nowMs: Date.now(), most: 10 })
    await cron().remove('orders', 'b')
    await set({ name: 'c' })
    await again(...all)

    expect([await one('a'), await one('b'), await one('c'), await one('d')]).toMatchObject([
      { at: '0 4 * * *' },
      undefined,
      { everyMs: HOUR_MS },
      { at: '0 3 * * *' },
    ])
  })

  test('and was set aside is due again when a worker starts that can read it, unless it was changed by hand', async () => {
    await declare([declared, { ...declared, name: 'b' }])
    await set({ name: 'b', at: '0 5 * * *', everyMs: undefined as never })
    await redis.client.zadd(cronDueKey('orders'), '+inf', 'a', '+inf', 'b')
    expect(await one('a')).toMatchObject({ state: 'set-aside' })
    await declare([declared, { ...declared, name: 'b' }])

    expect(await one('a')).toMatchObject({ state: 'waiting' })
    expect(await one('b')).toMatchObject({ state: 'set-aside', at: '0 5 * * *' })
  })

  test.each<[string, object, string]>([
    ['is no list', {}, 'expected `cron` to be a list'],
    ['has a schedule twice', [declared, declared], 'expected each schedule of `cron` once, got a twice'],
    ['names a stream of others', [{ ...declared, stream: 'mails' }], "to be one of the worker's streams (orders)"],
    [
      'is of a job of another stream',
      [{ ...declared, job: defineJob('x', { stream: 'mails' }) }],
      'expected `cron[0].stream` to be one of the worker\'s streams (orders), got "mails", which is its job\'s',
    ],
    ['has a bad time', [declared, { ...declared, at: 'daily' }], 'cron[1]: expected `at` to be five fields'],
    ['has no time', [{ name: 'a', job: 'x' }], 'cron[0]: expected either `at` or `everyMs`, got neither'],
    ['has an unknown option', [{ ...declared, key: 'a' }], 'unknown option `key` of cron[0] (known: name,'],
  ])('and %s is refused', async (_what, list, message) => {
    await expect(declare(list as object[], 'redis://127.0.0.1:1')).rejects.toThrow(message)
  })
})
