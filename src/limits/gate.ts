import { monotonicMs } from '../clock.ts'

/**
 * Where a limit holds for all jobs of a worker, reading ahead of it would bring in jobs that can only wait: a backlog of a million would be
 * moved through the scheduled set. So no more is read than can begin within about a second, and nothing while what was read
 * last waits for longer.
 *
 * How much that is depends on how many workers share the limit, and nobody knows that: it is found by how long the jobs of
 * the last read have to wait.
 *
 * Nor is more read than finds a slot of the worker when its time has come: those that are free, and those that become so
 * meanwhile. What has passed and finds none misses its time, which is lost to the limit, and asks for another.
 */

/** What was read is to begin within this. */
const AHEAD_MS = 300
/** Even for a very slow limit: it may be made faster, or Redis may forget it. */
const CLOSED_MOST_MS = 60_000
/** What jobs wait for beside their time: the way to Redis and back. */
const ASKING_MS = 50
/** How fast jobs begin is looked at over so long. */
const PACE_MS = 1000

export class Gate {
  readonly #most: number
  readonly #onOpen: () => void
  #room: number
  #closedUntilMs = 0
  #timer: NodeJS.Timeout | undefined
  #waiting = 0
  /** How long jobs were told to wait, of late. */
  #usualMs = 0
  #begun = 0
  #perMs = 0
  #pacedAtMs = monotonicMs()

  /** @param perSecond how many jobs of the usual cost its rates let begin in a second. */
  constructor(perSecond: number, onOpen: () => void) {
    this.#most = Math.max(1, Math.ceil(perSecond))
    this.#room = Math.max(1, Math.ceil(this.#most / 4))
    this.#onOpen = onOpen
  }

  /** How many jobs may be with the limiter at most, where so many slots of the worker are free. */
  roomBeside(slots: number): number {
    const nowMs = monotonicMs()
    if (this.#waiting > 0 || nowMs < this.#closedUntilMs) return 0
    // Half of them: if as many were read as begin in the time that jobs wait now, they would wait as long for ever.
    const meanwhile = this.#paceAt(nowMs) * (this.#usualMs / 2 + ASKING_MS)
    return Math.floor(Math.min(this.#room, slots + meanwhile))
  }

  /** A job under this limit has begun. */
  begun(): void {
    this.#begun += 1
  }

  /** A job that was read begins in so long; or not here (`isAway`). */
  told(inMs: number, isAway: boolean): void {
    this.#usualMs += (Math.min(inMs, PACE_MS) - this.#usualMs) / 16
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

  #paceAt(nowMs: number): number {
    const elapsedMs = nowMs - this.#pacedAtMs
    if (elapsedMs < 1) return this.#perMs
    this.#perMs += (this.#begun / elapsedMs - this.#perMs) * Math.min(1, elapsedMs / PACE_MS)
    this.#begun = 0
    this.#pacedAtMs = nowMs
    return this.#perMs
  }
}
