import { backoffMs, monotonicMs, sleep } from './clock.ts'
import type { Delivery } from './delivery.ts'
import type { Logger } from './logger.ts'
import { faultText } from './redis/faults.ts'
import type { StartsTold, UniqueStart } from './redis/unique.ts'

/**
 * Asks Redis before the handler of a unique job is called. One that gave way to another job is not to be started, and what the pulse
 * tells of it may come too late. A key that is held until its job is started is let go of in the same call: another job of the key
 * may be published from then on.
 *
 * What starts in one turn of the event loop travels together, and while one batch is on its way the next one fills. If Redis refuses
 * or is away, it is tried again, with the lease kept, until the run no longer counts: a job that ran while its key said that it had
 * not begun would have swallowed what was published meanwhile, or run beside the one that it gave way to.
 *
 * A job can give way only before it is delivered. So where Redis said that no job at all is noted, it has said so of all that this
 * worker had by then: on a stream on which nothing is replaced or cancelled that is one call for what a read brings.
 */

/** Jobs per call of the script. */
const BATCH = 200

interface Waiting extends UniqueStart {
  readonly delivery: Delivery
  readonly go: (isCancelled: boolean) => void
}

type Ask = (starts: readonly Waiting[]) => Promise<StartsTold<Waiting>>

export class UniqueStarts {
  readonly #ask: Ask
  readonly #logger: Logger
  #waiting: Waiting[] = []
  #running = false
  /** What this worker took until then, by the monotonic clock, has given way to nothing. */
  #clearUntilMs = -Infinity

  /** @param ask lets go of keys, and tells who is cancelled. */
  constructor(ask: Ask, logger: Logger) {
    this.#ask = ask
    this.#logger = logger
  }

  /**
   * Calls `go`, at once or once Redis has said whether the job is cancelled, or when the run has been ended. `key`: what it lets go
   * of, if it holds its key only until it is started.
   */
  push(delivery: Delivery, key: string | undefined, go: (isCancelled: boolean) => void): void {
    if (key === undefined && delivery.heldAtMs <= this.#clearUntilMs) return go(false)
    this.#waiting.push({ delivery, id: delivery.id, key, go })
    if (this.#running) return
    this.#running = true
    setImmediate(() => void this.#run())
  }

  async #run(): Promise<void> {
    for (let tries = 0; this.#waiting.length > 0;) {
      const batch = this.#waiting.slice(0, BATCH)
      const askedAtMs = monotonicMs()
      const told = await this.#ask(batch).catch((error: unknown) => this.#failed(error, tries))
      if (told?.hasNotes === false) this.#clearUntilMs = askedAtMs
      const done = new Set(told ? batch : this.#waiting.filter(({ delivery }) => delivery.ended !== undefined))
      this.#waiting = this.#waiting.filter((one) => !done.has(one))
      for (const one of done) one.go(told?.cancelled.has(one) === true)
      tries = told ? 0 : tries + 1
      if (!told) await sleep(backoffMs(tries - 1, 50, 1000))
    }
    this.#running = false
  }

  /** It is said once until it works again: a right that is missing would hold such jobs up in silence. */
  #failed(error: unknown, tries: number): undefined {
    if (tries > 0) return
    this.#logger.warn({ fault: faultText(error) }, 'cannot ask now whether unique jobs may start; they wait')
  }
}
