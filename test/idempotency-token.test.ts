import type { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import type { Producer, PublishOptions } from '../src/index.ts'
import { producerKey, scheduledKey, settingsKey, tokenKey } from '../src/redis/keys.ts'
import { append, fateOf, open, type Appended, type Item } from '../src/redis/publishing.ts'
import { failureOf, newProducer, storedNumbers } from './fixtures/producers.ts'
import { isTokenBatch, loadTokenScript } from './fixtures/tokens.ts'
import { eventually } from './helpers/eventually.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()
const TTL_MS = 60_000
const PAST = 1_000
const IN_AN_HOUR = '+3600000'

/** A job that is a number, with a token. */
function item(n: number, token?: string, more: { ttlMs?: number; due?: string } = {}): Item {
  const { ttlMs = TTL_MS, due } = more
  const fields = ['job', 'x', 'data', String(n)]
  return { fields, due, token: token === undefined ? undefined : { text: token, ttlMs } }
}

/** Sends one batch as producer `producerId`, which is made for its first. */
async function send(seq: number, items: readonly Item[], { producerId = 'p', client = redis.client } = {}) {
  if (seq === 1) await open(client, 'orders', producerId)
  return append(client, 'orders', { producerId, seq, items })
}

/** What became of each item. */
function fates(answer: Appended): ({ id: string; outcome: string } | undefined)[] {
  if (answer.kind !== 'done') throw new Error(`expected a batch that is done, got ${answer.kind}`)
  return answer.ids.map((id) => (id === undefined ? undefined : fateOf(id)))
}

const outcomes = (answer: Appended) => fates(answer).map((fate) => fate?.outcome)

const token = (client: Redis, text: string) => client.get(tokenKey('orders', text))

describe('a job with a token', () => {
  test('is appended, and the token is the id of the job for as long as it was asked for', async () => {
    const [fate] = fates(await send(1, [item(1, 'a', { ttlMs: 90_000 })]))

    expect(fate?.outcome).toBe('added')
    expect(await token(redis.client, 'a')).toBe(fate?.id)
    expect(await redis.client.pttl(tokenKey('orders', 'a'))).toSatisfy((ms: number) => ms > 60_000 && ms <= 90_000)
  })

  test('that another producer has published is not appended: the answer is the id of the first', async () => {
    const [first] = fates(await send(1, [item(1, 'a')]))
    const [second] = fates(await send(1, [item(2, 'a')], { producerId: 'q' }))

    expect(second).toEqual({ id: first?.id, outcome: 'duplicate' })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })

  test('that is twice in one batch is appended once, and its neighbours in their order', async () => {
    const answer = await send(1, [item(1), item(2, 'a'), item(3), item(4, 'a'), item(5, 'b'), item(6)])

    const all = fates(answer)
    expect(outcomes(answer)).toEqual(['added', 'added', 'added', 'duplicate', 'added', 'added'])
    expect(all[3]?.id).toBe(all[1]?.id)
    expect(await storedNumbers(redis.client)).toEqual([1, 2, 3, 5, 6])
  })

  test('is appended anew once its token has expired', async () => {
    await send(1, [item(1, 'a')])
    await redis.client.pexpire(tokenKey('orders', 'a'), 1)
    await eventually(async () => expect(await token(redis.client, 'a')).toBeNull())

    expect(outcomes(await send(2, [item(2, 'a')]))).toEqual(['added'])
    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('does not prolong the life of its token by being published again', async () => {
    await send(1, [item(1, 'a')])
    await redis.client.pexpire(tokenKey('orders', 'a'), 5_000)
    await send(2, [item(2, 'a')])

    expect(await redis.client.pttl(tokenKey('orders', 'a'))).toBeLessThanOrEqual(5_000)
  })

  test('is a duplicate on its own stream only', async () => {
    await send(1, [item(1, 'a')])
    await open(redis.client, 'invoices', 'p')
    const answer = await append(redis.client, 'invoices', { producerId: 'p', seq: 1, items: [item(2, 'a')] })

    expect(outcomes(answer)).toEqual(['added'])
  })

  test.each(['a:b', '{x}', '}', 'x'.repeat(200), '!', '=1-1', '@1-1', 'orders:settings'])(
    'may be named %j, and no other key is touched',
    async (text) => {
      await send(1, [item(1, text)])

      expect(outcomes(await send(2, [item(2, text)]))).toEqual(['duplicate'])
      const keys = await redis.client.keys('*')
      expect(keys.sort()).toEqual(['orders', producerKey('orders', 'p'), tokenKey('orders', text)].sort())
    },
  )
})

describe('a job for later with a token', () => {
  test('is scheduled once, whoever publishes it again, for now or for later', async () => {
    const [first] = fates(await send(1, [item(1, 'a', { due: IN_AN_HOUR })]))
    const again = fates(await send(2, [item(2, 'a', { due: IN_AN_HOUR }), item(3, 'a')]))

    expect(first?.outcome).toBe('scheduled')
    expect(again).toEqual([
      { id: first?.id, outcome: 'duplicate' },
      { id: first?.id, outcome: 'duplicate' },
    ])
    expect(await redis.client.zcard(scheduledKey('orders'))).toBe(1)
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('is not scheduled where the job is in the stream already', async () => {
    const [first] = fates(await send(1, [item(1, 'a')]))
    const again = fates(await send(2, [item(2, 'a', { due: IN_AN_HOUR })]))

    expect(again).toEqual([{ id: first?.id, outcome: 'duplicate' }])
    expect(await redis.client.exists(scheduledKey('orders'))).toBe(0)
  })

  test('whose time is over is in the stream, once', async () => {
    expect(outcomes(await send(1, [item(1, 'a', { due: String(PAST) })]))).toEqual(['added'])
    expect(outcomes(await send(2, [item(2, 'a', { due: String(PAST) })]))).toEqual(['duplicate'])
    expect(await storedNumbers(redis.client)).toEqual([1])
  })
})

describe('a batch with tokens', () => {
  test('that is sent again answers as the first time, not with duplicates', async () => {
    const first = await send(1, [item(1, 'a'), item(2, 'a'), item(3)])
    const second = await send(1, [item(1, 'a'), item(2, 'a'), item(3)])

    expect(fates(second)).toEqual(fates(first))
    expect(await storedNumbers(redis.client)).toEqual([1, 3])
  })

  test('whose answer Redis has forgotten is safe to publish under a new producer: nothing is doubled', async () => {
    const first = fates(await send(1, [item(1, 'a'), item(2, 'b')]))
    await redis.client.del(producerKey('orders', 'p'))
    expect(
      await append(redis.client, 'orders', { producerId: 'p', seq: 1, items: [item(1, 'a'), item(2, 'b')] }),
    ).toEqual({ kind: 'forgotten' })
    const again = fates(await send(1, [item(1, 'a'), item(2, 'b')], { producerId: 'q' }))

    expect(again).toEqual(first.map((fate) => ({ id: fate?.id, outcome: 'duplicate' })))
    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('of two producers at once appends each token once', async () => {
    const tokens = Array.from({ length: 100 }, (_, n) => `t${n}`)
    const clients = ['p', 'q', 'r'].map((producerId) => ({ producerId, client: redis.connect() }))
    for (const by of clients) await open(by.client, 'orders', by.producerId)
    const all = await Promise.all(
      clients.map(async (by, at) => {
        const ids = new Map<string, string>()
        for (let seq = 1; seq <= 10; seq++) {
          // Each in an order of its own, so that each is first with some.
          const names = Array.from(
            { length: 10 },
            (_, n) => tokens[((seq * 10 + n) * ([1, 3, 7][at] ?? 1)) % 100] ?? '',
          )
          const items = names.map((name) => item(Number(name.slice(1)), name))
          const answer = fates(await append(by.client, 'orders', { producerId: by.producerId, seq, items }))
          answer.forEach((fate, n) => ids.set(names[n] ?? '', fate?.id ?? ''))
        }
        return ids
      }),
    )

    expect((await storedNumbers(redis.client)).sort((a, b) => a - b)).toEqual(tokens.map((_, n) => n))
    for (const name of tokens) expect(new Set(all.map((ids) => ids.get(name))).size).toBe(1)
  })

  test('that is too much for the bound of its stream leaves no token behind', async () => {
    await redis.client.hset(settingsKey('orders'), 'maxBacklog', 1)
    await open(redis.client, 'orders', 'p')
    const items = [item(1, 'a'), item(2, 'b')]
    const answer = await append(redis.client, 'orders', { producerId: 'p', seq: 1, items, isChecked: true })

    expect(answer).toEqual({ kind: 'full', backlog: 0, bound: 1 })
    expect(await token(redis.client, 'a')).toBeNull()
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('that Redis has no memory for leaves no token behind, and goes in later', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await open(client, 'orders', 'p')
    await client.config('SET', 'maxmemory', '1')
    await expect(append(client, 'orders', { producerId: 'p', seq: 1, items: [item(1, 'a')] })).rejects.toThrow('OOM')
    expect(await token(client, 'a')).toBeNull()

    await client.config('SET', 'maxmemory', '0')
    const answer = await append(client, 'orders', { producerId: 'p', seq: 1, items: [item(1, 'a')] })
    expect(outcomes(answer)).toEqual(['added'])
  })
})

describe('what is not a token', () => {
  test('a key of another type in its place: this job is refused, the others are appended, the key stays', async () => {
    await redis.client.hset(tokenKey('orders', 'a'), 'some', 'thing')
    const answer = await send(1, [item(1), item(2, 'a'), item(3, 'b')])

    expect(outcomes(answer)).toEqual(['added', undefined, 'added'])
    expect(await storedNumbers(redis.client)).toEqual([1, 3])
    expect(await redis.client.hget(tokenKey('orders', 'a'), 'some')).toBe('thing')
  })

  test('a token that we may not write: its job is refused, for another publish could not know of it', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await open(client, 'orders', 'p')
    await client.acl('SETUSER', 'app', 'on', '>secret', '~*', '+@all', '-set')
    const app = connectTo(server.url.replace('//', '//app:secret@'))
    const answer = await append(app, 'orders', { producerId: 'p', seq: 1, items: [item(1, 'a'), item(2)] })

    expect(outcomes(answer)).toEqual([undefined, 'added'])
    expect(await storedNumbers(client)).toEqual([2])
  })

  test('a user who may not schedule is refused before anything is written, and leaves no token behind', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await open(client, 'orders', 'p')
    await client.acl('SETUSER', 'app', 'on', '>secret', '~*', '+@all', '-zadd')
    const app = connectTo(server.url.replace('//', '//app:secret@'))
    const items = [item(1), { ...item(2, 'a'), due: '+60000' }]
    await expect(append(app, 'orders', { producerId: 'p', seq: 1, items })).rejects.toThrow(/NOPERM|run this command/)

    expect(await storedNumbers(client)).toEqual([])
    expect(await token(client, 'a')).toBeNull()
    expect(outcomes(await append(client, 'orders', { producerId: 'p', seq: 1, items }))).toEqual(['added', 'scheduled'])
  })

  test('a token without a job, as a script that ended in its middle leaves it, is as none', async () => {
    await redis.client.set(tokenKey('orders', 'a'), '')

    expect(outcomes(await send(1, [item(1, 'a')]))).toEqual(['added'])
  })

  test('a job that Redis refuses to append leaves no token behind, so that it can be published later', async () => {
    await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'last')

    expect(outcomes(await send(1, [item(1, 'a')]))).toEqual([undefined])
    expect(await token(redis.client, 'a')).toBeNull()
  })
})

describe('a publish with a token', () => {
  const publish = (producer: Producer, n: number, idempotencyToken: string, more: PublishOptions = {}) =>
    producer.publish('x', n, { stream: 'orders', timeoutMs: 30_000, ...more, idempotencyToken })

  test('that another producer publishes at the same time is one job, and both have its id', async () => {
    const producers = Array.from({ length: 3 }, () => newProducer({ redis: redis.url }))
    const tokens = Array.from({ length: 200 }, (_, n) => `t${n}`)
    const all = await Promise.all(
      producers.map((producer) => Promise.all(tokens.map((text, n) => publish(producer, n, text)))),
    )

    expect((await storedNumbers(redis.client)).sort((a, b) => a - b)).toEqual(tokens.map((_, n) => n))
    for (const n of tokens.keys()) {
      const results = all.map((of) => of[n])
      expect(new Set(results.map((result) => result?.id)).size).toBe(1)
      expect(results.map((result) => result?.outcome).sort()).toEqual(['added', 'duplicate', 'duplicate'])
    }
  })

  test('whose answer is lost is sent again, and told as what it is: added', async () => {
    await loadTokenScript(redis.client)
    const proxy = await startProxy(redis.url)
    const producer = newProducer({ redis: proxy.url })
    const swallowed = proxy.swallowReplyTo(isTokenBatch, 2)
    const results = await Promise.all([publish(producer, 1, 'a'), publish(producer, 2, 'a'), publish(producer, 3, 'b')])
    await swallowed

    expect(results.map(({ outcome }) => outcome)).toEqual(['added', 'duplicate', 'added'])
    expect(await storedNumbers(redis.client)).toEqual([1, 3])
  })

  test.each(['executed', 'not executed'])(
    'that failed with `unknown`, and was %s, is safe to publish again: the job is there once',
    async (fate) => {
      await loadTokenScript(redis.client)
      const proxy = await startProxy(redis.url)
      const producer = newProducer({ redis: proxy.url })
      const batch = proxy.holdBefore(isTokenBatch)
      const failure = failureOf(publish(producer, 1, 'a', { timeoutMs: 300 }))
      await batch.held
      const error = await failure
      if (fate === 'executed') {
        batch.release()
        await eventually(async () => expect(await storedNumbers(redis.client)).toEqual([1]))
      }
      const again = await publish(newProducer({ redis: redis.url }), 1, 'a')
      // What was on its way may still arrive after that.
      batch.release()
      await eventually(async () => expect(await batches()).toBe(2))

      expect(error.published).toBe('unknown')
      expect(again.outcome).toBe(fate === 'executed' ? 'duplicate' : 'added')
      expect(await storedNumbers(redis.client)).toEqual([1])
    },
  )

  test('that failed with `no` is added when it is published again', async () => {
    const server = await startServer()
    await server.kill()
    const producer = newProducer({ redis: server.url })
    const error = await failureOf(publish(producer, 1, 'a', { timeoutMs: 100 }))
    await server.restart()

    expect(error.published).toBe('no')
    expect((await publish(producer, 1, 'a')).outcome).toBe('added')
  })

  test('for later is one scheduled job', async () => {
    const producer = newProducer({ redis: redis.url })
    const first = await publish(producer, 1, 'a', { delayMs: 3_600_000 })
    const again = await publish(producer, 1, 'a', { delayMs: 3_600_000 })

    expect([first.outcome, again]).toEqual(['scheduled', { id: first.id, outcome: 'duplicate' }])
    expect(await redis.client.zcard(scheduledKey('orders'))).toBe(1)
  })

  test('is remembered for a day, or for as long as it says', async () => {
    const producer = newProducer({ redis: redis.url })
    await publish(producer, 1, 'a')
    await publish(producer, 2, 'b', { tokenTtlMs: 5_000 })

    expect(await redis.client.pttl(tokenKey('orders', 'a'))).toBeGreaterThan(86_000_000)
    expect(await redis.client.pttl(tokenKey('orders', 'b'))).toBeLessThanOrEqual(5_000)
  })

  test.each<[PublishOptions, string]>([
    [{ idempotencyToken: '' }, 'expected `idempotencyToken` to be 1 to 200 visible ASCII characters'],
    [{ idempotencyToken: 'a b' }, 'visible ASCII'],
    [{ idempotencyToken: 'x'.repeat(201) }, 'visible ASCII'],
    [{ idempotencyToken: 'a', tokenTtlMs: 999 }, 'expected `tokenTtlMs` to be an integer of 1000 or more'],
    [{ tokenTtlMs: 5_000 }, 'only with an `idempotencyToken`'],
  ])('that is none is refused before anything is sent: %j', async (options, text) => {
    const error = await failureOf(newProducer({ redis: redis.url }).publish('x', 1, { stream: 'orders', ...options }))

    expect(error).toMatchObject({ code: 'ERR_OPTION', published: 'no' })
    expect(error.message).toContain(text)
    expect(await redis.client.keys('*')).toEqual([])
  })
})

/** Batches that were executed, by what their producers remember. */
async function batches(): Promise<number> {
  const keys = await redis.client.keys('{orders}:producer:*')
  const numbers = await Promise.all(keys.map((key) => redis.client.hget(key, 'seq')))
  return numbers.filter((seq) => seq === '1').length
}
