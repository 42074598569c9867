import { describe, expect, test } from 'vitest'
import type { Job } from '../src/index.ts'
import { groupScheduledKey, limiterKey } from '../src/redis/keys.ts'
import { memberKeys } from '../src/redis/member.ts'
import { settleOthers, type FencedOutcome } from '../src/redis/settling.ts'
import { deliverAll, joinAs, MEMBER } from './helpers/audits.ts'
import { DEAD } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { add, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

const redis = withRedis()
const SCHEDULED = groupScheduledKey('orders', 'main')

const lettersOf = async () =>
  (await redis.client.xrange(DEAD, '-', '+')).map(([, flat]) => {
    const at = (name: string) => flat[flat.indexOf(name) + 1]
    return {
      id: at('dead-id'),
      reason: at('dead-reason'),
      attempts: at('dead-attempts'),
      deliveries: at('dead-deliveries'),
    }
  })

/** Makes what waits due, without waiting for it. */
const wake = (id: string) => newInspector(redis.url).scheduled.promote('orders', id)

describe('the outcome wait', () => {
  const wait = (entryId: string, own: Partial<FencedOutcome & { kind: 'wait' }> = {}): FencedOutcome => ({
    ...{ kind: 'wait', entryId, id: entryId, deliveries: 1, delayMs: 3_600_000, why: 'waits: a slot', fields: [] },
    ...own,
  })
  const settle = (outcomes: readonly FencedOutcome[], resent = false) =>
    settleOthers(redis.client, MEMBER, { source: 0, outcomes, resent })

  async function deliver(...fields: string[]): Promise<string> {
    await joinAs(redis.client)
    const id = (await redis.client.xadd('orders', '*', 'job', 'x', 'data', '1', ...fields)) as string
    await deliverAll(redis.client)
    return id
  }

  test('puts a job off: it is in the scheduled set and nowhere else, with what it had of attempts', async () => {
    const id = await deliver('attempt', '3', 'first-failed', '5', 'note', 'kept', 'trace-last', 't', 'at', '7')
    expect(await settle([wait(id, { fields: ['waited-since', '9'] })])).toEqual(['waits'])

    const [shown] = await newInspector(redis.url).scheduled.show('orders', id)
    expect(shown).toMatchObject({ id, group: 'main', attempt: 3, error: 'waits: a slot' })
    expect(Object.fromEntries(shown?.fields ?? [])).toEqual({
      ...{ job: 'x', attempt: '3', 'first-failed': '5', note: 'kept', 'trace-last': 't', id, 'waited-since': '9' },
    })
    expect(await pending(redis.client)).toEqual([])
    expect(await redis.client.hgetall(memberKeys.index(MEMBER))).toEqual({ [id]: 'scheduled' })
    expect(await tally(redis.client)).toEqual({ waited: 1 })
  })

  test('replaces the fields that it names, all of that name, and no others', async () => {
    const id = await deliver('granted', 'a', 'granted', 'b', 'note', '1')
    await settle([wait(id, { fields: ['granted', 'c'] })])

    const [shown] = await newInspector(redis.url).scheduled.show('orders', id)
    expect(shown?.fields.filter(([name]) => name === 'granted')).toEqual([['granted', 'c']])
    expect(shown?.fields).toContainEqual(['note', '1'])
  })

  test('of a worker that knows the job, for a limit, ends its waiting for one: that begins anew if it comes to another', async () => {
    const id = await deliver('waited-since', '1')
    await settle([wait(id)])

    const [shown] = await newInspector(redis.url).scheduled.show('orders', id)
    expect(shown?.fields.map(([name]) => name)).not.toContain('waited-since')
  })

  test('carries along how many deliveries had no outcome, and a failure after that ends the count', async () => {
    const id = await deliver('past-deliveries', '7')
    await redis.client.xclaim('orders', 'main', MEMBER.consumer, '0', id, 'RETRYCOUNT', '3', 'JUSTID')
    expect(await settle([wait(id, { deliveries: 3 })])).toEqual(['waits'])
    const countOf = async (of: string) => {
      const [shown] = await newInspector(redis.url).scheduled.show('orders', of)
      return shown?.fields.filter(([name]) => name === 'past-deliveries')
    }
    expect(await countOf(id)).toEqual([['past-deliveries', '2']])

    const failed = await deliver('past-deliveries', '2')
    const retry = { kind: 'retry', deliveries: 1, delayMs: 1e6, attempt: 1, firstFailedMs: 1, error: 'e' } as const
    expect(await settle([{ ...retry, entryId: failed, id: failed }])).toEqual(['retried'])
    expect(await countOf(failed)).toEqual([])
  })

  test('is fenced: a delivery that is not ours any more is left as it is', async () => {
    const id = await deliver()
    expect(await settle([wait(id, { deliveries: 2 })])).toEqual(['stale'])
    expect(await settle([wait(id)])).toEqual(['waits'])
    expect(await settle([wait(id)])).toEqual(['stale'])
    expect(await settle([wait(id)], true)).toEqual(['done'])
    expect(await redis.client.zcard(SCHEDULED)).toBe(1)
  })

  test('does not outlive a cancel, nor an entry that is gone', async () => {
    const [cancelled, gone] = [await deliver(), await deliver()]
    await newInspector(redis.url).cancel('orders', cancelled)
    await redis.client.xdel('orders', gone)
    expect(await settle([wait(cancelled), wait(gone)])).toEqual(['cancelled', 'gone'])
    expect(await redis.client.zcard(SCHEDULED)).toBe(0)
  })

  test('joins a retry of the same job: none of the two is lost, and both come back at the later time', async () => {
    const id = await deliver()
    const twin = (await redis.client.xadd('orders', '*', 'job', 'x', 'id', id)) as string
    await deliverAll(redis.client)
    expect(await settle([wait(id, { delayMs: 1000 }), wait(twin, { id, delayMs: 9_000_000 })])).toEqual([
      'waits',
      'waits',
    ])
    expect(await redis.client.zcard(SCHEDULED)).toBe(1)
    await wake(id)
    const ran: string[] = []
    await startWorker({ redis: redis.url, handlers: { x: (_, job) => void ran.push(job.id) } })
    await eventually(() => expect(ran).toEqual([id, id]))
  })

  test('of an entry too wide to be appended again changes nothing', async () => {
    const id = await deliver(...Array.from({ length: 7000 }, (_, at) => `f${at}`))
    expect(await settle([wait(id)])).toEqual(['wide'])
    expect(await pending(redis.client)).toHaveLength(1)
  })
})

describe('a job whose workers went away, and which is then put off for a limit,', () => {
  const slots = limiterKey({ name: 'api' }, 'slots', undefined)
  const limits = [{ name: 'api', rate: { jobs: 1, perMs: 3_600_000 } }]

  test('keeps the count of its deliveries, and is begun in quarantine as any other such job', async () => {
    await joinAs(redis.client)
    const id = await add(redis.client, 'x')
    await deliverAll(redis.client)
    const old = ['IDLE', '3600000', 'RETRYCOUNT', '2', 'JUSTID'] as const
    await redis.client.call('xclaim', 'orders', 'main', 'gone', '0', id, ...old)
    await redis.client.set(slots, `${((await serverMs(redis.client)) + 3_600_000) * 1000} 0`)
    const ran: number[] = []
    const handlers = { x: (_: unknown, { deliveries }: Job) => void ran.push(deliveries) }
    const worker = await startWorker({ redis: redis.url, leaseMs: 500, maxDeliveries: 3, limits, handlers })
    await eventually(() => expect(worker.counts.waited).toBe(1))
    await redis.client.del(slots)
    await wake(id)

    await eventually(() => expect(ran).toEqual([3]))
    expect(worker.counts).toMatchObject({ claimed: 2, handedBack: 1 })
  })

  test('is dead without another run if they were as many as it may have; redriven, it runs', async () => {
    const id = (await redis.client.xadd('orders', '*', 'job', 'x', 'past-deliveries', '3')) as string
    const ran: number[] = []
    const handlers = { x: (_: unknown, { deliveries }: Job) => void ran.push(deliveries) }
    await startWorker({ redis: redis.url, leaseMs: 500, maxDeliveries: 3, limits, handlers })

    await eventually(async () => {
      expect(await lettersOf()).toEqual([{ id, reason: 'deliveries', attempts: '0', deliveries: '3' }])
    })
    expect(ran).toEqual([])
    await newInspector(redis.url).dead.redrive('orders', 'main', { ids: [id], execute: true })
    await eventually(() => expect(ran).toEqual([1]))
  })
})

describe('a job that this worker has no handler for', () => {
  const other = { other() {} }

  test('waits at no cost, says why, and runs on a worker that knows it: first attempt, first delivery', async () => {
    const events: unknown[] = []
    const worker = await startWorker({ redis: redis.url, leaseMs: 500, maxDeliveries: 1, handlers: other })
    worker.on('job:waiting', ({ id, why }) => events.push({ id, why }))
    const id = await add(redis.client, 'later')
    await eventually(() => expect(worker.counts.waited).toBe(1))
    const why = 'no worker of the group that received it has a handler for it'
    expect(events).toEqual([{ id, why }])
    expect(await pending(redis.client)).toEqual([])
    await worker.stop()

    const inspector = newInspector(redis.url)
    expect((await inspector.scheduled.list('orders')).jobs).toMatchObject([{ id, attempt: 0, error: `waits: ${why}` }])
    const { groups } = await inspector.explain('orders', id)
    expect(groups[0]?.sentences[0]?.text).toMatch(/^Wait(s|ed) until .*no worker of the group that received it/)
    const runs: Pick<Job, 'id' | 'attempt' | 'deliveries'>[] = []
    const later = (_: unknown, { id, attempt, deliveries }: Job) => void runs.push({ id, attempt, deliveries })
    await startWorker({ redis: redis.url, handlers: { later } })
    await eventually(() => expect(runs).toEqual([{ id, attempt: 1, deliveries: 1 }]))
    expect(await inspector.audit('orders', { group: 'main' })).toMatchObject({ ok: true, findings: [] })
  })

  test('waits longer each time and is then dead, having cost neither an attempt nor a delivery', async () => {
    const waits: number[] = []
    const worker = await startWorker({ redis: redis.url, leaseMs: 500, unknownJobMs: 3000, handlers: other })
    worker.on('job:waiting', ({ delayMs }) => waits.push(delayMs))
    const id = await add(redis.client, 'never')
    await eventually(async () => {
      expect(await lettersOf()).toEqual([{ id, reason: 'unknown-job', attempts: '0', deliveries: '1' }])
    })
    expect(waits.length).toBeGreaterThanOrEqual(2)
    expect(waits.length).toBeLessThanOrEqual(4)
    expect(await tally(redis.client)).toEqual({ waited: waits.length, dead: 1 })
    expect(await newInspector(redis.url).audit('orders', { group: 'main' })).toMatchObject({ ok: true, findings: [] })
  })

  test('holds up nobody: with one slot, those behind it run', async () => {
    const ran: unknown[] = []
    for (let n = 0; n < 20; n++) await add(redis.client, 'stray', n)
    await add(redis.client, 'x', 'behind')
    await startWorker({ redis: redis.url, concurrency: 1, handlers: { x: (data) => void ran.push(data) } })
    await eventually(() => expect(ran).toEqual(['behind']))
    await eventually(async () => expect(await redis.client.zcard(SCHEDULED)).toBe(20))
  })

  test('that is redriven has its whole time again', async () => {
    const worker = await startWorker({ redis: redis.url, unknownJobMs: 1000, handlers: other })
    const id = await add(redis.client, 'never')
    await eventually(() => expect(worker.counts.dead).toBe(1))
    const { waited } = worker.counts
    await newInspector(redis.url).dead.redrive('orders', 'main', { ids: [id], execute: true })
    await eventually(() => expect(worker.counts.dead).toBe(2))
    expect(worker.counts.waited).toBeGreaterThan(waited)
  })

  test('that has run since and failed has its whole time again', async () => {
    const fails = await startWorker({
      ...{ redis: redis.url, retry: { delayMs: 3_600_000, jitter: 0 } },
      handlers: { x: () => Promise.reject(new Error('no')) },
    })
    const id = (await redis.client.xadd('orders', '*', 'job', 'x', 'waited-since', '1')) as string
    await eventually(() => expect(fails.counts.retried).toBe(1))
    await fails.stop()
    const worker = await startWorker({ redis: redis.url, unknownJobMs: 60_000, handlers: other })
    await wake(id)
    await eventually(() => expect(worker.counts.waited).toBe(1))
    const [shown] = await newInspector(redis.url).scheduled.show('orders', id)
    expect(shown?.fields).toContainEqual(['attempt', '1'])
  })
})

test('a rolling deploy across processes loses and doubles nothing, also where the old one is killed', async () => {
  const options = { redis: redis.url, leaseMs: 500, maxDeliveries: 1 }
  const old = await startWorkerProcess({ ...options, only: 'slow' })
  const ids = await Promise.all(Array.from({ length: 40 }, () => add(redis.client, 'quick')))
  await eventually(async () => expect(await redis.client.zcard(SCHEDULED)).toBe(40))
  old.signal('SIGKILL')

  const newer = await startWorkerProcess(options)
  await eventually(() => expect(newer.log()).toHaveLength(40), { timeoutMs: 30_000 })
  expect(newer.log().sort()).toEqual(ids.map((id) => `ran ${id} 1`).sort())
  expect(old.log()).toEqual([])
  await eventually(async () => {
    expect(await newInspector(redis.url).audit('orders', { group: 'main' })).toMatchObject({ ok: true, findings: [] })
  })
})

describe('a deadline in the entry', () => {
  const serverMs = async () => {
    const [seconds, micros] = await redis.client.time()
    return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
  }
  const addUntil = async (expires: number) =>
    (await redis.client.xadd('orders', '*', 'job', 'x', 'expires', String(expires))) as string

  test('that is over has the job dead without a run; redriven, it runs', async () => {
    const ran: string[] = []
    await startWorker({ redis: redis.url, handlers: { x: (_, job) => void ran.push(job.id) } })
    const id = await addUntil((await serverMs()) - 1000)
    await eventually(async () => expect(await lettersOf()).toMatchObject([{ id, reason: 'expired', attempts: '0' }]))
    expect(ran).toEqual([])

    await newInspector(redis.url).dead.redrive('orders', 'main', { ids: [id], execute: true })
    await eventually(() => expect(ran).toEqual([id]))
    expect(await newInspector(redis.url).audit('orders', { group: 'main' })).toMatchObject({ ok: true, findings: [] })
  })

  test('holds for a retry too, and not while a run goes on', async () => {
    let held = () => {}
    const gone = new Promise<void>((resolve) => (held = resolve))
    const worker = await startWorker({
      ...{ redis: redis.url, retry: { delayMs: 3_600_000 } },
      handlers: {
        async x() {
          await gone
          throw new Error('no')
        },
      },
    })
    const expires = (await serverMs()) + 1000
    const id = await addUntil(expires)
    await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
    await eventually(async () => expect(await serverMs()).toBeGreaterThan(expires))
    held()
    await eventually(() => expect(worker.counts.retried).toBe(1))
    await wake(id)
    await eventually(async () => expect(await lettersOf()).toMatchObject([{ id, reason: 'expired', attempts: '1' }]))
    expect(worker.counts.failed).toBe(1)
  })
})
