import { describe, expect, test } from 'vitest'
import { OptionError, Worker, type WorkerOptions } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { ask } from './helpers/health.ts'
import { newInspector } from './helpers/inspectors.ts'
import { keepingLogger } from './helpers/log.ts'
import { withRedis } from './helpers/redis.ts'
import { add, pending, startWorkerProcess, tally } from './helpers/workers.ts'

const redis = withRedis()

async function start(options: Omit<WorkerOptions, 'redis' | 'handlers'> & Partial<WorkerOptions>): Promise<Worker> {
  const worker = new Worker({ redis: redis.url, leaseMs: 1000, logger: false, handlers: { x() {} }, ...options })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  await worker.start()
  return worker
}

async function fill(stream: string, count: number, name = 'x'): Promise<void> {
  const pipeline = redis.client.pipeline()
  for (let n = 0; n < count; n++) pipeline.xadd(stream, '*', 'job', name, 'data', String(n))
  await pipeline.exec()
}

/** Notes the streams of the starts in their order. */
function recorder() {
  const starts: string[] = []
  return { starts, handlers: { x: (_: unknown, job: { stream: string }) => void starts.push(job.stream) } }
}

/** A handler each of whose runs goes on until the test ends it, one after the other. */
function steps() {
  const starts: string[] = []
  const ends: (() => void)[] = []
  const handlers = {
    x: (_: unknown, job: { stream: string }) => {
      starts.push(job.stream)
      return new Promise<void>((resolve) => ends.push(resolve))
    },
  }
  /** Ends the run that began first, and waits for `more` to begin in its place. */
  const next = async (more = 1) => {
    const before = starts.length
    ends.shift()?.()
    await eventually(() => expect(starts.length).toBe(before + more), { intervalMs: 1 })
  }
  onEnd(() => {
    for (const end of ends.splice(0)) end()
  })
  return { starts, ends, handlers, next }
}

function count(starts: readonly string[], stream: string): number {
  return starts.filter((one) => one === stream).length
}

describe('weighted streams', () => {
  test('each has its share of the starts, at any moment of a long backlog, with one slot and with several', async () => {
    for (const concurrency of [1, 3]) {
      for (const stream of ['a', 'b', 'c']) await fill(`${stream}${concurrency}`, 60)
      const { starts, handlers, next } = steps()
      const streams = [
        { stream: `a${concurrency}`, weight: 3 },
        { stream: `b${concurrency}`, weight: 2 },
        `c${concurrency}`,
      ]
      await start({ streams, concurrency, handlers })
      await eventually(() => expect(starts.length).toBe(concurrency))
      while (starts.length < 60) {
        await next()
        const n = starts.length
        // Beside the one start of any moment: what was read and could not start yet.
        expect(Math.abs(count(starts, `a${concurrency}`) - (n * 3) / 6)).toBeLessThanOrEqual(2)
        expect(Math.abs(count(starts, `b${concurrency}`) - (n * 2) / 6)).toBeLessThanOrEqual(2)
        expect(Math.abs(count(starts, `c${concurrency}`) - n / 6)).toBeLessThanOrEqual(2)
      }
    }
  })

  test('also where jobs are so short that they are fetched ahead', async () => {
    await fill('a', 3000)
    await fill('b', 3000)
    const { starts, handlers } = recorder()
    const worker = await start({ streams: [{ stream: 'a', weight: 3 }, 'b'], concurrency: 8, handlers })
    await eventually(() => expect(worker.counts.completed).toBe(6000))
    const early = starts.slice(0, 2000)
    expect(count(early, 'b')).toBeGreaterThan(400)
    expect(count(early, 'b')).toBeLessThan(600)
    expect(worker.countsOf('a').completed).toBe(3000)
    expect(worker.countsOf('b').completed).toBe(3000)
  })

  test('a stream without work wastes no slot, and has its share as soon as it has some', async () => {
    await fill('a', 40)
    const { starts, handlers, next } = steps()
    await start({ streams: ['a', 'b'], concurrency: 4, handlers })
    await eventually(() => expect(starts.length).toBe(4))
    for (let n = 0; n < 16; n++) await next()
    expect(count(starts, 'a')).toBe(20)
    await fill('b', 40)
    for (let n = 0; n < 16; n++) await next()
    // A half, but for what was read of the other before.
    expect(count(starts, 'b')).toBeGreaterThanOrEqual(6)
    expect(count(starts, 'b')).toBeLessThanOrEqual(11)
  })
})

describe('strict streams', () => {
  test('nothing of a stream begins while one before it has work', async () => {
    await fill('b', 40)
    await fill('a', 10)
    const { starts, handlers, next } = steps()
    await start({ streams: ['a', 'b'], priority: 'strict', concurrency: 2, handlers })
    await eventually(() => expect(starts.length).toBe(2))
    while (starts.length < 14) await next()
    expect(starts.slice(0, 14)).toEqual([...Array<string>(10).fill('a'), ...Array<string>(4).fill('b')])
    await fill('a', 2)
    // What was read before they came may begin before them.
    for (let n = 0; n < 20 && count(starts, 'a') < 12; n++) await next()
    expect(count(starts, 'a')).toBe(12)
    expect(count(starts, 'b')).toBeLessThan(40)
  })
})

describe('the streams of a worker', () => {
  test('one that has all the slots it may take leaves the others to the rest, and takes its next job at once', async () => {
    await fill('a', 10)
    await fill('b', 10)
    const { starts, handlers, next } = steps()
    await start({ streams: [{ stream: 'a', concurrency: 1, weight: 100 }, 'b'], concurrency: 4, handlers })
    await eventually(() => expect(starts.length).toBe(4))
    expect(count(starts, 'a')).toBe(1)
    for (let n = 0; n < 4; n++) await next()
    expect(count(starts, 'a')).toBe(2)
    expect(count(starts, 'b')).toBe(6)
  })

  test('a slot of a stream at its bound is filled again while the others are waited for', async () => {
    const { starts, handlers, ends } = steps()
    await start({ streams: [{ stream: 'a', concurrency: 1 }, 'b'], concurrency: 4, handlers })
    await fill('a', 2)
    await eventually(() => expect(starts).toEqual(['a']))
    await eventually(async () => expect(await blocked()).toBe(1))
    ends.shift()?.()
    // The blocking read over the others goes on for 5 s unless it is woken.
    await eventually(() => expect(starts).toEqual(['a', 'a']), { timeoutMs: 3000 })
  })

  test('share one connection for commands, one to wait on, and one of the lease keeper', async () => {
    const before = await connections()
    await start({ streams: ['a', 'b', 'c'] })
    await eventually(async () => {
      const now = (await connections()).filter((name) => !before.includes(name))
      expect(now.map((name) => name.split(':')[1]).sort()).toEqual(['fetcher', 'keeper', 'worker'])
    })
  })

  test('are told apart in events and counts, and added up', async () => {
    const worker = new Worker({
      ...{ redis: redis.url, logger: false, streams: ['a', 'b'], leaseMs: 1000 },
      handlers: { x() {} },
    })
    onEnd(async () => void (await worker.stop()))
    const told: string[] = []
    worker.on('job:completed', ({ stream }) => told.push(stream))
    worker.on('worker:started', ({ stream }) => told.push(`started ${stream}`))
    worker.on('worker:stopped', ({ stream }) => told.push(`stopped ${stream}`))
    await worker.start()
    await fill('a', 2)
    await fill('b', 1)
    await eventually(() => expect(worker.counts.completed).toBe(3))
    expect([worker.countsOf('a').completed, worker.countsOf('b').completed]).toEqual([2, 1])
    expect(worker.streams).toEqual(['a', 'b'])
    expect(() => worker.countsOf('c')).toThrow('expected one of the worker\'s streams (a, b), got "c"')
    await worker.stop()
    expect(told.toSorted()).toEqual(['a', 'a', 'b', 'started a', 'started b', 'stopped a', 'stopped b'])
  })

  test('a pause of one holds back that one alone', async () => {
    const { starts, handlers } = recorder()
    const { logger, messages } = keepingLogger()
    await start({ streams: ['a', 'b'], handlers, logger })
    await fill('a', 1)
    await eventually(() => expect(starts).toEqual(['a']))
    await newInspector(redis.url).pause('a', {})
    await eventually(() => expect([...messages()].join()).toContain('paused until it is resumed'))
    await fill('a', 3)
    await fill('b', 3)
    await eventually(() => expect(count(starts, 'b')).toBe(3))
    expect(count(starts, 'a')).toBe(1)
    await newInspector(redis.url).resume('a')
    await eventually(() => expect(count(starts, 'a')).toBe(4))
  })

  test('one whose group is destroyed is joined again, and the others notice nothing', async () => {
    const { starts, handlers } = recorder()
    const { logger, lines } = keepingLogger()
    await start({ streams: ['a', 'b'], handlers, logger })
    await fill('a', 1)
    await eventually(() => expect(starts).toEqual(['a']))
    await eventually(async () => expect(await pending(redis.client, 'a')).toEqual([]))
    await redis.client.xgroup('DESTROY', 'a', 'main')
    await fill('b', 5)
    await fill('a', 5)
    await eventually(() => expect([count(starts, 'a') >= 6, count(starts, 'b')]).toEqual([true, 5]))
    expect(lines.map(({ message }) => message)).not.toContain('cannot read from Redis now; the worker goes on trying')
  })

  test('one that turns into another type stops no other, is told once, and is worked on again by itself', async () => {
    const { starts, handlers } = recorder()
    const { logger, lines } = keepingLogger()
    await start({ streams: ['a', 'b'], handlers, logger })
    await fill('a', 1)
    await eventually(() => expect(starts).toEqual(['a']))
    await redis.client.set('a', 'not a stream')
    await fill('b', 20)
    await eventually(() => expect(count(starts, 'b')).toBe(20))
    const cannot = () => lines.filter(({ message }) => message.startsWith('cannot read from Redis now'))
    await eventually(() => expect(cannot()).toHaveLength(1))
    expect(cannot()[0]).toMatchObject({ fields: { stream: 'a' } })
    await redis.client.del('a')
    await fill('a', 2)
    await eventually(() => expect(count(starts, 'a')).toBe(3))
    expect(cannot()).toHaveLength(1)
  })

  test('a stop hands back what waits and what runs, on all of them', async () => {
    for (const stream of ['a', 'b']) await fill(stream, 3)
    const { starts, handlers } = steps()
    const worker = await start({ streams: ['a', 'b'], concurrency: 2, handlers })
    await eventually(() => expect(starts.length).toBe(2))
    const { handedBack, unsettled } = await worker.stop({ drainMs: 0 })
    expect({ handedBack, unsettled }).toEqual({ handedBack: 2, unsettled: 0 })
    for (const stream of ['a', 'b']) {
      for (const row of await pending(redis.client, stream)) expect(row.consumer).toBe(':handback')
    }
  })
})

describe('worker processes on several streams', () => {
  test('what one that is killed held on any of them runs in another', async () => {
    const streams = ['a', 'b', 'c']
    const options = { redis: redis.url, stream: undefined as unknown as string, streams, leaseMs: 1000 }
    const victim = await startWorkerProcess(options)
    const ids: string[] = []
    for (const stream of streams) ids.push(await add(redis.client, 'slow', { ms: 60_000 }, stream))
    await eventually(() => expect(victim.log().filter((line) => line.startsWith('started'))).toHaveLength(3))
    victim.signal('SIGKILL')
    const ran: string[] = []
    await start({ streams, handlers: { slow: (_: unknown, job: { id: string }) => void ran.push(job.id) } })
    await eventually(() => expect(ran.toSorted()).toEqual(ids.toSorted()))
  })

  test('four of them run each job of three streams once', async () => {
    const streams = ['a', { stream: 'b', weight: 5 }, 'c']
    const options = { redis: redis.url, stream: undefined as unknown as string, streams }
    const workers = await Promise.all([1, 2, 3, 4].map(() => startWorkerProcess(options)))
    for (const stream of ['a', 'b', 'c']) await fill(stream, 100, 'quick')
    for (const stream of ['a', 'b', 'c']) {
      await eventually(async () => expect(await tally(redis.client, stream)).toEqual({ completed: 100 }))
    }
    const ran = workers.flatMap((worker) => worker.log())
    expect(ran).toHaveLength(300)
    expect(ran.every((line) => line.endsWith(' 1'))).toBe(true)
  })

  test('one whose event loop is blocked for leases keeps those of all its streams, and stays live', async () => {
    const streams = ['a', 'b']
    const options = { redis: redis.url, stream: undefined as unknown as string, streams, leaseMs: 600, healthPort: 0 }
    const worker = await startWorkerProcess(options)
    const slow = await add(redis.client, 'deaf', { ms: 4000 }, 'b')
    await eventually(() => expect(worker.log()).toHaveLength(1))
    const block = await add(redis.client, 'block', { ms: 2500 }, 'a')
    await eventually(() => expect(worker.log()).toHaveLength(2))
    const others = { block() {}, deaf() {} }
    const other = await start({ streams, leaseMs: 600, handlers: others })
    expect((await ask(Number((await worker.line(/^health (\d+)$/))[1]), '/livez')).status).toBe(200)
    await eventually(() => expect(worker.log().filter((line) => line.startsWith('ended'))).toHaveLength(2))
    expect(worker.log().map((line) => line.split(' ').slice(0, 3).join(' '))).toEqual([
      `started ${slow} 1`,
      `started ${block} 1`,
      `ended ${block} 1`,
      `ended ${slow} 1`,
    ])
    expect(other.counts.claimed).toBe(0)
  })
})

describe('the option `streams`', () => {
  const made = (options: object) => () => new Worker({ redis: redis.url, handlers: { x() {} }, ...options })
  test.each([
    [{}, 'expected a stream name'],
    [{ stream: 'a', streams: ['b'] }, 'expected either `stream` or `streams`'],
    [{ streams: [] }, 'expected `streams` to be a list of 1 to 64 streams, got 0 of them'],
    [{ streams: 'a' }, 'expected `streams` to be a list of 1 to 64 streams, got "a"'],
    [{ streams: Array.from({ length: 65 }, (_, n) => `s${n}`) }, 'a list of 1 to 64 streams, got 65 of them'],
    [{ streams: ['a', { stream: 'a' }] }, 'expected `streams` to name each stream once, got "a" twice'],
    [{ streams: [7] }, "expected `streams[0]` to be a stream's name, or an object with it, got 7"],
    [{ streams: ['bad name'] }, 'expected a stream name'],
    [{ streams: [{ weight: 2 }] }, 'expected a stream name'],
    [
      { streams: [{ stream: 'a', weight: 0 }] },
      'expected `streams[0].weight` to be a positive integer up to 1000, got 0',
    ],
    [{ streams: [{ stream: 'a', weight: -1 }] }, 'to be a positive integer up to 1000, got -1'],
    [{ streams: [{ stream: 'a', weight: 1001 }] }, 'to be a positive integer up to 1000, got 1001'],
    [{ streams: [{ stream: 'a', weight: '3' }] }, 'to be a positive integer up to 1000, got "3"'],
    [{ streams: [{ stream: 'a', concurrency: 0 }] }, 'expected `streams[0].concurrency` to be a positive integer'],
    [{ streams: [{ stream: 'a', concurrency: 33 }] }, 'to be a positive integer up to 32, got 33'],
    [{ streams: [{ stream: 'a', wieght: 3 }] }, 'unknown option `wieght` of streams[0] (did you mean `weight`?)'],
    [{ streams: ['a', 'b'], priority: 'random' }, 'expected `priority` to be one of weighted, strict, got "random"'],
    [{ stream: 'a', priority: 'strict' }, 'expected `streams` beside `priority`'],
  ])('%j is refused with the expected form', (options, text) => {
    expect(made(options)).toThrow(OptionError)
    expect(made(options)).toThrow(text)
  })
})

async function connections(): Promise<string[]> {
  const list = String(await redis.client.client('LIST'))
  return [...list.matchAll(/ name=(millrace:\S+)/g)].map(([, name = '']) => name)
}

/** Reads that wait in Redis. */
async function blocked(): Promise<number> {
  return Number(/blocked_clients:(\d+)/.exec(await redis.client.info('clients'))?.[1])
}
