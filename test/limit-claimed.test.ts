import { expect, test } from 'vitest'
import { limiterKey } from '../src/redis/keys.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, pending, startWorkerProcess } from './helpers/workers.ts'

/** Jobs that were claimed and wait for a limit: they were begun already, and have not run. */

const redis = withRedis()

test('a claimed job that waits for its limit while the loop stands still is handed back, and not charged for it', async () => {
  await redis.client.zadd(limiterKey({ name: 'one' }, 'permits', undefined), Date.now() * 2, 'another')
  // Not by a worker: that would tell the group its lease.
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  const id = await add(redis.client, 'quick')
  await redis.client.xreadgroup('GROUP', 'main', 'gone', 'STREAMS', 'orders', '>')
  await redis.client.call('xclaim', 'orders', 'main', 'gone', '0', id, 'IDLE', '3600000', 'RETRYCOUNT', '1', 'JUSTID')
  const rowOf = async () => (await pending(redis.client)).find((row) => row.id === id)
  const limits = [{ name: 'one', jobs: ['quick'], concurrency: 1 }]
  const worker = await startWorkerProcess({ redis: redis.url, leaseMs: 800, limits })
  await eventually(async () => expect(await rowOf()).toMatchObject({ consumer: worker.consumer, deliveries: 2 }), {
    intervalMs: 5,
  })
  await add(redis.client, 'block', { ms: 600_000 })

  await eventually(async () => {
    expect(await rowOf()).toMatchObject({ consumer: expect.stringContaining(':handback') as string, deliveries: 1 })
  })
})
