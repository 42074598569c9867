import { describe, expect, test } from 'vitest'
import { prepare, type Preparing } from '../src/prepare.ts'
import { decodeJob, encodeJob } from '../src/wire.ts'
import type { Handler } from '../src/job.ts'

const NOW_MS = 1_700_000_000_000
const HOUR_MS = 3_600_000
const handler = { job: { name: 'x' }, run: () => {} } as unknown as Handler

/** What becomes of an entry with these fields behind those of a job. */
function prepared(fields: readonly string[], own: Partial<Preparing> = {}, { nowMs = NOW_MS, chance = 0 } = {}) {
  const decoded = decodeJob('1-1', [...encodeJob('x', '{"n":1}'), ...fields])
  if (decoded.kind === 'suspect') throw new Error('not the data')
  return prepare({ decoded, handler, unknownJobMs: HOUR_MS, ...own }, { nowMs, chance })
}

test('a job with a handler and nothing to check runs with its data', () => {
  expect(prepared([])).toEqual({ kind: 'run', handler, data: { n: 1 } })
})

test('what is no job is dead as malformed', () => {
  expect(prepared(['expires', 'soon'])).toMatchObject({ kind: 'dead', reason: 'malformed' })
})

describe('a deadline', () => {
  test.each([
    [NOW_MS + 1, 'run'],
    [NOW_MS, 'dead'],
    [NOW_MS - 1, 'dead'],
    [0, 'dead'],
  ])('of %i lets a job that starts at 1700000000000 %s', (expires, kind) => {
    expect(prepared(['expires', String(expires)])).toMatchObject({ kind })
  })

  test('says when it was, and counts before all else: nobody needs a handler for what is over', () => {
    const dead = prepared(['expires', '1699999999000'], { handler: undefined })
    expect(dead).toMatchObject({ kind: 'dead', reason: 'expired' })
    expect((dead as unknown as { error: Error }).error.message).toContain('2023-11-14T22:13:19.000Z')
    expect(prepared(['expires', '0'], {}, { nowMs: 999_999_999_999_999 })).toMatchObject({ reason: 'expired' })
    expect(prepared(['expires', '900000000000000'], {}, { nowMs: 999_999_999_999_999 })).toMatchObject({
      reason: 'expired',
    })
  })
})

describe('a job without a handler here', () => {
  const unknown = (waitedMs: number | undefined, unknownJobMs = HOUR_MS, chance = 0) =>
    prepared(
      waitedMs === undefined ? [] : ['waited-since', String(NOW_MS - waitedMs)],
      { handler: undefined, unknownJobMs },
      { chance },
    )

  test.each([
    [undefined, 1000],
    [0, 1000],
    [900, 1000],
    [1000, 1000],
    [2000, 2000],
    [4000, 4000],
    [59_000, 59_000],
    [600_000, 60_000],
    [HOUR_MS - 10, 10],
  ])('that has waited for %s ms waits %i ms more', (waitedMs, delayMs) => {
    expect(unknown(waitedMs)).toMatchObject({
      kind: 'wait',
      delayMs,
      fields: ['waited-since', String(NOW_MS - (waitedMs ?? 0))],
    })
  })

  test('waits by chance up to a fifth less, so that what came together does not come back together', () => {
    expect(unknown(10_000, HOUR_MS, 1)).toMatchObject({ delayMs: 8000 })
    expect(unknown(10_000, HOUR_MS, 0.5)).toMatchObject({ delayMs: 9000 })
  })

  test.each([HOUR_MS, HOUR_MS + 1, 10 * HOUR_MS])('that has waited for %i ms of its hour is dead', (waitedMs) => {
    expect(unknown(waitedMs)).toMatchObject({ kind: 'dead', reason: 'unknown-job' })
  })

  test('is dead at once where it is not to wait', () => {
    expect(unknown(undefined, 0)).toEqual({ kind: 'dead', reason: 'unknown-job', error: expect.any(Error) as Error })
  })

  test.each([
    [[], HOUR_MS, 60_000, 1],
    [['version', '4'], 4000, 4000, 4],
    [['version', 'x'], 1, 1000, 1],
  ])(
    'and with %j is not dead after %i ms if somebody knows it: it waits %i ms more',
    (own, unknownJobMs, delayMs, version) => {
      const fields = [...own, 'waited-since', String(NOW_MS - unknownJobMs)]
      const wait = { kind: 'wait', delayMs, reason: 'unknown-job', fields: fields.slice(-2) }
      expect(prepared(fields, { handler: undefined, unknownJobMs })).toMatchObject({ unlessKnown: { version, wait } })
    },
  )

  test('does not wait for ever because somebody wrote that it began to wait in the future', () => {
    expect(unknown(-10 * HOUR_MS)).toMatchObject({ delayMs: 1000, fields: ['waited-since', String(NOW_MS)] })
  })

  test('that is asked again whenever its wait is over is dead in its time, after a bounded number of waits', () => {
    let [nowMs, waits] = [NOW_MS, 0]
    for (let fields: readonly string[] = []; ; waits++) {
      const next = prepared(fields, { handler: undefined }, { nowMs, chance: (waits % 10) / 10 })
      if (next.kind !== 'wait') break
      fields = next.fields ?? []
      nowMs += next.delayMs
    }
    expect(nowMs).toBe(NOW_MS + HOUR_MS)
    expect(waits).toBeGreaterThan(60)
    expect(waits).toBeLessThan(120)
  })
})
