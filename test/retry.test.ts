import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { defineJob, FatalError, handle, RetryAfterError, type Job, type RetryOptions } from '../src/index.ts'
import { backoffDelayMs, decideRetry, LONGEST_DELAY_MS, type FailedAttempt } from '../src/retry.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, pending, startWorker, tally } from './helpers/workers.ts'

/** When a failed job runs again: the decision, and what becomes of the job in Redis. */

const redis = withRedis()

const NOW_MS = 1_800_000_000_000
const failure = (given: Partial<FailedAttempt> = {}): FailedAttempt => ({
  ...{ id: '1-2', name: 'x', attempt: 1, error: new Error('no'), publishedMs: NOW_MS, firstFailedMs: NOW_MS },
  ...given,
})
const decided = (options: RetryOptions, given: Partial<FailedAttempt> = {}, chance = 0) =>
  decideRetry(options, failure(given), { nowMs: NOW_MS, chance })

describe('the decision', () => {
  const options = fc.record<RetryOptions>(
    {
      attempts: fc.integer({ min: 1, max: 50 }),
      backoff: fc.constantFrom('exponential', 'linear', 'fixed'),
      delayMs: fc.integer({ min: 0, max: 1e7 }),
      maxDelayMs: fc.integer({ min: 0, max: 1e8 }),
      jitter: fc.double({ min: 0, max: 1, noNaN: true }),
      retryForMs: fc.integer({ min: 0, max: 1e9 }),
    },
    { requiredKeys: [] },
  )
  const chance = fc.double({ min: 0, max: 1, noNaN: true })

  test('never allows more runs than `attempts`, and dies of nothing else before', () => {
    fc.assert(
      fc.property(options, chance, fc.integer({ min: 1, max: 100 }), (given, chanced, attempt) => {
        const outcome = decided({ ...given, retryForMs: LONGEST_DELAY_MS }, { attempt }, chanced)
        expect(outcome.kind).toBe(attempt < (given.attempts ?? 25) ? 'retry' : 'dead')
      }),
    )
  })

  test('waits for no longer than the longest delay, no less than chance may take off, and a whole number of ms', () => {
    fc.assert(
      fc.property(options, chance, fc.integer({ min: 1, max: 60 }), (given, chanced, attempt) => {
        const outcome = decided({ ...given, attempts: 1000, retryForMs: LONGEST_DELAY_MS }, { attempt }, chanced)
        if (outcome.kind !== 'retry') throw new Error('expected a retry')
        const { backoff = 'exponential', jitter = 0.5, maxDelayMs = 6 * 3_600_000 } = given
        if (typeof backoff === 'function') throw new Error('expected no function')
        const full = backoffDelayMs(given, backoff, attempt)
        expect(Number.isInteger(outcome.delayMs)).toBe(true)
        expect(outcome.delayMs).toBeLessThanOrEqual(maxDelayMs)
        expect(outcome.delayMs).toBeLessThanOrEqual(full + 0.5)
        expect(outcome.delayMs).toBeGreaterThanOrEqual(full * (1 - jitter) - 0.5)
      }),
    )
  })

  test('grows as it is told to', () => {
    const delays = (given: RetryOptions) =>
      [1, 2, 3, 4]
        .map((attempt) => decided({ jitter: 0, ...given }, { attempt }))
        .map((one) => 'delayMs' in one && one.delayMs)
    expect(delays({})).toEqual([1000, 2000, 4000, 8000])
    expect(delays({ backoff: 'linear', delayMs: 50 })).toEqual([50, 100, 150, 200])
    expect(delays({ backoff: 'fixed', delayMs: 70 })).toEqual([70, 70, 70, 70])
    expect(delays({ delayMs: 100, maxDelayMs: 250 })).toEqual([100, 200, 250, 250])
    expect(delays({ backoff: ({ attempt }) => attempt * 7 })).toEqual([7, 14, 21, 28])
  })

  test('takes about two days by default until the job is dead', () => {
    const delays = Array.from({ length: 24 }, (_, at) => decided({}, { attempt: at + 1 }, 0.5))
    const days = delays.reduce((sum, one) => sum + (one.kind === 'retry' ? one.delayMs : 0), 0) / 86_400_000
    expect(days).toBeGreaterThan(1.5)
    expect(days).toBeLessThan(3)
    expect(decided({}, { attempt: 25 })).toMatchObject({ kind: 'dead', reason: 'attempts' })
  })

  test('obeys the error: as late as a RetryAfterError says, never again after a FatalError', () => {
    const later = new RetryAfterError(86_400_000)
    expect(decided({ maxDelayMs: 10 }, { error: later })).toMatchObject({ kind: 'retry', delayMs: 86_400_000 })
    expect(decided({ attempts: 3 }, { error: later, attempt: 3 })).toMatchObject({ kind: 'dead', reason: 'attempts' })
    expect(decided({}, { error: new FatalError('no such customer') })).toMatchObject({ kind: 'dead', reason: 'fatal' })
    const ofAnotherCopy = Object.assign(new Error('x'), { code: 'ERR_FATAL' })
    expect(decided({}, { error: ofAnotherCopy })).toMatchObject({ kind: 'dead', reason: 'fatal' })
  })

  test.each<[string, RetryOptions, unknown, 'retry' | 'dead']>([
    ['a class that is fatal', { failOn: [TypeError] }, new TypeError('x'), 'dead'],
    ['another class', { failOn: [TypeError] }, new RangeError('x'), 'retry'],
    ['the name of a fatal error', { failOn: ['RangeError'] }, new RangeError('x'), 'dead'],
    ['the code of a fatal error', { failOn: ['ENOENT'] }, Object.assign(new Error('x'), { code: 'ENOENT' }), 'dead'],
    ['a function that says fatal', { failOn: () => true }, new Error('x'), 'dead'],
    ['a class that is worth it', { retryOn: [TypeError] }, new TypeError('x'), 'retry'],
    ['a class that is not', { retryOn: [TypeError] }, new RangeError('x'), 'dead'],
    ['both, of which fatal counts', { retryOn: [Error], failOn: [TypeError] }, new TypeError('x'), 'dead'],
    ['what is no error', { retryOn: ['Timeout'] }, 'text', 'dead'],
    ['nothing at all', { failOn: ['undefined'] }, undefined, 'retry'],
  ])('heeds filters: %s', (_what, given, error, kind) => {
    if (error === undefined) expect(decided({ failOn: ['Never'] }, { error }).kind).toBe(kind)
    else expect(decided(given, { error }).kind).toBe(kind)
  })

  test('ends at the deadline, also when only the delay reaches beyond it', () => {
    const at = (given: RetryOptions, firstFailedMs = NOW_MS) => decided({ jitter: 0, ...given }, { firstFailedMs }).kind
    expect(at({ retryForMs: 1000 })).toBe('retry')
    expect(at({ retryForMs: 999 })).toBe('dead')
    expect(at({ retryForMs: 1500 }, NOW_MS - 600)).toBe('dead')
    expect(at({ retryUntil: new Date(NOW_MS + 1000) })).toBe('retry')
    expect(at({ retryUntil: NOW_MS + 999 })).toBe('dead')
    expect(at({ retryUntil: ({ publishedMs }) => publishedMs + 999 })).toBe('dead')
  })

  test.each<[string, RetryOptions]>([
    ['a back-off that throws', { backoff: () => JSON.parse('') as number }],
    ['a back-off of NaN', { backoff: () => NaN }],
    ['a back-off below 0', { backoff: () => -1 }],
    ['a back-off beyond ten years', { backoff: () => 1e15 }],
    ['a back-off that is a text', { backoff: () => '5' as unknown as number }],
    ['a deadline that throws', { retryUntil: () => JSON.parse('') as number }],
    ['a deadline that is no date', { retryUntil: () => new Date('x') }],
    ['a filter that throws', { failOn: () => JSON.parse('') as boolean }],
    ['a filter of what is worth it that throws', { retryOn: () => JSON.parse('') as boolean }],
  ])('takes the default and complains where a function of the user fails: %s', (_what, given) => {
    const outcome = decided({ jitter: 0, ...given })
    expect(outcome).toMatchObject({ kind: 'retry', delayMs: 1000 })
    expect(outcome.complaint).toMatch(/^the function `(backoff|retryUntil|failOn|retryOn)`/)
  })

  test('a back-off may say that it was the last attempt', () => {
    expect(decided({ backoff: () => false })).toMatchObject({ kind: 'dead', reason: 'attempts' })
  })
})

describe('options that cannot be', () => {
  test.each<[unknown, string]>([
    [{ attempts: 0 }, 'expected `retry.attempts` to be a positive integer up to 1000000, got 0'],
    [{ attempts: 1.5 }, 'expected `retry.attempts` to be a positive integer up to 1000000, got 1.5'],
    [{ delayMs: -1 }, 'expected `retry.delayMs` to be an integer of 0 or more up to 315360000000, got -1'],
    [{ delayMs: Infinity }, 'expected `retry.delayMs` to be an integer of 0 or more up to 315360000000, got Infinity'],
    [{ backoff: 'never' }, 'expected `retry.backoff` to be one of exponential, linear, fixed, a function, got "never"'],
    [{ jitter: 2 }, 'expected `retry.jitter` to be a number from 0 to 1, got 2'],
    [{ retryUntil: 'soon' }, 'expected `retry.retryUntil` to be a Date, ms since the epoch or a function, got "soon"'],
    [
      { failOn: [] },
      'expected `retry.failOn` to be a function, or a list of error classes and names or codes of errors, got an array',
    ],
    [{ atempts: 3 }, 'unknown option `atempts` of retry (did you mean `attempts`?)'],
  ])('are refused with the expected form: %j', (retry, message) => {
    expect(() => defineJob('x', { retry: retry as RetryOptions })).toThrow(message)
  })

  test('a delay of a RetryAfterError that is none is refused where it is made', () => {
    for (const ms of [-1, NaN, Infinity, 1e15])
      expect(() => new RetryAfterError(ms)).toThrow('expected a RetryAfterError')
  })
})

test('a job that fails runs again under its id with one attempt more, and nothing of it is left when it succeeds', async () => {
  const runs: Pick<Job, 'id' | 'attempt' | 'deliveries'>[] = []
  await startWorker({
    redis: redis.url,
    retry: { delayMs: 1 },
    handlers: {
      x: (_data, { id, attempt, deliveries }) => {
        runs.push({ id, attempt, deliveries })
        if (attempt < 3) throw new Error('not today')
      },
    },
  })
  const id = await add(redis.client, 'x')

  await eventually(async () => expect(await tally(redis.client)).toEqual({ retried: 2, completed: 1 }))
  expect(runs).toEqual([1, 2, 3].map((attempt) => ({ id, attempt, deliveries: 1 })))
  expect(await pending(redis.client)).toEqual([])
  expect(await pending(redis.client, '{orders}:group:main:redelivery')).toEqual([])
  const left = ['index', 'scheduled', 'scheduled:jobs', 'dead'].map((kind) => `{orders}:group:main:${kind}`)
  expect(await redis.client.exists(left)).toBe(0)
})

test('a job that has used up its attempts is dead with its raw fields, its last error and how it got there', async () => {
  await startWorker({
    redis: redis.url,
    handlers: [
      handle(defineJob('x', { retry: { attempts: 3, delayMs: 0 } }), (_data, job) => {
        throw new TypeError(`never ${job.attempt}`)
      }),
    ],
  })
  const id = (await redis.client.xadd('orders', '*', 'job', 'x', 'data', '{"order":1}', 'h-tenant', 'a')) as string

  const rows = await eventually(async () => {
    const found = await redis.client.xrange('{orders}:group:main:dead', '-', '+')
    expect(found).toHaveLength(1)
    return found
  })
  const fields = rows[0]?.[1] ?? []
  const value = (name: string) => fields[fields.indexOf(name) + 1]
  expect(
    ['reason', 'id', 'source', 'attempts', 'deliveries', 'error', 'message'].map((name) => value(`dead-${name}`)),
  ).toEqual([...['attempts', id, 'redelivery', '3', '1', 'TypeError', 'never 3']])
  expect(Number(value('dead-first-failed'))).toBeLessThanOrEqual(Number(value('dead-at')))
  expect(['data', 'h-tenant', 'id', 'attempt'].map(value)).toEqual(['{"order":1}', 'a', id, '2'])
  expect(await tally(redis.client)).toEqual({ retried: 2, dead: 1 })
  expect(await redis.client.hgetall('{orders}:group:main:index')).toEqual({ [id]: `dead ${rows[0]?.[0]}` })
})
