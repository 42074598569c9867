import { describe, expect, test } from 'vitest'
import { tallySlot } from '../src/redis/entry-id.ts'
import { outcomesKey, redeliveryKey, settingsKey, tallyKey } from '../src/redis/keys.ts'
import { settle, settleAsGone, settleOthers } from '../src/redis/settling.ts'
import { begin, claimStalled, join, leave, readNew } from '../src/redis/stream.ts'
import { DEAD, deadJobs, killJobs } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

const redis = withRedis()
const member = { stream: 'orders', group: 'main', consumer: 'a' }
const WANTED = { startAt: 'oldest', leaseMs: 10_000, maxDeliveries: 3 } as const

const recording = async (on = true): Promise<void> => {
  const change = { groups: { main: { record: on ? ('outcomes' as const) : null } } }
  await newInspector(redis.url).settings.set('orders', change)
}
const keyOf = (id: string): string => outcomesKey('orders', 'main', tallySlot(id).hour)
const keys = (): Promise<string[]> => redis.client.keys('*:outcomes:*')
/** How a job ended, without when. */
const outcomeOf = async (id: string): Promise<string | undefined> =>
  (await redis.client.hget(keyOf(id), id))?.replace(/ \d{13}$/, '')
const goneOf = async (id: string): Promise<number> => {
  const { hour, minute } = tallySlot(id)
  return Number((await redis.client.hget(tallyKey('orders', 'main', hour), `${minute}:gone`)) ?? 0)
}

/** Jobs of these fields, read by the member. */
async function delivered(...jobs: string[][]): Promise<string[]> {
  const ids: string[] = []
  for (const fields of jobs) ids.push((await redis.client.xadd('orders', '*', 'job', 'mail', ...fields)) as string)
  await join(redis.client, member, WANTED)
  await readNew(redis.client, member, { count: 500, blockMs: 1 })
  return ids
}
const complete = (ids: readonly (string | [string, string])[], source: 0 | 1 = 0) => {
  const done = ids.map((id) => (typeof id === 'string' ? { entryId: id, id } : { entryId: id[0], id: id[1] }))
  return settle(redis.client, member, { source, done, resent: false })
}

describe('a group that records outcomes', () => {
  test('names each completed job with when it was, from the moment that it is told to', async () => {
    const [first = '', second = '', third = ''] = await delivered([], [], [])
    await complete([first])
    expect(await keys()).toEqual([])

    await recording()
    const fromMs = await serverMs(redis.client)
    await complete([second])
    const [word, ms] = ((await redis.client.hget(keyOf(second), second)) ?? '').split(' ')
    expect(word).toBe('completed')
    expect(Number(ms)).toBeGreaterThanOrEqual(fromMs)
    expect(await redis.client.pttl(keyOf(second))).toBeGreaterThan(6 * 24 * 3_600_000)

    await recording(false)
    await complete([third])
    expect(await redis.client.hkeys(keyOf(second))).toEqual([second])
  })

  test('names jobs by their own ids, also where an entry has another one', async () => {
    const delayed = `${await serverMs(redis.client)}-1000000000000001`
    const [plain = '', entry = ''] = await delivered([], ['id', delayed])
    await recording()
    await complete([plain, [entry, delayed]])
    expect([await outcomeOf(plain), await outcomeOf(delayed), await outcomeOf(entry)]).toEqual([
      'completed',
      'completed',
      undefined,
    ])
  })

  test('keeps the first outcome: a completion that comes late writes none', async () => {
    const [id = '', other = ''] = await delivered([], [])
    await recording()
    await settleOthers(redis.client, member, {
      source: 0,
      outcomes: [{ kind: 'cancelled', entryId: id, id, deliveries: 1 }],
      resent: false,
    })
    expect(await complete([id, other])).toEqual({ late: 1, skippedLate: 0 })
    expect([await outcomeOf(id), await outcomeOf(other)]).toEqual(['cancelled', 'completed'])
  })

  test('has none for a job that is tried again, and dead, then discarded, for one that is spent', async () => {
    await join(redis.client, member, WANTED)
    await recording()
    const [id = '', other = ''] = await killJobs(redis, 2)
    expect([await outcomeOf(id), await outcomeOf(other)]).toEqual(['dead', 'dead'])
    const inspector = newInspector(redis.url)
    await inspector.dead.purge('orders', 'main', { ids: [id], execute: true })
    expect(await outcomeOf(id)).toBe('discarded')

    await inspector.dead.redrive('orders', 'main', { ids: [other], execute: true })
    expect(await outcomeOf(other)).toBeUndefined()
    await startWorker({ redis: redis.url, handlers: { mail() {} } })
    await eventually(async () => expect(await outcomeOf(other)).toBe('completed'))
  })

  test('names what was cancelled while it was scheduled or dead', async () => {
    const [id = ''] = await delivered([])
    await recording()
    const retry = { kind: 'retry', delayMs: 60_000, attempt: 1, firstFailedMs: undefined, error: 'no' } as const
    await settleOthers(redis.client, member, {
      source: 0,
      outcomes: [{ ...retry, entryId: id, id, deliveries: 1 }],
      resent: false,
    })
    expect(await outcomeOf(id)).toBeUndefined()
    await newInspector(redis.url).cancel('orders', id)
    expect(await outcomeOf(id)).toBe('cancelled')

    const [dead = ''] = await killJobs(redis, 1)
    expect(await deadJobs(redis.client)).toEqual([dead])
    await newInspector(redis.url).cancel('orders', dead)
    expect([await outcomeOf(dead), await redis.client.xlen(DEAD)]).toEqual(['discarded', 0])
  })

  test('keeps a million of an hour and no more, and settles on', async () => {
    const [id = '', other = ''] = await delivered([], [])
    await recording()
    const fill =
      "for n = 1, 1000000, 1000 do local f = {} for i = n, n + 999 do f[#f + 1] = i f[#f + 1] = '' end redis.call('HSET', KEYS[1], unpack(f)) end"
    await redis.client.eval(fill, 1, keyOf(id))
    expect(await complete([id])).toEqual({ late: 0, skippedLate: 0 })
    expect([await redis.client.hlen(keyOf(id)), await outcomeOf(id)]).toEqual([1_000_000, undefined])

    await redis.client.del(keyOf(id))
    await redis.client.set(keyOf(other), 'of another type')
    expect(await complete([other])).toEqual({ late: 0, skippedLate: 0 })
    expect(await redis.client.xpending('orders', 'main')).toEqual([0, null, null, null])
  })

  test('is removed with its records', async () => {
    const [id = ''] = await delivered([])
    await recording()
    await complete([id])
    await leave(redis.client, member)
    await newInspector(redis.url).groups.remove('orders', 'main', { force: true })
    expect(await keys()).toEqual([])
    expect(await redis.client.hgetall(settingsKey('orders'))).not.toHaveProperty('group:main:start')
  })
})

describe('an entry that was deleted while it was pending', () => {
  const claimAll = async () => {
    await redis.client.hset('{orders}:group:main:workers:info', ':beat', await serverMs(redis.client))
    const asked = { mode: 'take', leaseMs: 0, pulseMs: 1000, room: 10, avoided: [] } as const
    return claimStalled(redis.client, member, { ...asked, cursors: { stream: '0-0', redelivery: '0-0' } })
  }

  test('is counted as gone by the worker whose claim comes across it', async () => {
    const worker = await startWorker({ redis: redis.url, leaseMs: 500, handlers: { mail() {} } })
    await recording()
    await worker.stop()
    const id = await add(redis.client, 'mail')
    await redis.client.xreadgroup('GROUP', 'main', 'crashed', 'STREAMS', 'orders', '>')
    await redis.client.xdel('orders', id)
    await startWorker({ redis: redis.url, leaseMs: 500, handlers: { mail() {} } })
    await eventually(async () => expect(await goneOf(id)).toBe(1))
    expect(await outcomeOf(id)).toBe('gone')
    expect(await redis.client.xpending('orders', 'main')).toEqual([0, null, null, null])
  })

  test('is told by a claim with where it was', async () => {
    const [id = ''] = await delivered([])
    const key = redeliveryKey('orders', 'main')
    const again = (await redis.client.xadd(key, '*', 'job', 'mail', 'id', id)) as string
    await readNew(redis.client, member, { count: 10, blockMs: 1 })
    await redis.client.xdel('orders', id)
    await redis.client.xdel(key, again)
    expect((await claimAll()).gone).toEqual([
      { source: 1, id: again },
      { source: 0, id },
    ])
  })

  test('is settled as gone when its delivery is to begin, once', async () => {
    const [id = '', other = ''] = await delivered([], [])
    await recording()
    await redis.client.xdel('orders', id)
    const claimed = [id, other].map((one) => ({ id: one, deliveries: 1 }))
    const begun = await begin(redis.client, member, 0, claimed)
    expect(begun.map(({ state }) => state)).toEqual(['gone', 'ok'])
    expect([await goneOf(id), await outcomeOf(id)]).toEqual([1, 'gone'])
    expect((await begin(redis.client, member, 0, claimed)).map(({ state }) => state)).toEqual(['lost', 'ok'])
    const ids = [id, other]
    expect(await settleAsGone(redis.client, member, { source: 0, ids, isAcked: false })).toBe(0)
    expect(await goneOf(id)).toBe(1)
  })
})

describe('where a group began', () => {
  const startOf = () => redis.client.hget(settingsKey('orders'), 'group:main:start')

  test('is written down when it is made, and stays when it is made again at its floor', async () => {
    const id = await add(redis.client, 'mail')
    await join(redis.client, member, { ...WANTED, startAt: 'now' })
    expect(await startOf()).toBe(id)

    const next = await add(redis.client, 'mail')
    await readNew(redis.client, member, { count: 10, blockMs: 1 })
    await complete([next])
    await redis.client.xgroup('DESTROY', 'orders', 'main')
    expect((await join(redis.client, member, { ...WANTED, startAt: 'again' })).how).toBe('restored')
    expect(await startOf()).toBe(id)
  })

  test('is written down by an operator who makes it', async () => {
    const id = await add(redis.client, 'mail')
    const { groups } = newInspector(redis.url)
    await groups.create('orders', 'main', { startAt: 'now' })
    expect(await startOf()).toBe(id)
    await groups.remove('orders', 'main')
    expect(await startOf()).toBeNull()
    await groups.create('orders', 'main', { startAt: 'oldest' })
    expect(await startOf()).toBe('0-0')
  })

  test('is where its worker goes on that had lost it to a removal', async () => {
    await add(redis.client, 'mail')
    await join(redis.client, member, WANTED)
    await newInspector(redis.url).groups.remove('orders', 'main', { force: true })
    const last = (await redis.client.xrevrange('orders', '+', '-', 'COUNT', 1))[0]?.[0]
    await join(redis.client, member, { ...WANTED, startAt: 'again' })
    expect(await startOf()).toBe(last)
  })
})
