import { monotonicMs, sleep } from '../clock.ts'
import type { Connection } from '../redis/connection.ts'
import { askForPermits, giveBack, inBatches, renewHeld, type Permit } from '../redis/limiting.ts'

/**
 * The permits that this worker holds. They have a lease, as jobs have: renewed every third of it, so that those of a worker
 * that went away are free again when it is over.
 *
 * What could not be given back, since Redis was away, is over a lease later. What Redis has lost while the job runs is taken again
 * though there may be too many then: the job runs, and one more must not begin beside it.
 */

/** More than any limit: for a job that runs already. */
const ANY = 2 ** 31

export class Permits {
  readonly #connection: Connection
  readonly #leaseMs: () => number
  readonly #held = new Set<Permit>()
  readonly #onReleased: (permits: readonly Permit[]) => void
  #leaving: Permit[] = []
  #sent: Promise<unknown> = Promise.resolve()
  #renewing: Promise<void> | undefined
  readonly #stopped = new AbortController()

  /** @param onReleased hears of permits whose giving back is on its way to Redis. */
  constructor(
    { connection, leaseMs }: { connection: Connection; leaseMs: () => number },
    onReleased: (permits: readonly Permit[]) => void,
  ) {
    this.#connection = connection
    this.#leaseMs = leaseMs
    this.#onReleased = onReleased
  }

  get held(): number {
    return this.#held.size
  }

  hold(permit: Permit): void {
    this.#held.add(permit)
    this.#renewing ??= this.#renew()
  }

  /** In one call with what else is given back in this turn of the event loop. */
  release(permits: Iterable<Permit>): void {
    for (const permit of permits) {
      if (!this.#held.delete(permit)) continue
      if (this.#leaving.push(permit) === 1) setImmediate(() => this.#send())
    }
  }

  /** What is given back by then is sent; what runs on keeps its permit until its lease is over. */
  async stop(): Promise<void> {
    this.#send()
    this.#stopped.abort()
    await this.#sent
    await this.#renewing
  }

  /** One round of renewals. @returns how many had been lost. */
  async runOnce(): Promise<number> {
    let lost = 0
    for (const batch of inBatches(this.#held)) {
      const gone = await renewHeld(this.#connection.client, batch, this.#leaseMs())
      const again = gone.filter((permit) => this.#held.has(permit))
      lost += again.length
      const [first] = again
      if (first === undefined) continue
      const asks = again.map(({ key, holder }) => ({ key, holder, most: ANY }))
      await askForPermits(this.#connection.client, first.limiter, asks, this.#leaseMs())
    }
    return lost
  }

  #send(): void {
    const leaving = this.#leaving
    if (leaving.length === 0) return
    this.#leaving = []
    const sent = inBatches(leaving).map((batch) => giveBack(this.#connection.client, batch).catch(() => {}))
    this.#sent = Promise.all([this.#sent, ...sent])
    this.#onReleased(leaving)
  }

  async #renew(): Promise<void> {
    const { signal } = this.#stopped
    let pauseMs = this.#leaseMs() / 3
    for (;;) {
      await sleep(pauseMs, signal)
      if (signal.aborted) return
      const startedMs = monotonicMs()
      try {
        await this.runOnce()
        pauseMs = Math.max(0, this.#leaseMs() / 3 - (monotonicMs() - startedMs))
      } catch {
        // Soon again: Redis is away, and the leases go on.
        pauseMs = Math.min(1000, this.#leaseMs() / 10)
      }
    }
  }
}
