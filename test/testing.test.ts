import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import {
  defineJob,
  FatalError,
  handle,
  type Handlers,
  type Job,
  type LimitOptions,
  RetryAfterError,
  type RunMiddleware,
} from '../src/index.ts'
import { runJob, runToEnd, VirtualClock } from '../src/testing.ts'

/** Handlers tested without Redis: what becomes of a job is what a worker would make of it. */

const START_MS = Date.UTC(2026, 0, 1)
const fixed = { backoff: 'fixed', delayMs: 1000, jitter: 0 } as const
const mail = defineJob<{ to?: string | undefined; at?: Date; copies?: number }>('mail', {
  stream: 'orders',
  retry: fixed,
})
const fails = { mail: () => Promise.reject(new Error('away')) }
const never = () => new Promise<void>(() => {})
const heeds = ({ signal }: Job) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError'))))

describe('runJob', () => {
  test('gives the handler what JSON makes of the payload, and back what it returns', async () => {
    const data = { at: new Date(START_MS), to: undefined, copies: NaN }
    const run = await runJob({ mail: (seen) => seen }, { job: mail, data })
    expect(run).toStrictEqual({ outcome: 'completed', result: { at: '2026-01-01T00:00:00.000Z', copies: null } })
    expect(await runJob({ mail() {} }, { job: mail, data: {} })).toStrictEqual({ outcome: 'completed' })
  })

  test('gives the handler a job as a worker does: id, attempt, deliveries, headers, state, signal', async () => {
    const seen: Job[] = []
    const clock = new VirtualClock(START_MS)
    const asked = { job: mail, data: {}, clock, headers: { tenant: 'a' }, worker: { group: 'billing' } }
    await runJob(
      { mail: (_, job) => void seen.push(job) },
      { ...asked, attempt: 3, deliveries: 2, id: '1700000000000-7' },
    )
    await runJob({ mail: (_, job) => void seen.push(job) }, asked)
    const own = { name: 'mail', stream: 'orders', group: 'billing', headers: { tenant: 'a' }, state: {} }
    expect(seen[0]).toMatchObject({ ...own, id: '1700000000000-7', attempt: 3, deliveries: 2 })
    expect(seen[1]).toMatchObject({ ...own, id: `${START_MS}-0`, attempt: 1, deliveries: 1 })
    expect(seen[1]?.signal.aborted).toBe(false)
  })

  test('gives it the tick of a recurring schedule, and the key that it is in order by, at each attempt', async () => {
    const seen: unknown[] = []
    const handlers: Handlers = {
      mail: (_data, { cron, key, attempt }) => {
        seen.push({ cron, key, attempt })
        throw new Error('away')
      },
    }
    const cron = { name: 'nightly', tickMs: START_MS }
    await runToEnd(handlers, { job: mail, data: {}, cron, key: 'ada', worker: { retry: { ...fixed, attempts: 2 } } })
    expect(seen).toEqual([1, 2].map((attempt) => ({ cron, key: 'ada', attempt })))

    await runJob(
      { mail: (_data, job) => void seen.push(job.cron) },
      { job: mail, data: {}, cron: { ...cron, tickMs: null } },
    )
    expect(seen.at(-1)).toEqual({ name: 'nightly', tickMs: null })
    const wrong = runJob(handlers, { job: mail, data: {}, cron: { name: 'a b', tickMs: 1 } })
    await expect(wrong).rejects.toThrow('expected `cron` to be the tick of a schedule')
  })

  test('takes a list of handlers, with the retry and the versions of their definitions', async () => {
    const old = defineJob('mail', {
      schema: z.object({ to: z.string(), at: z.coerce.date() }),
      version: 2,
      upcast: { 1: ({ name }: { name: string }) => ({ to: name, at: 0 }) },
      retry: { attempts: 1 },
    })
    const handlers = [handle(old, ({ to, at }) => `${to} ${at.getTime()}`)]
    const at = new Date(START_MS)
    expect(await runJob(handlers, { job: old, data: { to: 'ann', at } })).toMatchObject({ result: `ann ${START_MS}` })
    const first = { job: 'mail', data: { name: 'bob' }, version: 1 }
    expect(await runJob(handlers, first)).toMatchObject({ result: 'bob 0' })
    expect(await runJob(handlers, { ...first, version: 3 })).toMatchObject({ outcome: 'waits', reason: 'unknown-job' })
    expect(await runJob([handle(old, () => Promise.reject(new Error('away')))], first)).toMatchObject({
      ...{ outcome: 'dead', reason: 'attempts' },
      error: { message: 'away' },
    })
  })

  test('refuses what a publish refuses, and has what comes past it dead as in a worker', async () => {
    const strict = defineJob('mail', { schema: z.object({ to: z.string() }) })
    const handlers = [handle(strict, () => 'ran')]
    const wrong = { job: strict, data: { to: 1 } as never }
    await expect(runJob(handlers, wrong)).rejects.toMatchObject({ code: 'ERR_INVALID_DATA' })
    await expect(runJob(handlers, { job: 'mail', data: undefined })).rejects.toMatchObject({ code: 'ERR_PAYLOAD' })
    await expect(runJob(handlers, { job: 'a b', data: 1 })).rejects.toMatchObject({ code: 'ERR_NAME' })
    const run = await runJob(handlers, { job: 'mail', data: { to: 1 } })
    expect(run).toMatchObject({ outcome: 'dead', reason: 'invalid' })
    expect(run.error).toMatchObject({ message: 'its data does not fit the schema of its job at to' })
  })

  test('tells of a failure what the retry options decide, and of the errors that decide for themselves', async () => {
    const thrown = (error: unknown) => runJob({ mail: () => Promise.reject(error as Error) }, { job: 'mail', data: 1 })
    const away = new Error('away')
    expect(await thrown(away)).toStrictEqual({ outcome: 'retry', error: away, delayMs: 1000 })
    expect(await thrown(new FatalError('no'))).toMatchObject({ outcome: 'dead', reason: 'fatal' })
    expect(await thrown(new RetryAfterError(90_000))).toMatchObject({ outcome: 'retry', delayMs: 90_000 })
    const worker = { retry: { backoff: () => NaN } }
    const run = await runJob(fails, { job: 'mail', data: 1, worker })
    expect(run).toMatchObject({ outcome: 'retry', delayMs: 1000 })
    expect(run.complaint).toContain('`backoff` returned NaN')
  })

  test('leaves to chance only what it is told', async () => {
    const retry = { delayMs: 1000, jitter: 0.5 }
    const delay = async (chance?: number | (() => number)) =>
      (await runJob(fails, { job: 'mail', data: 1, worker: { retry }, ...(chance !== undefined && { chance }) }))
        .delayMs
    expect([await delay(), await delay(0.5), await delay(() => 1)]).toEqual([1000, 750, 500])
    await expect(delay(2)).rejects.toThrow('expected `chance` to be a number from 0 to 1')
  })

  test('a job that nothing handles waits, one whose deadline is over is dead, and neither runs', async () => {
    expect(await runJob(fails, { job: 'other', data: 1 })).toMatchObject({ outcome: 'waits', reason: 'unknown-job' })
    const later = { delayMs: 60_000, worker: { limits: [] } }
    const clock = new VirtualClock(START_MS)
    const due = { job: mail, data: {}, clock, expiresAt: START_MS + 90_000 }
    expect(await runJob({ mail: () => clock.nowMs }, { ...due, ...later })).toMatchObject({ result: START_MS + 60_000 })
    await expect(runJob(fails, { ...due, ttlMs: 1 })).rejects.toThrow('expected either `expiresAt` or `ttlMs`')
    const late = { mail: () => (clock.advance(60_000), Promise.reject(new Error('away'))) }
    const { runs, ...end } = await runToEnd(late, { job: mail, data: {}, clock, ttlMs: 30_000 })
    expect(end).toMatchObject({ outcome: 'dead', reason: 'expired' })
    expect(runs.map(({ outcome }) => outcome)).toEqual(['retry', 'dead'])
  })

  test('runs the middleware around the handler, which sees its state', async () => {
    const steps: string[] = []
    const step =
      (name: string): RunMiddleware<{ user: string }> =>
      async ({ state }, next) => {
        steps.push(name)
        state.user = name
        await next()
        steps.push(`${name} ended`)
      }
    const handlers = { mail: (_: unknown, job: Job<{ user: string }>) => steps.push(`run by ${job.state.user}`) }
    await runJob(handlers, { job: mail, data: {}, use: [step('a'), step('b')] })
    expect(steps).toEqual(['a', 'b', 'run by b', 'b ended', 'a ended'])
    const silent: RunMiddleware = () => {}
    const run = await runJob(fails, { job: mail, data: {}, use: [silent] })
    expect(run).toMatchObject({ outcome: 'retry', error: { code: 'ERR_MIDDLEWARE' } })
  })

  test('evaluates the keys and costs of limits, and lets the job begin', async () => {
    const handlers = { mail: () => 'ran' }
    const under = (limit: LimitOptions, data: unknown = { to: 'ann' }) =>
      runJob(handlers, { job: 'mail', data, worker: { limits: [limit] } })
    expect(await under({ key: '{data.to}', concurrency: 1 })).toMatchObject({ result: 'ran' })
    expect(await under({ key: '{data.to}', concurrency: 1 }, {})).toMatchObject({ outcome: 'dead', reason: 'invalid' })
    const costly = { rate: { jobs: 10, burst: 5 }, cost: () => 6 }
    expect(await under(costly)).toMatchObject({ outcome: 'dead', reason: 'invalid' })
    await expect(under({ key: '{dat.to}', concurrency: 1 })).rejects.toThrow('{dat.to} is none of them')
  })

  test('a job that took as many workers down as its group allows is dead without a run', async () => {
    const worker = { maxDeliveries: 2 }
    const asked = { job: mail, data: {}, worker }
    expect(await runJob(fails, { ...asked, deliveries: 2 })).toMatchObject({ outcome: 'retry' })
    expect(await runJob(fails, { ...asked, deliveries: 3 })).toMatchObject({ outcome: 'dead', reason: 'deliveries' })
  })

  test('lets go of a uniqueness key that is held until the start, and runs', async () => {
    const unique = { uniqueKey: 'a', unique: { scope: 'until-started' } } as const
    expect(await runJob({ mail: () => 'ran' }, { job: mail, data: {}, ...unique })).toMatchObject({ result: 'ran' })
  })

  test('payloads with characters that look like broken text are read from their bytes', async () => {
    expect(await runJob({ mail: (data) => data }, { job: 'mail', data: '\uFFFD' })).toMatchObject({ result: '\uFFFD' })
  })

  test('refuses options that there are not, handlers that are none and clocks of others', async () => {
    const bad = (options: object) => runJob({ mail() {} }, { job: 'mail', data: 1, ...options })
    await expect(bad({ atempt: 2 })).rejects.toThrow('unknown option `atempt` of runJob (did you mean `attempt`?)')
    await expect(runJob({}, { job: 'mail', data: 1 })).rejects.toMatchObject({ code: 'ERR_HANDLERS' })
    await expect(bad({ worker: { concurency: 1 } })).rejects.toThrow('did you mean `concurrency`?')
    await expect(bad({ clock: { nowMs: 1 } })).rejects.toThrow('expected `clock` to be a VirtualClock')
    await expect(bad({ abort: 'die' })).rejects.toThrow(
      'expected `abort` to be one of timeout, stop, cancel, lease-lost',
    )
    await expect(bad({ abort: { why: 'stop', when: 5 } })).rejects.toThrow('expected `abort.when` to be a promise')
    await expect(bad({ id: 'x' })).rejects.toThrow('expected a job id')
  })
})

test.each(['stop', 'timeout', 'cancel'] as const)(
  'what a handler keeps when its signal aborts (%s) is kept',
  async (why) => {
    const handlers = {
      async mail(_: unknown, job: Job) {
        await heeds(job).catch(() => {})
        await job.checkpoint({ page: 7 })
        throw job.signal.reason
      },
    }
    expect(await runJob(handlers, { job: mail, data: {}, abort: why })).toMatchObject({ checkpoint: { page: 7 } })
  },
)

test('a run whose lease is lost keeps nothing', async () => {
  const thrown: unknown[] = []
  const handlers = {
    async mail(_: unknown, job: Job) {
      await heeds(job).catch(() => {})
      await job.checkpoint(1).catch((error: unknown) => thrown.push(error))
      await job.lastCheckpoint().catch((error: unknown) => thrown.push(error))
    },
  }
  expect(await runJob(handlers, { job: mail, data: {}, abort: 'lease-lost' })).toStrictEqual({ outcome: 'completed' })
  expect(thrown).toMatchObject([{ code: 'ERR_LEASE_LOST' }, { code: 'ERR_LEASE_LOST' }])
})

test('of the lines of a job the last 100 and 16 KiB are kept', async () => {
  const logged = async (lines: number, bytes: number) => {
    const handlers = {
      mail(_: unknown, job: Job) {
        for (let n = 1; n <= lines; n++) job.log(`${n} `.padEnd(bytes, 'x'))
      },
    }
    const { log = [] } = await runJob(handlers, { job: mail, data: {} })
    return [log.length, log[0]?.split(' ')[0], log.at(-1)?.split(' ')[0]]
  }
  expect(await logged(130, 10)).toEqual([100, '31', '130'])
  expect(await logged(60, 1000)).toEqual([16, '45', '60'])
})

test('a job of a recurring schedule has its tick, and a copy by a replay its original, in every attempt', async () => {
  const seen: unknown[] = []
  const handlers = {
    mail(_: unknown, { cron, replayOf, attempt }: Job) {
      seen.push([cron, replayOf])
      if (attempt === 1) throw new Error('away')
    },
  }
  const cron = { name: 'nightly', tickMs: START_MS }
  await runToEnd(handlers, { job: mail, data: {}, cron })
  await runJob(handlers, { job: mail, data: {}, cron: { name: 'nightly', tickMs: null }, attempt: 2 })
  const replayOf = { stream: 'orders', id: '5-1' }
  await runJob(handlers, { job: mail, data: {}, replayOf, attempt: 2 })
  expect(seen).toEqual([
    ...[
      [cron, undefined],
      [cron, undefined],
    ],
    ...[
      [{ name: 'nightly', tickMs: null }, undefined],
      [undefined, replayOf],
    ],
  ])
  const bad = (given: object) => expect(runJob(handlers, { job: mail, data: {}, ...given })).rejects
  await bad({ cron: { name: 'a b', tickMs: 1 } }).toThrow(
    'expected `cron` to be the tick of a schedule, { name, tickMs }',
  )
  await bad({ cron: 5 }).toThrow('expected `cron` to be the tick of a schedule, { name, tickMs }')
  await bad({ replayOf: { stream: '', id: '5-1' } }).toThrow('expected `replayOf` to be { stream, id }')
  await bad({ replayOf: '5-1' }).toThrow('expected `replayOf` to be { stream, id }')
})

test('a job that was published with a key has it', async () => {
  const run = await runJob({ mail: (_, { key }) => key }, { job: mail, data: {}, key: 'ada' })
  expect(run).toStrictEqual({ outcome: 'completed', result: 'ada' })
})

test('a run that completes tells what it has published, and one that fails has published nothing', async () => {
  const next = defineJob<{ at: Date }>('next', { stream: 'later' })
  const handlers: Handlers = {
    mail: (data, job) => {
      job.publish(next, { at: new Date(0) }, { delayMs: 1000, headers: { tenant: 'a' } })
      job.publish('done', data)
      if (data === 'bad') throw new Error('no')
    },
  }
  const clock = new VirtualClock(START_MS)
  const given = { job: 'mail', stream: 'orders', clock }
  expect(await runJob(handlers, { ...given, data: 1 })).toEqual({
    outcome: 'completed',
    published: [
      {
        job: 'next',
        stream: 'later',
        data: { at: '1970-01-01T00:00:00.000Z' },
        dueMs: START_MS + 1000,
        fields: { 'h-tenant': 'a' },
      },
      { job: 'done', stream: 'orders', data: 1 },
    ],
  })
  expect(await runJob(handlers, { ...given, data: 'bad' })).not.toHaveProperty('published')
})

describe('an aborted signal', () => {
  const stopped = (abort: 'timeout' | 'stop' | 'cancel' | 'lease-lost') =>
    runJob({ mail: (_, job) => heeds(job) }, { job: mail, data: {}, abort })

  test('has the reason of what aborted it, and the run ends as it would in a worker', async () => {
    const error = (code: string) => expect.objectContaining({ code }) as unknown
    expect(await stopped('timeout')).toEqual({ outcome: 'retry', delayMs: 1000, error: error('ERR_JOB_TIMEOUT') })
    expect(await stopped('stop')).toEqual({ outcome: 'handed-back', error: error('ERR_STOPPING') })
    expect(await stopped('cancel')).toEqual({ outcome: 'cancelled', error: error('ERR_CANCELLED') })
    expect(await stopped('lease-lost')).toEqual({ outcome: 'left', error: error('ERR_LEASE_LOST') })
  })

  test('is aborted when the test says, and a handler that completes has completed', async () => {
    let ask = () => {}
    const asked = new Promise<void>((resolve) => (ask = resolve))
    const seen: boolean[] = []
    const handlers = {
      async mail(_: unknown, { signal }: Job) {
        await new Promise((resolve) => setImmediate(() => setImmediate(resolve)))
        seen.push(signal.aborted)
        ask()
        await new Promise((resolve) => setImmediate(resolve))
        seen.push(signal.aborted)
      },
    }
    const run = await runJob(handlers, { job: mail, data: {}, abort: { why: 'stop', when: asked } })
    expect([seen, run]).toEqual([[false, true], { outcome: 'completed' }])
  })

  test('that the handler does not heed is told, and does not hang the test', async () => {
    const run = await runJob({ mail: never }, { job: mail, data: {}, abort: 'stop', heedMs: 1 })
    expect(run).toMatchObject({ outcome: 'overdue', error: { code: 'ERR_STOPPING' } })
  })

  test('comes by itself where the handler takes longer than its timeout', async () => {
    const worker = { timeoutMs: 5 }
    const run = await runJob({ mail: (_, job) => heeds(job) }, { job: mail, data: {}, worker })
    expect(run).toMatchObject({ outcome: 'retry', error: { code: 'ERR_JOB_TIMEOUT' } })
    const endless = { job: mail, data: {}, worker: { timeoutMs: false }, abort: 'timeout' } as const
    await expect(runJob({ mail: never }, endless)).rejects.toThrow("`abort: 'timeout'` of a job that has a timeout")
  })
})

describe('runToEnd', () => {
  test('tells the time and the outcome of every attempt until the job is dead', async () => {
    const worker = { retry: { attempts: 5, delayMs: 60_000, maxDelayMs: 600_000 } }
    const { runs, ...end } = await runToEnd(fails, { job: 'mail', data: 1, worker, clock: new VirtualClock(START_MS) })
    expect(end).toMatchObject({ outcome: 'dead', reason: 'attempts', tookMs: 15 * 60_000 })
    const minutes = runs.map(({ atMs, attempt, outcome }) => [(atMs - START_MS) / 60_000, attempt, outcome])
    expect(minutes).toEqual([
      [0, 1, 'retry'],
      [1, 2, 'retry'],
      [3, 3, 'retry'],
      [7, 4, 'retry'],
      [15, 5, 'dead'],
    ])
  })

  test('refuses a job that goes on and on', async () => {
    const endless = { ...fixed, attempts: 1_000_000 }
    const going = runToEnd(fails, { job: 'mail', data: {}, stream: 'orders', worker: { retry: endless } })
    await expect(going).rejects.toThrow('expected the job to end within 1000 runs')
  })

  test('ends with the attempt that completes, which is the same job', async () => {
    const seen: string[] = []
    const handlers = [
      handle(mail, (data, { id, attempt, headers }) => {
        seen.push(`${id} ${attempt} ${headers['tenant']} ${JSON.stringify(data)}`)
        if (attempt < 3) throw new Error('away')
        return attempt
      }),
    ]
    const clock = new VirtualClock(new Date(START_MS))
    const end = await runToEnd(handlers, { job: mail, data: { to: 'ann' }, clock, headers: { tenant: 'a' } })
    expect(end).toMatchObject({ outcome: 'completed', result: 3, tookMs: 2000 })
    expect(seen).toEqual([1, 2, 3].map((attempt) => `${START_MS}-0 ${attempt} a {"to":"ann"}`))
    expect(clock.nowMs).toBe(START_MS + 2000)
  })

  test('gives up by retryForMs from the first failure on, and by the time that a handler takes', async () => {
    const clock = new VirtualClock(START_MS)
    const slow = { mail: () => (clock.advance(10_000), Promise.reject(new Error('away'))) }
    const worker = { retry: { ...fixed, retryForMs: 30_000 } }
    const { runs, reason } = await runToEnd(slow, { job: 'mail', data: 1, clock, worker })
    expect(reason).toBe('attempts')
    expect(runs.map(({ atMs }) => atMs - START_MS)).toEqual([0, 11_000, 22_000, 33_000])
  })

  test('a job that nothing handles waits at no cost until its time is over', async () => {
    const worker = { unknownJobMs: 4000 }
    const { runs, ...end } = await runToEnd(fails, { job: 'other', data: 1, worker })
    expect(end).toMatchObject({ outcome: 'dead', reason: 'unknown-job', tookMs: 4000 })
    expect(runs.map(({ outcome, attempt, delayMs }) => [outcome, attempt, delayMs])).toEqual([
      ['waits', 1, 1000],
      ['waits', 1, 1000],
      ['waits', 1, 2000],
      ['dead', 1, undefined],
    ])
  })
})

test('a virtual clock goes forward only', () => {
  const clock = new VirtualClock(START_MS)
  clock.advance(5)
  clock.advanceTo(START_MS)
  expect(clock.nowMs).toBe(START_MS + 5)
  clock.advanceTo(new Date(START_MS + 9))
  expect(clock.nowMs).toBe(START_MS + 9)
  expect(() => clock.advance(-1)).toThrow('expected `ms` to be an integer of 0 or more')
  expect(() => new VirtualClock(NaN)).toThrow('expected `start` to be a Date or ms since the epoch')
})
