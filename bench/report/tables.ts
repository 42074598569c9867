import { type Column } from '../../cli/output.ts'
import { CONTENDERS, LABELS } from '../contenders/contender.ts'
import type { Judgement } from '../judging.ts'
import type { Report } from './report.ts'
import { linesOf } from './report.ts'

/** A table before it is text: the terminal and the document show the same. */
export interface Table {
  readonly columns: readonly Column[]
  readonly rows: readonly (readonly string[])[]
}

/** Who is in no measure of the run has no column. */
export function figuresTable(report: Pick<Report, 'groups' | 'results'>): Table {
  const measured = new Set(report.groups.flatMap(({ measures }) => measures.flatMap(({ contenders }) => contenders)))
  const names = CONTENDERS.filter((name) => measured.has(name))
  const others = names.filter((name) => name !== 'millrace')
  return {
    columns: [
      { title: 'median' },
      { title: 'unit' },
      ...names.map((name) => ({ title: LABELS[name], align: 'right' as const })),
      ...others.map((name) => ({ title: `to ${LABELS[name]}`, align: 'right' as const })),
    ],
    rows: linesOf(report).map(({ title, unit, digits, medians, ratios }) => [
      title,
      unit,
      ...names.map((name) => numberText(medians[name], digits)),
      ...others.map((name) => (ratios[name] === undefined ? '-' : `${ratioText(ratios[name])}×`)),
    ]),
  }
}

export function floorsTable(floors: readonly Judgement[]): Table {
  return {
    columns: [
      { title: 'floor' },
      { title: 'required', align: 'right' },
      { title: 'measured', align: 'right' },
      { title: 'single rounds', align: 'right' },
      { title: 'verdict' },
    ],
    rows: floors.map(({ title, bound, limit, value, byRound, verdict }) => [
      title,
      `${bound === 'at least' ? '≥' : '≤'} ${limit}`,
      value === undefined ? '-' : ratioText(value),
      rangeText(byRound),
      verdict,
    ]),
  }
}

function rangeText(ratios: readonly number[]): string {
  return ratios.length < 2 ? '-' : `${ratioText(Math.min(...ratios))} to ${ratioText(Math.max(...ratios))}`
}

function numberText(value: number | undefined, digits: number): string {
  if (value === undefined) return '-'
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/** Three places, so that what is just below a floor does not look as if it met it. */
function ratioText(ratio: number): string {
  return ratio.toFixed(ratio < 10 ? 3 : 1)
}
