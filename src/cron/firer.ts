import { monotonicMs, sleep } from '../clock.ts'
import { DueTimer, type Looked, type Timed } from '../due-timer.ts'
import { messageOf } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import { fireDue, readDueCron, type CronFiring, type CronOutcome, type CronRow } from '../redis/cron.ts'
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
/** Ticks of one schedule in one call, and of all of them: so many the script fires. */
const MOST_TICKS = 100
const MOST_IN_CALL = 500
/** How often is looked whether a tick that waits may be fired. */
export const HELD_MS = 1000
/** Between two steps, so that many due schedules leave Redis to others too. */
const PAUSE_MS = 1

export class CronFirer {
  readonly #deps: CronFirerDeps
  readonly #timer: DueTimer<CronCounts>

  constructor(deps: CronFirerDeps) {
    this.#deps = deps
    const { connection, clock, logger } = deps
    this.#timer = new DueTimer({
      connection,
      clock,
      look: (stopped) => this.#fireAll(stopped),
      onFault: (fault) => logger.error({ fault }, 'cannot fire recurring schedules'),
    })
  }

  start(): void {
    this.#timer.start({ isNow: false })
  }

  /** A schedule is to be looked at at `dueMs`, in ms since the epoch by the server's clock. */
  note(dueMs: number): void {
    this.#timer.note(dueMs)
  }

  /** Fires what is due, until nothing is. A second call while one is under way waits for that one. */
  async runOnce(): Promise<CronCounts> {
    return this.#timer.runOnce()
  }

  async stop(): Promise<void> {
    await this.#timer.stop()
  }

  async #fireAll(stopped: AbortSignal): Promise<Looked<CronCounts>> {
    const sum = { cronFired: 0, cronSkipped: 0 }
    const latest = await this.#stepOn(sum, stopped)
    return { counts: sum, hasMoved: sum.cronFired > 0, seen: latest === undefined ? [] : [latest] }
  }

  /** Step by step until nothing is due. Gives what the last look told of the next one. */
  async #stepOn(sum: CronCounts, stopped: AbortSignal): Promise<Timed | undefined> {
    const { connection, stream } = this.#deps
    while (!stopped.aborted) {
      const seen = await readDueCron(connection.client, stream, MOST_DUE)
      if (seen.rows.length === 0) return timed(seen)
      const planned = planAll(seen.rows, seen.nowMs)
      const fired = await fireDue(connection.client, stream, planned, HELD_MS)
      for (const [at, outcome] of fired.outcomes.entries()) this.#tell(planned[at], outcome, sum)
      if (fired.nextLookMs === undefined || fired.nextLookMs > fired.nowMs) return timed(fired)
      await sleep(PAUSE_MS, stopped)
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

/** Those that are due first, and no more of them than are fired at once: to work out a tick takes longer than to fire it. */
export function planAll(rows: readonly CronRow[], nowMs: number): Planned[] {
  const planned: Planned[] = []
  let left = MOST_IN_CALL
  for (const row of rows) {
    if (left === 0) break
    const one = planOf(row, nowMs, Math.min(MOST_TICKS, left))
    left -= one.ticks?.length ?? 0
    planned.push(one)
  }
  return planned
}

/** A schedule for which nothing can be worked out is set aside: those behind it must go on. */
function planOf(row: CronRow, nowMs: number, most: number): Planned {
  const { name, state } = row
  const firing = { name, version: state?.version ?? '', dueMs: state?.dueMs ?? 0, overlap: 'allow' }
  try {
    const times = readTimes(row)
    if (times === undefined || state?.dueMs === undefined)
      throw new Error('what it says of its times is not to be read')
    const { dueMs, isHeld } = state
    return { ...firing, overlap: times.rules.overlap, ...planTicks({ ...times, dueMs, isHeld, nowMs }, most) }
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
