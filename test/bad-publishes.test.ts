import { afterEach, describe, expect, test } from 'vitest'
import {
  defineJob,
  handle,
  handleAll,
  handleBatch,
  MillraceError,
  PublishError,
  Worker,
  type PublishOptions,
} from '../src/index.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { refused } from './fixtures/refusals.ts'
import { withRedis } from './helpers/redis.ts'

/** Bad definitions, names and publishes; bad options of the producer and the worker are in bad-input.test.ts. */
const redis = withRedis()
const handlers = { x() {} }

afterEach(async () => {
  expect(await redis.client.keys('*')).toEqual([])
})

describe('defineJob and handle refuse', () => {
  test.each(['', 'a b', 'é', 'x\n', 'a/b', 'n'.repeat(101), undefined, null, 5])('the job name %j', (name) => {
    const message = /^expected a job name of 1 to 100 letters, digits and _ \. : - , got /
    refused(() => defineJob(name as string), 'ERR_NAME', message)
  })

  test.each<[unknown, string, string | RegExp]>([
    [{ timeout: 1 }, 'ERR_OPTION', 'unknown option `timeout` of job x (did you mean `timeoutMs`?)'],
    [{ timeoutMs: 0 }, 'ERR_OPTION', /`timeoutMs` to be a positive integer/],
    [{ timeoutMs: '5s' }, 'ERR_OPTION', /`timeoutMs`.*got "5s"$/],
    [{ stream: 'a}b' }, 'ERR_NAME', /stream name/],
    [{ stream: 5 }, 'ERR_NAME', /stream name/],
    [null, 'ERR_OPTION', /options of job x to be an object, got null$/],
  ])('the options %j', (options, code, message) => {
    refused(() => defineJob('x', options as object), code, message)
  })

  test('a handler that is no function', () => {
    const message = 'expected the handler of x to be a function, got 5'
    refused(() => handle(defineJob('x'), 5 as never), 'ERR_OPTION', message)
  })

  test.each<[unknown, string]>([
    [undefined, 'undefined'],
    [null, 'null'],
    ['x', '"x"'],
    [{ name: 5 }, 'a value of type object'],
  ])('a handler of %j, which is no job', (job, shown) => {
    const message = (where: string) => `expected the job of ${where} to be what defineJob gives, got ${shown}`
    refused(() => handle(job as never, () => {}), 'ERR_OPTION', message('handle'))
    refused(() => handleBatch(job as never, { size: 2 }, () => {}), 'ERR_OPTION', message('handleBatch'))
    refused(() => handleAll([job] as never, { x() {} } as never), 'ERR_OPTION', message('handleAll'))
  })
})

describe('a stream name', () => {
  const bad = [
    ...['', ' ', 'a b', 'é', 'a\n', 'a/b', 'a*', 'x'.repeat(201)],
    ...['a}b', 'a{b', 'x{}y', '{}', '{a}{b}', 'a{b{c}}', '{a b}'],
    ...['{x}:settings', 'a{x}:settings', '{x}:scheduled:jobs', '{x}:group:g:dead', '{x}:producer:1', '{x}:replay:1'],
    'millrace:streams',
  ]

  test.each([...bad, 5, {}])('%j is refused by both sides, and the publish is not in Redis', async (stream) => {
    const named = { stream: stream as string }
    refused(() => new Worker({ redis: redis.url, handlers, ...named }), 'ERR_NAME', /^expected a stream name/)
    const failure = await failureOf(newProducer({ redis: redis.url }).publish('x', 1, named))
    expect(failure).toBeInstanceOf(PublishError)
    expect(failure).toMatchObject({ code: 'ERR_NAME', published: 'no' })
  })

  test('that is nothing but a tag is refused: its keys would be those of the stream called as its tag', () => {
    refused(() => new Worker({ redis: redis.url, stream: '{orders}', handlers }), 'ERR_NAME', /stream name/)
  })

  test.each(['orders', 'a.b:c-d_e', '{acme}:orders', 'orders{acme}', 'x'.repeat(200)])(
    '%s is taken',
    async (stream) => {
      const worker = new Worker({ redis: redis.url, stream, handlers })
      expect(worker.stream).toBe(stream)
      await worker.stop()
    },
  )
})

describe('publish refuses', () => {
  const cycle: Record<string, unknown> = {}
  cycle['self'] = cycle
  const publish = (data: unknown, options: object = {}) =>
    newProducer({ redis: redis.url, maxPayloadBytes: 12 }).publish('x', data, { stream: 'orders', ...options })

  test.each<[string, unknown, RegExp]>([
    ['a BigInt', { n: 1n }, /^expected the data of x to be JSON-able: .*BigInt/],
    ['a cycle', cycle, /^expected the data of x to be JSON-able: .*circular/],
    ['undefined', undefined, /^expected the data of x to be JSON-able, got undefined; null is no data$/],
    ['a function', () => {}, /got a function; null is no data$/],
    ['a symbol', Symbol('x'), /got a value of type symbol/],
    [
      'a date that is none and says so',
      { toJSON: () => new Date(NaN).toISOString() },
      /threw RangeError; see the cause$/,
    ],
    ['what it cannot read', { toJSON: () => JSON.parse('card-4111') as unknown }, /threw SyntaxError; see the cause$/],
    ['a toJSON that gives nothing', { toJSON: () => undefined }, /JSON-able/],
    [
      'more bytes than the limit',
      'x'.repeat(11),
      /^expected .* at most 12 bytes of JSON, got 13; store large data elsewhere/,
    ],
    ['more bytes than characters', 'é'.repeat(6), /got 14/],
  ])('%s', async (_what, data, message) => {
    const failure = await failureOf(publish(data))
    expect(failure).toBeInstanceOf(PublishError)
    expect(failure).toMatchObject({ code: 'ERR_PAYLOAD', published: 'no' })
    expect(failure.message).toMatch(message)
    expect(failure.message).not.toMatch(/\n|4111/)
  })

  test.each<[object, string, string | RegExp]>([
    [{ timeoutms: 5 }, 'ERR_OPTION', 'unknown option `timeoutms` of publish (did you mean `timeoutMs`?)'],
    [{ delay: 5 }, 'ERR_OPTION', /^unknown option `delay` of publish/],
    [{ timeoutMs: 0 }, 'ERR_OPTION', 'expected `timeoutMs` to be a positive integer, got 0'],
    [{ timeoutMs: '1s' }, 'ERR_OPTION', 'expected `timeoutMs` to be a positive integer, got "1s"'],
    [{ stream: undefined }, 'ERR_OPTION', 'expected `stream`: job x does not say where it goes'],
    [{ version: '2' }, 'ERR_OPTION', 'expected `version` to be a positive integer up to 1000, got "2"'],
    [{ version: 1001 }, 'ERR_OPTION', 'expected `version` to be a positive integer up to 1000, got 1001'],
  ])('the options %j, as not in Redis', async (options, code, message) => {
    const failure = await failureOf(publish(1, options))
    expect(failure).toMatchObject({ code })
    expect(failure.message).toMatch(message)
    expect(failure).toBeInstanceOf(PublishError)
    expect(failure.published).toBe('no')
  })

  test('a version that is not that of the definition; the same one is taken, and any by the name alone', async () => {
    const job = defineJob('x', { stream: 'orders', version: 2, upcast: { 1: (old) => old } })
    const producer = newProducer({ redis: redis.url })
    const failure = await failureOf(producer.publish(job, 1, { version: 1 }))
    expect(failure).toMatchObject({ code: 'ERR_OPTION', published: 'no' })
    expect(failure.message).toBe(
      'expected `version` of job x to be that of its definition, 2, got 1: publish an older payload by the name of the job',
    )
    for (const version of [1, 2, 3]) await producer.publish('x', 1, { stream: 'orders', version })
    await producer.publish(job, 1, { version: 2 })
    const fields = (await redis.client.xrange('orders', '-', '+')).map(([, entry]) => entry.slice(4).join(' '))
    await redis.flush()

    expect(fields).toEqual(['', 'version 2', 'version 3', 'version 2'])
  })

  test.each([null, undefined, 5, '', 'a b', {}])('the job %j', async (job) => {
    const failure = await failureOf(newProducer({ redis: redis.url }).publish(job as never, 1, { stream: 'orders' }))
    expect(failure).toMatchObject({ code: 'ERR_NAME', published: 'no' })
  })

  test.each([null, 5, 'orders', []])('options that are %j', async (options) => {
    const producer = newProducer({ redis: redis.url })
    const failure = await failureOf(producer.publish(defineJob('x', { stream: 'a' }), 1, options as PublishOptions))
    expect(failure).toMatchObject({ code: 'ERR_OPTION', published: 'no' })
  })
})

describe('publishMany refuses', () => {
  test.each([undefined, null, 5, {}, 'text'])('items that are %j', async (items) => {
    const producer = newProducer({ redis: redis.url })
    const failure = await failureOf(producer.publishMany('x', items as never, { stream: 'orders', timeoutMs: 1000 }))
    expect(failure).toBeInstanceOf(MillraceError)
    expect(failure.message).toMatch(/^expected .*iterable/)
  })

  test.each([{ timeoutms: 5 }, { timeoutMs: 0 }, { stream: 'a}b' }])('the options %j', async (options) => {
    const failure = await failureOf(newProducer({ redis: redis.url }).publishMany('x', [1], options))
    expect(failure).toBeInstanceOf(MillraceError)
  })
})

test('close refuses a time that is none', async () => {
  const failure = await failureOf(newProducer({ redis: redis.url }).close({ timeoutMs: -1 }))
  expect(failure.message).toBe('expected `timeoutMs` to be an integer of 0 or more, got -1')
})
