import type { GroupHistory, HistoryMinute } from '../src/index.ts'
import { countText, printable } from './output.ts'
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

/** The last hour of groups, two lines each: what was completed, and what failed. Nothing for a group in which nothing happened. */
export function hourLines(
  groups: readonly GroupHistory[],
  { columns, env }: { columns: number; env: NodeJS.ProcessEnv },
): string[] {
  const isBusy = (minute: HistoryMinute) => minute.completed + minute.retried + minute.dead > 0
  const rows = groups
    .filter(({ minutes }) => minutes.some(isBusy))
    .flatMap(({ group, minutes }) => [
      rowOf(
        `${group} completed`,
        minutes.map(({ completed }) => completed),
        columns,
      ),
      rowOf(
        `${group} failed`,
        minutes.map(({ retried, dead }) => retried + dead),
        columns,
      ),
    ])
  if (rows.length === 0) return []
  const width = Math.min(Math.max(...rows.map(({ name }) => name.length)), Math.max(12, columns - 66))
  const widest = Math.max(...rows.map(({ most }) => countText(most).length))
  const lines = rows.map(({ name, values, most, total }) => {
    const bars = sparkline(values, isUnicode(env))
    return `${fitted(name, width)}  ${bars}  max ${countText(most).padStart(widest)}/min  ${countText(total)} in all`
  })
  return ['', `jobs published in the last hour, by minute`, ...lines]
}

function rowOf(name: string, values: readonly number[], columns: number) {
  return {
    name: printable(name),
    values: bucketed(values, barsFor(columns, values.length)),
    most: Math.max(...values, 0),
    total: values.reduce((sum, value) => sum + value, 0),
  }
}
