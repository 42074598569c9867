import fc from 'fast-check'
import { expect, test } from 'vitest'
import { groupScheduledKey, lineKey, orderKey, redeliveryKey } from '../src/redis/keys.ts'
import type { Member, Source } from '../src/redis/member.ts'
import { promoteNow } from '../src/redis/scheduling.ts'
import { settle, settleOthers, type FencedOutcome } from '../src/redis/settling.ts'
import { join } from '../src/redis/stream.ts'
import { askTurns, type TurnTold } from '../src/redis/turns.ts'
import { decodeJob } from '../src/wire.ts'
import { withRedis } from './helpers/redis.ts'

/** The scripts by which jobs of a key have their turns, called one at a time. */

const redis = withRedis()

interface Taken {
  readonly source: Source
  readonly entryId: string
  readonly id: string
  readonly key: string
}

class HandWorker {
  readonly member: Member

  constructor(consumer: string) {
    this.member = { stream: 'orders', group: 'main', consumer }
  }

  async join(): Promise<this> {
    await join(redis.client, this.member, { startAt: 'oldest', leaseMs: 60_000, maxDeliveries: 5 })
    return this
  }

  async take(source: Source): Promise<Taken | undefined> {
    const from = source === 0 ? 'orders' : redeliveryKey('orders', 'main')
    const { group, consumer } = this.member
    const reply = (await redis.client.xreadgroup('GROUP', group, consumer, 'COUNT', 1, 'STREAMS', from, '>')) as
      [string, [string, string[]][]][] | null
    const [entryId, fields] = reply?.[0]?.[1][0] ?? []
    if (entryId === undefined || fields === undefined) return undefined
    const job = decodeJob(entryId, fields)
    if (job.kind !== 'job') throw new Error(job.why)
    return { source, entryId, id: job.id, key: job.extra?.key ?? '' }
  }

  async ask({ source, entryId, id, key }: Taken): Promise<TurnTold> {
    for (;;) {
      const [told] = await askTurns(redis.client, this.member, source, [{ entryId, deliveries: 1, id, key }])
      if (told?.state !== 'again') return told as TurnTold
    }
  }

  async complete({ source, entryId, id, key }: Taken): Promise<void> {
    await settle(redis.client, this.member, { source, done: [{ entryId, id, extra: { key } }], resent: false })
  }

  async settle({ source, entryId, id }: Taken, how: 'wait' | 'retry' | 'skip' | 'dead'): Promise<void> {
    const who = { entryId, id, deliveries: 1 }
    const retry = {
      ...who,
      kind: 'retry',
      delayMs: 3_600_000,
      attempt: 1,
      firstFailedMs: undefined,
      error: 'no',
    } as const
    const outcomes: Record<typeof how, FencedOutcome> = {
      wait: { ...who, kind: 'wait', delayMs: 3_600_000, why: 'its turn', fields: [] },
      retry,
      skip: { ...retry, givesTurn: true },
      dead: { ...who, kind: 'dead', provenance: ['dead-reason', 'attempts', 'dead-id', id] },
    }
    await settleOthers(redis.client, this.member, { source, outcomes: [outcomes[how]], resent: false })
  }
}

const add = (key: string, ...more: string[]) =>
  redis.client.xadd('orders', '*', 'job', 'x', 'data', '1', 'key', key, ...more) as Promise<string>
const line = (key: string) => redis.client.zrange(lineKey('orders', 'main', key), '0', '-1')
const dueMs = async (id: string) => Number(await redis.client.zscore(groupScheduledKey('orders', 'main'), id))
const promote = (id: string) => promoteNow(redis.client, { stream: 'orders', group: 'main' }, [id])
const serverMs = async () => Number((await redis.client.time())[0]) * 1000

async function taken(worker: HandWorker, source: Source = 0): Promise<Taken> {
  return (await worker.take(source)) as Taken
}

test('the job that was published first has the turn, whoever asks first', async () => {
  const [a, b] = [await new HandWorker('a').join(), await new HandWorker('b').join()]
  await add('k')
  await add('k')
  const [first, second] = [await taken(a), await taken(b)]
  expect(await b.ask(second)).toMatchObject({ state: 'behind', firstId: first.id, before: 1 })
  expect(await a.ask(first)).toMatchObject({ state: 'granted' })
  expect(await a.ask(first)).toMatchObject({ state: 'granted' })
  expect(await b.ask(second)).toMatchObject({ state: 'behind' })
  await b.settle(second, 'wait')
  expect(await dueMs(second.id)).toBeGreaterThan((await serverMs()) + 3_000_000)
  await a.complete(first)
  expect(await dueMs(second.id)).toBeLessThan((await serverMs()) + 2000)
  await promote(second.id)
  expect(await a.ask(await taken(a, 1))).toMatchObject({ state: 'granted' })
})

test('a job that is put off after the one before it has ended is due at once', async () => {
  const [a, b] = [await new HandWorker('a').join(), await new HandWorker('b').join()]
  await add('k')
  await add('k')
  const [first, second] = [await taken(a), await taken(b)]
  await a.ask(first)
  expect(await b.ask(second)).toMatchObject({ state: 'behind' })
  await a.complete(first)
  await b.settle(second, 'wait')
  expect(await dueMs(second.id)).toBeLessThan((await serverMs()) + 2000)
})

test('a job that goes away to wait for its turn takes those behind it along, and so many as one worker may have come back together', async () => {
  const [a, b] = [await new HandWorker('a').join(), await new HandWorker('b').join()]
  for (let n = 0; n < 21; n++) await add('k')
  const first = await taken(a)
  await a.ask(first)
  const others: Taken[] = []
  for (let n = 0; n < 20; n++) others.push(await taken(b))
  const asks = others.map(({ entryId, id, key }) => ({ entryId, deliveries: 1, id, key }))
  const told = await askTurns(redis.client, b.member, 0, asks)
  const wanted = others.map((_, at) => ({ state: 'behind', firstId: first.id, before: at + 1 }))
  expect(told).toMatchObject(wanted)
  for (const one of others) await b.settle(one, 'wait')
  await a.complete(first)
  const dueNow = await redis.client.zcount(groupScheduledKey('orders', 'main'), '-inf', (await serverMs()) + 2000)
  expect(dueNow).toBe(16)
})

test('two jobs of a key in one call have their turns one after the other, also where the later one was published with a delay', async () => {
  const a = await new HandWorker('a').join()
  await add('k')
  await add('k', 'id', '1795000000000-1000000000000000')
  const [first, second] = [await taken(a), await taken(a)]
  const asks = [first, second].map(({ entryId, id, key }) => ({ entryId, deliveries: 1, id, key }))
  expect(await askTurns(redis.client, a.member, 0, asks)).toMatchObject([
    { state: 'granted' },
    { state: 'here', firstId: first.id, before: 1 },
  ])
  await a.complete(first)
  expect(await a.ask(second)).toMatchObject({ state: 'granted' })
  await a.complete(second)
  expect(await line('k')).toEqual([])
})

test('a retry keeps the turn of its job, and one that gives it away lines up behind the others', async () => {
  const a = await new HandWorker('a').join()
  await add('k')
  await add('k')
  const [first, second] = [await taken(a), await taken(a)]
  await a.ask(first)
  await a.settle(first, 'retry')
  expect(await a.ask(second)).toMatchObject({ state: 'behind', firstId: first.id })
  await promote(first.id)
  const again = await taken(a, 1)
  expect(await a.ask(again)).toMatchObject({ state: 'granted' })
  expect(await a.ask(second)).toMatchObject({ state: 'here' })
  await a.settle(again, 'skip')
  expect(await a.ask(second)).toMatchObject({ state: 'granted' })
  await promote(first.id)
  expect(await a.ask(await taken(a, 1))).toMatchObject({ state: 'here', firstId: second.id })
})

test.each(['acked by hand', 'set aside'])('a job that is %s holds up nobody', async (how) => {
  const a = await new HandWorker('a').join()
  await add('k')
  await add('k')
  const [first, second] = [await taken(a), await taken(a)]
  await a.ask(first)
  if (how === 'acked by hand') await redis.client.xack('orders', 'main', first.entryId)
  else {
    await a.settle(first, 'retry')
    await redis.client.zadd(groupScheduledKey('orders', 'main'), '+inf', first.id)
  }
  expect(await a.ask(second)).toMatchObject({ state: 'granted' })
  expect(await line('k')).toEqual([second.id])
})

test('a job that was deleted after it was delivered gives its turn on when it ends', async () => {
  const a = await new HandWorker('a').join()
  await add('k')
  await add('k')
  const [first, second] = [await taken(a), await taken(a)]
  await a.ask(first)
  await a.ask(second)
  await redis.client.xdel('orders', first.entryId)
  await a.complete(first)
  expect(await line('k')).toEqual([second.id])
  expect(await a.ask(second)).toMatchObject({ state: 'granted' })
})

test('no call lines up more than 500 entries, or much more than a MiB', async () => {
  const a = await new HandWorker('a').join()
  for (let n = 0; n < 12; n++) await add('big', 'pad', 'x'.repeat(400_000))
  for (let n = 0; n < 700; n++) await add('big')
  const all: Taken[] = []
  for (let one = await a.take(0); one !== undefined; one = await a.take(0)) all.push(one)
  const { entryId, id, key } = all.at(-1) as Taken
  const places = [0]
  for (;;) {
    const [told] = await askTurns(redis.client, a.member, 0, [{ entryId, deliveries: 1, id, key }])
    const cursor = await redis.client.hget(orderKey('orders', 'main'), ':stream')
    places.push(all.findIndex((one) => one.entryId === cursor) + 1)
    if (told?.state === 'again') continue
    expect(told).toMatchObject({ state: 'here', before: 711 })
    break
  }
  for (let at = 1; at < places.length; at++) {
    const [from, to] = [places[at - 1] as number, places[at] as number]
    expect(to - from).toBeLessThanOrEqual(500)
    // What is large comes alone at first, and then by twos: about a MiB, beyond one entry.
    expect(Math.min(to, 12) - Math.min(from, 12)).toBeLessThanOrEqual(4)
  }
  expect(places.at(-1)).toBe(712)
})

test('who is not the owner of a delivery is told so, and lines nothing up', async () => {
  const a = await new HandWorker('a').join()
  await add('k')
  const first = await taken(a)
  const b = await new HandWorker('b').join()
  expect(await b.ask(first)).toMatchObject({ state: 'lost' })
  await a.ask(first)
  await a.complete(first)
  expect(await a.ask(first)).toMatchObject({ state: 'lost' })
  expect(await line('k')).toEqual([])
})

test('a key that holds something else is told as such, and the jobs of others go on', async () => {
  const a = await new HandWorker('a').join()
  await redis.client.set(lineKey('orders', 'main', 'k'), 'no line')
  await add('k')
  await add('other')
  const [first, second] = [await taken(a), await taken(a)]
  expect(await a.ask(first)).toMatchObject({ state: 'broken' })
  expect(await a.ask(second)).toMatchObject({ state: 'granted' })
  await a.complete(first)
})

const act = fc.record({
  kind: fc.constantFrom('publish', 'publish', 'take', 'take', 'ask', 'ask', 'end', 'promote'),
  who: fc.integer({ min: 0, max: 1 }),
  key: fc.constantFrom('k', 'l'),
  pick: fc.nat(20),
  how: fc.constantFrom('complete', 'complete', 'retry', 'skip', 'dead'),
})
type Act = typeof act extends fc.Arbitrary<infer One> ? One : never

/** What two workers have, and the rule: of a key one at a time, in the order of publishing but for those that gave their turn away. */
class Model {
  readonly workers: readonly HandWorker[]
  readonly held: [Taken[], Taken[]] = [[], []]
  readonly granted = new Map<string, { taken: Taken; who: number }>()
  readonly open = new Map<string, string[]>([
    ['k', []],
    ['l', []],
  ])
  readonly loose = new Set<string>()

  constructor(workers: readonly HandWorker[]) {
    this.workers = workers
  }

  async step({ kind, who, key, pick, how }: Act): Promise<void> {
    const worker = this.workers[who] as HandWorker
    const held = this.held[who as 0 | 1]
    switch (kind) {
      case 'publish':
        this.open.get(key)?.push(await add(key))
        return
      case 'take': {
        const one = (await worker.take(1)) ?? (await worker.take(0))
        if (one !== undefined) held.push(one)
        return
      }
      case 'ask': {
        const [one] = held.splice(pick % Math.max(1, held.length), 1)
        if (one !== undefined) await this.ask(one, who, pick % 2 === 0)
        return
      }
      case 'promote': {
        const ids = await redis.client.zrange(groupScheduledKey('orders', 'main'), '0', '-1')
        const id = ids[pick % Math.max(1, ids.length)]
        if (id !== undefined) await promote(id)
        return
      }
      case 'end': {
        const run = this.granted.get(key)
        if (run !== undefined) await this.end(run, how)
      }
    }
  }

  async ask(one: Taken, who: number, mayWaitHere: boolean): Promise<void> {
    const worker = this.workers[who] as HandWorker
    const { state } = await worker.ask(one)
    if (state === 'granted') {
      expect(this.granted.get(one.key)).toBeUndefined()
      const before = (this.open.get(one.key) ?? []).filter((id) => !this.loose.has(id))
      if (!this.loose.has(one.id)) expect(before[0]).toBe(one.id)
      this.granted.set(one.key, { taken: one, who })
    } else if (state === 'here' && mayWaitHere) {
      this.held[who as 0 | 1].push(one)
    } else {
      expect(['here', 'behind']).toContain(state)
      await worker.settle(one, 'wait')
    }
  }

  async end({ taken: one, who }: { taken: Taken; who: number }, how: Act['how']): Promise<void> {
    const worker = this.workers[who] as HandWorker
    this.granted.delete(one.key)
    if (how === 'complete') await worker.complete(one)
    else await worker.settle(one, how)
    if (how === 'skip') this.loose.add(one.id)
    if (how === 'complete' || how === 'dead') {
      const left = (this.open.get(one.key) ?? []).filter((id) => id !== one.id)
      this.open.set(one.key, left)
    } else if (how === 'retry') {
      // It has the turn still: none but itself may be granted.
      this.retrying.set(one.key, one.id)
    }
  }

  readonly retrying = new Map<string, string>()
}

test('whatever two workers do, of a key one job runs at a time, in order, and all come to their end', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(act, { minLength: 5, maxLength: 60 }), async (acts) => {
      await redis.flush()
      const model = new Model([await new HandWorker('a').join(), await new HandWorker('b').join()])
      for (const one of acts) await model.step(one)
      // From here on only what is due by itself comes back: nobody may be forgotten in the scheduled set.
      for (let round = 0; ; round++) {
        for (const who of [0, 1]) {
          for (let more = true; more;) {
            const before = model.held[who as 0 | 1].length
            await model.step({ kind: 'take', who, key: 'k', pick: 0, how: 'complete' })
            more = model.held[who as 0 | 1].length > before
          }
          const held = model.held[who as 0 | 1].splice(0)
          for (const one of held) await model.ask(one, who, false)
        }
        for (const run of [...model.granted.values()]) await model.end(run, 'complete')
        const at = (await serverMs()) + 5000
        const scheduled = groupScheduledKey('orders', 'main')
        const due = await redis.client.zrangebyscore(scheduled, 0, at)
        const retried = (await redis.client.zrange(scheduled, '0', '-1')).filter(
          (id) => model.loose.has(id) || [...model.retrying.values()].includes(id),
        )
        for (const id of new Set([...due, ...retried])) await promote(id)
        if ([...model.open.values()].every((ids) => ids.length === 0)) break
        expect(round).toBeLessThan(300)
      }
      expect([...(await line('k')), ...(await line('l'))]).toEqual([])
      expect(await redis.client.zcard(groupScheduledKey('orders', 'main'))).toBe(0)
    }),
    { numRuns: 60 },
  )
})
