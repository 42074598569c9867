import { describe, expect, test } from 'vitest'
import { promoteDue, promoteNow } from '../src/redis/scheduling.ts'
import { DELAYED, keysOf, promotedIds, RETRIES, scheduleFields, scheduleMany } from './helpers/scheduled.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()
const HOUR_MS = 3_600_000
const job = (n: number, id = `1-${n}`) => ({ id, fields: ['job', 'x', 'data', String(n), 'id', id] })

describe.each([
  ['a delayed publish', DELAYED],
  ['a retry', RETRIES],
])('%s', (_what, where) => {
  const { set, jobs, target, index } = keysOf(where)

  test('that is due moves to its stream with its fields and its due time, and nothing of it stays', async () => {
    await scheduleFields(redis.client, where, { ...job(7), dueMs: 12_345 })
    const told = await promoteDue(redis.client, where)

    const [entry, ...others] = await redis.client.xrange(target, '-', '+')
    expect(entry?.[1]).toEqual(['job', 'x', 'data', '7', 'id', '1-7', 'at', '12345'])
    expect(others).toEqual([])
    expect(told).toMatchObject({ promoted: 1, asideIds: [], more: false, nextDueMs: undefined })
    expect(await redis.client.exists(set, jobs)).toBe(0)
    if (index !== '') expect(await redis.client.hgetall(index)).toEqual({ '1-7': `redelivery ${entry?.[0]}` })
  })

  test('that is not due stays, and the answer says when it will be, by the clock of the server', async () => {
    const dueMs = (await serverMs(redis.client)) + HOUR_MS
    await scheduleFields(redis.client, where, { ...job(1), dueMs })
    await scheduleFields(redis.client, where, { ...job(2), dueMs: dueMs + 5 })

    const told = await promoteDue(redis.client, where)
    expect(told).toMatchObject({ promoted: 0, asideIds: [], more: false, nextDueMs: dueMs })
    expect(Math.abs(told.nowMs - Date.now())).toBeLessThan(60_000)
    expect(await redis.client.exists(target)).toBe(0)
    expect(await redis.client.zcard(set)).toBe(2)
    expect(await redis.client.hlen(jobs)).toBe(2)
  })

  test('moves in the order of due times', async () => {
    for (const n of [3, 1, 2]) await scheduleFields(redis.client, where, { ...job(n), dueMs: n })
    await promoteDue(redis.client, where)

    expect(await promotedIds(redis.client, where)).toEqual(['1-1', '1-2', '1-3'])
  })

  test('keeps its bytes, whatever they are, and the empty ones', async () => {
    const fields = [Buffer.from([0xff, 0, 0x80]), Buffer.from([0xfe, 10, 13]), 'empty', '', 'é', '\0']
    await scheduleFields(redis.client, where, { id: '1-1', dueMs: 1, fields })
    await promoteDue(redis.client, where)

    const [entry] = await redis.client.xrangeBuffer(target, '-', '+')
    expect(entry?.[1]).toEqual([...fields, 'at', '1'].map((field) => Buffer.from(field)))
  })

  test('moves 250 at a time, and the answer says that there are more', async () => {
    await scheduleMany(redis.client, where, { count: 600, dueMs: 1 })
    const told = [1, 2, 3].map(() => promoteDue(redis.client, where))

    expect((await Promise.all(told)).map(({ promoted, more }) => [promoted, more])).toEqual([
      [250, true],
      [250, true],
      [100, false],
    ])
    expect(new Set(await promotedIds(redis.client, where)).size).toBe(600)
  })

  test('moves no more than 1 MiB at a time beyond one job, and a larger one alone', async () => {
    await scheduleMany(redis.client, where, { count: 5, dueMs: 2, padding: 'x'.repeat(600 * 1024) })
    await scheduleFields(redis.client, where, { id: '9-9', dueMs: 1, fields: ['job', 'x'.repeat(3 * 1024 * 1024)] })
    const counts: number[] = []
    for (let more = true; more;) {
      const told = await promoteDue(redis.client, where)
      counts.push(told.promoted)
      more = told.more
    }
    expect(counts).toEqual([1, 2, 2, 1])
  })

  test('of 7,900 values, as many as the server can take, is moved', async () => {
    const fields = Array.from({ length: 7900 }, (_, n) => String(n))
    const script = `local values = {} for n = 1, 7900 do values[n] = tostring(n - 1) end
      redis.call('ZADD', KEYS[1], 1, '1-1') redis.call('HSET', KEYS[2], '1-1', cmsgpack.pack({'', values}))`
    await redis.client.eval(script, 2, set, jobs)

    expect(await promoteDue(redis.client, where)).toMatchObject({ promoted: 1, asideIds: [] })
    expect((await redis.client.xrange(target, '-', '+'))[0]?.[1]).toEqual([...fields, 'at', '1'])
  })

  describe('that cannot be moved', () => {
    test.each([
      ['has no record', undefined],
      ['has an empty record', "''"],
      ['has a record that is not packed', "'\\193 what is this'"],
      ['has a record that is cut off', "cmsgpack.pack({'', {'job', 'x'}}):sub(1, -2)"],
      ['has a record of another shape', "cmsgpack.pack({job = 'x'})"],
      ['has no fields', "cmsgpack.pack({'', {}})"],
      ['has a name without a value', "cmsgpack.pack({'', {'job', 'x', 'data'}})"],
      ['has a value that is none', "cmsgpack.pack({'', {'job', {'x'}}})"],
      [
        'has too many values',
        "(function() local v = {} for n = 1, 7902 do v[n] = 'x' end return cmsgpack.pack({'', v}) end)()",
      ],
    ])('since it %s, is set aside: never due, still there, and those behind it move', async (_why, record) => {
      await redis.client.zadd(set, 1, '1-1')
      if (record !== undefined) {
        await redis.client.eval(`redis.call('HSET', KEYS[1], '1-1', ${record})`, 1, jobs)
      }
      const before = await redis.client.hgetBuffer(jobs, '1-1')
      await scheduleFields(redis.client, where, { ...job(2), dueMs: 2 })
      const told = await promoteDue(redis.client, where)

      expect(told).toMatchObject({ promoted: 1, asideIds: ['1-1'], more: false, nextDueMs: undefined })
      expect(await promotedIds(redis.client, where)).toEqual(['1-2'])
      expect(await redis.client.zrange(set, '0', '-1', 'WITHSCORES')).toEqual(['1-1', 'inf'])
      expect(await redis.client.hgetBuffer(jobs, '1-1')).toEqual(before)
      expect(await promoteDue(redis.client, where)).toMatchObject({ promoted: 0, asideIds: [] })
    })

    test('is moved by its id once its record is there again', async () => {
      await redis.client.zadd(set, '+inf', '1-1')
      expect(await promoteNow(redis.client, where, ['1-1'])).toEqual([])
      await scheduleFields(redis.client, where, { ...job(1), dueMs: '+inf' })
      const nowMs = await serverMs(redis.client)

      expect(await promoteNow(redis.client, where, ['1-1'])).toEqual(['1-1'])
      const at = Number((await redis.client.xrange(target, '-', '+'))[0]?.[1].at(-1))
      expect(at).toBeGreaterThanOrEqual(nowMs)
      expect(at).toBeLessThan(nowMs + 60_000)
    })
  })

  describe('that is named', () => {
    test('moves now, whenever it is due; what is not scheduled or named twice makes no difference', async () => {
      const dueMs = (await serverMs(redis.client)) + HOUR_MS
      for (const n of [1, 2, 3]) await scheduleFields(redis.client, where, { ...job(n), dueMs })
      const nowMs = await serverMs(redis.client)

      expect(await promoteNow(redis.client, where, ['1-3', '1-9', '1-1', '1-3'])).toEqual(['1-3', '1-1'])
      expect(await promotedIds(redis.client, where)).toEqual(['1-3', '1-1'])
      for (const [, fields] of await redis.client.xrange(target, '-', '+')) {
        expect(fields.at(-2)).toBe('at')
        expect(Number(fields.at(-1))).toBeGreaterThanOrEqual(nowMs)
        expect(Number(fields.at(-1))).toBeLessThan(dueMs)
      }
      expect(await redis.client.zrange(set, '0', '-1')).toEqual(['1-2'])
      expect(await redis.client.hkeys(jobs)).toEqual(['1-2'])
      expect(await promoteNow(redis.client, where, ['1-3'])).toEqual([])
    })

    test('among thousands of large ones moves with all of them', async () => {
      const dueMs = (await serverMs(redis.client)) + HOUR_MS
      await scheduleMany(redis.client, where, { count: 1000, dueMs, padding: 'x'.repeat(10_000) })
      const ids = Array.from({ length: 1000 }, (_, n) => `1-${n}`)

      expect(await promoteNow(redis.client, where, ids)).toEqual(ids)
      expect(await promotedIds(redis.client, where)).toEqual(ids)
      expect(await promoteNow(redis.client, where, [])).toEqual([])
    })
  })

  test.each([
    ['its target', target],
    ['the set', set],
    ['the hash beside it', jobs],
  ])('with a key of another type in place of %s: an error that names it, and nothing moves', async (_key, key) => {
    await scheduleFields(redis.client, where, { ...job(1), dueMs: 1 })
    await redis.client.del(key)
    await redis.client.set(key, 'text')
    const before = await redis.client.keys('*')

    const message = `WRONGTYPE nothing was promoted: the key ${key} holds a string`
    await expect(promoteDue(redis.client, where)).rejects.toThrow(message)
    await expect(promoteNow(redis.client, where, ['1-1'])).rejects.toThrow(message)
    expect((await redis.client.keys('*')).sort()).toEqual(before.sort())
    if (key === target) expect(await redis.client.zscore(set, '1-1')).toBe('1')
  })

  test('to a stream that has no id left is an error, and nothing is set aside', async () => {
    await redis.client.xadd(target, '18446744073709551615-18446744073709551615', 'job', 'last')
    await scheduleMany(redis.client, where, { count: 3, dueMs: 1 })

    await expect(promoteDue(redis.client, where)).rejects.toThrow('last possible ID')
    expect(await redis.client.zcount(set, 1, 1)).toBe(3)
  })

  test('without the permission to append is an error, and nothing is set aside', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.acl('SETUSER', 'mover', 'on', '>pw', '~*', '+@all', '-xadd')
    await scheduleMany(client, where, { count: 3, dueMs: 1 })
    const mover = connectTo(server.url, { username: 'mover', password: 'pw' })

    await expect(promoteDue(mover, where)).rejects.toThrow(/ACL|can't run/)
    expect(await client.zcount(set, 1, 1)).toBe(3)
  })

  test('moves while Redis is out of memory: it takes no more room than before', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await scheduleMany(client, where, { count: 300, dueMs: 1 })
    await client.config('SET', 'maxmemory', '1')

    expect(await promoteDue(client, where)).toMatchObject({ promoted: 250, asideIds: [] })
    expect(await promoteDue(client, where)).toMatchObject({ promoted: 50, asideIds: [] })
    expect(await promotedIds(client, where)).toHaveLength(300)
  })

  test('on a read-only replica is an error, and nothing is set aside', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await scheduleMany(client, where, { count: 3, dueMs: 1 })
    await client.config('SET', 'replica-serve-stale-data', 'yes')
    await client.replicaof('127.0.0.1', 1)

    await expect(promoteDue(client, where)).rejects.toThrow('READONLY')
    await client.replicaof('NO', 'ONE')
    expect(await promoteDue(client, where)).toMatchObject({ promoted: 3, asideIds: [] })
  })

  test('that the same moment brings to many workers moves once', async () => {
    await scheduleMany(redis.client, where, { count: 2000, dueMs: 1 })
    const clients = Array.from({ length: 4 }, () => redis.connect())
    const told = await Promise.all(clients.flatMap((client) => [1, 2, 3].map(() => promoteDue(client, where))))

    expect(told.reduce((sum, { promoted }) => sum + promoted, 0)).toBe(2000)
    const ids = await promotedIds(redis.client, where)
    expect([ids.length, new Set(ids).size]).toEqual([2000, 2000])
  })
})
