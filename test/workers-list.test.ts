import { hostname } from 'node:os'
import { describe, expect, test } from 'vitest'
import { workersPage } from '../src/group-workers.ts'
import { workersInfoKey, workersKey } from '../src/redis/keys.ts'
import { makeGroup, REDELIVERY } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, startWorker, startWorkerProcess } from './helpers/workers.ts'

const redis = withRedis()

describe('the workers of a group', () => {
  test('are told of with where they run, what they run, and what they hold', async () => {
    const { wait, open } = gate()
    const startedMs = Date.now()
    const worker = await startWorker({ redis: redis.url, leaseMs: 60_000, concurrency: 3, handlers: { mail: wait } })
    await add(redis.client, 'mail')
    const inspector = newInspector(redis.url)
    const { workers, ...rest } = await eventually(async () => {
      const found = await inspector.workers('orders', 'main')
      expect(found.workers[0]?.running).toBe(1)
      return found
    })
    open()
    expect(rest).toEqual({ handedBack: 0, more: false })
    expect(workers).toEqual([
      {
        worker: worker.consumer,
        host: hostname(),
        pid: process.pid,
        version: expect.stringMatching(/^\d+\.\d+\.\d+/) as string,
        node: process.version,
        startedMs: expect.any(Number) as number,
        slots: 3,
        running: 1,
        perSecond: expect.any(Number) as number,
        lastSeenMs: expect.any(Number) as number,
        seenAgoMs: expect.any(Number) as number,
        isAlive: true,
        pending: 1,
        onRedelivery: 0,
        idleMs: expect.any(Number) as number,
      },
    ])
    expect(workers[0]?.startedMs).toBeGreaterThanOrEqual(startedMs)
  })

  test('are told of when they were killed, for as long as they hold something', async () => {
    const dying = await startWorkerProcess({ redis: redis.url, leaseMs: 60_000 })
    await add(redis.client, 'deaf', { ms: 60_000 })
    const inspector = newInspector(redis.url)
    await eventually(async () => {
      expect((await inspector.workers('orders', 'main')).workers).toMatchObject([{ isAlive: true, pending: 1 }])
    })
    dying.signal('SIGKILL')
    await dying.exited
    await redis.client.zrem(workersKey('orders', 'main'), dying.consumer)
    expect((await inspector.workers('orders', 'main')).workers).toMatchObject([
      { worker: dying.consumer, isAlive: false, lastSeenMs: null, running: 0, pending: 1, host: hostname() },
    ])
  })

  test('do not count what was handed back as theirs', async () => {
    await makeGroup(redis.client)
    for (const key of ['orders', REDELIVERY]) {
      await redis.client.xadd(key, '1-0', 'job', 'mail')
      await redis.client.xadd(key, '2-0', 'job', 'mail')
      await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', key, '>')
      await redis.client.xclaim(key, 'main', ':handback', 0, '1-0')
    }
    const { workers, handedBack } = await newInspector(redis.url).workers('orders', 'main')
    expect(handedBack).toBe(2)
    expect(workers).toMatchObject([{ worker: 'w', isAlive: false, pending: 2, onRedelivery: 1 }])
  })

  test('may say of themselves what they like: what is no such thing is told of as nothing', async () => {
    await makeGroup(redis.client)
    await redis.client.zadd(workersKey('orders', 'main'), 5, 'a', 6, 'b', 7, 'c')
    const told = { a: '{"host":5,"pid":"x","slots":-1,"running":1e99,"version":{}}', b: 'no JSON', c: '[]' }
    await redis.client.hset(workersInfoKey('orders', 'main'), told)
    const { workers } = await newInspector(redis.url).workers('orders', 'main')
    const nothing = {
      host: null,
      pid: null,
      version: null,
      slots: 0,
      running: 0,
      isAlive: false,
      pending: 0,
      idleMs: null,
    }
    expect(workers).toMatchObject([
      { worker: 'a', lastSeenMs: 5, ...nothing },
      { worker: 'b', lastSeenMs: 6, ...nothing },
      { worker: 'c', lastSeenMs: 7, ...nothing },
    ])
  })

  test('come with those alive first, and say where there are more than were looked at', () => {
    const heard = new Map([
      ['a', 1000],
      ['b', 99_000],
    ])
    const none = new Map<string, never>()
    const seen = { nowMs: 100_000, listed: 3, heard, onStream: none, onRedelivery: none, about: none }
    const { workers, more } = workersPage(seen)
    expect(workers.map(({ worker, isAlive, seenAgoMs }) => [worker, isAlive, seenAgoMs])).toEqual([
      ['b', true, 1000],
      ['a', false, 99_000],
    ])
    expect(more).toBe(true)
  })

  test('are none of a group that nobody works for; a group that is not there is an error', async () => {
    await makeGroup(redis.client)
    const inspector = newInspector(redis.url)
    expect(await inspector.workers('orders', 'main')).toEqual({ workers: [], handedBack: 0, more: false })
    await expect(inspector.workers('orders', 'mian')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
    await expect(inspector.workers('none', 'main')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  })
})
