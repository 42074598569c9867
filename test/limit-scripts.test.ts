import fc from 'fast-check'
import { expect, test } from 'vitest'
import { graceUs } from '../src/limits/limit.ts'
import { limiterKey } from '../src/redis/keys.ts'
import { askForPermits, askForSlots, giveBack, renewHeld, type SlotAsk } from '../src/redis/limiting.ts'
import { eventually } from './helpers/eventually.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { excessUs, SlotModel, type Begun } from './helpers/slot-model.ts'

/** The scripts of limits against a model, without workers. Whatever time they take it from is the server's, which they tell. */

const redis = withRedis()
const limiter = { name: 'stripe' }
const RANGE = { mostMs: 1000, nearMs: 2000 }

const askOf = fc.record({
  key: fc.constantFrom('a', 'b', undefined),
  costUs: fc.constantFrom(100, 250.5, 1000, 20_000, 400_000, 1e6 / 3),
  burstUs: fc.constantFrom(400_000, 2_000_000),
  graceUs: fc.constantFrom(0, 10_000, 100_000),
  how: fc.constantFrom('look', 'keep', 'queue') satisfies fc.Arbitrary<SlotAsk['how']>,
})

const batchesOf = fc.array(fc.array(askOf, { minLength: 1, maxLength: 30 }), { maxLength: 6 })

test('Redis gives the slots that the model gives, whatever is asked in whatever batches', async () => {
  let run = 0
  await fc.assert(
    fc.asyncProperty(batchesOf, fc.constantFrom(0, RANGE.nearMs), async (batches, nearMs) => {
      const range = { ...RANGE, nearMs }
      const [place, model] = [{ name: `run-${run++}` }, new SlotModel(range)]
      for (const asks of batches) {
        const { serverMs: atMs, told } = await askForSlots(redis.client, place, asks, range)
        const fresh = new Map<string, number>()
        const expected = asks.map((ask) => model.ask(Math.round(atMs * 1000), ask, fresh))
        expect(told.map(({ kind }) => kind)).toEqual(expected.map(({ kind }) => kind))
        told.forEach(({ inMs }, at) => expect(inMs).toBeCloseTo(expected[at]?.inMs ?? -1, 1))
      }
    }),
    { numRuns: 40 },
  )
})

/** How many jobs one counts as; one that is above the burst stands for the whole burst. */
const cost = fc.oneof(
  fc.constant(1),
  fc.double({ min: 0.1, max: 2, noNaN: true }),
  fc.double({ min: 0.1, max: 60, noNaN: true }),
)
const rate = fc.record({
  intervalUs: fc.constantFrom(200, 1000, 10_000, 1e6 / 3, 60e6),
  burst: fc.integer({ min: 1, max: 50 }),
})

/** What becomes of a rate: when somebody asks (µs after the one before; 0 is in the same call), what for, and how late the job then begins. */
const history = fc.record({
  rate,
  anyGraceUs: fc.option(fc.integer({ min: 0, max: 200_000 }), { nil: undefined }),
  asks: fc.array(
    fc.record({
      afterUs: fc.oneof(fc.constant(0), ...[2000, 200_000, 20e6].map((max) => fc.integer({ min: 0, max }))),
      cost,
      late: fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true })),
      lost: fc.boolean(),
    }),
    { maxLength: 400 },
  ),
})

type History = typeof history extends fc.Arbitrary<infer Value> ? Value : never
const one = { afterUs: 0, cost: 1, late: 0, lost: false }
const two = { ...one, cost: 2 }
/** In each the last one once began with no wait, and too close: the one before had a slot that was told a grace later, or began late. */
const tooClose: History['asks'][] = [
  [one, { ...one, cost: 1.0051250000000003 }, { ...one, afterUs: 1006 }],
  [one, { ...one, cost: 1.5 }, { ...one, afterUs: 1501 }],
  [
    { ...two, late: 1 },
    { ...one, afterUs: 1001 },
  ],
  [{ ...one, late: 1 }, { ...one, afterUs: 1000 }, one],
]

test('jobs that begin at their slots, or later within the grace, are within limit and burst in any window', () => {
  fc.assert(
    fc.property(history, ({ rate, anyGraceUs, asks }) => {
      const [burstUs, model, begun] = [rate.burst * rate.intervalUs, new SlotModel(RANGE), [] as Begun[]]
      let [atUs, fresh] = [1.8e15, new Map<string, number>()]
      for (const { afterUs, cost, late, lost } of asks) {
        atUs += afterUs
        if (afterUs > 0) fresh = new Map()
        const jobs = Math.min(cost, rate.burst)
        const [costUs, lateUs] = [jobs * rate.intervalUs, anyGraceUs ?? graceUs(rate, jobs)]
        const ask: SlotAsk = { key: undefined, costUs, burstUs, graceUs: lateUs, how: 'queue' }
        const { kind, inMs } = model.ask(atUs, ask, fresh)
        if (kind === 'given' && !lost) begun.push({ atUs: atUs + inMs * 1000 + late * lateUs, costUs })
      }
      // A µs for each rounded number.
      expect(excessUs(begun, burstUs)).toBeLessThanOrEqual(2 + begun.length)
    }),
    {
      numRuns: 300,
      examples: tooClose.map((asks): [History] => [{ rate: { intervalUs: 1000, burst: 2 }, anyGraceUs: 1000, asks }]),
    },
  )
})

test('a backlog begins as fast as the rate allows, whatever its jobs count', () => {
  fc.assert(
    fc.property(rate, fc.array(cost, { minLength: 1, maxLength: 400 }), (rate, costs) => {
      const [burstUs, model, fresh] = [rate.burst * rate.intervalUs, new SlotModel(RANGE), new Map<string, number>()]
      let [countedUs, ownUs] = [0, 0]
      for (const cost of costs) {
        const jobs = Math.min(cost, rate.burst)
        const [costUs, lateUs] = [jobs * rate.intervalUs, graceUs(rate, jobs)]
        const ask: SlotAsk = { key: undefined, costUs, burstUs, graceUs: lateUs, how: 'keep' }
        const { kind, inMs } = model.ask(1.8e15, ask, fresh)
        if (kind !== 'given') continue
        countedUs += costUs
        expect(inMs * 1000).toBeLessThanOrEqual(Math.max(0, countedUs - burstUs) + 100_000 + ownUs + costs.length)
        // One that is nearly all of a burst takes a hundredth of its own time for its grace.
        if (lateUs > burstUs - costUs) ownUs += costUs / 100
      }
    }),
    { numRuns: 300 },
  )
})

test('a deep backlog gets slot after slot without a gap, in the order in which it asked', async () => {
  const [intervalUs, asks] = [5000, [] as SlotAsk[]]
  for (let n = 0; n < 150; n++) {
    asks.push({ key: 'a', costUs: intervalUs, burstUs: 10 * intervalUs, graceUs: 25_000, how: 'keep' })
  }
  const { told } = await askForSlots(redis.client, limiter, asks, RANGE)

  expect(told.slice(0, 10).map(({ inMs }) => inMs)).toEqual(Array.from({ length: 10 }, () => 0))
  expect(told.slice(10).map(({ inMs }) => inMs)).toEqual(Array.from({ length: 140 }, (_, n) => 25 + 5 * (n + 1)))
})

test('what is further ahead than asked for is not booked, and is told times behind each other', async () => {
  const ask: SlotAsk = { key: 'a', costUs: 60e6, burstUs: 60e6, graceUs: 0, how: 'queue' }
  const first = await askForSlots(redis.client, limiter, [ask, ask, ask], RANGE)
  const gone = { ...ask, costUs: 1, burstUs: 120e6 }
  const second = await askForSlots(redis.client, limiter, [gone], RANGE)

  expect(first.told).toEqual([
    { kind: 'given', inMs: 0 },
    { kind: 'later', inMs: 60_000 },
    { kind: 'later', inMs: 120_000 },
  ])
  // Were the two booked, a burst of two minutes would be spent as well.
  expect(second.told).toEqual([{ kind: 'given', inMs: 0 }])
})

test('where none is near, those that get no slot are told times behind each other however soon the next slot is', async () => {
  const ask: SlotAsk = { key: 'a', costUs: 500_000, burstUs: 500_000, graceUs: 0, how: 'queue' }
  const range = { ...RANGE, nearMs: 0 }
  const { told } = await askForSlots(redis.client, limiter, Array<SlotAsk>(5).fill(ask), range)
  const looks = Array<SlotAsk>(2).fill({ ...ask, how: 'look' })
  const { told: looked } = await askForSlots(redis.client, limiter, looks, range)

  expect(told.map(({ inMs }) => inMs)).toEqual([0, 500, 1000, 1500, 2000])
  expect(looked.map(({ kind }) => kind)).toEqual(['later', 'later'])
  expect((looked[1]?.inMs ?? 0) - (looked[0]?.inMs ?? 0)).toBeCloseTo(500, 1)
  expect(looked[0]?.inMs).toBeGreaterThan(1500)
})

test('times that are told behind each other are kept for as long, and lie at most five minutes behind the slots', async () => {
  const ask: SlotAsk = { key: 'a', costUs: 60e6, burstUs: 60e6, graceUs: 0, how: 'queue' }
  const { told } = await askForSlots(redis.client, limiter, Array<SlotAsk>(10).fill(ask), RANGE)
  const keptMs = await redis.client.pttl(limiterKey(limiter, 'slots', 'a'))

  expect(told.slice(-5).map(({ inMs }) => inMs / 60_000)).toEqual([5, 6, 6, 6, 6])
  expect(keptMs).toBeGreaterThan(6 * 60_000)
})

test('a rate that was made faster does not wait for what the slower one had booked', async () => {
  const hourly: SlotAsk = { key: undefined, costUs: 3600e6, burstUs: 3600e6, graceUs: 0, how: 'keep' }
  await askForSlots(redis.client, limiter, [hourly], RANGE)
  const faster: SlotAsk = { key: undefined, costUs: 1000, burstUs: 5000, graceUs: 0, how: 'keep' }
  const { told } = await askForSlots(redis.client, limiter, [faster], RANGE)

  expect(told[0]?.inMs).toBeLessThanOrEqual(1001)
})

test('times that nobody needs any more go by themselves', async () => {
  const ask: SlotAsk = { key: 'a', costUs: 1000, burstUs: 1000, graceUs: 0, how: 'keep' }
  await askForSlots(redis.client, limiter, [ask], RANGE)
  const leftMs = await redis.client.pttl(limiterKey(limiter, 'slots', 'a'))

  expect(leftMs).toBeGreaterThan(0)
  expect(leftMs).toBeLessThanOrEqual(1002)
})

test('a key that holds something else is said to be unknown, and the others of the call get their answer', async () => {
  await redis.client.rpush(limiterKey(limiter, 'slots', 'a'), 'x')
  await redis.client.set(limiterKey(limiter, 'slots', 'c'), 'x y')
  await redis.client.set(limiterKey(limiter, 'permits', 'a'), 'x')
  const ask: SlotAsk = { key: 'a', costUs: 1000, burstUs: 1000, graceUs: 0, how: 'keep' }
  const slots = await askForSlots(redis.client, limiter, [ask, { ...ask, key: 'b' }, { ...ask, key: 'c' }], RANGE)
  const permit = { key: 'a', most: 1, holder: 'me' }
  const permits = await askForPermits(redis.client, limiter, [permit, { ...permit, key: 'b' }], 1000)

  expect(slots.told.map(({ kind }) => kind)).toEqual(['unknown', 'given', 'unknown'])
  expect(permits).toEqual(['unknown', 'taken'])
})

type PermitStep =
  | { readonly do: 'take' | 'renew' | 'release'; readonly holder: number }
  /** A worker that went away: what it holds is over from now on, as if its lease had passed. */
  | { readonly do: 'lapse'; readonly holder: number }

const permitStep: fc.Arbitrary<PermitStep> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ do: fc.constant('take' as const), holder: fc.nat(7) }) },
  { weight: 5, arbitrary: fc.record({ do: fc.constantFrom('renew', 'release', 'lapse'), holder: fc.nat(7) }) },
)

test('never more permits than there are, whoever takes, renews, gives back or goes away', async () => {
  let run = 0
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 4 }), fc.array(permitStep, { maxLength: 40 }), async (most, steps) => {
      const [place, held] = [{ name: `permits-${run++}` }, new Set<string>()]
      const key = limiterKey(place, 'permits', 'a')
      for (const step of steps) {
        const permit = { limiter: place, key: 'a', holder: `h${step.holder}` }
        const { holder } = permit
        if (step.do === 'take') {
          const expected = held.has(holder) || held.size < most ? 'taken' : 'none'
          const told = await askForPermits(redis.client, place, [{ key: 'a', most, holder }], 60_000)
          expect(told).toEqual([expected])
          if (expected === 'taken') held.add(holder)
        } else if (step.do === 'release') {
          await giveBack(redis.client, [permit])
          held.delete(holder)
        } else if (step.do === 'renew') {
          const gone = await renewHeld(redis.client, [permit], 60_000)
          // One that lapsed may still be there: nobody else took it.
          if (gone.length === 0) held.add(holder)
        } else if (held.delete(holder)) {
          await redis.client.zadd(key, (await serverMs(redis.client)) - 1, holder)
        }
        expect(await redis.client.zcount(key, await serverMs(redis.client), '+inf')).toBe(held.size)
      }
    }),
    { numRuns: 30 },
  )
})

test('the permit of a holder that went away is free again when its lease is over', async () => {
  const ask = { key: undefined, most: 1 }
  await askForPermits(redis.client, limiter, [{ ...ask, holder: 'dead' }], 1000)
  // Longer than any lease, and not for ever.
  const keptMs = await redis.client.pttl(limiterKey(limiter, 'permits', undefined))
  expect(keptMs).toBeGreaterThan(24 * 3_600_000)

  expect(await askForPermits(redis.client, limiter, [{ ...ask, holder: 'next' }], 200)).toEqual(['none'])
  await eventually(async () => {
    expect(await askForPermits(redis.client, limiter, [{ ...ask, holder: 'next' }], 200)).toEqual(['taken'])
  })
})
