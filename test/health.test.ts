import { describe, expect, test } from 'vitest'
import { healthOf, judge, SOUND, unjudged, type Judged, type Look } from '../src/lease/health.ts'

/** The judgement alone, look by look, 250 ms apart. */

const STALL_MS = 300_000
const QUIET: Look = {
  ...{ ticks: 0, reads: 0, renewals: 0, answers: 0, refusals: 0, hasRoom: true, state: 'running' },
  ...{ elapsedMs: 250, probe: undefined, stallMs: STALL_MS, leaseMs: 10_000 },
}

/** What happens by itself every so many ms; 0 is never. */
interface Habit {
  tick?: number
  read?: number
  renew?: number
  answer?: number
  refuse?: number
  /** Redis on a new connection; asked once a second where it is wanted. */
  probe?: 'answered' | 'failed'
}

const HEALTHY: Habit = { tick: 100, read: 5000, renew: 3333, answer: 1000, probe: 'answered' }
const WEDGED: Habit = { ...HEALTHY, read: 0 }
const AWAY: Habit = { tick: 100, probe: 'failed' }

class Course {
  judged: Judged = unjudged({ hasJustJoined: true })
  atMs = 0
  probes = 0
  #look: Look = QUIET

  constructor(look: Partial<Look> = {}) {
    this.#look = { ...QUIET, ...look }
  }

  /** Goes on for `forMs`, and tells when it first was not live and when not ready, from here. */
  live(forMs: number, habit: Habit, look: Partial<Look> = {}): { deadAtMs?: number; unreadyAtMs?: number } {
    const fromMs = this.atMs
    const first: { deadAtMs?: number; unreadyAtMs?: number } = {}
    this.#look = { ...this.#look, ...look }
    while (this.atMs - fromMs < forMs) {
      const step = this.#look.elapsedMs
      this.atMs += step
      const times = (everyMs = 0) =>
        everyMs === 0 ? 0 : Math.floor(this.atMs / everyMs) - Math.floor((this.atMs - step) / everyMs)
      const isAsked = this.judged.wantsProbe && times(1000) > 0
      if (isAsked) this.probes += 1
      this.#look = {
        ...this.#look,
        ticks: this.#look.ticks + times(habit.tick),
        reads: this.#look.reads + times(habit.read),
        renewals: this.#look.renewals + times(habit.renew),
        answers: this.#look.answers + times(habit.answer),
        refusals: this.#look.refusals + times(habit.refuse),
        probe: isAsked ? habit.probe : undefined,
      }
      this.judged = judge(this.judged, this.#look)
      const { live, ready } = healthOf(this.#look.state, this.judged)
      if (!live) first.deadAtMs ??= this.atMs - fromMs
      if (!ready) first.unreadyAtMs ??= this.atMs - fromMs
    }
    return first
  }
}

test('an idle worker is live and ready, and never asks Redis on a new connection', () => {
  const course = new Course()
  expect(course.live(600_000, HEALTHY)).toEqual({})
  expect(course.probes).toBe(0)
})

test('no read for 30 s while Redis answers: not live; live at the first read', () => {
  const course = new Course()
  course.live(20_000, HEALTHY)
  const { deadAtMs } = course.live(40_000, WEDGED)
  expect(deadAtMs).toBeGreaterThanOrEqual(29_750)
  expect(deadAtMs).toBeLessThanOrEqual(31_500)
  expect(course.judged.stuck).toBe('reads')
  course.live(5250, HEALTHY)
  expect(course.judged.stuck).toBe(false)
})

test('a Redis that is away makes a worker not ready within 6 s and never dead, however long', () => {
  const course = new Course()
  course.live(20_000, HEALTHY)
  const { deadAtMs, unreadyAtMs } = course.live(600_000, AWAY)
  expect(deadAtMs).toBeUndefined()
  expect(unreadyAtMs).toBeLessThanOrEqual(6000)
})

test.each([true, false])(
  'a Redis that refuses reads and renewals makes no worker dead (room to read: %s)',
  (hasRoom) => {
    const course = new Course({ hasRoom })
    course.live(20_000, HEALTHY)
    expect(course.live(600_000, { tick: 100, refuse: 1000, probe: 'answered' }).deadAtMs).toBeUndefined()
  },
)

test('after an outage a worker has its whole 30 s from when Redis answers again', () => {
  const course = new Course()
  course.live(20_000, HEALTHY)
  course.live(95_000, AWAY)
  expect(course.live(29_500, WEDGED).deadAtMs).toBeUndefined()
  expect(course.live(3000, WEDGED).deadAtMs).toBeDefined()
})

test('a Redis that goes away while a worker is being suspected, or is already red, turns it green', () => {
  const course = new Course()
  course.live(29_500, WEDGED)
  expect(course.live(60_000, AWAY).deadAtMs).toBeUndefined()
  course.live(40_000, WEDGED)
  expect(course.judged.stuck).toBe('reads')
  course.live(3000, AWAY)
  expect(course.judged.stuck).toBe(false)
})

test('without an answer on a new connection nothing is red, though everything stands still', () => {
  expect(new Course().live(600_000, { tick: 100 }).deadAtMs).toBeUndefined()
})

test('without room to read, renewals are enough; with room again a read has its whole 30 s', () => {
  const course = new Course()
  expect(course.live(600_000, WEDGED, { hasRoom: false })).toEqual({})
  expect(course.probes).toBe(0)
  expect(course.live(29_500, WEDGED, { hasRoom: true }).deadAtMs).toBeUndefined()
  expect(course.live(3000, WEDGED).deadAtMs).toBeDefined()
})

test('without room to read and without renewals for 30 s: not live', () => {
  const course = new Course({ hasRoom: false })
  course.live(20_000, HEALTHY)
  const { deadAtMs } = course.live(40_000, { ...HEALTHY, read: 0, renew: 0 })
  expect(deadAtMs).toBeGreaterThanOrEqual(27_000)
  expect(deadAtMs).toBeLessThanOrEqual(31_500)
  expect(course.judged.stuck).toBe('renewals')
})

test.each([60_000, 600_000, 86_400_000])(
  'under a lease of %i ms, rounds a third of it apart are no sign of trouble',
  (leaseMs) => {
    const course = new Course({ hasRoom: false, leaseMs })
    const forMs = Math.min(10 * leaseMs, 3_600_000)
    expect(course.live(forMs, { ...HEALTHY, read: 0, renew: leaseMs / 3 })).toEqual({})
    expect(course.probes).toBe(0)
  },
)

test('while the event loop stands still only stallMs judges; then a read has its whole 30 s', () => {
  const course = new Course()
  course.live(20_000, HEALTHY)
  const standing = { ...WEDGED, tick: 0 }
  expect(course.live(120_000, standing)).toEqual({})
  expect(course.probes).toBe(0)
  expect(course.live(29_000, WEDGED).deadAtMs).toBeUndefined()
  expect(course.live(4000, WEDGED).deadAtMs).toBeDefined()
})

test('an event loop that has not turned for stallMs is not live, and live again when it turns', () => {
  const course = new Course({ stallMs: 5000 })
  course.live(20_000, HEALTHY)
  const { deadAtMs } = course.live(8000, { ...HEALTHY, tick: 0, read: 0 })
  expect(deadAtMs).toBeGreaterThanOrEqual(5000)
  expect(deadAtMs).toBeLessThanOrEqual(5500)
  expect(course.judged.stalled).toBe(true)
  course.live(250, HEALTHY)
  expect(course.judged.stalled).toBe(false)
})

test('a process that was suspended for an hour is live when it goes on, and ready with the first reply', () => {
  const course = new Course()
  course.live(20_000, HEALTHY)
  const asleep = { ...QUIET, ...course.judged.signs, elapsedMs: 3_600_000 }
  course.judged = judge(course.judged, asleep)
  expect(healthOf('running', course.judged)).toMatchObject({ live: true, ready: false })
  course.live(1250, HEALTHY)
  expect(healthOf('running', course.judged)).toMatchObject({ live: true, ready: true })
})

test('a worker that drains or starts is not asked to read', () => {
  for (const state of ['draining', 'starting'] as const) {
    const course = new Course({ state })
    expect(course.live(120_000, WEDGED).deadAtMs).toBeUndefined()
    expect(course.probes).toBe(0)
  }
})

test('a keeper that replaces another is ready with the first reply, and not before', () => {
  const judged = judge(unjudged({ hasJustJoined: false }), QUIET)
  expect(judged).toMatchObject({ reached: false, wantsProbe: false })
  expect(judge(judged, { ...QUIET, answers: 1 }).reached).toBe(true)
})

describe('what a worker answers', () => {
  test.each(['new', 'starting', 'draining', 'stopped'] as const)('%s: live, not ready', (state) => {
    expect(healthOf(state, SOUND)).toMatchObject({ live: true, ready: false, state, reasons: [expect.any(String)] })
  })

  test('running: both, for no reason', () => {
    expect(healthOf('running', SOUND)).toEqual({ live: true, ready: true, state: 'running', reasons: [] })
  })

  test('out of touch with Redis: live, not ready', () => {
    expect(healthOf('running', { ...SOUND, reached: false })).toMatchObject({ live: true, ready: false })
  })

  test.each([{ stalled: true }, { stuck: 'reads' as const }, { stuck: 'renewals' as const }])(
    '%j: neither',
    (found) => {
      const health = healthOf('running', { ...SOUND, ...found })
      expect(health).toMatchObject({ live: false, ready: false, reasons: [expect.any(String)] })
    },
  )
})
