import { beforeEach, describe, expect, test } from 'vitest'
import { WhereError, type FindOptions, type Found } from '../src/index.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()
const BASE_MS = 1_700_000_000_000
const COUNT = 1200

const find = (options: FindOptions = {}) => newInspector(redis.url).find('orders', options)
const numbers = ({ jobs }: Found) => jobs.map(({ id }) => Number(id.split('-')[0]) - BASE_MS)
const idOf = (n: number) => `${BASE_MS + n}-0`

/** Jobs 0, 1, 2 …, a millisecond apart; every tenth is a bill. */
beforeEach(async () => {
  const pipeline = redis.client.pipeline()
  for (let n = 0; n < COUNT; n++) {
    const data = JSON.stringify({ n, to: `user-${n}@example.com` })
    pipeline.xadd('orders', idOf(n), 'job', n % 10 === 0 ? 'bill' : 'mail', 'data', data)
  }
  await pipeline.exec()
})

describe('find', () => {
  test('tells the oldest jobs first, with a preview of what they carry, and where to go on', async () => {
    const found = await find({ limit: 3 })
    expect(found.jobs[0]).toEqual({
      id: idOf(0),
      entryId: idOf(0),
      job: 'bill',
      publishedMs: BASE_MS,
      bytes: 33,
      replayOf: null,
      preview: '{"n":0,"to":"user-0@example.com"}',
    })
    expect(found).toMatchObject({ scanned: 3, about: COUNT, fromId: idOf(0), toId: idOf(2), next: idOf(2) })
    expect(numbers(await find({ limit: 3, after: idOf(2) }))).toEqual([3, 4, 5])
  })

  test('tells the newest first where that is asked for, and goes on backwards', async () => {
    const found = await find({ limit: 2, newest: true })
    expect([numbers(found), found.next]).toEqual([[1199, 1198], idOf(1198)])
    expect(numbers(await find({ limit: 2, newest: true, after: idOf(1198) }))).toEqual([1197, 1196])
    const all = await find({ newest: true, limit: 5000 })
    expect([all.jobs.length, all.next, all.fromId, all.toId]).toEqual([COUNT, null, idOf(1199), idOf(0)])
    expect(await find({ newest: true, after: idOf(0) })).toMatchObject({ scanned: 0, next: null })
  })

  test('by time, name, text and expression finds what all of them mean', async () => {
    expect(numbers(await find({ from: BASE_MS + 100, to: BASE_MS + 131, job: 'bill' }))).toEqual([100, 110, 120, 130])
    expect(numbers(await find({ text: 'user-77@' }))).toEqual([77])
    expect(numbers(await find({ where: 'data.n > 1100 && job == "bill"', limit: 2 }))).toEqual([1110, 1120])
    expect(numbers(await find({ where: `id == "${idOf(9)}"` }))).toEqual([9])
    expect(numbers(await find({ from: idOf(5), to: idOf(7) }))).toEqual([5, 6, 7])
    expect(numbers(await find({ from: idOf(5), to: idOf(7), newest: true }))).toEqual([7, 6, 5])
    expect(await find({ job: 'none' })).toMatchObject({ jobs: [], scanned: COUNT, next: null })
  })

  test('refuses an id to go on behind that compares as another', async () => {
    await expect(find({ after: `0${idOf(3)}` })).rejects.toMatchObject({ code: 'ERR_OPTION' })
    await expect(find({ after: `${BASE_MS}-01` })).rejects.toMatchObject({ code: 'ERR_OPTION' })
  })

  test.each([false, true])('in pieces of any size finds the same as at once (newest first: %s)', async (newest) => {
    const filter = { job: 'bill', from: BASE_MS + 3, to: idOf(1111), newest, limit: 1000 }
    const whole = await find(filter)
    expect(whole.jobs).toHaveLength(111)
    for (const mostScanned of [7, 500, 501, 1108, 1109]) {
      const parts: number[] = []
      let after: string | undefined
      for (let scanned = 0; scanned < 1109 + mostScanned;) {
        const part = await find({ ...filter, mostScanned, ...(after === undefined ? {} : { after }) })
        expect(part.scanned).toBeLessThanOrEqual(mostScanned)
        parts.push(...numbers(part))
        scanned += part.scanned
        if (part.next === null) break
        after = part.next
      }
      expect(parts).toEqual(numbers(whole))
    }
  })

  test('with the limit reached at the last entry has nothing to go on with', async () => {
    expect((await find({ from: idOf(1199), limit: 1 })).next).toBeNull()
    expect((await find({ limit: COUNT, mostScanned: COUNT })).next).toBeNull()
    expect((await find({ limit: COUNT - 1 })).next).toBe(idOf(1198))
  })

  test('counts the jobs of which the expression could not tell', async () => {
    await redis.client.xadd('orders', '*', 'job', 'odd', 'data', 'not JSON')
    const found = await find({ where: 'data.missing == 1' })
    expect(found.jobs).toEqual([])
    expect(found.unclear).toMatchObject({ count: COUNT + 1, id: idOf(0) })
    expect(found.unclear.why).toContain('missing')
  })

  test('shows copies, entries without a name, and long payloads cut', async () => {
    await redis.client.xadd(
      'orders',
      '*',
      'job',
      'mail',
      'data',
      'é'.repeat(600),
      'replay-of',
      '1-0',
      'id',
      '7-1000000000000001',
    )
    await redis.client.xadd('orders', '*', 'something', 'else')
    const { jobs } = await find({ newest: true, limit: 2 })
    expect(jobs[0]).toMatchObject({ job: null, bytes: null, preview: null })
    expect(jobs[1]).toMatchObject({ id: '7-1000000000000001', publishedMs: 7, replayOf: '1-0', bytes: 1200 })
    expect(jobs[1]?.preview).toHaveLength(500)
  })

  test('reads large payloads in steps, backwards too', async () => {
    for (let n = 0; n < 20; n++) await redis.client.xadd('orders', '*', 'job', 'big', 'data', 'x'.repeat(300_000))
    expect((await find({ job: 'big', newest: true, limit: 100, mostScanned: 20 })).jobs).toHaveLength(20)
    expect((await find({ job: 'big', limit: 100 })).jobs).toHaveLength(20)
  })

  test('ends where its signal says so, and tells where to go on', async () => {
    const stopping = new AbortController()
    const progress: number[] = []
    const found = await find({
      job: 'none',
      signal: stopping.signal,
      onProgress({ scanned }) {
        progress.push(scanned)
        stopping.abort()
      },
    })
    expect([found.interrupted, progress, found.scanned]).toEqual([true, [500], 500])
    expect(found.next).toBe(idOf(499))
  })

  test('refuses what it cannot mean before anything is asked', async () => {
    await expect(find({ job: 'a b' })).rejects.toThrow('expected `job` to be a job name')
    await expect(find({ text: '' })).rejects.toThrow('expected `text` to be a text')
    await expect(find({ where: 'data.n >' })).rejects.toThrow(WhereError)
    await expect(find({ after: '7' })).rejects.toThrow('expected `after` to be the id of an entry')
    await expect(find({ limit: 0 })).rejects.toThrow('expected `limit` to be a positive integer up to 10000, got 0')
    await expect(find({ mostScanned: 1.5 })).rejects.toThrow('expected `mostScanned`')
    await expect(find({ from: 10, to: 5 })).rejects.toThrow('expected `to` to be after `from`')
    await expect(find({ txet: 'a' } as FindOptions)).rejects.toThrow('did you mean `text`?')
    await expect(newInspector(redis.url).find('nowhere')).rejects.toThrow('stream nowhere does not exist')
  })

  test('refuses a range that begins before the history, and one that it has lost since', async () => {
    await redis.client.xtrim('orders', 'MINID', idOf(600))
    await expect(find({ from: BASE_MS })).rejects.toMatchObject({ code: 'ERR_HISTORY' })
    await expect(find({ after: idOf(3) })).rejects.toMatchObject({ code: 'ERR_HISTORY' })
    expect(numbers(await find({ limit: 1 }))).toEqual([600])
  })

  test('of a stream at the ends of all ids ends', async () => {
    await redis.client.del('orders')
    const last = '18446744073709551615-18446744073709551615'
    await redis.client.xadd('orders', '0-1', 'job', 'mail')
    await redis.client.xadd('orders', last, 'job', 'mail')
    for (const newest of [false, true]) {
      expect(await find({ newest })).toMatchObject({ scanned: 2, next: null })
      expect(await find({ newest, after: newest ? '0-1' : last })).toMatchObject({ scanned: 0, next: null })
      expect((await find({ newest, mostScanned: 1 })).next).toBe(newest ? last : '0-1')
    }
  })
})
