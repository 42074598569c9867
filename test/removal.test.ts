import { expect, test } from 'vitest'
import { Producer, removeStream } from '../src/index.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { startServer, withRedis } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

const redis = withRedis()

/** A stream with jobs, a dead letter, two groups and all the keys that come with them. */
async function use(stream: string): Promise<void> {
  const producer = new Producer({ redis: redis.url })
  await producer.publish('none', {}, { stream })
  await producer.close()
  const inspector = newInspector(redis.url)
  await inspector.cron.set(stream, { name: 'a', job: 'none', at: '0 3 1 1 *' })
  await redis.client.xadd(stream, '*', 'not', 'a job')
  const options = { redis: redis.url, stream, handlers: { none() {} } }
  const workers = [await startWorker(options), await startWorker({ ...options, group: 'late', startAt: 'oldest' })]
  await eventually(() => expect(workers.map(({ counts }) => counts.dead)).toEqual([1, 1]))
  for (const worker of workers) await worker.stop()
}

const keys = async () => (await redis.client.keys('*')).filter((key) => !key.includes(':producer:')).sort()

test('removing a stream removes all keys of it and of its groups, and no other key', async () => {
  await use('orders')
  const before = await keys()
  expect(before.length).toBeGreaterThan(8)
  await use('{tenant}:orders')
  await use('orders2')
  const others = (await keys()).filter((key) => !before.includes(key))
  expect(await removeStream({ redis: redis.url }, 'orders')).toBe(before.length - 1)
  expect(await keys()).toEqual(['millrace:streams', ...others].sort())
  expect((await redis.client.smembers('millrace:streams')).sort()).toEqual(['orders2', '{tenant}:orders'])
})

test('removing also finds the groups of a stream whose own key is gone', async () => {
  await use('orders')
  await redis.client.del('orders')
  await removeStream({ redis: redis.url }, 'orders')
  expect(await keys()).toEqual([])
})

test('removing what is not there removes nothing, and what is no stream is refused', async () => {
  expect(await removeStream({ redis: redis.url }, 'orders')).toBe(0)
  await redis.client.set('orders', 'text')
  await expect(removeStream({ redis: redis.url }, 'orders')).rejects.toMatchObject({ code: 'ERR_REDIS_REFUSED' })
  expect(await redis.client.get('orders')).toBe('text')
  await expect(removeStream({ redis: redis.url }, 'bad name')).rejects.toMatchObject({ code: 'ERR_NAME' })
})

test('removing says so when Redis is away', async () => {
  const server = await startServer()
  await server.kill()
  await expect(removeStream({ redis: server.url }, 'orders')).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
})

test('a stream that was removed can be used again', async () => {
  await use('orders')
  await removeStream({ redis: redis.url }, 'orders')
  const worker = await startWorker({ redis: redis.url, handlers: { none() {} } })
  await add(redis.client, 'none')
  await eventually(() => expect(worker.counts.completed).toBe(1))
})
