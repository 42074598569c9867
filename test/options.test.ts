import { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import { OptionError } from '../src/errors.ts'
import { didYouMean, oneOf, refuseUnknownKeys, shown, wholeNumber } from '../src/options.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

const redis = withRedis()

describe('did you mean', () => {
  const known = ['timeoutMs', 'maxPayloadBytes', 'redis', 'logger', 'leaseMs']

  test.each([
    ['timeoutms', 'timeoutMs'],
    ['TIMEOUTMS', 'timeoutMs'],
    ['timeotMs', 'timeoutMs'],
    ['tiemoutMs', 'timeoutMs'],
    ['timeout', 'timeoutMs'],
    ['maxPayloadByte', 'maxPayloadBytes'],
    ['reddis', 'redis'],
    ['loger', 'logger'],
    ['leaseM', 'leaseMs'],
  ])('%s: %s', (given, meant) => {
    expect(didYouMean(given, known)).toBe(meant)
  })

  test.each(['zoom', 'concurrency', 'x', '', 'payload'])('nothing that is known: %j', (given) => {
    expect(didYouMean(given, known)).toBeUndefined()
  })

  test('the closest of several', () => {
    expect(didYouMean('mail', ['mails', 'main', 'mail2go', 'mail'])).toBe('mail')
    expect(didYouMean('biling', ['filing', 'billing', 'bill'])).toBe('filing')
    expect(didYouMean('billin', ['filing', 'billing', 'bill'])).toBe('billing')
  })

  test('nothing where nothing is known', () => {
    expect(didYouMean('anything', [])).toBeUndefined()
  })
})

describe('an unknown option', () => {
  test('named like a property of every object is unknown', () => {
    expect(() => refuseUnknownKeys('Producer', { constructor: 1 }, ['redis'])).toThrow('unknown option `constructor`')
    const own = JSON.parse('{"__proto__":1}') as object
    expect(() => refuseUnknownKeys('Producer', own, ['redis'])).toThrow('unknown option `__proto__`')
  })

  test('is refused though its value is undefined, and a known one is not', () => {
    expect(() => refuseUnknownKeys('Producer', { redi: undefined }, ['redis'])).toThrow(OptionError)
    expect(() => refuseUnknownKeys('Producer', { redis: undefined }, ['redis'])).not.toThrow()
  })
})

describe('the value of an option', () => {
  test('is its default when it is absent, and only then', () => {
    expect(wholeNumber('a', undefined, { or: 7 })).toBe(7)
    expect(wholeNumber('a', 1, { or: 7 })).toBe(1)
    expect(() => wholeNumber('a', null, { or: 7 })).toThrow('expected `a` to be a positive integer, got null')
  })

  test('may be at its bounds', () => {
    expect([2, 9].map((value) => wholeNumber('a', value, { or: 5, min: 2, max: 9 }))).toEqual([2, 9])
    for (const value of [1, 10]) expect(() => wholeNumber('a', value, { or: 5, min: 2, max: 9 })).toThrow(OptionError)
  })

  test('is one of its words', () => {
    expect([undefined, 'now'].map((value) => oneOf('a', value, ['oldest', 'now']))).toEqual([undefined, 'now'])
    expect(() => oneOf('a', 'NOW', ['oldest', 'now'])).toThrow('expected `a` to be one of oldest, now, got "NOW"')
  })
})

describe('a value in a message', () => {
  test.each([
    ['text', '"text"'],
    ['two\nlines', '"two\\nlines"'],
    [5, '5'],
    [-0.5, '-0.5'],
    [5n, '5n'],
    [null, 'null'],
    [undefined, 'undefined'],
    [['secret'], 'an array'],
    [{ secret: 1 }, 'a value of type object'],
    [() => 'secret', 'a function'],
    [Symbol('secret'), 'a value of type symbol'],
  ])('%s is shown as %s', (value, text) => {
    expect(shown(value)).toBe(text)
  })

  test('is short and one line', () => {
    expect(shown('x'.repeat(1000))).toBe(`"${'x'.repeat(57)}..."`)
  })
})

describe('an ioredis instance', () => {
  test('that gives numbers as texts is a good one: a dead worker is found and its job run', async () => {
    const instance = new Redis(redis.url, { stringNumbers: true, lazyConnect: true })
    const ran: string[] = []
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const id = await add(redis.client, 'x')
    await redis.client.xreadgroup('GROUP', 'main', 'gone', 'STREAMS', 'orders', '>')
    const handlers = { x: (_data: unknown, job: { id: string }) => void ran.push(job.id) }
    await startWorker({ redis: instance as never, leaseMs: 500, handlers })

    await eventually(() => expect(ran).toEqual([id]))
  })

  test('is only read: it is neither connected nor used', async () => {
    const instance = new Redis(redis.url, { lazyConnect: true })
    await startWorker({ redis: instance as never })

    expect(instance.status).toBe('wait')
  })
})
