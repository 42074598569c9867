import { backoffMs, sleep } from './clock.ts'
import type { Delivery } from './delivery.ts'
import type { StartedKey } from './redis/unique.ts'

/**
 * Lets go of uniqueness keys that are held until their job is started, before its handler is called: another job of the key may
 * be published from then on. What starts in one turn of the event loop travels together, and while one batch is on its way the
 * next one fills. If Redis refuses or is away, it is tried again, with the lease kept, until the run no longer counts: a job that
 * ran while its key said that it had not begun would have swallowed what was published meanwhile.
 */

/** Keys per call of the script. */
const BATCH = 200

interface Waiting {
  readonly delivery: Delivery
  readonly key: string
  readonly go: () => void
}

export class UniqueStarts {
  readonly #release: (keys: readonly StartedKey[]) => Promise<void>
  #waiting: Waiting[] = []
  #running = false

  constructor(release: (keys: readonly StartedKey[]) => Promise<void>) {
    this.#release = release
  }

  /** Calls `go` once the key is free, or the run has been ended. */
  push(delivery: Delivery, key: string, go: () => void): void {
    this.#waiting.push({ delivery, key, go })
    if (this.#running) return
    this.#running = true
    setImmediate(() => void this.#run())
  }

  async #run(): Promise<void> {
    for (let tries = 0; this.#waiting.length > 0;) {
      const batch = this.#waiting.slice(0, BATCH)
      const isFree = await this.#release(batch.map(({ delivery, key }) => ({ id: delivery.id, key }))).then(
        () => true,
        () => false,
      )
      const done = new Set(isFree ? batch : this.#waiting.filter(({ delivery }) => delivery.ended !== undefined))
      this.#waiting = this.#waiting.filter((one) => !done.has(one))
      for (const { go } of done) go()
      tries = isFree ? 0 : tries + 1
      if (!isFree) await sleep(backoffMs(tries - 1, 50, 1000))
    }
    this.#running = false
  }
}
