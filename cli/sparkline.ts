import type { GroupHistory, HistoryMinute } from '../src/index.ts'
import { compactCount } from './compact.ts'
import { printable } from './output.ts'
import { fitted } from './width.ts'

/** Numbers over time as one line of bars. Pure. */

/** The first is for nothing at all, so that what happened once in an hour is still seen. */
const BARS = '▁▂▃▄▅▆▇█'
const PLAIN_BARS = '_.:-=+*#'

/** Bars from nothing to the highest of the values; the highest is also the highest bar, however low it is. */
export function sparkline(values: readonly number[], isUnicode: boolean): string {
  const bars = isUnicode ? BARS : PLAIN_BARS
  const highest = Math.max(...values, 0)
  return values
    .map((value) => bars[value <= 0 ? 0 : Math.max(1, Math.ceil((value / highest) * (bars.length - 1)))] ?? '')
    .join('')
}

/** Sums of neighbours, so that so many values become `buckets`; the newest are in the last one. */
export function bucketed(values: readonly number[], buckets: number): number[] {
  if (values.length <= buckets) return [...values]
  const each = Math.ceil(values.length / buckets)
  const sums: number[] = []
  for (let end = values.length; end > 0; end -= each) {
    sums.unshift(values.slice(Math.max(0, end - each), end).reduce((sum, value) => sum + value, 0))
  }
  return sums
}

/** Whether the terminal is set to an encoding that has the bars. */
export function isUnicode(env: NodeJS.ProcessEnv): boolean {
  return /utf-?8/i.test(env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '')
}

/** How wide the bars may be on a terminal of this width: one a minute where there is room, else one for two. */
export function barsFor(columns: number, minutes: number): number {
  return columns >= 120 ? minutes : Math.ceil(minutes / 2)
}

/** The last hour of groups, two lines each: what was completed, and what failed; a third where a group skipped jobs. Nothing for a group in which nothing happened. */
export function hourLines(
  groups: readonly GroupHistory[],
  { columns, env }: { columns: number; env: NodeJS.ProcessEnv },
): string[] {
  const isBusy = (minute: HistoryMinute) => minute.completed + minute.retried + minute.dead + minute.skipped > 0
  const rows = groups
    .filter(({ minutes }) => minutes.some(isBusy))
    .flatMap(({ group, minutes }) => {
      const [completed, failed] = [minutes.map((minute) => minute.completed), minutes.map(failedIn)]
      const skipped = minutes.map((minute) => minute.skipped)
      const name = printable(group)
      return [
        { name, what: 'completed', values: completed },
        { name, what: 'failed   ', values: failed },
        ...(skipped.some((count) => count > 0) ? [{ name, what: 'skipped  ', values: skipped }] : []),
      ]
    })
  if (rows.length === 0) return []
  const told = rows.map((row) => ({ ...row, behind: `${barsOf(row.values, columns, env)}  ${sumsText(row.values)}` }))
  const taken = Math.max(...told.map(({ what, behind }) => what.length + behind.length)) + 2 * GAP
  const widest = Math.max(...rows.map(({ name }) => name.length))
  const width = Math.min(widest, Math.max(LEAST_NAME, columns - taken))
  const lines = told.map(({ name, what, behind }) => `${fitted(name, width)}  ${what}  ${behind}`)
  return ['', 'jobs published in the last hour, by minute', ...lines]
}

const GAP = 2
const LEAST_NAME = 6

function barsOf(values: readonly number[], columns: number, env: NodeJS.ProcessEnv): string {
  return sparkline(bucketed(values, barsFor(columns, values.length)), isUnicode(env))
}

function sumsText(values: readonly number[]): string {
  const total = values.reduce((sum, value) => sum + value, 0)
  return `max ${compactCount(Math.max(...values, 0)).padStart(5)}/min  total ${compactCount(total).padStart(5)}`
}

function failedIn({ retried, dead }: HistoryMinute): number {
  return retried + dead
}
