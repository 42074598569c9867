import type { AuditFinding, AuditMinute, AuditResult } from '../src/index.ts'
import { countText, plural, tableLines } from './output.ts'
import { wrapped } from './paragraphs.ts'

/** How an audit is told of in words. No line is longer than a terminal is wide, but for ids. */

const WIDTH = 80

const WORDS = {
  completed: 'completed',
  dead: 'dead',
  discarded: 'dead and deleted',
  cancelled: 'cancelled',
  skipped: 'skipped',
  scheduled: 'to be tried again',
  redelivery: 'to be redelivered',
  pending: 'pending',
  waiting: 'not yet delivered',
  gone: 'gone',
} as const

/** The verdict, and under it what was found. */
export function auditLines(result: AuditResult): string[] {
  const { findings, repair } = result
  const refused = (repair?.refused ?? []).map(({ id, why }) => `  cannot be handed back: ${id} (${why})`)
  return [...wrapped(verdict(result).split(' '), WIDTH), ...findings.flatMap(findingLines), ...refused]
}

function verdict({ group, expected, accounted, totals, fromMs, toMs, ok, minutes, findings }: AuditResult): string {
  if (fromMs >= toMs || (minutes.length === 0 && ok)) return `there are no jobs of group ${group} to account for`
  const range = `${clock(fromMs)} to ${clock(toMs, fromMs)}`
  const places = Object.entries(WORDS).flatMap(([name, word]) => {
    const count = totals[name as keyof typeof WORDS]
    return count === 0 ? [] : [`${countText(count)} ${word}`]
  })
  const held = places.length === 0 ? '' : `: ${places.join(', ')}`
  const isSteady = minutes.every(({ state }) => state === 'ok')
  if (ok && isSteady && expected === accounted) {
    const all = expected === 1 ? 'the 1 job' : `all ${countText(expected)} jobs`
    return `${all} of ${range} in group ${group} ${expected === 1 ? 'is' : 'are'} accounted for${held}`
  }
  const meant = `${plural(expected, 'job')} of ${range} in group ${group}`
  if (ok) return `nothing is missing of ${meant} as far as they can be added up${held}`
  const lost = findings.reduce((sum, { kind, count }) => sum + (kind === 'surplus' ? 0 : count), 0)
  if (lost === 0) return `${meant} do not add up${held}`
  const are = lost === 1 ? 'is' : 'are'
  if (lost > expected) return `${plural(lost, 'job')} in group ${group} ${are} not accounted for`
  const others = places.length === 0 ? '' : `; the others: ${places.join(', ')}`
  return `${countText(lost)} of ${meant} ${are} not accounted for${others}`
}

/** Ids are told eight at most: all of those that are known are in the JSON. */
const SHOWN_IDS = 8

function findingLines({ sentence, ids, count }: AuditFinding): string[] {
  const shown = ids.slice(0, SHOWN_IDS).map((id) => `    ${id}`)
  const more = count - shown.length
  const rest = shown.length > 0 && more > 0 ? [`    and ${countText(more)} more`] : []
  return [...wrapped(`- ${sentence}`.split(' '), WIDTH, '  '), ...shown, ...rest]
}

/** Minutes, with what does not add up in each. */
export function minuteLines(minutes: readonly AuditMinute[]): string[] {
  const right = 'right' as const
  const columns = [
    { title: 'minute (UTC)' },
    { title: 'jobs', align: right },
    { title: 'ended', align: right },
    { title: 'dead', align: right },
    { title: 'waiting', align: right },
    { title: 'pending', align: right },
    { title: 'missing', align: right },
    { title: 'state' },
  ]
  const rows = minutes.map(({ fromMs, expected, accounted, counts, state }) => [
    minuteText(fromMs),
    countText(expected),
    countText(counts.completed + counts.cancelled + counts.skipped + counts.discarded + counts.gone),
    countText(counts.dead),
    countText(counts.waiting + counts.scheduled + counts.redelivery),
    countText(counts.pending),
    countText(expected - accounted),
    state,
  ])
  return tableLines(columns, rows)
}

/** What is no fault, and must be known. */
export function noteLines({ minutes, delayed }: AuditResult): string[] {
  const count = (state: AuditMinute['state']) => minutes.filter((minute) => minute.state === state).length
  const [moving, unknown] = [count('moving'), count('unknown')]
  return [
    ...(delayed === 0
      ? []
      : [
          delayed === 1
            ? '1 delayed publish of the range waits for its time'
            : `${countText(delayed)} delayed publishes of the range wait for their time`,
        ]),
    ...(moving === 0 ? [] : [`jobs of ${plural(moving, 'minute')} move too fast to be added up: ask again later`]),
    ...(unknown === 0
      ? []
      : [`of ${plural(unknown, 'minute')} the counts are no longer kept: nothing is known of them`]),
  ]
}

function minuteText(ms: number): string {
  return new Date(ms).toISOString().slice(0, 16)
}

/** The end of a range is told without its day where it is that of its beginning. */
function clock(ms: number, since?: number): string {
  const text = `${minuteText(ms)}Z`
  return since !== undefined && minuteText(since).slice(0, 10) === text.slice(0, 10) ? text.slice(11) : text
}
