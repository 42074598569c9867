import { describe, expect, test } from 'vitest'
import { defineJob, handle, Inspector, type Handlers, type Job, type PublishError } from '../src/index.ts'
import { openTelemetry } from '../src/otel.ts'
import { maxBacklogField, recordField } from './fixtures/onward.ts'
import { newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { keptSpans, parentOf, spanIdOf, traceIdOf } from './helpers/spans.ts'
import { add, gate, pending, startWorker, tally } from './helpers/workers.ts'

/** What handlers publish: with the completion of their job, and not without it. Crashes are in onward-crash.test.ts. */

const redis = withRedis()
const NEAR = '{orders}:receipts'
const FAR = 'receipts'
const BOTH = [NEAR, FAR]

/** The fields of every entry, the first of a name counting. */
async function entries(stream: string): Promise<Record<string, string>[]> {
  const rows = await redis.client.xrange(stream, '-', '+')
  return rows.map(([, flat]) => {
    const names = flat.filter((_, at) => at % 2 === 0)
    return Object.fromEntries(names.map((name, at) => [name, flat[2 * at + 1] ?? '']))
  })
}
const datas = async (stream: string) => (await entries(stream)).map(({ data }) => JSON.parse(data ?? '') as unknown)

async function start(handlers: Handlers, options: object = {}) {
  return startWorker({ redis: redis.url, handlers, retry: { attempts: 1 }, ...options })
}

describe.each(BOTH)('a job of a run to %s', (stream) => {
  test('is there when its run has completed, and not before', async () => {
    const held = gate()
    onEnd(() => held.open())
    const began = gate()
    const worker = await start({
      x: async (n, job) => {
        job.publish('receipt', { n }, { stream })
        began.open()
        await held.wait()
        job.publish('receipt', { n, second: true }, { stream })
      },
    })
    await add(redis.client, 'x', 1)
    await began.wait()
    expect(await redis.client.exists(stream)).toBe(0)
    held.open()
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(await entries(stream)).toEqual([
      { job: 'receipt', data: '{"n":1}' },
      { job: 'receipt', data: '{"n":1,"second":true}' },
    ])
    expect(await pending(redis.client)).toEqual([])
    await eventually(async () => expect(await redis.client.sismember('millrace:streams', stream)).toBe(1))
    expect(await tally(redis.client)).toEqual({ completed: 1 })
  })

  test('is not there of a run that fails, also where a later run publishes', async () => {
    const worker = await start(
      {
        x: (_, job) => {
          job.publish('receipt', { attempt: job.attempt }, { stream })
          if (job.attempt === 1) throw new Error('not yet')
        },
        dies: (_, job) => {
          job.publish('receipt', { dead: true }, { stream })
          throw new Error('never')
        },
      },
      { retry: { attempts: 2, backoff: 'fixed', delayMs: 1 } },
    )
    await add(redis.client, 'dies')
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, dead: 1 }))
    expect(await datas(stream)).toEqual([{ attempt: 2 }])
  })

  test('is not there of a run that is cancelled', async () => {
    const began = gate()
    const worker = await start({
      x: async (_, job) => {
        job.publish('receipt', 1, { stream })
        began.open()
        await new Promise((_resolve, reject) => job.signal.addEventListener('abort', () => reject(new Error('stop'))))
      },
    })
    const id = await add(redis.client, 'x')
    await began.wait()
    const inspector = new Inspector({ redis: redis.url })
    onEnd(() => inspector.close())
    await inspector.cancel('orders', id)
    await eventually(() => expect(worker.counts.cancelled).toBe(1))
    expect(await redis.client.exists(stream)).toBe(0)
  })

  test('may be for later, with headers, a deadline and a version', async () => {
    const worker = await start({
      x: (_, job) => {
        job.publish('later', 1, { stream, delayMs: 3_600_000, headers: { tenant: 'a' } })
        job.publish('now', 2, { stream, runAt: new Date(1), ttlMs: 60_000, version: 3 })
      },
    })
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(await entries(stream)).toEqual([{ job: 'now', data: '2', version: '3', expires: '+60000' }])
    const inspector = new Inspector({ redis: redis.url })
    onEnd(() => inspector.close())
    const { jobs } = await inspector.scheduled.list(stream)
    expect(jobs).toMatchObject([{ job: 'later' }])
    const seen: unknown[] = []
    const later = (data: unknown, { id, headers }: Job) => void seen.push([data, id, headers['tenant']])
    await start({ later, now: () => {} }, { stream })
    await inspector.scheduled.promote(stream, jobs[0]?.id ?? '')
    await eventually(() => expect(seen).toEqual([[1, jobs[0]?.id, 'a']]))
  })

  test('is published of many runs at once, each once', async () => {
    const worker = await start({ x: (n, job) => job.publish('receipt', n, { stream }) }, { concurrency: 100 })
    for (let n = 0; n < 700; n++) void add(redis.client, 'x', n)
    await eventually(() => expect(worker.counts.completed).toBe(700))
    const all = (await datas(stream)) as number[]
    expect(all.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 700 }, (_, n) => n))
  })

  test('is not held back by the maxBacklog of its stream', async () => {
    await redis.client.hset(...maxBacklogField(stream, 1))
    const worker = await start({ x: (n, job) => job.publish('receipt', n, { stream }) })
    for (let n = 0; n < 5; n++) await add(redis.client, 'x', n)
    await eventually(() => expect(worker.counts.completed).toBe(5))
    expect(await datas(stream)).toHaveLength(5)
  })

  test('fails its run alone where the key of its stream holds something else', async () => {
    await redis.client.set(stream, 'not a stream')
    const errors: unknown[] = []
    const worker = await start({
      bad: (_, job) => {
        job.publish('other', 0, { stream: `${stream}:other` })
        job.publish('receipt', 1, { stream })
      },
      good: (_, job) => job.publish('receipt', 2, { stream: `${stream}:good` }),
    })
    worker.on('job:failed', ({ error }) => errors.push(error))
    const bad = await add(redis.client, 'bad')
    await add(redis.client, 'good')
    await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, failed: 1, dead: 1 }))
    expect(errors).toMatchObject([{ code: 'ERR_PUBLISH_REFUSED', published: 'no' }])
    expect((errors[0] as Error).message).toMatch(/receipts.*cannot be published: WRONGTYPE/)
    expect(await datas(`${stream}:good`)).toEqual([2])
    expect(await pending(redis.client)).toEqual([])
    const [dead] = await entries('{orders}:group:main:dead')
    expect(dead).toMatchObject({ 'dead-id': bad, 'dead-reason': 'attempts' })
  })

  test('works with the jobs of a group that records outcomes, unique jobs, retries, and jobs under a limit', async () => {
    await redis.client.hset(...recordField('orders', 'main'))
    const limits = [{ name: 'few', concurrency: 2 }]
    const worker = await start(
      {
        x: (n, job) => {
          if (job.attempt === 1) throw new Error('once')
          job.publish('receipt', n, { stream })
        },
      },
      { limits, retry: { attempts: 3, backoff: 'fixed', delayMs: 1 } },
    )
    const producer = newProducer({ redis: redis.url })
    for (let n = 0; n < 10; n++) await producer.publish('x', n, { stream: 'orders', uniqueKey: `k${n}` })
    await eventually(() => expect(worker.counts.completed).toBe(10))
    expect(((await datas(stream)) as number[]).toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    expect(await redis.client.keys('*:unique:*')).toEqual([])
    expect(await redis.client.hlen('{orders}:group:main:index')).toBe(0)
    const [outcomes = ''] = await redis.client.keys('*:outcomes:*')
    expect(
      Object.values(await redis.client.hgetall(outcomes)).filter((one) => one.startsWith('completed')),
    ).toHaveLength(10)
  })
})

test('the definition says where a job goes and what its data must be; without a stream it goes to that of the run', async () => {
  const receipt = defineJob<{ order: number }>('receipt', { stream: NEAR })
  const next = defineJob<number>('next')
  const x = defineJob<number>('x')
  const worker = await start([
    handle(x, (n, job) => {
      job.publish(receipt, { order: n })
      job.publish(next, n + 1)
    }),
    handle(next, () => {}),
  ])
  await add(redis.client, 'x', 1)
  await eventually(() => expect(worker.counts.completed).toBe(2))
  expect(await datas(NEAR)).toEqual([{ order: 1 }])
  expect(await datas('orders')).toEqual([1, 2])
})

describe('a call that cannot be', () => {
  async function errorsOf(run: (job: Job) => void): Promise<PublishError[]> {
    const errors: PublishError[] = []
    const worker = await start({
      x: (_, job) => {
        try {
          run(job)
        } catch (error) {
          errors.push(error as PublishError)
        }
      },
    })
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts.completed).toBe(1))
    return errors
  }

  test.each<[string, (job: Job) => void, string, RegExp]>([
    [
      'an unknown option',
      (job) => job.publish('y', 1, { delay: 1 } as object),
      'ERR_OPTION',
      /unknown option `delay` of job.publish/,
    ],
    ['a wait for its result', (job) => job.publish('y', 1, { result: true } as object), 'ERR_OPTION', /`result`/],
    ['an option of producers', (job) => job.publish('y', 1, { timeoutMs: 1 } as object), 'ERR_OPTION', /timeoutMs/],
    ['a bad name', (job) => job.publish('y y', 1), 'ERR_NAME', /job name/],
    ['a bad stream', (job) => job.publish('y', 1, { stream: '{a}' }), 'ERR_NAME', /stream name/],
    ['no data', (job) => job.publish('y', undefined), 'ERR_PAYLOAD', /JSON-able/],
    ['too much data', (job) => job.publish('y', 'x'.repeat(1024 * 1024)), 'ERR_PAYLOAD', /at most 1048576 bytes/],
  ])('%s throws in the handler, and publishes nothing', async (_, run, code, message) => {
    const errors = await errorsOf(run)
    expect(errors).toMatchObject([{ name: 'PublishError', code, published: 'no' }])
    expect(errors[0]?.message).toMatch(message)
    expect(await datas('orders')).toHaveLength(1)
  })

  test('is the 101st of a run, and one beyond 1 MiB; what came before it is published', async () => {
    const many = await errorsOf((job) => {
      for (let n = 0; n <= 100; n++) job.publish('y', n, { stream: NEAR })
    })
    expect(many).toMatchObject([{ code: 'ERR_RUN_PUBLISHES' }])
    expect(await datas(NEAR)).toHaveLength(100)
  })

  test('is one beyond 1 MiB in all', async () => {
    const large = await errorsOf((job) => {
      for (let n = 0; n < 3; n++) job.publish('y', 'x'.repeat(500_000), { stream: NEAR })
    })
    expect(large).toMatchObject([{ code: 'ERR_RUN_PUBLISHES' }])
    expect(await datas(NEAR)).toHaveLength(2)
  })

  test('is one after the run', async () => {
    let kept: Job | undefined
    const worker = await start({ x: (_, job) => void (kept = job) })
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(() => kept?.publish('y', 1)).toThrow(
      expect.objectContaining({ code: 'ERR_RUN_ENDED', published: 'no' }) as Error,
    )
  })
})

test('a unique job and one with a token of its own keep to what is there already', async () => {
  const worker = await start({
    x: (n, job) => {
      job.publish('mail', n, { stream: NEAR, uniqueKey: 'a' })
      job.publish('once', n, { stream: NEAR, idempotencyToken: 'daily' })
    },
  })
  for (let n = 0; n < 3; n++) await add(redis.client, 'x', n)
  await eventually(() => expect(worker.counts.completed).toBe(3))
  expect((await entries(NEAR)).map(({ job }) => job).toSorted()).toEqual(['mail', 'once'])
})

test('a job in a stream that has given its last id fails the run, and nothing of it is published', async () => {
  await redis.client.xadd(NEAR, '18446744073709551615-18446744073709551615', 'job', 'y')
  const worker = await start({
    x: (_, job) => {
      job.publish('first', 1, { stream: '{orders}:other' })
      job.publish('second', 2, { stream: NEAR })
    },
  })
  await add(redis.client, 'x')
  await eventually(() => expect(worker.counts).toMatchObject({ failed: 1, dead: 1, completed: 0 }))
  expect(await redis.client.exists('{orders}:other')).toBe(0)
})

test.each(BOTH)('a run that may not write to %s fails, and those beside it complete', async (stream) => {
  const keys = ['~orders', '~{orders}:[a-qs-z]*', '~{orders}:replays*', '~millrace:*']
  await redis.client.acl('SETUSER', 'narrow', 'on', '>secret', ...keys, '+@all')
  onEnd(async () => void (await redis.client.acl('DELUSER', 'narrow')))
  const url = new URL(redis.url)
  url.username = 'narrow'
  url.password = 'secret'
  const errors: unknown[] = []
  const worker = await start(
    {
      x: (n, job) => job.publish('y', n, { stream: n === 7 ? stream : '{orders}:good' }),
    },
    { redis: url.href },
  )
  worker.on('job:failed', ({ error }) => errors.push(error))
  for (let n = 0; n < 10; n++) await add(redis.client, 'x', n)
  await eventually(() => expect(worker.counts).toMatchObject({ completed: 9, failed: 1, dead: 1 }))
  expect(errors).toMatchObject([{ code: 'ERR_PUBLISH_REFUSED' }])
  expect((errors[0] as Error).message).toContain('NOPERM')
  expect(await redis.client.xlen('{orders}:good')).toBe(9)
})

describe('traced', () => {
  const spans = keptSpans({ isRegistered: true })

  test.each(BOTH)('what a run publishes to %s is a part of its trace', async (stream) => {
    const tracing = openTelemetry({ tracerProvider: spans.provider })
    const worker = await start({ x: (_, job) => job.publish('y', 1, { stream }) }, { tracing })
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts.completed).toBe(1))
    const [entry] = await entries(stream)
    const [publish, run] = [await spans.one('send'), await spans.one('process')]
    expect(parentOf(publish)).toBe(spanIdOf(run))
    expect(entry?.['traceparent']).toContain(`${traceIdOf(run)}-${spanIdOf(publish)}`)
  })
})
