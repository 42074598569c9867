import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { messagePattern } from '../src/dead/errors.ts'
import { checkDeadFilter, matchesDeadFilter, type DeadFilter } from '../src/dead/filter.ts'
import { PartlyDoneError, type DeadLetter } from '../src/index.ts'
import { Pace } from '../src/pace.ts'
import { unpackTexts } from '../src/redis/dead-fields.ts'
import { purgeExpired } from '../src/redis/dead.ts'
import { settingsKey } from '../src/redis/keys.ts'
import { purgeDeadLetters, readDeadLetters, redriveDeadLetters } from '../src/redis/scripts/dead.ts'
import { refused } from './fixtures/refusals.ts'
import { onEnd } from './helpers/cleanup.ts'
import {
  bury,
  buryMany,
  DEAD,
  deadJobs,
  deadOrRedelivered,
  FAILED_REASON,
  INDEX,
  killJobs,
  makeGroup,
  PUBLISHED_MS,
  REDELIVERY,
  redelivered,
  startFailing,
} from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { startWorker, tally } from './helpers/workers.ts'

const redis = withRedis()

const inspect = (url = redis.url) => newInspector(url).dead

const idsOf = (letters: readonly DeadLetter[]) => letters.map(({ id }) => id)

describe('a list', () => {
  test('tells of every letter what it died of, where it was and when, and nothing of its payload', async () => {
    const [id = ''] = await killJobs(redis, 1)
    const { letters, next, total } = await inspect().list('orders', 'main')
    expect({ next, total }).toEqual({ next: null, total: 1 })
    const [letter] = letters
    expect(letters).toHaveLength(1)
    expect(letter).toEqual({
      firstFailedMs: letter?.firstFailedMs,
      deadId: (await redis.client.xrange(DEAD, '-', '+'))[0]?.[0],
      id,
      job: 'mail',
      reason: FAILED_REASON,
      error: 'TypeError',
      message: 'no such address',
      attempts: 1,
      totalAttempts: 1,
      deliveries: 1,
      worker: expect.stringMatching(/./) as string,
      origin: id,
      source: 'stream',
      deadMs: expect.any(Number) as number,
      publishedMs: Number(id.split('-')[0]),
    })
  })

  test('has the newest first and goes on page by page, each letter once', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 1203)
    const dead = inspect()
    const seen: string[] = []
    let before: string | undefined
    do {
      const page = await dead.list('orders', 'main', { limit: 500, ...(before === undefined ? {} : { before }) })
      seen.push(...idsOf(page.letters))
      before = page.next ?? undefined
    } while (before !== undefined)
    expect(seen).toEqual(ids.reverse())
  })

  test('can be of what came after a letter that was seen', async () => {
    await makeGroup(redis.client)
    const [, second = ''] = await bury(redis.client, { id: '1-0' }, { id: '2-0' }, { id: '3-0' }, { id: '4-0' })
    const { letters } = await inspect().list('orders', 'main', { after: second })
    expect(idsOf(letters)).toEqual(['4-0', '3-0'])
  })

  test('finds ids of jobs and of letters, and names those that are neither', async () => {
    await makeGroup(redis.client)
    const deadIds = await bury(redis.client, { id: '1-0' }, { id: '2-0' }, { id: '3-0', isIndexed: false })
    const ids = ['1-0', deadIds[1] ?? '', '3-0', '9-9']
    const { letters, unknownIds, total } = await inspect().list('orders', 'main', { filter: { ids } })
    expect({ ids: idsOf(letters), unknownIds, total }).toEqual({
      ids: ['3-0', '2-0', '1-0'],
      unknownIds: ['9-9'],
      total: 3,
    })
  })

  test('is filtered, past any number of letters that are not meant', async () => {
    await makeGroup(redis.client)
    await bury(redis.client, { id: '1-0', job: 'bill', message: 'Connection REFUSED' })
    await buryMany(redis.client, 1100)
    const dead = inspect()
    for (const filter of [{ job: 'bill' }, { error: 'refused' }, { error: 'refused', job: 'bill' }]) {
      expect(idsOf((await dead.list('orders', 'main', { filter })).letters)).toEqual(['1-0'])
    }
    expect(await dead.list('orders', 'main', { filter: { reason: 'fatal' } })).toMatchObject({
      letters: [],
      next: null,
    })
  })

  test('of a time has what died in it, from the first instant to before the last', async () => {
    await makeGroup(redis.client)
    const at = 1_700_000_000_000
    const letters = [-1, 0, 59, 60].map((s, n) => ({
      id: `${n + 1}-0`,
      deadId: `${at + s * 1000}-0`,
      deadMs: at + s * 1000,
    }))
    await bury(redis.client, ...letters)
    const filter = { fromMs: at, toMs: at + 60_000 }
    expect(idsOf((await inspect().list('orders', 'main', { filter })).letters)).toEqual(['3-0', '2-0'])
  })

  test('brings no payload out of Redis, and looks at no more than a MiB of them in a step', async () => {
    await makeGroup(redis.client)
    const large = 'x'.repeat(300_000)
    await buryMany(redis.client, 20, { raw: ['job', 'mail', 'data', large] })
    const [, more, ...rows] = (await redis.client.eval(readDeadLetters.lua, 1, DEAD, 'newest', '-', '+', 500)) as [
      number,
      number,
      ...string[][],
    ]
    expect([more, rows.length]).toEqual([1, 4])
    expect(JSON.stringify(rows).length).toBeLessThan(4000)
    expect((await inspect().list('orders', 'main')).letters).toHaveLength(20)
  })

  test('has also what no worker wrote, and what an older one did', async () => {
    await makeGroup(redis.client)
    await redis.client.xadd(DEAD, '5-0', 'foo', 'bar')
    await bury(redis.client, { id: '1-0', without: ['dead-total-attempts', 'dead-first-failed'] })
    const { letters } = await inspect().list('orders', 'main')
    expect(letters).toMatchObject([
      { id: '1-0', job: 'mail', attempts: 3, totalAttempts: 3, firstFailedMs: null },
      { id: '', job: null, reason: '', attempts: null, deadMs: 5, publishedMs: null },
    ])
  })

  test('of a group or a stream that is not there is an error that says what may have been meant', async () => {
    await makeGroup(redis.client)
    const dead = inspect()
    for (const ask of [() => dead.list('orders', 'mian'), () => dead.redrive('orders', 'mian', { execute: true })]) {
      await expect(ask()).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
    }
    await expect(dead.list('order', 'main')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })
})

describe('showing a letter', () => {
  test('brings stack, fields and payload, by the id of the job or of the letter', async () => {
    const [id = ''] = await killJobs(redis, 1)
    const shown = await inspect().show('orders', 'main', id)
    expect(shown).toMatchObject({ id, job: 'mail', payload: '{"n":0}' })
    expect(shown.stack).toContain('TypeError: no such address\n')
    expect(shown.fields).toEqual([
      { name: 'job', value: 'mail' },
      { name: 'data', value: '{"n":0}' },
    ])
    expect(await inspect().show('orders', 'main', shown.deadId)).toEqual(shown)
  })

  test('keeps bytes that are not text', async () => {
    await makeGroup(redis.client)
    const bytes = Buffer.from([0xff, 0, 0xfe])
    await bury(redis.client, { id: '1-0', raw: ['job', 'mail', 'data', bytes, bytes, 'x'] })
    const { fields, payload } = await inspect().show('orders', 'main', '1-0')
    expect(payload).toEqual(bytes)
    expect(fields?.[2]).toEqual({ name: bytes, value: 'x' })
  })

  test('unpacks what the worker packed, and is not misled by fields that are named like ours', async () => {
    const wide = Array.from({ length: 1500 }, (_, n) => [`f${n}`, 'v'.repeat(n % 400)]).flat()
    await redis.client.xadd('orders', '*', 'none', 'of ours', ...wide)
    const own = ['dead-packed', 'x', 'dead-reason', 'y', 'dead-fields', '7']
    await redis.client.xadd('orders', '*', ...own)
    await redis.client.xadd('orders', '*', 'dead-packed', 'z')
    await startWorker({ redis: redis.url })
    await eventually(async () => expect(await redis.client.xlen(DEAD)).toBe(3))
    const dead = inspect()
    const [third, second, first] = (await dead.list('orders', 'main')).letters
    const flat = async (id = '') =>
      (await dead.show('orders', 'main', id)).fields?.flatMap(({ name, value }) => [name, value])
    expect(await flat(first?.id)).toEqual(['none', 'of ours', ...wide])
    expect(await flat(second?.id)).toEqual(own)
    expect(await flat(third?.id)).toEqual(['dead-packed', 'z'])
    expect(second?.reason).toBe('malformed')
  })

  test('of an id that no dead letter has is ERR_NOT_FOUND', async () => {
    await makeGroup(redis.client)
    await expect(inspect().show('orders', 'main', '1-0')).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: 'group main of orders has no dead letter 1-0',
    })
  })
})

describe('errors', () => {
  test('are put together by what they have in common, the most frequent first', async () => {
    await makeGroup(redis.client)
    await bury(redis.client, { id: '1-0', error: 'RangeError', message: 'too much', deadMs: 5 })
    const ids = Array.from({ length: 50 }, (_, n) => `${n + 10}-0`)
    await bury(
      redis.client,
      ...ids.map((id, n) => ({ id, message: `order ${n} of "customer ${n}" is gone`, deadMs: 100 + n })),
    )
    const { groups, scanned, next } = await inspect().errors('orders', 'main')
    expect({ scanned, next }).toEqual({ scanned: 51, next: null })
    expect(groups).toEqual([
      {
        reason: 'attempts',
        error: 'Error',
        message: 'order <n> of "…" is gone',
        count: 50,
        firstMs: 100,
        lastMs: 149,
        exampleId: '59-0',
      },
      expect.objectContaining({ error: 'RangeError', count: 1, exampleId: '1-0' }) as object,
    ])
  })

  test('look at so many letters a call and say where to go on', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 700)
    const dead = inspect()
    const first = await dead.errors('orders', 'main', { most: 600 })
    expect(first.scanned).toBe(600)
    const second = await dead.errors('orders', 'main', { most: 600, before: first.next ?? '' })
    expect({ scanned: second.scanned, next: second.next }).toEqual({ scanned: 100, next: null })
  })
})

describe('the pattern of a message', () => {
  test.each([
    ['connect ECONNREFUSED 10.0.0.1:5432', 'connect ECONNREFUSED <n>:<n>'],
    ["can't read 'a b' of it's name", "can't read '…' of it's name"],
    ['job 6f1c2a5e-0d7e-4b6f-9c7e-0a1b2c3d4e5f failed', 'job <id> failed'],
    ['commit 9fceb02d0ae598e95dc970b74767f19372d61af8 at 0xDEADBEEF', 'commit <hex> at <hex>'],
    ['facade deadbeef decade', 'facade deadbeef decade'],
    ['Unexpected token `x` in JSON at position 12', 'Unexpected token `…` in JSON at position <n>'],
  ])('%s is %s', (message, pattern) => {
    expect(messagePattern(message)).toBe(pattern)
  })

  test('is the same whatever the number, and is its own pattern', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 40 }), fc.nat(), fc.nat(), (text, one, other) => {
        const pattern = messagePattern(`${text} ${one} x`)
        expect(messagePattern(`${text} ${other} x`)).toBe(pattern)
        expect(messagePattern(pattern)).toBe(pattern)
      }),
    )
  })
})

describe('a filter', () => {
  const letter: DeadLetter = {
    deadId: '200-0',
    id: '100-0',
    job: 'mail',
    reason: 'attempts',
    error: 'TypeError',
    message: 'No Such Address',
    attempts: 3,
    totalAttempts: 3,
    deliveries: 1,
    worker: 'w',
    origin: '100-0',
    source: 'stream',
    firstFailedMs: null,
    deadMs: 200,
    publishedMs: 100,
  }
  const matching: DeadFilter = {
    ids: ['1-1', '100-0'],
    job: 'mail',
    reason: 'attempts',
    error: 'such address',
    fromMs: 200,
    toMs: 201,
  }
  const failing: DeadFilter = { ids: ['1-1'], job: 'bill', reason: 'fatal', error: 'x', fromMs: 201, toMs: 200 }

  test('means the letters to which every part of it applies', () => {
    const keys = Object.keys(matching) as (keyof DeadFilter)[]
    fc.assert(
      fc.property(fc.subarray(keys), fc.subarray(keys), (applying, not) => {
        const parts = [...applying.map((key) => [key, matching[key]]), ...not.map((key) => [key, failing[key]])]
        expect(matchesDeadFilter(letter, Object.fromEntries(parts) as DeadFilter)).toBe(not.length === 0)
      }),
    )
  })

  test.each([
    [{ jobs: 'x' }, 'unknown option `jobs` of a filter of dead letters (did you mean `job`?)'],
    [{ reason: 'attempt' }, /^expected `reason` to be one of attempts, deliveries, .*, got "attempt"$/],
    [{ ids: [] }, 'expected `ids` to be a list of 1 to 10000 ids, got an array'],
    [{ ids: ['x'] }, 'expected `ids` to be an id such as 1795245552380-0, got "x"'],
    [{ error: '' }, 'expected `error` to be a text, got ""'],
    [{ fromMs: 5, toMs: 5 }, 'expected `fromMs` to be before `toMs`, got 5 and 5'],
    [{ fromMs: -1 }, 'expected `fromMs` to be an integer of 0 or more, got -1'],
  ])('that cannot be is refused: %j', (filter, message) => {
    refused(() => checkDeadFilter(filter as DeadFilter), 'ERR_OPTION', message)
  })

  test.each([
    [{ rate: 5 }, /^unknown option `rate` of dead.redrive/],
    [{ execute: 'false' }, 'expected `execute` to be true or false, got "false"'],
    [{ limit: 0 }, 'expected `limit` to be a positive integer, got 0'],
    [{ ratePerSecond: 0.5 }, /^expected `ratePerSecond` to be a positive integer/],
    [{ untilDeadId: 'x' }, /^expected `untilDeadId` to be an id/],
    [{ ids: ['1-0'], filter: { ids: ['1-0'] } }, 'expected either `ids` or `filter.ids`, got both'],
  ])('and so is what else a redrive cannot be asked for: %j', async (options, message) => {
    const redriving = inspect().redrive('orders', 'main', options as object)
    await expect(redriving).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: expect.stringMatching(message) as string,
    })
  })
})

test('packed fields are read back whatever their lengths, and nothing else is taken for them', async () => {
  const texts = ['', 'a', 'x'.repeat(31), 'x'.repeat(32), 'x'.repeat(255), 'x'.repeat(256), 'x'.repeat(70_000)]
  for (const list of [[], texts, Array.from({ length: 70_000 }, () => 'y')]) {
    const packed = await redis.client.callBuffer(
      'eval',
      'local all = cjson.decode(ARGV[1]) return cmsgpack.pack(all)',
      0,
      JSON.stringify(list.length === 0 ? ['z'] : list),
    )
    const read = unpackTexts(packed as Buffer)?.map((text) => text.toString())
    expect(read).toEqual(list.length === 0 ? ['z'] : list)
    expect(unpackTexts((packed as Buffer).subarray(0, -1))).toBeUndefined()
    expect(unpackTexts(Buffer.concat([packed as Buffer, Buffer.from([0xa0])]))).toBeUndefined()
  }
  fc.assert(fc.property(fc.uint8Array(), (bytes) => void unpackTexts(Buffer.from(bytes))))
})

test('a pace is never exceeded in any second, however long the commands travel', () => {
  const steps = fc.array(fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(300)), { maxLength: 60 })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 60 }), steps, (perSecond, travels) => {
      const pace = new Pace(perSecond)
      const executed: number[] = []
      let nowMs = 0
      for (const [share, travelMs] of travels) {
        nowMs += pace.waitMs(pace.portion, nowMs)
        const sentMs = nowMs
        nowMs += travelMs
        executed.push(...Array.from({ length: pace.portion }, () => sentMs + share * travelMs))
        pace.note(pace.portion, { sentMs, answeredMs: nowMs })
      }
      for (const fromMs of executed) {
        const inSecond = executed.filter((atMs) => atMs >= fromMs && atMs < fromMs + 999.999)
        expect(inSecond.length).toBeLessThanOrEqual(perSecond)
      }
    }),
  )
})

describe('a dry run', () => {
  test('says what would be redriven and changes nothing', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 1100)
    await bury(redis.client, { id: '1-0', job: 'bill', reason: 'fatal' })
    const before = await redis.client.dump(DEAD)
    const plan = await inspect().redrive('orders', 'main')
    expect(plan).toMatchObject({
      executed: false,
      count: 1101,
      byReason: [
        { reason: 'attempts', count: 1100 },
        { reason: 'fatal', count: 1 },
      ],
      byJob: [
        { job: 'mail', count: 1100 },
        { job: 'bill', count: 1 },
      ],
      unknownIds: [],
      untilDeadId: (await redis.client.xrevrange(DEAD, '+', '-', 'COUNT', 1))[0]?.[0],
      interrupted: false,
    })
    expect(idsOf(plan.samples)).toEqual([0, 1, 2].map((n) => `${PUBLISHED_MS + n}-0`))
    expect(await redis.client.dump(DEAD)).toBe(before)
    expect(await redis.client.xlen(REDELIVERY)).toBe(0)
  })

  test('finds nothing where nothing is dead', async () => {
    await makeGroup(redis.client)
    const dead = inspect()
    expect(await dead.redrive('orders', 'main')).toMatchObject({ count: 0, untilDeadId: null, samples: [] })
    expect(await dead.redrive('orders', 'main', { execute: true })).toMatchObject({ done: 0, untilDeadId: null })
    expect(await dead.purge('orders', 'main', { ids: ['1-0'] })).toMatchObject({ count: 0, unknownIds: ['1-0'] })
  })
})

describe('a redrive', () => {
  test('runs the jobs again under their ids, with attempts that start anew, while no worker runs and after', async () => {
    const ids = await killJobs(redis, 5)
    expect(await inspect().redrive('orders', 'main', { execute: true })).toEqual({
      executed: true,
      done: 5,
      already: 0,
      refused: 0,
      refusals: [],
      unknownIds: [],
      untilDeadId: expect.stringMatching(/^\d+-\d+$/) as string,
      interrupted: false,
    })
    expect(await deadJobs(redis.client)).toEqual([])
    expect(await redis.client.hgetall(INDEX)).toEqual(
      Object.fromEntries((await redelivered(redis.client)).map(({ id, fields }) => [fields['id'], `redelivery ${id}`])),
    )
    const runs: { id: string; attempt: number; data: unknown }[] = []
    const mail = (data: unknown, { id, attempt }: { id: string; attempt: number }) =>
      void runs.push({ id, attempt, data })
    await startWorker({ redis: redis.url, handlers: { mail } })
    await eventually(async () =>
      expect(await tally(redis.client)).toMatchObject({ completed: 5, redriven: 5, dead: 5 }),
    )
    expect(runs.sort((a, b) => (a.data as { n: number }).n - (b.data as { n: number }).n)).toEqual(
      ids.map((id, n) => ({ id, attempt: 1, data: { n } })),
    )
  })

  test('keeps raw fields to the byte, and replaces what an earlier round left in them', async () => {
    await makeGroup(redis.client)
    const bytes = Buffer.from([0xff, 0, 0xfe, 10])
    const left = ['id', '7-7', 'attempt', '4', 'at', '9', 'first-failed', '8', 'past-attempts', '2', 'id', '9-9']
    const raw = ['job', 'mail', ...left, 'data', bytes, 'h-x', 'y', bytes, '']
    await bury(redis.client, { id: '1-0', totalAttempts: 41, raw })
    const [secondsBefore] = await redis.client.time()
    await inspect().redrive('orders', 'main', { execute: true })
    const [[, flat = []] = []] = await redis.client.xrangeBuffer(REDELIVERY, '-', '+')
    expect(flat.slice(0, 8)).toEqual(
      ['job', 'mail', 'data', bytes, 'h-x', 'y', bytes, ''].map((text) => Buffer.from(text)),
    )
    const added = flat.slice(8).map(String)
    expect(added).toEqual(['id', '1-0', 'at', expect.stringMatching(/^\d{13}$/), 'past-attempts', '41'])
    expect(Number(added[3])).toBeGreaterThanOrEqual(Number(secondsBefore) * 1000)
  })

  test('of packed letters unpacks them, and leaves alone what is too wide, while the others go on', async () => {
    const fields = (count: number) => Array.from({ length: count }, (_, n) => [`f${n}`, `v${n}`]).flat()
    await redis.client.xadd('orders', '1-0', 'job', 'a b', ...fields(1500))
    await redis.client.xadd('orders', '2-0', 'job', 'a b', ...fields(5000))
    await redis.client.xadd('orders', '3-0', 'job', 'a b')
    const worker = await startWorker({ redis: redis.url })
    await eventually(async () => expect(await redis.client.xlen(DEAD)).toBe(3))
    await worker.stop()
    const { done, refused: refusedCount, refusals } = await inspect().redrive('orders', 'main', { execute: true })
    expect({ done, refusedCount }).toEqual({ done: 2, refusedCount: 1 })
    expect(refusals).toEqual([{ id: '2-0', deadId: expect.any(String) as string, why: 'wide' }])
    expect(await deadJobs(redis.client)).toEqual(['2-0'])
    const entries = await redelivered(redis.client)
    expect(entries.map(({ fields: { id } }) => id)).toEqual(['1-0', '3-0'])
    expect(Object.keys(entries[0]?.fields ?? {})).toHaveLength(1504)
  })

  test('leaves alone what no worker wrote, and says so', async () => {
    await makeGroup(redis.client)
    const packed = ['dead-fields', '1200', 'dead-packed', 'no MessagePack']
    await bury(redis.client, { id: '1-0', rest: packed }, { id: '2-0', rest: [] }, { id: '3-0' })
    await redis.client.xadd(DEAD, '*', 'foo', 'bar')
    const { done, refusals } = await inspect().redrive('orders', 'main', { execute: true })
    expect([done, refusals.map(({ id, why }) => `${id} ${why}`)]).toEqual([
      1,
      ['1-0 unreadable', '2-0 unreadable', ' unreadable'],
    ])
    expect(await redis.client.xlen(DEAD)).toBe(3)
  })

  test('means only what the filter means, the oldest first, and no more than the limit', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 30)
    await bury(redis.client, { id: '1-0', job: 'bill' })
    const options = { filter: { job: 'mail' }, limit: 10, execute: true as const }
    expect((await inspect().redrive('orders', 'main', options)).done).toBe(10)
    expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(ids.slice(0, 10))
    expect(await deadJobs(redis.client)).toEqual([...ids.slice(10), '1-0'])
  })

  test('by id takes the jobs of these ids and no others', async () => {
    await makeGroup(redis.client)
    const deadIds = await bury(redis.client, { id: '1-0' }, { id: '2-0' }, { id: '3-0' })
    const asked = { ids: ['1-0', deadIds[2] ?? '', '9-9'], execute: true as const }
    expect(await inspect().redrive('orders', 'main', asked)).toMatchObject({ done: 2, unknownIds: ['9-9'] })
    expect(await deadJobs(redis.client)).toEqual(['2-0'])
  })

  test('takes a letter also where the index knows another place of its job, and sets it right', async () => {
    await makeGroup(redis.client)
    const [first, second] = await bury(redis.client, { id: '1-0' }, { id: '1-0' })
    await inspect().redrive('orders', 'main', { ids: [first ?? ''], execute: true })
    expect(await redis.client.hget(INDEX, '1-0')).toMatch(/^redelivery /)
    expect((await redis.client.xrange(DEAD, '-', '+')).map(([id]) => id)).toEqual([second])
    expect((await inspect().list('orders', 'main', { filter: { ids: ['1-0'] } })).letters).toHaveLength(1)
  })

  test('does not take what dies again meanwhile', async () => {
    await killJobs(redis, 300)
    const worker = await startFailing(redis.url)
    const options = { ratePerSecond: 400, execute: true as const }
    expect((await inspect().redrive('orders', 'main', options)).done).toBe(300)
    await eventually(() => expect(worker.counts.dead).toBe(300))
    expect(new Set(await deadJobs(redis.client)).size).toBe(300)
    const { letters } = await inspect().list('orders', 'main', { limit: 1000 })
    expect(new Set(letters.map(({ attempts, totalAttempts }) => `${attempts} of ${totalAttempts}`))).toEqual(
      new Set(['1 of 2']),
    )
  })

  test('moves large letters in steps of about a MiB', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 12, { raw: ['job', 'mail', 'data', 'x'.repeat(400_000)] })
    const told: number[] = []
    const onProgress = ({ done }: { done: number }) => void told.push(done)
    expect((await inspect().redrive('orders', 'main', { execute: true, onProgress })).done).toBe(12)
    expect(told).toEqual([3, 6, 9, 12])
  })

  test('that is told to stop says what it did, and the same again goes on with the rest', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 700)
    const stopping = new AbortController()
    const options = { execute: true as const, onProgress: () => stopping.abort() }
    const first = await inspect().redrive('orders', 'main', { ...options, signal: stopping.signal })
    expect(first).toMatchObject({ done: 200, interrupted: true })
    await bury(redis.client, { id: '1-0' })
    const untilDeadId = first.untilDeadId ?? ''
    const second = await inspect().redrive('orders', 'main', { execute: true, untilDeadId })
    expect(second).toMatchObject({ done: 500, interrupted: false })
    expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(ids)
    expect(await deadJobs(redis.client)).toEqual(['1-0'])
  })

  test('at a rate is never faster than that, in any second', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 45)
    expect(await inspect().redrive('orders', 'main', { execute: true, ratePerSecond: 20 })).toMatchObject({ done: 45 })
    const times = (await redelivered(redis.client)).map(({ id }) => Number(id.split('-')[0]))
    for (const fromMs of times) {
      expect(times.filter((atMs) => atMs >= fromMs && atMs < fromMs + 999).length).toBeLessThanOrEqual(20)
    }
  })

  test('stops at once while it waits for its pace', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 10)
    const stopping = new AbortController()
    const options = { execute: true as const, ratePerSecond: 1, onProgress: () => stopping.abort() }
    const { done } = await inspect().redrive('orders', 'main', { ...options, signal: stopping.signal })
    expect(done).toBe(1)
  })

  test('is refused before anything is written where a key is of another type, or Redis has no memory left', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 3)
    const dead = inspect()
    await redis.client.rename(INDEX, 'kept')
    await redis.client.set(INDEX, 'x')
    await expect(dead.redrive('orders', 'main', { execute: true })).rejects.toMatchObject({
      code: 'ERR_REDIS_REFUSED',
      message: expect.stringContaining(`the key ${INDEX} holds a string, not a hash`) as string,
    })
    await redis.client.rename('kept', INDEX)
    await redis.client.config('SET', 'maxmemory', 1)
    onEnd(async () => void (await redis.client.config('SET', 'maxmemory', 0)))
    await expect(dead.redrive('orders', 'main', { execute: true })).rejects.toMatchObject({ code: 'ERR_REDIS_REFUSED' })
    expect([await redis.client.xlen(DEAD), await redis.client.xlen(REDELIVERY)]).toEqual([3, 0])
  })

  test('whose group goes away in the middle ends, and says what was done', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 300)
    const destroy = () => void redis.client.xgroup('DESTROY', 'orders', 'main')
    const redriving = inspect().redrive('orders', 'main', { execute: true, ratePerSecond: 100, onProgress: destroy })
    const error = await redriving.catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(PartlyDoneError)
    expect(error).toMatchObject({
      code: 'ERR_REDIS_REFUSED',
      message: expect.stringContaining('no group main') as string,
    })
    const { done } = (error as PartlyDoneError<{ done: number }>).done
    expect(done).toBe(await redis.client.xlen(REDELIVERY))
    expect(await redis.client.xlen(DEAD)).toBe(300 - done)
  })
})

describe('when the network fails, a redrive', () => {
  const isRedrive = ([name, sha]: string[]) => name === 'evalsha' && sha === redriveDeadLetters.sha

  async function arrange(count: number) {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, count)
    await redis.client.script('LOAD', redriveDeadLetters.lua)
    const proxy = await startProxy(redis.url)
    return { ids, proxy, dead: inspect(proxy.url) }
  }

  async function eachInOnePlace(ids: readonly string[]): Promise<void> {
    expect(await deadOrRedelivered(redis.client)).toEqual([...ids].sort())
  }

  test('moves every letter once though answers are lost', async () => {
    const { ids, proxy, dead } = await arrange(1000)
    const swallowed = proxy.swallowReplyTo(isRedrive, 2)
    const result = await dead.redrive('orders', 'main', { execute: true })
    await swallowed
    expect(result.done + result.already).toBe(1000)
    expect(result.already).toBeGreaterThan(0)
    await eachInOnePlace(ids)
    expect(await redis.client.xlen(REDELIVERY)).toBe(1000)
    expect((await tally(redis.client))['redriven']).toBe(1000)
  })

  test('moves every letter though commands never arrive', async () => {
    const { ids, proxy, dead } = await arrange(500)
    const cut = proxy.cutBefore(isRedrive, 2)
    expect(await dead.redrive('orders', 'main', { execute: true })).toMatchObject({ done: 500, already: 0 })
    await cut
    await eachInOnePlace(ids)
  })

  test('gives up in the end, says what was done, and goes on when it is asked again', async () => {
    const { ids, proxy, dead } = await arrange(500)
    let batches = 0
    const lost = proxy.swallowReplyTo((command) => isRedrive(command) && ++batches > 1, 5)
    const error = await dead.redrive('orders', 'main', { execute: true }).catch((thrown: unknown) => thrown)
    await lost
    expect(error).toBeInstanceOf(PartlyDoneError)
    const { done, untilDeadId } = (error as PartlyDoneError<{ done: number; untilDeadId: string }>).done
    expect(done).toBe(200)
    await eachInOnePlace(ids)
    expect(await redis.client.xlen(REDELIVERY)).toBe(400)
    expect(await dead.redrive('orders', 'main', { execute: true, untilDeadId })).toMatchObject({
      done: 100,
      already: 0,
    })
    await eachInOnePlace(ids)
  })

  test('is an error where Redis is away from the beginning', async () => {
    const server = await startServer()
    await server.kill()
    await expect(inspect(server.url).redrive('orders', 'main', { execute: true })).rejects.toMatchObject({
      code: 'ERR_REDIS_UNREACHABLE',
    })
  })
})

describe('a purge', () => {
  test('deletes what is meant, with its place in the index, and counts it as discarded', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 450)
    await bury(redis.client, { id: '1-0', job: 'bill' })
    const dead = inspect()
    expect(await dead.purge('orders', 'main', { filter: { job: 'mail' } })).toMatchObject({ count: 450 })
    const result = await dead.purge('orders', 'main', { filter: { job: 'mail' }, execute: true })
    expect(result).toMatchObject({ executed: true, done: 450, already: 0, refused: 0 })
    expect(await deadJobs(redis.client)).toEqual(['1-0'])
    expect(Object.keys(await redis.client.hgetall(INDEX))).toEqual(['1-0'])
    expect(await redis.client.xlen(REDELIVERY)).toBe(0)
    expect((await tally(redis.client))['discarded']).toBe(ids.length)
  })

  test('leaves the index alone where the job is somewhere else by now', async () => {
    await makeGroup(redis.client)
    const [first = ''] = await bury(redis.client, { id: '1-0' }, { id: '1-0' })
    const place = await redis.client.hget(INDEX, '1-0')
    await inspect().purge('orders', 'main', { ids: [first], execute: true })
    expect(await redis.client.hget(INDEX, '1-0')).toBe(place)
  })

  test('of what is older than a time leaves the younger', async () => {
    await makeGroup(redis.client)
    const now = Number((await redis.client.time())[0]) * 1000
    const aged = [100, 61, 10].map((seconds, n) => ({
      id: `${n + 1}-0`,
      deadId: `${now - seconds * 1000}-0`,
      deadMs: now - seconds * 1000,
    }))
    await bury(redis.client, ...aged)
    expect(await inspect().purge('orders', 'main', { olderThanMs: 60_000, execute: true })).toMatchObject({ done: 2 })
    expect(await deadJobs(redis.client)).toEqual(['3-0'])
  })

  test('works while Redis has no memory left, and takes also what no worker wrote', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 3)
    await redis.client.xadd(DEAD, '*', 'foo', 'bar')
    await redis.client.config('SET', 'maxmemory', 1)
    onEnd(async () => void (await redis.client.config('SET', 'maxmemory', 0)))
    expect(await inspect().purge('orders', 'main', { execute: true })).toMatchObject({ done: 4 })
    expect(await redis.client.xlen(DEAD)).toBe(0)
  })

  test('whose answer is lost counts nothing twice', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 300)
    await redis.client.script('LOAD', purgeDeadLetters.lua)
    const proxy = await startProxy(redis.url)
    const lost = proxy.swallowReplyTo(([name, sha]) => name === 'evalsha' && sha === purgeDeadLetters.sha)
    const result = await inspect(proxy.url).purge('orders', 'main', { execute: true })
    await lost
    expect(result).toMatchObject({ done: 100, already: 200 })
    expect((await tally(redis.client))['discarded']).toBe(300)
  })
})

describe('dead letters past their age', () => {
  const place = { stream: 'orders', group: 'main' }

  async function buryAged(...daysAgo: number[]): Promise<void> {
    const now = Number((await redis.client.time())[0]) * 1000
    const aged = daysAgo.map((days, n) => ({ id: `${n + 1}-0`, deadId: `${now - days * 86_400_000}-${n}` }))
    await bury(redis.client, ...aged)
  }

  test('are discarded after thirty days, and with them their place in the index', async () => {
    await buryAged(40, 31, 29, 0)
    expect(await purgeExpired(redis.client, place)).toEqual({ removed: 2, more: false })
    expect(await deadJobs(redis.client)).toEqual(['3-0', '4-0'])
    expect(Object.keys(await redis.client.hgetall(INDEX)).sort()).toEqual(['3-0', '4-0'])
    expect(await tally(redis.client)).toEqual({ discarded: 2 })
    expect(await purgeExpired(redis.client, place)).toEqual({ removed: 0, more: false })
  })

  test('are discarded after what the settings of the stream say', async () => {
    await buryAged(3, 1)
    await redis.client.hset(settingsKey('orders'), 'dead:maxAgeMs', 2 * 86_400_000)
    expect(await purgeExpired(redis.client, place)).toEqual({ removed: 1, more: false })
    await redis.client.hset(settingsKey('orders'), 'dead:maxAgeMs', 'soon')
    expect(await purgeExpired(redis.client, place)).toEqual({ removed: 0, more: false })
  })

  test('go in steps, any number of workers at once, each counted once', async () => {
    await buryAged(...Array.from({ length: 500 }, () => 40))
    const others = [connectTo(redis.url), connectTo(redis.url)]
    const steps = await Promise.all([redis.client, ...others].map((client) => purgeExpired(client, place)))
    expect(steps[0]?.more).toBe(true)
    while ((await purgeExpired(redis.client, place)).more);
    expect(await redis.client.xlen(DEAD)).toBe(0)
    expect((await tally(redis.client))['discarded']).toBe(500)
  })

  test('are no reason to write anything where there are none', async () => {
    expect(await purgeExpired(redis.client, place)).toEqual({ removed: 0, more: false })
    expect(await redis.client.keys('*')).toEqual([])
  })
})
