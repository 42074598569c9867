import { describe, expect, test } from 'vitest'
import type { PendingJob } from '../src/index.ts'
import { redeliveryKey, settingsKey } from '../src/redis/keys.ts'
import { makeGroup, REDELIVERY } from './helpers/dead.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, startWorker } from './helpers/workers.ts'
import { eventually } from './helpers/eventually.ts'

const redis = withRedis()

/** Entries `<n>-0` of the stream, all of them delivered to one consumer. */
async function deliver(count: number, { consumer = 'w', key = 'orders' } = {}): Promise<void> {
  for (let n = 1; n <= count; n++) await redis.client.xadd(key, `${n}-0`, 'job', 'mail', 'data', `{"n":${n}}`)
  await redis.client.xreadgroup('GROUP', 'main', consumer, 'COUNT', count, 'STREAMS', key, '>')
}

const ids = (jobs: readonly PendingJob[]) => jobs.map(({ source, entryId }) => `${source} ${entryId}`)

describe('what a group has pending', () => {
  test('is told of with who has it, its job, its deliveries and what is left of its lease', async () => {
    const { wait, open } = gate()
    const worker = await startWorker({ redis: redis.url, leaseMs: 60_000, handlers: { mail: wait } })
    const id = await add(redis.client, 'mail')
    const inspector = newInspector(redis.url)
    const page = await eventually(async () => {
      const found = await inspector.pending('orders', 'main')
      expect(found.jobs).toHaveLength(1)
      return found
    })
    open()
    expect(page).toMatchObject({ next: null, total: 1, onRedelivery: 0, leaseMs: 60_000 })
    const [job] = page.jobs
    expect(job).toEqual({
      source: 'stream',
      entryId: id,
      jobId: id,
      job: 'mail',
      worker: worker.consumer,
      idleMs: expect.any(Number) as number,
      deliveries: 1,
      leaseLeftMs: 60_000 - (job?.idleMs ?? NaN),
      publishedMs: Number.parseInt(id),
      isGone: false,
    })
  })

  test('comes in the order of entry ids, of the stream and of the redelivery stream, and each entry once', async () => {
    await makeGroup(redis.client)
    await deliver(4)
    await deliver(3, { key: REDELIVERY })
    const inspector = newInspector(redis.url)
    const all = await inspector.pending('orders', 'main')
    expect(ids(all.jobs)).toEqual([
      'stream 1-0',
      'redelivery 1-0',
      'stream 2-0',
      'redelivery 2-0',
      'stream 3-0',
      'redelivery 3-0',
      'stream 4-0',
    ])
    expect(all).toMatchObject({ total: 7, onRedelivery: 3 })
    for (const limit of [1, 2, 3, 4, 6]) {
      const paged: string[] = []
      let after: string | null = null
      do {
        const page = await inspector.pending('orders', 'main', { limit, ...(after === null ? {} : { after }) })
        expect(page.jobs.length).toBeLessThanOrEqual(limit)
        paged.push(...ids(page.jobs))
        after = page.next
      } while (after !== null)
      expect(paged).toEqual(ids(all.jobs))
    }
  })

  test('is all found where there is more than one page of it', async () => {
    await makeGroup(redis.client)
    await deliver(450)
    const { jobs, next } = await newInspector(redis.url).pending('orders', 'main', { limit: 1000 })
    expect([jobs.length, new Set(ids(jobs)).size, next]).toEqual([450, 450, null])
  })

  test('can be asked for by worker and by idle time', async () => {
    await makeGroup(redis.client)
    await deliver(2, { consumer: 'one' })
    await redis.client.xadd('orders', '9-0', 'job', 'mail')
    await redis.client.xreadgroup('GROUP', 'main', 'other', 'STREAMS', 'orders', '>')
    await redis.client.xclaim('orders', 'main', 'one', 0, '2-0', 'IDLE', 3_600_000)
    const inspector = newInspector(redis.url)
    expect(ids((await inspector.pending('orders', 'main', { worker: 'other' })).jobs)).toEqual(['stream 9-0'])
    expect(ids((await inspector.pending('orders', 'main', { minIdleMs: 3_000_000 })).jobs)).toEqual(['stream 2-0'])
    const none = await inspector.pending('orders', 'main', { worker: 'other', minIdleMs: 3_000_000 })
    expect(none).toMatchObject({ jobs: [], next: null, total: 3 })
    expect((await inspector.pending('orders', 'main', { worker: 'nobody' })).jobs).toEqual([])
  })

  test('tells what was handed back, what is over its lease, and what is gone from the stream', async () => {
    await makeGroup(redis.client)
    await redis.client.hset(settingsKey('orders'), 'group:main:leaseMs', 10_000)
    await deliver(3)
    await redis.client.xclaim('orders', 'main', ':handback', 0, '1-0')
    await redis.client.xclaim('orders', 'main', 'w', 0, '2-0', 'IDLE', 20_000, 'RETRYCOUNT', 4)
    await redis.client.xdel('orders', '3-0')
    const { jobs } = await newInspector(redis.url).pending('orders', 'main')
    expect(jobs).toMatchObject([
      { worker: null, leaseLeftMs: null },
      { worker: 'w', leaseLeftMs: 0, deliveries: 4, isGone: false },
      { worker: 'w', job: null, isGone: true },
    ])
  })

  test('goes by the id and the name that an entry says, if they are any', async () => {
    await makeGroup(redis.client)
    await redis.client.xadd(REDELIVERY, '1-0', 'job', 'mail', 'id', '1795245552380-7', 'id', '1-1')
    await redis.client.xadd(REDELIVERY, '2-0', 'job', '\x1b[2Jevil', 'id', 'none', 'data', 'x'.repeat(2_000_000))
    await redis.client.xadd(REDELIVERY, '3-0', 'job', 'm'.repeat(5_000))
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', REDELIVERY, '>')
    const { jobs } = await newInspector(redis.url).pending('orders', 'main')
    expect(jobs.map(({ job, jobId, publishedMs }) => [job, jobId, publishedMs])).toEqual([
      ['mail', '1795245552380-7', 1795245552380],
      [null, '2-0', 2],
      [null, '3-0', 3],
    ])
  })

  test('is looked at without a change', async () => {
    await makeGroup(redis.client)
    await deliver(50)
    const before = await redis.client.xpending('orders', 'main', '-', '+', 100)
    await newInspector(redis.url).pending('orders', 'main')
    const after = (await redis.client.xpending('orders', 'main', '-', '+', 100)) as [string, string, number, number][]
    expect(after.map(([id, owner, , times]) => [id, owner, times])).toEqual(
      (before as typeof after).map(([id, owner, , times]) => [id, owner, times]),
    )
  })

  test('is asked for with options that exist, of a group that exists', async () => {
    await makeGroup(redis.client)
    const inspector = newInspector(redis.url)
    const asked = (options: object) => inspector.pending('orders', 'main', options)
    await expect(asked({ limit: 0 })).rejects.toThrow('expected `limit` to be a positive integer up to 1000, got 0')
    await expect(asked({ after: '1-0' })).rejects.toThrow('expected `after` to be what a page before gave as `next`')
    await expect(asked({ worker: '' })).rejects.toThrow('expected `worker` to be the name of a worker, got ""')
    await expect(asked({ idle: 1 })).rejects.toThrow('unknown option `idle` of pending')
    await expect(inspector.pending('orders', 'mian')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
    await expect(inspector.pending('none', 'main')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await redis.client.del(redeliveryKey('orders', 'main'))
    expect(await inspector.pending('orders', 'main')).toMatchObject({ jobs: [], total: 0 })
  })
})
