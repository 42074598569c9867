import { monotonicMs } from './clock.ts'

/** How fast jobs end on a worker: what is fetched ahead follows from it. The last 20 ms or so count. */
export class EndRate {
  /** Jobs that have ended since the last look; whoever ends one adds it. */
  ended = 0
  #measuredAtMs = monotonicMs()
  #perMs = 0

  /** As it was at the last look. */
  get perMs(): number {
    return this.#perMs
  }

  measure(): void {
    const nowMs = monotonicMs()
    const elapsedMs = nowMs - this.#measuredAtMs
    if (elapsedMs < 1) return
    const weight = Math.min(1, elapsedMs / 20)
    this.#perMs += (this.ended / elapsedMs - this.#perMs) * weight
    this.ended = 0
    this.#measuredAtMs = nowMs
  }
}
