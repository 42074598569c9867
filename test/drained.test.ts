import { describe, expect, test } from 'vitest'
import { defineJob, FatalError, handle, Inspector, Producer, RetryAfterError, type Job } from '../src/index.ts'
import { drained, runToEnd } from '../src/testing.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

/** `drained` on real streams; and what `runToEnd` says of a job, which a real worker has to say too. */

const redis = withRedis()
const quiet = (options: object = {}) => drained({ redis: redis.url, stream: 'orders', timeoutMs: 30_000, ...options })
const inBrief = { timeoutMs: 200 }
/** Again and again: on a busy machine the time may be over before Redis has answered. */
const says = (text: RegExp, options: object = {}) =>
  eventually(() => expect(quiet({ ...inBrief, ...options })).rejects.toThrow(text))
const inspector = () => {
  const made = new Inspector({ redis: redis.url })
  onEnd(() => made.close())
  return made
}
const producer = () => {
  const made = new Producer({ redis: redis.url, logger: false })
  onEnd(() => made.close().then(() => {}))
  return made
}

describe('drained', () => {
  test('waits until every job of every group is settled, retries that are due at once too', async () => {
    const done: string[] = []
    const handlers = {
      async mail(data: unknown, { group, attempt }: Job) {
        await new Promise((resolve) => setTimeout(resolve, 5))
        if (attempt === 1) throw new RetryAfterError(0)
        done.push(`${group} ${String(data)}`)
      },
    }
    for (let n = 1; n <= 20; n++) await add(redis.client, 'mail', n)
    await startWorker({ redis: redis.url, handlers })
    await startWorker({ redis: redis.url, handlers, group: 'billing', startAt: 'oldest' })
    await quiet()
    expect(done).toHaveLength(40)
  })

  test('waits for a job that a handler has published, in the group that is asked for', async () => {
    const ends: unknown[] = []
    const publisher = producer()
    const handlers = {
      first: () => publisher.publish('second', null, { stream: 'orders' }).then(() => {}),
      second: () => void ends.push('second'),
    }
    await redis.client.xgroup('CREATE', 'orders', 'idle', '0', 'MKSTREAM')
    await add(redis.client, 'first', 1)
    await startWorker({ redis: redis.url, handlers, startAt: 'oldest' })
    await quiet({ group: 'main' })
    expect(ends).toEqual(['second'])
    await says(/group idle: 2 not yet delivered, it has no worker$/)
  })

  test('jobs that are due later are waited for only if that is asked for', async () => {
    const ran: unknown[] = []
    await startWorker({ redis: redis.url, handlers: { mail: (data) => void ran.push(data) } })
    const { id } = await producer().publish('mail', 1, { stream: 'orders', delayMs: 3_600_000 })
    await quiet()
    expect(ran).toEqual([])
    const all = quiet({ includeScheduled: true })
    await inspector().scheduled.promote('orders', id)
    await all
    expect(ran).toEqual([1])
    await producer().publish('mail', 2, { stream: 'orders', delayMs: 3_600_000 })
    await quiet()
    await says(/within 200 ms: 1 scheduled$/, { includeScheduled: true })
  })

  test('a job that is due is not quiet while nobody moves it', async () => {
    const { id } = await producer().publish('mail', 1, { stream: 'orders', delayMs: 3_600_000 })
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await quiet()
    await inspector().scheduled.promote('orders', id)
    await says(/1 scheduled, 1 of them due$/)
    await says(/1 scheduled, 1 of them due$/, { group: 'main' })
  })

  test('says what was there when the time was over, with its code', async () => {
    await says(/^stream orders was not quiet within 200 ms: there is no such stream$/)
    await expect(quiet(inBrief)).rejects.toMatchObject({ code: 'ERR_NOT_DRAINED' })
    await add(redis.client, 'mail', 1)
    await says(/: no group reads it$/)
    let end = () => {}
    const ended = new Promise<void>((resolve) => (end = resolve))
    await startWorker({ redis: redis.url, handlers: { mail: () => ended } })
    await says(/: it has no group other$/, { group: 'other' })
    await says(/: group main: .*1 (pending|not yet delivered)$/)
    end()
    await quiet()
  })

  test('tells of a pause that holds up jobs, and not of one that holds up none', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await inspector().pause('orders', {})
    await inspector().pause('orders', { group: 'main' })
    await quiet()
    await add(redis.client, 'mail', 1)
    await says(/: the stream is paused; group main: 1 not yet delivered, it is paused, it has no worker$/)
  })

  test('ends with the reason of its signal', async () => {
    await expect(quiet({ signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    const controller = new AbortController()
    const waiting = quiet({ signal: controller.signal })
    controller.abort(new Error('over'))
    await expect(waiting).rejects.toThrow('over')
  })

  test('goes on after it has lost Redis, as often as it does', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await add(redis.client, 'mail', 1)
    const waiting = quiet()
    for (let n = 0; n < 50; n++) {
      await redis.client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await startWorker({ redis: redis.url, handlers: { mail() {} } })
    await waiting
  })

  test('a Redis that does not answer does not hold it up', async () => {
    const nowhere = { redis: { host: '127.0.0.1', port: 1 }, ...inBrief }
    await expect(quiet(nowhere)).rejects.toMatchObject({ code: 'ERR_NOT_DRAINED' })
    await expect(quiet({ strem: 'orders' })).rejects.toThrow('did you mean `stream`?')
  })
})

test('what runToEnd tells of a job, a worker does with it', async () => {
  const retry = { attempts: 3, delayMs: 20, backoff: 'linear', jitter: 0 } as const
  const told: unknown[] = []
  const note = (job: Job, data: unknown) => told.push([job.name, job.attempt, job.deliveries, job.headers, data])
  const definitions = ['completes', 'comes-back', 'dies', 'gives-up', 'says-when'].map((name) =>
    defineJob(name, { retry }),
  )
  const throwing: Record<string, (attempt: number) => unknown> = {
    'comes-back': (attempt) => (attempt === 1 ? new Error('away') : undefined),
    dies: () => new FatalError('no'),
    'gives-up': () => new Error('away'),
    'says-when': (attempt) => (attempt === 1 ? new RetryAfterError(70) : undefined),
  }
  const handlers = definitions.map((job) =>
    handle(job, (data: unknown, run) => {
      note(run, data)
      const error = throwing[job.name]?.(run.attempt)
      if (error !== undefined) throw error as Error
    }),
  )
  const asked = (job: (typeof definitions)[number]) => ({
    job,
    data: { at: new Date(0), none: undefined },
    headers: { a: 'b' },
  })
  const byKit: unknown[] = []
  for (const job of definitions) {
    for (const { outcome, attempt, delayMs, reason } of (await runToEnd(handlers, asked(job))).runs) {
      byKit.push([job.name, outcome, attempt, delayMs, reason])
    }
  }
  const toldByKit = told.splice(0)
  const byWorker: unknown[] = []
  const worker = await startWorker({ redis: redis.url, handlers })
  worker.on('job:completed', ({ job, attempt }) => byWorker.push([job, 'completed', attempt, undefined, undefined]))
  worker.on('job:retried', ({ job, attempt, delayMs }) => byWorker.push([job, 'retry', attempt, delayMs, undefined]))
  worker.on('job:dead', ({ job, attempt, reason }) => byWorker.push([job, 'dead', attempt, undefined, reason]))
  const publisher = producer()
  for (const definition of definitions) {
    const { job, data, headers } = asked(definition)
    await publisher.publish(job, data, { stream: 'orders', headers })
    await quiet({ includeScheduled: true })
  }
  expect([told, byWorker]).toEqual([toldByKit, byKit])
})
