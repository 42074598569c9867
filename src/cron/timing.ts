import { compiled } from './pattern.ts'

/**
 * When a recurring schedule is due. A tick is a moment at which it is; which those are follows from the schedule alone, and
 * from no clock: whoever works them out, and however late, finds the same ones. Pure.
 */
export interface Timing {
  /** Five or six fields, read in `zone`. */
  readonly at?: string
  /** An IANA name. */
  readonly zone?: string
  /** Instead of `at`: a tick every so many ms, counted from `startMs`, or from the epoch where there is none. */
  readonly everyMs?: number
  /** No tick before it. */
  readonly startMs?: number
  /** No tick from then on. */
  readonly endMs?: number
}

/** The first tick behind a moment, in ms since the epoch; undefined if there is none any more. */
export function nextTick(timing: Timing, afterMs: number): number | undefined {
  const { startMs, endMs = Infinity } = timing
  const fromMs = startMs === undefined ? afterMs : Math.max(afterMs, startMs - 1)
  const tickMs =
    timing.everyMs === undefined ? nextMatch(timing, fromMs) : nextStep(timing.everyMs, startMs ?? 0, fromMs)
  return tickMs === undefined || tickMs >= endMs ? undefined : tickMs
}

/** The last tick that is not behind `nowMs`; `tickMs` is one of those. */
export function latestTick(timing: Timing, tickMs: number, nowMs: number): number {
  let [low, high] = [tickMs, nowMs]
  // The later one looks from, the later what comes next: halved until what is found is the last.
  while (low < high) {
    const middle = low + Math.floor((high - low) / 2)
    const next = nextTick(timing, middle)
    if (next === undefined || next > nowMs) high = middle
    else low = next
  }
  return low
}

function nextStep(everyMs: number, anchorMs: number, afterMs: number): number {
  return anchorMs + Math.max(0, Math.floor((afterMs - anchorMs) / everyMs) + 1) * everyMs
}

function nextMatch({ at = '', zone = UTC }: Timing, afterMs: number): number | undefined {
  return compiled(at, zone).next(afterMs)
}

const UTC = 'UTC'
