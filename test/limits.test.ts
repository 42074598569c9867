import { expect, test } from 'vitest'
import { Inspector, type LimitOptions, type Worker } from '../src/index.ts'
import { groupScheduledKey, limiterKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually, waitFor } from './helpers/eventually.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { excessUs } from './helpers/slot-model.ts'
import { add, gate, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

/** Limits as workers keep them. What begins is timed by the server's clock; nothing here has to be fast. */

const redis = withRedis()
const SCHEDULED = groupScheduledKey('orders', 'main')

interface Account {
  readonly account: string
}

/** A worker that notes what begins, in order. */
async function startLimited(limits: LimitOptions[], options: object = {}): Promise<{ worker: Worker; begun: Began[] }> {
  const begun: Began[] = []
  const worker = await startWorker({
    redis: redis.url,
    limits,
    handlers: {
      x: (data, { id, attempt, deliveries }) => void begun.push({ data, id, attempt, deliveries }),
      other() {},
    },
    ...options,
  })
  return { worker, begun }
}

interface Began {
  readonly data: unknown
  readonly id: string
  readonly attempt: number
  readonly deliveries: number
}

test('jobs of a rate begin within it and its burst in any window, each once and with its first attempt', async () => {
  const [ids, times] = [new Set<string>(), [] as number[]]
  const limits = [{ name: 'api', rate: { jobs: 100, perMs: 1000, burst: 10 } }]
  const handlers = {
    x: async (_: unknown, job: { id: string; attempt: number; deliveries: number }) => {
      // The handler begins before it is asked for the time: what begins early is seen a little later, never earlier.
      times.push(performance.now())
      expect([job.attempt, job.deliveries]).toEqual([1, 1])
      ids.add(job.id)
    },
  }
  for (let n = 0; n < 80; n++) await add(redis.client, 'x', n)
  await startWorker({ redis: redis.url, handlers, limits })
  await startWorker({ redis: redis.url, handlers, limits })
  await eventually(() => expect(times).toHaveLength(80))

  expect(ids.size).toBe(80)
  const begun = times.map((atMs) => ({ atUs: atMs * 1000, costUs: 10_000 }))
  expect(excessUs(begun, 100_000)).toBeLessThanOrEqual(10_000)
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 80 }))
})

test('a busy key does not hold up the jobs of others', async () => {
  const limits = [{ key: 'stripe:{data.account}', rate: { jobs: 1, perMs: 3_600_000 } }]
  for (let n = 0; n < 20; n++) await add(redis.client, 'x', { account: 'busy' })
  for (let n = 0; n < 5; n++) await add(redis.client, 'x', { account: `other-${n}` })
  const { worker, begun } = await startLimited(limits)
  const accounts = () => begun.map(({ data }) => (data as Account).account)

  await eventually(() =>
    expect(accounts().toSorted()).toEqual(['busy', 'other-0', 'other-1', 'other-2', 'other-3', 'other-4']),
  )
  await eventually(() => expect(worker.counts.waited).toBe(19))
  expect(worker.counts).toMatchObject({ failed: 0, retried: 0, dead: 0 })
})

test('a backlog behind a limit for all jobs is left in the stream, and not moved', async () => {
  for (let n = 0; n < 300; n++) await add(redis.client, 'x', n)
  const limits = [{ rate: { jobs: 1, perMs: 60_000 } }]
  const handlers = { x() {} }
  const worker = await startWorker({ redis: redis.url, handlers, limits })
  await eventually(() => expect(worker.counts.completed).toBe(1))
  await eventually(() => expect(worker.counts.waited).toBeGreaterThan(0))

  expect(worker.counts.delivered).toBeLessThan(10)
})

test('what waits for a limit says for which, and when it comes back', async () => {
  const limits = [{ name: 'hourly', jobs: ['x'], rate: { jobs: 1, perMs: 3_600_000 } }]
  for (let n = 0; n < 3; n++) await add(redis.client, 'x', n)
  const { worker, begun } = await startLimited(limits)
  await eventually(() => expect(worker.counts.waited).toBe(2))
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  const { jobs } = await inspector.scheduled.list('orders', { group: 'main' })

  expect(begun).toHaveLength(1)
  expect(jobs.map(({ attempt }) => attempt)).toEqual([0, 0])
  expect(jobs.map(({ error }) => error)).toEqual(jobs.map(() => expect.stringContaining('the limit hourly') as string))
  const { groups } = await inspector.explain('orders', jobs[0]?.id ?? '', { group: 'main' })
  const told = groups.flatMap(({ sentences }) => sentences.map(({ text }) => text))
  expect(told[0]).toMatch(/^Waits until .*, at no cost: "the limit hourly"\.$/)
  const nowMs = await serverMs(redis.client)
  for (const { dueMs } of jobs) expect(dueMs).toBeGreaterThan(nowMs + 1_000_000)
})

test.for<[string, LimitOptions[]]>([
  ['a rate', [{ key: '{data.account}', rate: { jobs: 5 } }]],
  [
    'two rates',
    [
      { key: '{data.account}', rate: { jobs: 5 } },
      { name: 'wide', key: '{job}', rate: { jobs: 1000 } },
    ],
  ],
])(
  'of a backlog that no worker can hold each job comes back from the scheduled set at its own time: %s',
  async ([, limits]) => {
    const published = redis.client.multi()
    for (let n = 0; n < 1000; n++) published.xadd('orders', '*', 'job', 'x', 'data', '{"account":"busy"}')
    await published.exec()
    await startLimited(limits)
    await eventually(async () => expect(await redis.client.zcard(SCHEDULED)).toBeGreaterThan(400))
    const nowMs = await serverMs(redis.client)

    // Of 400 and more that begin a fifth of a second apart most have a minute or two to wait: were they told less, they would be moved for nothing.
    expect(await redis.client.zcount(SCHEDULED, nowMs + 30_000, '+inf')).toBeGreaterThan(200)
  },
)

test.for<[string, LimitOptions[]]>([
  ['alone', [{ name: 'api', rate: { jobs: 100 } }]],
  [
    'beside another rate',
    [
      { name: 'api', rate: { jobs: 100 } },
      { name: 'other', rate: { jobs: 1000 } },
    ],
  ],
])('a rate that was made faster is in force, however far ahead the slower one has booked: %s', async ([, limits]) => {
  const hourMs = 3_600_000
  const slots = limiterKey({ name: 'api' }, 'slots', undefined)
  await redis.client.set(slots, `${((await serverMs(redis.client)) + hourMs) * 1000} 0`, 'PX', hourMs)
  for (let n = 0; n < 3; n++) await add(redis.client, 'x', n)
  const { begun } = await startLimited(limits)

  await eventually(() => expect(begun).toHaveLength(3))
})

const wide = { jobs: 1000, perMs: 1000, burst: 1000 }
test.for<[string, LimitOptions[]]>([
  ['all together', [{ rate: wide }, { name: 'many', concurrency: 1000 }]],
  ['each by its key', [{ key: '{data.account}', rate: wide }]],
])('a worker whose slots are taken reads no jobs that its limits would let begin, %s', async ([, limits]) => {
  const held = gate()
  onEnd(() => held.open())
  for (let n = 0; n < 20; n++) await add(redis.client, 'x', { account: n })
  const handlers = { x: () => held.wait() }
  const worker = await startWorker({ redis: redis.url, leaseMs: 500, concurrency: 2, handlers, limits })
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(2))
  const fromMs = await serverMs(redis.client)
  // For long enough that what waits for a slot would be handed back.
  await eventually(async () => expect(await serverMs(redis.client)).toBeGreaterThan(fromMs + 400))

  expect(worker.counts).toMatchObject({ delivered: 2, handedBack: 0 })
  held.open()
  await eventually(() => expect(worker.counts).toMatchObject({ delivered: 20, completed: 20, handedBack: 0 }))
})

test('of jobs that wait for a rate a worker reads no more than it has slots for', async () => {
  const held = gate()
  onEnd(() => held.open())
  const read: number[] = []
  const handlers = {
    x: () => {
      read.push(worker.counts.delivered)
      return held.wait()
    },
  }
  const limits = [{ name: 'api', rate: { jobs: 1000, perMs: 1000, burst: 200 } }]
  const worker = await startWorker({ redis: redis.url, concurrency: 2, handlers, limits })
  // They wait for a fourth of a second: there would be time to read all of them.
  const tatMs = (await serverMs(redis.client)) + 450
  await redis.client.set(limiterKey({ name: 'api' }, 'slots', undefined), `${tatMs * 1000} 0`)
  const published = redis.client.multi()
  for (let n = 0; n < 20; n++) published.xadd('orders', '*', 'job', 'x')
  await published.exec()
  await eventually(() => expect(read).toHaveLength(2))

  expect(read).toEqual([2, 2])
})

test('no more jobs run at once than a concurrency allows, on all workers together', async () => {
  let [running, most, done] = [0, 0, 0]
  const handlers = {
    x: async () => {
      most = Math.max(most, ++running)
      await new Promise((resolve) => setTimeout(resolve, 20))
      running -= 1
      done += 1
    },
  }
  for (let n = 0; n < 40; n++) await add(redis.client, 'x', n)
  const limits = [{ concurrency: 3 }]
  await startWorker({ redis: redis.url, handlers, limits })
  await startWorker({ redis: redis.url, handlers, limits })
  await eventually(() => expect(done).toBe(40))

  expect(most).toBe(3)
  await eventually(async () => expect(await redis.client.keys('*:permits')).toEqual([]))
})

test('a key whose permits are taken does not hold up the jobs of others, and its jobs follow', async () => {
  const [held, order] = [gate(), [] as string[]]
  const handlers = {
    x: async (data: unknown) => {
      const { account } = data as Account
      order.push(account)
      if (account === 'busy' && order.filter((one) => one === 'busy').length === 1) await held.wait()
    },
  }
  await startWorker({ redis: redis.url, handlers, limits: [{ key: '{data.account}', concurrency: 1 }] })
  for (const account of ['busy', 'busy', 'busy', 'a', 'b']) await add(redis.client, 'x', { account })
  await eventually(() => expect(order.toSorted()).toEqual(['a', 'b', 'busy']))
  held.open()
  await eventually(() => expect(order.toSorted()).toEqual(['a', 'b', 'busy', 'busy', 'busy']))
})

test('a named limiter holds for two streams together', async () => {
  const begun: string[] = []
  const limits = [{ name: 'shared', jobs: ['x'], rate: { jobs: 2, perMs: 3_600_000, burst: 2 } }]
  const workers: Worker[] = []
  for (const stream of ['orders', 'mails']) {
    const handlers = { x: () => void begun.push(stream), other() {} }
    workers.push(await startWorker({ redis: redis.url, stream, handlers, limits }))
    for (let n = 0; n < 3; n++) await add(redis.client, 'x', n, stream)
  }
  await eventually(() => {
    expect(workers.reduce((sum, { counts }) => sum + counts.waited, 0)).toBe(4)
  })

  expect(begun).toHaveLength(2)
})

test.for<[string, Partial<LimitOptions>, string]>([
  ['a template without a value', { key: 'stripe:{data.account}' }, '`limits[0].key` needs `data.account` to be a text'],
  [
    'a key function that throws',
    {
      key: () => {
        throw new Error('no key')
      },
    },
    '`limits[0].key` threw: no key',
  ],
  ['a key function that returns no text', { key: () => 5 as never }, '`limits[0].key` is to return a text'],
  ['a cost of 0', { cost: () => 0 }, '`limits[0].cost` is to return a number above 0'],
  ['a cost above the burst', { cost: () => 1000 }, 'up to the burst of 10, and returned 1000'],
])('%s makes a job dead as invalid, and not run', async ([, limit, message]) => {
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  await add(redis.client, 'x', { other: 1 })
  const limits: LimitOptions[] = [{ rate: { jobs: 10, perMs: 1000, burst: 10 }, ...limit }]
  const { worker, begun } = await startLimited(limits)
  await eventually(() => expect(worker.counts.dead).toBe(1))
  const { letters } = await inspector.dead.list('orders', 'main')

  expect(begun).toEqual([])
  expect(letters[0]?.reason).toBe('invalid')
  expect(JSON.stringify(letters[0])).toContain(message)
})

test('jobs of a limiter whose key holds something else wait, said once, and run when it is put right', async () => {
  const key = limiterKey({ name: 'api' }, 'slots', undefined)
  await redis.client.rpush(key, 'x')
  const warned: string[] = []
  const warn = (_: object, message: string) => void warned.push(message)
  const logger = { debug() {}, info() {}, warn, error() {} }
  for (let n = 0; n < 5; n++) await add(redis.client, 'x', n)
  const { begun } = await startLimited([{ name: 'api', rate: { jobs: 1000 } }], { logger })
  const saidOf = (what: RegExp) => warned.filter((message) => what.test(message))
  await eventually(() =>
    expect(saidOf(/cannot ask for a limit/)).toEqual(['cannot ask for a limit now; its jobs wait']),
  )
  expect(begun).toEqual([])
  await redis.client.del(key)

  await eventually(() => expect(begun).toHaveLength(5))
  expect(begun.every(({ attempt }) => attempt === 1)).toBe(true)
  expect(saidOf(/limit/).slice(1)).toEqual(['the limit can be asked for again'])
})

test('a job that waits here for a permit is handed back at a stop, at no cost', async () => {
  const held = gate()
  const handlers = { x: () => held.wait() }
  const limits = [{ concurrency: 1 }]
  const first = await startWorker({ redis: redis.url, handlers, limits })
  for (let n = 0; n < 3; n++) await add(redis.client, 'x', n)
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(3))
  await eventually(() => expect(first.counts.delivered).toBe(3))
  const stopped = first.stop({ drainMs: 20_000 })
  await eventually(async () => expect(await pending(redis.client, 'orders', 'main', ':handback')).toHaveLength(2))
  held.open()

  expect(await stopped).toEqual({ handedBack: 2, unsettled: 0 })
  const second = await startLimited(limits)
  await eventually(() => expect(second.begun).toHaveLength(2))
  expect(second.begun.map(({ attempt, deliveries }) => [attempt, deliveries])).toEqual([
    [1, 1],
    [1, 1],
  ])
})

test('four processes on one limiter begin no more than its rate and burst in any window, and each job once', async () => {
  // Few beyond the burst: on a busy machine slots are missed, and their time is lost to the rate.
  const [jobs, rate] = [80, { jobs: 200, perMs: 1000, burst: 40 }]
  for (let n = 0; n < jobs; n++) await add(redis.client, 'timed', n)
  const options = { redis: redis.url, limits: [{ name: 'api', rate }] }
  const workers = await Promise.all([1, 2, 3, 4].map(() => startWorkerProcess(options)))
  const began = () => workers.flatMap((worker) => worker.log()).map((line) => line.split(' '))
  await eventually(() => expect(began()).toHaveLength(jobs))

  expect(new Set(began().map(([, , id]) => id)).size).toBe(jobs)
  expect(new Set(began().map(([, , , ...counts]) => counts.join(' ')))).toEqual(new Set(['1 1']))
  const begun = began().map(([, atMs]) => ({ atUs: Number(atMs) * 1000, costUs: 5000 }))
  // Ten jobs of leeway: the machine may take a process off its processor between the start of a job and its own word of it.
  expect(excessUs(begun, 200_000)).toBeLessThanOrEqual(50_000)
})

test('the permit of a worker that was killed is free again, and its job runs elsewhere', async () => {
  const options = { redis: redis.url, leaseMs: 1000, limits: [{ name: 'one', concurrency: 1 }] }
  const first = await startWorkerProcess(options)
  await add(redis.client, 'slow', { ms: 600_000 })
  await eventually(() => expect(first.log()).toHaveLength(1))
  const key = limiterKey({ name: 'one' }, 'permits', undefined)
  const [held = ''] = await redis.client.zrange(key, '0', '-1')
  expect(held).toContain(first.consumer)
  first.signal('SIGKILL')
  const ran: number[] = []
  const handlers = { slow: (_: unknown, job: { deliveries: number }) => void ran.push(job.deliveries) }
  await startWorker({ ...options, handlers })

  await eventually(() => expect(ran).toEqual([2]))
  await eventually(async () => expect(await redis.client.exists(key)).toBe(0))
})

test('of four processes under a rate and a concurrency one is killed with what it holds of both: all jobs run, and nothing stays held', async () => {
  const limits = [{ name: 'api', rate: { jobs: 200, burst: 20 }, concurrency: 2 }]
  const options = { redis: redis.url, leaseMs: 1000, concurrency: 4, limits }
  const workers = await Promise.all([1, 2, 3, 4].map(() => startWorkerProcess(options)))
  const ids: string[] = []
  while (ids.length < 40) ids.push(await add(redis.client, 'slow', { ms: 50 }))
  const idsOf = (worker: (typeof workers)[number], word: string) =>
    worker.log().flatMap((line) => (line.startsWith(word) ? [line.split(' ')[1]] : []))
  const isAtWork = (worker: (typeof workers)[number]) => {
    const ended = idsOf(worker, 'ended')
    return idsOf(worker, 'started').some((id) => !ended.includes(id))
  }
  let killed: (typeof workers)[number] | undefined
  await waitFor(() => (killed = workers.find(isAtWork)) !== undefined, { what: 'one of them is at work' })
  killed?.signal('SIGKILL')
  const ended = () => workers.flatMap((worker) => idsOf(worker, 'ended'))
  await eventually(() => expect(new Set(ended())).toEqual(new Set(ids)))

  await eventually(async () =>
    expect(await redis.client.exists(limiterKey({ name: 'api' }, 'permits', undefined))).toBe(0),
  )
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  // The killed one's may have ended there without Redis hearing of it.
  expect(ended().length - ids.length).toBeLessThanOrEqual(2)
})

test('a job that waits for a permit here is cancelled there, and one that waits while work is paused is handed back', async () => {
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  const held = gate()
  onEnd(() => held.open())
  const ran: unknown[] = []
  const handlers = { x: (data: unknown) => void ran.push(data), hold: () => held.wait() }
  const worker = await startWorker({ redis: redis.url, handlers, limits: [{ concurrency: 1 }] })
  await add(redis.client, 'hold', 0)
  await eventually(async () => expect(await redis.client.keys('*:permits')).toHaveLength(1))
  const cancelled = await add(redis.client, 'x', 1)
  await eventually(() => expect(worker.counts.delivered).toBe(2))
  await inspector.cancel('orders', cancelled)
  await eventually(() => expect(worker.counts.cancelled).toBe(1))
  await add(redis.client, 'x', 2)
  await eventually(() => expect(worker.counts.delivered).toBe(3))
  await inspector.pause('orders', { by: 'test', reason: 'test' })
  await eventually(() => expect(worker.counts.handedBack).toBe(1))
  await inspector.resume('orders')
  held.open()

  await eventually(() => expect(ran).toEqual([2]))
})
