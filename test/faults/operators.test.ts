import type { Redis } from 'ioredis'
import { describe, expect, test } from 'vitest'
import { Producer, type HandlerFunction } from '../../src/index.ts'
import { DEAD_BATCH } from '../../src/redis/dead.ts'
import { compareIds } from '../../src/redis/entry-id.ts'
import { deadKey, groupScheduledKey, indexKey, redeliveryKey, scheduledKey } from '../../src/redis/keys.ts'
import { cancelDelayed, cancelInGroup } from '../../src/redis/scripts/cancel.ts'
import { redriveDeadLetters } from '../../src/redis/scripts/dead.ts'
import type { Script } from '../../src/redis/scripts/script.ts'
import { promoteNow } from '../../src/redis/scheduling.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { buryMany, DEAD, makeGroup, REDELIVERY, redelivered } from '../helpers/dead.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { startProgram } from '../helpers/program.ts'
import { startProxy, type Match } from '../helpers/proxy.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, pending, startWorker, startWorkerProcess, tally } from '../helpers/workers.ts'
import { millrace } from '../cli/run.ts'

/** The operator's commands, killed in the middle: what they were to do is done once, whoever does the rest. */

const redis = withRedis()
const HOUR_MS = 3_600_000
const LEASE_MS = 10_000

/** Whether the command is killed before its script reaches Redis, or after that ran and before the answer is heard. */
const MOMENTS = ['before', 'after'] as const
type Moment = (typeof MOMENTS)[number]

/** Runs the command and kills it at its nth call of the script. */
async function killAt(args: readonly string[], script: Script, [moment, n]: readonly [Moment, number]): Promise<void> {
  // A server that does not know the script yet is asked twice, the second time by its text.
  await redis.client.script('LOAD', script.lua)
  let calls = 0
  const match: Match = ([name, sha]) => name === 'evalsha' && sha === script.sha && ++calls === n
  const proxy = await startProxy(redis.url)
  const happened = moment === 'before' ? proxy.cutBefore(match) : proxy.swallowReplyTo(match)
  const program = startProgram(args, { env: { MILLRACE_REDIS_URL: proxy.url } })
  const end = await Promise.race([happened.then(() => 'killed' as const), program.exited])
  program.signal('SIGKILL')
  await program.exited
  await proxy.stop()
  expect([end, program.stderr]).toEqual(['killed', expect.anything()])
}

const run = (args: readonly string[]) => millrace(args, { redis: redis.url })

/** Every place in which the group has a job, or in which it waits to come to the group. */
async function placesOf(client: Redis, id: string, group = 'main'): Promise<string[]> {
  const places: string[] = []
  if ((await client.zscore(scheduledKey('orders'), id)) !== null) places.push('delayed')
  if ((await client.zscore(groupScheduledKey('orders', group), id)) !== null) places.push('scheduled')
  for (const [, fields] of await client.xrange(deadKey('orders', group), '-', '+')) {
    if (fields[fields.indexOf('dead-id') + 1] === id) places.push('dead')
  }
  for (const key of ['orders', redeliveryKey('orders', group)]) {
    const held = (await pending(client, key, group)).map((row) => row.id)
    const groups = (await client.call('XINFO', 'GROUPS', key)) as string[][]
    const own = groups.find((flat) => flat[flat.indexOf('name') + 1] === group) ?? []
    const last = own[own.indexOf('last-delivered-id') + 1] ?? '0-0'
    for (const [entryId, fields] of await client.xrange(key, '-', '+')) {
      if ((fields.includes('id') ? fields[fields.lastIndexOf('id') + 1] : entryId) !== id) continue
      if (held.includes(entryId)) places.push('pending')
      else if (compareIds(entryId, last) > 0) places.push('waiting')
    }
  }
  return places
}

/** A worker that lets each job end as it is told, until `what` holds. */
async function work(
  handler: HandlerFunction<unknown>,
  what: () => Promise<void>,
  { attempts = 1, group = 'main' } = {},
): Promise<void> {
  const retry = { attempts, delayMs: HOUR_MS }
  const startAt = 'oldest'
  const handlers = { mail: handler, marker() {} }
  const worker = await startWorker({ redis: redis.url, group, startAt, leaseMs: LEASE_MS, retry, handlers })
  await eventually(what)
  await worker.stop()
}

const fail = () => {
  throw new TypeError('no such address')
}

describe('millrace dead redrive', () => {
  test('of thousands of dead letters, killed again and again while a worker runs what comes back, gives each of them back once', async () => {
    const JOBS = 19 * DEAD_BATCH
    const pipeline = redis.client.pipeline()
    for (let n = 0; n < JOBS; n++) pipeline.xadd('orders', '*', 'job', 'mail', 'data', String(n))
    const ids = ((await pipeline.exec()) ?? []).map(([, id]) => id as string)
    await work(fail, async () => expect(await tally(redis.client)).toEqual({ dead: JOBS }))
    const ran = new Map<string, number>()
    await startWorker({
      redis: redis.url,
      leaseMs: LEASE_MS,
      concurrency: 100,
      handlers: { mail: (_data, { id }) => void ran.set(id, (ran.get(id) ?? 0) + 1) },
    })
    const redrive = ['dead', 'redrive', 'orders', 'main', '--execute']
    let redriven = 0
    for (const n of [1, 2, 7]) {
      for (const moment of MOMENTS) {
        await killAt(redrive, redriveDeadLetters, [moment, n])
        redriven += (moment === 'before' ? n - 1 : n) * DEAD_BATCH
        expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(JOBS - redriven)
        expect((await tally(redis.client))['redriven'] ?? 0).toBe(redriven)
      }
    }
    const { code, stderr } = await run(redrive)
    const rest = (JOBS - redriven).toLocaleString('en')
    expect([code, stderr]).toEqual([0, expect.stringContaining(`redriven ${rest} dead letters`)])

    await eventually(async () => {
      expect(await tally(redis.client)).toEqual({ dead: JOBS, redriven: JOBS, completed: JOBS })
    })
    expect([...ran.keys()].sort()).toEqual([...ids].sort())
    expect(new Set(ran.values())).toEqual(new Set([1]))
    expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(0)
    expect(await redis.client.hlen(indexKey('orders', 'main'))).toBe(0)
    expect(await redis.client.xlen(redeliveryKey('orders', 'main'))).toBeLessThanOrEqual(JOBS)
    expect(await pending(redis.client, redeliveryKey('orders', 'main'))).toEqual([])
    expect((await run(redrive)).code).toBe(4)
  }, 180_000)
})

describe('millrace dead redrive without a worker', () => {
  test('killed at fifteen points and asked again each time gives each letter back once, in the order of their deaths', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 38 * DEAD_BATCH)
    const redrive = ['dead', 'redrive', 'orders', 'main', '--rate', String(10 * DEAD_BATCH), '--execute']
    const moved = async () => (await redelivered(redis.client)).map(({ fields }) => fields['id'])
    let redriven = 0
    for (const n of [1, 2, 3, 4, 5]) {
      for (const moment of MOMENTS) {
        await killAt(redrive, redriveDeadLetters, [moment, n])
        redriven += (moment === 'before' ? n - 1 : n) * DEAD_BATCH
        expect(await moved()).toEqual(ids.slice(0, redriven))
      }
    }
    // The others wherever it happens to be when so many are back, by a row of numbers that is always the same.
    let state = 20_261_121
    for (let kills = 0; kills < 5; kills++) {
      state = (state * 48_271) % 2_147_483_647
      const at = (await moved()).length + 1 + (state % (2 * DEAD_BATCH))
      const program = startProgram(redrive, { env: { MILLRACE_REDIS_URL: redis.url } })
      await waitFor(async () => (await redis.client.xlen(REDELIVERY)) >= at, { intervalMs: 5, what: `${at} jobs` })
      program.signal('SIGKILL')
      await program.exited
      const back = await moved()
      expect(back).toEqual(ids.slice(0, back.length))
    }
    const { code } = await run(['dead', 'redrive', 'orders', 'main', '--execute'])
    expect([code, await moved(), await redis.client.xlen(DEAD)]).toEqual([0, ids, 0])
    expect(await tally(redis.client)).toEqual({ redriven: ids.length })
  }, 180_000)
})

/** A job of group main in a state, and what becomes of it there. */
interface State {
  readonly make: () => Promise<string>
  readonly place: string
  readonly script: Script
  /** Where a cancel leaves it. */
  readonly then: readonly string[]
  /** What a second cancel ends with once the first was carried out. */
  readonly again: number
  /** What the tally says when all is over. */
  readonly tally: Record<string, number>
}

const STATES: Record<string, State> = {
  'not delivered yet': {
    async make() {
      await work(fail, async () => {})
      return add(redis.client, 'mail')
    },
    place: 'waiting',
    script: cancelInGroup,
    // It stays where it is, noted as cancelled, until a worker comes to it.
    then: ['waiting'],
    again: 0,
    tally: { cancelled: 1 },
  },
  'waiting for its next attempt': {
    async make() {
      const id = await add(redis.client, 'mail')
      await work(fail, async () => expect(await tally(redis.client)).toEqual({ retried: 1 }), { attempts: 2 })
      return id
    },
    place: 'scheduled',
    script: cancelInGroup,
    then: [],
    again: 4,
    tally: { retried: 1, cancelled: 1 },
  },
  'published with a delay': {
    async make() {
      await work(fail, async () => {})
      const producer = new Producer({ redis: redis.url, logger: false })
      onEnd(async () => void (await producer.close()))
      return (await producer.publish('mail', {}, { stream: 'orders', delayMs: HOUR_MS })).id
    },
    place: 'delayed',
    script: cancelDelayed,
    then: [],
    again: 4,
    // It never came to the group, which has nothing to count.
    tally: {},
  },
  dead: {
    async make() {
      const id = await add(redis.client, 'mail')
      await work(fail, async () => expect(await tally(redis.client)).toEqual({ dead: 1 }))
      return id
    },
    place: 'dead',
    script: cancelInGroup,
    then: [],
    again: 4,
    tally: { dead: 1, discarded: 1 },
  },
}

/** Whatever could bring the job back is tried, and a worker runs what is there. */
async function expectNeverRuns(id: string, counts: Record<string, number>): Promise<void> {
  for (const group of [null, 'main']) {
    expect(await promoteNow(redis.client, { stream: 'orders', group }, [id])).toEqual([])
  }
  expect((await run(['dead', 'redrive', 'orders', 'main', '--execute'])).code).toBe(4)
  await add(redis.client, 'marker')
  const ran: string[] = []
  const all = { ...counts, completed: 1 }
  await work(
    (_data, job) => void ran.push(job.id),
    async () => expect(await tally(redis.client)).toEqual(all),
  )
  expect(ran).toEqual([])
  expect(await placesOf(redis.client, id)).toEqual([])
  expect(await redis.client.hlen(indexKey('orders', 'main'))).toBe(0)
  expect(await redis.client.keys('*:scheduled*')).toEqual([])
}

describe.each(MOMENTS)('millrace cancel, killed %s its script ran and then repeated,', (moment) => {
  test.each(Object.entries(STATES))('cancels once a job that is %s, and it never runs', async (_state, state) => {
    const id = await state.make()
    expect(await placesOf(redis.client, id)).toEqual([state.place])
    await killAt(['cancel', 'orders', id], state.script, [moment, 1])

    expect(await placesOf(redis.client, id)).toEqual(moment === 'before' ? [state.place] : state.then)
    expect((await run(['cancel', 'orders', id])).code).toBe(moment === 'before' ? 0 : state.again)
    expect(await placesOf(redis.client, id)).toEqual(state.then)
    await expectNeverRuns(id, state.tally)
  })

  test('ends once a job that another process runs, and it runs nowhere else', async () => {
    const worker = await startWorkerProcess({ redis: redis.url, leaseMs: LEASE_MS })
    const id = await add(redis.client, 'slow', { ms: HOUR_MS })
    await worker.line(/^started /)
    await killAt(['cancel', 'orders', id], cancelInGroup, [moment, 1])
    const isOver = async () => {
      await worker.line(new RegExp(`^aborted ${id} `))
      await eventually(async () => expect(await tally(redis.client)).toEqual({ cancelled: 1 }))
    }
    if (moment === 'before') expect(await placesOf(redis.client, id)).toEqual(['pending'])
    else await isOver()

    expect((await run(['cancel', 'orders', id])).code).toBe(moment === 'before' ? 0 : 4)
    await isOver()
    expect(worker.log().filter((line) => line.startsWith('started'))).toHaveLength(1)
    worker.signal('SIGTERM')
    await worker.exited
    await expectNeverRuns(id, { cancelled: 1 })
  })

  test('between two groups leaves each of them with the job in one place, and then cancelled once', async () => {
    const id = await add(redis.client, 'mail')
    for (const group of ['billing', 'main']) {
      const isScheduled = async () => expect(await tally(redis.client, 'orders', group)).toEqual({ retried: 1 })
      await work(fail, isScheduled, { attempts: 2, group })
    }
    await killAt(['cancel', 'orders', id], cancelInGroup, [moment, 2])

    expect(await placesOf(redis.client, id, 'billing')).toEqual([])
    expect(await placesOf(redis.client, id, 'main')).toEqual(moment === 'before' ? ['scheduled'] : [])
    expect((await run(['cancel', 'orders', id])).code).toBe(moment === 'before' ? 0 : 4)
    for (const group of ['billing', 'main']) {
      expect(await placesOf(redis.client, id, group)).toEqual([])
      expect(await tally(redis.client, 'orders', group)).toEqual({ retried: 1, cancelled: 1 })
      expect(await redis.client.hlen(indexKey('orders', group))).toBe(0)
    }
    await expectNeverRuns(id, { retried: 1, cancelled: 1 })
  })
})
