import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { nextOf, serve, shareOut, yieldTurns, type Sharing } from '../src/shares.ts'

const weights = fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 8 })

function sharers(weights: readonly number[], want = 1): (Sharing & { want: number; isSharing: boolean })[] {
  return weights.map((weight) => ({ weight, deficit: 0, want, isSharing: true }))
}

function start(all: readonly Sharing[]): number {
  const next = nextOf(all)
  serve(all, all[next] as Sharing)
  return next
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

describe('whose turn it is', () => {
  test('each that always has work is within one start of its share at any moment, whatever the weights', () => {
    fc.assert(
      fc.property(weights, fc.integer({ min: 1, max: 400 }), (given, starts) => {
        const all = sharers(given)
        const counts = given.map(() => 0)
        for (let n = 1; n <= starts; n++) {
          const next = start(all)
          counts[next] = (counts[next] ?? 0) + 1
          const off = given.map((weight, at) => Math.abs((counts[at] ?? 0) - (n * weight) / sum(given)))
          if (Math.max(...off) >= 1 + 1e-6) throw new Error(`${n} starts by ${given.join(', ')}: ${counts.join(', ')}`)
        }
      }),
      { numRuns: 200 },
    )
  })

  test('nobody who has work waits for ever, whoever else comes and goes', () => {
    const comings = fc.array(fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }), { minLength: 1, maxLength: 400 })
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 5, maxLength: 5 }),
        comings,
        (given, steps) => {
          const all = sharers(given)
          const last = all[4] as (typeof all)[number]
          let waited = 0
          for (const step of steps) {
            for (const [at, isBusy] of step.entries()) {
              const one = all[at] as (typeof all)[number]
              one.want = isBusy ? 1 : 0
              one.isSharing = isBusy
              if (!isBusy) yieldTurns(all, one, 0)
            }
            waited = start(all) === 4 ? 0 : waited + 1
            // Its share of the sum, and a start of each of the others that was behind.
            if (waited > Math.ceil(sum(given) / last.weight) * 2 + 10) throw new Error(`waited for ${waited} starts`)
          }
        },
      ),
      { numRuns: 200 },
    )
  })

  test('what is idle takes no turns, and saves none up for later', () => {
    const all = sharers([3, 1])
    const [busy, quiet] = all as [Sharing & { want: number }, Sharing & { want: number }]
    quiet.want = 0
    for (let n = 0; n < 1000; n++) {
      expect(start(all)).toBe(0)
      yieldTurns(all, quiet, 0)
    }
    expect(Math.abs(quiet.deficit)).toBeLessThan(1)
    expect(Math.abs(busy.deficit)).toBeLessThan(1)
    quiet.want = 1
    const counts = [0, 0]
    for (let n = 0; n < 8; n++) counts[start(all)]! += 1
    expect(counts).toEqual([6, 2])
  })

  test('who has no more than some to begin keeps its turns for them, and no others', () => {
    const all = sharers([1, 1])
    const [idle, other] = all as [Sharing, Sharing]
    idle.deficit = 3
    other.deficit = -3
    yieldTurns(all, idle, 5)
    expect([idle.deficit, other.deficit]).toEqual([3, -3])
    yieldTurns(all, idle, 2)
    expect([idle.deficit, other.deficit]).toEqual([2, -2])
  })

  test('the sum of what all are behind stays, whoever starts or yields', () => {
    fc.assert(
      fc.property(weights, fc.array(fc.nat({ max: 7 }), { maxLength: 100 }), (given, idle) => {
        const all = sharers(given)
        for (const at of idle) {
          start(all)
          const one = all[at]
          if (one !== undefined && all.length > 1) yieldTurns(all, one, 0)
          expect(sum(all.map(({ deficit }) => deficit))).toBeCloseTo(0, 6)
        }
      }),
    )
  })

  test('of nobody who wants a turn it is nobody’s', () => {
    expect(nextOf([])).toBe(-1)
    expect(nextOf(sharers([1, 2], 0))).toBe(-1)
  })
})

describe('shareOut', () => {
  const asked = fc.array(
    fc.record({
      weight: fc.integer({ min: 1, max: 50 }),
      deficit: fc.double({ min: -2, max: 2, noNaN: true }),
      want: fc.nat({ max: 30 }),
    }),
    { maxLength: 8 },
  )

  test('gives all that is free to those that want it, and nobody more than it wants', () => {
    fc.assert(
      fc.property(fc.nat({ max: 200 }), asked, (free, all) => {
        const before = structuredClone(all)
        const shares = shareOut(free, all)
        expect(shares).toHaveLength(all.length)
        expect(sum(shares)).toBe(Math.min(free, sum(all.map(({ want }) => want))))
        for (const [at, { want }] of all.entries()) expect(shares[at]).toBeLessThanOrEqual(want)
        expect(all).toEqual(before)
      }),
    )
  })

  test('by weight, where all want more than there is', () => {
    expect(shareOut(8, sharers([3, 1], 100))).toEqual([6, 2])
    expect(shareOut(1002, sharers([1000, 1, 1], 2000))).toEqual([1000, 1, 1])
    expect(
      shareOut(1, [
        { weight: 1000, deficit: -0.5, want: 5 },
        { weight: 1, deficit: 0.5, want: 5 },
      ]),
    ).toEqual([0, 1])
  })

  test('what one leaves is the others’', () => {
    expect(
      shareOut(8, [
        { weight: 3, deficit: 0, want: 1 },
        { weight: 1, deficit: 0, want: 100 },
      ]),
    ).toEqual([1, 7])
  })
})
