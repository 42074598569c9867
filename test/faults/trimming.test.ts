import { describe, expect, test } from 'vitest'
import { Producer, type Worker } from '../../src/index.ts'
import { newCounts } from '../../src/counts.ts'
import { resolveLogger } from '../../src/logger.ts'
import { Connection } from '../../src/redis/connection.ts'
import { resolveRedis } from '../../src/redis/target.ts'
import { DEFAULT_RETENTION, Trimmer } from '../../src/trimmer.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { withRedis } from '../helpers/redis.ts'
import { gate, pending, startWorker } from '../helpers/workers.ts'

/** Retention while the groups of a stream work at different speeds, and one of them has stopped (P6). */

const redis = withRedis()

const MOST = 500
const JOBS = 6000
/** Jobs that the group which stops has settled before. */
const SETTLED = 1500

const inspect = () => newInspector(redis.url)

/** The trimmer of a worker, run as fast as it can while jobs come and go. */
async function trimmerOf(group: string): Promise<{ stop: () => Promise<number> }> {
  const connection = new Connection(resolveRedis(redis.url), { role: 'test', socketTimeoutMs: 5000 })
  onEnd(() => connection.close())
  await connection.ready(5000)
  const member = { stream: 'orders', group, consumer: 'trimmer' }
  const counts = newCounts()
  const trimmer = new Trimmer({
    connection,
    member,
    retention: DEFAULT_RETENTION,
    counts,
    logger: resolveLogger(false),
  })
  let isEnded = false
  const loop = (async () => {
    while (!isEnded) await trimmer.runOnce()
  })()
  const stop = async () => {
    isEnded = true
    await loop
    return counts.trimmed
  }
  onEnd(async () => void (await stop()))
  return { stop }
}

/** Numbers of jobs that a group has run. */
class Ran {
  readonly numbers: number[] = []
  readonly run = (data: unknown): void => void this.numbers.push((data as { n: number }).n)

  get missing(): number[] {
    const seen = new Set(this.numbers)
    return Array.from({ length: JOBS }, (_, n) => n).filter((n) => !seen.has(n))
  }
}

async function publishAll(): Promise<void> {
  const producer = new Producer({ redis: redis.url })
  onEnd(async () => void (await producer.close()))
  const jobs = (function* () {
    for (let n = 0; n < JOBS; n++) yield { n }
  })()
  await producer.publishMany('mail', jobs, { stream: 'orders' })
}

/** A fast group, a slow one, and one whose worker goes away in the middle. */
async function arrange(): Promise<{ stopped: Ran; kept: string }> {
  const inspector = inspect()
  for (const group of ['fast', 'slow', 'stopped']) await inspector.groups.create('orders', group, { startAt: 'oldest' })
  await inspector.settings.set('orders', { retention: { maxEntries: MOST } })
  const [fast, slow, stopped] = [new Ran(), new Ran(), new Ran()]
  const trimmers = [await trimmerOf('fast'), await trimmerOf('slow')]
  const held = gate()
  const hold = await startWorker({
    redis: redis.url,
    group: 'stopped',
    concurrency: 5,
    handlers: { mail: (data) => ((data as { n: number }).n < SETTLED ? stopped.run(data) : held.wait()) },
  })
  await startWorker({ redis: redis.url, group: 'fast', concurrency: 100, handlers: { mail: fast.run } })
  const tick = () => new Promise<void>((resolve) => setTimeout(resolve, 1))
  await startWorker({
    redis: redis.url,
    group: 'slow',
    concurrency: 20,
    handlers: { mail: (data) => tick().then(() => slow.run(data)) },
  })
  const published = publishAll()
  await eventually(() => expect(hold.counts.completed).toBe(SETTLED))
  await hold.stop({ drainMs: 0 })
  const [oldest] = await pending(redis.client, 'orders', 'stopped')
  await published
  await eventually(() => expect([fast.missing, slow.missing]).toEqual([[], []]))
  await eventually(async () => {
    expect(await pending(redis.client, 'orders', 'fast')).toEqual([])
    expect(await pending(redis.client, 'orders', 'slow')).toEqual([])
  })
  let trimmed = 0
  for (const { stop } of trimmers) trimmed += await stop()
  expect(trimmed).toBeGreaterThan(0)
  expect(trimmed).toBeLessThanOrEqual(SETTLED)
  return { stopped, kept: oldest?.id ?? '' }
}

const firstId = async () => (await redis.client.xrange('orders', '-', '+', 'COUNT', 1))[0]?.[0]
const trim = () => inspect().trim('orders', { execute: true })

describe('a stream with three groups, one of them stopped', () => {
  test('loses nothing that the stopped one has not settled, and is bounded again once it returns', async () => {
    const { stopped, kept } = await arrange()
    expect(await trim()).toMatchObject({ watermark: { group: 'stopped', heldBy: 'pending', id: kept } })
    expect(await firstId()).toBe(kept)
    expect(await redis.client.xlen('orders')).toBe(JOBS - SETTLED)
    expect(await trim()).toMatchObject({ removed: 0, wouldRemove: { entries: 0, isExact: true } })

    const worker: Worker = await startWorker({
      redis: redis.url,
      group: 'stopped',
      concurrency: 100,
      handlers: { mail: stopped.run },
    })
    await eventually(() => expect(stopped.missing).toEqual([]))
    await eventually(async () => expect(await pending(redis.client, 'orders', 'stopped')).toEqual([]))
    expect(worker.counts.dead).toBe(0)
    await trim()
    expect(await redis.client.xlen('orders')).toBe(MOST)
  })

  test('is bounded again once the stopped one is removed', async () => {
    const { kept } = await arrange()
    await trim()
    const inspector = inspect()
    const before = Number(await redis.client.memory('USAGE', 'orders', 'SAMPLES', 0))
    expect((await inspector.groups.list('orders')).find(({ group }) => group === 'stopped')).toMatchObject({
      workers: 0,
      pins: { oldestId: kept, entries: JOBS - SETTLED },
    })
    await inspector.groups.remove('orders', 'stopped')
    await trim()
    expect(await redis.client.xlen('orders')).toBe(MOST)
    expect(Number(await redis.client.memory('USAGE', 'orders', 'SAMPLES', 0))).toBeLessThan(before / 4)
  })
})
