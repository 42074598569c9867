import { describe, expect, test } from 'vitest'
import { defineJob, handle, type PublishOptions } from '../src/index.ts'
import { scheduledJobsKey, scheduledKey, uniqueKey } from '../src/redis/keys.ts'
import { startAll } from '../src/redis/unique.ts'
import { newProducer } from './fixtures/producers.ts'
import { HandWorker, item, publishItem } from './fixtures/unique.ts'
import { DEAD } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { startProxy } from './helpers/proxy.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { gate, startWorker } from './helpers/workers.ts'

/** Where unique keys, deadlines, versions and limits meet. */

const redis = withRedis()
const HOUR_MS = 3_600_000
const publish = (n: unknown, options: PublishOptions = {}) =>
  newProducer({ redis: redis.url }).publish('x', n, { stream: 'orders', uniqueKey: 'a', ...options })

const isHeld = async (key = 'a') => (await redis.client.exists(uniqueKey('orders', key))) === 1
const reasons = async () =>
  (await redis.client.xrange(DEAD, '-', '+')).map(([, flat]) => flat[flat.indexOf('dead-reason') + 1])

describe('a deadline of so many ms', () => {
  test('counts from the last publish of a job that is put off under its first id', async () => {
    const options = { delayMs: HOUR_MS, ttlMs: 2 * HOUR_MS, unique: { mode: 'debounce' } } as const
    const first = await publish(1, options)
    // As if the first publish were hours ago: its job has an old id by now.
    const old = `1700000000000-${first.id.split('-')[1]}`
    const packed = await redis.client.hgetBuffer(scheduledJobsKey('orders'), first.id)
    await redis.client.hset(scheduledJobsKey('orders'), old, packed as Buffer)
    await redis.client.zadd(
      scheduledKey('orders'),
      (await redis.client.zscore(scheduledKey('orders'), first.id)) ?? '',
      old,
    )
    await redis.client.zrem(scheduledKey('orders'), first.id)
    const holder = (await redis.client.get(uniqueKey('orders', 'a'))) ?? ''
    await redis.client.set(uniqueKey('orders', 'a'), holder.replace(first.id, old))

    const fromMs = await serverMs(redis.client)
    expect(await publish(2, options)).toEqual({ id: old, outcome: 'replaced' })
    const toMs = await serverMs(redis.client)
    const [shown] = await newInspector(redis.url).scheduled.show('orders', old)
    const expires = Number(new Map(shown?.fields ?? []).get('expires'))
    expect(expires).toBeGreaterThanOrEqual(fromMs + 2 * HOUR_MS)
    expect(expires).toBeLessThanOrEqual(toMs + 2 * HOUR_MS)
  })

  test('is looked at again when a key could not be let go of for long: what is over then is not run', async () => {
    const proxy = await startProxy(redis.url)
    const held = proxy.holdBefore((args) => args.includes(uniqueKey('orders', 'a')))
    const began: unknown[] = []
    await startWorker({ redis: proxy.url, leaseMs: 10_000, handlers: { x: (n) => void began.push(n) } })
    const expiresAt = Date.now() + 3000
    await publish(1, { expiresAt, unique: { scope: 'until-started' } })
    await held.held
    await eventually(async () => expect(await serverMs(redis.client)).toBeGreaterThan(expiresAt))
    held.release()
    await eventually(async () => expect(await reasons()).toEqual(['expired']))
    expect(began).toEqual([])
  })
})

describe('letting go of keys before their jobs start', () => {
  test('is not held up by a key that holds something else', async () => {
    const worker = await new HandWorker(redis.client).join()
    const fate = await publishItem(redis.client, item(1, 'good', { until: 'started' }))
    await redis.client.sadd(uniqueKey('orders', 'foreign'), 'x')
    await startAll(redis.client, worker.member, [
      { id: '1-1', key: 'foreign' },
      { id: fate.id, key: 'good' },
    ])
    expect(await isHeld('good')).toBe(false)
    expect(await redis.client.smembers(uniqueKey('orders', 'foreign'))).toEqual(['x'])
  })
})

describe('a job that is held for the group `-`', () => {
  test('is let go of by that group alone', async () => {
    const [dash, other] = [new HandWorker(redis.client, '-'), new HandWorker(redis.client, 'other')]
    await dash.join()
    await other.join()
    await publishItem(redis.client, item(1, 'a', { group: '-' }))
    const taken = await other.take()
    if (taken === undefined) throw new Error('expected an entry')
    await other.complete(taken)
    expect(await isHeld()).toBe(true)
    expect((await publishItem(redis.client, item(2, 'a', { group: '-' }))).outcome).toBe('duplicate')
    const own = await dash.take()
    if (own === undefined) throw new Error('expected an entry')
    await dash.complete(own)
    expect(await isHeld()).toBe(false)
  })
})

describe('under a limit', () => {
  test('a payload is brought to its newest version once, by steps that change what they are given', async () => {
    const handler = gate()
    const seen: unknown[] = []
    const job = defineJob('x', {
      stream: 'orders',
      version: 2,
      upcast: {
        1: (old: { id?: string; order?: number }) => {
          old.order = Number(old.id)
          delete old.id
          return old
        },
      },
    })
    const run = (data: unknown) => (seen.push(data), handler.wait())
    await startWorker({ redis: redis.url, handlers: [handle(job, run)], limits: [{ concurrency: 1 }] })
    await redis.client.xadd('orders', '*', 'job', 'x', 'data', '{"id":"42"}')
    await eventually(() => expect(seen).toEqual([{ order: 42 }]))
    handler.open()
  })
})
