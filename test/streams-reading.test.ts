import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Worker, type WorkerOptions } from '../src/index.ts'
import { readLanes } from '../src/redis/scripts/lanes.ts'
import { settleCompleted } from '../src/redis/scripts/delivery.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { keepingLogger } from './helpers/log.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { gate, pending } from './helpers/workers.ts'

/** The one reader that several streams share: none of them waits for it longer than for a reader of its own. */

const redis = withRedis()

async function start(options: Partial<WorkerOptions>): Promise<Worker> {
  const worker = new Worker({
    ...{ redis: redis.url, leaseMs: 1000, logger: false, handlers: { x() {} }, streams: ['a', 'b'] },
    ...options,
  })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  await worker.start()
  return worker
}

async function fill(stream: string, count: number, name = 'x', client = redis.client): Promise<void> {
  const pipeline = client.pipeline()
  for (let n = 0; n < count; n++) pipeline.xadd(stream, '*', 'job', name, 'data', String(n))
  await pipeline.exec()
}

/** The id that Redis knows the worker's reader by. */
async function readerId(client = redis.client): Promise<string | undefined> {
  return /id=(\d+) [^\n]* name=millrace:fetcher/.exec(String(await client.client('LIST')))?.[1]
}

const isRead = ([name, sha]: string[]) => name === 'evalsha' && sha === readLanes.sha

describe('the reader of several streams', () => {
  test('is woken for every job of a stream at its bound while the others are waited for, however short they are', async () => {
    const handlers = { x: () => sleep(5) }
    const worker = await start({ streams: [{ stream: 'a', concurrency: 1 }, 'b'], handlers })
    await fill('a', 40)
    // A wake that is lost costs a whole wait of 5 s.
    await eventually(() => expect(worker.countsOf('a').completed).toBe(40))
  })

  test('goes on with the stream that is resumed first when all were paused', async () => {
    const starts: string[] = []
    const { logger, lines } = keepingLogger()
    await start({ logger, handlers: { x: (_: unknown, job) => void starts.push(job.stream) } })
    const inspector = newInspector(redis.url)
    await Promise.all(['a', 'b'].map((stream) => inspector.pause(stream, {})))
    await eventually(() => expect(lines.filter(({ message }) => message.startsWith('paused'))).toHaveLength(2))
    for (const stream of ['a', 'b']) await fill(stream, 3)
    await inspector.resume('b')
    await eventually(() => expect(starts).toEqual(['b', 'b', 'b']))
    await inspector.resume('a')
    await eventually(() => expect(starts).toEqual(['b', 'b', 'b', 'a', 'a', 'a']))
  })

  test.each([
    ['looks for what is there', isRead],
    ['waits for the first', (command: string[]) => command[0] === 'xreadgroup' && command.includes('BLOCK')],
  ])('that is stopped while it %s leaves nothing of what comes to nobody', async (_when, match) => {
    const proxy = await startProxy(redis.url)
    onEnd(() => proxy.stop())
    const hold = proxy.holdBefore(match)
    onEnd(() => hold.release())
    const worker = await start({ redis: proxy.url })
    await hold.held
    const stopped = worker.stop()
    await fill('a', 3)
    await fill('b', 3)
    // Calls that come too early find nobody to wake.
    await eventually(async () => expect(await redis.client.info('commandstats')).toMatch(/cmdstat_client(\|unblock)?:/))
    hold.release()
    await stopped
    for (const stream of ['a', 'b']) {
      const held = await pending(redis.client, stream)
      expect(held.map(({ consumer }) => consumer).filter((name) => name !== ':handback')).toEqual([])
    }
  })

  test('with room for one reads the retries of a stream too, whose backlog does not end', async () => {
    let isRetried = false
    const handlers = {
      // Long enough that nothing is fetched ahead; each brings the next one.
      x: async () => {
        await sleep(12)
        if (!isRetried) await fill('a', 1)
      },
      failing: (_: unknown, { attempt }: { attempt: number }) => {
        if (attempt === 1) throw new Error('once')
        isRetried = true
      },
    }
    await fill('a', 1, 'failing')
    await fill('a', 3)
    await start({ concurrency: 1, handlers, retry: { delayMs: 1 } })
    await eventually(() => expect(isRetried).toBe(true), { timeoutMs: 30_000 })
  })

  test('takes no more than can be held while outcomes cannot be settled, and each of it runs once', async () => {
    const proxy = await startProxy(redis.url)
    onEnd(() => proxy.stop())
    const hold = proxy.holdBefore(([name, sha]) => name === 'evalsha' && sha === settleCompleted.sha)
    onEnd(() => hold.release())
    await fill('a', 3000)
    await fill('b', 300)
    const worker = await start({ redis: proxy.url, leaseMs: 5000 })
    await hold.held
    // A worker holds four times its slots and 2048 on each stream; what is left is halved by every read.
    await eventually(() => expect(worker.countsOf('a').delivered).toBeGreaterThan(2150))
    expect((await pending(redis.client, 'a')).length).toBeLessThanOrEqual(2176)
    hold.release()
    await eventually(() => expect(worker.counts.completed).toBe(3300))
    expect(worker.counts).toMatchObject({ delivered: 3300, claimed: 0, late: 0 })
  })
})

describe('streams of jobs so short that all that was read has run before the next read is answered', () => {
  test('keep their shares over thousands of starts', async () => {
    const starts: string[] = []
    const handlers = { x: async (_: unknown, { stream }: { stream: string }) => void starts.push(stream) }
    for (const stream of ['a', 'b']) await fill(stream, 10_000)
    const worker = await start({ streams: [{ stream: 'a', weight: 3 }, 'b'], concurrency: 100, handlers })
    await eventually(() => expect(worker.counts.completed).toBe(20_000))
    // No more than what one read brings comes of one before its turn.
    for (const count of [3000, 6000, 9000, 12_000]) {
      const heavier = starts.slice(0, count).filter((stream) => stream === 'a').length
      expect(Math.abs(heavier - count * 0.75)).toBeLessThan(250)
    }
  })
})

describe('a stream at its bound whose handlers hang', () => {
  test('is not fetched ahead, and the others keep their shares', async () => {
    const { wait, open } = gate()
    onEnd(open)
    const starts: string[] = []
    const handlers = { hang: wait, x: (_: unknown, job: { stream: string }) => void starts.push(job.stream) }
    await fill('a', 300, 'hang')
    const streams = [{ stream: 'a', concurrency: 2 }, { stream: 'b', weight: 3 }, 'c']
    const worker = await start({ streams, concurrency: 8, handlers })
    await eventually(() => expect(worker.countsOf('a').delivered).toBeGreaterThanOrEqual(2))
    const both = redis.client.multi()
    for (let n = 0; n < 4000; n++) for (const stream of ['b', 'c']) both.xadd(stream, '*', 'job', 'x', 'data', '{}')
    await both.exec()
    await eventually(() =>
      expect([worker.countsOf('b').completed, worker.countsOf('c').completed]).toEqual([4000, 4000]),
    )
    const early = starts.slice(0, 3000).filter((stream) => stream === 'c').length
    expect(early).toBeGreaterThan(600)
    expect(early).toBeLessThan(900)
    expect(worker.countsOf('a').delivered).toBe(2)
  })
})

describe('a Redis that refuses all writes', () => {
  test('is told of once, and left for the one that has taken its place', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const { logger, lines } = keepingLogger()
    const worker = await start({ redis: server.url, logger })
    await eventually(async () => expect(await readerId(client)).toBeDefined())
    const before = Number(await readerId(client))
    await client.replicaof('127.0.0.1', 1)
    // Who connects anew may find the one that was promoted.
    for (let n = 0, seen = before; n < 3; n++) {
      seen = await eventually(async () => {
        const id = Number(await readerId(client))
        expect(id).toBeGreaterThan(seen)
        return id
      })
    }
    const said = lines.filter(({ message }) => message.startsWith('cannot read from Redis now'))
    expect(said.map(({ fields }) => fields['stream'])).toEqual(['a,b'])
    await client.replicaof('NO', 'ONE')
    await fill('a', 1, 'x', client)
    await fill('b', 1, 'x', client)
    await eventually(() => expect(worker.counts.completed).toBe(2))
  })
})
