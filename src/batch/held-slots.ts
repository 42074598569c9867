/** What waits for a batch. */
export interface Waits {
  /** Jobs that wait, each in a slot. */
  readonly waiting: number
  /** Since when the oldest of them does, by the monotonic clock. */
  readonly sinceMs: number
  /** Gives them to their function. */
  go(): void
}

/**
 * Slots of a worker, or of one of its streams, and those of them that jobs wait in for their batch. Where they are all held so,
 * nothing runs that would end and let another job come: whoever waits for one would wait in vain.
 */
export class HeldSlots {
  total: number
  held = 0
  readonly #waits: Waits[] = []

  constructor(total: number) {
    this.total = total
  }

  add(waits: Waits): void {
    this.#waits.push(waits)
  }

  /** Where no more can come, the batch goes that has waited longest. */
  release(): void {
    if (this.held < this.total) return
    let oldest: Waits | undefined
    for (const one of this.#waits) {
      if (one.waiting > 0 && one.sinceMs < (oldest?.sinceMs ?? Infinity)) oldest = one
    }
    oldest?.go()
  }
}
