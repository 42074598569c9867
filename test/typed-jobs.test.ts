import { type } from 'arktype'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  defineJob,
  handle,
  handleAll,
  InvalidDataError,
  OptionError,
  type Handlers,
  type JobDefinition,
  type Schema,
  type WorkerOptions,
} from '../src/index.ts'
import { packFeedJob } from '../src/publish/feed-packing.ts'
import { messageOf } from '../src/errors.ts'
import { prepare } from '../src/prepare.ts'
import { decodeJob, type WireJob } from '../src/wire.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { DEAD } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

const redis = withRedis()
const SECRET = 'card-4111'

const start = (handlers: Handlers, own: Partial<WorkerOptions> = {}) =>
  startWorker({ ...own, redis: redis.url, handlers })
const producer = () => newProducer({ redis: redis.url })

/** What the dead letters say, once there are so many. */
const letters = (count: number) =>
  eventually(async () => {
    const rows = await redis.client.xrange(DEAD, '-', '+')
    expect(rows).toHaveLength(count)
    return rows.map(([, flat]) => {
      const of = (name: string) => flat[flat.indexOf(name) + 1] ?? ''
      return {
        reason: of('dead-reason'),
        message: of('dead-message'),
        text: flat.slice(0, flat.indexOf('dead-fields')).join(),
      }
    })
  })

/** A schema as no library would write it. */
const schemaOf = (validate: (value: unknown) => unknown) =>
  ({ '~standard': { version: 1, vendor: 'test', validate } }) as unknown as Schema

function raise(what: unknown): never {
  throw what
}

const named = (name: string) => Object.assign(new Error(SECRET), { name })

const HOSTILE: ProxyHandler<object> = {
  get() {
    throw new RangeError(SECRET)
  },
  getPrototypeOf() {
    throw new RangeError(SECRET)
  },
}

function gone<Kind extends object>(what: Kind): Kind {
  const { proxy, revoke } = Proxy.revocable(what, {})
  revoke()
  return proxy
}

/** The same job in three libraries: a text becomes a Date, what is missing gets a default, what is unknown is refused. */
const LIBRARIES = {
  zod: z.strictObject({ id: z.number(), at: z.coerce.date(), copies: z.number().default(1) }),
  valibot: v.strictObject({
    id: v.number(),
    at: v.pipe(
      v.union([v.string(), v.date()]),
      v.transform((at) => new Date(at)),
    ),
    copies: v.optional(v.number(), 1),
  }),
  arktype: type({ '+': 'reject', id: 'number', at: 'string.date.parse', copies: 'number = 1' }),
} as unknown as Record<string, Schema<{ id: unknown; at: unknown; copies?: number }, { at: Date; copies: number }>>

describe.each(Object.entries(LIBRARIES))('a job with a schema of %s', (_library, schema) => {
  const job = defineJob('sign', { stream: 'orders', schema })

  test('publishes the input and hands the output to the handler', async () => {
    const seen: unknown[] = []
    await start([handle(job, (data) => void seen.push(data))])
    await producer().publish(job, { id: 7, at: '2026-01-02T03:04:05.000Z' })
    await eventually(() => expect(seen).toEqual([{ id: 7, at: new Date('2026-01-02T03:04:05.000Z'), copies: 1 }]))
    const [[, flat] = []] = await redis.client.xrange('orders', '-', '+')
    expect(flat).toEqual(['job', 'sign', 'data', '{"id":7,"at":"2026-01-02T03:04:05.000Z"}'])
  })

  test('refuses what does not fit before anything is sent, says where, and keeps what was given out of its text', async () => {
    const error = await failureOf(producer().publish(job, { id: SECRET, at: '2026-01-02T03:04:05.000Z' }))
    expect(error).toBeInstanceOf(InvalidDataError)
    expect(error).toMatchObject({ code: 'ERR_INVALID_DATA', published: 'no' })
    expect(error.message).toBe('expected the data of sign to fit its schema; it does not at id')
    expect((error as InvalidDataError).issues).toMatchObject([{ path: ['id'], message: expect.any(String) as string }])
    expect(JSON.stringify({ ...error, message: error.message, stack: error.stack })).not.toContain(SECRET)
    expect(await redis.client.dbsize()).toBe(0)
  })

  test('refuses a field that there is not', async () => {
    const data = { id: 1, at: '2026-01-02', other: SECRET }
    expect(await failureOf(producer().publish(job, data))).toMatchObject({ code: 'ERR_INVALID_DATA' })
  })

  test('has a delivery that does not fit dead as invalid, without a run and without its payload in the text', async () => {
    const seen: unknown[] = []
    const worker = await start([handle(job, (data) => void seen.push(data))])
    await add(redis.client, 'sign', { id: SECRET, at: '2026-01-02' })
    const [letter] = await letters(1)
    expect(letter).toMatchObject({ reason: 'invalid', message: 'its data does not fit the schema of its job at id' })
    expect(letter?.text).not.toContain(SECRET)
    expect([seen, worker.counts.failed]).toEqual([[], 0])
  })
})

describe('a publish with a schema', () => {
  test('is checked as the worker will see it: a Date that is a text by then does not fit a date that is none', async () => {
    const job = defineJob('x', { stream: 'orders', schema: z.object({ at: z.date() }) })
    const error = await failureOf(producer().publish(job, { at: new Date() }))
    expect(error).toMatchObject({ code: 'ERR_INVALID_DATA', message: expect.stringContaining('at at') as string })
  })

  test('of many publishes those before the one that does not fit, and says how many', async () => {
    const job = defineJob('x', { stream: 'orders', schema: z.number() })
    const data = [1, 2, SECRET as unknown as number, 4]
    const error = await failureOf(producer().publishMany(job, data))
    expect(error).toBeInstanceOf(InvalidDataError)
    expect(error).toMatchObject({ code: 'ERR_INVALID_DATA', confirmed: 2, published: 'no' })
    expect((error as InvalidDataError).issues).toHaveLength(1)
    expect(error.message).not.toContain(SECRET)
    expect(await redis.client.xlen('orders')).toBe(2)
  })

  test('is not buffered either where it does not fit', async () => {
    const job = defineJob('x', { stream: 'orders', schema: z.number() })
    const publish = producer().publish(job, 'a' as unknown as number, { durability: 'buffered' })
    await expect(publish).rejects.toMatchObject({ code: 'ERR_INVALID_DATA' })
  })

  const brokenSchemas: [string, Schema, RegExp][] = [
    [
      'throws',
      schemaOf(() => {
        throw new TypeError(SECRET)
      }),
      /threw TypeError/,
    ],
    ['is async', schemaOf(() => Promise.resolve({ value: 1 })), /is async/],
    ['is async and rejects', schemaOf(() => Promise.reject(new Error(SECRET))), /is async/],
    ['is async in zod', z.string().refine(() => Promise.resolve(true)), /is async|threw/],
    ['answers nothing', schemaOf(() => undefined), /neither a value nor issues/],
    ['answers a text', schemaOf(() => SECRET), /neither a value nor issues/],
    ['answers issues that are none', schemaOf(() => ({ issues: 5, value: 1 })), /neither a value nor issues/],
    [
      'answers what cannot be read',
      schemaOf(() => ({
        get issues() {
          throw new Error(SECRET)
        },
      })),
      /threw Error/,
    ],
  ]

  test.each(brokenSchemas)('whose schema %s is refused', async (_what, schema, why) => {
    const job = defineJob('x', { stream: 'orders', schema })
    const error = await failureOf(producer().publish(job, 'a'))
    expect(error).toMatchObject({ code: 'ERR_SCHEMA', published: 'no' })
    expect(error.message).toMatch(why)
    expect(error.message).not.toContain(SECRET)
    expect(await redis.client.dbsize()).toBe(0)
  })

  test('that another program did: each such delivery is dead as invalid, and those behind them run', async () => {
    const broken = brokenSchemas.map(([, schema], n) => handle(defineJob(`x${n}`, { schema }), () => {}))
    const worker = await start([...broken, handle(defineJob('good'), () => {})])
    for (const n of brokenSchemas.keys()) await add(redis.client, `x${n}`, 'a')
    await add(redis.client, 'good')
    const dead = await letters(brokenSchemas.length)
    for (const [, , why] of brokenSchemas) {
      expect(dead).toContainEqual(
        expect.objectContaining({ reason: 'invalid', message: expect.stringMatching(why) as string }),
      )
    }
    expect(JSON.stringify(dead)).not.toContain(SECRET)
    await eventually(() => expect(worker.counts.completed).toBe(1))
  })

  test('whose issues are nonsense says what can be said', async () => {
    const issues = [null, { message: 5, path: 'a' }, { path: [{ key: 'a' }, 0, Symbol('s'), '\u001b[2J'] }]
    const job = defineJob('x', { stream: 'orders', schema: schemaOf(() => ({ issues })) })
    const error = await failureOf(producer().publish(job, 1))
    expect(error.message).toBe('expected the data of x to fit its schema; it does not at its top, a[0].Symbol(s). [2J')
  })

  test.each<[string, () => unknown, string]>([
    ['throws nothing', () => raise(undefined), 'threw a value of type undefined'],
    ['throws null', () => raise(null), 'threw a value of type null'],
    ['throws what cannot be looked at', () => raise(new Proxy({}, HOSTILE)), 'threw an error instead'],
    ['throws an error that is called like the payload', () => raise(named(SECRET)), 'threw an error instead'],
    ['answers with what cannot be looked at', () => new Proxy({}, HOSTILE), 'threw RangeError instead'],
    [
      'answers with what may never be',
      () => ({ then() {} }),
      'its schema answers later (it is async, or of zod and threw)',
    ],
    ['answers with no list of issues', () => ({ issues: { length: 1, 0: {} } }), 'neither a value nor issues'],
    ['finds fault and does not say where', () => ({ issues: [] }), 'fit its schema; it does not at its top'],
    ['has holes for issues', () => ({ issues: new Array(2 ** 32 - 1) }), 'it does not at its top'],
    ['has a list of issues that is gone', () => ({ issues: gone([]) }), 'threw TypeError instead'],
    ['has a path that is gone', () => ({ issues: [{ path: gone([]) }] }), 'threw TypeError instead'],
  ])('whose schema %s says what can be said', async (_what, validate, message) => {
    const job = defineJob('x', { stream: 'orders', schema: schemaOf(validate) })
    const error = await failureOf(producer().publish(job, SECRET))
    expect([error.published, error.message]).toEqual(['no', expect.stringContaining(message)])
    expect(error.message).not.toContain(SECRET)
  })

  test('whose zod schema throws is not said to be async alone', async () => {
    const schema = z.string().transform(() => raise(new TypeError(SECRET)))
    const error = await failureOf(producer().publish(defineJob('x', { stream: 'orders', schema }), 'a'))
    expect([error.code, error.published]).toEqual(['ERR_SCHEMA', 'no'])
    expect(error.message).toContain('answers later (it is async, or of zod and threw)')
  })

  test('names a place below long keys without putting together more than is shown', () => {
    // Whole, they would be longer than a text can be.
    const path = Array<string>(50).fill('k'.repeat(2 ** 24))
    const job = defineJob('x', { schema: schemaOf(() => ({ issues: [{ path }] })) })
    const decoded = decodeJob('1-1', ['job', 'x']) as WireJob
    const dead = prepare({ decoded, handler: handle(job, () => {}), unknownJobMs: 0 }, { nowMs: 1, chance: 0 })
    expect(dead.kind === 'dead' && messageOf(dead.error)).toBe(
      `its data does not fit the schema of its job at ${'k'.repeat(99)}…`,
    )
  })

  test('keeps the first keys of a path, and not all of one without an end', async () => {
    const path = Array.from({ length: 60 }, (_, n) => `k${n}`)
    const job = defineJob('x', { stream: 'orders', schema: schemaOf(() => ({ issues: [{ path }] })) })
    const { issues } = (await failureOf(producer().publish(job, 1))) as InvalidDataError
    expect(issues[0]?.path).toEqual(path.slice(0, 50))
  })

  test('is told in few words, however much is wrong', async () => {
    const job = defineJob('x', { stream: 'orders', schema: z.array(z.number()) })
    const error = await failureOf(producer().publish(job, Array(500).fill('a') as unknown as number[]))
    expect(error.message).toMatch(/at \[0\], \[1\], \[2\], \[3\], \[4\] and 95 more places$/)
    expect((error as InvalidDataError).issues).toHaveLength(100)
  })
})

/** A promise at whose class nobody may look. */
const UNTOUCHABLE = Object.defineProperty(Promise.resolve(1), 'constructor', {
  get() {
    throw new TypeError(SECRET)
  },
})

describe('versions', () => {
  const steps = {
    1: (old: { id: string }) => ({ order: old.id }),
    2: (old: { order: string }) => ({ ...old, copies: 1 }),
  }
  const v3 = defineJob('x', {
    ...{ stream: 'orders', version: 3, upcast: steps },
    schema: z.strictObject({ order: z.coerce.number(), copies: z.number() }),
  })
  const write = (data: unknown, version?: string) =>
    redis.client.xadd('orders', '*', 'job', 'x', 'data', JSON.stringify(data), ...(version ? ['version', version] : []))

  test('a payload of any older version is brought to the newest, then checked, then handed over', async () => {
    const seen: unknown[] = []
    await start([handle(v3, (data) => void seen.push(data))], { concurrency: 1 })
    await write({ id: '1' })
    await write({ id: '2' }, '1')
    await write({ order: '3' }, '2')
    await producer().publish(v3, { order: 4, copies: 2 })
    await eventually(() => expect(seen.map((one) => (one as { order: number }).order)).toEqual([1, 2, 3, 4]))
    expect(seen).toContainEqual({ order: 3, copies: 1 })
    const [last] = await redis.client.xrevrange('orders', '+', '-', 'COUNT', 1)
    expect(last?.[1].slice(-2)).toEqual(['version', '3'])
  })

  test('the first version is not written: those who know of none read the entry as before', async () => {
    const job = defineJob('x', { stream: 'orders', version: 1, schema: z.number() })
    await producer().publish(job, 1)
    const [[, flat] = []] = await redis.client.xrange('orders', '-', '+')
    expect(flat).toEqual(['job', 'x', 'data', '1'])
  })

  test('a newer version than this worker knows waits for one that does, and then runs', async () => {
    const old = await start([handle(defineJob('x'), () => expect.unreachable())])
    await producer().publish(v3, { order: 4, copies: 2 })
    await eventually(() => expect(old.counts.waited).toBe(1))
    const seen: unknown[] = []
    await old.stop()
    await start([handle(v3, (data) => void seen.push(data))])
    await eventually(() => expect(seen).toEqual([{ order: 4, copies: 2 }]))
  })

  test('a newer version that nobody comes to know is dead as unknown-job and says which', async () => {
    await start([handle(v3, () => {})], { unknownJobMs: 0 })
    await write({}, '4')
    expect(await letters(1)).toMatchObject([
      { reason: 'unknown-job', message: expect.stringMatching(/version 4, and .* up to 3$/) as string },
    ])
  })

  test.each([
    [
      'throws',
      () => {
        throw new Error('no id')
      },
      /^its upcast from version 1 threw Error$/,
    ],
    ['is async', () => Promise.reject(new Error('later')), /is async/],
    ['never answers', () => ({ then() {} }), /is async/],
    ['answers with a promise that cannot be looked at', () => UNTOUCHABLE, /threw TypeError$/],
    ['gives back nothing', () => {}, /^its upcast from version 1 gave back nothing$/],
  ])('an upcast that %s has the job dead as invalid, and the next one runs', async (_what, step, message) => {
    const job = defineJob('x', { version: 2, upcast: { 1: step } })
    const worker = await start([handle(job, () => {})])
    await write({})
    await write({}, '2')
    expect(await letters(1)).toMatchObject([{ reason: 'invalid', message: expect.stringMatching(message) as string }])
    await eventually(() => expect(worker.counts.completed).toBe(1))
  })

  test('what an upcast says of a payload is in no dead letter and no log, and is the cause for the program itself', async () => {
    const job = defineJob('x', {
      version: 2,
      upcast: { 1: (old: { text: string }) => JSON.parse(old.text) as unknown },
    })
    const log: unknown[] = []
    const note = (...told: unknown[]) => void log.push(told)
    const worker = await start([handle(job, () => {})], {
      logger: { debug: note, info: note, warn: note, error: note },
    })
    const causes: unknown[] = []
    worker.on('job:dead', ({ error }) => causes.push((error as Error).cause))
    await write({ text: SECRET })
    expect(await letters(1)).toMatchObject([
      { reason: 'invalid', message: 'its upcast from version 1 threw SyntaxError', text: expect.any(String) as string },
    ])
    await eventually(() => expect(String(causes[0])).toContain(SECRET))
    expect(JSON.stringify([log, await letters(1)])).not.toContain(SECRET)
    expect(JSON.stringify(log)).toContain('threw SyntaxError')
  })

  test('what is no version is dead where versions are known, and no matter where there never was a second', async () => {
    const ran: string[] = []
    await start([handle(v3, () => void ran.push('x')), handle(defineJob('y'), () => void ran.push('y'))])
    await write({}, '1.2.3')
    await redis.client.xadd('orders', '*', 'job', 'y', 'version', '1.2.3')
    expect(await letters(1)).toMatchObject([{ reason: 'invalid', message: 'its field version is not a version' }])
    await eventually(() => expect(ran).toEqual(['y']))
  })
})

describe('definitions', () => {
  test.each([
    [{ version: 0 }, 'expected `version` to be a positive integer up to 1000, got 0'],
    [{ version: 1.5 }, 'expected `version` to be a positive integer'],
    [{ version: 2 }, 'expected `upcast.1` to be a function that makes a payload of version 2, got undefined'],
    [{ version: 3, upcast: { 1: () => {} } }, 'expected `upcast.2` to be a function'],
    [{ version: 2, upcast: { 1: () => {}, 2: () => {} } }, 'unknown option `2` of upcast'],
    [{ version: 2, upcast: { 1: 'a' } }, 'expected `upcast.1` to be a function'],
    [{ upcast: { 1: () => {} } }, 'expected `version` above 1 beside `upcast`'],
    [{ version: 2, upcast: [] }, 'expected `upcast` to be an object of functions by version, got an array'],
    [{ schema: {} }, 'expected `schema` to be a Standard Schema'],
    [{ schema: 'string' }, 'expected `schema` to be a Standard Schema'],
    [{ schema: { '~standard': { version: 2, validate() {} } } }, 'expected `schema` to be a Standard Schema'],
    [{ schema: z.number(), result: 5 }, 'expected `result` to be a Standard Schema'],
    [{ shema: z.number() }, 'did you mean `schema`?'],
    [{ schema: [] }, 'expected `schema` to be a Standard Schema'],
    [
      { schema: null },
      'expected `schema` to be a Standard Schema (zod, valibot, arktype …; see standardschema.dev), got null',
    ],
  ])('of %j are refused', (options, message) => {
    expect(() => defineJob('x', options as object)).toThrow(OptionError)
    expect(() => defineJob('x', options as object)).toThrow(message)
  })

  test('with a schema that cannot be looked at are refused, and say nothing that it says', () => {
    const define = () => defineJob('x', { schema: new Proxy({}, HOSTILE) as Schema })
    expect(define).toThrow(OptionError)
    expect(define).toThrow(/to be a Standard Schema .*, got one that threw RangeError when it was looked at$/)
  })

  test.each([
    [{ schema: 5 }, 'expected `x.schema` to be a Standard Schema'],
    [{ schema: null }, 'expected `x.schema` to be a Standard Schema'],
    [{ version: 0 }, 'version` to be a positive integer up to 1000, got 0'],
    [{ version: NaN }, 'version` to be a positive integer up to 1000, got NaN'],
    [{ version: '2' }, 'version` to be a positive integer up to 1000, got "2"'],
  ])('that were made by hand are checked as well, by workers, producers and feeds: %j', async (own, message) => {
    const job = { name: 'x', stream: 'orders', ...own } as unknown as JobDefinition
    await expect(start([{ job, run: () => {} }])).rejects.toThrow(message)
    const refused = { code: 'ERR_OPTION', published: 'no', message: expect.stringContaining(message) as string }
    expect(await failureOf(producer().publish(job, 1))).toMatchObject(refused)
    expect(() => packFeedJob({ job, data: 1, position: '1' }, 100)).toThrow(expect.objectContaining(refused) as Error)
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('two of one name are refused by a list of handlers, and by a producer whose second one publishes something else', async () => {
    const [a, b] = [z.object({ a: z.number() }), z.object({ a: z.number() })].map((schema) =>
      defineJob('x', { stream: 'orders', schema }),
    ) as [JobDefinition<{ a: number }>, JobDefinition<{ a: number }>]
    const two = [handle(a, () => {}), handle(b, () => {})]
    await expect(start(two)).rejects.toThrow('expected one handler for job x, got two')
    expect(() => handleAll([a, b], { x: () => {} })).toThrow('expected one definition of job x, got two')
    const own = producer()
    await own.publish(a, { a: 1 })
    await own.publish(a, { a: 1 })
    expect(await failureOf(own.publish(b, { a: 1 }))).toMatchObject({
      code: 'ERR_OPTION',
      message: 'expected one definition of job x, got two with another schema or version: define it once',
    })
    expect(await redis.client.xlen('orders')).toBe(2)
    const newer = defineJob('x', { stream: 'orders', version: 2, upcast: { 1: (old: unknown) => old } })
    const versions = producer()
    await versions.publish(newer, 1)
    expect(await failureOf(versions.publish(defineJob('x', { stream: 'orders' }), 1))).toMatchObject({
      message: expect.stringContaining('another schema or version') as string,
    })
  })
})

describe('handleAll', () => {
  const [a, b] = [defineJob('a'), defineJob('b')]

  test('runs the function of each job', async () => {
    const ran: string[] = []
    await start(handleAll([a, b], { a: () => void ran.push('a'), b: () => void ran.push('b') }))
    for (const name of ['a', 'b']) await add(redis.client, name)
    await eventually(() => expect(ran.sort()).toEqual(['a', 'b']))
  })

  test.each([
    [{ a() {} }, 'expected a handler for job b, got none'],
    [{ a() {}, b: 5 }, 'expected the handler of b to be a function, got 5'],
    [{ a() {}, b() {}, c() {} }, 'unknown option `c` of handleAll'],
  ])('of %j is refused', (handlers, message) => {
    expect(() => handleAll([a, b], handlers as never)).toThrow(message)
  })

  test('does not take what every object has for a handler', () => {
    expect(() => handleAll([defineJob('constructor')], {} as never)).toThrow('expected a handler for job constructor')
  })
})
