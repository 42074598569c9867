import type { Histogram } from '../../src/index.ts'
import { countText } from '../output.ts'

/** A histogram of times as lines of bars, no wider than a terminal. */

const EIGHTHS = ['', '▏', '▎', '▍', '▌', '▋', '▊', '▉']
const WIDEST_BAR = 80
const LAST_DATE_MS = 253_402_300_799_999
const [SECOND, MINUTE, DAY] = [1000, 60_000, 86_400_000] as const

export function histogramLines({ widthMs, buckets }: Histogram, columns: number): string[] {
  const labels = labelsOf(buckets, widthMs)
  const counts = buckets.map(({ count }) => countText(count))
  const [labelWidth, countWidth] = [widest(labels), widest(counts)]
  const room = Math.max(8, Math.min(WIDEST_BAR, columns - labelWidth - countWidth - 7))
  const most = Math.max(1, ...buckets.map(({ count }) => count))
  return buckets.map(({ count }, at) => {
    const label = (labels[at] ?? '').padEnd(labelWidth)
    return `  ${label}  ${(counts[at] ?? '').padStart(countWidth)}  ${barOf(count / most, room)}`.trimEnd()
  })
}

/** What there is at all shows. */
function barOf(part: number, room: number): string {
  const eighths = part === 0 ? 0 : Math.max(1, Math.round(part * room * 8))
  return '█'.repeat(Math.floor(eighths / 8)) + (EIGHTHS[eighths % 8] ?? '')
}

/** As much of the time as tells the spans apart, in UTC; the day where it is another than before. */
function labelsOf(buckets: Histogram['buckets'], widthMs: number): string[] {
  if (buckets.some(({ fromMs }) => fromMs > LAST_DATE_MS)) return buckets.map(({ fromMs }) => String(fromMs))
  const iso = buckets.map(({ fromMs }) => new Date(fromMs).toISOString())
  if (widthMs >= DAY) return iso.map((text) => text.slice(0, 10))
  const end = widthMs >= MINUTE ? 16 : widthMs >= SECOND ? 19 : 23
  return iso.map((text, at) => {
    const day = text.slice(0, 10)
    return `${iso[at - 1]?.slice(0, 10) === day ? ' '.repeat(10) : day} ${text.slice(11, end)}`
  })
}

function widest(texts: readonly string[]): number {
  return Math.max(0, ...texts.map((text) => text.length))
}
