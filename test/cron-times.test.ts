import { CronExpressionParser } from 'cron-parser'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { planAll } from '../src/cron/firer.ts'
import { planTicks, type CatchUp } from '../src/cron/plan.ts'
import { latestTick, nextTick, type Timing } from '../src/cron/timing.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

/** The days on which three zones put their clocks forward and back, and the UTC time at which they do. */
const CHANGES = [
  ['Europe/Berlin', 'spring', '2026-03-29T01:00:00Z'],
  ['Europe/Berlin', 'autumn', '2026-10-25T01:00:00Z'],
  ['America/New_York', 'spring', '2026-03-08T07:00:00Z'],
  ['America/New_York', 'autumn', '2026-11-01T06:00:00Z'],
  ['Pacific/Auckland', 'spring', '2026-09-26T14:00:00Z'],
  ['Pacific/Auckland', 'autumn', '2026-04-04T14:00:00Z'],
] as const

/** All ticks of a range, one after the other. */
function ticksOf(timing: Timing, fromMs: number, toMs: number): number[] {
  const ticks: number[] = []
  for (let at = nextTick(timing, fromMs - 1); at !== undefined && at < toMs; at = nextTick(timing, at)) ticks.push(at)
  return ticks
}

function parserTicks(at: string, zone: string, fromMs: number, toMs: number): number[] {
  const parsed = CronExpressionParser.parse(at, { currentDate: new Date(fromMs - 1), tz: zone })
  const ticks: number[] = []
  for (let tick = parsed.next().getTime(); tick < toMs; tick = parsed.next().getTime()) ticks.push(tick)
  return ticks
}

const instants = (ticks: readonly number[]) => ticks.map((ms) => new Date(ms).toISOString())

describe.each(CHANGES)('in the 24 hours around the change of %s in %s', (zone, season, change) => {
  const [fromMs, toMs] = [Date.parse(change) - DAY_MS / 2, Date.parse(change) + DAY_MS / 2]

  test.each([
    ...['* * * * *', '*/5 * * * *', '0 * * * *', '30 * * * *', '15,45 * * * *', '*/30 * * * * *', '0 */10 * * * *'],
    ...['0 0 * * *', '59 23 * * *', '30 0 * * *', '0 4 * * *', '0 4-6 * * *', '0 12 * * 0', '0 0 * * SUN', '0 0 1 * *'],
    // In autumn these come twice on the clock, and are one tick each.
    ...(season === 'autumn' ? ['30 2 * * *', '0 30 2 * * *', '30 1,2,3 * * *', '0 1-4 * * *', '10 2-3 * * *'] : []),
  ])('the ticks of %j are those of another library', (at) => {
    const ticks = ticksOf({ at, zone }, fromMs, toMs)
    expect(instants(ticks)).toEqual(instants(parserTicks(at, zone, fromMs, toMs)))
  })

  test('wherever it is begun, the next tick is the next of all of them', () => {
    const patterns = ['* * * * *', '30 2 * * *', '0,30 2 * * *', '30 1,2,3 * * *', '*/20 2 * * *', '*/7 1-3 * * * *']
    const all = new Map(patterns.map((at) => [at, ticksOf({ at, zone }, fromMs - DAY_MS, toMs + DAY_MS)]))
    const moment = fc.integer({ min: fromMs, max: toMs - 1 })
    fc.assert(
      fc.property(fc.constantFrom(...patterns), moment, (at, ms) => {
        expect(nextTick({ at, zone }, ms)).toBe(all.get(at)?.find((tick) => tick > ms))
      }),
      { numRuns: 200 },
    )
  })
})

describe('what the clocks skip or show twice', () => {
  const zone = 'Europe/Berlin'
  const on = (at: string, day: string) =>
    instants(ticksOf({ at, zone }, Date.parse(`${day}T00:00:00Z`), Date.parse(`${day}T04:00:00Z`)))

  test.each([
    ['30 2 * * *', ['2026-03-29T01:00:00.000Z']],
    ['0,30 2 * * *', ['2026-03-29T01:00:00.000Z']],
    ['*/20 2 * * *', []],
    ['0 1,2,3 * * *', ['2026-03-29T00:00:00.000Z', '2026-03-29T01:00:00.000Z']],
  ])('of %j: a time in the gap is the first one behind it, once, and steps have none', (at, expected) => {
    expect(on(at, '2026-03-29')).toEqual(expected)
  })

  test.each([
    ['30 2 * * *', ['2026-10-25T00:30:00.000Z']],
    ['0,30 2 * * *', ['2026-10-25T00:00:00.000Z', '2026-10-25T00:30:00.000Z']],
    ['*/30 2 * * *', ['00:00', '00:30', '01:00', '01:30'].map((time) => `2026-10-25T${time}:00.000Z`)],
  ])('of %j: a time that comes twice is one tick, and steps have both', (at, expected) => {
    expect(on(at, '2026-10-25')).toEqual(expected)
  })
})

describe('every so often', () => {
  const timing = fc.record({
    everyMs: fc.integer({ min: 100, max: DAY_MS }),
    startMs: fc.integer({ min: 0, max: 2e12 }),
  })

  test('each tick is a whole number of steps from the start, however late and from wherever it is worked out', () => {
    fc.assert(
      fc.property(timing, fc.integer({ min: 0, max: 2.1e12 }), (one, ms) => {
        const tick = nextTick(one, ms) ?? NaN
        expect((tick - one.startMs) % one.everyMs).toBe(0)
        expect(tick).toBeGreaterThanOrEqual(one.startMs)
        expect(tick).toBeGreaterThan(ms)
        expect(tick - one.everyMs < one.startMs || tick - one.everyMs <= ms).toBe(true)
      }),
    )
  })

  test('there is no tick before the start, and none at the end or behind it', () => {
    const timing = { everyMs: 1000, startMs: 5000, endMs: 8000 }
    expect(ticksOf(timing, 0, 20_000)).toEqual([5000, 6000, 7000])
    expect(nextTick(timing, 7000)).toBeUndefined()
    expect(nextTick({ everyMs: 1000 }, 1500)).toBe(2000)
  })
})

describe('what is fired of ticks that are due', () => {
  const rulesOf = (catchUp: CatchUp, graceMs: number) => ({ overlap: 'allow' as const, catchUp, graceMs })
  const schedule = fc.record({
    timing: fc.oneof(
      fc.record({ everyMs: fc.integer({ min: 1000, max: 50_000 }) }),
      fc.constantFrom<Timing>({ at: '* * * * *', zone: 'UTC' }, { at: '*/7 3 * * * *', zone: 'UTC' }),
    ),
    dueFromMs: fc.integer({ min: 0, max: 5_000_000 }),
    laterMs: fc.integer({ min: 0, max: 20_000_000 }),
    graceMs: fc.integer({ min: 0, max: 300_000 }),
    most: fc.integer({ min: 1, max: 50 }),
  })

  /** Plans again and again, as workers do, until nothing is due. */
  function firedOf(catchUp: CatchUp, { timing, dueFromMs, laterMs, graceMs, most }: Given) {
    const firstMs = nextTick(timing, dueFromMs) ?? NaN
    const nowMs = firstMs + laterMs
    const fired: number[] = []
    let dueMs: number | undefined = firstMs
    for (let calls = 0; dueMs !== undefined && dueMs <= nowMs; calls++) {
      const plan = planTicks({ timing, rules: rulesOf(catchUp, graceMs), dueMs, isHeld: false, nowMs }, most)
      expect(plan.ticks.length).toBeLessThanOrEqual(most)
      fired.push(...plan.ticks)
      dueMs = plan.nextMs
    }
    const all = ticksOf(timing, firstMs, nowMs + 1)
    return { fired, all, inTime: all.filter((tick) => tick >= nowMs - graceMs), nextMs: dueMs, nowMs }
  }
  interface Given {
    timing: Timing
    dueFromMs: number
    laterMs: number
    graceMs: number
    most: number
  }

  const small = (given: Given) => given.laterMs / (given.timing.everyMs ?? 60_000) < 2000

  test.each<[CatchUp, (told: { all: number[]; inTime: number[] }) => number[]]>([
    ['all', ({ all }) => all],
    ['none', ({ inTime }) => inTime],
    ['one', ({ all, inTime }) => (inTime.length > 0 ? inTime : all.slice(-1))],
  ])(
    'with catch-up %s is what a model of it says, and the next tick is the first that is not over',
    (catchUp, model) => {
      fc.assert(
        fc.property(schedule.filter(small), (given) => {
          const { fired, nextMs, nowMs, ...told } = firedOf(catchUp, given)
          expect(fired).toEqual(model(told))
          expect(nextMs).toBe(nextTick(given.timing, nowMs))
        }),
        { numRuns: 60 },
      )
    },
  )

  test('is worked out for no more ticks at once than are fired at once, of those schedules that are due first', () => {
    const startMs = 1_000_000
    const timing = JSON.stringify({ everyMs: 1000, startMs })
    const state = { version: '1', dueMs: startMs, isHeld: false, fired: 0, skipped: 0, lastTickMs: undefined }
    const row = {
      name: 'a',
      timing,
      rules: JSON.stringify(rulesOf('all', 0)),
      state: { ...state, lastJobId: undefined },
    }
    const planned = planAll(Array<typeof row>(100).fill(row), startMs + 200_000)

    expect(planned.map(({ ticks }) => ticks?.length)).toEqual([100, 100, 100, 100, 100])
  })

  test('a tick that waited for the job before it is fired however late, and none of those behind it', () => {
    const due = { timing: { everyMs: 1000 }, rules: rulesOf('none', 0), dueMs: 5000, isHeld: true, nowMs: 9500 }
    expect(planTicks(due, 10)).toEqual({ ticks: [5000], nextMs: 10_000, hasMissed: false })
  })

  test('the last of a year of seconds is found without a look at each', () => {
    const timing = { at: '* * 3 * * *', zone: 'Europe/Berlin' }
    const nowMs = Date.parse('2026-11-22T12:00:00Z')
    const first = nextTick(timing, nowMs - 365 * DAY_MS) ?? NaN
    expect(new Date(latestTick(timing, first, nowMs)).toISOString()).toBe('2026-11-22T02:59:59.000Z')
  })
})
