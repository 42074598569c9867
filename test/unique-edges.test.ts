import { describe, expect, test } from 'vitest'
import { defineJob, type PublishOptions } from '../src/index.ts'
import { cancelledKey, uniqueKey } from '../src/redis/keys.ts'
import { append, open } from '../src/redis/publishing.ts'
import { startAll } from '../src/redis/unique.ts'
import { failureOf, newProducer, storedNumbers } from './fixtures/producers.ts'
import { HandWorker, item, publishItem, publishItems, type Taken } from './fixtures/unique.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { pending, startWorker } from './helpers/workers.ts'

/** Unique jobs where something else goes on: refusals, stops, groups that vanish, rewinds, a Redis that was emptied. */

const redis = withRedis()
const publish = (n: unknown, options: PublishOptions = {}) =>
  newProducer({ redis: redis.url }).publish('x', n, { stream: 'orders', uniqueKey: 'a', timeoutMs: 30_000, ...options })
const put = (n: number, how: Parameters<typeof item>[2] = {}) => publishItem(redis.client, item(n, 'a', how))
const holder = () => redis.client.get(uniqueKey('orders', 'a'))

async function taken(by: HandWorker): Promise<Taken> {
  const one = await by.take()
  if (one === undefined) throw new Error('expected an entry to take, there is none')
  return one
}

test('a key function that throws in the middle ends publishMany there: what was before is told and unique, the rest is not', async () => {
  const key = (n: number) => {
    if (n === 3) throw new Error('no key')
    return `k${n}`
  }
  const job = defineJob('x', { stream: 'orders', unique: { key } })
  const error = await failureOf(newProducer({ redis: redis.url }).publishMany(job, [1, 2, 3, 4]))
  expect(error).toMatchObject({ code: 'ERR_OPTION', published: 'no', confirmed: 2 })
  expect(await storedNumbers(redis.client)).toEqual([1, 2])
  const held = await redis.client.keys(uniqueKey('orders', '*'))
  expect(held.sort()).toEqual([uniqueKey('orders', 'k1'), uniqueKey('orders', 'k2')])
  expect(await newProducer({ redis: redis.url }).publishMany(job, [1, 4])).toEqual({ published: 2 })
  expect(await storedNumbers(redis.client)).toEqual([1, 2, 4])
})

describe('a batch of many', () => {
  test('names, scopes and modes is appended in its order, each job with its own fields and its own holder', async () => {
    const named = (name: string, one: ReturnType<typeof item>) => ({
      ...one,
      fields: ['job', name, ...one.fields.slice(2)],
    })
    const ttl = { until: 'ttl' as const, ttlMs: 60_000 }
    const items = [
      item(0, 'a'),
      item(1, 'b'),
      named('y', item(2, 'c')),
      named('y', item(3, 'd', { until: 'started' })),
      named('y', item(4, 'e', { until: 'started', mode: 'replace' })),
      item(5, 'f', { ...ttl, group: 'main' }),
      item(6, 'g', { ...ttl, group: 'mails' }),
      item(7, 'h', { ...ttl, ttlMs: 30_000, group: 'mails' }),
      { fields: ['job', 'x', 'data', '8'] },
      item(9, 'i', { token: 't' }),
      item(10, 'j'),
      item(11, 'k', { due: '+0' }),
      { ...item(12, 'l'), fields: [...item(12, 'l').fields, 'h-from', 'me'] },
      item(13, 'm'),
    ]
    const told = await publishItems(redis.client, items)
    expect(new Set(told.map(({ outcome }) => outcome))).toEqual(new Set(['added']))
    const entries = await redis.client.xrange('orders', '-', '+')
    expect(entries.map(([, fields]) => fields)).toEqual(items.map(({ fields }) => fields))
    expect(entries.map(([id]) => id)).toEqual(told.map(({ id }) => id))
    for (const [at, { unique }] of items.entries()) {
      if (unique === undefined) continue
      const { until, group, ttlMs } = unique
      const scope = { settled: 's', started: 't', ttl: 'l' }[until]
      const text = await redis.client.get(uniqueKey('orders', unique.key))
      expect(text).toMatch(new RegExp(`^${told[at]?.id} ${told[at]?.id} ${scope} ${group || ':'} \\d+$`))
      const leftMs = await redis.client.pttl(uniqueKey('orders', unique.key))
      expect(leftMs).toBeLessThanOrEqual(ttlMs || 2_592_000_000)
      expect(leftMs).toBeGreaterThan((ttlMs || 2_592_000_000) - 20_000)
    }
  })

  test('is refused as a whole where the stream has no room for it, whatever stands before and behind those of a time', async () => {
    await redis.client.hset('{orders}:settings', 'maxBacklog', 6)
    await open(redis.client, 'orders', 'p')
    const later = item(9, 'z', { due: '+3600000' })
    const plain = { fields: ['job', 'x', 'data', '5'] }
    const batch = (...items: Parameters<typeof publishItems>[1]) =>
      append(redis.client, 'orders', { producerId: 'p', seq: 1, items, isChecked: true })
    const many = [item(1, 'a'), item(2, 'b'), item(3, 'c'), later, item(4, 'd', { until: 'ttl', ttlMs: 5000 }), plain]
    expect(await batch(...many, item(6, 'e'), item(7, 'f', { due: '1' }))).toMatchObject({ kind: 'full' })
    expect(await redis.client.exists('orders')).toBe(0)
    expect(await batch(...many, item(6, 'e'))).toMatchObject({ kind: 'done', bound: 6 })
    expect(await storedNumbers(redis.client)).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('is told of a holder as often as it asks, and the holder is kept for another 30 days', async () => {
    const first = await put(1)
    await redis.client.pexpire(uniqueKey('orders', 'a'), 5000)
    const told = await publishItems(redis.client, [item(2, 'a'), item(3, 'a'), item(4, 'b'), item(5, 'b')])
    expect(told.map(({ outcome }) => outcome)).toEqual(['duplicate', 'duplicate', 'added', 'duplicate'])
    expect(told.map(({ id }) => id)).toEqual([first.id, first.id, told[2]?.id, told[2]?.id])
    expect(await redis.client.pttl(uniqueKey('orders', 'a'))).toBeGreaterThan(2_500_000_000)
  })

  test('that replaces one job after the other leaves the last one, and all the others are noted', async () => {
    const by = await new HandWorker(redis.client).join()
    const zeroth = await put(0)
    const told = await publishItems(
      redis.client,
      [1, 2, 3].map((n) => item(n, 'a', { mode: 'replace' })),
    )
    expect(told.map(({ replacedId }) => replacedId)).toEqual([zeroth.id, told[0]?.id, told[1]?.id])
    for (let n = 0; n < 3; n++) await by.drop(await taken(by))
    expect(await taken(by)).toMatchObject({ id: told[2]?.id, n: 3 })
    expect(await put(4)).toEqual({ id: told[2]?.id, outcome: 'duplicate' })
  })
})

describe.each([
  ['has no memory', ['CONFIG', 'SET', 'maxmemory', '1'], ['CONFIG', 'SET', 'maxmemory', '0'], 'OOM'],
  ['is read-only', ['REPLICAOF', '127.0.0.1', '1'], ['REPLICAOF', 'NO', 'ONE'], 'READONLY'],
])('where Redis %s', (_what, [spoil = '', ...spoiling], [mend = '', ...mending], word) => {
  test('a replace is refused, and the job that was there is there still; afterwards it gives way', async () => {
    const { url } = await startServer()
    const client = connectTo(url)
    const by = await new HandWorker(client).join()
    const first = await publishItem(client, item(1, 'a'))
    await open(client, 'orders', 'p')
    const batch = { producerId: 'p', seq: 1, items: [item(2, 'a', { mode: 'replace' })] }
    const before = await client.get(uniqueKey('orders', 'a'))
    await client.call(spoil, ...spoiling)
    await expect(append(client, 'orders', batch)).rejects.toThrow(word)
    await client.call(mend, ...mending)
    expect(await client.get(uniqueKey('orders', 'a'))).toBe(before)
    expect(await client.exists(cancelledKey('orders'))).toBe(0)
    const told = await append(client, 'orders', batch)
    expect(told).toMatchObject({ kind: 'done', ids: [expect.stringMatching(new RegExp(`^~.+/${first.id}$`))] })
    await by.drop(await taken(by))
    expect(await taken(by)).toMatchObject({ n: 2 })
  })
})

test('a job whose group vanished and was made again still holds its key, runs again, and frees it when it is completed', async () => {
  const by = await new HandWorker(redis.client).join()
  const first = await put(1)
  await by.take()
  await redis.client.xgroup('DESTROY', 'orders', 'main')
  expect(await put(2)).toEqual({ id: first.id, outcome: 'duplicate' })
  await by.join()
  const again = await taken(by)
  expect(again.id).toBe(first.id)
  expect(await put(3, { mode: 'replace' })).toEqual({ id: first.id, outcome: 'duplicate' })
  await by.complete(again)
  expect(await holder()).toBeNull()
})

describe('after a rewind', () => {
  const rewind = async (to: string) => {
    const asked = { to, execute: true, force: true }
    await newInspector(redis.url).groups.rewind('orders', 'main', asked)
  }

  test('a job that was completed runs again without its key; another one may hold that, and neither is in the way', async () => {
    const by = await new HandWorker(redis.client).join()
    const first = await put(1)
    await by.complete(await taken(by))
    await rewind(first.id)
    const second = await put(2)
    expect(second.outcome).toBe('added')
    const again = await taken(by)
    expect(again.id).toBe(first.id)
    await by.complete(again)
    expect(await put(3)).toEqual({ id: second.id, outcome: 'duplicate' })
  })

  test('a job that was delivered and not settled holds its key still, and may give way until it is delivered again', async () => {
    const by = await new HandWorker(redis.client).join()
    const first = await put(1)
    await by.take()
    await rewind(first.id)
    expect(await put(2)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await put(3, { mode: 'replace' })).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    const start = { id: (await taken(by)).id, key: undefined }
    expect(start.id).toBe(first.id)
    expect((await startAll(redis.client, by.member, [start])).cancelled.has(start)).toBe(true)
  })
})

test('a worker that stops before Redis has let a job start hands it back: it holds its key, and runs elsewhere', async () => {
  // Of all that such a worker does only the question whether the job may start needs this command.
  await redis.client.call('ACL', 'SETUSER', 'no-type', 'on', '>x', '~*', '&*', '+@all', '-type')
  const url = redis.url.replace('//', '//no-type:x@')
  const began: string[] = []
  const worker = await startWorker({ redis: url, leaseMs: 60_000, handlers: { x: () => void began.push('first') } })
  const first = await publish(1)
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
  await redis.client.call('ACL', 'LOG', 'RESET')
  await eventually(async () => expect(await redis.client.call('ACL', 'LOG')).not.toEqual([]))
  await worker.stop({ drainMs: 0 })
  expect(began).toEqual([])
  expect(await pending(redis.client)).toMatchObject([{ id: first.id, consumer: ':handback', deliveries: 0 }])
  expect(await publish(2, { unique: { mode: 'replace' } })).toEqual({ id: first.id, outcome: 'duplicate' })
  await startWorker({ redis: redis.url, leaseMs: 60_000, handlers: { x: () => void began.push('second') } })
  await eventually(() => expect(began).toEqual(['second']))
  await eventually(async () => expect(await holder()).toBeNull())
})

test('a Redis that is emptied while producers publish: what was told since is there, and each key has one job', async () => {
  const producers = Array.from({ length: 3 }, () => newProducer({ redis: redis.url }))
  let rounds = 0
  let isOver = false
  let isEmptied = false
  const since = new Set<string>()
  const lane = async (at: number) => {
    for (let n = at; !isOver; n++) {
      const wasEmptied = isEmptied
      const options = { stream: 'orders', uniqueKey: `k${n % 20}`, timeoutMs: 30_000 }
      const told = await producers[at % 3]
        ?.publish('x', n, options)
        .catch((error: unknown) => error as { published: string })
      rounds += 1
      if (told !== undefined && 'id' in told) {
        if (wasEmptied) since.add(told.id)
      } else expect(told).toMatchObject({ published: 'unknown' })
    }
  }
  const lanes = Array.from({ length: 9 }, (_, at) => lane(at))
  await eventually(() => expect(rounds).toBeGreaterThan(300))
  await redis.client.flushall()
  isEmptied = true
  const from = rounds
  await eventually(() => expect(rounds).toBeGreaterThan(from + 300))
  isOver = true
  await Promise.all(lanes)
  const entries = await redis.client.xrange('orders', '-', '+')
  const keys = entries.map(([, fields]) => fields[5])
  expect(new Set(keys).size).toBe(keys.length)
  const ids = new Set(entries.map(([id]) => id))
  expect([...since].filter((id) => !ids.has(id))).toEqual([])
  for (const [id, fields] of entries) {
    expect(await redis.client.get(uniqueKey('orders', fields[5] ?? ''))).toMatch(new RegExp(`^${id} `))
  }
})
