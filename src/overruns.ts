import { monotonicMs } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import type { Delivery } from './delivery.ts'
import { JobTimeoutError } from './errors.ts'
import { jobEventOf, type Events } from './events.ts'
import type { Holdings } from './holdings.ts'
import type { Logger } from './logger.ts'

/**
 * Runs that take too long. A handler that is not done when its time is over has its signal aborted and its lease no longer
 * renewed: the job runs on another worker. Its slot stays taken until the handler ends, since it still uses what a running
 * handler uses; one that goes on for OVERDUE_MS more is reported.
 */
export interface OverrunsDeps {
  readonly holdings: Holdings
  readonly counts: WorkerCounts
  readonly logger: Logger
  readonly events: Events
}

/** How long a handler may go on after its signal was aborted before it is said not to heed it. */
const OVERDUE_MS = 5000

export class Overruns {
  readonly #deps: OverrunsDeps

  constructor(deps: OverrunsDeps) {
    this.#deps = deps
  }

  /** Ends the runs that are past their time. */
  end(): void {
    const nowMs = monotonicMs()
    for (const delivery of this.#deps.holdings.underWay()) {
      if (delivery.ended !== undefined) this.#sayOverdue(delivery, nowMs)
      else if (nowMs - delivery.startedAtMs >= delivery.timeoutMs) this.#timedOut(delivery)
    }
  }

  /** Runs that go on though their signal was aborted: they hold slots, and nothing comes of it. */
  get overdue(): number {
    return this.#deps.holdings.underWay().filter(({ ended }) => ended !== undefined).length
  }

  #timedOut(delivery: Delivery): void {
    const { stream, id, timeoutMs } = delivery
    this.#deps.counts.timedOut += 1
    delivery.count('timed_out')
    this.#deps.holdings.abandon(delivery)
    delivery.end(new JobTimeoutError(stream, id, timeoutMs))
    const about = { ...jobEventOf(delivery), timeoutMs }
    this.#deps.logger.warn(about, 'job ran out of time: its signal is aborted and its lease no longer renewed')
    this.#deps.events.emit('job:timed-out', about)
  }

  #sayOverdue(delivery: Delivery, nowMs: number): void {
    if (!delivery.becomesOverdue(nowMs, OVERDUE_MS)) return
    const about = { ...jobEventOf(delivery), ranMs: Math.round(nowMs - delivery.startedAtMs) }
    this.#deps.logger.warn(
      { ...about, why: delivery.ended?.message ?? '' },
      'the handler does not heed its aborted signal: its slot stays taken until it ends',
    )
    this.#deps.events.emit('job:overdue', about)
    // It may never end, and a span that does not is never seen.
    delivery.traced?.end('overdue', delivery.ended)
  }
}
