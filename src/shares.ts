/**
 * Who goes next where several streams share slots: decided here, from numbers alone.
 *
 * Each stream has a deficit, the starts that it is behind its share; below 0 it is ahead. With each start the share of
 * all that have work grows by their weight, and the one that started pays a start. Next is who is not ahead, and of those whose
 * next start would be due first. So each that always has work is within one start of its share at any moment, and none
 * starves, however small its weight. A lowest-count-first rule would be off by as many starts as there are streams.
 */

/** One of those that share. */
export interface Sharer {
  readonly weight: number
  /** How many starts it is behind its share; see above. */
  readonly deficit: number
  /** How many it can use. */
  readonly want: number
}

/** Float sums drift; a start behind by less than this is none. */
const EPSILON = 1e-9

/** One whose deficit is kept up. */
export interface Sharing extends Sharer {
  deficit: number
  /** Whether it may have work now: who has none falls behind nobody. */
  readonly isSharing: boolean
}

/** How many of `free` each gets, in their order: as many as are free or wanted, whichever is less. */
export function shareOut(free: number, sharers: readonly Sharer[]): number[] {
  const shares = sharers.map(() => 0)
  const state = sharers.map(({ weight, deficit, want }) => ({ weight, deficit, want, isSharing: want > 0 }))
  for (let left = free; left > 0; left--) {
    const next = nextOf(state)
    const chosen = state[next]
    if (chosen === undefined) break
    shares[next] = (shares[next] ?? 0) + 1
    serve(state, chosen)
    chosen.want -= 1
    chosen.isSharing = chosen.want > 0
  }
  return shares
}

/** The place of the one whose turn it is; -1 if nobody wants any. */
export function nextOf(sharers: readonly Sharer[]): number {
  let [next, isNextAhead, nextDue] = [-1, true, Infinity]
  for (let at = 0; at < sharers.length; at++) {
    const { weight, deficit, want } = sharers[at] as Sharer
    if (want <= 0) continue
    const isAhead = deficit < -EPSILON
    // By when its next start is due, if time is counted in starts by the sum of the weights.
    const due = (1 - deficit) / weight
    const isBetter = isAhead === isNextAhead ? due < nextDue - EPSILON : isNextAhead
    if (next >= 0 && !isBetter) continue
    next = at
    isNextAhead = isAhead
    nextDue = due
  }
  return next
}

/** One start of `chosen`: all that share are behind by their part of it. */
export function serve(sharers: readonly Sharing[], chosen: Sharing): void {
  const weights = weightsOf(sharers)
  if (weights > 0) {
    for (const sharer of sharers) if (sharer.isSharing) sharer.deficit += sharer.weight / weights
  }
  chosen.deficit -= 1
}

/** One has no more than `keep` to begin: what it is behind beyond that is the others' again, and not to be made up for. */
export function yieldTurns(sharers: readonly Sharing[], idle: Sharing, keep: number): void {
  const excess = idle.deficit - keep
  if (excess <= 0) return
  const others = sharers.filter((sharer) => sharer !== idle && sharer.isSharing)
  const weights = weightsOf(others)
  for (const other of others) other.deficit += (excess * other.weight) / weights
  idle.deficit = keep
}

function weightsOf(sharers: readonly Sharing[]): number {
  let sum = 0
  for (const { isSharing, weight } of sharers) if (isSharing) sum += weight
  return sum
}
