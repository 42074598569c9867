import type { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import type { CancelResult, JobPlace } from '../src/index.ts'
import {
  cancelledKey,
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
} from '../src/redis/keys.ts'
import { cancelDelayed, cancelInGroup } from '../src/redis/scripts/cancel.ts'
import { newInspector } from './helpers/inspectors.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, serverMs, startServer, withRedis } from './helpers/redis.ts'
import { buryByHand, delayedId, promoteByHand, redeliverByHand, schedule, snapshot } from './helpers/scheduled.ts'
import { tally } from './helpers/workers.ts'

const redis = withRedis()

const inspect = (url = redis.url) => newInspector(url)

/** Makes the group with its redelivery stream, as a worker does. */
async function addGroup(group = 'main', client = redis.client): Promise<void> {
  await client.xgroup('CREATE', 'orders', group, '0', 'MKSTREAM')
  await client.xgroup('CREATE', redeliveryKey('orders', group), group, '0', 'MKSTREAM')
}

async function add(client = redis.client): Promise<string> {
  return (await client.xadd('orders', '*', 'job', 'mail')) as string
}

async function read(key = 'orders', group = 'main', client = redis.client): Promise<void> {
  await client.xreadgroup('GROUP', group, 'w', 'COUNT', 1, 'STREAMS', key, '>')
}

async function handBack(key: string, id: string, group = 'main', client = redis.client): Promise<void> {
  await client.xclaim(key, group, ':handback', 0, id, 'JUSTID')
}

const noted = (client = redis.client) => client.zrange(cancelledKey('orders'), 0, '-1')

/** A job of group main at a place: makes it, and gives its id. */
const MAKERS: Record<string, { was: JobPlace; make: (client?: Redis) => Promise<string> }> = {
  'not delivered yet': { was: 'waiting', make: add },
  'handed back': {
    was: 'waiting',
    async make(client = redis.client) {
      const id = await add(client)
      await read('orders', 'main', client)
      await handBack('orders', id, 'main', client)
      return id
    },
  },
  'with a worker': {
    was: 'running',
    async make(client = redis.client) {
      const id = await add(client)
      await read('orders', 'main', client)
      return id
    },
  },
  'in the redelivery stream': {
    was: 'redelivery',
    async make(client = redis.client) {
      const id = await settled(client)
      await redeliverByHand(client, id)
      return id
    },
  },
  'in the redelivery stream and handed back': {
    was: 'redelivery',
    async make(client = redis.client) {
      const id = await settled(client)
      const entryId = await redeliverByHand(client, id)
      await read(redeliveryKey('orders', 'main'), 'main', client)
      await handBack(redeliveryKey('orders', 'main'), entryId, 'main', client)
      return id
    },
  },
  'with a worker again': {
    was: 'running',
    async make(client = redis.client) {
      const id = await settled(client)
      await redeliverByHand(client, id)
      await read(redeliveryKey('orders', 'main'), 'main', client)
      return id
    },
  },
}

/** An entry that main has settled. */
async function settled(client = redis.client, group = 'main'): Promise<string> {
  const id = await add(client)
  await read('orders', group, client)
  await client.xack('orders', group, id)
  return id
}

describe('a cancel', () => {
  test('of a delayed publish takes it out, and it is in no group', async () => {
    await addGroup()
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    expect(await inspect().cancel('orders', id)).toEqual({
      stream: 'orders',
      id,
      cancelled: true,
      delayed: true,
      groups: [],
    })
    expect(await redis.client.exists(scheduledKey('orders'), scheduledJobsKey('orders'), cancelledKey('orders'))).toBe(
      0,
    )
    await expect(inspect().cancel('orders', id)).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: expect.stringContaining(`stream orders has no job ${id}`) as string,
    })
  })

  test('of a delayed publish works before there is a stream', async () => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    expect(await inspect().cancel('orders', id)).toMatchObject({ cancelled: true, delayed: true })
    await expect(inspect().cancel('orders', id)).rejects.toThrow('stream orders does not exist')
  })

  test('of a delayed publish for one group is refused: it would be cancelled for all', async () => {
    await addGroup()
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    const before = await snapshot(redis.client)
    await expect(inspect().cancel('orders', id, { group: 'main' })).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: expect.stringContaining('cancel it without a group') as string,
    })
    expect(await snapshot(redis.client)).toEqual(before)
  })

  test('of a retry takes it out, counts it, and leaves no note', async () => {
    await addGroup()
    const id = await settled()
    await schedule(redis.client, { id, group: 'main', attempt: 1 })
    expect(await inspect().cancel('orders', id)).toEqual({
      stream: 'orders',
      id,
      cancelled: true,
      delayed: false,
      groups: [{ group: 'main', was: 'scheduled', cancelled: true }],
    })
    const keys = [groupScheduledKey, groupScheduledJobsKey, indexKey].map((keyOf) => keyOf('orders', 'main'))
    expect(await redis.client.exists(...keys, cancelledKey('orders'))).toBe(0)
    expect(await tally(redis.client)).toEqual({ cancelled: 1 })
    expect(await inspect().cancel('orders', id)).toMatchObject({
      cancelled: false,
      groups: [{ group: 'main', was: 'finished', cancelled: false }],
    })
  })

  test('of a dead letter discards it, counts it, and leaves no note', async () => {
    await addGroup()
    const [id, other] = [await settled(), await settled()]
    for (const one of [id, other]) await buryByHand(redis.client, one)
    expect((await inspect().cancel('orders', id)).groups).toEqual([{ group: 'main', was: 'dead', cancelled: true }])
    expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(1)
    expect(await redis.client.hkeys(indexKey('orders', 'main'))).toEqual([other])
    expect(await redis.client.exists(cancelledKey('orders'))).toBe(0)
    expect(await tally(redis.client)).toEqual({ discarded: 1 })
  })

  test.each(Object.entries(MAKERS))('of a job that is %s notes it for the workers', async (_where, { was, make }) => {
    await addGroup()
    const id = await make()
    const before = await snapshot(redis.client)
    const result = await inspect().cancel('orders', id)
    expect(result).toMatchObject({ cancelled: true, delayed: false, groups: [{ group: 'main', was, cancelled: true }] })
    expect(await noted()).toEqual([id])
    expect(await inspect().cancel('orders', id)).toEqual(result)
    const after = await snapshot(redis.client)
    delete after[cancelledKey('orders')]
    expect(after).toEqual(before)
  })

  test('of a job that every group has settled changes nothing and says so', async () => {
    for (const group of ['main', 'billing']) await addGroup(group)
    const id = await settled()
    await read('orders', 'billing')
    await redis.client.xack('orders', 'billing', id)
    const before = await snapshot(redis.client)
    expect(await inspect().cancel('orders', id)).toEqual({
      stream: 'orders',
      id,
      cancelled: false,
      delayed: false,
      groups: [
        { group: 'billing', was: 'finished', cancelled: false },
        { group: 'main', was: 'finished', cancelled: false },
      ],
    })
    expect(await snapshot(redis.client)).toEqual(before)
  })

  test('goes to all groups of the stream, each where it has the job, with one note for all', async () => {
    for (const group of ['dead', 'late', 'retry', 'runs', 'settled']) await addGroup(group)
    const id = await add()
    for (const group of ['dead', 'retry', 'runs', 'settled']) await read('orders', group)
    for (const group of ['dead', 'retry', 'settled']) await redis.client.xack('orders', group, id)
    await buryByHand(redis.client, id, 'dead')
    await schedule(redis.client, { id, group: 'retry' })
    const { groups } = await inspect().cancel('orders', id)
    expect(groups.map(({ group, was, cancelled }) => [group, was, cancelled])).toEqual([
      ['dead', 'dead', true],
      ['late', 'waiting', true],
      ['retry', 'scheduled', true],
      ['runs', 'running', true],
      ['settled', 'finished', false],
    ])
    expect(await noted()).toEqual([id])
  })

  test('for one group leaves the others alone, and its note names the group', async () => {
    for (const group of ['billing', 'main']) await addGroup(group)
    const id = await add()
    await schedule(redis.client, { id: '7-0', group: 'main' })
    await schedule(redis.client, { id: '7-0', group: 'billing' })
    expect((await inspect().cancel('orders', id, { group: 'billing' })).groups).toEqual([
      { group: 'billing', was: 'waiting', cancelled: true },
    ])
    await inspect().scheduled.cancel('orders', '7-0', { group: 'billing' })
    expect(await noted()).toEqual([`${id} billing`])
    expect(await redis.client.zrange(groupScheduledKey('orders', 'main'), 0, '-1')).toEqual(['7-0'])
    expect(await redis.client.exists(groupScheduledKey('orders', 'billing'))).toBe(0)
  })

  test('of a job of a stream without groups is noted for the first one', async () => {
    const id = await add()
    expect(await inspect().cancel('orders', id)).toEqual({
      stream: 'orders',
      id,
      cancelled: true,
      delayed: false,
      groups: [],
    })
    expect(await noted()).toEqual([id])
    await expect(inspect().cancel('orders', '7-0')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })

  test('sees a place that the index tells of wrongly, and goes by what is there', async () => {
    await addGroup()
    const [dead, scheduled, again] = [await settled(), await settled(), await settled()]
    await redis.client.hset(
      indexKey('orders', 'main'),
      dead,
      'dead 7-0',
      scheduled,
      'scheduled',
      again,
      'redelivery 7-0',
    )
    for (const id of [dead, scheduled, again]) {
      expect(await inspect().cancel('orders', id)).toMatchObject({ cancelled: false, groups: [{ was: 'finished' }] })
    }
  })

  test('finds a job in a redelivery stream whose group is gone: it would be delivered again', async () => {
    await addGroup()
    const id = await settled()
    await redeliverByHand(redis.client, id)
    await redis.client.xgroup('DESTROY', redeliveryKey('orders', 'main'), 'main')
    expect(await inspect().cancel('orders', id)).toMatchObject({ cancelled: true, groups: [{ was: 'redelivery' }] })
  })

  test('works where Redis is out of memory', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await addGroup('main', client)
    const ids = { waiting: await add(client), dead: '5-0', scheduled: '6-0' }
    await buryByHand(client, ids.dead)
    await schedule(client, { id: ids.scheduled, group: 'main' })
    await client.config('SET', 'maxmemory', '1')
    for (const [was, id] of Object.entries(ids)) {
      expect(await inspect(server.url).cancel('orders', id)).toMatchObject({ groups: [{ was, cancelled: true }] })
    }
    expect(await noted(client)).toEqual([ids.waiting])
  })
})

describe('a cancel changes nothing and fails', () => {
  async function refusal(id: string, stream = 'orders', group?: string) {
    const before = await snapshot(redis.client)
    const failure: unknown = await inspect()
      .cancel(stream, id, group === undefined ? {} : { group })
      .then(
        () => Promise.reject(new Error('expected a refusal')),
        (error: unknown) => error,
      )
    expect(await snapshot(redis.client)).toEqual(before)
    return failure
  }

  test('for an id that the stream never had', async () => {
    await addGroup()
    await redis.client.xadd('orders', '1795245552380-0', 'job', 'mail')
    await redis.client.xadd('orders', '1795245552390-0', 'job', 'mail')
    await redis.client.xgroup('SETID', 'orders', 'main', '$')
    for (const id of ['1795245552385-0', '1795245552391-0', '1795245552391-1000000000000001']) {
      expect(await refusal(id)).toMatchObject({
        code: 'ERR_NOT_FOUND',
        message: expect.stringContaining(`stream orders has no job ${id}`) as string,
      })
    }
  })

  test('for an id that is older than the history of the stream, and says since when that is', async () => {
    await addGroup()
    await redis.client.xadd('orders', '1795245552380-0', 'job', 'mail')
    for (const id of ['1795245552379-0', '1795245552379-1000000000000001']) {
      const history = 'it has history since 2026-11-21T07:19:12.380Z, the id is older'
      expect(await refusal(id)).toMatchObject({
        code: 'ERR_NOT_FOUND',
        message: `stream orders has no job ${id}: ${history}`,
      })
    }
  })

  test('for the id of an entry that carries another job', async () => {
    await addGroup()
    const entryId = (await redis.client.xadd('orders', '*', 'job', 'mail', 'id', '7-0')) as string
    expect(await refusal(entryId)).toMatchObject({ code: 'ERR_NOT_FOUND' })
  })

  test.each(['1', '1-x', '-1-0', '01-0', '1-00', '18446744073709551616-0', 'x'.repeat(100), ''])(
    'for %j, which is no job id',
    async (id) => {
      expect(await refusal(id)).toMatchObject({
        code: 'ERR_OPTION',
        message: expect.stringContaining('expected a job id such as 1795245552380-0, got ') as string,
      })
    },
  )

  test('for a stream or a group that does not exist', async () => {
    await addGroup()
    expect(await refusal('1-0', 'mails')).toMatchObject({ code: 'ERR_NOT_FOUND' })
    expect(await refusal('1-0', 'orders', 'mian')).toMatchObject({
      code: 'ERR_UNKNOWN_GROUP',
      message: expect.stringContaining('did you mean main?') as string,
    })
  })
})

describe('a delayed publish that has come into the stream', () => {
  test('is found there, whatever became of it', async () => {
    await addGroup()
    const id = await delayedId(redis.client)
    for (let n = 0; n < 700; n++) await add()
    const places: string[] = []
    const cancel = async () => places.push(...(await inspect().cancel('orders', id)).groups.map(({ was }) => was))
    await schedule(redis.client, { id })
    const entryId = await promoteByHand(redis.client, { id })
    await cancel()
    expect(await noted()).toEqual([id])
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    await cancel()
    await redis.client.xack('orders', 'main', entryId ?? '')
    await cancel()
    expect(places).toEqual(['waiting', 'running', 'finished'])
  })

  test('is found behind entries of more than a MiB, each call reading about one', async () => {
    await addGroup()
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    for (let n = 0; n < 12; n++) await redis.client.xadd('orders', '*', 'job', 'mail', 'data', 'x'.repeat(700_000))
    await promoteByHand(redis.client, { id })
    const calls = async () =>
      Number(/cmdstat_evalsha_ro:calls=(\d+)/.exec(await redis.client.info('commandstats'))?.[1] ?? 0)
    const before = await calls()
    expect((await inspect().cancel('orders', id)).groups).toEqual([{ group: 'main', was: 'waiting', cancelled: true }])
    expect((await calls()) - before).toBeGreaterThan(5)
  })

  test('is noted all the same if it is too far into the stream to be found, in every group that has it nowhere else', async () => {
    for (const group of ['billing', 'main']) await addGroup(group)
    const id = await schedule(redis.client, { id: await delayedId(redis.client) })
    const fill = "for i = 1, 25100 do redis.call('XADD', KEYS[1], '*', 'job', 'mail') end"
    await redis.client.eval(fill, 1, 'orders')
    await promoteByHand(redis.client, { id })
    await buryByHand(redis.client, id, 'billing')
    expect(await inspect().cancel('orders', id)).toMatchObject({
      cancelled: true,
      groups: [
        { group: 'billing', was: 'dead', cancelled: true },
        { group: 'main', was: 'unknown', cancelled: true },
      ],
    })
    expect(await noted()).toEqual([id])
  })
})

describe('the notes of what is cancelled', () => {
  const WEEK_MS = 7 * 24 * 3_600_000

  test('have rising scores, also after a clock that was ahead', async () => {
    await addGroup()
    const ahead = (await serverMs(redis.client)) + 3_600_000
    await redis.client.zadd(cancelledKey('orders'), ahead, '5-0')
    const ids = [await add(), await add()]
    for (const id of [...ids, ...ids]) await inspect().cancel('orders', id)
    const scores = await redis.client.zrange(cancelledKey('orders'), 0, '-1', 'WITHSCORES')
    expect(scores).toEqual(['5-0', `${ahead}`, ids[0], `${ahead + 3}`, ids[1], `${ahead + 4}`])
  })

  test('go after a week, when another is made, five hundred at a time', async () => {
    await addGroup()
    const now = await serverMs(redis.client)
    const fill = "for i = 1, 600 do redis.call('ZADD', KEYS[1], ARGV[1], i .. '-0') end"
    await redis.client.eval(fill, 1, cancelledKey('orders'), now - WEEK_MS - 60_000)
    await redis.client.zadd(cancelledKey('orders'), now - WEEK_MS + 60_000, 'young')
    const id = await add()
    await inspect().cancel('orders', id)
    expect(await noted()).toHaveLength(102)
    await inspect().cancel('orders', id)
    expect(await noted()).toEqual(['young', id])
  })

  test('are a hundred thousand at most: a cancel that needs another fails, one that needs none does not', async () => {
    for (const group of ['billing', 'main']) await addGroup(group)
    const fill = "for i = 1, 100000 do redis.call('ZADD', KEYS[1], ARGV[1], i .. '-1') end"
    await redis.client.eval(fill, 1, cancelledKey('orders'), await serverMs(redis.client))
    const id = await add()
    await schedule(redis.client, { id, group: 'billing' })
    await redis.client.xgroup('SETID', 'orders', 'billing', '$')
    await expect(inspect().cancel('orders', id)).rejects.toThrow(
      `cannot cancel job ${id} on orders: 100000 jobs are noted as cancelled already, each for 7 days; it is cancelled in billing only`,
    )
    expect(await redis.client.zcard(cancelledKey('orders'))).toBe(100_000)
    expect(await redis.client.exists(groupScheduledKey('orders', 'billing'))).toBe(0)
    expect(await inspect().cancel('orders', await buried())).toMatchObject({ cancelled: true })
  })

  async function buried(): Promise<string> {
    const id = '9-0'
    for (const group of ['billing', 'main']) await buryByHand(redis.client, id, group)
    return id
  }
})

/** Where group main, or the stream, has a job: every place, so that two are seen. */
async function placesOf(id: string): Promise<string[]> {
  const { client } = redis
  const places: string[] = []
  if ((await client.zscore(scheduledKey('orders'), id)) !== null) places.push('delayed')
  if ((await client.zscore(groupScheduledKey('orders', 'main'), id)) !== null) places.push('scheduled')
  for (const [place, key] of [
    ['stream', 'orders'],
    ['redelivery', redeliveryKey('orders', 'main')],
    ['dead', deadKey('orders', 'main')],
  ] as const) {
    for (const [entryId, fields] of await client.xrange(key, '-', '+')) {
      const at = fields.findIndex((name, index) => index % 2 === 0 && (name === 'id' || name === 'dead-id'))
      if ((at < 0 ? entryId : fields[at + 1]) !== id) continue
      const isSettled = place === 'stream' && (await isPassed(entryId))
      if (!isSettled) places.push(place)
    }
  }
  const hashes = [scheduledJobsKey('orders'), groupScheduledJobsKey('orders', 'main')]
  for (const key of hashes) if ((await client.hexists(key, id)) === 1) places.push('record')
  return places.filter((place) => place !== 'record' || !/delayed|scheduled/.test(places.join()))
}

/** Main has had the entry, and does not any more. */
async function isPassed(entryId: string): Promise<boolean> {
  const pending = await redis.client.xpending('orders', 'main', entryId, entryId, 1)
  const [group] = (await redis.client.xinfo('GROUPS', 'orders')) as string[][]
  const delivered = group?.[group.indexOf('last-delivered-id') + 1] ?? ''
  const [ms = 0, seq = 0] = entryId.split('-').map(Number)
  const [lastMs = 0, lastSeq = 0] = delivered.split('-').map(Number)
  return pending.length === 0 && (ms < lastMs || (ms === lastMs && seq <= lastSeq))
}

describe('a cancel whose connection fails', () => {
  const STATES: Record<
    string,
    { script: { sha: string }; make: () => Promise<string>; place: string; takes: boolean }
  > = {
    delayed: {
      script: cancelDelayed,
      place: 'delayed',
      takes: true,
      make: async () => schedule(redis.client, { id: await delayedId(redis.client) }),
    },
    scheduled: {
      script: cancelInGroup,
      place: 'scheduled',
      takes: true,
      make: async () => schedule(redis.client, { id: await settled(), group: 'main' }),
    },
    dead: {
      script: cancelInGroup,
      place: 'dead',
      takes: true,
      async make() {
        const id = await settled()
        await buryByHand(redis.client, id)
        return id
      },
    },
    running: { script: cancelInGroup, place: 'stream', takes: false, make: () => made('with a worker') },
    redelivery: {
      script: cancelInGroup,
      place: 'redelivery',
      takes: false,
      make: () => made('in the redelivery stream'),
    },
    waiting: { script: cancelInGroup, place: 'stream', takes: false, make: add },
  }
  const made = (where: string) => (MAKERS[where] as { make: () => Promise<string> }).make()

  test.each(['before its command', 'before its answer'])(
    '%s leaves every job in one place, and a second one says what is true',
    async (when) => {
      await addGroup()
      for (const { lua } of [cancelDelayed, cancelInGroup]) await redis.client.script('LOAD', lua)
      const proxy = await startProxy(redis.url)
      const inspector = inspect(proxy.url)
      for (let round = 0; round < 4; round++) {
        // What is not delivered yet comes last: what is read after it would be it.
        for (const [state, { script, make, place, takes }] of Object.entries(STATES)) {
          if (state === 'waiting' && round < 3) continue
          const id = await make()
          expect([state, await placesOf(id)]).toEqual([state, [place]])
          const match = ([name, sha]: string[]) => name === 'evalsha' && sha === script.sha
          const fault = when === 'before its command' ? proxy.cutBefore(match) : proxy.swallowReplyTo(match)
          await expect(inspector.cancel('orders', id)).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
          await fault
          const wasDone = when === 'before its answer'
          expect([state, await placesOf(id)]).toEqual([state, wasDone && takes ? [] : [place]])
          expect([state, (await noted()).includes(id)]).toEqual([state, wasDone && !takes])
          const again = inspector.cancel('orders', id)
          if (wasDone && state === 'delayed') await expect(again).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
          else
            expect([state, await told(again)]).toEqual([state, wasDone && takes ? ['finished', false] : [state, true]])
          expect([state, await placesOf(id)]).toEqual([state, takes ? [] : [place]])
        }
      }
      expect(await tally(redis.client)).toEqual({ cancelled: 4, discarded: 4 })
    },
  )

  async function told(cancelling: Promise<CancelResult>): Promise<[string, boolean]> {
    const { delayed, cancelled, groups } = await cancelling
    return [delayed ? 'delayed' : (groups[0]?.was ?? ''), cancelled]
  }
})

describe('a cancel that races with a promotion', () => {
  const later = <Told>(act: () => Promise<Told>) =>
    new Promise<Told>((resolve, reject) => setImmediate(() => void act().then(resolve, reject)))

  test.each([null, 'main'])(
    'never leaves a job in both places, nor one that runs unnoted (group %s)',
    async (group) => {
      await addGroup()
      const worker = redis.connect()
      const inspector = inspect()
      const ids: string[] = []
      for (let n = 0; n < 120; n++) {
        const id = group === null ? await delayedId(redis.client) : await settled()
        ids.push(await schedule(redis.client, { id, group }))
      }
      const outcomes: [CancelResult, string | null][] = []
      for (const [n, id] of ids.entries()) {
        const cancel = () => inspector.cancel('orders', id)
        const promote = () => promoteByHand(worker, { id, group })
        // One is first for certain, or the other, or both are under way at once.
        if (n % 4 === 0) outcomes.push([await cancel(), await promote()])
        else if (n % 4 === 1) outcomes.push(await promote().then(async (entryId) => [await cancel(), entryId]))
        else outcomes.push(await Promise.all([cancel(), n % 4 === 2 ? promote() : later(promote)]))
      }
      const notes = new Set(await noted())
      for (const [at, [result, entryId]] of outcomes.entries()) {
        const id = ids[at] ?? ''
        expect(result.cancelled).toBe(true)
        expect(notes.has(id)).toBe(entryId !== null)
        expect(await placesOf(id)).toEqual(entryId === null ? [] : [group === null ? 'stream' : 'redelivery'])
      }
    },
  )
})
