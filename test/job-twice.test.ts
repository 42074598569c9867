import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { deadKey, groupScheduledJobsKey, groupScheduledKey, redeliveryKey } from '../src/redis/keys.ts'
import type { Source } from '../src/redis/member.ts'
import { setGroupBack } from '../src/redis/rewinding.ts'
import { promoteNow } from '../src/redis/scheduling.ts'
import { settle, settleOthers, type FencedOutcome } from '../src/redis/settling.ts'
import { join, readNew } from '../src/redis/stream.ts'
import { decodeJob } from '../src/wire.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { pending, startWorker, tally } from './helpers/workers.ts'

/**
 * A rewind has jobs delivered again that the group has elsewhere too: a retry that waits, a dead letter, an entry in its
 * redelivery stream. Then a job is there twice, and each of the two has a life of its own.
 */

const redis = withRedis()
const member = { stream: 'orders', group: 'main', consumer: 'a' }
const schedule = { stream: 'orders', group: 'main' }
const HOUR_MS = 3_600_000

interface Held {
  readonly id: string
  readonly entryId: string
  readonly source: Source
  readonly attempt: number
}

/** Where each job is, once for each time that it is to be settled. */
const PLACES = `
  local places = {}
  local function put(id, place) places[#places + 1] = id .. ' ' .. place end
  for source = 1, 2 do
    local function jobOf(entry)
      for i = 1, #entry[2], 2 do if entry[2][i] == 'id' then return entry[2][i + 1] end end
      return entry[1]
    end
    for _, row in ipairs(redis.call('XPENDING', KEYS[source], 'main', '-', '+', 1000)) do
      put(jobOf(redis.call('XRANGE', KEYS[source], row[1], row[1])[1]), 'pending ' .. row[4])
    end
    local last
    for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[source])) do last = group[8] end
    for _, entry in ipairs(redis.call('XRANGE', KEYS[source], '(' .. last, '+')) do put(jobOf(entry), 'waiting') end
  end
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    for n = 2, #cmsgpack.unpack(redis.call('HGET', KEYS[4], id)) do put(id, 'scheduled') end
  end
  for _, entry in ipairs(redis.call('XRANGE', KEYS[5], '-', '+')) do
    for i = 1, #entry[2], 2 do if entry[2][i] == 'dead-id' then put(entry[2][i + 1], 'dead') break end end
  end
  return places`

async function places(): Promise<string[]> {
  const keys = [
    'orders',
    redeliveryKey('orders', 'main'),
    groupScheduledKey('orders', 'main'),
    groupScheduledJobsKey('orders', 'main'),
    deadKey('orders', 'main'),
  ]
  return ((await redis.client.eval(PLACES, keys.length, ...keys)) as string[]).sort()
}

/** A group with a few jobs, and what was done to them. */
class Run {
  readonly ids: string[] = []
  held: Held[] = []
  /** As `places` tells them. */
  expected: string[] = []
  completed = 0
  joined = 0
  #read = 0

  async start(): Promise<void> {
    await redis.flush()
    await join(redis.client, member, { startAt: 'oldest', leaseMs: 10_000, maxDeliveries: 3 })
  }

  async publish(): Promise<void> {
    const id = (await redis.client.xadd('orders', '*', 'job', 'mail', 'data', String(this.ids.length))) as string
    this.ids.push(id)
    this.expected.push(`${id} waiting`)
  }

  async read(count: number): Promise<void> {
    const found = await readNew(redis.client, member, { count, blockMs: 1 })
    for (const source of [0, 1] as const) {
      for (const { id: entryId, fields } of found[source]) {
        const job = decodeJob(entryId, fields)
        if (job.kind !== 'job') throw new Error(job.kind)
        this.held.push({ id: job.id, entryId, source, attempt: job.failed + 1 })
        this.#move(job.id, 'waiting', 'pending 1')
        if (source === 0) this.#read = Math.max(this.#read, this.ids.indexOf(entryId) + 1)
      }
    }
  }

  async end(at: number, how: 'retry' | 'dead' | 'complete'): Promise<void> {
    const [held] = this.held.splice(at % Math.max(1, this.held.length), 1)
    if (held === undefined) return
    const { id, entryId, source, attempt } = held
    if (how === 'complete') {
      const { late } = await settle(redis.client, member, { source, done: [{ entryId, id }], resent: false })
      expect(late).toBe(0)
      this.completed += 1
      return this.#move(id, 'pending 1', undefined)
    }
    if (how === 'retry' && this.expected.includes(`${id} scheduled`)) this.joined += 1
    const outcome: FencedOutcome =
      how === 'dead'
        ? { kind: 'dead', entryId, id, deliveries: 1, provenance: ['dead-id', id] }
        : { ...{ kind: 'retry', entryId, id, deliveries: 1, delayMs: HOUR_MS }, attempt, firstFailedMs: 1, error: '' }
    const asked = { source, outcomes: [outcome], resent: false }
    expect(await settleOthers(redis.client, member, asked)).toEqual([how === 'retry' ? 'retried' : 'dead'])
    // Sent again after a lost answer it changes nothing.
    expect(await settleOthers(redis.client, member, { ...asked, resent: true })).toEqual(['done'])
    this.#move(id, 'pending 1', how === 'retry' ? 'scheduled' : 'dead')
  }

  async promote(at: number): Promise<void> {
    const id = this.ids[at % Math.max(1, this.ids.length)] ?? ''
    const isThere = this.expected.includes(`${id} scheduled`)
    expect(await promoteNow(redis.client, schedule, [id])).toEqual(isThere ? [id] : [])
    while (this.expected.includes(`${id} scheduled`)) this.#move(id, 'scheduled', 'waiting')
  }

  async rewind(at: number): Promise<void> {
    if (this.#read === 0) return
    const from = at % this.#read
    const [first = '', last = ''] = [this.ids[from], this.ids[this.#read - 1]]
    const toId = `${first.split('-')[0] ?? ''}-${String(Number(first.split('-')[1]) - 1)}`
    const [ms = '', seq = ''] = first.split('-')
    const before = seq === '0' ? `${String(Number(ms) - 1)}-18446744073709551615` : toId
    const told = await setGroupBack(redis.client, 'orders', {
      ...{ group: 'main', presentMs: 0, force: true, toId: before, firstId: first, countedTo: last },
      ...{ entriesRead: from, lookedMs: Number.MAX_SAFE_INTEGER },
    })
    expect(told.how).toBe('rewound')
    const again = this.ids.slice(from, this.#read)
    const isAgain = ({ source, entryId }: Held) => source === 0 && again.includes(entryId)
    for (const { id } of this.held.filter(isAgain)) this.#move(id, 'pending 1', undefined)
    this.held = this.held.filter((held) => !isAgain(held))
    for (const id of again) this.expected.push(`${id} waiting`)
    this.#read = from
  }

  async check(): Promise<void> {
    expect(await places()).toEqual([...this.expected].sort())
  }

  #move(id: string, from: string, to: string | undefined): void {
    const at = this.expected.indexOf(`${id} ${from}`)
    expect([id, from, at >= 0]).toEqual([id, from, true])
    this.expected.splice(at, 1, ...(to === undefined ? [] : [`${id} ${to}`]))
  }
}

const at = fc.nat(60)
const steps = fc.oneof(
  { weight: 2, arbitrary: fc.record({ do: fc.constant('publish') }) },
  { weight: 6, arbitrary: fc.record({ do: fc.constant('read'), count: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 8, arbitrary: fc.record({ do: fc.constant('retry'), at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('dead'), at }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('complete'), at }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('promote'), at }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('rewind'), at }) },
)

async function take(run: Run, step: { do: string; at?: number; count?: number }): Promise<void> {
  const { at: which = 0, count = 1 } = step
  if (step.do === 'publish') await run.publish()
  else if (step.do === 'read') await run.read(count)
  else if (step.do === 'promote') await run.promote(which)
  else if (step.do === 'rewind') await run.rewind(which)
  else await run.end(which, step.do as 'retry' | 'dead' | 'complete')
}

/** Settles the delivery of an entry of the stream as one that is to be tried again. */
function fail(id: string, delayMs: number): Promise<string[]> {
  const told = { attempt: 1, firstFailedMs: undefined, error: '' }
  const outcome: FencedOutcome = { ...told, kind: 'retry', entryId: id, id, deliveries: 1, delayMs }
  return settleOthers(redis.client, member, { source: 0, outcomes: [outcome], resent: false })
}

describe('a job that is there twice after a rewind', () => {
  test('is settled each time, whatever is done to both, and no delivery is charged for it', async () => {
    let joined = 0
    const property = fc.asyncProperty(
      fc.noBias(fc.array(steps, { minLength: 20, maxLength: 50 })),
      async (sequence) => {
        const run = new Run()
        await run.start()
        for (const step of [{ do: 'publish' }, { do: 'publish' }, ...sequence]) {
          await take(run, step)
          await run.check()
        }
        const audited = await newInspector(redis.url).audit('orders', { group: 'main' })
        expect(audited).toMatchObject({ ok: true, expected: run.expected.length + run.completed, findings: [] })
        joined += run.joined
        // All that is left is delivered, and completes.
        while (run.expected.some((place) => !place.endsWith(' dead'))) {
          for (const which of run.ids.keys()) await run.promote(which)
          await run.read(100)
          while (run.held.length > 0) await run.end(0, 'complete')
        }
        await run.check()
        expect((await tally(redis.client))['completed'] ?? 0).toBe(run.completed)
      },
    )
    await fc.assert(property, { seed: 7, numRuns: 25 })
    expect(joined).toBeGreaterThan(20)
  }, 240_000)

  test('comes back at the later of its two times, as often as it failed', async () => {
    const run = new Run()
    await run.start()
    await run.publish()
    const [id = ''] = run.ids
    for (const delayMs of [2 * HOUR_MS, HOUR_MS]) {
      const [[entry]] = await readNew(redis.client, member, { count: 1, blockMs: 1 })
      expect(entry?.id).toBe(id)
      expect(await fail(id, delayMs)).toEqual(['retried'])
      await redis.client.xgroup('SETID', 'orders', 'main', '0')
    }
    const due = Number(await redis.client.zscore(groupScheduledKey('orders', 'main'), id))
    expect(due - Date.now()).toBeGreaterThan(1.9 * HOUR_MS)
    const inspector = newInspector(redis.url)
    expect((await inspector.scheduled.list('orders')).jobs).toHaveLength(1)
    await redis.client.xgroup('SETID', 'orders', 'main', '$')
    expect(await promoteNow(redis.client, schedule, [id])).toEqual([id])
    expect(await places()).toEqual([`${id} waiting`, `${id} waiting`])
  })

  test('is cancelled in both of its places', async () => {
    const run = new Run()
    await run.start()
    await run.publish()
    await run.read(1)
    await run.end(0, 'retry')
    await run.rewind(0)
    const [id = ''] = run.ids
    await newInspector(redis.url).cancel('orders', id)
    const ran: string[] = []
    await startWorker({ redis: redis.url, handlers: { mail: (_data, job) => void ran.push(job.id) } })
    await eventually(async () => expect(await tally(redis.client)).toMatchObject({ cancelled: 2 }))
    expect([ran, await places()]).toEqual([[], []])
  })

  test('that would make too large a record stays pending, and is charged nothing for it', async () => {
    const run = new Run()
    await run.start()
    const id = (await redis.client.xadd('orders', '*', 'job', 'mail', 'data', `"${'x'.repeat(700_000)}"`)) as string
    const fates: unknown[] = []
    for (let times = 0; times < 3; times++) {
      await readNew(redis.client, member, { count: 1, blockMs: 1 })
      fates.push(...(await fail(id, HOUR_MS)))
      if (times < 2) await redis.client.xgroup('SETID', 'orders', 'main', '0')
    }
    expect(fates).toEqual(['retried', 'retried', 'twin'])
    expect(await pending(redis.client)).toMatchObject([{ id, deliveries: 0 }])
    expect(await places()).toEqual([`${id} pending 0`, `${id} scheduled`, `${id} scheduled`])
  })

  test('is not charged a delivery, nor dead, while it fails beside its retry', async () => {
    const handlers = {
      mail: () => {
        throw new Error('no')
      },
    }
    const retry = { attempts: 5, delayMs: HOUR_MS }
    const worker = await startWorker({ redis: redis.url, handlers, retry })
    for (let n = 0; n < 3; n++) await redis.client.xadd('orders', '*', 'job', 'mail')
    await eventually(async () => expect(await tally(redis.client)).toEqual({ retried: 3 }))
    await worker.stop()
    await newInspector(redis.url).groups.rewind('orders', 'main', { to: 0, execute: true, force: true })
    await startWorker({ redis: redis.url, handlers, retry })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ retried: 6 }))
    expect(await pending(redis.client)).toEqual([])
    expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(0)
    expect((await places()).every((place) => place.endsWith(' scheduled'))).toBe(true)
    expect(await newInspector(redis.url).audit('orders', { group: 'main' })).toMatchObject({ ok: true, expected: 6 })
  })
})
