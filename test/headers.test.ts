import { runInNewContext } from 'node:vm'
import { describe, expect, test } from 'vitest'
import { Feed, Worker, type Headers, type Job } from '../src/index.ts'
import { groupScheduledKey } from '../src/redis/keys.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { startWorker, tally } from './helpers/workers.ts'

/** What goes with a job beside its payload: what is taken, what a handler sees of it, and that no step loses it. */

const redis = withRedis()
const inspector = () => newInspector(redis.url)

async function seenBy(add: () => Promise<unknown>, count = 1): Promise<Job[]> {
  const seen: Job[] = []
  await startWorker({ redis: redis.url, handlers: { mail: (_data, job) => void seen.push(job) } })
  await add()
  await eventually(() => expect(seen).toHaveLength(count))
  return seen
}

describe('headers', () => {
  test('are fields of the entry behind the payload, and the handler has them', async () => {
    const producer = newProducer({ redis: redis.url })
    const headers = { 'request-id': 'r-1', tenant: 'Größe 42', empty: '' }
    const [job] = await seenBy(() => producer.publish('mail', 1, { stream: 'orders', headers }))
    const [[, fields] = []] = await redis.client.xrange('orders', '-', '+')
    const own = ['h-request-id', 'r-1', 'h-tenant', 'Größe 42', 'h-empty', '']
    expect(fields).toEqual(['job', 'mail', 'data', '1', ...own])
    expect({ ...job?.headers }).toEqual(headers)
  })

  test('of a handler are frozen, without a prototype, and there also where there are none', async () => {
    const producer = newProducer({ redis: redis.url })
    const add = async () => {
      await producer.publish('mail', 1, { stream: 'orders', headers: { a: 'b' } })
      await producer.publish('mail', 1, { stream: 'orders', headers: {} })
      await producer.publish('mail', 1, { stream: 'orders', headers: Object.create(null) as Headers })
      await producer.publish('mail', 1, { stream: 'orders', headers: runInNewContext('({})') as Headers })
    }
    for (const { headers } of await seenBy(add, 4)) {
      expect([Object.getPrototypeOf(headers), Object.isFrozen(headers)]).toEqual([null, true])
      expect([headers['constructor'], headers['__proto__']]).toEqual([undefined, undefined])
    }
    for (const [, fields] of (await redis.client.xrange('orders', '-', '+')).slice(1))
      expect(fields).toEqual(['job', 'mail', 'data', '1'])
  })

  test('of anybody are read as they are, the first of each name; what is no name is left where it is', async () => {
    const fields = [
      'h-Trace',
      '1',
      'h-trace',
      '2',
      'h-__proto__',
      'x',
      'h-',
      'none',
      'h-a b',
      'none',
      `h-${'n'.repeat(65)}`,
      '',
    ]
    const [job] = await seenBy(() => redis.client.xadd('orders', '*', 'job', 'mail', 'data', '1', ...fields))
    expect(Object.entries(job?.headers ?? {})).toEqual([
      ['trace', '1'],
      ['__proto__', 'x'],
    ])
  })

  test('stay with a job that waits, is tried again, dies, is redriven and is replayed', async () => {
    const seen: string[] = []
    const handlers = {
      mail: (_data: unknown, job: Job) => {
        seen.push(`${job.replayOf === undefined ? '' : 'copy '}${job.attempt} ${job.headers['request-id']}`)
        if (seen.length <= 2) throw new Error('not yet')
      },
    }
    await startWorker({ redis: redis.url, handlers, retry: { attempts: 2, delayMs: 1 } })
    const producer = newProducer({ redis: redis.url })
    await producer.publish('mail', 1, { stream: 'orders', delayMs: 1, headers: { 'request-id': 'r-1' } })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ retried: 1, dead: 1 }))
    expect(await redis.client.zcard(groupScheduledKey('orders', 'main'))).toBe(0)
    await inspector().dead.redrive('orders', 'main', { execute: true })
    await eventually(() => expect(seen).toHaveLength(3))
    await inspector().replays.start('orders', { group: 'main', from: 0 })
    await eventually(() => expect(seen).toHaveLength(4))
    expect(seen).toEqual(['1 r-1', '2 r-1', '1 r-1', 'copy 1 r-1'])
  })

  test('go with the jobs of a publishMany and of a feed', async () => {
    const producer = newProducer({ redis: redis.url })
    const feed = new Feed({ redis: redis.url, stream: 'orders', id: 'one', isNew: true, logger: false })
    onEnd(() => feed.close())
    const add = async () => {
      await producer.publishMany('mail', [1, 2], { stream: 'orders', headers: { from: 'many' } })
      await feed.open()
      await feed.publish([{ job: 'mail', data: 3, position: '1', headers: { from: 'feed' } }])
    }
    expect((await seenBy(add, 3)).map(({ headers }) => headers['from'])).toEqual(['many', 'many', 'feed'])
  })

  test('of a job that could not be published are given back with it', async () => {
    const producer = newProducer({ redis: 'redis://127.0.0.1:1' })
    await producer.publish('mail', 1, { stream: 'orders', durability: 'buffered', headers: { tenant: 'a' } })
    const { unpublished } = await producer.close({ timeoutMs: 0 })
    expect(unpublished.map(({ options }) => ({ ...options.headers }))).toEqual([{ tenant: 'a' }])
  })

  const many = Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`h${n}`, '']))
  test.each<[string, unknown, RegExp]>([
    ['a list', ['a'], /^expected `headers` to be an object of texts by name, got an array$/],
    ['a text', 'a=b', /^expected `headers` to be an object of texts by name, got "a=b"$/],
    ['a Map', new Map([['a', 'secret']]), /an object of texts by name, got an object that has none of its own$/],
    ['those of a request', new globalThis.Headers({ a: 'secret' }), /that has none of its own$/],
    ['those of a query', new URLSearchParams('a=secret'), /that has none of its own$/],
    ['a time', new Date(), /that has none of its own$/],
    ['a number', { n: 5 }, /^expected the header `n` to be a text, got number$/],
    ['nothing', { n: undefined }, /^expected the header `n` to be a text, got undefined$/],
    ['a name in capitals', { Tenant: '' }, /^expected the name of a header to be 1 to 64 of a-z, .+, got "Tenant"$/],
    ['an empty name', { '': '' }, /^expected the name of a header/],
    ['a long name', { ['n'.repeat(65)]: '' }, /^expected the name of a header/],
    ['a line break', { n: 'secret\n' }, /^expected the header `n` to be a text without control characters$/],
    ['half a character', { n: '\ud83d' }, /^expected the header `n`/],
    ['33 of them', many, /^expected `headers` to be at most 32, got 33$/],
    ['more than 8 KiB', { n: 'é'.repeat(4096) }, /^expected `headers` to be at most 8192 bytes in all, got more$/],
  ])('that are %s are refused, and nothing is published', async (_what, headers, message) => {
    const producer = newProducer({ redis: redis.url })
    const options = { stream: 'orders', headers: headers as Headers }
    for (const publishing of [producer.publish('mail', 1, options), producer.publishMany('mail', [1], options)]) {
      const error = (await failureOf(publishing)) as Error & { published?: string; code?: string }
      expect([error.code, error.published, error.message]).toEqual(['ERR_OPTION', 'no', expect.stringMatching(message)])
      expect(error.message).not.toContain('secret')
    }
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('of 8 KiB in 32 names are taken', async () => {
    const headers = Object.fromEntries(Array.from({ length: 32 }, (_, n) => [`h${n}`.padEnd(4, '_'), 'x'.repeat(252)]))
    const [job] = await seenBy(() =>
      newProducer({ redis: redis.url }).publish('mail', 1, { stream: 'orders', headers }),
    )
    expect({ ...job?.headers }).toEqual(headers)
  })
})

test('a worker whose jobs have state types it for its handlers', () => {
  const worker = new Worker<{ user: string }>({
    stream: 'orders',
    logger: false,
    handlers: {
      // @ts-expect-error there is no such state
      mail: (_data, job) => void job.state.nobody,
      note: (_data, job) => job.state.user.length,
    },
  })
  // @ts-expect-error the middleware says another type than the handlers
  worker.use(({ state }, next) => ((state.user = 5), next()))
})
