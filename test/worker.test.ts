import { expect, test } from 'vitest'
import { Producer, UnknownGroupError, Worker } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, pending, startWorker, tally } from './helpers/workers.ts'

const redis = withRedis()

test('one XADD from any client is a job: its handler runs and the entry is acked', async () => {
  const seen: unknown[] = []
  await startWorker({
    redis: redis.url,
    handlers: { x: (data, job) => seen.push({ data, id: job.id, attempt: job.attempt, deliveries: job.deliveries }) },
  })
  const id = await redis.client.call('XADD', 'orders', '*', 'job', 'x', 'data', '{"order":42}')

  await eventually(() => expect(seen).toEqual([{ data: { order: 42 }, id, attempt: 1, deliveries: 1 }]))
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
})

test('each group on a stream sees every job once', async () => {
  const seen: Record<string, number[]> = { billing: [], mail: [] }
  const handlersOf = (group: string) => ({ x: (data: unknown) => void seen[group]?.push((data as { n: number }).n) })
  await startWorker({ redis: redis.url, group: 'billing', handlers: handlersOf('billing') })
  await startWorker({ redis: redis.url, group: 'mail', startAt: 'oldest', handlers: handlersOf('mail') })
  const producer = new Producer({ redis: redis.url })
  onEnd(async () => void (await producer.close()))
  const numbers = Array.from({ length: 1000 }, (_, n) => n)
  await producer.publishMany(
    'x',
    numbers.map((n) => ({ n })),
    { stream: 'orders' },
  )

  await eventually(() => {
    expect(seen['billing']?.toSorted((a, b) => a - b)).toEqual(numbers)
    expect(seen['mail']?.toSorted((a, b) => a - b)).toEqual(numbers)
  })
})

test('jobs published before any worker existed are not missed by the first group', async () => {
  for (let n = 0; n < 10; n++) await add(redis.client, 'x', { n })
  const seen: number[] = []
  await startWorker({ redis: redis.url, handlers: { x: (data) => void seen.push((data as { n: number }).n) } })

  await eventually(() => expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]))
})

test('a mistyped group starts nothing and names the group that was meant', async () => {
  await startWorker({ redis: redis.url, group: 'billing' })
  const mistyped = new Worker({
    redis: redis.url,
    stream: 'orders',
    group: 'biling',
    handlers: { x() {} },
    logger: false,
  })

  const failure = await mistyped.start().catch((error: unknown) => error)

  expect(failure).toBeInstanceOf(UnknownGroupError)
  expect((failure as Error).message).toContain('did you mean billing?')
  expect(await redis.client.xinfo('GROUPS', 'orders')).toHaveLength(1)
})

test("a group's second worker follows the lease and deliveries that its first one declared", async () => {
  await startWorker({ redis: redis.url, leaseMs: 2000, maxDeliveries: 5 })
  const warned: string[] = []
  const warn = (fields: object, message: string) => void warned.push(`${message} ${JSON.stringify(fields)}`)
  const logger = { debug() {}, info() {}, warn, error() {} }
  const second = await startWorker({ redis: redis.url, leaseMs: 60_000, maxDeliveries: 9, logger })

  expect(second.groupSettings).toEqual({ leaseMs: 2000, maxDeliveries: 5 })
  expect(warned).toHaveLength(2)
  expect(warned[0]).toMatch(/^the group's own setting counts, .*"option":"leaseMs","declared":60000,"counts":2000/)
  expect(warned[1]).toMatch(/^the group's own setting counts, .*"option":"maxDeliveries","declared":9,"counts":5/)
})

test('a handler whose thenable settles twice ends its job once', async () => {
  const twice = {
    then(resolve: () => void, reject: (error: Error) => void) {
      resolve()
      reject(new Error('too much'))
      resolve()
    },
  }
  const worker = await startWorker({ redis: redis.url, concurrency: 1, handlers: { x: () => twice } })
  for (let n = 0; n < 10; n++) await add(redis.client, 'x')

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 10 }))
  expect(worker.counts).toMatchObject({ completed: 10, failed: 0, late: 0 })
})

test('a job past its timeout has its signal aborted and runs elsewhere; its late failure changes nothing', async () => {
  const started: string[] = []
  const reasons: unknown[] = []
  const handlersOf = (name: string) => ({
    x: async (_data: unknown, job: { signal: AbortSignal }) => {
      started.push(name)
      if (name === 'first') {
        await new Promise<void>((resolve) => job.signal.addEventListener('abort', () => resolve()))
        reasons.push((job.signal.reason as { code: string }).code)
        await eventually(() => expect(started).toEqual(['first', 'second']))
        throw new Error('too late')
      }
    },
  })
  const first = await startWorker({ redis: redis.url, timeoutMs: 300, handlers: handlersOf('first') })
  await add(redis.client, 'x')
  await eventually(() => expect(started).toEqual(['first']))
  await startWorker({ redis: redis.url, handlers: handlersOf('second') })

  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  await eventually(() => expect(first.counts.failed).toBe(1))
  expect(started).toEqual(['first', 'second'])
  expect(reasons).toEqual(['ERR_JOB_TIMEOUT'])
  expect(first.counts.timedOut).toBe(1)
  expect(await tally(redis.client)).toEqual({ completed: 1 })
})

test('a timed-out job whose handler completes all the same is settled by it, and a second run counts as late', async () => {
  const second: string[] = []
  let complete = () => {}
  const first = await startWorker({
    redis: redis.url,
    timeoutMs: 300,
    handlers: { x: () => new Promise<void>((resolve) => (complete = resolve)) },
  })
  await add(redis.client, 'x')
  await eventually(() => expect(first.counts.timedOut).toBe(1))
  let finishSecond = () => {}
  const other = await startWorker({
    redis: redis.url,
    handlers: {
      x: (_data, job) =>
        new Promise<void>((resolve) => {
          second.push(`${job.deliveries}`)
          finishSecond = resolve
        }),
    },
  })
  await eventually(() => expect(second).toEqual(['2']))
  complete()
  await eventually(() => expect(first.counts.completed).toBe(1))
  finishSecond()

  await eventually(() => expect(other.counts.late).toBe(1))
  expect(await tally(redis.client)).toEqual({ completed: 1, late: 1 })
  expect(await pending(redis.client)).toEqual([])
})
