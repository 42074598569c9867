import { expect, test } from 'vitest'
import { limiterKey } from '../src/redis/keys.ts'
import { deliverAll, joinAs } from './helpers/audits.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, pending, startWorkerProcess } from './helpers/workers.ts'

/** Jobs that were claimed and wait for a limit: they were begun already, and have not run. */

const redis = withRedis()

test('a claimed job that waits for its limit while the loop stands still is handed back, and not charged for it', async () => {
  await redis.client.zadd(limiterKey({ name: 'one' }, 'permits', undefined), Date.now() * 2, 'another')
  await joinAs(redis.client)
  const id = await add(redis.client, 'quick')
  await deliverAll(redis.client)
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
