import type { ReplayPlan, ReplaySample } from '../../src/index.ts'
import { exactDuration } from '../duration.ts'
import { fittingTable, type FittingColumn } from '../fitting-table.ts'
import { countText, instantText, momentText, plural, printable, spanText } from '../output.ts'
import { foldedLine } from '../paragraphs.ts'
import { sizeText } from '../size.ts'
import { clipped } from '../width.ts'
import { targetText } from './asked.ts'
import { histogramLines } from './histogram-text.ts'

/** What a replay would be of, for people. */

const MOST_NAMES = 10

export function planLines(plan: ReplayPlan, stdout: NodeJS.WriteStream): string[] {
  const { stream, target, matches, scanned, bytes, byJob, histogram, samples, seconds } = plan
  const about = [
    printable(`${plural(matches, 'job')} of ${stream} would be replayed into ${targetText(target)}`),
    ...rangeLines(plan),
    `  size  ${countText(matches)} of ${plural(scanned, 'entry', 'entries')}, ${sizeText(bytes)}`,
    ...(byJob.length === 0 ? [] : [`  job   ${namesText(byJob)}`]),
    ...(matches === 0 ? [] : [`  time  ${seconds < 1 ? 'less than a second' : `about ${spanText(seconds)}`}`]),
    ...remarkLines(plan),
  ]
  return [
    ...about.flatMap((line) => foldedLine(stdout, line, '        ')),
    ...(histogram === null || matches === 0
      ? []
      : [
          '',
          `published, by ${exactDuration(histogram.widthMs)} (UTC)`,
          ...histogramLines(histogram, stdout.columns || 80),
        ]),
    ...(samples.length === 0 ? [] : ['', ...sampleLines(stdout, samples)]),
  ]
}

function rangeLines({ fromId, toId }: ReplayPlan): string[] {
  if (fromId === null || toId === null) return []
  return [`  from  ${endText(fromId)}`, `  to    ${endText(toId)}`]
}

/** With its time, the same wherever it is read. */
export function endText(id: string): string {
  return `${id} (${instantText(Number(id.slice(0, id.indexOf('-'))))})`
}

function remarkLines({ skippedReplays, unclear, unknownIds }: ReplayPlan): string[] {
  return [
    ...(skippedReplays === 0
      ? []
      : [`  left  ${copiesText(skippedReplays)} of an earlier replay (see --include-replays)`]),
    ...(unclear.count === 0 ? [] : [`  left  ${unclearText(unclear)}`]),
    ...(unknownIds.length === 0 ? [] : [`  left  ${unknownText(unknownIds)}`]),
  ]
}

export function unclearText({ count, firstWhy }: ReplayPlan['unclear']): string {
  return printable(`${plural(count, 'job')} of which --where cannot tell, the first: ${firstWhy ?? ''}`)
}

function copiesText(count: number): string {
  return count === 1 ? '1 entry that is a copy' : `${countText(count)} entries that are copies`
}

/** `2 ids are of no job that the stream holds: 1-0, 2-0`. */
export function unknownText(unknownIds: readonly string[]): string {
  const [first, more] = [unknownIds.slice(0, 10).join(', '), unknownIds.length > 10 ? ', …' : '']
  const are = unknownIds.length === 1 ? 'is' : 'are'
  return `${plural(unknownIds.length, 'id')} ${are} of no job that the stream holds: ${first}${more}`
}

function namesText(counted: ReplayPlan['byJob']): string {
  const shown = counted
    .slice(0, MOST_NAMES)
    .map(({ job, count }) => `${printable(job ?? '(none)')} ${countText(count)}`)
  const others = counted.length - shown.length
  return [...shown, ...(others > 0 ? [`and ${plural(others, 'other')}`] : [])].join(', ')
}

/** The id tells of the time too: of the two it is the time that gives way. */
const SAMPLE_COLUMNS: readonly FittingColumn[] = [
  { title: 'id' },
  { title: 'published', spare: 1 },
  { title: 'job', least: 12 },
  { title: 'payload', least: 24 },
]

function sampleLines(stdout: NodeJS.WriteStream, samples: readonly ReplaySample[]): string[] {
  const rows = samples.map(({ id, job, publishedMs, payload }) => [
    id,
    momentText(publishedMs),
    job ?? '-',
    payload ?? '-',
  ])
  const lines = fittingTable(stdout, SAMPLE_COLUMNS, rows)
  return stdout.isTTY ? lines : lines.map((line) => clipped(line, LONGEST_LINE))
}

const LONGEST_LINE = 400
