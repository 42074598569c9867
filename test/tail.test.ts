import { describe, expect, test } from 'vitest'
import type { Inspector, TailEntry, TailNotice, TailOptions } from '../src/index.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

const redis = withRedis()

/** Entries `<n>-0`, their jobs `even` and `odd`. */
async function publish(from: number, to: number, client = redis.client): Promise<void> {
  const pipeline = client.pipeline()
  for (let n = from; n <= to; n++)
    pipeline.xadd('orders', `${n}-0`, 'job', n % 2 ? 'odd' : 'even', 'data', `{"n":${n}}`)
  await pipeline.exec()
}

async function all(entries: AsyncIterable<TailEntry>): Promise<string[]> {
  const ids: string[] = []
  for await (const { entryId } of entries) ids.push(entryId)
  return ids
}

/** Follows in the background until it is stopped. */
function follow(inspector: Inspector, options: TailOptions = {}) {
  const stopping = new AbortController()
  const ids: string[] = []
  const notices: TailNotice[] = []
  const read = async () => {
    const asked = { follow: true, signal: stopping.signal, onNotice: (notice: TailNotice) => notices.push(notice) }
    for await (const { entryId } of inspector.tail('orders', { ...asked, ...options })) ids.push(entryId)
  }
  const ended = read()
  ended.catch(() => {})
  return { ids, notices, ended, stop: () => stopping.abort() }
}

const range = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, at) => `${from + at}-0`)

describe('the tail of a stream', () => {
  test('is its newest entries, oldest first, with all that they say', async () => {
    await publish(1, 12)
    await redis.client.xadd(
      'orders',
      '13-0',
      'job',
      'mail',
      'data',
      '[1]',
      'id',
      '7-7',
      'h-tenant',
      'a',
      'replay-of',
      '3-0',
    )
    await redis.client.xadd('orders', '14-0', 'no', 'job')
    const entries: TailEntry[] = []
    for await (const entry of newInspector(redis.url).tail('orders')) entries.push(entry)
    expect(entries.map(({ entryId }) => entryId)).toEqual(range(5, 14))
    expect(entries.slice(-2)).toEqual([
      {
        entryId: '13-0',
        jobId: '7-7',
        job: 'mail',
        publishedMs: 13,
        payload: '[1]',
        headers: { tenant: 'a' },
        replayOf: '3-0',
      },
      { entryId: '14-0', jobId: '14-0', job: null, publishedMs: 14, payload: null, headers: {}, replayOf: null },
    ])
  })

  test('is as long as was asked for, over pages, and of what matches only', async () => {
    await publish(1, 1500)
    const inspector = newInspector(redis.url)
    expect(await all(inspector.tail('orders', { last: 1200 }))).toEqual(range(301, 1500))
    expect(await all(inspector.tail('orders', { last: 0 }))).toEqual([])
    expect(await all(inspector.tail('orders', { last: 2, job: 'odd' }))).toEqual(['1497-0', '1499-0'])
    expect(await all(inspector.tail('orders', { text: '"n":77}' }))).toEqual(['77-0'])
    expect(await all(inspector.tail('orders', { where: 'data.n > 3 && data.n < 6' }))).toEqual(['4-0', '5-0'])
    expect(await all(inspector.tail('orders', { from: '1498-0' }))).toEqual(range(1498, 1500))
    expect(await all(inspector.tail('orders', { from: 900 }))).toEqual(range(900, 1500))
    expect(await all(inspector.tail('orders', { from: 900, last: 3, job: 'odd' }))).toEqual([
      '1495-0',
      '1497-0',
      '1499-0',
    ])
  })

  test('holds entries of a MiB each too, for which Redis is asked in small portions', async () => {
    for (let n = 1; n <= 6; n++)
      await redis.client.xadd('orders', `${n}-0`, 'job', 'x', 'data', `"${'x'.repeat(1 << 20)}"`)
    expect(await all(newInspector(redis.url).tail('orders', { last: 5 }))).toEqual(range(2, 6))
  })

  test('tells of an expression that could not tell, once', async () => {
    await publish(1, 5)
    const notices: TailNotice[] = []
    const asked = { where: 'data.missing > 1', onNotice: (notice: TailNotice) => void notices.push(notice) }
    expect(await all(newInspector(redis.url).tail('orders', asked))).toEqual([])
    expect(notices).toMatchObject([{ kind: 'unclear', entryId: '5-0' }])
  })

  test('refuses what it cannot do at once, and says what is not there', async () => {
    const inspector = newInspector(redis.url)
    expect(() => inspector.tail('orders', { lines: 3 } as TailOptions)).toThrow('unknown option `lines` of tail')
    expect(() => inspector.tail('orders', { last: -1 })).toThrow('expected `last` to be an integer of 0 or more')
    expect(() => inspector.tail('orders', { where: 'data.' })).toThrow('expected `where` to be a condition')
    expect(() => inspector.tail('bad name')).toThrow('expected a stream name')
    await expect(all(inspector.tail('orders'))).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await publish(10, 20)
    await redis.client.xtrim('orders', 'MINID', '15-0')
    await expect(all(inspector.tail('orders', { from: '11-0' }))).rejects.toMatchObject({ code: 'ERR_HISTORY' })
  })
})

describe('following a stream', () => {
  test('brings each entry once, in order, those that were there and those that come', async () => {
    await publish(1, 20)
    const following = follow(newInspector(redis.url), { last: 3 })
    await eventually(() => expect(following.ids).toHaveLength(3))
    for (let from = 21; from < 3000; from += 700) await publish(from, from + 699)
    await eventually(() => expect(following.ids.at(-1)).toBe('3520-0'))
    following.stop()
    await following.ended
    expect(following.ids).toEqual(range(18, 3520))
    expect(following.notices).toEqual([])
  })

  test('waits for the first entry of a stream that has none, and filters what comes', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const following = follow(newInspector(redis.url), { job: 'even' })
    await publish(1, 6)
    await eventually(() => expect(following.ids).toEqual(['2-0', '4-0', '6-0']))
    following.stop()
    await following.ended
  })

  test('survives a Redis that goes away and comes back, tells of both once, and loses nothing', async () => {
    const server = await startServer({ aof: true })
    await publish(1, 3, connectTo(server.url))
    const following = follow(newInspector(server.url))
    await eventually(() => expect(following.ids).toEqual(range(1, 3)))
    await server.kill()
    await eventually(() => expect(following.notices).toMatchObject([{ kind: 'away' }]))
    await server.restart()
    await publish(4, 8, connectTo(server.url))
    await eventually(() => expect(following.ids).toEqual(range(1, 8)))
    following.stop()
    await following.ended
    expect(following.notices.map(({ kind }) => kind)).toEqual(['away', 'back'])
  })

  test('says so where entries were removed while Redis could not be asked', async () => {
    await publish(1, 3)
    const proxy = await startProxy(redis.url)
    const following = follow(newInspector(proxy.url))
    await eventually(() => expect(following.ids).toHaveLength(3))
    proxy.blackhole(true)
    await eventually(() => expect(following.notices).toMatchObject([{ kind: 'away' }]))
    await publish(4, 9)
    await redis.client.xtrim('orders', 'MINID', '9-0')
    proxy.blackhole(false)
    await eventually(() => expect(following.ids).toEqual(['1-0', '2-0', '3-0', '9-0']))
    following.stop()
    await following.ended
    expect(following.notices.slice(1)).toEqual([{ kind: 'back' }, { kind: 'lost', afterId: '3-0', oldestId: '9-0' }])
  })

  test('ends at once when it is stopped, also while Redis does not answer', async () => {
    const server = await startServer()
    await publish(1, 3, connectTo(server.url))
    const following = follow(newInspector(server.url))
    await eventually(() => expect(following.ids).toHaveLength(3))
    server.stopProcess()
    following.stop()
    await following.ended
    server.continueProcess()
  })

  test('ends when the loop is left', async () => {
    await publish(1, 3)
    for await (const { entryId } of newInspector(redis.url).tail('orders', { follow: true }))
      if (entryId === '3-0') break
  })
})
