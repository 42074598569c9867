import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, expect, test } from 'vitest'
import { defineJob, FatalError, handle, handleBatch, RetryAfterError, type BatchItem } from '../src/index.ts'
import { runBatch, runJob, runToEnd, VirtualClock } from '../src/testing.ts'

/** Handlers of batches in the tests of who writes them. */

const index = defineJob<{ n: number }>('index', { retry: { attempts: 3, delayMs: 1000, jitter: 0 } })
/** Real time that no test has. */
const LONG_MS = 60_000

const handlersOf = (seen: number[][] = [], size = 100) => [
  handleBatch(index, { size, lingerMs: LONG_MS }, (batch) => {
    seen.push(batch.map(({ data }) => data.n))
    for (const item of batch) decide(item)
  }),
]

function decide(item: BatchItem<{ n: number }>): void {
  if (item.data.n < 0) item.fail(new FatalError('below 0'))
  else if (item.data.n === 0 && item.job.attempt < 3) item.fail(new Error('not yet'))
  else if (item.data.n < 10) item.complete(item.data.n * 2)
}

describe('runJob and runToEnd', () => {
  test('run a handler of batches with a batch of one, at once, whatever its size', async () => {
    const seen: number[][] = []
    expect(await runJob(handlersOf(seen), { job: index, data: { n: 3 } })).toEqual({ outcome: 'completed', result: 6 })
    expect(await runJob(handlersOf(seen), { job: index, data: { n: 30 } })).toEqual({ outcome: 'completed' })
    const dead = await runJob(handlersOf(seen), { job: index, data: { n: -1 } })
    expect(dead).toMatchObject({ outcome: 'dead', reason: 'fatal' })
    const { outcome, runs, tookMs } = await runToEnd(handlersOf(seen), { job: index, data: { n: 0 } })
    expect([outcome, runs.length, tookMs]).toEqual(['completed', 3, 3000])
    expect(seen).toEqual([[3], [30], [-1], [0], [0], [0]])
  })
})

test('the function runs in the context of no job, whatever its middleware does', async () => {
  const [storage, contexts] = [new AsyncLocalStorage<string>(), [] as unknown[]]
  const handlers = [handleBatch(index, { size: 2 }, () => void contexts.push(storage.getStore()))]
  const use = [(_: unknown, next: () => Promise<unknown>) => storage.run('of a job', next)]
  await runJob(handlers, { job: index, data: { n: 1 }, use })
  await runToEnd(handlers, { job: index, data: { n: 1 }, use })
  await runBatch(handlers, { job: index, data: [{ n: 1 }, { n: 2 }], use })
  expect(contexts).toEqual([undefined, undefined, undefined])
})

describe('runBatch', () => {
  const dataOf = (...numbers: number[]) => numbers.map((n) => ({ n }))

  test('runs several jobs in one batch, and says what became of each, in their order', async () => {
    const seen: number[][] = []
    const runs = await runBatch(handlersOf(seen), { job: index, data: dataOf(1, -1, 0, 50) })
    expect(runs).toEqual([
      { outcome: 'completed', result: 2 },
      { outcome: 'dead', reason: 'fatal', error: new FatalError('below 0') },
      { outcome: 'retry', delayMs: 1000, error: new Error('not yet') },
      { outcome: 'completed' },
    ])
    expect(seen).toEqual([[1, -1, 0, 50]])
  })

  test('makes as many batches of them as the size says, and waits for none that does not come', async () => {
    const seen: number[][] = []
    const runs = await runBatch(handlersOf(seen, 2), { job: index, data: dataOf(1, 2, 3, 4, 5) })
    expect(runs.map(({ outcome }) => outcome)).toEqual(new Array(5).fill('completed'))
    expect(seen).toEqual([[1, 2], [3, 4], [5]])
  })

  test('leaves out of the batch what is dead before it runs', async () => {
    const seen: number[][] = []
    const runs = await runBatch(handlersOf(seen), {
      job: index,
      data: dataOf(1, 2),
      version: 2,
      worker: { unknownJobMs: 0 },
    })
    expect(runs.map(({ reason }) => reason)).toEqual(['unknown-job', 'unknown-job'])
    expect(seen).toEqual([])
  })

  test('what the function makes of its list is nothing to the jobs: each has its outcome', async () => {
    const handlers = [
      handleBatch(index, { size: 3 }, (batch) => {
        const list = batch as unknown[]
        const [first] = list.splice(0) as BatchItem[]
        first?.fail(new FatalError('first'))
        list.push('something else')
      }),
    ]
    const runs = await runBatch(handlers, { job: index, data: dataOf(1, 2, 3) })
    expect(runs.map(({ outcome }) => outcome)).toEqual(['dead', 'completed', 'completed'])
  })

  test('publishes all of them at once: a delay is one delay, and ages none of them', async () => {
    const clock = new VirtualClock(0)
    const data = dataOf(1, 2, 3)
    const runs = await runBatch(handlersOf(), { job: index, data, delayMs: 60_000, ttlMs: 60_001, clock })
    expect(runs.map(({ outcome }) => outcome)).toEqual(['completed', 'completed', 'completed'])
    expect(clock.nowMs).toBe(60_000)
  })

  test('gives each of those that took workers down to the function alone', async () => {
    const seen: number[][] = []
    await runBatch(handlersOf(seen), { job: index, data: dataOf(1, 2), deliveries: 2 })
    await runBatch(handlersOf(seen), { job: index, data: dataOf(1, 2), deliveries: 3 })
    expect(seen).toEqual([[1, 2], [1], [2]])
  })

  test('has one job of a key in a batch, in their order, and none before one that is tried again', async () => {
    const ran = async (onFailure: 'block' | 'skip') => {
      const booked = defineJob<{ of: string; n: number }>('book', { orderBy: 'data.of', onFailure })
      const seen: number[][] = []
      const handlers = [
        handleBatch(booked, { size: 10, lingerMs: LONG_MS }, (batch) => {
          seen.push(batch.map(({ data }) => data.n).toSorted())
          for (const { data, fail } of batch) if (data.n === 3) fail(new RetryAfterError(5000))
        }),
      ]
      const of = ['a', 'a', 'b', 'a', 'b', 'c', 'b']
      const runs = await runBatch(handlers, { job: booked, data: of.map((one, at) => ({ of: one, n: at + 1 })) })
      return { seen, runs }
    }
    const skipping = await ran('skip')
    expect(skipping.seen).toEqual([
      [1, 3, 6],
      [2, 5],
      [4, 7],
    ])
    const { seen, runs } = await ran('block')
    expect(seen).toEqual([[1, 3, 6], [2], [4]])
    expect(runs.map(({ outcome }) => outcome)).toEqual([
      ...['completed', 'completed', 'retry', 'completed', 'waits', 'completed', 'waits'],
    ])
    expect(runs[6]).toEqual({
      outcome: 'waits',
      delayMs: 5000,
      why: expect.stringMatching(/^its turn behind job \d+-2 of the same key$/) as string,
    })
  })

  test('puts the middleware around each job', async () => {
    const around: unknown[] = []
    await runBatch(handlersOf(), {
      job: index,
      data: dataOf(1, 2),
      use: [async ({ data }, next) => void around.push([data, await next()])],
    })
    expect(around).toEqual([
      [{ n: 1 }, 2],
      [{ n: 2 }, 4],
    ])
  })

  test('refuses what it cannot run', async () => {
    const run = (given: object) => runBatch(handlersOf(), { job: index, data: dataOf(1), ...given })
    await expect(run({ data: [] })).rejects.toThrow('expected `data` to be a list of 1 to 1000 payloads, got 0 of them')
    await expect(run({ abort: 'stop' })).rejects.toThrow('unknown option `abort` of runBatch')
    await expect(run({ job: 'mail' })).rejects.toThrow('expected a handleBatch for job mail, got none')
    const single = [handle(index, () => {})]
    await expect(runBatch(single, { job: index, data: dataOf(1) })).rejects.toThrow(
      'expected a handleBatch for job index, got none: runJob runs a handler of single jobs',
    )
  })
})
