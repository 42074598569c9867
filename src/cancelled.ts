/**
 * The jobs that were cancelled before they ran here, as far as this worker was told: each pulse brings what is new. Bounded,
 * since it is kept for as long as the worker lives; what is forgotten was cancelled longest ago, and has long met its end.
 */
export class Cancelled {
  readonly #ids = new Set<string>()
  readonly #most: number

  constructor(most = 200_000) {
    this.#most = most
  }

  /** Asked once a job: with none cancelled it costs a look at a number. */
  has(id: string): boolean {
    return this.#ids.size > 0 && this.#ids.has(id)
  }

  add(ids: readonly string[]): void {
    for (const id of ids) this.#ids.add(id)
    for (const oldest of this.#ids) {
      if (this.#ids.size <= this.#most) break
      this.#ids.delete(oldest)
    }
  }
}
