import type { GroupStats, StreamStats } from '../../src/index.ts'
import { countText, plural, shortName, spanText } from '../output.ts'
import { stateOf, worstOf, type Figure, type State, type Thresholds } from './verdict.ts'

/** How the groups of a stream stand against thresholds. Pure. */

export type CheckKind = 'lag' | 'pending' | 'dead'

export interface Asked {
  readonly kind: CheckKind
  /** Whether the thresholds count jobs; else they are seconds. */
  readonly isCount: boolean
  readonly thresholds: Thresholds
}

/** One group, judged. */
export interface Judged {
  readonly group: string
  readonly state: State
  /** What was compared with the thresholds: seconds or jobs; null is not known. */
  readonly value: number | null
  readonly text: string
  readonly figures: readonly Figure[]
}

/** @param newer how many dead letters are to be counted, by group, where it is not all of them. */
export function judgeGroup(
  stream: Pick<StreamStats, 'stream' | 'paused'>,
  stats: GroupStats,
  asked: Asked,
  newer?: number,
): Judged {
  const { kind, isCount, thresholds } = asked
  const [seconds, jobs] = measured(kind, stats, newer)
  const value = isCount ? jobs : seconds
  const figure = (label: string, of: number | null, isCompared: boolean, unit?: 's'): Figure => ({
    label,
    value: of,
    ...(unit === undefined ? {} : { unit }),
    ...(isCompared ? { thresholds } : {}),
  })
  const figures =
    kind === 'dead'
      ? [figure('dead_letters', jobs, true)]
      : [
          figure(kind === 'lag' ? 'lag_seconds' : 'oldest_pending_seconds', seconds, !isCount, 's'),
          figure(kind === 'lag' ? 'lag_jobs' : 'pending_jobs', jobs, isCount),
        ]
  const words = [measuredText(kind, seconds, jobs), ...remarks(stream, stats)]
  const text = `${stream.stream}/${shortName(stats.group)} ${words.join(', ')}`
  return { group: stats.group, state: stateOf(value, thresholds), value, text, figures }
}

/** The worst first, and with them the state of all. */
export function rank(judged: readonly Judged[]): { state: State; groups: readonly Judged[] } {
  const order: readonly State[] = ['critical', 'warning', 'unknown', 'ok']
  const groups = [...judged].sort(
    (a, b) => order.indexOf(a.state) - order.indexOf(b.state) || (b.value ?? 0) - (a.value ?? 0),
  )
  return { state: worstOf(judged.map(({ state }) => state)), groups }
}

/** Figures of the group that stands worst, and where all groups are asked for those of each, under its name. */
export function figuresOf(groups: readonly Judged[], isOne: boolean): Figure[] {
  const [worst] = groups
  if (worst === undefined || isOne) return [...(worst?.figures ?? [])]
  const each = [...groups].sort((a, b) => (a.group < b.group ? -1 : 1)).slice(0, MOST_FIGURES)
  return [
    ...worst.figures,
    ...each.flatMap(({ group, figures }) =>
      figures.map((figure) => ({ ...figure, label: `${shortName(group)}.${figure.label}` })),
    ),
  ]
}

/** What is wrong is named first; a line that goes on for pages is not read. */
export function linesText(groups: readonly Judged[]): string {
  const shown = groups.slice(0, MOST_SHOWN).map(({ text }) => text)
  const left = groups.length - shown.length
  return [...shown, ...(left > 0 ? [`and ${plural(left, 'more group')}`] : [])].join('; ')
}

const MOST_SHOWN = 5
const MOST_FIGURES = 50

function measured(kind: CheckKind, stats: GroupStats, newer?: number): [number | null, number | null] {
  if (kind === 'lag') return [stats.lagSeconds, stats.lag]
  if (kind === 'pending') return [stats.oldestPendingSeconds, stats.pending]
  return [null, newer ?? stats.dead]
}

function measuredText(kind: CheckKind, seconds: number | null, jobs: number | null): string {
  if (kind === 'dead') return plural(jobs ?? 0, 'dead letter')
  const many = jobs === null ? 'an unknown number of jobs' : plural(jobs, 'job')
  const age = spanText(seconds ?? 0).replace(/([a-z]+)$/, ' $1')
  if (kind === 'lag') return `${age} behind (${many})`
  return jobs === 0 ? 'nothing pending' : `${countText(jobs ?? 0)} pending, the oldest published ${age} ago`
}

/** What explains a figure, or makes a good one worth little. */
function remarks({ paused }: Pick<StreamStats, 'paused'>, stats: GroupStats): string[] {
  const isPaused = paused !== null || stats.paused !== null
  return [
    ...(isPaused ? ['paused'] : []),
    ...(stats.abandoned ? ['abandoned: no worker for a day'] : stats.workers === 0 ? ['no workers'] : []),
    ...(stats.overdueSeconds >= 60 ? ['retries overdue'] : []),
  ]
}
