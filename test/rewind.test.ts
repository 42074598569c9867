import type { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import { Producer, type RewindOptions } from '../src/index.ts'
import { deadKey, indexKey, redeliveryKey, settingsKey } from '../src/redis/keys.ts'
import { setGroupBack } from '../src/redis/rewinding.ts'
import { setBack } from '../src/redis/scripts/rewind.ts'
import { idBefore } from '../src/rewind/asked.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { startProxy, type Match } from './helpers/proxy.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

const redis = withRedis()

const rewind = (options: RewindOptions, url = redis.url) => newInspector(url).groups.rewind('orders', 'main', options)

/** Entries of the stream, by their ids. */
async function publish(count: number, client = redis.client): Promise<string[]> {
  const ids: string[] = []
  for (let n = 0; n < count; n++) ids.push(await add(client, 'mail', { n }))
  return ids
}

/** Group main has been given the first `read` of the entries, and has settled all of these but the last `open`. */
async function arrange({ entries = 10, read = 8, open = 2 } = {}): Promise<string[]> {
  const ids = await publish(entries)
  await newInspector(redis.url).groups.create('orders', 'main', { startAt: 'oldest' })
  await deliver(read, open)
  return ids
}

async function deliver(read: number, open = 0): Promise<void> {
  if (read === 0) return
  const reply = await redis.client.xreadgroup('GROUP', 'main', 'gone', 'COUNT', read, 'STREAMS', 'orders', '>')
  const given = ((reply as [string, [string, string[]][]][] | null)?.[0]?.[1] ?? []).map(([id]) => id)
  const settled = given.slice(0, given.length - open)
  if (settled.length > 0) await redis.client.xack('orders', 'main', ...settled)
}

/** What XINFO says of the group, for Redis's own word on its lag. */
async function group(client: Redis = redis.client, name = 'main'): Promise<Record<string, unknown>> {
  const all = (await client.call('XINFO', 'GROUPS', 'orders')) as unknown[][]
  const named = all.map((flat) => new Map(flat.flatMap((key, at) => (at % 2 ? [] : [[key, flat[at + 1]] as const]))))
  const own = named.find((fields) => fields.get('name') === name) ?? new Map<unknown, unknown>()
  return Object.fromEntries(own) as Record<string, unknown>
}

const settings = () => redis.client.hgetall(settingsKey('orders'))
const everything = async () => {
  const rows = await pending(redis.client)
  return [await group(), await settings(), rows.map(({ id, consumer, deliveries }) => ({ id, consumer, deliveries }))]
}
const notes = async () => ((await settings())['group:main:rewinds'] ?? '').split(' ').filter(Boolean)

describe('a rewind', () => {
  test('has everything from the point on delivered again, and lag stays known', async () => {
    const ids = await arrange()
    const [third = '', fourth = ''] = ids.slice(2)
    expect(await rewind({ to: fourth, execute: true })).toEqual({
      executed: true,
      stream: 'orders',
      group: 'main',
      toId: idBefore(fourth),
      fromId: ids[7],
      again: 5,
      pendingAgain: 2,
      firstId: fourth,
      lastId: ids[7],
      lagBefore: 2,
      lagAfter: 7,
      workers: 0,
      also: { scheduled: 0, dead: 0, redelivery: 0 },
    })
    expect(await group()).toMatchObject({ lag: 7, pending: 0, 'last-delivered-id': idBefore(fourth) })
    expect(third < fourth).toBe(true)
    const ran: string[] = []
    await startWorker({
      redis: redis.url,
      handlers: { mail: (_data, job) => void ran.push(`${job.id} ${job.deliveries}`) },
    })
    await eventually(async () => expect(await group()).toMatchObject({ lag: 0, pending: 0 }))
    expect(ran.sort()).toEqual(ids.slice(3).map((id) => `${id} 1`))
  })

  test('of a group of which Redis does not know how many entries it has read makes its lag known', async () => {
    const ids = await publish(10)
    await redis.client.xgroup('CREATE', 'orders', 'main', ids[4] ?? '')
    await deliver(2)
    expect(await group()).toMatchObject({ 'entries-read': null, lag: null })
    expect(await rewind({ to: ids[2] ?? '', execute: true })).toMatchObject({ again: 5, lagBefore: null, lagAfter: 8 })
    expect(await group()).toMatchObject({ 'entries-read': 2, lag: 8 })
    await deliver(8)
    expect(await group()).toMatchObject({ 'entries-read': 10, lag: 0 })
  })

  test('leaves lag exact where the beginning of the history was trimmed', async () => {
    const ids = await arrange({ entries: 10, read: 10, open: 0 })
    await redis.client.xtrim('orders', 'MINID', ids[3] ?? '')
    await rewind({ to: ids[5] ?? '', execute: true })
    expect(await group()).toMatchObject({ lag: 5 })
    await redis.client.xgroup('SETID', 'orders', 'main', ids[7] ?? '') // makes it unknown
    await rewind({ to: ids[4] ?? '', execute: true })
    expect(await group()).toMatchObject({ lag: 6 })
  })

  test('counts page by page what is more than one step may touch, large entries too', async () => {
    const pipeline = redis.client.pipeline()
    for (let n = 0; n < 40; n++) pipeline.xadd('orders', '*', 'job', 'mail', 'data', `"${'x'.repeat(300_000)}"`)
    for (let n = 0; n < 1300; n++) pipeline.xadd('orders', '*', 'job', 'mail', 'data', '1')
    await pipeline.exec()
    await redis.client.xgroup('CREATE', 'orders', 'main', '$')
    const seen: number[] = []
    const [first] = await redis.client.xrange('orders', '-', '+', 'COUNT', 1)
    const told = await rewind({ to: first?.[0] ?? '', execute: true, onProgress: (entries) => seen.push(entries) })
    expect(told).toMatchObject({ again: 1340, lagAfter: 1340 })
    expect(await group()).toMatchObject({ lag: 1340 })
    expect(seen.at(-1)).toBe(1340)
    expect(Math.max(...seen.map((entries, at) => entries - (seen[at - 1] ?? 0)))).toBeLessThanOrEqual(500)
    expect(seen.length).toBeGreaterThan(10)
  })

  test('is told first: how many jobs that would be, and nothing is touched', async () => {
    const ids = await arrange()
    const before = await everything()
    expect(await rewind({ to: ids[0] ?? '' })).toMatchObject({
      executed: false,
      again: 8,
      pendingAgain: 2,
      lagAfter: 10,
    })
    expect(await everything()).toEqual(before)
  })

  test('touches no other group, and neither retries nor what the group sees again', async () => {
    const ids = await arrange()
    await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
    await redis.client.xreadgroup('GROUP', 'billing', 'w', 'COUNT', 4, 'STREAMS', 'orders', '>')
    await redis.client.xadd(redeliveryKey('orders', 'main'), '*', 'job', 'mail', 'id', ids[1] ?? '')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 1, 'STREAMS', redeliveryKey('orders', 'main'), '>')
    const others = async () => [
      await group(redis.client, 'billing'),
      await pending(redis.client, 'orders', 'billing'),
      (await pending(redis.client, redeliveryKey('orders', 'main'))).map(({ id, deliveries }) => ({ id, deliveries })),
    ]
    const before = await others()
    await rewind({ to: ids[1] ?? '', execute: true })
    const after = await others()
    expect([after[0], after[2]]).toEqual([before[0], before[2]])
    expect(after[1]).toHaveLength(4)
  })

  test('leaves pending what lies before the point', async () => {
    const ids = await arrange({ read: 8, open: 5 })
    expect(await rewind({ to: ids[5] ?? '', execute: true })).toMatchObject({ again: 3, pendingAgain: 3 })
    expect((await pending(redis.client)).map(({ id }) => id)).toEqual([ids[3], ids[4]])
    // Made again where a group that vanished would miss nothing: before the oldest that is pending.
    expect((await settings())['group:main:floor']).toBe(idBefore(ids[3] ?? ''))
  })

  test('is noted with the time, the point and where the group was, the last hundred times', async () => {
    const ids = await arrange({ entries: 3, read: 2, open: 0 })
    const sinceMs = await serverMs(redis.client)
    await rewind({ to: ids[0] ?? '', execute: true })
    const [[atMs, toId, fromId] = []] = (await notes()).map((note) => note.split(':'))
    expect([toId, fromId]).toEqual([idBefore(ids[0] ?? ''), ids[1]])
    expect(Number(atMs)).toBeGreaterThanOrEqual(sinceMs)
    await redis.client.hset(settingsKey('orders'), 'group:main:rewinds', Array(100).fill('5:1-1:2-2').join(' '))
    await deliver(1)
    await rewind({ to: ids[0] ?? '', execute: true })
    expect(await notes()).toHaveLength(100)
    expect((await notes()).at(-1)).toMatch(`:${idBefore(ids[0] ?? '')}:${ids[0]}`)
  })

  test('asked again before the group has read on finds nothing to do, and changes nothing', async () => {
    const ids = await arrange()
    await rewind({ to: ids[3] ?? '', execute: true })
    const before = await everything()
    const again = await rewind({ to: ids[3] ?? '', execute: true })
    expect(again).toMatchObject({ again: 0, firstId: null, lagBefore: 7, lagAfter: 7 })
    expect(await everything()).toEqual(before)
  })

  test('by two at once sets the group back once', async () => {
    const ids = await arrange()
    const both = await Promise.all([1, 2].map(() => rewind({ to: ids[3] ?? '', execute: true })))
    expect(both.map(({ executed }) => executed)).toEqual([true, true])
    expect(await notes()).toHaveLength(1)
    expect(await group()).toMatchObject({ lag: 7 })
  })

  test('says how many jobs of the range the group has elsewhere too, where they run beside it', async () => {
    const ids = await arrange()
    const index = {
      [ids[0] ?? '']: 'scheduled',
      [ids[4] ?? '']: 'scheduled',
      [ids[5] ?? '']: 'dead 1-1',
      [ids[9] ?? '']: 'dead 1-2',
    }
    await redis.client.hset(indexKey('orders', 'main'), { ...index, [ids[6] ?? '']: 'redelivery 1-1', odd: 'dead' })
    expect(await rewind({ to: ids[3] ?? '' })).toMatchObject({ also: { scheduled: 1, dead: 1, redelivery: 1 } })
    const many = Object.fromEntries(Array.from({ length: 10_001 }, (_, n) => [`${n}-0`, 'dead 1-1']))
    await redis.client.hset(indexKey('orders', 'main'), many)
    expect(await rewind({ to: ids[3] ?? '' })).toMatchObject({ also: null, again: 5 })
  })

  test('can be made while Redis is out of memory', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const ids = await publish(5, client)
    await client.xgroup('CREATE', 'orders', 'main', '$')
    await client.config('SET', 'maxmemory', 1)
    expect(await rewind({ to: ids[1] ?? '', execute: true }, server.url)).toMatchObject({ again: 4 })
    expect(await group(client)).toMatchObject({ lag: 4 })
  })

  test('ends while it counts when its signal aborts, and nothing is changed', async () => {
    const ids = await arrange()
    const before = await everything()
    const ending = new AbortController()
    const onProgress = () => ending.abort(new Error('enough'))
    const asked = rewind({ to: ids[0] ?? '', execute: true, signal: ending.signal, onProgress })
    await expect(asked).rejects.toThrow('enough')
    expect(await everything()).toEqual(before)
  })
})

describe('the point', () => {
  test.each([
    ['an entry: that one runs again too', (ids: string[]) => ids[3] ?? '', 5],
    ['between two entries', (ids: string[]) => `${ids[3]?.split('-')[0]}-99`, 4],
    ['the last entry that was delivered', (ids: string[]) => ids[7] ?? '', 1],
    ['right behind it, where the group is', (ids: string[]) => `${ids[7]?.split('-')[0]}-1`, 0],
    ['before the first entry there ever was', () => '0-1', 8],
    ['the beginning of time', () => 0, 8],
    ['a time', (ids: string[]) => Number(ids[3]?.split('-')[0]), 5],
  ])('may be %s', async (_what, pointOf, again) => {
    const ids: string[] = []
    for (let n = 0; n < 10; n++)
      ids.push((await redis.client.xadd('orders', `${1000 * (n + 1)}-0`, 'job', 'mail')) ?? '')
    await newInspector(redis.url).groups.create('orders', 'main', { startAt: 'oldest' })
    await deliver(8, 2)
    expect(await rewind({ to: pointOf(ids), execute: true })).toMatchObject({
      again,
      lagBefore: 2,
      lagAfter: 2 + again,
    })
    expect(await group()).toMatchObject({ lag: 2 + again })
  })

  test('ahead of where the group is is refused, for entries would be skipped', async () => {
    const ids = await arrange()
    const before = await everything()
    for (const to of [ids[9] ?? '', (await serverMs(redis.client)) + 3_600_000]) {
      await expect(rewind({ to, execute: true })).rejects.toMatchObject({
        code: 'ERR_OPTION',
        message: expect.stringMatching(/is ahead of that: a rewind skips nothing; .+; nothing was changed$/) as string,
      })
    }
    expect(await everything()).toEqual(before)
    // Where nothing lies in between, nothing would be skipped, and nothing is to be run again.
    await deliver(2)
    await redis.client.xadd('orders', `${Number(ids[9]?.split('-')[0]) + 50}-0`, 'job', 'mail')
    expect(await rewind({ to: `${Number(ids[9]?.split('-')[0]) + 1}-0` })).toMatchObject({ again: 0 })
  })

  test('before the history begins is refused, with where it begins', async () => {
    const ids = await arrange({ entries: 10, read: 10, open: 0 })
    await redis.client.xtrim('orders', 'MINID', ids[4] ?? '')
    await expect(rewind({ to: ids[3] ?? '', execute: true })).rejects.toMatchObject({
      code: 'ERR_HISTORY',
      message: expect.stringContaining(`with entry ${ids[4]}, and ${ids[3]} is of`) as string,
    })
    expect(await rewind({ to: ids[4] ?? '' })).toMatchObject({ again: 6 })
    await redis.client.xtrim('orders', 'MAXLEN', 0)
    await expect(rewind({ to: ids[5] ?? '' })).rejects.toMatchObject({
      code: 'ERR_HISTORY',
      message: expect.stringContaining('holds no entries any more') as string,
    })
  })

  test('of a stream that has no entries yet has nothing to run again', async () => {
    await newInspector(redis.url).groups.create('orders', 'main', { startAt: 'oldest' })
    expect(await rewind({ to: 0, execute: true })).toMatchObject({ again: 0, lagAfter: 0 })
    await publish(3)
    expect(await rewind({ to: 0, execute: true })).toMatchObject({ again: 0, lagAfter: 3 })
  })

  test.each([[{ to: '5' }], [{ to: -1 }], [{ to: 1.5 }], [{}], [{ to: 5, excute: true }]])(
    '%j is refused before Redis is asked',
    async (options) => {
      await expect(rewind(options as RewindOptions)).rejects.toMatchObject({ code: 'ERR_OPTION' })
      expect(await redis.client.dbsize()).toBe(0)
    },
  )

  test('of a stream or group that there is not is refused, with the one that may have been meant', async () => {
    await arrange()
    const { groups } = newInspector(redis.url)
    await expect(groups.rewind('order', 'main', { to: 0 })).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await expect(groups.rewind('orders', 'mian', { to: 0 })).rejects.toMatchObject({
      code: 'ERR_UNKNOWN_GROUP',
      message: expect.stringContaining('did you mean main?') as string,
    })
  })
})

describe('delayed publishes', () => {
  test('run again with the id that they were published with', async () => {
    const producer = new Producer({ redis: redis.url, logger: false })
    onEnd(async () => void (await producer.close()))
    const ran: string[] = []
    const handlers = { mail: (_data: unknown, job: { id: string }) => void ran.push(job.id) }
    const worker = await startWorker({ redis: redis.url, handlers })
    const { id } = await producer.publish('mail', {}, { stream: 'orders', delayMs: 5 })
    await eventually(() => expect(ran).toEqual([id]))
    await worker.stop()
    await producer.publish('mail', {}, { stream: 'orders', delayMs: 3_600_000 })
    expect(await rewind({ to: 0, execute: true })).toMatchObject({ again: 1 })
    await startWorker({ redis: redis.url, handlers })
    await eventually(() => expect(ran).toEqual([id, id]))
  })
})

describe('what is to run again', () => {
  test('is kept by retention from the rewind on', async () => {
    const ids = await arrange({ entries: 6, read: 6, open: 0 })
    const inspector = newInspector(redis.url)
    await rewind({ to: ids[2] ?? '', execute: true })
    await inspector.trim('orders', { maxAgeMs: 0, execute: true })
    expect((await redis.client.xrange('orders', ids[2] ?? '', '+')).map(([id]) => id)).toEqual(ids.slice(2))
    await startWorker({ redis: redis.url, handlers: { mail() {} } })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 4 }))
  })

  test('and was trimmed after it was counted is not taken for less: the rewind is refused', async () => {
    const ids = await arrange({ entries: 6, read: 6, open: 0 })
    await redis.client.xtrim('orders', 'MINID', ids[4] ?? '')
    const asked = { group: 'main', presentMs: 5000, force: false, toId: idBefore(ids[2] ?? ''), firstId: ids[2] ?? '' }
    const counted = { countedTo: ids[5] ?? '', entriesRead: 2, lookedMs: await serverMs(redis.client) }
    const before = await everything()
    expect(await setGroupBack(redis.client, 'orders', { ...asked, ...counted })).toEqual({
      how: 'trimmed',
      oldestId: ids[4],
    })
    expect(await everything()).toEqual(before)
  })

  test('is found by a group that vanishes afterwards, since it is made again at the point', async () => {
    const ids = await arrange({ entries: 4, read: 4, open: 0 })
    await rewind({ to: ids[1] ?? '', execute: true })
    await redis.client.xgroup('DESTROY', 'orders', 'main')
    const ran: string[] = []
    await startWorker({ redis: redis.url, handlers: { mail: (_data, job) => void ran.push(job.id) } })
    await eventually(() => expect(ran.sort()).toEqual(ids.slice(1)))
  })
})

describe('jobs that are pending', () => {
  test('run once more and not twice, also when their leases ran out before', async () => {
    const worker = await startWorkerProcess({ redis: redis.url, concurrency: 5 })
    const ids = await Promise.all(Array.from({ length: 5 }, () => add(redis.client, 'slow', { ms: 3_600_000 })))
    await eventually(() => expect(worker.log().filter((line) => line.startsWith('started'))).toHaveLength(5))
    worker.signal('SIGKILL')
    await worker.exited
    await eventually(async () => expect(await rewind({ to: ids[0] ?? '' })).toMatchObject({ workers: 0 }))
    expect(await rewind({ to: ids[0] ?? '', execute: true })).toMatchObject({ again: 5, pendingAgain: 5 })
    const ran: string[] = []
    await startWorker({
      redis: redis.url,
      handlers: { slow: (_data, job) => void ran.push(`${job.id} ${job.deliveries}`) },
    })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 5 }))
    // A claim pass after the lease finds nothing of them.
    await add(redis.client, 'slow')
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 6 }))
    expect(ran.slice(0, 5).sort()).toEqual(ids.map((id) => `${id} 1`).sort())
    expect(ran).toHaveLength(6)
  })

  test('are refused where there are more of them than one step may settle', async () => {
    const ids = await arrange({ entries: 501, read: 501, open: 501 })
    const before = await group()
    await expect(rewind({ to: ids[0] ?? '', execute: true })).rejects.toMatchObject({
      code: 'ERR_PENDING',
      message: expect.stringContaining('let a worker finish them first; nothing was changed') as string,
    })
    expect(await group()).toEqual(before)
    expect(await rewind({ to: ids[1] ?? '', execute: true })).toMatchObject({ again: 500, pendingAgain: 500 })
    expect(await group()).toMatchObject({ pending: 1, lag: 500 })
  })
})

describe('under a live worker', () => {
  const heard = () => eventually(async () => expect(await rewind({ to: 0 })).toMatchObject({ workers: 1 }))

  test('a rewind is refused, and nothing is changed', async () => {
    await startWorker({ redis: redis.url, handlers: { mail() {} } })
    await publish(3)
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 3 }))
    await heard()
    await expect(rewind({ to: 0, execute: true })).rejects.toMatchObject({
      code: 'ERR_WORKERS_ALIVE',
      message: expect.stringMatching(
        /has 1 live worker; stop them first, or use `force`.+nothing was changed$/,
      ) as string,
    })
    expect(await notes()).toEqual([])
  })

  test('a forced one runs every job of the range again; what ran meanwhile ends as one completion each', async () => {
    const { wait, open } = gate()
    const ran = new Map<string, number>()
    const handlers = {
      mail: (_data: unknown, { id }: { id: string }) => void ran.set(id, (ran.get(id) ?? 0) + 1),
      held: async (_data: unknown, { id }: { id: string }) => {
        ran.set(id, (ran.get(id) ?? 0) + 1)
        if (ran.get(id) === 1) await wait()
      },
    }
    const worker = await startWorker({ redis: redis.url, handlers, concurrency: 4 })
    const ids = await publish(20)
    const held = [await add(redis.client, 'held'), await add(redis.client, 'held')]
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 20 }))
    await eventually(() => expect(ran.size).toBe(22))
    await heard()
    const told = await rewind({ to: ids[5] ?? '', execute: true, force: true })
    expect(told).toMatchObject({ again: 17, pendingAgain: 2, lagAfter: 17, workers: 1 })
    await eventually(() => expect([...ran.values()].reduce((sum, runs) => sum + runs)).toBe(22 + 17))
    open()
    await eventually(async () => expect(await group()).toMatchObject({ lag: 0, pending: 0 }))
    expect(ids.map((id) => ran.get(id))).toEqual(ids.map((_, at) => (at < 5 ? 1 : 2)))
    expect(held.map((id) => ran.get(id))).toEqual([2, 2])
    await eventually(async () => expect((await tally(redis.client))['completed']).toBe(20 + 15 + 2))
    expect((await tally(redis.client))['late'] ?? 0).toBeLessThanOrEqual(2)
    expect((await worker.stop()).unsettled).toBe(0)
    expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(0)
  })

  test('a forced one while it reads a backlog loses nothing, whatever it was given in between', async () => {
    const JOBS = 3000
    const pipeline = redis.client.pipeline()
    for (let n = 0; n < JOBS; n++) pipeline.xadd('orders', '*', 'job', 'mail', 'data', String(n))
    const ids = ((await pipeline.exec()) ?? []).map(([, id]) => id as string)
    const ran = new Map<string, number>()
    await startWorker({
      redis: redis.url,
      handlers: { mail: (_data, { id }) => void ran.set(id, (ran.get(id) ?? 0) + 1) },
    })
    await eventually(() => expect(ran.size).toBeGreaterThan(300), { intervalMs: 1 })
    const { again, fromId } = await rewind({ to: ids[100] ?? '', execute: true, force: true })
    expect(again).toBe(ids.indexOf(fromId) - 99)
    await eventually(async () => expect(await group()).toMatchObject({ lag: 0, pending: 0 }))
    expect(ids.filter((id) => !ran.has(id))).toEqual([])
    // What had begun when the group was set back may have ended only then: it ran before and is run again.
    expect(ids.slice(100, 290).filter((id) => ran.get(id) !== 2)).toEqual([])
    expect(ids.slice(ids.indexOf(fromId) + 1).filter((id) => ran.get(id) !== 1)).toEqual([])
  })
})

describe('cut off from Redis', () => {
  const isSetBack: Match = ([name, sha]) => name === 'evalsha' && sha === setBack.sha

  test.each(['before', 'after'] as const)('%s the group was set back, it is set back once', async (moment) => {
    await redis.client.script('LOAD', setBack.lua)
    const ids = await arrange()
    const proxy = await startProxy(redis.url)
    const happened = moment === 'before' ? proxy.cutBefore(isSetBack) : proxy.swallowReplyTo(isSetBack)
    const told = await rewind({ to: ids[3] ?? '', execute: true }, proxy.url)
    await happened
    expect(told).toMatchObject({ executed: true, again: 5, fromId: ids[7] })
    expect(await notes()).toHaveLength(1)
    expect(await group()).toMatchObject({ lag: 7, pending: 0 })
  })

  test('after it, nothing is set back once more though the group has read on meanwhile', async () => {
    await redis.client.script('LOAD', setBack.lua)
    const ids = await arrange()
    const proxy = await startProxy(redis.url)
    const happened = proxy.swallowReplyTo(isSetBack)
    const again = proxy.holdBefore((command) => isSetBack(command))
    const told = rewind({ to: ids[3] ?? '', execute: true }, proxy.url)
    await happened
    await again.held
    await deliver(7)
    again.release()
    expect(await told).toMatchObject({ executed: true, again: 5 })
    expect(await notes()).toHaveLength(1)
    expect(await group()).toMatchObject({ lag: 0 })
  })
})
