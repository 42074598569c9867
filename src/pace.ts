/**
 * How fast something may be done that others must cope with: never more than `perSecond` in any second, in small portions
 * that are spread over it. Pure but for what it remembers; times come from the caller, by a clock that does not jump.
 *
 * What was done is noted when its answer came, which is after it happened; the next portion happens after it is asked for.
 * So the guarantee holds where the work is done, however long commands and answers travel.
 */
export class Pace {
  readonly #perSecond: number
  #done: { atMs: number; count: number }[] = []
  #nextMs = -Infinity

  constructor(perSecond: number) {
    this.#perSecond = perSecond
  }

  /** How many to do at once, at most. */
  get portion(): number {
    return this.portionWithin(Infinity)
  }

  /** The same, no more than `most`: of a size that fills a second, since none is cut. Of 11 a second two at once would make 10. */
  portionWithin(most: number): number {
    let portion = Math.min(most, Math.ceil(this.#perSecond / 10))
    while (portion > 1 && Math.floor(this.#perSecond / portion) * portion < FILLED * this.#perSecond) portion -= 1
    return portion
  }

  /** How long to wait from now on before `count` more may be done, in ms; `count` is not more than a portion. */
  waitMs(count: number, nowMs: number): number {
    this.#done = this.#done.filter(({ atMs }) => atMs > nowMs - SECOND_MS)
    let inWindow = this.#done.reduce((sum, { count: done }) => sum + done, 0)
    let readyMs = this.#nextMs
    for (const { atMs, count: done } of this.#done) {
      if (inWindow + count <= this.#perSecond) break
      readyMs = Math.max(readyMs, atMs + SECOND_MS)
      inWindow -= done
    }
    return Math.max(0, readyMs - nowMs)
  }

  /** `count` were done between `sentMs` and `answeredMs`. */
  note(count: number, { sentMs, answeredMs }: { sentMs: number; answeredMs: number }): void {
    if (count === 0) return
    this.#done.push({ atMs: answeredMs, count })
    // From when it was to be done, not from when it was: timers are late, and what is late each time adds up.
    const plannedMs = Math.max(this.#nextMs, sentMs - LATE_MS)
    this.#nextMs = (this.#nextMs === -Infinity ? sentMs : plannedMs) + (count * SECOND_MS) / this.#perSecond
  }
}

const SECOND_MS = 1000
/** What part of a second's worth the portions must make up. */
const FILLED = 0.98
/** How much lateness of a portion is made up for. */
const LATE_MS = 50
