import fc from 'fast-check'
import { expect, test } from 'vitest'
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

test('Redis gives the slots that the model gives, whatever is asked in whatever batches', async () => {
  let run = 0
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(askOf, { minLength: 1, maxLength: 30 }), { maxLength: 6 }), async (batches) => {
      const [place, model] = [{ name: `run-${run++}` }, new SlotModel(RANGE)]
      for (const asks of batches) {
        const { serverMs: atMs, told } = await askForSlots(redis.client, place, asks, RANGE)
        const expected = asks.map((ask) => model.ask(Math.round(atMs * 1000), ask))
        expect(told.map(({ kind }) => kind)).toEqual(expected.map(({ kind }) => kind))
        told.forEach(({ inMs }, at) => expect(inMs).toBeCloseTo(expected[at]?.inMs ?? -1, 1))
      }
    }),
    { numRuns: 40 },
  )
})

/** A rate, and what becomes of it: when somebody asks (µs after the one before), what for, and how late the job then begins. */
const history = fc.record({
  intervalUs: fc.constantFrom(200, 1000, 10_000, 1e6 / 3, 60e6),
  burst: fc.integer({ min: 2, max: 50 }),
  asks: fc.array(
    fc.record({
      afterUs: fc.oneof(fc.constant(0), fc.integer({ max: 2000, min: 0 }), fc.integer({ min: 0, max: 20e6 })),
      cost: fc.oneof(fc.constant(1), fc.double({ min: 0.1, max: 2, noNaN: true })),
      late: fc.double({ min: 0, max: 1, noNaN: true }),
      lost: fc.boolean(),
    }),
    { maxLength: 400 },
  ),
})

test('jobs that begin at their slots, or later within the grace, are within limit and burst in any window', () => {
  fc.assert(
    fc.property(history, ({ intervalUs, burst, asks }) => {
      const [burstUs, model, begun] = [burst * intervalUs, new SlotModel(RANGE), [] as Begun[]]
      const graceUs = Math.min(100_000, burstUs / 2)
      let atUs = 1.8e15
      for (const { afterUs, cost, late, lost } of asks) {
        atUs += afterUs
        const costUs = cost * intervalUs
        const { kind, inMs } = model.ask(atUs, { key: undefined, costUs, burstUs, graceUs, how: 'queue' })
        if (kind === 'given' && !lost) begun.push({ atUs: atUs + inMs * 1000 + late * graceUs, costUs })
      }
      // A µs for each rounded number.
      expect(excessUs(begun, burstUs)).toBeLessThanOrEqual(2 + begun.length)
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
