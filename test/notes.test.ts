import { beforeEach, describe, expect, test } from 'vitest'
import { type Job, type Producer } from '../src/index.ts'
import { resolveLogger } from '../src/logger.ts'
import { lineText } from '../src/notes/note.ts'
import { RedisNotes } from '../src/notes/note-taker.ts'
import type { NotedRun } from '../src/notes/taking.ts'
import { Connection } from '../src/redis/connection.ts'
import { notesKey } from '../src/redis/keys.ts'
import { putNotes, readCheckpoint } from '../src/redis/notes.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { newProducer } from './fixtures/producers.ts'
import { HandWorker } from './fixtures/unique.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess } from './helpers/workers.ts'

/** What handlers say of their jobs on the way: progress and log lines for people, checkpoints for the next run. */

const redis = withRedis()
let producer: Producer

beforeEach(() => {
  producer = newProducer({ redis: redis.url })
})

const publish = async (data: unknown = null) => (await producer.publish('x', data, { stream: 'orders' })).id
const notesOf = (id: string) => redis.client.hgetall(notesKey('orders', 'main', id))
const fails = { attempts: 1 }

describe('a checkpoint', () => {
  test('is what the next attempt goes on from, and goes when the job completes', async () => {
    const seen: unknown[] = []
    const x = async (_: unknown, job: Job) => {
      seen.push(await job.lastCheckpoint())
      await job.checkpoint({ page: job.attempt })
      if (job.attempt < 3) throw new Error('not yet')
    }
    const worker = await startWorker({ redis: redis.url, retry: { attempts: 5, backoff: () => 1 }, handlers: { x } })
    const id = await publish()
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(seen).toEqual([undefined, { page: 1 }, { page: 2 }])
    expect(await notesOf(id)).toEqual({})
  })

  test('is what the next run goes on from after a SIGKILL, on another worker', async () => {
    const first = await startWorkerProcess({ redis: redis.url, leaseMs: 1000 })
    const { id } = await producer.publish('steps', { upTo: 3, killAt: 2 }, { stream: 'orders' })
    expect(await first.exited).toMatchObject({ signal: 'SIGKILL' })
    expect(JSON.parse((await notesOf(id))['checkpoint'] ?? '')).toBe(2)
    const second = await startWorkerProcess({ redis: redis.url, leaseMs: 1000 })
    await second.line(/^steps .* done$/)
    expect([...first.log(), ...second.log()].filter((line) => line.startsWith('step '))).toEqual([
      'step 1',
      'step 2',
      'step 3',
    ])
    await eventually(async () => expect(await pending(redis.client)).toEqual([]))
    expect(await notesOf(id)).toEqual({})
  })

  test('stays with a dead job, and a redrive goes on from it', async () => {
    let isBroken = true
    const x = async (_: unknown, job: Job) => {
      const last = await job.lastCheckpoint()
      if (!isBroken) return last
      await job.checkpoint('half')
      job.log('it breaks')
      throw new Error('no')
    }
    const worker = await startWorker({ redis: redis.url, retry: fails, handlers: { x } })
    const { id, result } = await producer.publish('x', 1, { stream: 'orders', result: true })
    await expect(result()).rejects.toThrow('is dead')
    const { log = '', ...kept } = await notesOf(id)
    expect(kept).toMatchObject({ checkpoint: '"half"' })
    expect(log).toMatch(/^\d+ it breaks$/)
    isBroken = false
    await newInspector(redis.url).dead.redrive('orders', 'main', { execute: true })
    expect(await result()).toBe('half')
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(await notesOf(id)).toEqual({})
  })

  test('of a run that has lost its lease is refused, and does not replace that of the next one', async () => {
    const [old, next] = [await new HandWorker(redis.client).join(), await new HandWorker(redis.client).join()]
    const id = await add(redis.client, 'x')
    await old.take()
    const member = { ...next.member, consumer: 'w2' }
    const put = (by: typeof member, deliveries: number, checkpoint: string) =>
      putNotes(redis.client, by, { source: 0, notes: [{ entryId: id, id, deliveries, checkpoint }], atMs: 1 })
    expect(await put(old.member, 1, '1')).toEqual([true])
    await redis.client.xclaim('orders', 'main', 'w2', 0, id, 'RETRYCOUNT', 2)
    expect(await put(member, 2, '2')).toEqual([true])
    expect(await put(old.member, 1, '3')).toEqual([false])
    // It owns the entry again, by a claim of its own: that is another delivery.
    await redis.client.xclaim('orders', 'main', 'w', 0, id, 'RETRYCOUNT', 3)
    expect(await put(old.member, 1, '4')).toEqual([false])
    expect(await readCheckpoint(redis.client, member, id)).toBe('2')
  })

  test('rejects with what has ended the lease where another worker has the job', async () => {
    const run = gate()
    const thrown: unknown[] = []
    const x = async (_: unknown, job: Job) => {
      await run.wait()
      await job.checkpoint(1).catch((error: unknown) => thrown.push(error))
    }
    const worker = await startWorker({ redis: redis.url, leaseMs: 60_000, handlers: { x } })
    const id = await publish()
    await eventually(() => expect(worker.counts.delivered).toBe(1))
    await redis.client.xclaim('orders', 'main', 'other', 0, id, 'RETRYCOUNT', 2)
    run.open()
    await eventually(() => expect(thrown).toMatchObject([{ code: 'ERR_LEASE_LOST' }]))
    expect(await notesOf(id)).toEqual({})
  })

  test.each([
    ['x'.repeat(70_000), 'expected a checkpoint of at most 65536 bytes of JSON, got 70002'],
    [undefined, 'expected a checkpoint that has JSON, got undefined'],
    [1n, 'expected a checkpoint that has JSON, got 1n'],
  ])('over the limit or without JSON is refused', async (state, message) => {
    const x = (_: unknown, job: Job) => job.checkpoint(state)
    await startWorker({ redis: redis.url, retry: fails, handlers: { x } })
    const { result } = await producer.publish('x', 1, { stream: 'orders', result: true })
    await expect(result()).rejects.toThrow(message)
  })

  test('of a run that is over is not said to be lost to another worker alone', async () => {
    const left: Job[] = []
    const handlers = { x: (_: unknown, job: Job) => void left.push(job) }
    await startWorker({ redis: redis.url, handlers })
    const { id, result } = await producer.publish('x', 1, { stream: 'orders', result: true })
    await result()
    const message = `the lease of job ${id} on orders was lost: it is settled or runs on another worker, stop this run`
    await expect(left[0]?.checkpoint(1)).rejects.toMatchObject({ code: 'ERR_LEASE_LOST', message })
  })

  test('of a run that is over rejects once its worker is stopped', async () => {
    const left: Job[] = []
    const worker = await startWorker({
      redis: redis.url,
      handlers: { x: (_: unknown, job: Job) => void left.push(job) },
    })
    await publish()
    await eventually(() => expect(worker.counts.completed).toBe(1))
    await worker.stop()
    await expect(left[0]?.checkpoint(1)).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
    await expect(left[0]?.lastCheckpoint()).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
  })

  test('that Redis refuses for want of memory rejects', async () => {
    await redis.client.call('ACL', 'SETUSER', 'no-notes', 'on', '>x', '~*', '&*', '+@all')
    const x = async (_: unknown, job: Job) => {
      await redis.client.call('ACL', 'SETUSER', 'no-notes', '-hset')
      await job.checkpoint(1).finally(() => redis.client.call('ACL', 'SETUSER', 'no-notes', '+hset'))
    }
    await startWorker({ redis: redis.url.replace('//', '//no-notes:x@'), retry: fails, handlers: { x } })
    const { result } = await producer.publish('x', 1, { stream: 'orders', result: true })
    await expect(result()).rejects.toThrow('Redis refused to write a checkpoint of job')
  })
})

describe('progress and log lines', () => {
  test('are kept while the job runs, the last of them, and those that were dropped are counted', async () => {
    const run = gate()
    const x = async (_: unknown, job: Job) => {
      for (let n = 0; n < 250; n++) job.log(`line ${n}`)
      job.log('two\nlines')
      job.log('é'.repeat(2000))
      job.progress(1)
      job.progress({ done: 2, of: 5 })
      await run.wait()
    }
    const worker = await startWorker({ redis: redis.url, handlers: { x } })
    const id = await publish()
    const kept = await eventually(async () => {
      const seen = await notesOf(id)
      expect(seen['progress']).toBe('{"done":2,"of":5}')
      return seen
    })
    const lines = (kept['log'] ?? '').split('\n').map((line) => line.replace(/^\d+ /, ''))
    expect(lines).toHaveLength(100)
    expect(lines.slice(-3, -1)).toEqual(['line 249', 'two lines'])
    expect(Buffer.byteLength(lines.at(-1) ?? '')).toBeLessThanOrEqual(1024)
    expect(kept['dropped']).toBe('152')
    run.open()
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(await notesOf(id)).toEqual({})
  })

  test('are of at most 16 KiB', async () => {
    const run = gate()
    const x = async (_: unknown, job: Job) => {
      for (let n = 0; n < 60; n++) job.log(`${n} `.padEnd(1000, 'x'))
      await run.wait()
    }
    await startWorker({ redis: redis.url, handlers: { x } })
    const id = await publish()
    const log = await eventually(async () => {
      const seen = (await notesOf(id))['log']
      expect(seen).toBeDefined()
      return seen ?? ''
    })
    expect(log.length).toBeLessThanOrEqual(16 * 1024)
    expect(log.split('\n').at(-1)).toMatch(/^\d+ 59 x/)
    run.open()
  })

  test('of a run that fails are written before it is settled, also where Redis does not know the script', async () => {
    const connection = new Connection(resolveRedis(redis.url), { role: 'commands', socketTimeoutMs: 5000 })
    onEnd(() => connection.close())
    await connection.ready(5000)
    const worker = await new HandWorker(redis.client).join()
    const id = await add(redis.client, 'x')
    await worker.take()
    const clock = { at: () => 1 }
    const notes = new RedisNotes({ connection, member: worker.member, clock, logger: resolveLogger(false) })
    const run: NotedRun = {
      ...{ source: 0, entryId: id, id, name: 'x', stream: 'orders', attempt: 1, deliveries: 1 },
      ...{ ended: undefined, notes: undefined },
    }
    await redis.client.script('FLUSH')
    notes.log(run, 'it breaks')
    notes.ending(run)
    await connection.client.xack('orders', 'main', id)
    expect(await notesOf(id)).toMatchObject({ log: '1 it breaks' })
  })

  test('are one line each, however many blanks are in it', () => {
    const blanks = ' '.repeat(200_000)
    expect(lineText('two\r\n  lines\n\n', 1)).toBe('1 two lines ')
    expect(lineText(`${blanks}x`, 1)).toBe(`1 ${' '.repeat(1021)}…`)
  })

  test('that have no JSON, or too much of it, or no Redis, never fail a job', async () => {
    const circle: { self?: unknown } = {}
    circle.self = circle
    const x = (_: unknown, job: Job) => {
      for (const value of [circle, 1n, undefined, 'x'.repeat(2000)]) job.progress(value)
      job.log(undefined as unknown as string)
    }
    const worker = await startWorker({ redis: redis.url, handlers: { x } })
    await publish()
    await eventually(() => expect(worker.counts.completed).toBe(1))
    expect(worker.counts.failed).toBe(0)
  })
})

/** A job as it is explained once it has said how far it is. */
async function explained(id: string, progress: unknown) {
  const inspector = newInspector(redis.url)
  return eventually(async () => {
    const { groups } = await inspector.explain('orders', id)
    expect(groups[0]?.notes?.progress).toEqual(progress)
    return groups[0]
  })
}

test('explain tells of progress, of the last lines and of a checkpoint, without what is in it', async () => {
  const run = gate()
  const x = async (_: unknown, job: Job) => {
    job.progress({ percent: 40 })
    job.log('page 4 of 10')
    await job.checkpoint({ secret: 4 })
    await run.wait()
  }
  await startWorker({ redis: redis.url, handlers: { x } })
  const group = await explained(await publish(), { percent: 40 })
  expect(group?.notes).toMatchObject({ checkpointBytes: 12, dropped: 0, lines: [{ text: 'page 4 of 10' }] })
  const text = (group?.sentences ?? []).map((sentence) => sentence.text).join('\n')
  expect(text).toContain('{"percent":40}')
  expect(text).toContain('page 4 of 10')
  expect(text).toContain('a checkpoint of 12 bytes')
  expect(text).not.toContain('secret')
  run.open()
})

test('explain has every log line that is kept, and says the last of them', async () => {
  const run = gate()
  onEnd(() => run.open())
  const x = async (_: unknown, job: Job) => {
    for (let n = 0; n < 250; n++) job.log(`line ${n}.`)
    job.progress(250)
    await run.wait()
  }
  await startWorker({ redis: redis.url, handlers: { x } })
  const id = await publish()
  const group = await explained(id, 250)
  const { lines = [], dropped } = group?.notes ?? {}
  expect(lines.map(({ text }) => text)).toEqual(Array.from({ length: 100 }, (_, n) => `line ${n + 150}.`))
  expect(dropped).toBe(150)
  const said = group?.sentences.find(({ text }) => text.startsWith('Its last'))
  expect(said?.text).toMatch(
    /^Its last 10 lines, of 100 that are kept \(150 before these were dropped\): line 240\. \|/,
  )
  expect(said?.text).toMatch(/\| line 249\.$/)
  expect(said?.command).toEqual(['explain', 'orders', id, '--group', 'main', '--json'])
})

test('a job whose handler says nothing writes nothing', async () => {
  const worker = await startWorker({ redis: redis.url, handlers: { x: () => 1 } })
  await publish()
  await eventually(() => expect(worker.counts.completed).toBe(1))
  expect(await redis.client.keys('*:notes:*')).toEqual([])
})
