import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Pace } from '../src/pace.ts'

/** How many are done in ten seconds, where every portion is late and its answer takes its time. */
function doneInTenSeconds(perSecond: number, { most, lateMs }: { most: number; lateMs: number }): number {
  const pace = new Pace(perSecond)
  const portion = pace.portionWithin(most)
  let [nowMs, done] = [0, 0]
  for (;;) {
    const waitMs = pace.waitMs(portion, nowMs)
    nowMs += waitMs === 0 ? 0 : waitMs + lateMs
    if (nowMs >= 10_000) return done
    const sentMs = nowMs
    nowMs += 2
    done += portion
    pace.note(portion, { sentMs, answeredMs: nowMs })
  }
}

describe('a pace', () => {
  test.each([10, 11, 19, 33, 101, 500, 2000, 2600, 5000, 8000, 20_000])(
    'of %i a second is kept within 5 % where timers are late',
    (perSecond) => {
      const done = doneInTenSeconds(perSecond, { most: 250, lateMs: 5 })
      expect(done).toBeGreaterThan(9.5 * perSecond)
      expect(done).toBeLessThanOrEqual(10.5 * perSecond)
    },
  )

  test('has portions of a tenth of a second or less, which fill a second', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_000_000 }), fc.integer({ min: 1, max: 500 }), (perSecond, most) => {
        const portion = new Pace(perSecond).portionWithin(most)
        expect(portion).toBeGreaterThanOrEqual(1)
        expect(portion).toBeLessThanOrEqual(Math.min(most, Math.ceil(perSecond / 10)))
        expect(Math.floor(perSecond / portion) * portion).toBeGreaterThanOrEqual(0.98 * perSecond)
      }),
    )
  })
})
