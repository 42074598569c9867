import { AsyncLocalStorage } from 'node:async_hooks'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import {
  defineJob,
  FatalError,
  handle,
  handleBatch,
  Worker,
  type BatchFunction,
  type BatchItem,
  type BatchOptions,
  type JobDefinition,
  type WorkerOptions,
} from '../src/index.ts'
import { deadKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { scrape } from './helpers/metrics.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

/** Handlers that are given several jobs at once. */

const redis = withRedis()

const index = defineJob<{ n: number }>('index')
/** Longer than any test: what goes in time goes for another reason. */
const LONG_MS = 60_000

const idsOf = (batch: readonly BatchItem[]) => batch.map(({ job }) => job.id)
const numbersOf = (batch: readonly BatchItem<{ n: number }>[]) => batch.map(({ data }) => data.n)
const addMany = (from: number, to: number, name = 'index') =>
  Promise.all(Array.from({ length: to - from + 1 }, (_, at) => add(redis.client, name, { n: from + at })))
const settled = (counts: object) => eventually(async () => expect(await tally(redis.client)).toEqual(counts))

function start(
  options: BatchOptions,
  run: BatchFunction<{ n: number }>,
  worker: Omit<Partial<WorkerOptions>, 'redis'> = {},
): Promise<Worker> {
  return startWorker({
    redis: redis.url,
    retry: { attempts: 2, delayMs: 1, jitter: 0 },
    handlers: [handleBatch(index, options, run)],
    ...worker,
  })
}

describe('a batch goes', () => {
  test('when it is full, however long it could wait, and the next one is gathered meanwhile', async () => {
    const [batches, first] = [[] as number[][], gate()]
    await start({ size: 3, lingerMs: LONG_MS }, async (batch) => {
      batches.push(numbersOf(batch))
      if (batches.length === 1) await first.wait()
    })
    await addMany(1, 6)
    await eventually(() => expect(batches).toHaveLength(2))
    first.open()
    await settled({ completed: 6 })
    expect(batches.flat().toSorted()).toEqual([1, 2, 3, 4, 5, 6])
    expect(batches.map(({ length }) => length)).toEqual([3, 3])
  })

  test('when its oldest job has waited for lingerMs', async () => {
    const batches: number[][] = []
    await start({ size: 10, lingerMs: 50 }, (batch) => void batches.push(numbersOf(batch)))
    await addMany(1, 3)
    await settled({ completed: 3 })
    expect(batches.flat().toSorted()).toEqual([1, 2, 3])
  })

  test('at once with what is there, if lingerMs is 0', async () => {
    const batches: number[][] = []
    await addMany(1, 5)
    await start({ size: 10, lingerMs: 0 }, (batch) => void batches.push(numbersOf(batch)))
    await settled({ completed: 5 })
    expect(batches.flat().toSorted()).toEqual([1, 2, 3, 4, 5])
  })

  test('when the jobs that wait for their batches have all slots, so that no more could come', async () => {
    const batches: string[][] = []
    const keep = (batch: readonly BatchItem[]) => void batches.push(batch.map(({ job }) => job.name))
    for (const name of ['a', 'b', 'a', 'b']) await add(redis.client, name)
    await start({ size: 1 }, () => {}, {
      concurrency: 4,
      handlers: ['a', 'b'].map((name) => handleBatch(defineJob(name), { size: 4, lingerMs: LONG_MS }, keep)),
    })
    // The other two wait on: there is room for more.
    await settled({ completed: 2 })
    expect(batches).toEqual([['a', 'a']])
    for (const name of ['b', 'b']) await add(redis.client, name)
    await settled({ completed: 6 })
    expect(batches).toEqual([
      ['a', 'a'],
      ['b', 'b', 'b', 'b'],
    ])
  })

  test('of several streams by stream, and also when together they have all slots', async () => {
    const batches: string[][] = []
    const streams = ['orders', 'mails']
    for (const [at, stream] of streams.entries())
      for (let n = 0; n <= at; n++) await add(redis.client, 'index', { n }, stream)
    const worker = new Worker({
      redis: redis.url,
      streams,
      concurrency: 3,
      logger: false,
      handlers: [
        handleBatch(
          index,
          { size: 3, lingerMs: LONG_MS },
          (batch) => void batches.push(batch.map(({ job }) => job.stream)),
        ),
      ],
    })
    onEnd(async () => void (await worker.stop({ drainMs: 0 })))
    await worker.start()
    await eventually(() => expect(batches.length).toBeGreaterThan(0))
    await worker.stop()
    expect(batches.toSorted((a, b) => a.length - b.length)).toEqual([['orders'], ['mails', 'mails']])
  })

  test('when the worker stops, which does not wait for lingerMs', async () => {
    const batches: number[][] = []
    const worker = await start({ size: 10, lingerMs: LONG_MS }, (batch) => void batches.push(numbersOf(batch)))
    await addMany(1, 4)
    await eventually(async () => expect(await pending(redis.client)).toHaveLength(4))
    await eventually(() => expect(worker.counts.delivered).toBe(4))
    expect(batches).toEqual([])
    expect(await worker.stop({ drainMs: 50_000 })).toEqual({ handedBack: 0, unsettled: 0 })
    expect(await tally(redis.client)).toEqual({ completed: 4 })
    expect(batches.flat().toSorted()).toEqual([1, 2, 3, 4])
  })
})

describe('each job of a batch has its own end', () => {
  test('one that fails is tried again with its attempt, and nothing else of its batch is', async () => {
    const runs: [number, number][][] = []
    await start({ size: 3, lingerMs: 100 }, (batch) => {
      runs.push(batch.map(({ data, job }) => [data.n, job.attempt]))
      for (const item of batch) if (item.data.n === 2 && item.job.attempt === 1) item.fail(new Error('not yet'))
    })
    await addMany(1, 3)
    await settled({ completed: 3, retried: 1 })
    expect(runs[0]).toHaveLength(3)
    expect(runs.slice(1)).toEqual([[[2, 2]]])
  })

  test('a throw fails those that are open, and no other', async () => {
    await start(
      { size: 4, lingerMs: LONG_MS },
      (batch) => {
        for (const item of batch) if (item.data.n < 3) item.complete()
        throw new FatalError('the store is gone')
      },
      { retry: { attempts: 1 } },
    )
    const ids = await addMany(1, 4)
    await settled({ completed: 2, dead: 2 })
    const { letters } = await newInspector(redis.url).dead.list('orders', 'main')
    const dead = letters.map(({ id, reason, message }) => [id, reason, message])
    expect(dead).toHaveLength(2)
    expect(dead).toEqual(expect.arrayContaining(ids.slice(2).map((id) => [id, 'fatal', 'the store is gone'])))
  })

  test('what was completed by itself is settled at once, while the function goes on; what comes later changes nothing', async () => {
    const [rest, told] = [gate(), [] as unknown[]]
    const items: BatchItem<{ n: number }>[] = []
    await start({ size: 2, lingerMs: LONG_MS }, async (batch) => {
      items.push(...batch)
      told.push(batch[0]?.complete(), batch[0]?.complete(), batch[0]?.fail(new Error('too late')))
      await rest.wait()
    })
    await addMany(1, 2)
    await settled({ completed: 1 })
    expect((await pending(redis.client)).map(({ id }) => id)).toEqual([items[1]?.job.id])
    rest.open()
    await settled({ completed: 2 })
    expect([...told, items[1]?.fail(new Error('after the return'))]).toEqual([true, false, false, false])
    expect(await redis.client.exists(deadKey('orders', 'main'))).toBe(0)
  })

  test('one that is cancelled while it waits is never given to the function, and the others are', async () => {
    const batches: string[][] = []
    const worker = await start({ size: 3, lingerMs: LONG_MS }, (batch) => void batches.push(idsOf(batch)))
    const [first = '', second = ''] = [
      await add(redis.client, 'index', { n: 1 }),
      await add(redis.client, 'index', { n: 2 }),
    ]
    await eventually(() => expect(worker.counts.delivered).toBe(2))
    await newInspector(redis.url).cancel('orders', first)
    await settled({ cancelled: 1 })
    const others = [await add(redis.client, 'index', { n: 3 }), await add(redis.client, 'index', { n: 4 })]
    await settled({ cancelled: 1, completed: 3 })
    expect(batches).toEqual([[second, ...others]])
  })

  test('one whose time is over in its batch has its signal aborted and runs again; that of the batch aborts with the last that is open', async () => {
    const short = defineJob<{ n: number }>('short', { timeoutMs: 1000 })
    const [seen, held] = [[] as [number, number][], gate()]
    let aborted: boolean | undefined
    await addMany(1, 2, 'short')
    await start({ size: 1 }, () => {}, {
      handlers: [
        handleBatch(short, { size: 2, lingerMs: 100 }, async (batch, { signal }) => {
          const [first, second] = batch
          seen.push(...batch.map(({ data, job }): [number, number] => [data.n, job.deliveries]))
          if (first === undefined || second === undefined) return
          second.complete()
          await new Promise((resolve) => first.job.signal.addEventListener('abort', resolve, { once: true }))
          aborted = signal.aborted
          await held.wait()
          throw first.job.signal.reason
        }),
      ],
    })
    await eventually(() => expect(aborted).toBeDefined())
    // Nothing can come of what is left of it.
    expect(aborted).toBe(true)
    held.open()
    await settled({ completed: 2, retried: 1 })
    expect(seen.map(([n]) => n)).toHaveLength(3)
  })

  test('one with a deadline does not wait until it is over: its batch goes before that', async () => {
    const given: number[] = []
    await start({ size: 3, lingerMs: LONG_MS }, (batch) => void given.push(...numbersOf(batch)))
    await addMany(1, 1)
    await redis.client.xadd('orders', '*', 'job', 'index', 'data', '{"n":2}', 'expires', '+3000')
    await settled({ completed: 2 })
    expect(given).toEqual([1, 2])
  })

  test('one that is late when its batch goes is dead as expired, and only the others are given to the function', async () => {
    const [given, failed] = [[] as number[], [] as unknown[]]
    const worker = new Worker({
      redis: redis.url,
      stream: 'orders',
      logger: false,
      handlers: [handleBatch(index, { size: 3, lingerMs: LONG_MS }, (batch) => void given.push(...numbersOf(batch)))],
    })
    const expiresMs = Date.now() + 1500
    worker.use(({ data }, next) => {
      const run = next()
      // It waits for its batch by now, and nothing else goes on until its deadline is over.
      if ((data as { n: number }).n === 2) while (Date.now() < expiresMs + 50);
      return run
    })
    worker.on('job:failed', (event) => failed.push(event))
    onEnd(async () => void (await worker.stop({ drainMs: 0 })))
    await addMany(1, 1)
    await redis.client.xadd('orders', '*', 'job', 'index', 'data', '{"n":2}', 'expires', String(expiresMs))
    await worker.start()
    await settled({ completed: 1, dead: 1 })
    expect([given, failed, worker.counts.failed]).toEqual([[1], [], 0])
    const { letters } = await newInspector(redis.url).dead.list('orders', 'main')
    expect(letters).toMatchObject([{ reason: 'expired', attempts: 0 }])
  })

  test('middleware goes around each job, and the function runs in the context of none', async () => {
    const storage = new AsyncLocalStorage<string>()
    const seen: unknown[] = []
    const contexts: unknown[] = []
    const worker = new Worker<{ user: string }>({
      redis: redis.url,
      stream: 'orders',
      logger: false,
      handlers: [
        handleBatch(index, { size: 2, lingerMs: LONG_MS }, async (batch) => {
          contexts.push(storage.getStore())
          await Promise.resolve()
          for (const item of batch) item.complete(`${item.job.state.user} ${item.data.n}`)
        }),
      ],
    })
    worker.use(({ job, state }, next) => {
      state.user = `user of ${job.id}`
      return storage.run(job.id, async () => void seen.push([job.id, await next()]))
    })
    onEnd(async () => void (await worker.stop({ drainMs: 0 })))
    await worker.start()
    const ids = await addMany(1, 2)
    await settled({ completed: 2 })
    expect(seen).toHaveLength(2)
    expect(seen).toEqual(expect.arrayContaining(ids.map((id, at) => [id, `user of ${id} ${at + 1}`])))
    expect(contexts).toEqual([undefined])
  })
})

test('no more jobs are with functions at once than there are slots', async () => {
  let [running, most] = [0, 0]
  await start(
    { size: 5, lingerMs: 5 },
    async (batch) => {
      running += batch.length
      most = Math.max(most, running)
      await new Promise((resolve) => setImmediate(resolve))
      running -= batch.length
    },
    { concurrency: 12 },
  )
  await addMany(1, 300)
  await settled({ completed: 300 })
  expect(most).toBeGreaterThan(0)
  expect(most).toBeLessThanOrEqual(12)
})

test('metrics tell how many jobs the function was given at once, by job, and nothing of jobs that are handled one by one', async () => {
  const registry = new Registry()
  const handlers = [
    handleBatch(index, { size: 3, lingerMs: 50 }, () => {}),
    handleBatch(defineJob('idle'), { size: 5 }, () => {}),
    handle(defineJob('single'), () => {}),
  ]
  await start({ size: 1 }, () => {}, { handlers, registry })
  await addMany(1, 4)
  await addMany(5, 6, 'single')
  await settled({ completed: 6 })
  const scraped = await scrape(registry)
  const of = (part: string, job_name: string) => scraped.sum(`millrace_handler_batch_jobs_${part}`, { job_name })
  expect([of('sum', 'index'), of('sum', 'idle'), of('sum', 'single')]).toEqual([4, 0, undefined])
  expect(of('count', 'index')).toBeGreaterThan(1)
})

test('a stop hands back what a function does not end in time, also what waited for its batch', async () => {
  const began: string[][] = []
  const reasons: unknown[] = []
  const worker = await start(
    { size: 2, lingerMs: LONG_MS },
    async (batch, { signal }) => {
      began.push(idsOf(batch))
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
      reasons.push((signal.reason as { code: string }).code)
      throw signal.reason
    },
    { concurrency: 3 },
  )
  await addMany(1, 3)
  await eventually(() => expect(worker.counts.delivered).toBe(3))
  expect(await worker.stop({ drainMs: 0 })).toEqual({ handedBack: 3, unsettled: 0 })
  expect(began.map(({ length }) => length)).toEqual([2, 1])
  expect(reasons).toEqual(['ERR_STOPPING', 'ERR_STOPPING'])
  expect((await pending(redis.client)).map(({ deliveries }) => deliveries)).toEqual([0, 0, 0])
})

describe('a worker that is killed in the middle of a batch', () => {
  test('loses none of it: what was settled by itself stays so, the rest is claimed and runs in batches again', async () => {
    for (let n = 1; n <= 8; n++) await add(redis.client, 'batched', { n, complete: n === 2, kill: n === 5 })
    const victim = await startWorkerProcess({ redis: redis.url, only: 'batched' })
    await victim.exited
    const given = victim.log().filter((line) => line.startsWith('given'))
    expect(given).toEqual(['given 1 2 3 4 5'])
    expect(await tally(redis.client)).toEqual({ completed: 1 })
    const batches: number[][] = []
    const batched = defineJob<{ n: number }>('batched')
    await start({ size: 1 }, () => {}, {
      handlers: [handleBatch(batched, { size: 10, lingerMs: 200 }, (batch) => void batches.push(numbersOf(batch)))],
    })
    await settled({ completed: 8 })
    expect(batches.flat().toSorted()).toEqual([1, 3, 4, 5, 6, 7, 8])
    expect(await pending(redis.client)).toEqual([])
  })

  test('by a job of it charges that job alone in the end: those beside it complete', async () => {
    const ids: string[] = []
    for (let n = 1; n <= 5; n++) ids.push(await add(redis.client, 'batched', { n, kill: n === 3 }))
    for (let killed = 0; killed < 2; killed++) {
      const victim = await startWorkerProcess({ redis: redis.url, only: 'batched' })
      await victim.exited
      expect(victim.log().filter((line) => line.startsWith('given'))).toEqual(['given 1 2 3 4 5'])
    }
    // From here on each of them is begun in quarantine, one at a time and alone in its batch.
    const alone: string[] = []
    for (let left = true; left;) {
      const victim = await startWorkerProcess({ redis: redis.url, only: 'batched' })
      const ended = victim.exited.then(() => true)
      const done = eventually(async () => {
        const { dead = 0, completed = 0 } = await tally(redis.client)
        expect(dead + completed).toBe(5)
      }).then(() => false)
      left = await Promise.race([ended, done])
      alone.push(...victim.log().filter((line) => line.startsWith('given')))
      if (!left) victim.signal('SIGKILL')
    }
    expect(await tally(redis.client)).toEqual({ completed: 4, dead: 1 })
    expect(alone.toSorted()).toEqual([1, 2, 3, 4, 5].map((n) => `given ${n}`))
    const { letters } = await newInspector(redis.url).dead.list('orders', 'main')
    expect(letters).toMatchObject([{ id: ids[2], reason: 'deliveries' }])
  }, 120_000)
})

describe('what is refused', () => {
  const made = (options: unknown, run: unknown = () => {}, job: JobDefinition = defineJob('index')) =>
    handleBatch(job, options as BatchOptions, run as BatchFunction)
  const worker = (handlers: unknown, options: Partial<WorkerOptions> = {}) =>
    new Worker({ stream: 'orders', handlers: handlers as never, ...options })

  test.each([
    [{ size: 0 }, 'expected `size` to be a positive integer up to 1000, got 0'],
    [{ size: 1001 }, 'expected `size` to be a positive integer up to 1000, got 1001'],
    [{ size: 2.5 }, 'expected `size` to be a positive integer up to 1000, got 2.5'],
    [{}, 'expected `size` of the batches of index to be a positive integer up to 1000, got undefined'],
    [{ size: 5, lingerMs: -1 }, 'expected `lingerMs` to be an integer of 0 or more up to 60000, got -1'],
    [{ size: 5, lingerMs: 60_001 }, 'expected `lingerMs` to be an integer of 0 or more up to 60000, got 60001'],
    [{ size: 5, linger: 1 }, 'unknown option `linger` of the batches of index (did you mean `lingerMs`?)'],
    [7, 'expected the options of the batches of index to be an object, got 7'],
  ])('options %j', (options, text) => {
    expect(() => made(options)).toThrow(text)
  })

  test('a function that is none', () => {
    expect(() => made({ size: 5 }, 'x')).toThrow('expected the batch handler of index to be a function, got "x"')
  })

  test('a batch that a worker has not the slots for', () => {
    const text =
      'expected `concurrency` to be at least the `size` of the batches of index (33), got 32: each job of a batch takes a slot'
    expect(() => worker([made({ size: 33 })])).toThrow(text)
    expect(() => worker([made({ size: 33 })], { concurrency: 33 })).not.toThrow()
  })

  test('a wait that is as long as the time of a job', () => {
    const text =
      'expected `lingerMs` of the batches of index to be below its `timeoutMs` (500), got 500: the wait is part of the time of a job'
    const hasty = defineJob('index', { timeoutMs: 500 })
    expect(() => worker([made({ size: 5, lingerMs: 500 }, () => {}, hasty)])).toThrow(text)
    expect(() => worker([made({ size: 5, lingerMs: 500 })], { timeoutMs: 500 })).toThrow(text)
    expect(() => worker([made({ size: 5, lingerMs: 500 })], { timeoutMs: false })).not.toThrow()
  })

  test('a handler under the name of another job, in the form of an object', () => {
    expect(() => worker({ index: made({ size: 5 }) })).not.toThrow()
    expect(() => worker({ mail: made({ size: 5 }) })).toThrow(
      'expected the handler of mail to be one of job mail, got one of index',
    )
  })
})
