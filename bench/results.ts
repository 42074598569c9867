import type { ContenderName } from './contenders/contender.ts'
import { median } from './median.ts'
import type { Figures } from './steps/task.ts'

/** What came out of one measure for one contender in one round. */
export interface Result {
  readonly measure: string
  readonly contender: ContenderName
  readonly round: number
  readonly figures: Figures
}

/** A measure that could not be taken. */
export interface Failure {
  readonly measure: string
  readonly contender: ContenderName
  readonly round: number
  readonly message: string
}

/** Names one figure of one contender. */
export interface FigureName {
  readonly measure: string
  readonly figure: string
  readonly contender: ContenderName
}

/** What the rounds gave for a figure, in their order. A round that failed is left out. */
export function valuesOf(results: readonly Result[], name: FigureName): number[] {
  return results
    .filter(({ measure, contender }) => measure === name.measure && contender === name.contender)
    .sort((a, b) => a.round - b.round)
    .flatMap(({ figures }) => figures[name.figure] ?? [])
}

/** Their median; undefined if there is none. */
export function medianOf(results: readonly Result[], name: FigureName): number | undefined {
  const values = valuesOf(results, name)
  return values.length === 0 ? undefined : median(values)
}
