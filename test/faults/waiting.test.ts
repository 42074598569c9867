import { expect, test } from 'vitest'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, gate, LEASE_MS, pending, startWorker, startWorkerProcess, tally } from '../helpers/workers.ts'

/** What a worker must not do to jobs that only wait in it. */

const redis = withRedis()

test('jobs that wait behind a blocked event loop are run in the end, and none of them is charged a delivery', async () => {
  const worker = await startWorkerProcess({ redis: redis.url, concurrency: 1, leaseMs: 600 })
  for (let n = 0; n < 5; n++) await add(redis.client, 'block', { ms: 1300 })

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 5 }))
  const started = worker.log().filter((line) => line.startsWith('started'))
  expect(started.map((line) => line.split(' ')[2])).toEqual(['1', '1', '1', '1', '1'])
})

test('jobs claimed behind a hung quarantined job move on to another worker', async () => {
  await redis.client.call('XGROUP', 'CREATE', 'orders', 'main', '0', 'MKSTREAM')
  for (let n = 0; n < 4; n++) await add(redis.client, 'x', { n })
  await redis.client.call('XREADGROUP', 'GROUP', 'main', 'ghost', 'STREAMS', 'orders', '>')
  const ids = (await pending(redis.client)).map(({ id }) => id)
  await redis.client.call('XCLAIM', 'orders', 'main', 'ghost', 0, ...ids, 'IDLE', 600_000, 'RETRYCOUNT', 2, 'JUSTID')
  const hung: string[] = []
  const never = new Promise<void>(() => {})
  await startWorker({
    redis: redis.url,
    timeoutMs: 300,
    handlers: { x: (_data, job) => (hung.push(job.id), never) },
  })
  await eventually(() => expect(hung).toHaveLength(1))
  const ran: string[] = []
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void ran.push(job.id) } })

  await waitFor(() => ran.length + new Set(hung).size >= 4, { what: 'the others ran' })
})

test('a worker does not hoard what it claims while another one is idle', async () => {
  await redis.client.call('XGROUP', 'CREATE', 'orders', 'main', '0', 'MKSTREAM')
  for (let n = 0; n < 8; n++) await add(redis.client, 'x', { n })
  await redis.client.call('XREADGROUP', 'GROUP', 'main', 'ghost', 'STREAMS', 'orders', '>')
  const ids = (await pending(redis.client)).map(({ id }) => id)
  await redis.client.call('XCLAIM', 'orders', 'main', 'ghost', 0, ...ids, 'IDLE', 600_000, 'JUSTID')
  const ran: Record<string, number> = { a: 0, b: 0 }
  const { wait, open } = gate()
  onEnd(open)
  // Who comes first ends nothing until the other has something to run: what it claimed must not be all.
  const slow = (name: string) => async () => {
    ran[name] = (ran[name] ?? 0) + 1
    if (Object.values(ran).every((runs) => runs > 0)) open()
    await wait()
  }
  await startWorker({ redis: redis.url, concurrency: 1, handlers: { x: slow('a') } })
  await startWorker({ redis: redis.url, concurrency: 1, handlers: { x: slow('b') } })

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 8 }))
  expect(ran['a']).toBeGreaterThan(0)
  expect(ran['b']).toBeGreaterThan(0)
})

test('a dead letter that cannot be written holds up no completion', async () => {
  await redis.client.set('{orders}:group:main:dead', 'not a stream')
  await startWorker({ redis: redis.url, handlers: { x() {} } })
  await redis.client.call('XADD', 'orders', '*', 'no', 'job')
  for (let n = 0; n < 20; n++) await add(redis.client, 'x')

  await eventually(async () => expect((await tally(redis.client))['completed']).toBe(20))
  expect(await pending(redis.client)).toHaveLength(1)
  await redis.client.del('{orders}:group:main:dead')
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 20, dead: 1 }))
})

test('a worker starts while Redis is out of memory, and drains what fills it', async () => {
  await startWorker({ redis: redis.url }).then((worker) => worker.stop())
  for (let n = 0; n < 100; n++) await add(redis.client, 'x')
  await redis.client.config('SET', 'maxmemory', '1')
  try {
    await startWorker({ redis: redis.url, handlers: { x() {} } })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 100 }))
  } finally {
    await redis.client.config('SET', 'maxmemory', '0')
  }
})

test('a worker that joined at "now" misses nothing that is published while its group is gone', async () => {
  await startWorker({ redis: redis.url, group: 'first' })
  const ran: number[] = []
  await startWorker({
    redis: redis.url,
    group: 'second',
    startAt: 'now',
    handlers: { x: (data) => void ran.push((data as { n: number }).n) },
  })
  const entry = (n: number) => ['xadd', 'orders', '*', 'job', 'x', 'data', `{"n":${n}}`]
  await redis.client.multi([['flushall'], entry(1), entry(2)]).exec()

  await eventually(() => expect(ran).toEqual([1, 2]))
})

test('run() ends when the program stops the worker itself', async () => {
  const worker = await startWorker({ redis: redis.url }).then(async (started) => {
    await started.stop()
    const { Worker } = await import('../../src/index.ts')
    return new Worker({ redis: redis.url, stream: 'orders', leaseMs: LEASE_MS, handlers: { x() {} }, logger: false })
  })
  const before = process.listenerCount('SIGTERM')
  const running = worker.run()
  await worker.stop()

  expect(await running).toEqual({ handedBack: 0, unsettled: 0 })
  expect(process.listenerCount('SIGTERM')).toBe(before)
})

test('what is published while handlers keep the event loop for 9 s is not charged a delivery, nor lost with its connection', async () => {
  const worker = await startWorkerProcess({ redis: redis.url, concurrency: 100, leaseMs: 30_000 })
  for (let n = 0; n < 20; n++) redis.client.xadd('orders', '*', 'job', 'block', 'data', '{"ms":450}').catch(() => {})
  await waitFor(() => worker.log().length > 2, { what: 'the loop is kept' })
  for (let n = 0; n < 30; n++) await add(redis.client, 'quick')

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 50 }))
  const deliveries = worker
    .log()
    .filter((line) => line.startsWith('ran'))
    .map((line) => line.split(' ')[2])
  expect(new Set(deliveries)).toEqual(new Set(['1']))
  expect(worker.stderr.join('\n')).not.toContain('outlived its block')
})
