import type { Judgement } from '../judging.ts'
import type { Machine } from '../machine.ts'
import type { Group } from '../measures/measure.ts'
import { CONTENDERS, type ContenderName } from '../contenders/contender.ts'
import { medianOf, type Failure, type Result } from '../results.ts'

/** Everything that one run has found. */
export interface Report {
  /** When it began, ISO 8601. */
  readonly date: string
  readonly elapsedMs: number
  readonly isQuick: boolean
  readonly machine: Machine
  readonly versions: Readonly<Record<string, string>>
  readonly groups: readonly Group[]
  readonly results: readonly Result[]
  readonly failures: readonly Failure[]
  readonly missing: Readonly<Record<string, string>>
  /** Undefined in a quick run, which judges nothing. */
  readonly floors: readonly Judgement[] | undefined
}

/** One figure with the median of each contender, and how millrace's compares. */
export interface Line {
  readonly group: string
  readonly measure: string
  readonly figure: string
  readonly title: string
  readonly unit: string
  readonly digits: number
  readonly medians: Readonly<Partial<Record<ContenderName, number>>>
  /** millrace's divided by the other's. */
  readonly ratios: Readonly<Partial<Record<ContenderName, number>>>
}

export function linesOf({ groups, results }: Pick<Report, 'groups' | 'results'>): Line[] {
  return groups.flatMap(({ name: group, measures }) =>
    measures.flatMap(({ name: measure, rows }) =>
      rows.map(({ figure, title, unit, digits }) => {
        const medians: Partial<Record<ContenderName, number>> = {}
        for (const contender of CONTENDERS) {
          const value = medianOf(results, { measure, figure, contender })
          if (value !== undefined) medians[contender] = value
        }
        return { group, measure, figure, title, unit, digits, medians, ratios: ratiosOf(medians) }
      }),
    ),
  )
}

function ratiosOf({
  millrace,
  ...others
}: Partial<Record<ContenderName, number>>): Partial<Record<ContenderName, number>> {
  const ratios: Partial<Record<ContenderName, number>> = {}
  if (millrace === undefined) return ratios
  for (const contender of CONTENDERS) {
    const other = contender === 'millrace' ? undefined : others[contender]
    if (other !== undefined && other !== 0) ratios[contender] = millrace / other
  }
  return ratios
}
