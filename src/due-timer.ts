import { backoffMs, monotonicMs } from './clock.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import type { ServerClock } from './server-clock.ts'

/**
 * Looks when something is due: one timer for the earliest time that anybody told of, be it from outside or by the last look itself. What is
 * due is decided in Redis, by its clock; here is only decided when to look, one look at a time.
 */
export interface DueTimerDeps<Counts> {
  readonly connection: Connection
  readonly clock: ServerClock
  /** Does what is due, until nothing is or `stopped` aborts. */
  readonly look: (stopped: AbortSignal) => Promise<Looked<Counts>>
  /** Told once of a fault that does not go away by itself, until a look gets through. */
  readonly onFault: (fault: string) => void
}

export interface Looked<Counts> {
  readonly counts: Counts
  readonly hasMoved: boolean
  /** What the server said last of each that was looked at. */
  readonly seen: readonly Timed[]
}

/** What the server said of its time and the next due time, and when, by the monotonic clock, we had that answer. */
export interface Timed {
  readonly nowMs: number
  readonly nextDueMs: number | undefined
  readonly seenAtMs: number
}

/** What Node's timers can hold; a longer one would fire at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1
/** Least time between two looks, so that what is due one after the other is done together. */
const SPACING_MS = 10
/** Up to this much later looks a worker that came too late: where many wait for the same jobs, one of them is enough. */
const YIELD_MS = 100
const BACKOFF_CAP_MS = 2000

export class DueTimer<Counts> {
  readonly #deps: DueTimerDeps<Counts>
  readonly #stopped = new AbortController()
  #isStarted = false
  #timer: NodeJS.Timeout | undefined
  /** When to look, and when at the earliest, by the monotonic clock. */
  #lookAtMs = Infinity
  #notBeforeMs = 0
  #pass: Promise<Counts> | undefined
  #failures = 0
  /** The fault that was told last, until a look gets through. */
  #lastFault = ''

  constructor(deps: DueTimerDeps<Counts>) {
    this.#deps = deps
  }

  /** From now on it looks by itself: at what was told, and at once if `isNow`. */
  start({ isNow }: { isNow: boolean }): void {
    this.#isStarted = true
    if (isNow) this.#lookAtMs = 0
    this.#arm()
  }

  /** Something is due at `dueMs`, in ms since the epoch by the server's clock. */
  note(dueMs: number): void {
    const nowMs = monotonicMs()
    const atMs = nowMs + dueMs - this.#deps.clock.at(nowMs)
    if (!(atMs < this.#lookAtMs)) return
    this.#lookAtMs = atMs
    this.#arm()
  }

  /** Looks now. A second call while one is under way waits for that one. */
  async runOnce(): Promise<Counts> {
    this.#pass ??= this.#look().finally(() => {
      this.#pass = undefined
      this.#arm()
    })
    return this.#pass
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    clearTimeout(this.#timer)
    await this.#pass?.catch(() => {})
  }

  #arm(): void {
    if (!this.#isStarted || this.#stopped.signal.aborted || this.#pass !== undefined) return
    clearTimeout(this.#timer)
    const waitMs = timerMs(this.#lookAtMs, this.#notBeforeMs, monotonicMs())
    if (waitMs !== undefined) this.#timer = setTimeout(() => this.#woken(), waitMs)
  }

  #woken(): void {
    if (timerMs(this.#lookAtMs, this.#notBeforeMs, monotonicMs()) !== 0) return this.#arm()
    this.runOnce().catch((error: unknown) => {
      const fault = faultText(error)
      if (this.#deps.connection.fault(error).kind !== 'fatal' || fault === this.#lastFault) return
      this.#lastFault = fault
      this.#deps.onFault(fault)
    })
  }

  async #look(): Promise<Counts> {
    const wokenAtMs = this.#lookAtMs
    // From here on only what is told meanwhile, and what the look itself brings.
    this.#lookAtMs = Infinity
    try {
      const { counts, hasMoved, seen } = await this.#deps.look(this.#stopped.signal)
      for (const one of seen) {
        const after = { wokenAtMs, hasMoved, chance: Math.random() }
        this.#lookAtMs = Math.min(this.#lookAtMs, nextLookMs(one, after))
      }
      this.#failures = 0
      this.#lastFault = ''
      this.#notBeforeMs = monotonicMs() + SPACING_MS
      return counts
    } catch (error) {
      this.#lookAtMs = 0
      this.#notBeforeMs = monotonicMs() + backoffMs(this.#failures++, 100, BACKOFF_CAP_MS)
      throw error
    }
  }
}

/**
 * When to look again after a look, by the monotonic clock: when the next job is due, by what the server said of its time. A
 * worker that was woken for a job and found it gone comes a little later: others were faster, and are likely to be again.
 * `wokenAtMs` is 0 for a look that was for no job.
 */
export function nextLookMs(
  { nextDueMs, nowMs, seenAtMs }: Timed,
  { wokenAtMs, hasMoved, chance }: { wokenAtMs: number; hasMoved: boolean; chance: number },
): number {
  if (nextDueMs === undefined) return Infinity
  const dueAtMs = seenAtMs + nextDueMs - nowMs
  const isGone = !hasMoved && wokenAtMs > 0 && dueAtMs > wokenAtMs + SPACING_MS
  return isGone ? dueAtMs + chance * YIELD_MS : dueAtMs
}

/**
 * How long the timer is set for: until it is time to look but not before `notBeforeMs`, and no longer than a timer can be, in
 * which case it is set again then. 0 is now, undefined never. All are of the monotonic clock.
 */
export function timerMs(lookAtMs: number, notBeforeMs: number, nowMs: number): number | undefined {
  if (lookAtMs === Infinity) return undefined
  return Math.min(LONGEST_TIMER_MS, Math.max(0, Math.ceil(Math.max(lookAtMs, notBeforeMs) - nowMs)))
}
