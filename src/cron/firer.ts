import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { messageOf } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import { fireDue, readDueCron, type CronFiring, type CronOutcome, type CronRow } from '../redis/cron.ts'
import { faultText } from '../redis/faults.ts'
import { nextLookMs, timerMs, type Timed } from '../scheduler.ts'
import type { ServerClock } from '../server-clock.ts'
import { planTicks } from './plan.ts'
import { readTimes } from './schedule.ts'

/**
 * Fires the recurring schedules of a stream when they are due, by the clock of the server. Which ticks those are is worked
 * out here; whether each was fired already is decided in Redis, so any number of workers may look at once. It looks when the
 * pulse has told of a schedule, and then whenever one is due: a stream without any costs it nothing.
 */
export interface CronFirerDeps {
  readonly connection: Connection
  readonly stream: string
  readonly clock: ServerClock
  readonly counts?: CronCounts
  readonly logger: Logger
}

export interface CronCounts {
  /** Jobs published. */
  cronFired: number
  /** Ticks left out, as the job of the one before had not ended. */
  cronSkipped: number
}

/** Schedules that are looked at together. */
const MOST_DUE = 100
/** Ticks of one schedule in one call. */
const MOST_TICKS = 100
/** How often is looked whether a tick that waits may be fired. */
export const HELD_MS = 1000
/** Between two steps, so that many due schedules leave Redis to others too. */
const PAUSE_MS = 1
const SPACING_MS = 10
const BACKOFF_CAP_MS = 2000

export class CronFirer {
  readonly #deps: CronFirerDeps
  readonly #stopped = new AbortController()
  #isStarted = false
  #timer: NodeJS.Timeout | undefined
  /** When to look, and when at the earliest, by the monotonic clock. */
  #lookAtMs = Infinity
  #notBeforeMs = 0
  #pass: Promise<CronCounts> | undefined
  #failures = 0
  #lastFault = ''

  constructor(deps: CronFirerDeps) {
    this.#deps = deps
  }

  start(): void {
    this.#isStarted = true
    this.#arm()
  }

  /** A schedule is to be looked at at `dueMs`, in ms since the epoch by the server's clock. */
  note(dueMs: number): void {
    const nowMs = monotonicMs()
    const atMs = nowMs + dueMs - this.#deps.clock.at(nowMs)
    if (!(atMs < this.#lookAtMs)) return
    this.#lookAtMs = atMs
    this.#arm()
  }

  /** Fires what is due, until nothing is. A second call while one is under way waits for that one. */
  async runOnce(): Promise<CronCounts> {
    this.#pass ??= this.#fireAll().finally(() => {
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
      this.#deps.logger.error({ fault }, 'cannot fire recurring schedules')
    })
  }

  async #fireAll(): Promise<CronCounts> {
    const wokenAtMs = this.#lookAtMs
    this.#lookAtMs = Infinity
    const sum = { cronFired: 0, cronSkipped: 0 }
    try {
      const latest = await this.#stepOn(sum)
      const after = { wokenAtMs, hasMoved: sum.cronFired > 0, chance: Math.random() }
      if (latest !== undefined) this.#lookAtMs = Math.min(this.#lookAtMs, nextLookMs(latest, after))
    } catch (error) {
      this.#lookAtMs = 0
      this.#notBeforeMs = monotonicMs() + backoffMs(this.#failures++, 100, BACKOFF_CAP_MS)
      throw error
    }
    this.#failures = 0
    this.#lastFault = ''
    this.#notBeforeMs = monotonicMs() + SPACING_MS
    return sum
  }

  /** Step by step until nothing is due. Gives what the last look told of the next one. */
  async #stepOn(sum: CronCounts): Promise<Timed | undefined> {
    const { connection, stream } = this.#deps
    while (!this.#stopped.signal.aborted) {
      const seen = await readDueCron(connection.client, stream, MOST_DUE)
      if (seen.rows.length === 0) return timed(seen)
      const planned = seen.rows.map((row) => planOf(row, seen.nowMs))
      const fired = await fireDue(connection.client, stream, planned, HELD_MS)
      for (const [at, outcome] of fired.outcomes.entries()) this.#tell(planned[at], outcome, sum)
      if (fired.nextLookMs === undefined || fired.nextLookMs > fired.nowMs) return timed(fired)
      await sleep(PAUSE_MS, this.#stopped.signal)
    }
    return undefined
  }

  #tell(planned: Planned | undefined, outcome: CronOutcome, sum: CronCounts): void {
    const { counts, logger } = this.#deps
    const { name: schedule, dueMs, fault, hasMissed } = planned ?? {}
    if (outcome === 'gone') return
    if (outcome === 'aside') {
      logger.error(
        { schedule, fault },
        'a schedule cannot be fired; it is set aside, and never due until it is set again',
      )
      return
    }
    for (const to of counts === undefined ? [sum] : [sum, counts]) {
      to.cronFired += outcome.fired
      to.cronSkipped += outcome.skipped
    }
    if (hasMissed === true)
      logger.warn({ schedule, since: instantText(dueMs ?? 0) }, 'ticks were missed that are not fired')
  }
}

interface Planned extends CronFiring {
  readonly hasMissed: boolean
  /** Why nothing could be worked out. */
  readonly fault?: string
}

/** A schedule for which nothing can be worked out is set aside: those behind it must go on. */
function planOf(row: CronRow, nowMs: number): Planned {
  const { name, state } = row
  const firing = { name, version: state?.version ?? '', dueMs: state?.dueMs ?? 0, overlap: 'allow' }
  try {
    const times = readTimes(row)
    if (times === undefined || state?.dueMs === undefined)
      throw new Error('what it says of its times is not to be read')
    const { dueMs, isHeld } = state
    return { ...firing, overlap: times.rules.overlap, ...planTicks({ ...times, dueMs, isHeld, nowMs }, MOST_TICKS) }
  } catch (error) {
    return { ...firing, ticks: undefined, nextMs: undefined, hasMissed: false, fault: messageOf(error) }
  }
}

function timed({ nowMs, nextLookMs: nextDueMs }: { nowMs: number; nextLookMs: number | undefined }): Timed {
  return { nowMs, nextDueMs, seenAtMs: monotonicMs() }
}

function instantText(ms: number): string {
  return new Date(ms).toISOString()
}
