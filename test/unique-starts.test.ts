import { describe, expect, test } from 'vitest'
import { type PublishOptions } from '../src/index.ts'
import { monotonicMs } from '../src/clock.ts'
import { Delivery } from '../src/delivery.ts'
import { cancelledKey, uniqueKey, workersKey } from '../src/redis/keys.ts'
import { startAll } from '../src/redis/unique.ts'
import { UniqueStarts } from '../src/unique-starts.ts'
import { newProducer } from './fixtures/producers.ts'
import { HandWorker, item, publishItem, type Taken } from './fixtures/unique.ts'
import { eventually } from './helpers/eventually.ts'
import { keepingLogger } from './helpers/log.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'
import { pending, startWorker, startWorkerProcess } from './helpers/workers.ts'

/** What a worker asks of Redis before it calls the handler of a unique job. */

const redis = withRedis()
const publish = (n: unknown, options: PublishOptions = {}) =>
  newProducer({ redis: redis.url }).publish('x', n, { stream: 'orders', timeoutMs: 30_000, ...options })

const isAsking = ([name, , , key]: string[]) => name === 'evalsha' && key === cancelledKey('orders')
const isRead = ([name]: string[]) => name === 'xreadgroup'
const isPulse = ([name, ...args]: string[]) =>
  name?.startsWith('eval') === true && args.includes(workersKey('orders', 'main'))

/** A worker that reads when it is let, and hears of nothing by its pulse. */
async function deafWorker() {
  const proxy = await startProxy(redis.url)
  const began: unknown[] = []
  let asked = 0
  // It holds nothing: it counts.
  proxy.holdBefore((args) => isAsking(args) && (asked += 1) < 0)
  const pulse = proxy.holdBefore(isPulse)
  const firstRead = proxy.holdBefore(isRead)
  const read = proxy.holdBefore(isRead)
  const worker = await startWorker({ redis: proxy.url, leaseMs: 60_000, handlers: { x: (n) => void began.push(n) } })
  await Promise.all([pulse.held, firstRead.held])
  // Of what it has by then it knows that none has given way: of nothing else.
  await publish(0, { uniqueKey: 'before' })
  firstRead.release()
  await Promise.all([read.held, eventually(() => expect(worker.counts.completed).toBe(1))])
  expect(asked).toBe(1)
  return { worker, began, asked: () => asked, read: () => read.release() }
}

test.each(['replace', 'reject'] as const)(
  'a job that was published to %s and has given way never starts, though no pulse has told of it',
  async (mode) => {
    const { worker, began, read } = await deafWorker()
    const first = await publish(1, { uniqueKey: 'a', unique: { mode } })
    const second = await publish(2, { uniqueKey: 'a', unique: { mode: 'replace' } })
    expect(second).toMatchObject({ outcome: 'replaced', replacedId: first.id })
    read()
    await eventually(() => expect(worker.counts.completed).toBe(2))
    await eventually(() => expect(worker.counts.cancelled).toBe(1))
    expect(began).toEqual([0, 2])
    await eventually(async () => expect(await redis.client.exists(uniqueKey('orders', 'a'))).toBe(0))
  },
)

test('a job without a key starts without asking anything', async () => {
  const { began, read, asked } = await deafWorker()
  read()
  await publish(1)
  await eventually(() => expect(began).toEqual([0, 1]))
  expect(asked()).toBe(1)
})

test('one question does for all that the worker had by then, as long as no job is noted as cancelled', async () => {
  const { member } = await new HandWorker(redis.client).join()
  let asked = 0
  const starts = new UniqueStarts(
    (batch) => ((asked += batch.length), startAll(redis.client, member, batch)),
    keepingLogger().logger,
  )
  const start = (heldAtMs: number, key?: string) => {
    const delivery = new Delivery(member, 0, { entryId: '1-1', slot: 0, deliveries: 1, fields: [] })
    delivery.heldAtMs = heldAtMs
    return new Promise<boolean>((resolve) => starts.push(delivery, key, resolve))
  }
  const first = monotonicMs()
  await start(first)
  await start(first)
  expect(asked).toBe(1)
  const second = monotonicMs()
  await start(second)
  expect(asked).toBe(2)
  await start(second, 'a')
  expect(asked).toBe(3)
  const third = monotonicMs()
  await redis.client.zadd(cancelledKey('orders'), 1, '1-1')
  expect(await start(third)).toBe(true)
  expect(await start(third)).toBe(true)
  expect(asked).toBe(5)
})

describe('what Redis is asked', () => {
  const start = (by: HandWorker, taken: Taken | undefined) => {
    if (taken === undefined) throw new Error('expected an entry to take, there is none')
    const one = { id: taken.id, key: taken.extra.unique?.until === 'started' ? 'a' : undefined }
    return startAll(redis.client, by.member, [one]).then(({ cancelled }) =>
      cancelled.has(one) ? 'cancelled' : 'starts',
    )
  }
  const worker = (group?: string) => new HandWorker(redis.client, group).join()
  const put = (n: number, how: Parameters<typeof item>[2] = {}) => publishItem(redis.client, item(n, 'a', how))

  test('stops a job that gave way while it waited for another attempt', async () => {
    const by = await worker()
    const first = await put(1)
    const taken = await by.take()
    await by.retry(taken as Taken)
    expect(await put(2, { mode: 'replace' })).toMatchObject({ replacedId: first.id })
    await by.wake(first.id)
    expect(await start(by, await by.take())).toBe('cancelled')
    expect(await start(by, await by.take())).toBe('starts')
  })

  test('stops a job in the group alone in which it gave way', async () => {
    const [main, mails] = [await worker(), await worker('mails')]
    const first = await put(1, { group: 'main' })
    expect(await put(2, { group: 'main', mode: 'replace' })).toMatchObject({ replacedId: first.id })
    expect(await start(main, await main.take())).toBe('cancelled')
    expect(await start(mails, await mails.take())).toBe('starts')
  })

  test('leaves the key of a job that does not start to the one that has taken its place', async () => {
    const by = await worker()
    const until = { until: 'started' as const }
    await put(1, until)
    const second = await put(2, { ...until, mode: 'replace' })
    expect(await start(by, await by.take())).toBe('cancelled')
    expect(await put(3, until)).toEqual({ id: second.id, outcome: 'duplicate' })
  })

  test('tells each of many by itself, also of those whose keys are let go of', async () => {
    const by = await worker()
    const keys = Array.from({ length: 12 }, (_, n) => `k${n}`)
    const untils = ['started', 'settled', 'ttl'] as const
    const given: string[] = []
    for (const [n, key] of keys.entries()) {
      const how = { until: untils[n % 3] ?? 'settled', ttlMs: n % 3 === 2 ? 60_000 : 0 }
      const { id } = await publishItem(redis.client, item(n, key, how))
      if (n % 4 === 0) await publishItem(redis.client, item(n + 100, key, { ...how, mode: 'replace' }))
      if (n % 4 === 0) given.push(id)
    }
    const starts: { id: string; key: string | undefined }[] = []
    for (let taken = await by.take(); taken !== undefined; taken = await by.take()) {
      const { key, until } = taken.extra.unique ?? {}
      starts.push({ id: taken.id, key: until === 'started' ? key : undefined })
    }
    const { cancelled } = await startAll(redis.client, by.member, starts)
    expect([...cancelled].map(({ id }) => id).sort()).toEqual(given.sort())
    const left = await redis.client.keys(uniqueKey('orders', '*'))
    expect(left).toHaveLength(8)
  })

  test('is not held up by notes that are in no set', async () => {
    const by = await worker()
    await put(1, { until: 'started' })
    await redis.client.set(cancelledKey('orders'), 'x')
    expect(await start(by, await by.take())).toBe('starts')
    expect(await redis.client.exists(uniqueKey('orders', 'a'))).toBe(0)
  })
})

test('of four worker processes of which two are killed none starts a job that was told to have given way', async () => {
  const options = { redis: redis.url, leaseMs: 1000, concurrency: 1 }
  const processes = await Promise.all(Array.from({ length: 4 }, () => startWorkerProcess(options)))
  const producer = newProducer({ redis: redis.url })
  const replaced = new Set<string>()
  const meant = new Set<string>()
  const publishes = 450
  for (let n = 0; n < publishes; n++) {
    const unique = { mode: 'replace', scope: n % 2 === 0 ? 'until-settled' : 'until-started' } as const
    const uniqueKey = `k${n % 31}`
    const told = await producer.publish('slow', { ms: 5 }, { stream: 'orders', uniqueKey, unique, timeoutMs: 30_000 })
    meant.add(told.id)
    if (told.replacedId !== undefined) replaced.add(told.replacedId)
    if (n === publishes / 3) processes[0]?.signal('SIGKILL')
    if (n === (2 * publishes) / 3) processes[1]?.signal('SIGKILL')
  }
  const started = () =>
    new Set(
      processes.flatMap((one) =>
        one
          .log()
          .filter((line) => line.startsWith('started'))
          .map((line) => line.split(' ')[1]),
      ),
    )
  const wanted = [...meant].filter((id) => !replaced.has(id))
  await eventually(() => expect(wanted.filter((id) => !started().has(id))).toEqual([]))
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  expect(replaced.size).toBeGreaterThan(0)
  expect([...replaced].filter((id) => started().has(id))).toEqual([])
}, 120_000)

test('a worker that may not ask says so once, and keeps the lease of the job that waits, whatever time a run may take', async () => {
  await redis.client.call('ACL', 'SETUSER', 'no-asking', 'on', '>x', '~*', '&*', '+@all', '-type')
  const url = redis.url.replace('//', '//no-asking:x@')
  const { logger, lines } = keepingLogger()
  const warned = () => lines.filter(({ level }) => level === 'warn').map(({ message }) => message)
  const began: string[] = []
  const handlers = (name: string) => ({ x: () => void began.push(name) })
  await startWorker({ redis: url, leaseMs: 1000, timeoutMs: 1, logger, handlers: handlers('first') })
  await publish(1, { uniqueKey: 'a' })
  await eventually(() => expect(warned()).toEqual(['cannot ask now whether unique jobs may start; they wait']))
  const other = await startWorker({ redis: redis.url, leaseMs: 1000, handlers: handlers('other') })
  await eventually(() => expect(other.counts.claimPasses).toBeGreaterThan(5))
  expect(began).toEqual([])
  await redis.client.call('ACL', 'SETUSER', 'no-asking', '+type')
  await eventually(() => expect(began).toEqual(['first']))
  expect(warned()).toHaveLength(1)
})
