import { monotonicMs } from '../clock.ts'

/**
 * Where a limit holds for all jobs of a worker, reading ahead of it would bring in jobs that can only wait: a backlog of a million would be
 * moved through the scheduled set. So no more is read than can begin within about a second, and nothing while what was read
 * last waits for longer.
 *
 * How much that is depends on how many workers share the limit, and nobody knows that: it is found by how long the jobs of
 * the last read have to wait.
 */

/** What was read is to begin within this. */
const AHEAD_MS = 300
/** Even for a very slow limit: it may be made faster, or Redis may forget it. */
const CLOSED_MOST_MS = 60_000

export class Gate {
  readonly #most: number
  readonly #onOpen: () => void
  #room: number
  #closedUntilMs = 0
  #timer: NodeJS.Timeout | undefined
  #waiting = 0

  /** @param perSecond how many jobs of the usual cost its rates let begin in a second. */
  constructor(perSecond: number, onOpen: () => void) {
    this.#most = Math.max(1, Math.ceil(perSecond))
    this.#room = Math.max(1, Math.ceil(this.#most / 4))
    this.#onOpen = onOpen
  }

  /** How many jobs to read now at most. */
  get room(): number {
    return this.#waiting > 0 || monotonicMs() < this.#closedUntilMs ? 0 : Math.floor(this.#room)
  }

  /** A job that was read begins in so long; or not here (`isAway`). */
  told(inMs: number, isAway: boolean): void {
    if (isAway) this.#room = Math.max(1, this.#room / 2)
    else if (inMs < AHEAD_MS) this.#room = Math.min(this.#most, this.#room + 0.25)
    if (inMs <= AHEAD_MS) return
    const untilMs = monotonicMs() + Math.min(CLOSED_MOST_MS, inMs - AHEAD_MS)
    if (untilMs <= this.#closedUntilMs) return
    this.#closedUntilMs = untilMs
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#onOpen(), Math.ceil(untilMs - monotonicMs()))
  }

  /** A job waits here for a permit, or no more. */
  waits(isWaiting: boolean): void {
    this.#waiting += isWaiting ? 1 : -1
    if (this.#waiting === 0) this.#onOpen()
  }

  stop(): void {
    clearTimeout(this.#timer)
  }
}
