import { describe, expect, test } from 'vitest'
import { redriveBatch } from '../src/redis/dead.ts'
import {
  cancelledKey,
  deadKey,
  groupScheduledKey,
  producerKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  tokenKey,
  uniqueKey,
} from '../src/redis/keys.ts'
import { append, open, type UniqueItem } from '../src/redis/publishing.ts'
import { startAll } from '../src/redis/unique.ts'
import { storedNumbers } from './fixtures/producers.ts'
import { cancel, comeDue, fates, HandWorker, IN_AN_HOUR, item, publishItem, publishItems } from './fixtures/unique.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()
const HOUR_MS = 3_600_000
const publish = (n: number, how: Parameters<typeof item>[2] = {}) => publishItem(redis.client, item(n, 'a', how))
const worker = (group?: string) => new HandWorker(redis.client, group).join()
const holder = () => redis.client.get(uniqueKey('orders', 'a'))

async function taken(by: HandWorker) {
  const one = await by.take()
  if (one === undefined) throw new Error('expected an entry to take, there is none')
  return one
}

/** What is scheduled for later: due times by id. */
async function later(): Promise<Map<string, number>> {
  const flat = await redis.client.zrange(scheduledKey('orders'), '0', '-1', 'WITHSCORES')
  return new Map(flat.flatMap((id, at) => (at % 2 === 0 ? [[id, Number(flat[at + 1])] as const] : [])))
}

const SCOPES: [string, Partial<UniqueItem>][] = [
  ['until-settled', { until: 'settled' }],
  ['until-started', { until: 'started' }],
  ['ttl', { until: 'ttl', ttlMs: HOUR_MS }],
]

describe.each(SCOPES)('with the scope %s', (_, how) => {
  test('a job that waits refuses another, which is told its id', async () => {
    const first = await publish(1, how)
    expect(first.outcome).toBe('added')
    expect(await publish(2, how)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })

  test('a job that is scheduled refuses another', async () => {
    const first = await publish(1, { ...how, due: IN_AN_HOUR })
    expect(await publish(2, how)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await publish(3, { ...how, due: IN_AN_HOUR })).toEqual({ id: first.id, outcome: 'duplicate' })
    expect((await later()).size).toBe(1)
  })

  test('a job that came due keeps its key under its id, which is not that of its entry', async () => {
    const first = await publish(1, { ...how, due: IN_AN_HOUR })
    await comeDue(redis.client, first.id)
    expect(await publish(2, how)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })

  test('a job that waits gives way to one that replaces it, and is not run', async () => {
    const by = await worker()
    const first = await publish(1, how)
    const second = await publish(2, { ...how, mode: 'replace' })
    expect(second).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    await by.drop(await taken(by))
    expect(await publish(3, how)).toEqual({ id: second.id, outcome: 'duplicate' })
  })

  test('a job that is scheduled gives way to one that replaces it', async () => {
    const first = await publish(1, { ...how, due: IN_AN_HOUR })
    const second = await publish(2, { ...how, mode: 'replace' })
    expect(second).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    expect((await later()).size).toBe(0)
    expect(await redis.client.exists(scheduledJobsKey('orders'))).toBe(0)
    expect(await storedNumbers(redis.client)).toEqual([2])
  })

  test('a job that was delivered does not give way', async () => {
    const by = await worker()
    const first = await publish(1, how)
    await by.take()
    for (const mode of ['reject', 'replace', 'debounce'] as const) {
      expect(await publish(2, { ...how, mode, due: IN_AN_HOUR })).toEqual({ id: first.id, outcome: 'duplicate' })
    }
    expect((await later()).size).toBe(0)
  })

  test('a debounced job takes over the payload and the time of the last, under the id of the first', async () => {
    const first = await publish(1, { ...how, mode: 'debounce', due: IN_AN_HOUR })
    const [before] = (await later()).values()
    const second = await publish(2, { ...how, mode: 'debounce', due: '+7200000' })
    const [[id, due]] = [...(await later())] as [[string, number]]
    expect(first.outcome).toBe('scheduled')
    expect(second).toEqual({ id: first.id, outcome: 'replaced' })
    expect(id).toBe(first.id)
    expect(due).toBeGreaterThanOrEqual((before ?? 0) + HOUR_MS)
    await comeDue(redis.client, first.id)
    expect(await storedNumbers(redis.client)).toEqual([2])
    expect(await (await worker()).take()).toMatchObject({ id: first.id, n: 2 })
  })

  test('a debounced job that came due, and waits, gives way to the next', async () => {
    const first = await publish(1, { ...how, mode: 'debounce', due: IN_AN_HOUR })
    await comeDue(redis.client, first.id)
    const second = await publish(2, { ...how, mode: 'debounce', due: IN_AN_HOUR })
    expect(second).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    expect([...(await later()).keys()]).toEqual([second.id])
    const by = await worker()
    await by.drop(await taken(by))
    await comeDue(redis.client, second.id)
    expect(await by.take()).toMatchObject({ id: second.id, n: 2 })
  })

  test('a job that died frees its key', async () => {
    const by = await worker()
    await publish(1, how)
    await by.die(await taken(by))
    expect(await holder()).toBeNull()
    expect((await publish(2, how)).outcome).toBe('added')
  })

  test('a job that was cancelled frees its key, where it waits, where it is scheduled and where it runs', async () => {
    const by = await worker()
    await cancel(redis.client, (await publish(1, { ...how, due: IN_AN_HOUR })).id)
    const second = await publish(2, how)
    expect(second.outcome).toBe('added')
    await cancel(redis.client, second.id)
    const third = await publish(3, how)
    expect(third.outcome).toBe('added')
    await by.drop(await taken(by))
    await by.take()
    await cancel(redis.client, third.id)
    expect((await publish(4, how)).outcome).toBe('added')
  })

  test('a job that was cancelled while it waits for another attempt frees its key, and no key of another job', async () => {
    const by = await worker()
    const first = await publish(1, how)
    await by.retry(await taken(by))
    await cancel(redis.client, first.id)
    const second = await publish(2, how)
    expect(second.outcome).toBe('added')
    await by.retry(await taken(by))
    await redis.client.del(uniqueKey('orders', 'a'))
    const third = await publish(3, how)
    await cancel(redis.client, second.id)
    expect(await publish(4, how)).toEqual({ id: third.id, outcome: 'duplicate' })
  })

  test('a job whose key was deleted holds it no more', async () => {
    await publish(1, how)
    await redis.client.del(uniqueKey('orders', 'a'))
    expect((await publish(2, how)).outcome).toBe('added')
  })
})

describe.each(SCOPES.slice(0, 2))('with the scope %s, which ends with the job', (_, how) => {
  test('a job that was deleted from the stream frees its key, delivered or not', async () => {
    const by = await worker()
    const first = await publish(1, how)
    await redis.client.xdel('orders', first.id)
    const second = await publish(2, how)
    expect(second.outcome).toBe('added')
    await by.take()
    await redis.client.xdel('orders', second.id)
    const third = await publish(3, how)
    expect(third.outcome).toBe('added')
    await redis.client.del('orders')
    expect((await publish(4, how)).outcome).toBe('added')
  })

  test('a job that is completed frees its key, also behind its id of a schedule', async () => {
    const by = await worker()
    await publish(1, how)
    await by.complete(await taken(by))
    expect(await holder()).toBeNull()
    const second = await publish(2, { ...how, due: IN_AN_HOUR })
    await comeDue(redis.client, second.id)
    await by.complete(await taken(by))
    expect(await holder()).toBeNull()
    expect((await publish(3, how)).outcome).toBe('added')
  })

  test('a job that is settled behind the back of its key is no holder', async () => {
    const by = await worker()
    const first = await publish(1, how)
    await by.take()
    await redis.client.xack('orders', 'main', first.id)
    expect(await holder()).not.toBeNull()
    expect((await publish(2, how)).outcome).toBe('added')
  })
})

describe('a job that is tried again', () => {
  test('holds its key while it waits for its time, and when it is delivered again', async () => {
    const by = await worker()
    const first = await publish(1)
    await by.retry(await taken(by))
    expect(await publish(2)).toEqual({ id: first.id, outcome: 'duplicate' })
    await by.wake(first.id)
    expect(await publish(2)).toEqual({ id: first.id, outcome: 'duplicate' })
    const again = await taken(by)
    expect(again.source).toBe(1)
    expect(await publish(2, { mode: 'replace' })).toEqual({ id: first.id, outcome: 'duplicate' })
    await by.complete(again)
    expect(await holder()).toBeNull()
  })

  test.each([false, true])('gives way while it waits (due: %s), and is then dropped at once', async (isDue) => {
    const by = await worker()
    const first = await publish(1)
    await by.retry(await taken(by))
    if (isDue) await by.wake(first.id)
    expect(await publish(2, { mode: 'replace' })).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    if (!isDue) {
      const due = Number(await redis.client.zscore(groupScheduledKey('orders', 'main'), first.id))
      expect(due).toBeLessThanOrEqual(Date.now())
      await by.wake(first.id)
    }
    await by.complete(await taken(by).then(async (one) => (await by.drop(one), await taken(by))))
    expect(await holder()).toBeNull()
  })

  test('from its dead letter does not hold its key again', async () => {
    const by = await worker()
    const first = await publish(1)
    await by.die(await taken(by))
    const [deadId = ''] = (await redis.client.xrange(deadKey('orders', 'main'), '-', '+')).map(([id]) => id)
    const place = { stream: 'orders', group: 'main' }
    expect(await redriveBatch(redis.client, place, [{ deadId, id: first.id }])).toEqual(['moved'])
    const second = await publish(2)
    expect(second.outcome).toBe('added')
    await by.complete(await taken(by))
    expect(await publish(3)).toEqual({ id: second.id, outcome: 'duplicate' })
  })
})

describe('a holder', () => {
  test('whose group was removed on purpose is none, and one whose group merely vanished is one still', async () => {
    await worker()
    const first = await publish(1, { group: 'main' })
    await redis.client.xgroup('DESTROY', 'orders', 'main')
    expect(await publish(2, { group: 'main' })).toEqual({ id: first.id, outcome: 'duplicate' })
    await redis.client.hset(settingsKey('orders'), 'removed:main', first.id)
    expect((await publish(3, { group: 'main' })).outcome).toBe('added')
  })

  test('that died while nothing let go of its key is none', async () => {
    const by = await worker()
    const how = { until: 'ttl' as const, ttlMs: HOUR_MS }
    await publish(1, how)
    const before = (await holder()) ?? ''
    await by.die(await taken(by))
    await redis.client.set(uniqueKey('orders', 'a'), before)
    expect((await publish(2, how)).outcome).toBe('added')
  })

  test('that is started lets go of its own key only, and only for its own group', async () => {
    const by = await worker()
    const first = await publish(1, { until: 'started', group: 'main' })
    await startAll(redis.client, { ...by.member, group: 'mails' }, [{ id: first.id, key: 'a' }])
    await startAll(redis.client, by.member, [{ id: '1-1', key: 'a' }])
    expect(await holder()).not.toBeNull()
    await startAll(redis.client, by.member, [{ id: first.id, key: 'a' }])
    expect(await holder()).toBeNull()
  })

  test('stays the holder when a job that had its key before comes due', async () => {
    const first = await publish(1, { due: IN_AN_HOUR })
    await redis.client.del(uniqueKey('orders', 'a'))
    const second = await publish(2)
    const before = await holder()
    await comeDue(redis.client, first.id)
    expect(await holder()).toBe(before)
    expect(await publish(3)).toEqual({ id: second.id, outcome: 'duplicate' })
  })

  test('that is asked for is remembered for another 30 days from its time', async () => {
    await publish(1, { due: IN_AN_HOUR })
    await redis.client.pexpire(uniqueKey('orders', 'a'), 5000)
    await publish(2)
    expect(await redis.client.pttl(uniqueKey('orders', 'a'))).toBeGreaterThan(2_592_000_000)
  })
})

describe('a time of its own', () => {
  test('outlives the completion of the job, and ends by itself', async () => {
    const by = await worker()
    const first = await publish(1, { until: 'ttl', ttlMs: HOUR_MS })
    await by.complete(await taken(by))
    expect(await publish(2)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await publish(2, { mode: 'replace' })).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await redis.client.pttl(uniqueKey('orders', 'a'))).toBeLessThanOrEqual(HOUR_MS)
    await redis.client.pexpire(uniqueKey('orders', 'a'), 1)
    await eventually(async () => expect(await holder()).toBeNull())
    expect((await publish(3)).outcome).toBe('added')
  })

  test('is not prolonged by a publish that is put in the place of the first', async () => {
    const how = { until: 'ttl' as const, ttlMs: HOUR_MS, mode: 'debounce' as const, due: '+1000' }
    await publish(1, how)
    await redis.client.pexpire(uniqueKey('orders', 'a'), 5000)
    await publish(2, how)
    expect(await redis.client.pttl(uniqueKey('orders', 'a'))).toBeLessThanOrEqual(5000)
  })
})

describe('a debounced job', () => {
  test('is due at most maxWaitMs after its first publish, however often it is put off', async () => {
    const how = { mode: 'debounce' as const, due: IN_AN_HOUR, maxWaitMs: HOUR_MS + 1000 }
    const first = await publish(1, how)
    const bornMs = Number(first.id.split('-')[0])
    await publish(2, { ...how, due: '+36000000' })
    expect([...(await later()).values()]).toEqual([bornMs + HOUR_MS + 1000])
  })

  test('is due at most maxWaitMs after its own first publish, where that alone is longer', async () => {
    const first = await publish(1, { mode: 'debounce', due: IN_AN_HOUR, maxWaitMs: 5000 })
    expect([...(await later()).values()]).toEqual([Number(first.id.split('-')[0]) + 5000])
  })

  test('keeps its bound where it came due and gave way to the next', async () => {
    const how = { mode: 'debounce' as const, due: IN_AN_HOUR, maxWaitMs: HOUR_MS }
    const first = await publish(1, how)
    await comeDue(redis.client, first.id)
    const second = await publish(2, { ...how, due: '+36000000' })
    expect(second).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    expect([...(await later()).values()]).toEqual([Number(first.id.split('-')[0]) + HOUR_MS])
  })
})

describe('groups', () => {
  test('of which there are several: a job that names none is refused, and its neighbours are appended', async () => {
    await worker()
    await worker('mails')
    const all = await publishItems(redis.client, [
      item(1, 'a'),
      { fields: ['job', 'x', 'data', '2'] },
      item(3, 'b', { group: 'mails' }),
      item(4, 'c', { until: 'ttl', ttlMs: HOUR_MS }),
    ])
    expect(all).toMatchObject(['!groups', { outcome: 'added' }, { outcome: 'added' }, { outcome: 'added' }])
    expect(await storedNumbers(redis.client)).toEqual([2, 3, 4])
  })

  test('the one that is named settles it, and no other', async () => {
    const [main, mails] = [await worker(), await worker('mails')]
    const first = await publish(1, { group: 'main' })
    await mails.complete(await taken(mails))
    expect(await publish(2, { group: 'main' })).toEqual({ id: first.id, outcome: 'duplicate' })
    await main.complete(await taken(main))
    expect(await holder()).toBeNull()
    const third = await publish(3, { group: 'main' })
    await mails.die(await taken(mails))
    expect(await publish(4, { group: 'main' })).toEqual({ id: third.id, outcome: 'duplicate' })
  })

  test('where there is none yet: whichever comes settles it', async () => {
    const first = await publish(1)
    const [main, mails] = [await worker(), await worker('mails')]
    expect(await publish(2, { group: 'main' })).toEqual({ id: first.id, outcome: 'duplicate' })
    await main.take()
    await mails.complete(await taken(mails))
    expect(await holder()).toBeNull()
    expect((await publish(2, { group: 'main' })).outcome).toBe('added')
  })

  test('a job gives way in its own group only', async () => {
    const [main, mails] = [await worker(), await worker('mails')]
    const first = await publish(1, { group: 'main' })
    expect(await publish(2, { group: 'main', mode: 'replace' })).toMatchObject({ replacedId: first.id })
    expect(await redis.client.zrange(cancelledKey('orders'), '0', '-1')).toEqual([`${first.id} main`])
    await main.drop(await taken(main))
    await mails.complete(await taken(mails))
  })
})

test('a key that differs from another by a space behind it is another one', async () => {
  const spaced = (n: number) => publishItem(redis.client, item(n, 'a '))
  const first = await spaced(1)
  expect((await publish(2)).outcome).toBe('added')
  expect(await spaced(3)).toEqual({ id: first.id, outcome: 'duplicate' })
})

describe('a batch', () => {
  test('with one key twice: the second is a duplicate of the first, or takes its place', async () => {
    const [one, two, three] = await publishItems(redis.client, [
      item(1, 'a'),
      item(2, 'a'),
      item(3, 'a', { mode: 'replace' }),
    ])
    expect(two).toEqual({ id: one?.id, outcome: 'duplicate' })
    expect(three).toMatchObject({ outcome: 'replaced', replacedId: one?.id })
  })

  test('that is sent again is answered as the first time', async () => {
    await open(redis.client, 'orders', 'p')
    const debounce = { mode: 'debounce' as const, due: IN_AN_HOUR }
    const batch = {
      producerId: 'p',
      seq: 1,
      items: [item(1, 'a'), item(2, 'a', { mode: 'replace' }), item(3, 'b', debounce), item(4, 'b', debounce)],
    }
    const first = fates(await append(redis.client, 'orders', batch))
    expect(fates(await append(redis.client, 'orders', batch))).toEqual(first)
    expect(first.map((fate) => (typeof fate === 'string' ? fate : fate.outcome))).toEqual([
      'added',
      'replaced',
      'scheduled',
      'replaced',
    ])
    expect(await storedNumbers(redis.client)).toEqual([1, 2])
    expect((await later()).size).toBe(1)
  })

  test('with a token besides: the token answers first, and remembers what the key said', async () => {
    const first = await publish(1, { token: 't' })
    expect(await publish(2, { token: 't', mode: 'replace' })).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await publish(3, { token: 'u' })).toEqual({ id: first.id, outcome: 'duplicate' })
    await redis.client.del(uniqueKey('orders', 'a'))
    expect(await publish(3, { token: 'u' })).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })

  test('whose key is of another type: its job is refused, with its token, and the others are appended', async () => {
    await redis.client.hset(uniqueKey('orders', 'a'), 'some', 'thing')
    const all = await publishItems(redis.client, [item(1, 'a', { token: 't' }), item(2, 'b')])
    expect(all).toMatchObject(['!', { outcome: 'added' }])
    expect(await redis.client.hget(uniqueKey('orders', 'a'), 'some')).toBe('thing')
    expect(await redis.client.get(tokenKey('orders', 't'))).toBeNull()
  })

  test('that cannot be appended leaves the holder as it was', async () => {
    const first = await publish(1)
    await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'last')
    expect(await publish(2, { mode: 'replace' })).toBe('!')
    expect(await publish(3)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await redis.client.zcard(cancelledKey('orders'))).toBe(0)
  })

  test('that is to replace a job while too many are noted as cancelled is refused, and takes nothing away', async () => {
    const first = await publish(1)
    const script = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], ARGV[1] + i, i .. '-1') end"
    await redis.client.eval(script, 1, cancelledKey('orders'), Date.now())
    expect(await publish(2, { mode: 'replace' })).toBe('!full')
    expect(await publish(3)).toEqual({ id: first.id, outcome: 'duplicate' })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })

  test('that is to replace a job makes room among the notes of those that were replaced and settled before', async () => {
    const by = await worker()
    await publish(0)
    await by.drop(await taken(by))
    const first = await publish(1)
    const script = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], ARGV[1] + i, i .. '-1 main') end"
    await redis.client.eval(script, 1, cancelledKey('orders'), Date.now() - 200_000)
    expect(await publish(2, { mode: 'replace' })).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    expect(await redis.client.zscore(cancelledKey('orders'), `${first.id} main`)).not.toBeNull()
    expect(await redis.client.zcard(cancelledKey('orders'))).toBe(99_981)
  })

  test.each(['a:b', '{x}', 'a b', '\n', 'ü🚂', '='.repeat(256)])(
    'may have the key %j, and touches no other',
    async (key) => {
      const [first, second] = await publishItems(redis.client, [item(1, key), item(2, key)])
      expect(second).toEqual({ id: first?.id, outcome: 'duplicate' })
      const keys = await redis.client.keys('*')
      expect(keys.filter((name) => !name.startsWith(producerKey('orders', ''))).sort()).toEqual(
        ['orders', uniqueKey('orders', key)].sort(),
      )
      const by = await worker()
      await by.complete(await taken(by))
      expect(await redis.client.exists(uniqueKey('orders', key))).toBe(0)
    },
  )
})
