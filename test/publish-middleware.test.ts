import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineJob, PublishError, type Producer, type PublishContext, type PublishMiddleware } from '../src/index.ts'
import { publishChannel } from '../src/channels.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { withRedis } from './helpers/redis.ts'

/** What a producer's middleware sees and may do, and that it cannot make a publish look done that is not. */

const redis = withRedis()
const withMiddleware = (...layers: PublishMiddleware[]): Producer =>
  layers.reduce((producer, layer) => producer.use(layer), newProducer({ redis: redis.url }))
const mail = (producer: Producer, data: unknown = 1, options: object = {}) =>
  producer.publish('mail', data, { stream: 'orders', ...options })
const entries = async () => (await redis.client.xrange('orders', '-', '+')).map(([, fields]) => fields)

function raise(what: unknown): never {
  throw what
}

/** What the types do not let it do. */
function put(publish: PublishContext, name: keyof PublishContext, value: unknown): void {
  Object.assign(publish, { [name]: value })
}

async function failed(publishing: Promise<unknown>): Promise<PublishError> {
  const error = await failureOf(publishing)
  expect(error).toBeInstanceOf(PublishError)
  return error
}

test('middleware is run in onion order, and sees what was published and what came of it', async () => {
  const seen: unknown[] = []
  const layer =
    (name: string): PublishMiddleware =>
    async ({ job, stream, isMany, data, headers, options }, next) => {
      seen.push([name, { job, stream, isMany, data, headers: { ...headers }, options }])
      const result = await next()
      seen.push([name, result])
      return result
    }
  const producer = withMiddleware(layer('outer'), layer('inner'))
  const result = await mail(producer, { n: 1 }, { delayMs: 0, bufferPriority: 2, headers: { tenant: 'a' } })
  const options = { delayMs: 0, bufferPriority: 2 }
  const about = { job: 'mail', stream: 'orders', isMany: false, data: { n: 1 }, headers: { tenant: 'a' }, options }
  expect(seen).toEqual([
    ['outer', about],
    ['inner', about],
    ['inner', result],
    ['outer', result],
  ])
  expect(result.outcome).toBe('added')
})

test('what it makes of the data and the headers is what is published; the options it cannot change', async () => {
  const producer = withMiddleware((publish, next) => {
    publish.data = { was: publish.data }
    publish.headers['request-id'] = 'r-1'
    expect(() => ((publish.options as { delayMs?: number }).delayMs = 5)).toThrow(TypeError)
    return next()
  })
  const given = { tenant: 'a' }
  await mail(producer, 1, { headers: given })
  expect(await entries()).toEqual([['job', 'mail', 'data', '{"was":1}', 'h-tenant', 'a', 'h-request-id', 'r-1']])
  expect(given).toEqual({ tenant: 'a' })
})

test('a publish resolves with what happened, whatever its middleware returns, awaits or swallows', async () => {
  const producer = withMiddleware((_publish, next) => {
    void next()
    return 'something else'
  })
  expect((await mail(producer)).outcome).toBe('added')
  producer.use(async (_publish, next) => next().catch(() => 'done'))
  const error = await failed(mail(producer, 1n))
  expect([error.code, error.published]).toEqual(['ERR_PAYLOAD', 'no'])
  expect(await entries()).toHaveLength(1)
})

describe('a middleware that', () => {
  test('throws before next rejects the publish with its error as the cause, and nothing is published', async () => {
    const own = new TypeError('no tenant')
    const producer = withMiddleware(() => {
      throw own
    })
    const error = await failed(mail(producer))
    expect([error.code, error.published, error.cause]).toEqual(['ERR_MIDDLEWARE', 'no', own])
    expect(error.message).toBe('a middleware failed the publish of mail: no tenant; nothing was published')
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('throws after next rejects it too, and says that the job is in Redis', async () => {
    const producer = withMiddleware(async (_publish, next) => {
      await next()
      throw new Error('afterwards')
    })
    const error = await failed(mail(producer))
    const [[id] = ['']] = await redis.client.xrange('orders', '-', '+')
    expect([error.code, error.published]).toEqual(['ERR_MIDDLEWARE', 'yes'])
    expect(error.message).toBe(
      `a middleware failed the publish of mail: afterwards, after it was done: the job is in Redis as ${id}`,
    )
    const buffered = await failed(mail(producer, 1, { durability: 'buffered' }))
    expect([buffered.published, buffered.message]).toEqual(['unknown', expect.stringContaining('into the buffer')])
  })

  test('throws another error than the publish itself is the cause, and the truth of the publish stays', async () => {
    const own = new Error('mine')
    const producer = withMiddleware(async (_publish, next) => {
      await next().catch(() => {
        throw own
      })
    })
    const error = await failed(mail(producer, 1n))
    expect([error.code, error.published, error.cause]).toEqual(['ERR_MIDDLEWARE', 'no', own])
  })

  test('does not call next is an error, and never a job that is dropped in silence', async () => {
    const producer = withMiddleware(function onlyMails() {})
    const error = await failed(mail(producer))
    expect([error.code, error.published]).toEqual(['ERR_MIDDLEWARE', 'no'])
    expect(error.message).toContain('middleware 1 (onlyMails) ended without calling next(); nothing was published')
  })

  test('calls next twice publishes once and fails', async () => {
    const producer = withMiddleware(async (_publish, next) => {
      await next()
      await next()
    })
    const error = await failed(mail(producer))
    expect([error.published, error.message]).toEqual(['yes', expect.stringContaining('called next() twice')])
    expect(await entries()).toHaveLength(1)
  })

  test('calls next after it has ended publishes nothing behind the back of its caller', async () => {
    let late: (() => Promise<unknown>) | undefined
    const producer = withMiddleware((_publish, next) => {
      late = next
    })
    expect((await failed(mail(producer))).published).toBe('no')
    expect(late).toThrow('middleware 1 called next() after it had ended')
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test.each<[string, (publish: PublishContext) => void, string, string]>([
    [
      'takes the data away',
      (publish) => void delete (publish as { data?: unknown }).data,
      'ERR_PAYLOAD',
      'got undefined',
    ],
    ['makes data that has no JSON', (publish) => (publish.data = { n: 1n }), 'ERR_PAYLOAD', 'BigInt'],
    ['makes data that does not fit', (publish) => (publish.data = 'a'), 'ERR_INVALID_DATA', 'fit its schema'],
    ['makes data without its key', (publish) => (publish.data = 7), 'ERR_OPTION', 'expected `unique.key`'],
    [
      'puts a Map for the headers',
      (publish) => put(publish, 'headers', new Map([['a', 'b']])),
      'ERR_OPTION',
      'none of its own',
    ],
    ['puts a text for the headers', (publish) => put(publish, 'headers', 'a=b'), 'ERR_OPTION', 'got "a=b"'],
    ['throws nothing', () => raise(undefined), 'ERR_MIDDLEWARE', 'of mail: undefined; nothing was published'],
    ['throws what has no text', () => raise(Object.create(null)), 'ERR_MIDDLEWARE', '(what was thrown has no text)'],
  ])('%s has the publish refused, and nothing is sent', async (_what, change, code, message) => {
    const key = (data: number) => (data === 7 ? (data as unknown as string) : undefined)
    const job = defineJob('mail', { stream: 'orders', schema: z.number(), unique: { key } })
    const producer = withMiddleware((publish, next) => {
      change(publish)
      return next()
    })
    const error = await failed(producer.publish(job, 1))
    expect([error.code, error.published, error.message]).toEqual([code, 'no', expect.stringContaining(message)])
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('says another job or stream changes neither: what is published was checked before', async () => {
    const producer = withMiddleware((publish, next) => {
      put(publish, 'job', 'other')
      put(publish, 'stream', 'others')
      return next()
    })
    await mail(producer)
    expect([await entries(), await redis.client.exists('others')]).toEqual([[['job', 'mail', 'data', '1']], 0])
  })

  test.each([
    [{ 'X-Id': 'a' }, 'expected the name of a header'],
    [{ id: 'a\nb' }, 'expected the header `id` to be a text without control characters'],
  ])('makes headers of %j has the publish refused, as the caller would', async (headers, message) => {
    const producer = withMiddleware((publish, next) => {
      Object.assign(publish.headers, headers)
      return next()
    })
    const error = await failed(mail(producer))
    expect([error.code, error.published, error.message]).toEqual(['ERR_OPTION', 'no', expect.stringContaining(message)])
  })

  test('looks at the failure of next late, or never, leaves no rejection that would end the process', async () => {
    const unheard: unknown[] = []
    const note = (error: unknown) => void unheard.push(error)
    process.on('unhandledRejection', note)
    onEnd(() => void process.off('unhandledRejection', note))
    const producer = withMiddleware(async (_publish, next) => {
      void next()
      // Two turns: what nobody has heard by the end of the first one counts as unheard.
      for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => setImmediate(resolve))
    })
    expect((await failed(mail(producer, 1n))).code).toBe('ERR_PAYLOAD')
    expect(unheard).toEqual([])
  })

  test('is no function is refused', () => {
    const use = () => withMiddleware({} as PublishMiddleware)
    expect(use).toThrow('expected a middleware to be a function (context, next), got a value of type object')
  })
})

test('a publish that cannot be is refused before its middleware is run', async () => {
  let runs = 0
  const producer = withMiddleware((_publish, next) => ((runs += 1), next()))
  expect((await failed(mail(producer, 1, { delay: 5 }))).code).toBe('ERR_OPTION')
  await producer.close()
  expect((await failed(mail(producer))).code).toBe('ERR_PRODUCER_CLOSED')
  expect(runs).toBe(0)
})

test('a producer that is closed, and a signal that is aborted, meanwhile keep the job out of Redis', async () => {
  const aborting = new AbortController()
  let inside = () => {}
  const producer = withMiddleware((_publish, next) => (inside(), next()))
  inside = () => aborting.abort()
  expect((await failed(mail(producer, 1, { signal: aborting.signal }))).code).toBe('ERR_PUBLISH_ABORTED')
  inside = () => void producer.close()
  expect((await failed(mail(producer))).code).toBe('ERR_PRODUCER_CLOSED')
  expect(await redis.client.exists('orders')).toBe(0)
})

test('a publish that it keeps from Redis is counted as rejected, once, and one that it fails afterwards is not', async () => {
  const registry = new Registry()
  const producer = newProducer({ redis: redis.url, registry }).use(async ({ data }, next) => {
    if (data === 'before') throw new Error('no')
    await next()
    throw new Error('afterwards')
  })
  for (const data of ['before', 1n, 'after']) await failed(mail(producer, data))
  const { values = [] } = (await registry.getSingleMetric('millrace_published_jobs_total')?.get()) ?? {}
  const counted = values.map(({ labels, value }) => [labels['result'], value]).filter(([, value]) => value !== 0)
  expect(counted.sort()).toEqual([
    ['ok', 1],
    ['rejected', 2],
  ])
})

describe('of a publishMany', () => {
  test('it is run once, and its headers are on every job', async () => {
    const seen: PublishContext[] = []
    const producer = withMiddleware((publish, next) => {
      seen.push(publish)
      publish.headers['run'] = '7'
      return next()
    })
    const done = await producer.publishMany('mail', [1, 2, 3], { stream: 'orders', headers: { tenant: 'a' } })
    expect([done, seen.length, seen[0]?.isMany, seen[0]?.data]).toEqual([{ published: 3 }, 1, true, undefined])
    expect(await entries()).toEqual(
      [1, 2, 3].map((n) => ['job', 'mail', 'data', String(n), 'h-tenant', 'a', 'h-run', '7']),
    )
  })

  test('an error tells how many of the jobs are in Redis', async () => {
    const producer = withMiddleware(async (publish, next) => {
      if (publish.headers['data'] !== undefined) publish.data = []
      await next()
      throw new Error('afterwards')
    })
    const many = (items: unknown[], headers = {}) =>
      failed(producer.publishMany('mail', items, { stream: 'orders', headers }))
    const whole = await many([1, 2])
    expect([whole.published, whole.confirmed]).toEqual(['yes', 2])
    const part = await many([1, 2, 3n])
    expect([part.code, part.published, part.confirmed]).toEqual(['ERR_PAYLOAD', 'no', 2])
    const changed = await many([1], { data: 'x' })
    expect([changed.published, changed.message]).toEqual(['no', expect.stringContaining('has set `data`')])
  })
})

test('an error in the place of that of a publishMany tells too how many of the jobs are in Redis', async () => {
  const producer = withMiddleware((_publish, next) =>
    next().catch(() => {
      throw new Error('mine')
    }),
  )
  const part = await failed(producer.publishMany('mail', [1, 2, 3n], { stream: 'orders' }))
  expect([part.code, part.published, part.confirmed]).toEqual(['ERR_MIDDLEWARE', 'no', 2])
})

test('the channel of publishes is told from before the middleware to after it', async () => {
  const seen: string[] = []
  const subscriber = { start: () => void seen.push('start'), asyncEnd: () => void seen.push('end') }
  publishChannel.subscribe(subscriber as never)
  onEnd(() => void publishChannel.unsubscribe(subscriber as never))
  const producer = withMiddleware(async (_publish, next) => {
    seen.push('before')
    await next()
    seen.push('after')
  })
  await mail(producer)
  expect(seen).toEqual(['start', 'before', 'after', 'end'])
})
