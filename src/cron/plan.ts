import { latestTick, nextTick, type Timing } from './timing.ts'

/** What becomes of ticks that nobody fired in time: none, one for all of them, or each. */
export const CATCH_UPS = ['none', 'one', 'all'] as const
export type CatchUp = (typeof CATCH_UPS)[number]

/** A tick while the job of the one before has not ended: fired all the same, left out, or kept until that job has ended. */
export const OVERLAPS = ['allow', 'skip', 'queue-one'] as const
export type Overlap = (typeof OVERLAPS)[number]

export interface Rules {
  readonly overlap: Overlap
  readonly catchUp: CatchUp
  /** A tick that is later than this was missed. */
  readonly graceMs: number
}

export interface Due {
  readonly timing: Timing
  readonly rules: Rules
  /** The tick that it waits for; not behind `nowMs`. */
  readonly dueMs: number
  /** Whether that one waits for the job before it: then it is fired, however late. */
  readonly isHeld: boolean
  readonly nowMs: number
}

export interface Plan {
  /** Ticks to fire, in their order. */
  readonly ticks: readonly number[]
  /** The one to wait for next, which may be over too; undefined if there is none any more. */
  readonly nextMs: number | undefined
  /** Whether ticks were missed that are not fired. */
  readonly hasMissed: boolean
}

/** What is to be done for a schedule that is due; at most `most` ticks of it. Pure. */
export function planTicks(due: Due, most: number): Plan {
  const { timing, dueMs, nowMs } = due
  // What came due while one waited had no place: only one may wait.
  if (due.isHeld) return { ticks: [dueMs], nextMs: nextTick(timing, Math.max(dueMs, nowMs)), hasMissed: false }
  const firstMs = firstToFire(due)
  const ticks: number[] = []
  let nextMs = firstMs
  while (nextMs !== undefined && nextMs <= nowMs && ticks.length < most) {
    ticks.push(nextMs)
    nextMs = nextTick(timing, nextMs)
  }
  return { ticks, nextMs, hasMissed: firstMs !== dueMs }
}

function firstToFire({ timing, rules: { catchUp, graceMs }, dueMs, nowMs }: Due): number | undefined {
  const inTimeMs = nowMs - graceMs
  if (catchUp === 'all' || dueMs >= inTimeMs) return dueMs
  const firstMs = nextTick(timing, inTimeMs - 1)
  if (catchUp === 'none' || (firstMs !== undefined && firstMs <= nowMs)) return firstMs
  return latestTick(timing, dueMs, nowMs)
}
