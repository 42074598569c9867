/** How many of something there were when: at most 24 spans of one round width. */

export interface Histogram {
  readonly widthMs: number
  /** Every span from the first to the last, also the empty ones, by where it begins in ms since the epoch. */
  readonly buckets: readonly { readonly fromMs: number; readonly count: number }[]
}

const MOST_BUCKETS = 24
const [SECOND, MINUTE, HOUR, DAY] = [1000, 60_000, 3_600_000, 86_400_000] as const
const WIDTHS = [
  ...[1, 2, 5, 10, 20, 50, 100, 200, 500],
  ...[1, 2, 5, 10, 15, 30].map((count) => count * SECOND),
  ...[1, 2, 5, 10, 15, 30].map((count) => count * MINUTE),
  ...[1, 2, 3, 6, 12].map((count) => count * HOUR),
  ...[1, 2, 7, 14, 28].map((count) => count * DAY),
]

/** The smallest round width that has the spans from one time to the other number 24 or less; they begin at multiples of it. */
export function widthOf(fromMs: number, toMs: number): number {
  const fits = (width: number) => Math.floor(toMs / width) - Math.floor(fromMs / width) < MOST_BUCKETS
  const round = WIDTHS.find(fits)
  if (round !== undefined) return round
  let width = 56 * DAY
  while (!fits(width)) width *= 2
  return width
}

/** Counts times between two that are known at the beginning. */
export class HistogramCounter {
  readonly #widthMs: number
  readonly #first: number
  readonly #counts: number[]

  constructor(fromMs: number, toMs: number) {
    this.#widthMs = widthOf(fromMs, toMs)
    this.#first = Math.floor(fromMs / this.#widthMs)
    this.#counts = Array.from({ length: Math.floor(toMs / this.#widthMs) - this.#first + 1 }, () => 0)
  }

  add(ms: number): void {
    const at = Math.floor(ms / this.#widthMs) - this.#first
    const bucket = Math.min(this.#counts.length - 1, Math.max(0, at))
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1
  }

  get histogram(): Histogram {
    const buckets = this.#counts.map((count, at) => ({ fromMs: (this.#first + at) * this.#widthMs, count }))
    return { widthMs: this.#widthMs, buckets }
  }
}
