import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tracingChannel } from 'node:diagnostics_channel'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { defineJob, handleBatch, type Handlers, type PublishError } from '../src/index.ts'
import type { Delivery } from '../src/delivery.ts'
import { Holdings } from '../src/holdings.ts'
import { Onward } from '../src/onward/onward.ts'
import { openTelemetry } from '../src/otel.ts'
import { settingsKey } from '../src/redis/keys.ts'
import { settleAndPublish } from '../src/redis/onward.ts'
import { writeNotes } from '../src/redis/scripts/notes.ts'
import { settlePublishing } from '../src/redis/scripts/onward.ts'
import type { Tracing } from '../src/tracing.ts'
import { newProducer } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { keptSpans, parentOf, spanIdOf } from './helpers/spans.ts'
import { add, gate, pending, startWorker } from './helpers/workers.ts'

/** What handlers publish, where it is partly done, told of, or looked at later. The rest is in onward.test.ts. */

const redis = withRedis()
const NEAR = '{orders}:receipts'
const FAR = 'receipts'
const BOTH = [NEAR, FAR]

async function jobsIn(stream: string): Promise<(string | undefined)[]> {
  return (await redis.client.xrange(stream, '-', '+')).map(([, fields]) => fields[1])
}

async function start(handlers: Handlers, options: object = {}) {
  return startWorker({ redis: redis.url, handlers, retry: { attempts: 1 }, ...options })
}

describe('a publish that Redis refuses behind others of its run', () => {
  test('in the middle of the append has these taken back: nothing is there, and the runs beside it complete', async () => {
    // What is checked before the first append does not tell that this user may append everywhere but here.
    const allowed = ['orders', '{orders}:group:*', NEAR, '{orders}:new'].map((key) => `~${key}`).join(' ')
    await redis.client.acl('SETUSER', 'narrow', 'on', '>secret', '~*', '&*', '+@all', '-xadd', `(+xadd ${allowed})`)
    onEnd(async () => void (await redis.client.acl('DELUSER', 'narrow')))
    const url = new URL(redis.url)
    url.username = 'narrow'
    url.password = 'secret'
    await redis.client.xadd(NEAR, '*', 'job', 'before')
    const all = gate()
    onEnd(() => all.open())
    const worker = await start(
      {
        good: async (_, job) => {
          job.publish('good', 1, { stream: NEAR })
          await all.wait()
        },
        bad: async (_, job) => {
          job.publish('now', 1, { stream: NEAR })
          job.publish('new', 1, { stream: '{orders}:new' })
          job.publish('later', 1, { stream: '{orders}:later', delayMs: 3_600_000 })
          job.publish('last', 1, { stream: '{orders}:locked' })
          await all.wait()
        },
      },
      { redis: url.href },
    )
    const errors: unknown[] = []
    worker.on('job:failed', ({ error }) => errors.push(error))
    for (const name of ['good', 'bad', 'good']) await add(redis.client, name)
    await eventually(async () => expect(await pending(redis.client)).toHaveLength(3))
    all.open()
    await eventually(() => expect(worker.counts).toMatchObject({ completed: 2, failed: 1, dead: 1 }))
    expect(errors).toMatchObject([{ code: 'ERR_PUBLISH_REFUSED', published: 'no' }])
    expect((errors[0] as Error).message).toContain('what it publishes to {orders}:locked cannot be published')
    expect(await jobsIn(NEAR)).toEqual(['before', 'good', 'good'])
    expect(await redis.client.xlen('{orders}:new')).toBe(0)
    expect(await redis.client.keys('{orders}:later:scheduled*')).toEqual([])
    expect(await pending(redis.client)).toEqual([])
  })

  test('where that can be told before has nothing appended: groups that have read all there is know their lag', async () => {
    const broken = '{orders}:broken'
    await redis.client.hset(settingsKey(broken), 'scheduled-seq', 'no number')
    await redis.client.xgroup('CREATE', NEAR, 'reading', '0', 'MKSTREAM')
    const lag = async () => {
      const [group = []] = (await redis.client.xinfo('GROUPS', NEAR)) as unknown[][]
      return group[group.indexOf('lag') + 1]
    }
    const read = () => redis.client.xreadgroup('GROUP', 'reading', 'one', 'STREAMS', NEAR, '>')
    await redis.client.xadd(NEAR, '*', 'job', 'before')
    await read()
    const worker = await start({
      bad: (_, job) => {
        job.publish('now', 1, { stream: NEAR })
        job.publish('last', 1, { stream: broken, delayMs: 3_600_000 })
      },
    })
    await add(redis.client, 'bad')
    await eventually(() => expect(worker.counts.dead).toBe(1))
    expect(await lag()).toBe(0)
    await redis.client.xadd(NEAR, '*', 'job', 'behind')
    expect(await lag()).toBe(1)
    await read()
    expect(await lag()).toBe(0)
  })
})

test('a run that leaves a publish out, or makes them in another order, does not lose the others to the run before it', async () => {
  await redis.client.set('locked', 'not a stream')
  const worker = await start(
    {
      x: (_, job) => {
        const calls = [['one', 'two', 'one', 'refused'], ['two', 'one', 'three'], []][job.attempt - 1] ?? []
        for (const name of calls) {
          if (name === 'refused') job.publish(name, 1, { stream: 'locked' })
          else job.publish(name, job.attempt, { stream: FAR })
        }
      },
    },
    { retry: { attempts: 3, backoff: 'fixed', delayMs: 1 } },
  )
  await add(redis.client, 'x')
  await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, failed: 1 }))
  expect(await jobsIn(FAR)).toEqual(['one', 'two', 'one', 'three'])
})

test('a worker takes no further jobs while it keeps 64 MiB of what runs have published, and does again when that is in Redis', () => {
  const holdings = new Holdings({ stream: 'orders', group: 'main', consumer: 'one' }, 100)
  const held = [1, 2].map((n) => {
    const delivery = holdings.adopt(0, { entryId: `${n}-0`, deliveries: 1, fields: [] }) as Delivery
    delivery.onward = Object.assign(new Onward(), { bytes: 33 * 1024 * 1024 })
    return delivery
  })
  expect(holdings.free).toBe(98)
  for (const delivery of held) holdings.finish(delivery)
  expect(holdings.free).toBe(0)
  // One that was refused is settled as a failure, and kept no more than once.
  for (const delivery of held) holdings.finish(delivery)
  for (const delivery of held) holdings.release(delivery)
  expect(holdings.free).toBe(100)
  const again = holdings.adopt(0, { entryId: '3-0', deliveries: 1, fields: [] }) as Delivery
  again.onward = Object.assign(new Onward(), { bytes: 64 * 1024 * 1024 })
  holdings.finish(again)
  expect(holdings.free).toBe(99)
})

test('that a stream can take a publish is seen without reading the large jobs in it', async () => {
  const member = { stream: 'orders', group: 'main', consumer: 'one' }
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  const id = await add(redis.client, 'x')
  await redis.client.xreadgroup('GROUP', 'main', 'one', 'STREAMS', 'orders', '>')
  await add(redis.client, 'large', 'x'.repeat(1024 * 1024), NEAR)
  await redis.client.config('RESETSTAT')
  const publishing = [{ stream: NEAR, item: { fields: ['job', 'y', 'data', '1'] } }]
  const { fates } = await settleAndPublish(redis.client, member, {
    source: 0,
    done: [{ entryId: id, id, publishing }],
    resent: false,
  })
  expect(fates).toMatchObject([{ kind: 'settled' }])
  // It brings the first and the last entry; where a run publishes to a hundred streams, two hundred of them.
  expect(await redis.client.info('commandstats')).not.toMatch(/xinfo\|stream/i)
})

test('what completed runs publish and give back goes to Redis in calls of about 1 MiB', async () => {
  const [jobs, bytes] = [12, 300_000]
  const held = gate()
  onEnd(() => held.open())
  const worker = await start(
    {
      x: async (n, job) => {
        job.publish('y', n, { stream: NEAR })
        await held.wait()
        return 'x'.repeat(bytes)
      },
    },
    { maxResultBytes: 2 * bytes },
  )
  const producer = newProducer({ redis: redis.url })
  for (let n = 0; n < jobs; n++) await producer.publish('x', n, { stream: 'orders', result: true })
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(jobs))
  await redis.client.script('LOAD', settlePublishing.lua)
  const calls: number[] = []
  const monitor = await redis.connect().monitor()
  onEnd(() => monitor.disconnect())
  monitor.on('monitor', (_time: string, [name, sha, ...args]: string[]) => {
    if (name === 'evalsha' && sha === settlePublishing.sha) calls.push(args.join('').length)
  })
  held.open()
  await eventually(() => expect(worker.counts.completed).toBe(jobs))
  await eventually(() => expect(calls.reduce((sum, one) => sum + one, 0)).toBeGreaterThan(jobs * bytes))
  expect(Math.max(...calls)).toBeLessThan(1.2 * 1024 * 1024)
  expect(await redis.client.xlen(NEAR)).toBe(jobs)
})

test('what a handler noted last is kept of a run that completes and cannot publish, as of any that fails', async () => {
  await redis.client.set(NEAR, 'not a stream')
  await redis.client.script('LOAD', writeNotes.lua)
  const worker = await start({
    x: (_, job) => {
      job.log('about to publish')
      job.publish('y', 1, { stream: NEAR })
    },
  })
  // The first line of a worker is written at once; what comes next waits for the next second, or for the end of its run.
  await add(redis.client, 'x')
  await eventually(() => expect(worker.counts.dead).toBe(1))
  const id = await add(redis.client, 'x')
  await eventually(() => expect(worker.counts.dead).toBe(2))
  const [main] = (await newInspector(redis.url).explain('orders', id)).groups
  expect(main?.notes?.lines).toMatchObject([{ text: 'about to publish' }])
})

test('a stream that another node of a cluster has fails the run, and holds up nobody else', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  onEnd(() => rm(dir, { recursive: true, force: true }))
  const ids = ['a', 'b'].map((letter) => letter.repeat(40))
  // Slots of `here` and `orders`; that of `elsewhere` (6140) is another's, whom nobody has to ask for that.
  const nodes = [
    `${ids[0]} 127.0.0.1:0@0 myself,master - 0 0 1 connected 0-6139 6141-16383`,
    `${ids[1]} 127.0.0.1:1@10001 master - 0 0 2 connected 6140`,
    'vars currentEpoch 2 lastVoteEpoch 0',
  ]
  const config = join(dir, 'nodes.conf')
  await writeFile(config, `${nodes.join('\n')}\n`)
  const cluster = ['--cluster-enabled', 'yes', '--cluster-config-file', config, '--cluster-node-timeout', '600000']
  const server = await startServer({ args: cluster })
  const own = connectTo(server.url)
  expect(await own.cluster('KEYSLOT', 'elsewhere')).toBe(6140)
  await eventually(async () => expect(await own.cluster('INFO')).toContain('cluster_state:ok'))
  const errors: Record<string, unknown> = {}
  const worker = await startWorker({
    redis: server.url,
    retry: { attempts: 1 },
    handlers: {
      x: (_, job) => job.publish('y', 1, { stream: 'elsewhere' }),
      z: (_, job) => job.publish('y', 1, { stream: 'here' }),
    },
  })
  worker.on('job:failed', ({ job, error }) => (errors[job] = error))
  await add(own, 'x')
  await add(own, 'z')
  await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, failed: 1, dead: 1 }))
  expect(errors).toMatchObject({ x: { code: 'ERR_PUBLISH_REFUSED', published: 'no' } })
  expect((errors['x'] as Error).message).toContain('MOVED')
  expect(await own.xlen('here')).toBe(1)
})

test('a redriven job publishes when it completes, a copy by a replay publishes anew, and a group set back publishes far jobs once', async () => {
  let isGood = false
  const handlers: Handlers = {
    x: (n, job) => {
      for (const stream of BOTH) job.publish('y', n, { stream })
      if (!isGood) throw new Error('not yet')
    },
  }
  const worker = await start(handlers)
  const inspector = newInspector(redis.url)
  const counts = async () => Promise.all(BOTH.map((stream) => redis.client.xlen(stream)))
  const id = await add(redis.client, 'x', 1)
  await eventually(() => expect(worker.counts.dead).toBe(1))
  expect(await counts()).toEqual([0, 0])

  isGood = true
  await inspector.dead.redrive('orders', 'main', { ids: [id], execute: true })
  await eventually(() => expect(worker.counts.completed).toBe(1))
  expect(await counts()).toEqual([1, 1])

  await inspector.replays.start('orders', { ids: [id], group: 'main' })
  await eventually(() => expect(worker.counts.completed).toBe(2))
  expect(await counts()).toEqual([2, 2])

  await worker.stop()
  await inspector.groups.rewind('orders', 'main', { to: '0-0', execute: true })
  const second = await start(handlers)
  await eventually(() => expect(second.counts.completed).toBe(1))
  expect(await counts()).toEqual([3, 2])
})

describe('the end of each publish is told once', () => {
  const ends: [stream: string, published: number][] = []
  const tracing: Tracing = {
    publish: ({ stream }) => ({ context: undefined, ended: ({ published }) => void ends.push([stream, published]) }),
    process: () => undefined,
    settle: () => undefined,
  }

  test('also where one is in another slot, and the completion comes late', async () => {
    ends.length = 0
    const held = gate()
    onEnd(() => held.open())
    const worker = await start(
      {
        x: async (_, job) => {
          for (const stream of BOTH) job.publish('y', 1, { stream })
          await held.wait()
        },
      },
      { tracing },
    )
    const id = await add(redis.client, 'x')
    await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
    await redis.client.xack('orders', 'main', id)
    held.open()
    await eventually(() => expect(worker.counts.late).toBe(1))
    expect(ends.toSorted()).toEqual([
      [FAR, 1],
      [NEAR, 0],
    ])
    expect([await redis.client.xlen(FAR), await redis.client.xlen(NEAR)]).toEqual([1, 0])
  })
})

describe('tracing:millrace:publish', () => {
  function heard() {
    const told: string[] = []
    const messages: object[] = []
    const note = (what: string) => (message: object) => {
      told.push(what)
      if (!messages.includes(message)) messages.push(message)
    }
    const names = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'] as const
    const subscribers = Object.fromEntries(names.map((what) => [what, note(what)])) as Record<
      (typeof names)[number],
      never
    >
    tracingChannel('millrace:publish').subscribe(subscribers)
    onEnd(() => void tracingChannel('millrace:publish').unsubscribe(subscribers))
    return { told, messages }
  }

  test.each(BOTH)('tells of what a handler publishes to %s, from the call to when it is in Redis', async (stream) => {
    const { told, messages } = heard()
    const worker = await start({
      x: (_, job) => {
        job.publish('y', { secret: 1 }, { stream })
        told.push('returned')
      },
    })
    await add(redis.client, 'x')
    await eventually(() => expect(worker.counts.completed).toBe(1))
    const [[id] = []] = await redis.client.xrange(stream, '-', '+')
    expect(messages).toEqual([{ stream, job: 'y', isMany: false, result: { id, outcome: 'added' } }])
    expect(told).toEqual(['start', 'end', 'returned', 'asyncStart', 'asyncEnd'])
  })

  test('ends without a result where the run has not completed, and with the error of a call, and of a stream', async () => {
    await redis.client.set(NEAR, 'not a stream')
    const { told, messages } = heard()
    const worker = await start({
      fails: (_, job) => {
        job.publish('y', 1)
        throw new Error('no')
      },
      calls: (_, job) => expect(() => job.publish('y', 2n)).toThrow('JSON-able'),
      locked: (_, job) => job.publish('y', 1, { stream: NEAR }),
    })
    for (const name of ['fails', 'calls', 'locked']) {
      await add(redis.client, name)
      await eventually(() => expect(told.filter((what) => /^(error|asyncEnd)$/.test(what)).length).toBeGreaterThan(0))
    }
    await eventually(() => expect(worker.counts).toMatchObject({ completed: 1, dead: 2 }))
    const code = (text: string) => expect.objectContaining({ code: text }) as PublishError
    expect(messages).toHaveLength(3)
    expect(messages).toEqual(
      expect.arrayContaining([
        { stream: 'orders', job: 'y', isMany: false, result: undefined },
        { stream: 'orders', job: 'y', isMany: false, error: code('ERR_PAYLOAD') },
        { stream: NEAR, job: 'y', isMany: false, error: code('ERR_PUBLISH_REFUSED') },
      ]),
    )
  })
})

describe('traced', () => {
  const spans = keptSpans()

  test('what a function of a batch publishes is a part of the trace of its job', async () => {
    const tracing = openTelemetry({ tracerProvider: spans.provider })
    const handler = handleBatch(defineJob('x'), { size: 2, lingerMs: 60_000 }, (batch) => {
      for (const { job } of batch) job.publish('y', job.id, { stream: NEAR })
    })
    await start([handler], { tracing })
    const ids = [await add(redis.client, 'x'), await add(redis.client, 'x')]
    const runs = await spans.ended('process', 2)
    const sent = await spans.ended('send', 2)
    const runOf = (id: string) => runs.find(({ attributes }) => attributes['messaging.message.id'] === id)
    const rows = await redis.client.xrange(NEAR, '-', '+')
    for (const id of ids) {
      const [entryId] = rows.find(([, fields]) => fields[3] === JSON.stringify(id)) ?? []
      const span = sent.find(({ attributes }) => attributes['messaging.message.id'] === entryId)
      const run = runOf(id)
      expect(span && parentOf(span)).toBe(run && spanIdOf(run))
    }
  })
})
