import type { Floor } from './floors.ts'
import { median } from './median.ts'
import type { FigureName } from './results.ts'

export interface Judgement {
  readonly title: string
  readonly bound: Floor['bound']
  readonly limit: number
  /** From the medians; undefined where something of it was not measured. */
  readonly value: number | undefined
  /** The same from each round alone: how far it varies says how far the value is to be trusted. */
  readonly byRound: readonly number[]
  readonly verdict: 'met' | 'missed' | 'not measured'
}

/** @param valuesOf what the rounds gave for a figure, in their order; empty if it was not measured. */
export function judge(floors: readonly Floor[], valuesOf: (name: FigureName) => readonly number[]): Judgement[] {
  return floors.map(({ title, of, over, bound, limit }) => {
    const values = [of, ...over].map(valuesOf)
    const value = ratioOf(values.map((rounds) => (rounds.length === 0 ? undefined : median(rounds))))
    const rounds = Math.min(...values.map(({ length }) => length))
    const byRound = Array.from({ length: rounds }, (_, at) => ratioOf(values.map((one) => one[at])))
    const isMet = value !== undefined && (bound === 'at least' ? value >= limit : value <= limit)
    return {
      title,
      bound,
      limit,
      value,
      byRound: byRound.filter((ratio) => ratio !== undefined),
      verdict: value === undefined ? 'not measured' : isMet ? 'met' : 'missed',
    }
  })
}

/** The first value over the largest of the others, or the first one itself if there are none. */
function ratioOf([value, ...over]: readonly (number | undefined)[]): number | undefined {
  const known = over.filter((other) => other !== undefined)
  if (value === undefined || known.length < over.length) return undefined
  return over.length === 0 ? value : value / Math.max(...known)
}
