import { compactCount } from '../compact.ts'
import { countText, plural, printable, type Style } from '../output.ts'
import { hourLines } from '../sparkline.ts'
import { clipped, fitted, widthOf } from '../width.ts'
import { tableOf, type TopColumn, type TopTable } from './rows.ts'
import { TABS, type TopState, type View } from './state.ts'

/** What the screen shows: exactly as many lines as it has, none wider than it is. Pure. */

export interface Line {
  readonly text: string
  readonly style?: Style
}

export interface Size {
  readonly columns: number
  readonly rows: number
}

/** Lines that are no rows of the table: title, what it is about, column titles, the last one. */
const FRAME = 4

export function draw(state: TopState, size: Size, env: NodeJS.ProcessEnv): Line[] {
  const { columns, rows } = size
  const body = state.isHelp ? HELP.map((text) => ({ text })) : bodyLines(state, size, env)
  const top = [titleLine(state, columns), aboutLine(state)]
  const room = Math.max(0, rows - top.length - 1)
  const filled = [...top, ...body.slice(0, room), ...blanks(room - body.length), lastLine(state)]
  // On a screen of a line or two the last one says most.
  return filled.slice(-rows).map((line) => ({ ...line, text: clipped(printable(line.text), columns) }))
}

/** How many rows of the table fit: what a page up or down moves by. */
export function pageOf(state: TopState, { rows }: Size): number {
  return Math.max(1, rows - FRAME - (state.view.kind === 'groups' ? HISTORY_ROOM : 0))
}

/** A line between, a title, and two for the group under the cursor. */
const HISTORY_ROOM = 4

function bodyLines(state: TopState, size: Size, env: NodeJS.ProcessEnv): Line[] {
  const { seen, seenMs, cursor } = state
  if (seen === undefined) return [{ text: '' }, { text: state.trouble === undefined ? 'looking …' : '' }]
  const table = tableOf(seen, seenMs)
  const page = pageOf(state, size)
  const lines = tableText(table, { width: size.columns, first: firstShown(cursor.at, page), page, at: cursor.at })
  if (table.rows.length === 0) return [...lines, { text: emptyText(state.view) }]
  if (seen.kind !== 'groups' || seen.history === undefined) return lines
  const history = hourLines([seen.history], { columns: size.columns, env })
  return [...lines, ...blanks(page + 1 - lines.length), ...history.map((text) => ({ text }))]
}

/** The window moves only as far as the cursor needs. */
function firstShown(at: number, page: number): number {
  return Math.max(0, at - page + 1)
}

function tableText(
  { columns, rows }: TopTable,
  { width, first, page, at }: { width: number; first: number; page: number; at: number },
): Line[] {
  const shown = rows.slice(first, first + page)
  const widths = widthsOf(
    columns,
    shown.map(({ cells }) => cells),
    width - MARK.length,
  )
  const lineOf = (cells: readonly string[]) =>
    columns.map(({ align }, column) => fitted(cells[column] ?? '', widths[column] ?? 0, align)).join('  ')
  const titles: Line = { text: `${BLANK}${lineOf(columns.map(({ title }) => title))}`, style: 'dim' }
  return [
    titles,
    ...shown.map(({ cells }, index): Line => {
      const isHere = first + index === at
      // The mark, so that the cursor is seen without colours too.
      const text = `${isHere ? MARK : BLANK}${lineOf(cells)}`
      return isHere ? { text, style: 'inverse' } : { text }
    }),
  ]
}

const MARK = '> '
const BLANK = '  '
const GAP = 2
const LEAST_FLEXIBLE = 10
/** So that columns of numbers stand still while these change. */
const LEAST_NUMBER = 5

/** As wide as what is in them; the flexible one has what is left, and where that is too little the widest give way. */
function widthsOf(columns: readonly TopColumn[], rows: readonly (readonly string[])[], width: number): number[] {
  const natural = columns.map(({ title, align }, at) =>
    Math.max(title.length, align === 'right' ? LEAST_NUMBER : 0, ...rows.map((cells) => widthOf(cells[at] ?? ''))),
  )
  const flexible = columns.findIndex(({ isFlexible }) => isFlexible)
  let others = natural.reduce((sum, each, at) => sum + GAP + (at === flexible ? 0 : each), -GAP)
  while (others > width - LEAST_FLEXIBLE) {
    const most = Math.max(...natural.filter((_, at) => at !== flexible))
    const widest = natural.findIndex((each, at) => at !== flexible && each === most)
    if (widest < 0 || most <= LEAST_FLEXIBLE) break
    natural[widest] = most - 1
    others -= 1
  }
  if (flexible >= 0) natural[flexible] = Math.max(LEAST_FLEXIBLE, width - others)
  return natural
}

function titleLine({ view, seenMs }: TopState, columns: number): Line {
  const place =
    view.kind === 'streams' ? 'streams' : view.kind === 'groups' ? view.stream : `${view.stream} > ${view.group}`
  const at = seenMs === 0 ? '' : new Date(seenMs).toLocaleTimeString('en-GB')
  const left = `millrace top  ${place}`
  return { text: fitted(left, Math.max(0, columns - at.length - 1)) + ` ${at}`, style: 'bold' }
}

function aboutLine({ view, seen, trouble }: TopState): Line {
  if (trouble !== undefined) return { text: trouble, style: 'yellow' }
  if (seen === undefined) return { text: '' }
  switch (seen.kind) {
    case 'streams':
      return { text: plural(seen.streams.length, 'stream') }
    case 'groups': {
      const { entries, scheduled, groups } = seen.stats
      const delayed = scheduled === 0 ? '' : `, ${plural(scheduled, 'delayed job')}`
      return { text: `${plural(entries, 'entry', 'entries')}${delayed}, ${plural(groups.length, 'group')}` }
    }
    case 'jobs':
      return { text: tabsText(view, seen.stats.groups) }
  }
}

function tabsText(
  view: View,
  groups: readonly { group: string; pending: number; dead: number; workers: number }[],
): string {
  if (view.kind !== 'jobs') return ''
  const stats = groups.find(({ group }) => group === view.group)
  const tabs = TABS.map((tab, at) => {
    const named = `${at + 1} ${tab}${stats === undefined ? '' : ` ${compactCount(stats[tab])}`}`
    return tab === view.tab ? `[${named}]` : ` ${named} `
  })
  return tabs.join('  ')
}

function lastLine({ question, message, view, isHelp }: TopState): Line {
  if (question !== undefined) return { text: `${question.text} y/n`, style: 'yellow' }
  if (message !== undefined) return { text: message, style: 'yellow' }
  if (isHelp) return { text: 'any key goes back  q quit', style: 'dim' }
  const open = view.kind === 'jobs' ? 'tab other list' : 'enter open'
  const back = view.kind === 'streams' ? '' : '  esc back'
  const isLetter = view.kind === 'jobs' && view.tab === 'dead'
  const redrive = view.kind === 'streams' ? '' : isLetter ? '  r R redrive' : '  r redrive'
  return { text: `j k move  ${open}${back}  p pause${redrive}  ? help  q quit`, style: 'dim' }
}

function emptyText(view: View): string {
  switch (view.kind) {
    case 'streams':
      return `  no streams yet; publish a first job with: millrace publish orders hello '{}'`
    case 'groups':
      return '  no group yet: nobody reads this stream'
    case 'jobs':
      return { pending: '  nothing pending', dead: '  no dead letters', workers: '  no workers' }[view.tab]
  }
}

function blanks(count: number): Line[] {
  return Array.from({ length: Math.max(0, count) }, () => ({ text: '' }))
}

const HELP = [
  '',
  '  up down j k       move; PgUp PgDn a page, g G to the first and the last',
  '  enter right l     open: the groups of a stream, the jobs of a group',
  '  esc left h        back',
  '  tab 1 2 3         pending jobs, dead letters, workers of a group',
  '  p                 pause or resume the stream or the group',
  '  r                 redrive: the dead letter under the cursor, else all there are',
  '  R                 redrive all dead letters of the group',
  '  ctrl-l            look again now',
  '  ?                 this help',
  '  q ctrl-c          quit',
  '',
  '  lag    entries not yet delivered; ? where Redis does not know; age of the oldest',
  '  sched  retries that wait for their time, and of a stream delayed jobs',
  '  left   what is left of the lease. sent: how often it was delivered',
  '',
  `  Lists show the first ${countText(100)}: the oldest pending jobs, the newest dead letters.`,
]
