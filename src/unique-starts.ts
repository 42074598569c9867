import { backoffMs, sleep } from './clock.ts'
import type { Delivery } from './delivery.ts'
import type { UniqueStart } from './redis/unique.ts'

/**
 * Asks Redis before the handler of a unique job is called. One that gave way to another job is not to be started, and what the pulse
 * tells of it may come too late. A key that is held until its job is started is let go of in the same call: another job of the key
 * may be published from then on.
 *
 * What starts in one turn of the event loop travels together, and while one batch is on its way the next one fills. If Redis refuses
 * or is away, it is tried again, with the lease kept, until the run no longer counts: a job that ran while its key said that it had
 * not begun would have swallowed what was published meanwhile, or run beside the one that it gave way to.
 */

/** Jobs per call of the script. */
const BATCH = 200

interface Waiting extends UniqueStart {
  readonly delivery: Delivery
  readonly go: (isCancelled: boolean) => void
}

export class UniqueStarts {
  readonly #ask: (starts: readonly Waiting[]) => Promise<ReadonlySet<Waiting>>
  #waiting: Waiting[] = []
  #running = false

  /** @param ask lets go of keys, and gives those that are cancelled. */
  constructor(ask: (starts: readonly Waiting[]) => Promise<ReadonlySet<Waiting>>) {
    this.#ask = ask
  }

  /**
   * Calls `go` once Redis has said whether it is cancelled, or when the run has been ended. `key`: what it lets go of, if it holds
   * its key only until it is started.
   */
  push(delivery: Delivery, key: string | undefined, go: (isCancelled: boolean) => void): void {
    this.#waiting.push({ delivery, id: delivery.id, key, go })
    if (this.#running) return
    this.#running = true
    setImmediate(() => void this.#run())
  }

  async #run(): Promise<void> {
    for (let tries = 0; this.#waiting.length > 0;) {
      const batch = this.#waiting.slice(0, BATCH)
      const cancelled = await this.#ask(batch).catch(() => undefined)
      const isTold = cancelled !== undefined
      const done = new Set(isTold ? batch : this.#waiting.filter(({ delivery }) => delivery.ended !== undefined))
      this.#waiting = this.#waiting.filter((one) => !done.has(one))
      for (const one of done) one.go(cancelled?.has(one) === true)
      tries = isTold ? 0 : tries + 1
      if (!isTold) await sleep(backoffMs(tries - 1, 50, 1000))
    }
    this.#running = false
  }
}
