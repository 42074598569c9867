import { afterEach, describe, expect, test } from 'vitest'
import { Worker, type WorkerOptions } from '../src/index.ts'
import { joinGroup, leaveGroup } from '../src/redis/scripts/group.ts'
import { readLanes } from '../src/redis/scripts/lanes.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { keepingLogger } from './helpers/log.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'
import { gate, pending, tally } from './helpers/workers.ts'

/** What goes wrong on one stream of a worker is that stream's, and a stop or a refused start leaves nothing behind. */

const redis = withRedis()
const NOBODY = { a: 0, b: 0, c: 0 }

function make(options: Partial<WorkerOptions>): Worker {
  const worker = new Worker({
    ...{ redis: redis.url, leaseMs: 600, logger: false, handlers: { x() {} }, streams: ['a', 'b', 'c'] },
    ...options,
  })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  return worker
}

async function start(options: Partial<WorkerOptions>): Promise<Worker> {
  const worker = make(options)
  await worker.start()
  return worker
}

async function fill(stream: string, count: number, name = 'x'): Promise<void> {
  const pipeline = redis.client.pipeline()
  for (let n = 0; n < count; n++) pipeline.xadd(stream, '*', 'job', name, 'data', String(n))
  await pipeline.exec()
}

/** How many workers each stream's group has on its list. */
async function listed(): Promise<Record<string, number>> {
  const of = async (stream: string) => [stream, await redis.client.zcard(`{${stream}}:group:main:workers`)] as const
  return Object.fromEntries(await Promise.all(['a', 'b', 'c'].map(of)))
}

/** Resolves when the worker's keeper has pulsed so often for a stream. */
async function pulses(stream: string, count: number): Promise<void> {
  const key = `{${stream}}:group:main:workers`
  const seen = new Set<string>()
  await eventually(
    async () => {
      for (const score of (await redis.client.zrange(key, '0', '-1', 'WITHSCORES')).filter((_, at) => at % 2 === 1)) {
        seen.add(String(score))
      }
      expect(seen.size).toBeGreaterThan(count)
    },
    { intervalMs: 10 },
  )
}

/** `command` may have a subcommand, which servers before 7.0 count under its first word. */
async function callsOf(command: string, what = 'calls'): Promise<number> {
  const stats = await redis.client.info('commandstats')
  const [name = '', subcommand = ''] = command.split(' ')
  return Number(new RegExp(`cmdstat_${name}(?:\\|${subcommand})?:.*?\\b${what}=(\\d+)`).exec(stats)?.[1] ?? 0)
}

async function connections(): Promise<string[]> {
  const list = String(await redis.client.client('LIST'))
  return [...list.matchAll(/ name=(millrace:\S+)/g)].map(([, name = '']) => name)
}

describe('a start that one of the streams refuses', () => {
  test('fails as a whole, and leaves no connection, no worker and no consumer', async () => {
    await redis.client.set('b', 'not a stream')
    await eventually(async () => expect(await connections()).toEqual([]))
    const worker = make({})
    await expect(worker.start()).rejects.toThrow('WRONGTYPE')
    await eventually(async () => expect(await connections()).toEqual([]))
    expect(await listed()).toEqual(NOBODY)
    for (const stream of ['a', 'c']) {
      const consumers = await redis.client.xinfo('CONSUMERS', stream, 'main').catch(() => [])
      expect(consumers).toEqual([])
    }
  })
})

describe('a stop', () => {
  test('leaves no worker on the list of a stream that had nothing more to do while another went on', async () => {
    const { wait, open } = gate()
    let isRunning = false
    const handlers = {
      x: () => {
        isRunning = true
        return wait()
      },
    }
    const worker = await start({ handlers, leaseMs: 500 })
    await fill('b', 1)
    await eventually(() => expect(isRunning).toBe(true))
    const stopped = worker.stop({ drainMs: 60_000 })
    await pulses('b', 3)
    open()
    await stopped
    expect(await listed()).toEqual(NOBODY)
  })
})

describe('a stop beside streams that are gone', () => {
  test.each([
    ['one is deleted', () => redis.client.del('a')],
    ['all is', () => redis.client.flushall()],
  ])('ends as any other while %s', async (_what, vanish) => {
    const { wait, open } = gate()
    onEnd(open)
    const { logger, lines } = keepingLogger()
    const worker = await start({ handlers: { x: wait }, logger, concurrency: 4 })
    for (const stream of ['a', 'b', 'c']) await fill(stream, 1)
    await eventually(() => expect(worker.counts.delivered).toBe(3))
    await eventually(async () => expect(await redis.client.info('clients')).toContain('blocked_clients:1'))
    const stopped = worker.stop({ drainMs: 60_000 })
    await vanish()
    open()
    expect(await stopped).toEqual({ handedBack: 0, unsettled: 0 })
    expect(await listed()).toEqual(NOBODY)
    await eventually(async () => expect(await connections()).toEqual([]))
    expect(lines.filter(({ level, message }) => level === 'error' || message.startsWith('cannot'))).toEqual([])
  })
})

test('a worker that stops is taken off its lists only when nothing pulses any more, which would write it in again', async () => {
  const proxy = await startProxy(redis.url)
  onEnd(() => proxy.stop())
  const hold = proxy.holdBefore(([name, sha]) => name === 'evalsha' && sha === leaveGroup.sha)
  onEnd(() => hold.release())
  const worker = await start({ redis: proxy.url })
  await eventually(async () => expect(await listed()).toEqual({ a: 1, b: 1, c: 1 }))
  const stopped = worker.stop()
  await hold.held
  const keepers = async () => (await connections()).filter((name) => name.startsWith('millrace:keeper'))
  // A command that is held fails after 5 s.
  await eventually(async () => expect(await keepers()).toEqual([]), { timeoutMs: 4000 })
  hold.release()
  await stopped
  expect(await listed()).toEqual(NOBODY)
})

describe('a fault of one stream', () => {
  const notAllowed = 'notallowed'
  afterEach(async () => void (await redis.client.acl('DELUSER', notAllowed)))

  test('that Redis forbids it leaves the others at work, and is over when it is allowed again', async () => {
    await redis.client.acl('SETUSER', notAllowed, 'on', '>pw', '~*', '&*', '+@all')
    const starts: string[] = []
    const { logger, lines } = keepingLogger()
    const url = redis.url.replace('redis://', `redis://${notAllowed}:pw@`)
    await start({ redis: url, logger, handlers: { x: (_: unknown, job) => void starts.push(job.stream) } })
    await redis.client.acl('SETUSER', notAllowed, 'resetkeys', '~b', '~{b}*', '~c', '~{c}*', '~millrace*')
    await fill('a', 3)
    await fill('b', 20)
    await fill('c', 20)
    const of = (stream: string) => starts.filter((one) => one === stream).length
    await eventually(() => expect([of('b'), of('c')]).toEqual([20, 20]))
    const said = () => lines.filter(({ message }) => message.startsWith('cannot read from Redis now'))
    await eventually(() => expect(said().map(({ fields }) => fields['stream'])).toContain('a'))
    await redis.client.acl('SETUSER', notAllowed, '~*')
    await eventually(() => expect(of('a')).toBe(3), { timeoutMs: 20_000 })
    expect(said().map(({ fields }) => fields['stream'])).toEqual(['a'])
  })

  test('that is over while they are read one by one costs nothing of what is read', async () => {
    await redis.client.acl('SETUSER', notAllowed, 'on', '>pw', '~*', '&*', '+@all')
    const proxy = await startProxy(redis.url.replace('redis://', `redis://${notAllowed}:pw@`))
    onEnd(() => proxy.stop())
    const worker = await start({ redis: proxy.url, leaseMs: 5000 })
    await redis.client.acl('SETUSER', notAllowed, 'resetkeys', '~b', '~{b}*', '~c', '~{c}*', '~millrace*')
    const hold = proxy.holdBefore(([name, sha, keys]) => name === 'evalsha' && sha === readLanes.sha && keys === '2')
    onEnd(() => hold.release())
    await fill('b', 1)
    await hold.held
    await redis.client.acl('SETUSER', notAllowed, '~*')
    for (const stream of ['a', 'b', 'c']) await fill(stream, 2)
    hold.release()
    await eventually(() => expect(worker.counts.completed).toBe(7))
    expect(worker.counts.claimed).toBe(0)
  })

  test('that all of them have is told once, and not of each', async () => {
    await redis.client.acl('SETUSER', notAllowed, 'on', '>pw', '~*', '&*', '+@all')
    const { logger, lines } = keepingLogger()
    const url = redis.url.replace('redis://', `redis://${notAllowed}:pw@`)
    const worker = await start({ redis: url, logger })
    await redis.client.acl('SETUSER', notAllowed, 'resetkeys', '~millrace*')
    for (const stream of ['a', 'b', 'c']) await fill(stream, 1)
    const said = () => lines.filter(({ message }) => message.startsWith('cannot read from Redis now'))
    await eventually(() => expect(said().map(({ fields }) => fields['stream'])).toEqual(['a,b,c']))
    await redis.client.call('ACL', 'LOG', 'RESET')
    await eventually(async () => {
      const denied = (await redis.client.call('ACL', 'LOG')) as unknown[][]
      expect(Math.max(...denied.map(([, count]) => Number(count)))).toBeGreaterThan(5)
    })
    expect(said()).toHaveLength(1)
    // It may come back for one of them before the others.
    await redis.client.acl('SETUSER', notAllowed, '~*')
    await eventually(() => expect(worker.counts.completed).toBe(3))
  })

  test('that its group cannot be made again is told once, and leaves the others at work', async () => {
    await redis.client.acl('SETUSER', notAllowed, 'on', '>pw', '~*', '&*', '+@all')
    const { logger, lines } = keepingLogger()
    const url = redis.url.replace('redis://', `redis://${notAllowed}:pw@`)
    const worker = await start({ redis: url, logger })
    await redis.client.acl('SETUSER', notAllowed, '-xgroup')
    await redis.client.del('a')
    // Of the script that makes the group.
    const tries = async () => callsOf('xgroup create', 'rejected_calls')
    const before = await tries()
    const reads = await callsOf('xreadgroup')
    await eventually(async () => expect((await tries()) - before).toBeGreaterThan(3))
    // Half a second is between two of them. It is not read all the while.
    expect((await callsOf('xreadgroup')) - reads).toBeLessThan(100)
    await fill('b', 20)
    await fill('c', 20)
    await eventually(() => expect([worker.countsOf('b').completed, worker.countsOf('c').completed]).toEqual([20, 20]))
    const said = () => lines.filter(({ message }) => message === 'cannot join the group')
    expect(said().map(({ fields }) => fields['stream'])).toEqual(['a'])
    await redis.client.acl('SETUSER', notAllowed, '+xgroup')
    await fill('a', 2)
    await eventually(() => expect(worker.countsOf('a').completed).toBe(2), { timeoutMs: 20_000 })
    await redis.client.acl('SETUSER', notAllowed, '-xgroup')
    await redis.client.del('a')
    await eventually(() => expect(said()).toHaveLength(2))
  })

  test('that it was deleted makes it anew, also while it is waited for, and says nothing of the others', async () => {
    const starts: string[] = []
    const { logger, lines } = keepingLogger()
    await start({ logger, handlers: { x: (_: unknown, job) => void starts.push(job.stream) } })
    await eventually(async () => expect(await redis.client.info('clients')).toContain('blocked_clients:1'))
    await redis.client.del('a')
    await fill('a', 2)
    await fill('b', 2)
    await eventually(() => expect(starts.toSorted()).toEqual(['a', 'a', 'b', 'b']))
    expect(lines.filter(({ message }) => message.startsWith('cannot'))).toEqual([])
  })

  test('is over as soon as its group is there again: the wait for the others is ended', async () => {
    const proxy = await startProxy(redis.url)
    onEnd(() => proxy.stop())
    const worker = await start({ redis: proxy.url })
    const blocked = async () => expect(await redis.client.info('clients')).toContain('blocked_clients:1')
    await eventually(blocked)
    const hold = proxy.holdBefore(([name, sha]) => name === 'evalsha' && sha === joinGroup.sha)
    onEnd(() => hold.release())
    const before = await callsOf('client unblock')
    await redis.client.del('a')
    await hold.held
    await eventually(blocked)
    await fill('a', 2)
    hold.release()
    await eventually(async () => expect(await callsOf('client unblock')).toBeGreaterThan(before))
    await eventually(() => expect(worker.countsOf('a').completed).toBe(2))
  })

  test('gives it its share when it is over, and no more, however long it was', async () => {
    const starts: string[] = []
    const ends: (() => void)[] = []
    onEnd(() => {
      for (const end of ends.splice(0)) end()
    })
    const handlers = {
      x: (_: unknown, job: { stream: string }) => {
        starts.push(job.stream)
        return new Promise<void>((resolve) => ends.push(resolve))
      },
      quick: () => {},
    }
    const { logger, messages } = keepingLogger()
    const worker = await start({ streams: ['a', 'b'], concurrency: 1, handlers, logger })
    await redis.client.multi().rename('a', 'kept').set('a', 'not a stream').exec()
    await fill('b', 1, 'quick')
    await eventually(() => expect([...messages()].join()).toContain('cannot read from Redis now'))
    await fill('b', 300, 'quick')
    await eventually(() => expect(worker.countsOf('b').completed).toBe(301))
    // It comes back with a backlog: one that is empty is behind with nothing.
    await fill('kept', 40)
    await redis.client.rename('kept', 'a')
    await eventually(() => expect([...messages()].join()).toContain('reads from Redis again'), { timeoutMs: 20_000 })
    await fill('b', 40)
    for (let n = 1; n <= 20; n++) {
      await eventually(() => expect(starts.length).toBe(n), { intervalMs: 1 })
      ends.shift()?.()
    }
    const ofB = starts.slice(0, 20).filter((one) => one === 'b').length
    expect(ofB).toBeGreaterThanOrEqual(9)
    expect(ofB).toBeLessThanOrEqual(11)
  })

  test('a read whose reply is lost costs none of its jobs', async () => {
    const proxy = await startProxy(redis.url)
    onEnd(() => proxy.stop())
    const ran: string[] = []
    const handlers = { x: (data: unknown, job: { stream: string }) => void ran.push(`${job.stream} ${String(data)}`) }
    await start({ redis: proxy.url, streams: ['a', 'b'], handlers })
    await fill('a', 1)
    await eventually(() => expect(ran).toHaveLength(1))
    // The read of both streams, in one script, of a time when there is something to be read.
    const isRead = (command: string[]) =>
      command[0] === 'evalsha' && command.includes('a') && command.includes('b') && command[2] === '4'
    const lost = proxy.swallowReplyTo(isRead)
    await redis.client.multi().xadd('a', '*', 'job', 'x', 'data', '7').xadd('b', '*', 'job', 'x', 'data', '8').exec()
    await lost
    await eventually(() => expect(new Set(ran)).toEqual(new Set(['a 0', 'a 7', 'b 8'])), { timeoutMs: 20_000 })
    for (const stream of ['a', 'b']) {
      await eventually(async () => expect(await pending(redis.client, stream)).toEqual([]))
    }
    expect([await tally(redis.client, 'a'), await tally(redis.client, 'b')]).toEqual([
      { completed: 2 },
      { completed: 1 },
    ])
  })
})

describe('claims', () => {
  test('of one stream are made while another has a backlog that does not end', async () => {
    await redis.client.xgroup('CREATE', 'b', 'main', '0', 'MKSTREAM')
    await fill('b', 1, 'left')
    await redis.client.xreadgroup('GROUP', 'main', 'ghost', 'STREAMS', 'b', '>')
    let hasRun = false
    const handlers = {
      // Each brings the next one: the backlog lasts until the job that was left has run.
      x: async () => void (hasRun || (await redis.client.xadd('a', '*', 'job', 'x', 'data', '{}'))),
      left: () => void (hasRun = true),
    }
    await fill('a', 50)
    await start({ streams: [{ stream: 'a', weight: 1000 }, 'b'], concurrency: 2, handlers })
    await eventually(() => expect(hasRun).toBe(true), { timeoutMs: 20_000 })
  })
})

describe('a worker on three streams makes no more reads than there is reason for', () => {
  /** Reads of single keys while the keeper pulses ten times: what a loop without a pause would do hundreds of. */
  async function readsOfTenPulses(): Promise<number> {
    await pulses('b', 2)
    const before = await callsOf('xreadgroup')
    await pulses('b', 10)
    return (await callsOf('xreadgroup')) - before
  }

  test('while there is nothing to do', async () => {
    await start({})
    expect(await readsOfTenPulses()).toBeLessThan(30)
  })

  test('while all slots are taken, and others wait', async () => {
    const { wait, open } = gate()
    onEnd(open)
    const worker = await start({ concurrency: 2, handlers: { x: wait } })
    for (const stream of ['a', 'b', 'c']) await fill(stream, 20)
    await eventually(() => expect(worker.counts.delivered).toBeGreaterThanOrEqual(2))
    expect(await readsOfTenPulses()).toBeLessThan(30)
    expect(worker.counts.delivered).toBeLessThanOrEqual(6)
  })

  test('while all jobs of one wait for a limit, which keeps no other stream from its work', async () => {
    const { wait, open } = gate()
    onEnd(open)
    const limits = [{ jobs: ['held'], concurrency: 1 }]
    const worker = await start({ concurrency: 4, handlers: { held: wait, x() {} }, limits })
    await fill('a', 30, 'held')
    await eventually(() => expect(worker.countsOf('a').delivered).toBeGreaterThanOrEqual(1))
    await fill('b', 50)
    await fill('c', 50)
    await eventually(() => {
      expect([worker.countsOf('b').completed, worker.countsOf('c').completed]).toEqual([50, 50])
    })
    expect(await readsOfTenPulses()).toBeLessThan(60)
  })
})
