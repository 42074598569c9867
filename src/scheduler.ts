import { monotonicMs, sleep } from './clock.ts'
import { DueTimer, type Looked, type Timed } from './due-timer.ts'
import type { Events } from './events.ts'
import type { Logger } from './logger.ts'
import type { Connection } from './redis/connection.ts'
import { SOURCES, type Member, type Source } from './redis/member.ts'
import { promoteDue, type Promoted } from './redis/scheduling.ts'
import type { ServerClock } from './server-clock.ts'

/**
 * Moves jobs to where they run when their time has come: delayed publishes into the stream, the group's retries into its
 * redelivery stream. It looks when the pulse, a retry that was scheduled here, or the last look told that something is due. Any worker of
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

/** Between two steps, so that a million due jobs leave Redis to others too. */
const PAUSE_MS = 1

export class Scheduler {
  readonly #deps: SchedulerDeps
  readonly #timer: DueTimer<SchedulerCounts>

  constructor(deps: SchedulerDeps) {
    this.#deps = deps
    const { connection, clock, logger } = deps
    this.#timer = new DueTimer({
      connection,
      clock,
      look: (stopped) => this.#promoteAll(stopped),
      onFault: (fault) => logger.error({ fault }, 'cannot promote scheduled jobs'),
    })
  }

  /** Looks now, and from then on whenever something is due. */
  start(): void {
    this.#timer.start({ isNow: true })
  }

  /** Something is due at `dueMs`, in ms since the epoch by the server's clock. */
  note(dueMs: number): void {
    this.#timer.note(dueMs)
  }

  /** Moves what is due, until nothing is. A second call while one is under way waits for that one. */
  async runOnce(): Promise<SchedulerCounts> {
    return this.#timer.runOnce()
  }

  async stop(): Promise<void> {
    await this.#timer.stop()
  }

  async #promoteAll(stopped: AbortSignal): Promise<Looked<SchedulerCounts>> {
    const { seen, promoted, setAside, firstAsideId, faults } = await this.#stepInTurns(stopped)
    if (setAside > 0) {
      const { stream, group } = this.#deps.member
      const what = { jobs: setAside, firstJobId: firstAsideId }
      this.#deps.logger.error(what, 'scheduled jobs cannot be promoted; they are set aside and never due')
      this.#deps.events?.emit('scheduler:set-aside', { stream, group, count: setAside })
    }
    if (faults.length > 0) throw faults[0]
    return { counts: { promoted, setAside }, hasMoved: promoted > 0, seen }
  }

  /** Both sets in turns until neither has anything due: a million delayed jobs must not hold up the retries. */
  async #stepInTurns(stopped: AbortSignal): Promise<Pass> {
    const latest = new Map<Source, Timed>()
    const broken = new Set<Source>()
    const faults: unknown[] = []
    let [promoted, setAside, more] = [0, 0, true]
    let firstAsideId: string | undefined
    while (more && !stopped.aborted) {
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
      if (more) await sleep(PAUSE_MS, stopped)
    }
    return { seen: [...latest.values()], promoted, setAside, firstAsideId, faults }
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
  readonly seen: readonly Timed[]
  readonly firstAsideId: string | undefined
  readonly faults: readonly unknown[]
}
