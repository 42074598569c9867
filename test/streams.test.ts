import { describe, expect, test } from 'vitest'
import { Worker, type WorkerOptions } from '../src/index.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'

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
    expect(count(starts, 'b')).toBeGreaterThanOrEqual(7)
    expect(count(starts, 'b')).toBeLessThanOrEqual(9)
  })
})
