import { beforeEach, describe, expect, test, vi } from 'vitest'
import { defineJob, Feed, handle, Inspector, Producer, ResultError, type ResultWaitOptions } from '../src/index.ts'
import { deadKey, repliesKey, resultKey } from '../src/redis/keys.ts'
import { promoteNow } from '../src/redis/scheduling.ts'
import { settleCompleted } from '../src/redis/scripts/delivery.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, startWorker } from './helpers/workers.ts'

/** What whoever publishes a job with `result` is told of its end, in each way in which a job can end. */

const redis = withRedis()
let producer: Producer

beforeEach(() => {
  producer = newProducer({ redis: redis.url })
})

const LONG: ResultWaitOptions = { timeoutMs: 60_000 }
const once = { attempts: 1 }
const publish = (job: string, data: unknown = null, more: object = {}) =>
  producer.publish(job, data, { stream: 'orders', result: true, timeoutMs: 30_000, ...more })

/** What the wait was rejected with. */
async function refusalOf(waiting: Promise<unknown>): Promise<ResultError> {
  const error = await waiting.then(
    (value) => Promise.reject(new Error(`expected a rejection, got ${JSON.stringify(value)}`)),
    (thrown: unknown) => thrown,
  )
  expect(error).toBeInstanceOf(ResultError)
  return error as ResultError
}

const VALUES = [{ pages: 3, at: ['ü', '\u2028'] }, 'text', 0, null, false, [], undefined, 'x'.repeat(5000)]

test.each(VALUES.map((value) => ({ what: JSON.stringify(value)?.slice(0, 40), value })))(
  'gives what the handler gave back: $what',
  async ({ value }) => {
    await startWorker({ redis: redis.url, handlers: { x: () => value } })
    const { id, outcome, result } = await publish('x')
    expect(outcome).toBe('added')
    expect(await result(LONG)).toEqual(value)
    // Again, and by whoever knows its id.
    expect(await result(LONG)).toEqual(value)
    const seen = await newInspector(redis.url).result('orders', id)
    expect(seen).toMatchObject({ state: 'completed', group: 'main', ...(value !== undefined && { result: value }) })
  },
)

test('gives large results one right after the other, without waiting for the look that is a net for all', async () => {
  // The net stands still.
  vi.useFakeTimers({ toFake: ['setInterval'] })
  onEnd(() => void vi.useRealTimers())
  await startWorker({ redis: redis.url, handlers: { x: (n) => `${String(n)} ${'x'.repeat(5000)}` } })
  const published = await Promise.all([1, 2, 3].map((n) => publish('x', n)))
  for (const [at, { result }] of [...published, ...published].entries()) {
    expect(String(await result(LONG)).slice(0, 2)).toBe(`${(at % 3) + 1} `)
  }
})

test('gives the result of a job that had ended before anybody asked for it', async () => {
  const worker = await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
  const first = await publish('x', 1)
  await eventually(() => expect(worker.counts.completed).toBe(1))
  expect(await first.result(LONG)).toBe(1)
  const second = await publish('x', 2)
  await eventually(() => expect(worker.counts.completed).toBe(2))
  expect(await second.result(LONG)).toBe(2)
})

test('writes nothing for a job that was published without it', async () => {
  const worker = await startWorker({ redis: redis.url, handlers: { x: () => 'secret' } })
  const published = await producer.publish('x', 1, { stream: 'orders' })
  await eventually(() => expect(worker.counts.completed).toBe(1))
  expect(published).not.toHaveProperty('result')
  expect(await redis.client.keys('*:result:*')).toEqual([])
  expect(await redis.client.keys('*:replies:*')).toEqual([])
})

test('1 000 results in flight each come to the one that waits for it', async () => {
  await startWorker({ redis: redis.url, concurrency: 200, handlers: { x: (n) => (n as number) * 2 } })
  const numbers = Array.from({ length: 1000 }, (_, n) => n)
  const results = await Promise.all(numbers.map(async (n) => (await publish('x', n)).result(LONG)))
  expect(results).toEqual(numbers.map((n) => n * 2))
})

test('a result over the size that is told at once comes whole, and so does each of many', async () => {
  await startWorker({ redis: redis.url, handlers: { x: (n) => String(n).repeat(100_000) } })
  const results = await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(async (n) => (await publish('x', n)).result(LONG)))
  expect(results).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => String(n).repeat(100_000)))
})

describe('a job that comes to no good', () => {
  test('is told to be dead with its reason, error and attempts, after all of its attempts', async () => {
    const retry = { attempts: 3, backoff: () => 1 }
    const fails = () => {
      throw new TypeError('no stock')
    }
    await startWorker({ redis: redis.url, retry, handlers: { x: fails } })
    const { id, result } = await publish('x')
    const error = await refusalOf(result(LONG))
    expect(error).toMatchObject({
      code: 'ERR_RESULT_FAILED',
      jobId: id,
      group: 'main',
      reason: 'attempts',
      attempts: 3,
    })
    expect(error.message).toBe(`job ${id} on orders is dead (attempts) after 3 attempts: TypeError: no stock`)
    const seen = await newInspector(redis.url).result('orders', id)
    expect(seen).toMatchObject({ state: 'dead', reason: 'attempts', attempts: 3, error: 'TypeError: no stock' })
  })

  test('after one attempt is not said to be dead after 1 attempts', async () => {
    const fails = () => Promise.reject(new Error('no stock'))
    await startWorker({ redis: redis.url, retry: { attempts: 1 }, handlers: { x: fails } })
    const { id, result } = await publish('x')
    const error = await refusalOf(result(LONG))
    expect(error.message).toBe(`job ${id} on orders is dead (attempts) after 1 attempt: Error: no stock`)
  })

  test('gives its result where a later attempt succeeds', async () => {
    const flaky = (_: unknown, { attempt }: { attempt: number }) => {
      if (attempt < 3) throw new Error('not yet')
      return attempt
    }
    await startWorker({ redis: redis.url, retry: { attempts: 5, backoff: () => 1 }, handlers: { x: flaky } })
    expect(await (await publish('x')).result(LONG)).toBe(3)
  })

  test('is told to be dead where it was not run: too late, unknown, or not of its format', async () => {
    await startWorker({ redis: redis.url, unknownJobMs: 0, handlers: { none() {} } })
    const to = 'somebody'
    const unknown = await publish('x')
    expect(await refusalOf(unknown.result(LONG))).toMatchObject({ code: 'ERR_RESULT_FAILED', reason: 'unknown-job' })
    const id = await redis.client.xadd('orders', '*', 'job', 'x', 'data', '{', 'reply', `${to} * 60000`)
    await eventually(async () => expect(await redis.client.xlen(repliesKey('orders', to))).toBe(1))
    expect(await newInspector(redis.url).result('orders', id ?? '')).toMatchObject({
      state: 'dead',
      reason: 'malformed',
    })
  })

  test('is told to be dead where its deadline was over', async () => {
    const { result, id } = await publish('x', 1, { ttlMs: 1 })
    await eventually(async () => {
      const [seconds] = await redis.client.time()
      expect(Number(seconds) * 1000).toBeGreaterThan(Number(id.split('-')[0]))
    })
    await startWorker({ redis: redis.url, handlers: { x: () => 1 } })
    expect(await refusalOf(result(LONG))).toMatchObject({ code: 'ERR_RESULT_FAILED', reason: 'expired', attempts: 0 })
  })

  test('tells the new end of a job that was redriven, and nothing while that is not known', async () => {
    let fails = true
    const run = gate()
    const x = async () => {
      if (fails) throw new Error('no')
      await run.wait()
      return 'better'
    }
    await startWorker({ redis: redis.url, retry: once, handlers: { x } })
    const { id, result } = await publish('x')
    expect(await refusalOf(result(LONG))).toMatchObject({ code: 'ERR_RESULT_FAILED' })
    fails = false
    const inspector = newInspector(redis.url)
    await inspector.dead.redrive('orders', 'main', { execute: true })
    expect(await inspector.result('orders', id)).toMatchObject({ state: 'waiting' })
    const again = result(LONG)
    run.open()
    expect(await again).toBe('better')
    expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(0)
  })

  test.each(['while it runs', 'before it runs', 'while it waits for another attempt', 'before it is in the stream'])(
    'is told to be cancelled %s',
    async (when) => {
      const began = gate()
      const x = async (_: unknown, { signal }: { signal: AbortSignal }) => {
        began.open()
        if (when === 'while it waits for another attempt') throw new Error('later')
        await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(new Error('stop'))))
      }
      const start = () => startWorker({ redis: redis.url, retry: { backoff: () => 3_600_000 }, handlers: { x } })
      const { id, result } = await publish('x', 1, when === 'before it is in the stream' ? { delayMs: 3_600_000 } : {})
      const inspector = newInspector(redis.url)
      if (when.startsWith('while')) {
        await start()
        await began.wait()
      }
      if (when === 'while it waits for another attempt') {
        await eventually(async () => {
          const { groups } = await inspector.explain('orders', id)
          expect(groups[0]?.state.at).toBe('scheduled')
        })
      }
      const refused = refusalOf(result(LONG))
      await inspector.cancel('orders', id)
      if (when === 'before it runs') await start()
      expect(await refused).toMatchObject({ code: 'ERR_RESULT_CANCELLED', jobId: id })
    },
  )

  test('is told to be cancelled where another one has taken its place', async () => {
    const options = { uniqueKey: 'a', unique: { mode: 'replace' as const } }
    const later = await publish('x', 1, { ...options, delayMs: 3_600_000 })
    const second = await publish('x', 2, options)
    const third = await publish('x', 3, options)
    expect(third.outcome).toBe('replaced')
    const refused = [refusalOf(later.result(LONG)), refusalOf(second.result(LONG))]
    await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
    expect(await third.result(LONG)).toBe(3)
    for (const error of await Promise.all(refused)) expect(error.code).toBe('ERR_RESULT_CANCELLED')
  })

  test('is told to be completed where its result is too large or no JSON', async () => {
    const circle: { self?: unknown } = {}
    circle.self = circle
    const handlers = { large: () => 'x'.repeat(2000), circle: () => circle, big: () => 1n, fn: () => () => 1 }
    const worker = await startWorker({ redis: redis.url, maxResultBytes: 1000, handlers })
    expect(await refusalOf((await publish('large')).result(LONG))).toMatchObject({ code: 'ERR_RESULT_TOO_LARGE' })
    for (const name of ['circle', 'big', 'fn']) {
      expect(await refusalOf((await publish(name)).result(LONG))).toMatchObject({ code: 'ERR_RESULT_NOT_JSON' })
    }
    await eventually(() => expect(worker.counts).toMatchObject({ completed: 4, failed: 0, dead: 0 }))
  })
})

describe('a job that was published with a delay', () => {
  test('reads as waiting from its publish to its end, also once it has come into the stream', async () => {
    const inspector = newInspector(redis.url)
    const stands = async (id: string) => (await inspector.result('orders', id)).state
    const later = { delayMs: 3_600_000 }
    const { id, result } = await publish('x', 1, later)
    const { id: unasked } = await producer.publish('x', 1, { stream: 'orders', ...later })
    expect(await Promise.all([stands(id), stands(unasked)])).toEqual(['waiting', 'not-asked'])
    expect(await promoteNow(redis.client, { stream: 'orders', group: null }, [id, unasked])).toHaveLength(2)
    expect(await Promise.all([stands(id), stands(unasked)])).toEqual(['waiting', 'unknown'])
    await startWorker({ redis: redis.url, handlers: { x: (n) => n } })
    expect(await result(LONG)).toBe(1)
    expect(await stands(id)).toBe('completed')
    // What is noted of it goes with its answer.
    expect(await redis.client.pttl(resultKey('orders', id))).toBeLessThanOrEqual(3_600_000)
  })
})

describe('of two groups', () => {
  test('the first one that ends the job answers, and each of them if it is named', async () => {
    const slow = gate()
    await startWorker({ redis: redis.url, group: 'main', handlers: { x: async () => (await slow.wait(), 'main') } })
    await startWorker({ redis: redis.url, group: 'fast', startAt: 'oldest', handlers: { x: () => 'fast' } })
    const any = await publish('x')
    const named = await publish('x', 1, { result: { group: 'main' } })
    expect(await any.result(LONG)).toBe('fast')
    const waiting = named.result(LONG)
    slow.open()
    expect(await waiting).toBe('main')
    const inspector = newInspector(redis.url)
    await eventually(async () => {
      expect(await inspector.result('orders', any.id, { group: 'main' })).toMatchObject({ result: 'main' })
    })
    expect(await any.result(LONG)).toBe('fast')
    expect(await inspector.result('orders', named.id, { group: 'fast' })).toMatchObject({ state: 'not-asked' })
  })

  test('the first one answers whoever asks again, though the other one was heard of meanwhile', async () => {
    const slow = gate()
    const main = await startWorker({ redis: redis.url, handlers: { x: async () => (await slow.wait(), 'main') } })
    await startWorker({ redis: redis.url, group: 'fast', startAt: 'oldest', handlers: { x: () => 'fast' } })
    const { result } = await publish('x')
    expect(await result(LONG)).toBe('fast')
    slow.open()
    await eventually(() => expect(main.counts.completed).toBe(1))
    // What is read for this one has the other answer before it.
    const next = await publish('x', 1, { result: { group: 'fast' } })
    expect(await next.result(LONG)).toBe('fast')
    expect(await result(LONG)).toBe('fast')
  })

  test('one that skips the job answers only where it was named', async () => {
    await startWorker({ redis: redis.url, group: 'picky', accept: ['none'], handlers: { none() {} } })
    await startWorker({ redis: redis.url, group: 'main', startAt: 'oldest', handlers: { x: () => 1 } })
    expect(await (await publish('x')).result(LONG)).toBe(1)
    const named = await publish('x', 1, { result: { group: 'picky' } })
    expect(await refusalOf(named.result(LONG))).toMatchObject({ code: 'ERR_RESULT_SKIPPED', group: 'picky' })
  })
})

describe('a job that was there already', () => {
  test('gives its result to every producer that meets it, by its key or by its token', async () => {
    const run = gate()
    await startWorker({ redis: redis.url, handlers: { x: async (n) => (await run.wait(), n) } })
    const other = newProducer({ redis: redis.url })
    const how = { stream: 'orders', result: true as const, uniqueKey: 'a' }
    const first = await producer.publish('x', 1, how)
    const second = await other.publish('x', 2, how)
    const token = { stream: 'orders', result: true as const, idempotencyToken: 't' }
    const third = await producer.publish('x', 3, token)
    const fourth = await other.publish('x', 4, token)
    expect([second, fourth].map(({ outcome }) => outcome)).toEqual(['duplicate', 'duplicate'])
    const waiting = [first, second, third, fourth].map(({ result }) => result(LONG))
    run.open()
    expect(await Promise.all(waiting)).toEqual([1, 1, 3, 3])
  })

  test('and is given another payload while it waits for its time goes on to tell whoever asked for it before', async () => {
    const options = { uniqueKey: 'a', delayMs: 3_600_000, unique: { mode: 'debounce' as const } }
    const first = await publish('x', 1, options)
    const second = await publish('x', 2, { ...options, result: undefined })
    expect([second.outcome, second.id]).toEqual(['replaced', first.id])
    await newInspector(redis.url).scheduled.promote('orders', first.id)
    await startWorker({ redis: redis.url, handlers: { x: (data) => data } })

    expect(await first.result({ timeoutMs: 15_000 })).toBe(2)
  })

  test('is refused at once where it was published without', async () => {
    await producer.publish('x', 1, { stream: 'orders', uniqueKey: 'a' })
    const { id, result } = await publish('x', 2, { uniqueKey: 'a' })
    const error = await refusalOf(result(LONG))
    expect(error).toMatchObject({ code: 'ERR_RESULT_NOT_ASKED', jobId: id })
    expect(error.message).toMatch(/^expected a job that was published with `result`/)
    expect(await newInspector(redis.url).result('orders', id)).toEqual({ state: 'not-asked', group: null, atMs: null })
  })

  test('is refused at once where it was published with the result of another group', async () => {
    await publish('x', 1, { uniqueKey: 'a', result: { group: 'main' } })
    const { id, result } = await publish('x', 2, { uniqueKey: 'a', result: { group: 'billing' } })
    const error = await refusalOf(result(LONG))
    expect(error).toMatchObject({ code: 'ERR_RESULT_NOT_ASKED', jobId: id, group: 'billing' })
    expect(error.message).toContain('nobody is told how it ends in group billing')
  })
})

describe('a wait', () => {
  test('ends when its time is up, and says that the job may still run', async () => {
    const { id, result } = await publish('x')
    const error = await refusalOf(result({ timeoutMs: 20 }))
    expect(error).toMatchObject({ code: 'ERR_RESULT_TIMEOUT', jobId: id, stream: 'orders' })
    expect(error.message).toContain('it may still run')
    await startWorker({ redis: redis.url, handlers: { x: () => 'late' } })
    expect(await result(LONG)).toBe('late')
  })

  test('ends with its signal, before it begins or later', async () => {
    const { result } = await publish('x')
    const reason = new Error('gone')
    expect(await refusalOf(result({ signal: AbortSignal.abort(reason) }))).toMatchObject({
      code: 'ERR_RESULT_ABORTED',
      cause: reason,
    })
    const stop = new AbortController()
    const waiting = refusalOf(result({ ...LONG, signal: stop.signal }))
    stop.abort(reason)
    expect(await waiting).toMatchObject({ code: 'ERR_RESULT_ABORTED', cause: reason })
  })

  test('shares one signal with many others without a warning of a leak', async () => {
    const warnings: string[] = []
    const onWarning = ({ message }: Error) => void warnings.push(message)
    process.on('warning', onWarning)
    onEnd(() => void process.off('warning', onWarning))
    const { result } = await publish('x')
    const stop = new AbortController()
    const waiting = Array.from({ length: 12 }, () => refusalOf(result({ ...LONG, signal: stop.signal })))
    await new Promise(setImmediate)
    stop.abort()
    for (const error of await Promise.all(waiting)) expect(error.code).toBe('ERR_RESULT_ABORTED')
    expect(warnings).toEqual([])
  })

  test('ends when the producer is closed, and so does one that begins after that', async () => {
    const { result } = await publish('x')
    const waiting = refusalOf(result(LONG))
    await producer.close()
    expect(await waiting).toMatchObject({ code: 'ERR_PRODUCER_CLOSED' })
    expect(await refusalOf(result(LONG))).toMatchObject({ code: 'ERR_PRODUCER_CLOSED' })
  })

  test.each([{ timeoutMs: 0 }, { timeoutMs: '1' }, { signal: 1 }, { until: 1 }])('refuses %j', async (options) => {
    const { result } = await publish('x')
    await expect(result(options as ResultWaitOptions)).rejects.toMatchObject({ code: 'ERR_OPTION' })
  })
})

describe('a publish', () => {
  test.each([
    [{ result: false }, 'expected `result` to be true or { group, ttlMs }, got false'],
    [{ result: { groups: 'a' } }, 'unknown option `groups` of result (did you mean `group`?)'],
    [{ result: { ttlMs: 1 } }, 'expected `result.ttlMs` to be an integer of 1000 or more up to 604800000, got 1'],
    [{ result: { group: '' } }, 'expected a group name of 1 to 64 letters, digits and _ . - , got ""'],
    [
      { durability: 'buffered' },
      "expected no `result` with `durability: 'buffered'`, which resolves before there is a job",
    ],
  ])('refuses %j', async (options, message) => {
    const error = await failureOf(publish('x', 1, options))
    expect(error).toMatchObject({ message, published: 'no' })
  })

  test('of many, of a feed and of a buffering producer refuses it', async () => {
    const options = { stream: 'orders', result: true } as { stream: string }
    const many = await failureOf(producer.publishMany('x', [1], options))
    expect(many.message).toBe('expected no `result` of publishMany, which gives back no job: publish those one by one')
    const buffering = new Producer({ redis: redis.url, durability: 'buffered', logger: false })
    onEnd(async () => void (await buffering.close({ timeoutMs: 0 })))
    expect((await failureOf(buffering.publish('x', 1, options))).message).toContain('expected no `result` with')
    const feed = new Feed({ redis: redis.url, stream: 'orders', id: 'f', isNew: true, logger: false })
    onEnd(() => feed.close())
    await feed.open()
    const jobs = [{ job: 'x', data: 1, position: '1', result: true }] as unknown as Parameters<Feed['publish']>[0]
    await expect(feed.publish(jobs)).rejects.toThrow(/result/)
  })

  test('keeps the answer for as long as it was asked to', async () => {
    await startWorker({ redis: redis.url, handlers: { x: () => 1 } })
    const { id, result } = await publish('x', 1, { result: { ttlMs: 5000 } })
    await result(LONG)
    const ttlMs = await redis.client.pttl(resultKey('orders', id, 'main'))
    expect(ttlMs).toBeGreaterThan(0)
    expect(ttlMs).toBeLessThanOrEqual(5000)
  })
})

describe('a job', () => {
  test('runs whatever its field reply says', async () => {
    const worker = await startWorker({ redis: redis.url, handlers: { x: () => 1 } })
    const long = 'x'.repeat(100_000)
    for (const reply of [
      '',
      'a',
      'a b',
      'a * x',
      'a * -1',
      '../a * 1',
      `${long} * 1`,
      `a ${long} 1`,
      'a * 99999999999',
      'a%s * 1000',
    ]) {
      await redis.client.xadd('orders', '*', 'job', 'x', 'data', '1', 'reply', reply)
    }
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts.completed).toBe(11))
    expect(await redis.client.keys('*:result:*')).toEqual([])
    expect(await redis.client.keys('*:replies:*')).toEqual([])
  })

  test('that a replay has copied tells nobody', async () => {
    const worker = await startWorker({ redis: redis.url, handlers: { x: () => 1 } })
    const { id, result } = await publish('x')
    await result(LONG)
    const inspector = newInspector(redis.url)
    await inspector.replays.start('orders', { ids: [id], group: 'main' })
    await eventually(() => expect(worker.counts.completed).toBe(2))
    expect(await redis.client.keys('*:result:*')).toEqual([resultKey('orders', id, 'main')])
  })

  test('that completes a second time changes nothing of its answer', async () => {
    await startWorker({ redis: redis.url, handlers: { x: () => 'first' } })
    const { id, result } = await publish('x')
    expect(await result(LONG)).toBe('first')
    const keys = ['orders', '{orders}:settings', '{orders}:group:main:index', '{orders}:t', '{orders}:o']
    const reply = { to: 'p', ttlMs: 60_000, state: 'completed', body: '"second"' }
    const bucket = ['completed', 1, 1, id, '', JSON.stringify([{ reply }])]
    await redis.client.eval(settleCompleted.lua, keys.length, ...keys, 'main', 1, 0, 60_000, ...bucket)
    expect(await newInspector(redis.url).result('orders', id)).toMatchObject({ result: 'first' })
    expect(await redis.client.exists(repliesKey('orders', 'p'))).toBe(0)
  })
})

test('the result has the type that its job says, and is there only where it was asked for', async () => {
  const add = defineJob('add', { stream: 'orders', schema: anything<number[]>(), result: anything<number>() })
  await startWorker({
    redis: redis.url,
    handlers: [handle(add, (numbers) => numbers.reduce((sum, n) => sum + n, 0))],
  })
  const published = await producer.publish(add, [1, 2], { result: true })
  const sum: number = await published.result()
  expect(sum).toBe(3)
  const plain = await producer.publish(add, [1])
  // @ts-expect-error it was not asked for
  expect(plain.result).toBeUndefined()
  // @ts-expect-error a buffered publish has no job to wait for
  await expect(producer.publish(add, [1], { result: true, durability: 'buffered' })).rejects.toThrow('result')
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  expect((await inspector.result('orders', published.id)).result).toBe(3)
})

/** A schema that takes what it is given. */
function anything<Value>() {
  const validate = (value: unknown) => ({ value: value as Value })
  return {
    '~standard': {
      version: 1 as const,
      vendor: 'test',
      validate,
      types: undefined as unknown as { input: Value; output: Value },
    },
  }
}
