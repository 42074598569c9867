import { randomUUID } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { scheduledKey, settingsKey } from '../src/redis/keys.ts'
import { append, open, type Appended, type Item, type SentBatch } from '../src/redis/publishing.ts'
import { onEnd } from './helpers/cleanup.ts'
import { failureOf, newProducer, publish, storedNumbers } from './fixtures/producers.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, withRedis } from './helpers/redis.ts'
import { gate, startWorker } from './helpers/workers.ts'

/** What keeps producers from filling a stream: in the script, and as who publishes meets it. */

const redis = withRedis()
const KEY = settingsKey('orders')

const job = (n: number): Item => ({ fields: ['job', 'x', 'data', String(n)] })
const jobs = (count: number): Item[] => Array.from({ length: count }, (_, n) => job(n))

/** One producer's sequence, whose batches look at the bound. */
async function sequence(
  client = redis.client,
): Promise<(items: Item[], more?: Partial<SentBatch>) => Promise<Appended>> {
  const producerId = randomUUID()
  await open(client, 'orders', producerId)
  let seq = 0
  return async (items, more = {}) => {
    const answer = await append(client, 'orders', { producerId, seq: seq + 1, items, isChecked: true, ...more })
    if (answer.kind === 'done' && more.seq === undefined) seq += 1
    return answer
  }
}

const bound = (jobsAtMost: number | string) => redis.client.hset(KEY, 'maxBacklog', jobsAtMost)
const group = (name: string) => redis.client.xgroup('CREATE', 'orders', name, '0', 'MKSTREAM')
const read = async (name: string, count: number): Promise<string[]> => {
  const reply = await redis.client.xreadgroup('GROUP', name, 'c', 'COUNT', count, 'STREAMS', 'orders', '>')
  const [[, entries]] = reply as [[string, [string, string[]][]]]
  return entries.map(([id]) => id)
}

describe('the bound of a stream', () => {
  test('takes what just fits and nothing beyond, and says how much is there', async () => {
    await group('main')
    await bound(10)
    const send = await sequence()
    expect(await send(jobs(9))).toMatchObject({ kind: 'done', bound: 10 })
    expect(await send(jobs(2))).toEqual({ kind: 'full', backlog: 9, bound: 10 })
    expect(await redis.client.xlen('orders')).toBe(9)
    // The number of a batch that was refused is still free.
    expect(await send(jobs(1))).toMatchObject({ kind: 'done', bound: 10 })
    expect(await send(jobs(1))).toEqual({ kind: 'full', backlog: 10, bound: 10 })
    expect(await redis.client.xlen('orders')).toBe(10)
  })

  test('counts what is unread and what is pending, of the group that has most of both', async () => {
    for (const name of ['quick', 'slow', 'middle']) await group(name)
    await bound(10)
    const send = await sequence()
    await send(jobs(8))
    await redis.client.xack('orders', 'quick', ...(await read('quick', 8)))
    expect(await send(jobs(3))).toEqual({ kind: 'full', backlog: 8, bound: 10 })
    const ids = await read('slow', 5)
    expect(await send(jobs(3))).toEqual({ kind: 'full', backlog: 8, bound: 10 })
    await redis.client.xack('orders', 'slow', ...ids)
    expect(await send(jobs(3))).toEqual({ kind: 'full', backlog: 8, bound: 10 })
    await redis.client.xack('orders', 'middle', ...(await read('middle', 2)))
    expect(await send(jobs(4))).toMatchObject({ kind: 'done' })
    expect(await send(jobs(1))).toEqual({ kind: 'full', backlog: 10, bound: 10 })
  })

  test('does not count the history that retention keeps, however long it is', async () => {
    await group('main')
    await bound(5)
    const send = await sequence()
    for (let round = 0; round < 4; round++) {
      expect(await send(jobs(5))).toMatchObject({ kind: 'done' })
      await redis.client.xack('orders', 'main', ...(await read('main', 5)))
    }
    expect(await redis.client.xlen('orders')).toBe(20)
  })

  test('of a stream without a group counts its entries, and of one that is not there yet none', async () => {
    await bound(3)
    const send = await sequence()
    expect(await send(jobs(4))).toEqual({ kind: 'full', backlog: 0, bound: 3 })
    expect(await redis.client.exists('orders')).toBe(0)
    expect(await send(jobs(2))).toMatchObject({ kind: 'done' })
    expect(await send(jobs(2))).toEqual({ kind: 'full', backlog: 2, bound: 3 })
  })

  test('takes a lag that Redis does not know for none: what is pending still counts', async () => {
    await group('main')
    const send = await sequence()
    const sent = await send(jobs(6))
    const [, , third = ''] = sent.kind === 'done' ? sent.ids : []
    await redis.client.xdel('orders', third)
    await bound(5)
    expect(await send(jobs(5))).toMatchObject({ kind: 'done' })
    await read('main', 2)
    expect(await send(jobs(4))).toEqual({ kind: 'full', backlog: 2, bound: 5 })
  })

  test('counts entries that are pending though they are gone from the stream', async () => {
    await group('main')
    const send = await sequence()
    await send(jobs(3))
    await redis.client.xdel('orders', ...(await read('main', 3)))
    await bound(3)
    expect(await send(jobs(1))).toEqual({ kind: 'full', backlog: 3, bound: 3 })
  })

  test('exempts jobs for later, which are in no backlog yet, but not those whose time is over', async () => {
    await group('main')
    await bound(3)
    const send = await sequence()
    await send(jobs(3))
    const later = (due: string): Item => ({ ...job(0), due })
    expect(await send([later('+60000'), later(String(Date.now() + 60_000))])).toMatchObject({ kind: 'done', bound: 3 })
    expect(await redis.client.zcard(scheduledKey('orders'))).toBe(2)
    expect(await send([later('+60000'), job(1)])).toEqual({ kind: 'full', backlog: 3, bound: 3 })
    for (const due of ['0', String(Date.now() - 1000)]) {
      expect(await send([later('+60000'), later(due)])).toEqual({ kind: 'full', backlog: 3, bound: 3 })
    }
    expect(await redis.client.zcard(scheduledKey('orders'))).toBe(2)
    expect(await redis.client.xlen('orders')).toBe(3)
  })

  test('counts the items of a mixed batch one by one, whatever they carry', async () => {
    await bound(5)
    const send = await sequence()
    const token = (text: string) => ({ token: { text, ttlMs: 60_000 } })
    const wide: Item = { fields: ['job', 'x', 'data', '1', 'h-a', '0'] }
    const batch = [
      ...jobs(2),
      { ...job(2), ...token('a'), due: '+60000' },
      { ...job(3), ...token('b'), due: '1' },
      wide,
      { ...job(4), ...token('c') },
    ]
    expect(await send([...batch, job(5)])).toEqual({ kind: 'full', backlog: 0, bound: 5 })
    const answer = await send(batch)
    expect(answer).toMatchObject({ kind: 'done', bound: 5 })
    expect(answer.kind === 'done' && answer.ids.map((id) => id?.startsWith('@'))).toEqual([
      ...[false, false, true, false, false, false],
    ])
    expect(await redis.client.xlen('orders')).toBe(5)
  })

  test('has no bearing on a job whose token has one already: that takes no room', async () => {
    await bound(2)
    const send = await sequence()
    const [once, later] = ['once', 'later'].map((text) => ({ token: { text, ttlMs: 60_000 } }))
    const first = await send([
      { ...job(1), ...once },
      { ...job(2), ...later, due: '1' },
    ])
    expect(first).toMatchObject({ kind: 'done' })
    const ids = first.kind === 'done' ? first.ids.map((id) => `=${String(id)}`) : []
    expect(
      await send([
        { ...job(3), ...once },
        { ...job(4), ...later, due: '1' },
      ]),
    ).toMatchObject({ ids })
    expect(await send([{ ...job(5), ...once }, job(6)])).toEqual({ kind: 'full', backlog: 2, bound: 2 })
    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('lets a batch without jobs through at any time: it only moves a mark', async () => {
    await bound(1)
    const send = await sequence()
    await send(jobs(1))
    expect(await send([], { mark: '7' })).toMatchObject({ kind: 'done' })
  })

  test('holds for all producers together: at once they never exceed it, and fill it to the last job', async () => {
    await group('main')
    await bound(101)
    const producers = await Promise.all(Array.from({ length: 4 }, () => sequence(redis.connect())))
    const rounds = await Promise.all(
      producers.map(async (send, at) => {
        let done = 0
        for (let n = 0; n < 40; n++) if ((await send(jobs(1 + (at % 2)))).kind === 'done') done += 1 + (at % 2)
        return done
      }),
    )
    expect(rounds.reduce((a, b) => a + b)).toBe(101)
    expect(await redis.client.xlen('orders')).toBe(101)
  })

  test('does not refuse a batch that was executed and is sent again: it answers what became of it', async () => {
    await group('main')
    await bound(2)
    const send = await sequence()
    const first = await send(jobs(2))
    const again = await send(jobs(2), { seq: 1 })
    expect(again).toMatchObject({ kind: 'done', ids: first.kind === 'done' ? first.ids : [] })
    expect(await send(jobs(1), { seq: 5 })).toEqual({ kind: 'behind', stored: 1 })
    expect(await send(jobs(1), { producerId: 'nobody' })).toEqual({ kind: 'forgotten' })
    expect(await redis.client.xlen('orders')).toBe(2)
  })

  test('is told with a batch that was checked for it, and only then', async () => {
    const send = await sequence()
    expect(await send(jobs(1))).toMatchObject({ kind: 'done', bound: null })
    expect(await send(jobs(1), { isChecked: false })).toMatchObject({ kind: 'done', bound: undefined })
    await bound(1)
    expect(await send(jobs(1), { isChecked: false })).toMatchObject({ kind: 'done', bound: undefined })
    expect(await send(jobs(1))).toEqual({ kind: 'full', backlog: 3, bound: 1 })
  })

  test.each(['', 'many', '-1', '0x10', '1e1', 'inf', 'nan', '9'.repeat(16)])(
    'that a foreign hand has made %j is none',
    async (text) => {
      await bound(text)
      const send = await sequence()
      expect(await send(jobs(20))).toMatchObject({ kind: 'done', bound: null })
    },
  )

  test('in a key of another type is none either: it stops no publishing', async () => {
    await redis.client.set(KEY, 'text')
    const send = await sequence()
    expect(await send(jobs(20))).toMatchObject({ kind: 'done', bound: null })
  })

  test('does not hide that the stream is of another type', async () => {
    await bound(5)
    await redis.client.set('orders', 'text')
    const send = await sequence()
    await expect(send(jobs(1))).rejects.toThrow('WRONGTYPE')
  })

  test('needs no permission before it is set, and then says which', async () => {
    const narrow = ['+evalsha', '+eval', '+exists', '+hget', '+hincrby', '+hset', '+pexpire', '+time', '+type', '+xadd']
    await redis.client.call('ACL', 'SETUSER', 'narrow', 'on', '>p', '~orders', '~{orders}:*', '-@all', ...narrow)
    onEnd(async () => void (await redis.client.call('ACL', 'DELUSER', 'narrow')))
    const client = connectTo(redis.url.replace('//', '//narrow:p@'), { enableReadyCheck: false })
    const send = await sequence(client)
    expect(await send(jobs(2))).toMatchObject({ kind: 'done', bound: null })
    await group('main')
    await bound(10)
    await expect(send(jobs(2))).rejects.toThrow(/can't run this command|NOPERM/)
    expect(await redis.client.xlen('orders')).toBe(2)
    await redis.client.call('ACL', 'SETUSER', 'narrow', '+xinfo|groups', '+xlen')
    expect(await send(jobs(2))).toMatchObject({ kind: 'done', bound: 10 })
  })

  test('is looked at in all groups of a stream, however many there are', async () => {
    for (let n = 0; n < 150; n++) await group(`g${n}`)
    await bound(1000)
    const send = await sequence()
    for (let n = 0; n < 2; n++) expect(await send(jobs(500))).toMatchObject({ kind: 'done' })
    for (let n = 0; n < 149; n++) await redis.client.xgroup('SETID', 'orders', `g${n}`, '$', 'ENTRIESREAD', '1000')
    expect(await send(jobs(1))).toEqual({ kind: 'full', backlog: 1000, bound: 1000 })
    await redis.client.xgroup('DESTROY', 'orders', 'g149')
    expect(await send(jobs(1))).toMatchObject({ kind: 'done' })
  })
})

describe('at the bound of its stream', () => {
  const inspector = () => newInspector(redis.url)
  const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, n) => from + n)
  const backlog = async (): Promise<number> => {
    const [flat = []] = (await redis.client.xinfo('GROUPS', 'orders')) as unknown[][]
    const seen = new Map(flat.flatMap((name, at) => (at % 2 === 0 ? [[String(name), Number(flat[at + 1])]] : [])))
    return (seen.get('pending') ?? 0) + (seen.get('lag') ?? 0)
  }
  /** A worker whose jobs end when it is let go. */
  async function heldWorker(): Promise<{ open: () => void }> {
    const held = gate()
    await startWorker({ redis: redis.url, handlers: { x: () => held.wait() } })
    return held
  }
  const STREAM_FULL = { code: 'ERR_STREAM_FULL', published: 'no' }

  test('a publish waits, and goes on by itself as soon as workers have settled some', async () => {
    const worker = await heldWorker()
    await bound(3)
    const producer = newProducer({ redis: redis.url })
    await Promise.all(numbers(3).map((n) => publish(producer, n)))
    const resolved: number[] = []
    const waiting = numbers(4, 3).map(async (n) => {
      await publish(producer, n)
      resolved.push(n)
    })
    await eventually(async () => expect(await backlog()).toBe(3))
    expect(resolved).toEqual([])
    worker.open()
    await Promise.all(waiting)
    expect(await storedNumbers(redis.client)).toEqual(numbers(7))
  })

  test('a publish fails with `reject`, at once, and is not in Redis; with room again it is published', async () => {
    const worker = await heldWorker()
    await bound(2)
    const producer = newProducer({ redis: redis.url, whenStreamFull: 'reject', timeoutMs: 600_000 })
    await Promise.all(numbers(2).map((n) => publish(producer, n)))
    expect(await failureOf(publish(producer, 7))).toMatchObject(STREAM_FULL)
    expect((await failureOf(publish(producer, 8))).message).toBe(
      'could not publish to orders: orders has a backlog of 2 jobs; its maxBacklog is 2; the job is not in Redis',
    )
    worker.open()
    await eventually(async () => expect(await backlog()).toBe(0))
    await publish(producer, 9)
    expect(await storedNumbers(redis.client)).toEqual([0, 1, 9])
  })

  test('a publish whose time is up before there is room says why, and is not in Redis', async () => {
    await group('main')
    await bound(1)
    const producer = newProducer({ redis: redis.url })
    await publish(producer, 1)
    expect(await failureOf(publish(producer, 2, { timeoutMs: 700 }))).toMatchObject(STREAM_FULL)
    expect(await failureOf(producer.publishMany('x', [3, 4], { stream: 'orders', timeoutMs: 700 }))).toMatchObject({
      ...STREAM_FULL,
      confirmed: 0,
    })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })

  test('buffered jobs wait, also with `reject`', async () => {
    const worker = await heldWorker()
    await bound(1)
    const producer = newProducer({ redis: redis.url, whenStreamFull: 'reject' })
    await publish(producer, 1)
    const published: string[] = []
    producer.on('job:published', ({ ref }) => published.push(ref))
    const { ref } = await producer.publish('x', 2, { stream: 'orders', durability: 'buffered' })
    expect(await failureOf(publish(producer, 3))).toMatchObject(STREAM_FULL)
    worker.open()
    await eventually(() => expect(published).toEqual([ref]))
    expect(await storedNumbers(redis.client)).toEqual([1, 2])
  })

  test('a bound that is set, and taken away, reaches producers that run', async () => {
    await group('main')
    const producer = newProducer({ redis: redis.url, whenStreamFull: 'reject' })
    await publish(producer, 0)
    await inspector().settings.set('orders', { maxBacklog: 1 })
    const refusal = await eventually(() => failureOf(publish(producer, 1)))
    expect(refusal).toMatchObject(STREAM_FULL)
    await inspector().settings.set('orders', { maxBacklog: null })
    await publish(producer, 2)
  })

  test('a bulk of many times the bound goes through it, once and in order, and never passes it', async () => {
    await startWorker({ redis: redis.url, handlers: { x() {} } })
    await bound(70)
    const producer = newProducer({ redis: redis.url })
    const publishing = producer.publishMany('x', numbers(3000), { stream: 'orders', timeoutMs: 60_000 })
    let [isOver, most] = [false, 0]
    const watching = (async () => {
      while (!isOver) most = Math.max(most, await backlog())
    })()
    expect(await publishing).toEqual({ published: 3000 })
    isOver = true
    await watching
    expect(most).toBeLessThanOrEqual(70)
    expect(await storedNumbers(redis.client)).toEqual(numbers(3000))
  })

  test('jobs for later are taken at any time', async () => {
    await group('main')
    await bound(1)
    const producer = newProducer({ redis: redis.url, whenStreamFull: 'reject' })
    await publish(producer, 1)
    const later = await producer.publish('x', 2, { stream: 'orders', delayMs: 3_600_000 })
    expect(later.outcome).toBe('scheduled')
    const over = producer.publish('x', 3, { stream: 'orders', runAt: new Date(0) })
    expect(await failureOf(over)).toMatchObject(STREAM_FULL)
  })
})
