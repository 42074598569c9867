import { tableLines } from '../../cli/output.ts'
import type { Group } from '../measures/measure.ts'
import { PEERS } from '../peers.ts'
import type { Failure } from '../results.ts'
import type { Report } from './report.ts'
import { figuresTable, floorsTable } from './tables.ts'

/** The report for a terminal. */
export function textOf(report: Report): string {
  const { floors } = report
  const tables = [figuresTable(report), ...(floors === undefined ? [] : [floorsTable(floors)])]
  const paragraphs = [
    aboutLines(report),
    ...tables.map(({ columns, rows }) => tableLines(columns, rows)),
    report.groups.map(noteLine),
    remarks(report),
  ]
  return `${paragraphs
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')}\n`
}

export function aboutLines({ machine, versions, date, isQuick }: Report): string[] {
  const { cpu, cores, memoryGib, kernel } = machine
  const lines = [
    `${cpu}, ${cores} cores, ${memoryGib} GiB, ${kernel}`,
    Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', '),
    date,
  ]
  return isQuick
    ? [...lines, 'quick: it shows that everything runs, its figures mean nothing and no floor is judged']
    : lines
}

export function noteLine({ name, note }: Group): string {
  return `${name}: ${note}`
}

/** What is not as it should be. */
export function remarks({ missing, failures, isQuick }: Pick<Report, 'missing' | 'failures' | 'isQuick'>): string[] {
  return [
    ...Object.entries(missing).map(([peer, why]) => `not measured: ${peer} (${why})`),
    ...failures.map((failure) => {
      const { measure, contender, round, message } = failure
      const words = isForgiven(failure, { isQuick }) ? 'failed, which does not fail a quick run' : 'failed'
      return `${words}: ${measure}, ${contender}, round ${round}: ${message}`
    }),
  ]
}

/** A quick run asks whether ours runs; what a peer does on a busy machine is not ours to answer for. */
export function isForgiven({ contender }: Failure, { isQuick }: Pick<Report, 'isQuick'>): boolean {
  return isQuick && PEERS.some((peer) => peer === contender)
}
