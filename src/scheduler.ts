import { backoffMs, monotonicMs, sleep } from './clock.ts'
import type { Events } from './events.ts'
import type { Logger } from './logger.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import { SOURCES, type Member, type Source } from './redis/member.ts'
import { promoteDue, type Promoted } from './redis/scheduling.ts'
import type { ServerClock } from './server-clock.ts'

/**
 * Moves jobs to where they run when their time has come: delayed publishes into the stream, the group's retries into its
 * redelivery stream. What is due is decided in Redis, by its clock; here is only decided when to look. One timer stands for
 * the earliest time that anybody told of: the pulse, a retry that was scheduled here, or the last look itself. Any worker of
 * the group may look, any number at once: each job is moved once.
 */
export interface SchedulerDeps {
  readonly connection: Connection
  readonly member: Member
  readonly clock: ServerClock
  readonly counts?: { promoted: number; setAside: number }
  readonly logger: Logger
  readonly events?: Events
  /** Told after each step that moved some: how many, and into what. */
  readonly onPromoted?: (promoted: number, into: Source) => void
}

export interface SchedulerCounts {
  readonly promoted: number
  /** Jobs that cannot be moved: they stay in the set, never due. */
  readonly setAside: number
}

/** What Node's timers can hold; a longer one would fire at once. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1
/** Least time between two looks, so that jobs that are due one after the other move together. */
const SPACING_MS = 10
/** Up to this much later looks a worker that came too late: where many wait for the same jobs, one of them is enough. */
const YIELD_MS = 100
/** Between two steps, so that a million due jobs leave Redis to others too. */
const PAUSE_MS = 1
const BACKOFF_CAP_MS = 2000

export class Scheduler {
  readonly #deps: SchedulerDeps
  readonly #stopped = new AbortController()
  #isStarted = false
  #timer: NodeJS.Timeout | undefined
  /** When to look, and when at the earliest, by the monotonic clock. */
  #lookAtMs = Infinity
  #notBeforeMs = 0
  #pass: Promise<SchedulerCounts> | undefined
  #failures = 0
  /** The fault that was told last, until a look gets through. */
  #lastFault = ''

  constructor(deps: SchedulerDeps) {
    this.#deps = deps
  }

  /** Looks now, and from then on whenever something is due. */
  start(): void {
    this.#isStarted = true
    this.#lookAtMs = 0
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

  /** Moves what is due, until nothing is. A second call while one is under way waits for that one. */
  async runOnce(): Promise<SchedulerCounts> {
    this.#pass ??= this.#promoteAll().finally(() => {
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
      this.#deps.logger.error({ fault }, 'cannot promote scheduled jobs')
    })
  }

  async #promoteAll(): Promise<SchedulerCounts> {
    const wokenAtMs = this.#lookAtMs
    // From here on only what is told meanwhile, and what the looks themselves bring.
    this.#lookAtMs = Infinity
    const { steps, promoted, setAside, firstAsideId, faults } = await this.#stepInTurns()
    const nowMs = monotonicMs()
    for (const step of steps) {
      const after = { wokenAtMs, hasMoved: promoted > 0, chance: Math.random() }
      this.#lookAtMs = Math.min(this.#lookAtMs, nextLookMs(step, after))
    }
    if (setAside > 0) {
      const { stream, group } = this.#deps.member
      const what = { jobs: setAside, firstJobId: firstAsideId }
      this.#deps.logger.error(what, 'scheduled jobs cannot be promoted; they are set aside and never due')
      this.#deps.events?.emit('scheduler:set-aside', { stream, group, count: setAside })
    }
    if (faults.length > 0) {
      this.#lookAtMs = 0
      this.#notBeforeMs = nowMs + backoffMs(this.#failures++, 100, BACKOFF_CAP_MS)
      throw faults[0]
    }
    this.#failures = 0
    this.#lastFault = ''
    this.#notBeforeMs = nowMs + SPACING_MS
    return { promoted, setAside }
  }

  /** Both sets in turns until neither has anything due: a million delayed jobs must not hold up the retries. */
  async #stepInTurns(): Promise<Pass> {
    const latest = new Map<Source, Timed>()
    const broken = new Set<Source>()
    const faults: unknown[] = []
    let [promoted, setAside, more] = [0, 0, true]
    let firstAsideId: string | undefined
    while (more && !this.#stopped.signal.aborted) {
      more = false
      for (const source of SOURCES) {
        if (broken.has(source)) continue
        try {
          const step = await this.#step(source)
          latest.set(source, { ...step, seenAtMs: monotonicMs() })
          promoted += step.promoted
          setAside += step.asideIds.length
          firstAsideId ??= step.asideIds[0]
          more ||= step.more
        } catch (error) {
          broken.add(source)
          latest.delete(source)
          faults.push(error)
        }
      }
      if (more) await sleep(PAUSE_MS, this.#stopped.signal)
    }
    return { steps: [...latest.values()], promoted, setAside, firstAsideId, faults }
  }

  async #step(source: Source): Promise<Promoted> {
    const { connection, member, counts, onPromoted } = this.#deps
    const { stream, group } = member
    const step = await promoteDue(connection.client, { stream, group: source === 0 ? null : group })
    if (counts !== undefined) {
      counts.promoted += step.promoted
      counts.setAside += step.asideIds.length
    }
    if (step.promoted > 0) onPromoted?.(step.promoted, source)
    return step
  }
}

interface Pass extends SchedulerCounts {
  /** The last look at each set, where it got through. */
  readonly steps: readonly Timed[]
  readonly firstAsideId: string | undefined
  readonly faults: readonly unknown[]
}

/** What the server said of its time and the next due time, and when, by the monotonic clock, we had that answer. */
export interface Timed {
  readonly nowMs: number
  readonly nextDueMs: number | undefined
  readonly seenAtMs: number
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
