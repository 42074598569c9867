import type { PermitChange, PermitHolder } from '../lease/kept-permits.ts'
import type { Connection } from '../redis/connection.ts'
import { askForPermits, giveBack, inBatches, permitId, permitKey, type Permit } from '../redis/limiting.ts'

/**
 * The permits that this worker holds. They have a lease, as jobs have, and the lease keeper renews them, which is told of each
 * that is taken and given back: at once, since the next thing in this thread may be a handler that blocks it.
 *
 * What could not be given back, since Redis was away, is over a lease later. What Redis has lost while the job runs is taken again
 * though there may be too many then: the job runs, and one more must not begin beside it.
 */

/** More than any limit: for a job that runs already. */
const ANY = 2 ** 31

export class Permits implements PermitHolder {
  readonly #connection: Connection
  readonly #leaseMs: () => number
  readonly #held = new Map<string, Permit>()
  /** How many of them are of a key. */
  readonly #counts = new Map<string, number>()
  readonly #onReleased: (permits: readonly Permit[]) => void
  onChange: (change: PermitChange) => void = () => {}
  #leaving: Permit[] = []
  #sent: Promise<unknown> = Promise.resolve()

  /** @param onReleased hears of permits whose giving back is on its way to Redis. */
  constructor(
    { connection, leaseMs }: { connection: Connection; leaseMs: () => number },
    onReleased: (permits: readonly Permit[]) => void,
  ) {
    this.#connection = connection
    this.#leaseMs = leaseMs
    this.#onReleased = onReleased
  }

  get held(): Iterable<Permit> {
    return this.#held.values()
  }

  /** How many this worker holds of a limiter's key: where that is all there are, Redis need not be asked, whatever it has lost. */
  countOf(key: string): number {
    return this.#counts.get(key) ?? 0
  }

  hold(permit: Permit): void {
    this.#held.set(permitId(permit), permit)
    this.#count(permit, 1)
    this.onChange({ taken: [permit], given: [] })
  }

  /** In one call with what else is given back in this turn of the event loop. */
  release(permits: Iterable<Permit>): void {
    const given = [...permits].filter((permit) => this.#held.delete(permitId(permit)))
    if (given.length === 0) return
    for (const permit of given) this.#count(permit, -1)
    this.onChange({ taken: [], given })
    if (this.#leaving.length === 0) setImmediate(() => this.#send())
    this.#leaving.push(...given)
  }

  /** What is given back by then is sent; what runs on keeps its permit until its lease is over. */
  async stop(): Promise<void> {
    this.#send()
    await this.#sent
  }

  lost(permits: readonly Permit[]): void {
    const again = permits.filter((permit) => this.#held.has(permitId(permit)))
    for (const batch of inBatches(again)) {
      const [{ limiter }] = batch as [Permit]
      const asks = batch.map(({ key, holder }) => ({ key, holder, most: ANY }))
      // If it fails, the next round of renewals finds them lost again.
      askForPermits(this.#connection.client, limiter, asks, this.#leaseMs()).catch(() => {})
    }
  }

  #count(permit: Permit, more: number): void {
    const key = permitKey(permit)
    const count = this.countOf(key) + more
    if (count > 0) this.#counts.set(key, count)
    else this.#counts.delete(key)
  }

  #send(): void {
    const leaving = this.#leaving
    if (leaving.length === 0) return
    this.#leaving = []
    const sent = inBatches(leaving).map((batch) => giveBack(this.#connection.client, batch).catch(() => {}))
    // To nothing: what it resolves to would hold what the one before resolved to, and that the one before it.
    this.#sent = Promise.all([this.#sent, ...sent]).then(() => undefined)
    this.#onReleased(leaving)
  }
}
