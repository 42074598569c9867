import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { ScheduledJob } from '../src/index.ts'
import { groupScheduledKey, scheduledKey, STREAMS_KEY } from '../src/redis/keys.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'
import { buryByHand, delayedId, redeliverByHand, schedule, snapshot } from './helpers/scheduled.ts'

const redis = withRedis()

const inspect = (url = redis.url) => newInspector(url)

/** A stream with groups that begin at its oldest entry. */
async function streamWith(...groups: string[]): Promise<void> {
  for (const group of groups) await redis.client.xgroup('CREATE', 'orders', group, '0', 'MKSTREAM')
}

const dueOf = async (key: string, id: string) => Number(await redis.client.zscore(key, id))

describe('what is scheduled', () => {
  test('is listed by due time over delayed publishes and the retries of all groups, without payloads', async () => {
    await streamWith('main', 'billing')
    const delayed = await delayedId(redis.client)
    await schedule(redis.client, { id: delayed, due: 3000, job: 'later' })
    await schedule(redis.client, { id: '1-0', group: 'main', due: 2000, attempt: 3, error: 'Error: no', data: '"pay"' })
    await schedule(redis.client, { id: '2-0', group: 'billing', due: 4000, attempt: 1 })
    const now = await serverMs(redis.client)
    const { jobs, next, nowMs } = await inspect().scheduled.list('orders')
    const bytes = expect.any(Number) as number
    expect(jobs).toEqual([
      { id: '1-0', job: 'mail', group: 'main', dueMs: 2000, attempt: 3, error: 'Error: no', bytes },
      { id: delayed, job: 'later', group: null, dueMs: 3000, attempt: 0, error: '', bytes },
      { id: '2-0', job: 'mail', group: 'billing', dueMs: 4000, attempt: 1, error: '', bytes },
    ])
    expect(next).toBeNull()
    expect(nowMs).toBeGreaterThanOrEqual(now)
    expect(JSON.stringify(jobs)).not.toContain('pay')
  })

  test('is listed for one group alone, and no other is seen', async () => {
    await streamWith('main', 'billing')
    await schedule(redis.client, { id: await delayedId(redis.client) })
    for (const group of ['main', 'billing']) await schedule(redis.client, { id: '1-0', group })
    const { jobs } = await inspect().scheduled.list('orders', { group: 'billing' })
    expect(jobs.map(({ group }) => group)).toEqual(['billing'])
  })

  test('stands at the end with no due time if it was set aside, also where nothing can be read of it', async () => {
    await streamWith('main')
    const whole = await schedule(redis.client, { id: '3-0', group: 'main', due: '+inf' })
    const records = { '1-0': '\xc1no msgpack', '2-0': null, '4-0': '\x91\xa0' }
    for (const [id, raw] of Object.entries(records)) {
      await schedule(redis.client, { id, group: 'main', due: '+inf' }, raw)
    }
    const { jobs } = await inspect().scheduled.list('orders')
    expect(jobs.map(({ id, job, dueMs }) => [id, job, dueMs])).toEqual([
      ['1-0', null, null],
      ['2-0', null, null],
      [whole, 'mail', null],
      ['4-0', null, null],
    ])
  })

  test('of a stream that nothing was published to but with a delay is listed, shown and moved', async () => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    const { scheduled } = inspect()
    expect((await scheduled.list('orders')).jobs).toHaveLength(1)
    expect(await scheduled.show('orders', id)).toHaveLength(1)
    expect((await scheduled.promote('orders', id)).places).toEqual([
      { group: null, dueMs: expect.any(Number) as number },
    ])
  })

  test('of a stream without any is an empty list, and without the stream an error that says which may be meant', async () => {
    await streamWith('main')
    await redis.client.sadd(STREAMS_KEY, 'orders')
    expect((await inspect().scheduled.list('orders')).jobs).toEqual([])
    await expect(inspect().scheduled.list('order')).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: expect.stringContaining('did you mean orders?') as string,
    })
    await expect(inspect().scheduled.list('orders', { group: 'man' })).rejects.toMatchObject({
      code: 'ERR_UNKNOWN_GROUP',
    })
  })

  test.each([
    [{ limit: 0 }, /`limit` to be a positive integer up to 1000, got 0/],
    [{ limit: 1001 }, /up to 1000, got 1001/],
    [{ after: 'x' }, /`after` to be what the page before gave as `next`, got "x"/],
    [{ after: '1e/1-0/' }, /`after`/],
    [{ groep: 'main' }, /did you mean `group`\?/],
  ])('is not asked for with %j', async (options, message) => {
    await expect(inspect().scheduled.list('orders', options as object)).rejects.toThrow(message)
  })
})

describe('pages', () => {
  async function allOf(limit: number, between = async () => {}): Promise<ScheduledJob[]> {
    const { scheduled } = inspect()
    const found: ScheduledJob[] = []
    for (let after: string | null | undefined; after !== null;) {
      const page = await scheduled.list('orders', { limit, ...(after === undefined ? {} : { after }) })
      expect(page.jobs.length).toBeLessThanOrEqual(limit)
      found.push(...page.jobs)
      after = page.next
      await between()
    }
    return found
  }

  test('of any size give everything once, in one order, however many share a due time, an id or both', async () => {
    const item = fc.record({
      id: fc.nat({ max: 12 }).map((n) => `${n}-0`),
      group: fc.constantFrom(null, 'a', 'b'),
      due: fc.constantFrom<number | '+inf'>(5, 6, 1_795_245_552_380, '+inf'),
    })
    const cases = fc.sample(fc.tuple(fc.array(item, { maxLength: 40 }), fc.integer({ min: 1, max: 9 })), 25)
    for (const [items, limit] of cases) {
      await redis.flush()
      await streamWith('a', 'b')
      for (const one of items) await schedule(redis.client, one)
      const found = (await allOf(limit)).map(({ id, group, dueMs }) => ({ id, group, due: dueMs ?? '+inf' }))
      const expected = new Map(items.map((one) => [`${one.id} ${one.group}`, one]))
      expect(found).toHaveLength(expected.size)
      expect(new Map(found.map((one) => [`${one.id} ${one.group}`, one]))).toEqual(expected)
      const order = found.map(({ due }) => (typeof due === 'number' ? due : Infinity))
      expect(order).toEqual([...order].sort((a, b) => (a === b ? 0 : a < b ? -1 : 1)))
    }
  })

  test('go on where they were though what was read is gone', async () => {
    await streamWith('main')
    for (let n = 10; n < 40; n++) await schedule(redis.client, { id: `${n}-0`, group: 'main', due: 1000 })
    let read = 10
    const found = await allOf(3, async () => {
      for (let n = 0; n < 3; n++, read++) await redis.client.zrem(groupScheduledKey('orders', 'main'), `${read}-0`)
    })
    expect(found.map(({ id }) => id)).toEqual(Array.from({ length: 30 }, (_, n) => `${n + 10}-0`))
  })

  test('of a thousand are whole where one call brings 500 at most, and where the records are large', async () => {
    await streamWith('main')
    for (let n = 0; n < 1100; n++) {
      await schedule(redis.client, { id: `${n + 1}-0`, group: 'main', data: n < 8 ? 'x'.repeat(400_000) : '{}' })
    }
    const first = await inspect().scheduled.list('orders', { limit: 1000 })
    expect(first.jobs).toHaveLength(1000)
    const rest = await inspect().scheduled.list('orders', { limit: 1000, after: first.next ?? '' })
    expect(rest.jobs).toHaveLength(100)
    expect(new Set([...first.jobs, ...rest.jobs].map(({ id }) => id)).size).toBe(1100)
  })
})

describe('a scheduled job', () => {
  test('is shown with its payload and the other fields of its entry, for each group that has it', async () => {
    await streamWith('main', 'billing')
    await schedule(redis.client, { id: '7-0', group: 'main', data: '{"order":42}', attempt: 2, error: 'Error: no' })
    await schedule(redis.client, { id: '7-0', group: 'billing', attempt: 1 })
    const [billing, main, ...others] = await inspect().scheduled.show('orders', '7-0')
    expect(others).toEqual([])
    expect(billing).toMatchObject({ group: 'billing', attempt: 1, data: '{}' })
    expect(main).toMatchObject({
      id: '7-0',
      job: 'mail',
      group: 'main',
      attempt: 2,
      error: 'Error: no',
      data: '{"order":42}',
      fields: [
        ['job', 'mail'],
        ['id', '7-0'],
        ['attempt', '2'],
        ['first-failed', '7'],
      ],
    })
    expect(await inspect().scheduled.show('orders', '7-0', { group: 'main' })).toEqual([main])
  })

  test('is shown too if nothing can be read of it', async () => {
    await streamWith('main')
    await schedule(redis.client, { id: '7-0', group: 'main', due: '+inf' }, 'x')
    expect(await inspect().scheduled.show('orders', '7-0')).toMatchObject([
      { job: null, bytes: 1, data: null, fields: [] },
    ])
  })

  test('gets another due time by the clock of the server, in every group that has it or in one', async () => {
    await streamWith('main', 'billing')
    for (const group of ['main', 'billing']) await schedule(redis.client, { id: '7-0', group, due: 5 })
    const before = await serverMs(redis.client)
    const { places } = await inspect().scheduled.reschedule('orders', '7-0', { delayMs: 3_600_000 })
    expect(places.map(({ group }) => group)).toEqual(['billing', 'main'])
    for (const { group, dueMs } of places) {
      expect(dueMs).toBeGreaterThanOrEqual(before + 3_600_000)
      expect(await dueOf(groupScheduledKey('orders', group ?? ''), '7-0')).toBe(dueMs)
    }
    const runAt = new Date(before + 7_200_000)
    await inspect().scheduled.reschedule('orders', '7-0', { runAt, group: 'main' })
    expect(await dueOf(groupScheduledKey('orders', 'main'), '7-0')).toBe(before + 7_200_000)
    expect(await dueOf(groupScheduledKey('orders', 'billing'), '7-0')).toBe(places[0]?.dueMs)
  })

  test('is due now after a promote, and after a reschedule into the past', async () => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    const key = scheduledKey('orders')
    for (const move of [
      () => inspect().scheduled.promote('orders', id),
      () => inspect().scheduled.reschedule('orders', id, { runAt: 0 }),
    ]) {
      const before = await serverMs(redis.client)
      const { places } = await move()
      expect(places).toEqual([{ group: null, dueMs: await dueOf(key, id) }])
      expect(places[0]?.dueMs).toBeGreaterThanOrEqual(before)
      expect(places[0]?.dueMs).toBeLessThan(before + 30_000)
      await redis.client.zadd(key, before + 60_000, id)
    }
  })

  test('that was set aside comes back, unless nothing can be read of it', async () => {
    await streamWith('main')
    await schedule(redis.client, { id: '1-0', group: 'main', due: '+inf' })
    await schedule(redis.client, { id: '2-0', group: 'main', due: '+inf' }, 'x')
    const { scheduled } = inspect()
    const { places } = await scheduled.promote('orders', '1-0')
    expect(await dueOf(groupScheduledKey('orders', 'main'), '1-0')).toBe(places[0]?.dueMs)
    const before = await snapshot(redis.client)
    await expect(scheduled.promote('orders', '2-0')).rejects.toThrow(/cannot be brought back: .+; cancel it$/)
    expect(await snapshot(redis.client)).toEqual(before)
  })

  test.each([
    [{}, /either `delayMs` or `runAt`, got neither/],
    [{ delayMs: 1, runAt: 1 }, /got both/],
    [{ delayMs: -1 }, /`delayMs` to be an integer of 0 or more/],
    [{ delayMs: 1.5 }, /`delayMs`/],
    [{ delayMs: 11 * 365.25 * 86_400_000 }, /`delayMs`/],
    [{ runAt: new Date(NaN) }, /`runAt` to be a Date or ms/],
    [{ runAt: 8e15 }, /`runAt` to be at most ten years from now/],
    [{ delay: 5 }, /did you mean `delayMs`\?/],
  ])('is not rescheduled to %j', async (options: object, message) => {
    await streamWith('main')
    await schedule(redis.client, { id: '1-0', group: 'main' })
    const before = await snapshot(redis.client)
    const moved = inspect().scheduled.reschedule('orders', '1-0', options)
    await expect(moved).rejects.toMatchObject({ code: 'ERR_OPTION', message: expect.stringMatching(message) as string })
    expect(await snapshot(redis.client)).toEqual(before)
  })

  test('is moved and cancelled by a server that is out of memory', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    for (const id of ['1-0', '2-0']) await schedule(client, { id, group: 'main' })
    await client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await client.config('SET', 'maxmemory', '1')
    const { scheduled } = inspect(server.url)
    expect((await scheduled.promote('orders', '1-0')).places).toHaveLength(1)
    expect(await scheduled.cancel('orders', '2-0')).toMatchObject({ cancelled: true })
  })
})

describe('a job that is not scheduled', () => {
  test('is an error that says where each group has it', async () => {
    await redis.client.xadd('orders', '1-0', 'job', 'mail')
    await streamWith('dead', 'redelivery', 'running', 'settled', 'waiting')
    for (const group of ['dead', 'redelivery', 'running', 'settled']) {
      await redis.client.xreadgroup('GROUP', group, 'w', 'STREAMS', 'orders', '>')
    }
    for (const group of ['dead', 'redelivery', 'settled']) await redis.client.xack('orders', group, '1-0')
    await buryByHand(redis.client, '1-0', 'dead')
    await redeliverByHand(redis.client, '1-0', 'redelivery')
    const before = await snapshot(redis.client)
    const { scheduled } = inspect()
    for (const ask of [
      () => scheduled.show('orders', '1-0'),
      () => scheduled.promote('orders', '1-0'),
      () => scheduled.reschedule('orders', '1-0', { delayMs: 0 }),
    ]) {
      await expect(ask()).rejects.toMatchObject({
        code: 'ERR_NOT_FOUND',
        message:
          'job 1-0 is not scheduled on orders; in group dead: it is a dead letter; in group redelivery: it waits to be ' +
          'delivered again; in group running: a worker has it; in group settled: it is settled; in group waiting: it ' +
          'waits to be delivered',
      })
    }
    await expect(scheduled.promote('orders', '1-0', { group: 'dead' })).rejects.toThrow(
      /^[^:]+dead: it is a dead letter$/,
    )
    expect(await snapshot(redis.client)).toEqual(before)
  })

  test('is one that the stream does not have, or has no more', async () => {
    await redis.client.xadd('orders', '1795245552380-0', 'job', 'mail')
    await streamWith('main')
    const { scheduled } = inspect()
    await expect(scheduled.promote('orders', '1795245552381-0')).rejects.toThrow(
      /^stream orders has no job 1795245552381-0$/,
    )
    await expect(scheduled.promote('orders', '1795245552379-0')).rejects.toThrow(
      'stream orders has no job 1795245552379-0: it has history since 2026-11-21T07:19:12.380Z, the id is older',
    )
    await expect(scheduled.promote('orders', '1795245552379-1000000000000001')).rejects.toThrow(
      /is not scheduled on orders: it has come into the stream, was cancelled, or never was$/,
    )
  })

  test.each(['1', '1-', 'x-0', '01-0', '1-0 ', '18446744073709551616-0', '', null])(
    'is none by the id %j',
    async (id) => {
      const asked = inspect().scheduled.promote('orders', id as string)
      await expect(asked).rejects.toMatchObject({
        code: 'ERR_OPTION',
        message: expect.stringContaining('expected a job id such as 1795245552380-0, got ') as string,
      })
    },
  )
})
