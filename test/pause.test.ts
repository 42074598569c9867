import { describe, expect, test } from 'vitest'
import { Producer, type Logger, type PauseOptions } from '../src/index.ts'
import { groupScheduledKey, settingsKey } from '../src/redis/keys.ts'
import { pauseInForce, pauseOf } from '../src/redis/pause.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { ask, portOf } from './helpers/health.ts'
import { newInspector } from './helpers/inspectors.ts'
import { awaitPulses } from './helpers/pulses.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { add, gate, LEASE_MS, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

const redis = withRedis()
const inspector = () => newInspector(redis.url)
const pause = (options: PauseOptions = {}) => inspector().pause('orders', options)
const resume = (options: { group?: string } = {}) => inspector().resume('orders', options)

const pulses = (count = 2, options: { workers?: number; of?: string } = {}) => awaitPulses(redis.client, count, options)

async function group(name = 'main'): Promise<{ lag: number | null; pending: number }> {
  const [stats] = await inspector().stats('orders')
  const { lag = null, pending: held = -1 } = stats?.groups.find((one) => one.group === name) ?? {}
  return { lag, pending: held }
}

/** A handler that notes what it ran, and at which delivery. */
function recorder() {
  const ran: string[] = []
  return {
    ran,
    handlers: {
      x: (_data: unknown, job: { id: string; deliveries: number }) => void ran.push(`${job.id} ${job.deliveries}`),
    },
  }
}

describe('a pause', () => {
  test('is in force within two pulses, in all processes; resumed, all that waited runs, once and uncharged', async () => {
    const { ran, handlers } = recorder()
    const other = await startWorkerProcess({ redis: redis.url })
    await startWorker({ redis: redis.url, handlers: { ...handlers, quick: handlers.x } })
    await add(redis.client, 'quick')
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
    await pulses(0, { workers: 2 })
    await pause()
    await pulses(2, { workers: 2 })

    for (let n = 0; n < 40; n++) await add(redis.client, 'quick')
    await pulses()
    expect(await group()).toEqual({ lag: 40, pending: 0 })
    expect(await tally(redis.client)).toEqual({ completed: 1 })
    await resume()
    await pulses()
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 41 }))
    const all = [...ran, ...other.log().map((line) => line.replace('ran ', ''))]
    expect(new Set(all).size).toBe(41)
    expect(all.every((line) => line.endsWith(' 1'))).toBe(true)
    await other.line(/begins no jobs/)
    await other.line(/the worker goes on/)
  })

  test('lets finish what runs, and what fails is tried again afterwards', async () => {
    const { wait, open } = gate()
    let runs = 0
    const handlers = {
      x: async () => {
        runs += 1
        if (runs > 1) return
        await wait()
        throw new Error('once')
      },
      y: wait,
    }
    await startWorker({ redis: redis.url, handlers, retry: { delayMs: 1 } })
    await add(redis.client, 'x')
    await add(redis.client, 'y')
    await eventually(async () => expect(await group()).toEqual({ lag: 0, pending: 2 }))
    await pause()
    await pulses()
    open()
    // The retry comes back to the group when it is due, and waits there.
    await eventually(async () => {
      expect(await tally(redis.client)).toEqual({ completed: 1, retried: 1 })
      expect(await redis.client.zcard(groupScheduledKey('orders', 'main'))).toBe(0)
    })
    await pulses()
    expect([runs, await group()]).toEqual([1, { lag: 1, pending: 0 }])
    await resume()
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2, retried: 1 }))
    expect(runs).toBe(2)
  })

  test('has what waits in a worker handed back, at no cost', async () => {
    await redis.client.call('XGROUP', 'CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const ids: string[] = []
    for (let n = 0; n < 4; n++) ids.push(await add(redis.client, 'x'))
    await redis.client.call('XREADGROUP', 'GROUP', 'main', 'ghost', 'STREAMS', 'orders', '>')
    await redis.client.call('XCLAIM', 'orders', 'main', 'ghost', 0, ...ids, 'IDLE', 600_000, 'JUSTID')
    const { wait, open } = gate()
    const started: string[] = []
    const handlers = {
      x: (_data: unknown, { id, deliveries }: { id: string; deliveries: number }) => (
        started.push(`${id} ${deliveries}`),
        wait()
      ),
    }
    await startWorker({ redis: redis.url, concurrency: 2, leaseMs: 30_000, handlers })
    await eventually(() => expect(started).toHaveLength(2))
    await pause()
    await eventually(async () => {
      const rows = (await pending(redis.client)).filter(({ consumer }) => consumer === ':handback')
      expect(rows.map(({ deliveries }) => deliveries)).toEqual([1, 1])
    })
    open()
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2 }))
    await pulses()
    expect(started).toHaveLength(2)
    await resume()
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 4 }))
    expect(started.sort()).toEqual(ids.map((id) => `${id} 2`).sort())
  })

  test('again and again while a backlog is read loses nothing, and charges nothing', async () => {
    const JOBS = 6000
    const pipeline = redis.client.pipeline()
    for (let n = 0; n < JOBS; n++) pipeline.xadd('orders', '*', 'job', 'x', 'data', String(n))
    const { ran, handlers } = recorder()
    await startWorker({ redis: redis.url, handlers, concurrency: 8, leaseMs: 600 })
    await startWorker({ redis: redis.url, handlers, concurrency: 8, leaseMs: 600 })
    for (let round = 0; round < 8; round++) {
      await add(redis.client, 'x')
      if (round === 1) await pipeline.exec()
      await pause()
      await pulses(1, { workers: 2 })
      await resume()
      await pulses(1, { workers: 2 })
    }
    await eventually(async () => expect((await tally(redis.client))['completed']).toBe(JOBS + 8))
    expect(new Set(ran).size).toBe(JOBS + 8)
    expect(ran).toHaveLength(JOBS + 8)
    expect(ran.filter((line) => !line.endsWith(' 1'))).toEqual([])
    expect(await group()).toEqual({ lag: 0, pending: 0 })
  })

  test('is over by itself when its time is up', async () => {
    const { ran, handlers } = recorder()
    await startWorker({ redis: redis.url, handlers })
    const { paused } = await pause({ forMs: 3000 })
    await pulses()
    const id = await add(redis.client, 'x')
    await eventually(() => expect(ran).toEqual([`${id} 1`]))
    expect(await serverMs(redis.client)).toBeGreaterThanOrEqual(paused.untilMs ?? Infinity)
    expect(await inspector().stats('orders')).toMatchObject([{ paused: null }])
  })

  test('is known to a worker that starts meanwhile before its first read', async () => {
    await startWorker({ redis: redis.url }).then((worker) => worker.stop())
    const id = await add(redis.client, 'x')
    await pause({ group: 'main' })
    const { ran, handlers } = recorder()
    await startWorker({ redis: redis.url, handlers })
    await pulses()
    expect(await group()).toEqual({ lag: 1, pending: 0 })
    await resume({ group: 'main' })
    await eventually(() => expect(ran).toEqual([`${id} 1`]))
  })

  test('keeps what a dead worker had until it is over: nobody claims it meanwhile', async () => {
    const dead = await startWorkerProcess({ redis: redis.url })
    const id = await add(redis.client, 'slow', { ms: 3_600_000 })
    await dead.line(/^started /)
    const ran: string[] = []
    await startWorker({
      redis: redis.url,
      handlers: { slow: (_data, job) => void ran.push(`${job.id} ${job.deliveries}`) },
    })
    await pause()
    await pulses()
    dead.signal('SIGKILL')
    await dead.exited
    await eventually(async () => expect((await pending(redis.client))[0]?.idleMs).toBeGreaterThan(2 * LEASE_MS))
    expect((await pending(redis.client)).map(({ consumer }) => consumer)).toEqual([dead.consumer])
    await resume()
    await eventually(() => expect(ran).toEqual([`${id} 2`]))
  })

  test('keeps no worker from stopping', async () => {
    const worker = await startWorker({ redis: redis.url })
    await pause()
    await pulses()
    await add(redis.client, 'none')
    expect(await worker.stop()).toEqual({ handedBack: 0, unsettled: 0 })
    expect(await group()).toEqual({ lag: 1, pending: 0 })
  })

  test('leaves a worker live and ready', async () => {
    const worker = await startWorker({ redis: redis.url, healthPort: 0, healthHost: '127.0.0.1' })
    await pause()
    // Longer than a worker may be without a round trip.
    await eventually(async () => {
      const { lastSeenMs } = (await inspector().groups.list('orders'))[0] ?? {}
      const [{ paused } = { paused: null }] = await inspector().stats('orders')
      expect((lastSeenMs ?? 0) - (paused?.sinceMs ?? Infinity)).toBeGreaterThan(6000)
      expect(worker.health()).toEqual({ live: true, ready: true, state: 'running', reasons: [] })
    })
    const port = portOf(worker)
    expect([(await ask(port, '/livez')).status, (await ask(port, '/readyz')).status]).toEqual([200, 200])
  })

  test('of a group leaves the others at work; of a stream it holds all', async () => {
    const [one, two] = [recorder(), recorder()]
    await startWorker({ redis: redis.url, group: 'one', handlers: one.handlers })
    await startWorker({ redis: redis.url, group: 'two', startAt: 'oldest', handlers: two.handlers })
    await pause({ group: 'one' })
    await pulses(2, { of: 'one' })
    const id = await add(redis.client, 'x')
    await eventually(() => expect(two.ran).toEqual([`${id} 1`]))
    await pause()
    await pulses(2, { of: 'two' })
    await add(redis.client, 'x')
    await resume({ group: 'one' })
    await pulses(2, { of: 'one' })
    expect([one.ran.length, two.ran.length]).toEqual([0, 1])
    await resume()
    await eventually(() => expect([one.ran.length, two.ran.length]).toEqual([2, 2]))
  })

  test('holds back neither publishes nor what is due', async () => {
    const worker = await startWorker({ redis: redis.url })
    await pause()
    await pulses()
    const producer = new Producer({ redis: redis.url, logger: false })
    onEnd(async () => void (await producer.close()))
    await producer.publish('none', {}, { stream: 'orders' })
    await producer.publish('none', {}, { stream: 'orders', delayMs: 1 })
    await eventually(async () => expect(await group()).toEqual({ lag: 2, pending: 0 }))
    expect(worker.counts.delivered).toBe(0)
  })

  test('that somebody wrote to end beyond all time lasts until it is resumed, for who works and for who starts', async () => {
    const { ran, handlers } = recorder()
    const first = await startWorker({ redis: redis.url, handlers })
    await redis.client.hset(settingsKey('orders'), 'paused', '{"sinceMs":1,"untilMs":1e300,"by":"me"}')
    await pulses(3)
    await startWorker({ redis: redis.url, handlers })
    await add(redis.client, 'x')
    const paused = { sinceMs: 1, untilMs: null, by: 'me', reason: '' }
    expect(await inspector().stats('orders')).toMatchObject([{ paused }])
    await pulses(3, { workers: 2 })
    expect([ran, first.counts.delivered]).toEqual([[], 0])
    expect(await resume()).toMatchObject({ was: paused })
    await eventually(() => expect(ran).toHaveLength(1))
  })

  test('is logged when it begins and when it ends, with who and why', async () => {
    const lines: [object, string | undefined][] = []
    const note = (about: object, message?: string) => void lines.push([about, message])
    const logger = { debug() {}, info() {}, warn: note, error: note } as unknown as Logger
    const { consumer } = await startWorker({ redis: redis.url, logger })
    await pause({ by: 'ops@here', reason: 'migration' })
    await eventually(() => expect(lines).toHaveLength(1))
    await resume()
    await eventually(() => expect(lines).toHaveLength(2))
    expect(lines).toEqual([
      [
        { stream: 'orders', group: 'main', consumer, by: 'ops@here', reason: 'migration', untilMs: null },
        'paused until it is resumed: the worker begins no jobs',
      ],
      [{ stream: 'orders', group: 'main', consumer }, 'the pause is over: the worker goes on'],
    ])
  })
})

describe('a stored pause', () => {
  const NOW_MS = 1_700_000_000_000
  const LAST_MS = 8.64e15
  const stored = { sinceMs: 5, untilMs: NOW_MS + 1, by: 'me', reason: 'why' }

  test.each<[object, object]>([
    [{}, stored],
    [{ untilMs: null }, { ...stored, untilMs: null }],
    [{ untilMs: LAST_MS }, { ...stored, untilMs: LAST_MS }],
    [{ untilMs: LAST_MS + 1 }, { ...stored, untilMs: null }],
    [
      { by: 5, reason: {} },
      { ...stored, by: '', reason: '' },
    ],
    [
      { sinceMs: -LAST_MS, untilMs: undefined },
      { ...stored, sinceMs: -LAST_MS, untilMs: null },
    ],
  ])('with %j is in force', (own, pause) => {
    expect(pauseOf(JSON.stringify({ ...stored, ...own }), NOW_MS)).toEqual(pause)
  })

  test.each([
    '',
    '{',
    '5',
    'null',
    '[]',
    '{"untilMs":null}',
    '{"sinceMs":"5"}',
    '{"sinceMs":1e300}',
    '{"sinceMs":1e999}',
    '{"sinceMs":-8640000000000001}',
    '{"sinceMs":5,"untilMs":"9999999999999"}',
    `{"sinceMs":5,"untilMs":${NOW_MS}}`,
  ])('that reads %s is none', (text) => {
    expect(pauseOf(text, NOW_MS)).toBeUndefined()
  })

  test('of a stream beside one of its group: the one that lasts longer counts', () => {
    const of = (untilMs: number | null) => JSON.stringify({ ...stored, untilMs })
    const cases: [number | null, number | null, number | null][] = [
      [NOW_MS + 1, NOW_MS + 2, NOW_MS + 2],
      [NOW_MS + 2, NOW_MS + 1, NOW_MS + 2],
      [null, NOW_MS + 1, null],
      [NOW_MS + 1, null, null],
    ]
    for (const [first, second, longer] of cases) {
      expect(pauseInForce([of(first), of(second)], NOW_MS)?.untilMs).toBe(longer)
    }
    expect(pauseInForce([of(NOW_MS), of(NOW_MS + 1)], NOW_MS)?.untilMs).toBe(NOW_MS + 1)
    expect(pauseInForce(['', of(NOW_MS)], NOW_MS)).toBeUndefined()
  })
})

describe('pausing and resuming', () => {
  const arrange = async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
  }

  test('say what was so before, and what stays so', async () => {
    await arrange()
    const sinceMs = await serverMs(redis.client)
    const first = await pause({ group: 'main', forMs: 60_000, reason: 'a "deploy"', by: 'me' })
    expect(first).toMatchObject({ stream: 'orders', group: 'main', replaced: null })
    expect(first.paused).toMatchObject({ by: 'me', reason: 'a "deploy"' })
    expect(first.paused.sinceMs).toBeGreaterThanOrEqual(sinceMs)
    expect(first.paused.untilMs).toBe(first.paused.sinceMs + 60_000)
    const second = await pause({ group: 'main' })
    expect(second).toMatchObject({ replaced: first.paused, paused: { untilMs: null, by: '', reason: '' } })
    const whole = await pause({ untilMs: sinceMs + 3_600_000 })
    expect(whole).toMatchObject({ group: null, replaced: null, paused: { untilMs: sinceMs + 3_600_000 } })

    expect(await resume()).toEqual({
      stream: 'orders',
      group: null,
      was: whole.paused,
      still: [{ group: 'main', pause: second.paused }],
    })
    await pause()
    expect(await resume({ group: 'main' })).toMatchObject({ was: second.paused, still: [{ group: null }] })
    expect(await resume({ group: 'main' })).toMatchObject({ was: null, still: [{ group: null }] })
    expect(await resume({ group: 'billing' })).toMatchObject({ was: null })
    expect(await resume()).toMatchObject({ still: [] })
    expect(await redis.client.hgetall(settingsKey('orders'))).toEqual({})
  })

  test('are seen in the stats, while they are in force', async () => {
    await arrange()
    const ofGroup = await pause({ group: 'billing', by: 'me' })
    expect(await inspector().stats('orders')).toMatchObject([
      {
        paused: null,
        groups: [
          { group: 'billing', paused: ofGroup.paused },
          { group: 'main', paused: null },
        ],
      },
    ])
    const whole = await pause({ forMs: 1 })
    await eventually(async () => expect(await inspector().stats('orders')).toMatchObject([{ paused: null }]))
    expect(await resume()).toMatchObject({ was: null })
    expect(whole.paused.untilMs).toBe(whole.paused.sinceMs + 1)
  })

  test('are refused for what there is not, with what may have been meant', async () => {
    await arrange()
    for (const ask of ['pause', 'resume'] as const) {
      await expect(inspector()[ask]('order')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
      await expect(inspector()[ask]('orders', { group: 'mian' })).rejects.toMatchObject({
        code: 'ERR_UNKNOWN_GROUP',
        message: expect.stringContaining('did you mean main?') as string,
      })
    }
    await expect(pause({ untilMs: 5 })).rejects.toMatchObject({
      code: 'ERR_OPTION',
      message: expect.stringMatching(/to be a time to come.+nothing was changed$/) as string,
    })
    expect(await redis.client.exists(settingsKey('orders'))).toBe(0)
  })

  test.each([
    [{ forMs: 0 }],
    [{ forMs: 1000, untilMs: 5e12 }],
    [{ reason: 'x'.repeat(201) }],
    [{ by: 5 }],
    [{ group: 'no group' }],
    [{ until: 5 }],
  ])('with %j are refused before Redis is asked', async (options) => {
    await arrange()
    await expect(pause(options as PauseOptions)).rejects.toMatchObject({
      code: expect.stringMatching(/ERR_(OPTION|NAME)/) as string,
    })
    expect(await redis.client.exists(settingsKey('orders'))).toBe(0)
  })

  test('work while Redis is out of memory', async () => {
    await arrange()
    await redis.client.config('SET', 'maxmemory', '1')
    try {
      expect(await pause()).toMatchObject({ replaced: null })
      expect(await resume()).toMatchObject({ was: { untilMs: null } })
    } finally {
      await redis.client.config('SET', 'maxmemory', '0')
    }
  })

  test.each(['', 'yes', '5', 'null', '[]', '{"untilMs":"later"}', '{"untilMs":5}'])(
    'a setting that is no pause, as %j, pauses nothing',
    async (stored) => {
      const { ran, handlers } = recorder()
      await redis.client.hset(settingsKey('orders'), 'paused', stored)
      await startWorker({ redis: redis.url, handlers })
      await add(redis.client, 'x')
      await eventually(() => expect(ran).toHaveLength(1))
    },
  )
})
