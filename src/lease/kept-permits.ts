import type { Connection } from '../redis/connection.ts'
import { giveBack, inBatches, permitId, renewHeld, type Permit } from '../redis/limiting.ts'
import type { HeldRow } from './table.ts'

/**
 * The permits that a keeper renews: a copy of what the main thread holds, which tells what it took and gave back. It is in
 * the keeper's thread, so that a handler which blocks the event loop keeps its permit as it keeps its lease.
 */
export class KeptPermits {
  readonly #held = new Map<string, Permit>()

  constructor(held: Iterable<Permit>) {
    this.change({ taken: [...held], given: [] })
  }

  change({ taken, given }: PermitChange): void {
    for (const permit of taken) this.#held.set(permitId(permit), permit)
    for (const permit of given) this.#held.delete(permitId(permit))
  }

  /**
   * One round of renewals. A limiter that cannot be renewed must not cost the others theirs.
   *
   * @returns those that Redis does not know any more, and the first fault, if there was any.
   */
  async renew({ client }: Connection, leaseMs: number): Promise<{ gone: Permit[]; fault: unknown }> {
    const batches = inBatches(this.#held.values())
    // At once: where Redis does not answer, the next round must not wait for each of them.
    const rounds = await Promise.allSettled(batches.map((batch) => renewHeld(client, batch, leaseMs)))
    const gone = rounds.flatMap((round) => (round.status === 'fulfilled' ? round.value : []))
    return { gone, fault: rounds.find((round) => round.status === 'rejected')?.reason }
  }

  /** Jobs that only waited here were handed back: what they held is free. */
  async handedBack({ client }: Connection, jobs: readonly Pick<HeldRow, 'source' | 'id'>[]): Promise<void> {
    if (this.#held.size === 0) return
    const ends = new Set(jobs.map(({ source, id }) => `${source} ${id}`))
    const given = [...this.#held.values()].filter(({ holder }) => ends.has(holder.split(' ').slice(-2).join(' ')))
    this.change({ taken: [], given })
    // If this fails, nobody renews them any more and they are over a lease later.
    for (const batch of inBatches(given)) await giveBack(client, batch)
  }
}

/** What was taken and given back since the keeper was last told. Plain data: it crosses a thread boundary. */
export interface PermitChange {
  readonly taken: readonly Permit[]
  readonly given: readonly Permit[]
}

/** Who holds permits, in the main thread. */
export interface PermitHolder {
  /** All of them now. */
  readonly held: Iterable<Permit>
  /** Hears of every change from now on. */
  onChange: (change: PermitChange) => void
  /** Redis does not know these any more, though they may still be held. */
  lost(permits: readonly Permit[]): void
}
