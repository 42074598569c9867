/** Counts handler calls, and knows when the first timed one came and when the last one has come. */
export class Tally {
  calls = 0
  startedAtMs = 0
  readonly #firstTimed: number
  readonly #last: number
  readonly #onLast: () => void
  readonly done: Promise<void>

  /** @param skip calls of the warm-up, before the timed ones */
  constructor({ skip, timed }: { skip: number; timed: number }) {
    this.#firstTimed = skip + 1
    this.#last = skip + timed
    let onLast = () => {}
    this.done = new Promise((resolve) => (onLast = resolve))
    this.#onLast = onLast
  }

  hit(): void {
    this.calls += 1
    if (this.calls === this.#firstTimed) this.startedAtMs = performance.now()
    if (this.calls === this.#last) this.#onLast()
  }
}
