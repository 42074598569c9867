import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { BatchItem } from '../src/index.ts'
import { Gathering } from '../src/batch/gathering.ts'
import { HeldSlots } from '../src/batch/held-slots.ts'
import { Delivery } from '../src/delivery.ts'

/** What waits for a batch, and when it goes: without Redis, and by a clock that the test sets. */

const command = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('join' as const),
      at: fc.nat(3),
      alone: fc.boolean(),
      leftMs: fc.option(fc.integer({ min: 1, max: 80 }), { nil: Infinity }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('stall' as const), ms: fc.nat(60) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('abort' as const), at: fc.nat(40) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('tick' as const), ms: fc.nat(60) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('end' as const), at: fc.nat(40) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('hurry' as const) }) },
)

/** By how much the clock of Redis differs from the monotonic one. */
const SERVER_AHEAD_MS = 1_000_000

const setup = fc.record({
  bounds: fc.tuple(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 6 })),
  total: fc.integer({ min: 1, max: 8 }),
  terms: fc.array(fc.record({ size: fc.integer({ min: 1, max: 5 }), lingerMs: fc.nat(50) }), {
    minLength: 4,
    maxLength: 4,
  }),
})

interface Waiter {
  readonly id: string
  /** Its gathering; the first two are of the first stream, the others of the second. */
  readonly at: number
  readonly sinceMs: number
  readonly deadlineMs: number
  readonly delivery: Delivery
  state: 'waiting' | 'given' | 'left'
}

class World {
  nowMs = 1000
  readonly jobs: Waiter[] = []
  readonly running: Waiter[][] = []
  readonly faults: string[] = []
  readonly terms: readonly { size: number; lingerMs: number }[]
  readonly slots: { readonly bounds: [HeldSlots, HeldSlots]; readonly all: HeldSlots }
  isHurried = false
  #timers: { atMs: number; due: () => void }[] = []
  readonly #gatherings: Gathering[]

  constructor({ bounds, total, terms }: typeof setup extends fc.Arbitrary<infer Given> ? Given : never) {
    this.terms = terms
    this.slots = { bounds: [new HeldSlots(bounds[0]), new HeldSlots(bounds[1])], all: new HeldSlots(total) }
    this.#gatherings = terms.map((one, at) => {
      const lane = this.slots.bounds[at < 2 ? 0 : 1]
      return new Gathering(
        { ...one, call: (batch: readonly BatchItem[]) => this.#given(at, batch) },
        {
          slots: [lane, this.slots.all],
          goesAlone: ({ deliveries }) => deliveries > 1,
          serverMs: () => this.nowMs + SERVER_AHEAD_MS,
          nowMs: () => this.nowMs,
          wake: (waitMs, due) => this.#wake(waitMs, due),
        },
      )
    })
  }

  /** A slot is taken by what waits, and by what the function has. */
  taken(lane: 0 | 1): number {
    const isOf = ({ at }: Waiter) => (at < 2 ? 0 : 1) === lane
    return this.waiting.filter(isOf).length + this.running.flat().filter(isOf).length
  }

  get waiting(): Waiter[] {
    return this.jobs.filter(({ state }) => state === 'waiting').filter(({ delivery }) => delivery.late === undefined)
  }

  join(at: number, alone: boolean, leftMs = Infinity): void {
    const lane = at < 2 ? 0 : 1
    if (this.taken(lane) >= this.slots.bounds[lane].total) return
    if (this.taken(0) + this.taken(1) >= this.slots.all.total) return
    const id = String(this.jobs.length)
    const member = { stream: 'orders', group: 'main', consumer: 'worker' }
    const delivery = new Delivery(member, 0, { entryId: id, slot: 0, deliveries: alone ? 3 : 1, fields: [] })
    const deadlineMs = this.nowMs + leftMs
    if (leftMs < Infinity) delivery.know(0, undefined, { expiresMs: deadlineMs + SERVER_AHEAD_MS })
    this.jobs.push({ id, at, sinceMs: this.nowMs, deadlineMs, delivery, state: 'waiting' })
    this.#gatherings[at]?.join(null, delivery).catch(() => {})
  }

  /** The event loop stands still: no timer is heard. */
  stall(ms: number): void {
    this.nowMs += ms
    this.tick(0)
  }

  tick(ms: number): void {
    const untilMs = this.nowMs + ms
    for (;;) {
      const next = this.#timers.toSorted((a, b) => a.atMs - b.atMs)[0]
      if (next === undefined || next.atMs > untilMs) break
      this.#timers = this.#timers.filter((one) => one !== next)
      this.nowMs = Math.max(this.nowMs, next.atMs)
      next.due()
    }
    this.nowMs = untilMs
  }

  hurry(): void {
    this.isHurried = true
    for (const one of this.#gatherings) one.hurry()
  }

  #given(at: number, batch: readonly BatchItem[]): Promise<void> {
    const given = batch.map(({ job: { id } }) => this.jobs[Number(id)] as Waiter)
    if (given.some((one) => one.state !== 'waiting')) this.faults.push('given twice, or after it left')
    if (given.some((one) => one.delivery.ended !== undefined)) this.faults.push('given though it was aborted')
    if (given.some((one) => one.deadlineMs <= this.nowMs)) this.faults.push('given though it was late')
    if (given.some((one) => one.at !== at)) this.faults.push('given to another function')
    if (given.length > (this.terms[at]?.size ?? 0)) this.faults.push('too large')
    if (given.some((one, n) => n > 0 && Number(one.id) < Number(given[n - 1]?.id))) this.faults.push('out of order')
    for (const one of given) one.state = 'given'
    this.running.push(given)
    return new Promise(() => {})
  }

  #wake(waitMs: number, due: () => void): () => void {
    const timer = { atMs: this.nowMs + waitMs, due }
    this.#timers.push(timer)
    return () => (this.#timers = this.#timers.filter((one) => one !== timer))
  }
}

test('a batch is of one handler, in order, not too large, without what was aborted; none waits too long, or in vain', () => {
  fc.assert(
    fc.property(setup, fc.array(command, { maxLength: 60 }), (given, commands) => {
      const world = new World(given)
      for (const one of commands) {
        if (one.kind === 'join') world.join(one.at, one.alone, one.leftMs)
        else if (one.kind === 'stall') world.stall(one.ms)
        else if (one.kind === 'tick') world.tick(one.ms)
        else if (one.kind === 'hurry') world.hurry()
        else if (one.kind === 'end') world.running.splice(one.at % Math.max(1, world.running.length), 1)
        else {
          const job = world.jobs[one.at]
          job?.delivery.end(new Error('cancelled'))
          if (job?.state === 'waiting') job.state = 'left'
        }
        expect(world.faults).toEqual([])
        const { waiting, slots } = world
        for (const { at, sinceMs, deadlineMs } of waiting) {
          const { size = 0, lingerMs = 0 } = world.terms[at] ?? {}
          const alike = waiting.filter((other) => other.at === at).length
          expect(alike).toBeLessThan(size)
          expect(world.nowMs - sinceMs).toBeLessThanOrEqual(lingerMs)
          expect(world.nowMs - sinceMs).toBeLessThanOrEqual((deadlineMs - sinceMs) / 2)
        }
        const of = (lane: 0 | 1) => waiting.filter(({ at }) => (at < 2 ? 0 : 1) === lane).length
        expect([of(0), of(1), waiting.length]).toEqual([...slots.bounds.map(({ held }) => held), slots.all.held])
        expect(of(0)).toBeLessThan(slots.bounds[0].total)
        expect(of(1)).toBeLessThan(slots.bounds[1].total)
        expect(waiting.length).toBeLessThan(slots.all.total)
        if (one.kind === 'hurry') expect(waiting).toEqual([])
        const late = world.jobs.filter(({ delivery }) => delivery.late !== undefined)
        expect(late.filter(({ state, deadlineMs }) => state === 'given' || deadlineMs > world.nowMs)).toEqual([])
        // Only what holds up the event loop makes a job late.
        if (!commands.some(({ kind }) => kind === 'stall')) expect(late).toEqual([])
      }
      world.tick(50)
      expect(world.waiting).toEqual([])
    }),
    { numRuns: 1000 },
  )
})

test('a job that took workers down before is given to the function alone, and at once', () => {
  const world = new World({
    bounds: [5, 5],
    total: 5,
    terms: [1, 2, 3, 4].map(() => ({ size: 5, lingerMs: 50 })),
  })
  world.join(0, false)
  world.join(0, true)
  expect(world.running.map((batch) => batch.map(({ id }) => id))).toEqual([['1']])
  expect(world.waiting.map(({ id }) => id)).toEqual(['0'])
})
