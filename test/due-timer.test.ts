import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LONGEST_TIMER_MS, nextLookMs, timerMs } from '../src/due-timer.ts'

describe('when to look', () => {
  const time = fc.double({ min: 0, max: 1e13, noNaN: true })

  test('is never so far ahead that a timer would fire at once', () => {
    expect(timerMs(2 ** 31 + 5, 0, 0)).toBe(LONGEST_TIMER_MS)
    expect(timerMs(Infinity, 0, 5)).toBeUndefined()
    fc.assert(
      fc.property(time, time, time, (lookAtMs, notBeforeMs, nowMs) => {
        const ms = timerMs(lookAtMs, notBeforeMs, nowMs) ?? NaN
        expect(Number.isInteger(ms) && ms >= 0 && ms <= LONGEST_TIMER_MS).toBe(true)
      }),
    )
  })

  test('is now exactly when it is time, and after the timer it is, unless that was the longest', () => {
    fc.assert(
      fc.property(time, time, time, (lookAtMs, notBeforeMs, nowMs) => {
        const ms = timerMs(lookAtMs, notBeforeMs, nowMs) ?? NaN
        expect(ms === 0).toBe(Math.max(lookAtMs, notBeforeMs) <= nowMs)
        if (ms < LONGEST_TIMER_MS) expect(timerMs(lookAtMs, notBeforeMs, nowMs + ms + 1)).toBe(0)
        expect(ms).toBeLessThanOrEqual(Math.max(0, Math.max(lookAtMs, notBeforeMs) - nowMs) + 1)
      }),
    )
  })

  test('again is when the next job is due, at most a tenth of a second later where others were faster', () => {
    const looked = fc.record({ nowMs: time, nextDueMs: time, seenAtMs: time })
    const after = fc.record({
      wokenAtMs: time,
      hasMoved: fc.boolean(),
      chance: fc.double({ min: 0, max: 1, noNaN: true }),
    })
    fc.assert(
      fc.property(looked, after, (look, how) => {
        const dueAtMs = look.seenAtMs + look.nextDueMs - look.nowMs
        const atMs = nextLookMs(look, how)
        expect(atMs).toBeGreaterThanOrEqual(dueAtMs)
        expect(atMs).toBeLessThanOrEqual(dueAtMs + 100)
        if (how.hasMoved || how.wokenAtMs === 0 || dueAtMs <= how.wokenAtMs) expect(atMs).toBe(dueAtMs)
        expect(nextLookMs({ ...look, nextDueMs: undefined }, how)).toBe(Infinity)
      }),
    )
  })
})
