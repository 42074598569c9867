import { describe, expect, test } from 'vitest'
import type { Job } from '../src/index.ts'
import { groupScheduledKey, limiterKey, redeliveryKey } from '../src/redis/keys.ts'
import { memberKeys } from '../src/redis/member.ts'
import { settleOthers, type FencedOutcome } from '../src/redis/settling.ts'
import { deliverAll, joinAs, MEMBER } from './helpers/audits.ts'
import { DEAD } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { awaitPulses } from './helpers/pulses.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, startWorkerProcess, tally } from './helpers/workers.ts'

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

describe('the outcome wait', () => {
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

describe('a job that waits', () => {
  const audited = (counts: object) =>
    eventually(async () => {
      const told = await newInspector(redis.url).audit('orders', { group: 'main' })
      expect(told).toMatchObject({ ok: true, findings: [], totals: counts })
      expect(told.accounted).toBe(told.expected)
    })

  /** Two that wait for a worker that knows them, and two for a limit, published in this order by turns. */
  async function arrange(): Promise<string[]> {
    const ids: string[] = []
    while (ids.length < 4) ids.push(await deliver('waited-since', '5', 'granted', 'f'))
    const of = (id: string, at: number) => wait(id, { fields: at % 2 ? ['granted', 'g'] : ['waited-since', '9'] })
    expect(await settle(ids.map(of))).toEqual(['waits', 'waits', 'waits', 'waits'])
    return ids
  }

  test('is counted once by whoever counts, and told as one that waits', async () => {
    const ids = await arrange()
    const inspector = newInspector(redis.url)
    await audited({ scheduled: 4, pending: 0, waiting: 0, redelivery: 0, dead: 0, completed: 0 })
    const [stats] = await inspector.stats('orders')
    expect(stats).toMatchObject({
      scheduled: 0,
      groups: [{ scheduled: 4, pending: 0, lag: 0, dead: 0, overdueSeconds: 0 }],
    })
    expect((await inspector.find('orders')).jobs.map(({ id }) => id)).toEqual(ids)
    expect(await inspector.pending('orders', 'main')).toMatchObject({ jobs: [], total: 0 })
    expect((await inspector.scheduled.list('orders')).jobs.map(({ id, attempt }) => [id, attempt])).toEqual(
      ids.map((id) => [id, 0]),
    )
    for (const id of ids) {
      const { groups } = await inspector.explain('orders', id)
      expect(groups).toMatchObject([{ state: { at: 'scheduled', attempt: 0, problem: 'waits: a slot' } }])
      expect(groups[0]?.sentences[0]?.text).toMatch(/^Waits until .+, at no cost: "a slot"\.$/)
    }
  })

  test('is cancelled where it waits, and counted as that alone', async () => {
    const ids = await arrange()
    const cancelled = await newInspector(redis.url).cancel('orders', ids[0] ?? '')
    expect(cancelled).toMatchObject({ cancelled: true, groups: [{ was: 'scheduled', cancelled: true }] })
    await audited({ scheduled: 3, cancelled: 1 })
    await startWorker({ redis: redis.url, handlers: { x() {} } })
    for (const id of ids.slice(1)) await wake(id)
    await audited({ completed: 3, cancelled: 1, scheduled: 0, redelivery: 0 })
    expect(await tally(redis.client)).toEqual({ waited: 4, cancelled: 1, completed: 3 })
  })

  test('and is rewound meanwhile runs from both of its places, each counted once', async () => {
    const ids = await arrange()
    const inspector = newInspector(redis.url)
    const told = await inspector.groups.rewind('orders', 'main', { to: ids[2] ?? '', execute: true, force: true })
    expect(told).toMatchObject({ again: 2, also: { scheduled: 2, dead: 0, redelivery: 0 } })
    await audited({ scheduled: 4, waiting: 2 })
    const ran: string[] = []
    await startWorker({ redis: redis.url, handlers: { x: (_, job) => void ran.push(job.id) } })
    await eventually(() => expect(ran).toEqual(ids.slice(2)))
    for (const id of ids) await wake(id)
    await audited({ completed: 6, scheduled: 0, redelivery: 0 })
    expect(ran.slice(2).sort()).toEqual(ids)
  })

  test('and is replayed meanwhile stays where it is; the copies have waited for nothing', async () => {
    const ids = await arrange()
    const inspector = newInspector(redis.url)
    await inspector.replays.start('orders', { group: 'main', from: 0 })
    await eventually(() => audited({ scheduled: 4, redelivery: 4 }))
    const copies = await redis.client.xrange(redeliveryKey('orders', 'main'), '-', '+')
    expect(copies).toHaveLength(4)
    for (const [, fields] of copies) {
      expect(fields).not.toContain('waited-since')
      expect(fields).not.toContain('granted')
    }
    const ran: string[] = []
    await startWorker({ redis: redis.url, handlers: { x: (_, job) => void ran.push(job.replayOf?.id ?? job.id) } })
    for (const id of ids) await wake(id)
    await audited({ completed: 8, scheduled: 0, redelivery: 0 })
    expect(ran.sort()).toEqual(ids.flatMap((id) => [id, id]))
  })

  test('in vain is dead, and purged or redriven it is counted by the books', async () => {
    const inspector = newInspector(redis.url)
    const worker = await startWorker({ redis: redis.url, unknownJobMs: 0 })
    const ids = [await add(redis.client, 'x'), await add(redis.client, 'x'), await add(redis.client, 'x')]
    await eventually(() => expect(worker.counts.dead).toBe(3))
    await worker.stop()
    await inspector.dead.purge('orders', 'main', { ids: ids.slice(0, 1), execute: true })
    await inspector.dead.redrive('orders', 'main', { ids: ids.slice(1, 2), execute: true })
    await audited({ discarded: 1, redelivery: 1, dead: 1, scheduled: 0 })
    await startWorker({ redis: redis.url, handlers: { x() {} } })
    await audited({ discarded: 1, completed: 1, dead: 1, scheduled: 0 })
    expect(await tally(redis.client)).toEqual({ dead: 3, discarded: 1, redriven: 1, completed: 1 })
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

  test('is not dead while another worker of the group that is alive knows it, though that is busy; it runs there', async () => {
    const { wait: busy, open } = gate()
    const y = (data: unknown) => (data === 'first' ? busy() : undefined)
    const knows = await startWorker({ redis: redis.url, concurrency: 1, handlers: { y } })
    await add(redis.client, 'y', 'first')
    await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
    await awaitPulses(redis.client, 1)
    const worker = await startWorker({ redis: redis.url, unknownJobMs: 1, handlers: other })
    await add(redis.client, 'y', 'late')
    const never = await add(redis.client, 'never')
    const newer = (await redis.client.xadd('orders', '*', 'job', 'y', 'version', '2')) as string
    await eventually(() => expect(worker.counts.dead).toBe(2))
    await eventually(() => expect(worker.counts.waited).toBeGreaterThan(3))
    expect((await lettersOf()).map(({ id, reason }) => [id, reason]).sort()).toEqual([
      [never, 'unknown-job'],
      [newer, 'unknown-job'],
    ])
    await worker.stop()
    open()
    await eventually(() => expect(knows.counts.completed).toBe(2))
    expect(await newInspector(redis.url).audit('orders', { group: 'main' })).toMatchObject({ ok: true, findings: [] })
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

  test('that passes while the group is paused, or while the job waits for a worker, has it dead as expired', async () => {
    const inspector = newInspector(redis.url)
    const waits = await deliver('expires', '1')
    expect(await settle([wait(waits, { fields: ['waited-since', '9'] })])).toEqual(['waits'])
    await wake(waits)
    const worker = await startWorker({ redis: redis.url, handlers: { other() {} } })
    await inspector.pause('orders')
    await awaitPulses(redis.client, 2)
    const expires = (await serverMs()) + 100
    const held = await addUntil(expires)
    await eventually(async () => expect(await serverMs()).toBeGreaterThan(expires))
    await inspector.resume('orders')
    await eventually(async () =>
      expect((await lettersOf()).map(({ id, reason, attempts }) => [id, reason, attempts]).sort()).toEqual([
        [waits, 'expired', '0'],
        [held, 'expired', '0'],
      ]),
    )
    expect(worker.counts.waited).toBe(0)
    expect(await inspector.audit('orders', { group: 'main' })).toMatchObject({ ok: true, findings: [] })
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
