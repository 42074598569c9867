import type { Floor } from './floors.ts'
import type { FigureName } from './results.ts'

export interface Judgement {
  readonly title: string
  readonly bound: Floor['bound']
  readonly limit: number
  /** Undefined where something of it was not measured. */
  readonly value: number | undefined
  readonly verdict: 'met' | 'missed' | 'not measured'
}

/** @param figureOf the median of a figure; undefined if it was not measured. */
export function judge(
  floors: readonly Floor[],
  figureOf: (name: FigureName) => number | undefined,
): readonly Judgement[] {
  return floors.map(({ title, of, over, bound, limit }) => {
    const value = ratioOf(figureOf(of), over.map(figureOf))
    const isMet = value !== undefined && (bound === 'at least' ? value >= limit : value <= limit)
    return { title, bound, limit, value, verdict: value === undefined ? 'not measured' : isMet ? 'met' : 'missed' }
  })
}

function ratioOf(value: number | undefined, over: readonly (number | undefined)[]): number | undefined {
  if (over.length === 0) return value
  const known = over.filter((other) => other !== undefined)
  return value === undefined || known.length < over.length ? undefined : value / Math.max(...known)
}
