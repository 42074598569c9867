import { monotonicMs } from '../clock.ts'

/** Calls what is to be called at a time, in order of the times, with one timer for all of them. */
export class Timetable<Entry> {
  readonly #call: (entry: Entry) => void
  /** By time, the next one last. */
  readonly #entries: { readonly atMs: number; readonly entry: Entry }[] = []
  #timer: NodeJS.Timeout | undefined
  #timerAtMs = Infinity

  constructor(call: (entry: Entry) => void) {
    this.#call = call
  }

  /** @param atMs by the monotonic clock. */
  add(atMs: number, entry: Entry): void {
    let [low, high] = [0, this.#entries.length]
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#entries[middle]?.atMs ?? 0) > atMs) low = middle + 1
      else high = middle
    }
    this.#entries.splice(low, 0, { atMs, entry })
    if (atMs < this.#timerAtMs) this.#arm()
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#entries.length = 0
    this.#timerAtMs = Infinity
  }

  #arm(): void {
    clearTimeout(this.#timer)
    const next = this.#entries.at(-1)
    this.#timerAtMs = next?.atMs ?? Infinity
    if (next === undefined) return
    // A timer may ring a little early, and what is not due yet then waits for the next one.
    const inMs = Math.min(2 ** 31 - 1, Math.max(0, Math.ceil(next.atMs - monotonicMs())))
    this.#timer = setTimeout(() => this.#ring(), inMs)
  }

  #ring(): void {
    this.#timerAtMs = -Infinity
    const nowMs = monotonicMs()
    try {
      for (let next = this.#entries.at(-1); next !== undefined && next.atMs <= nowMs; next = this.#entries.at(-1)) {
        this.#entries.pop()
        this.#call(next.entry)
      }
    } finally {
      this.#arm()
    }
  }
}
