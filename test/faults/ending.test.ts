import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { Job } from '../../src/index.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess, tally } from '../helpers/workers.ts'

/** Runs that are ended from outside: by their timeout, by a cancel on another machine. */

const redis = withRedis()
const aborted = (job: Job) =>
  new Promise<never>((_, reject) =>
    job.signal.addEventListener('abort', () => reject(job.signal.reason as Error), { once: true }),
  )

const inspect = () => newInspector(redis.url)

test('a handler that heeds its timeout has failed: it is tried again by its policy and not left to its lease', async () => {
  const runs: number[][] = []
  const worker = await startWorker({
    redis: redis.url,
    timeoutMs: 100,
    leaseMs: 60_000,
    retry: { attempts: 2, delayMs: 1 },
    handlers: {
      x: (_data, job) => {
        runs.push([job.attempt, job.deliveries])
        return aborted(job)
      },
    },
  })
  const id = await add(redis.client, 'x')

  await eventually(async () => expect(await tally(redis.client)).toEqual({ retried: 1, dead: 1 }))
  expect(runs).toEqual([
    [1, 1],
    [2, 1],
  ])
  expect(worker.counts).toMatchObject({ timedOut: 2, retried: 1, dead: 1, late: 0 })
  const [letter] = await redis.client.xrange('{orders}:group:main:dead', '-', '+')
  const value = (name: string) => letter?.[1][letter[1].indexOf(name) + 1]
  expect([value('dead-id'), value('dead-error'), value('dead-message')]).toEqual([
    id,
    'JobTimeoutError',
    `job ${id} on orders ran longer than its timeoutMs of 100 ms`,
  ])
})

test('a handler that ignores its timeout is reported and keeps its slot, its job runs elsewhere, its late end is counted', async () => {
  const held = gate()
  const overdue: string[] = []
  const said: { id?: string; message: string }[] = []
  const logger = {
    debug() {},
    info() {},
    warn: (fields: object, message: string) => said.push({ ...fields, message }),
    error() {},
  }
  const deaf = await startWorker({
    redis: redis.url,
    concurrency: 1,
    timeoutMs: 100,
    logger,
    handlers: { x: () => held.wait() },
  })
  deaf.on('job:overdue', ({ id }) => overdue.push(id))
  const id = await add(redis.client, 'x')
  await waitFor(() => deaf.counts.timedOut === 1, { what: 'timed out' })
  const seen: number[] = []
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void seen.push(job.deliveries) } })

  await eventually(() => expect(seen).toEqual([2]))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
  await eventually(() => expect(overdue).toEqual([id]))
  expect(said.filter((one) => one.id === id).map(({ message }) => message)).toContain(
    'the handler does not heed its aborted signal: its slot stays taken until it ends',
  )
  // Its one slot is taken, so a further job is for the other worker.
  await add(redis.client, 'x')
  await eventually(() => expect(seen).toEqual([2, 1]))
  expect(deaf.counts.delivered).toBe(1)
  held.open()
  await eventually(() => expect(deaf.counts.late).toBe(1))
  expect(await tally(redis.client)).toEqual({ completed: 2, late: 1 })
})

test('a job that was cancelled before it was delivered never runs, also where no worker was there when it was', async () => {
  const seen: string[] = []
  await startWorker({ redis: redis.url, handlers: { y: () => {} } }).then((worker) => worker.stop())
  const [first, second] = [await add(redis.client, 'x'), await add(redis.client, 'x')]
  const { cancelled, groups } = await inspect().cancel('orders', first)
  expect([cancelled, groups]).toEqual([true, [{ group: 'main', was: 'waiting', cancelled: true }]])
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void seen.push(job.id) } })

  await eventually(async () => expect(await tally(redis.client)).toEqual({ cancelled: 1, completed: 1 }))
  expect(seen).toEqual([second])
  expect(await pending(redis.client)).toEqual([])
})

test('a job that runs in another process is cancelled: its signal aborts, it is settled as cancelled and not tried again', async () => {
  const worker = await startWorkerProcess({ redis: redis.url, retry: { delayMs: 1 } })
  const id = await add(redis.client, 'slow', { ms: 120_000 })
  await worker.line(/^started/)
  const { groups } = await inspect().cancel('orders', id)
  expect(groups).toEqual([{ group: 'main', was: 'running', cancelled: true }])

  await worker.line(new RegExp(`^aborted ${id} ERR_CANCELLED`))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ cancelled: 1 }))
  expect(await pending(redis.client)).toEqual([])
  expect(await redis.client.zcard('{orders}:group:main:scheduled')).toBe(0)
})

test('a run that is cancelled reaches its signal within two pulses', async () => {
  const worker = await startWorker({ redis: redis.url, leaseMs: 5000, handlers: { x: (_data, job) => aborted(job) } })
  const id = await add(redis.client, 'x')
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
  await inspect().cancel('orders', id)
  const pulses = async () =>
    Number((await redis.client.info('commandstats')).match(/cmdstat_zadd:calls=(\d+)/)?.[1] ?? 0)
  const before = await pulses()
  await waitFor(() => worker.counts.cancelled === 1, { intervalMs: 1, what: 'cancelled' })

  // Each pulse of the one worker adds to the list of workers once, and nothing else here does.
  expect((await pulses()) - before).toBeLessThanOrEqual(2)
})

test('a job that fails after it was cancelled, and before its worker heard of that, is not tried again', async () => {
  const held = gate()
  await startWorker({
    redis: redis.url,
    leaseMs: 10_000,
    retry: { delayMs: 1 },
    handlers: {
      x: async () => {
        await held.wait()
        throw new Error('no')
      },
    },
  })
  const id = await add(redis.client, 'x')
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
  await inspect().cancel('orders', id)
  held.open()

  await eventually(async () => expect(await tally(redis.client)).toEqual({ cancelled: 1 }))
  expect(await redis.client.exists('{orders}:group:main:scheduled')).toBe(0)
})

test('a run that completes though it was cancelled is completed', async () => {
  const worker = await startWorkerProcess({ redis: redis.url })
  const id = await add(redis.client, 'deaf', { ms: 2500 })
  await worker.line(/^started/)
  await inspect().cancel('orders', id)
  await worker.line(/^ended/)

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
  await expect(inspect().cancel('orders', id)).resolves.toMatchObject({
    cancelled: false,
    groups: [{ group: 'main', was: 'finished' }],
  })
})

test('a cancel for one group leaves the other groups their job', async () => {
  const seen: string[] = []
  for (const group of ['a', 'b']) {
    await startWorker({ redis: redis.url, group, startAt: 'oldest' }).then((worker) => worker.stop())
  }
  const id = await add(redis.client, 'x')
  await inspect().cancel('orders', id, { group: 'a' })
  for (const group of ['a', 'b']) {
    await startWorker({ redis: redis.url, group, handlers: { x: () => void seen.push(group) } })
  }

  await eventually(async () => expect(await tally(redis.client, 'orders', 'a')).toEqual({ cancelled: 1 }))
  await eventually(async () => expect(await tally(redis.client, 'orders', 'b')).toEqual({ completed: 1 }))
  expect(seen).toEqual(['b'])
})

test('a listener or a logger that throws changes no outcome, and an error that nobody listens to ends nothing', async () => {
  const broken = () => JSON.parse('') as never
  const worker = await startWorker({
    redis: redis.url,
    retry: { attempts: 2, delayMs: 1 },
    logger: { debug: broken, info: broken, warn: broken, error: broken },
    handlers: { good: () => {}, bad: () => Promise.reject(new Error('no')) },
  })
  for (const name of ['job:started', 'job:completed', 'job:failed', 'job:retried', 'job:dead', 'error'] as const) {
    worker.on(name, broken)
    worker.on(name, () => Promise.reject(new Error('later')))
  }
  for (const name of ['good', 'bad', 'good', 'bad']) await add(redis.client, name)

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2, retried: 2, dead: 2 }))
  expect(await worker.stop()).toEqual({ handedBack: 0, unsettled: 0 })
})

test('events come in the order in which things happen to a job, and only once Redis has confirmed them', async () => {
  const told: string[] = []
  const worker = await startWorker({
    redis: redis.url,
    retry: { attempts: 3, delayMs: 1 },
    handlers: {
      x: async (_data, job) => {
        await sleep(1)
        if (job.attempt < 3) throw new Error('no')
      },
      y: () => Promise.reject(new Error('never')),
    },
  })
  const names = ['job:started', 'job:failed', 'job:retried', 'job:completed', 'job:dead'] as const
  for (const name of names) worker.on(name, ({ job, attempt }) => told.push(`${job} ${name.slice(4)} ${attempt}`))
  worker.on('worker:draining', () => told.push('draining'))
  worker.on('worker:stopped', ({ unsettled }) => told.push(`stopped ${unsettled}`))
  await add(redis.client, 'x')
  await eventually(() => expect(told).toContain('x completed 3'))
  await add(redis.client, 'y')
  await eventually(() => expect(told).toContain('y dead 3'))
  await worker.stop()

  const of = (job: string, last: string) =>
    [1, 2, 3]
      .flatMap((n) => [`started ${n}`, ...(n < 3 ? [`failed ${n}`, `retried ${n}`] : [])])
      .concat(last)
      .map((one) => `${job} ${one}`)
  expect(told.filter((one) => one.startsWith('x'))).toEqual(of('x', 'completed 3'))
  expect(told.filter((one) => one.startsWith('y'))).toEqual(of('y', 'failed 3').concat('y dead 3'))
  expect(told.slice(-2)).toEqual(['draining', 'stopped 0'])
})
