/**
 * A histogram as the hot path writes it: one typed array, no labels, no allocation. Who scrapes reads it; see metric.ts.
 * Observing costs a short scan of the bounds, some 5 ns where the low ones are hit, as with jobs that do little.
 */
export class Buckets {
  /** Upper bounds, rising; what is above the last counts in a bucket of its own. */
  readonly bounds: readonly number[]
  /** One count per bound, and one above; not cumulative. */
  readonly counts: Float64Array
  sum = 0

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    const { bounds, counts } = this
    let at = 0
    while (at < bounds.length && value > (bounds[at] as number)) at++
    counts[at] = (counts[at] as number) + 1
    this.sum += value
  }

  /** Observations so far. */
  get count(): number {
    let count = 0
    for (const one of this.counts) count += one
    return count
  }
}
