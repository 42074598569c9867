import { plural } from '../output.ts'
import { keysOf } from './rows.ts'
import {
  isSameView,
  TABS,
  type Cursor,
  type Effect,
  type Happening,
  type RedriveAsked,
  type Tab,
  type Target,
  type TopState,
  type View,
} from './state.ts'

/** What becomes of the state when something happens, and what is to be done then. Pure. */
export interface Updated {
  readonly state: TopState
  readonly effects: readonly Effect[]
}

export function update(state: TopState, happening: Happening): Updated {
  switch (happening.kind) {
    case 'key':
      return pressed(state, happening.key, happening.page)
    case 'seen': {
      // Of a view that was left meanwhile.
      if (!isSameView(happening.view, state.view)) return only(state)
      const { seen, atMs: seenMs } = happening
      const cursor = keptAt(state.cursor, keysOf(seen))
      return only({ ...state, seen, seenMs, trouble: undefined, cursor })
    }
    case 'trouble':
      return only({ ...state, trouble: happening.text })
    case 'planned':
      return planned(state, happening)
    case 'told':
      return only({ ...state, message: happening.text, isBusy: happening.isBusy })
  }
}

/** On the same row, wherever it is now; where it is gone, at the same place. */
export function keptAt({ key, at }: Cursor, keys: readonly string[]): Cursor {
  const found = key === undefined ? -1 : keys.indexOf(key)
  const place = found >= 0 ? found : Math.max(0, Math.min(at, keys.length - 1))
  // Before anything was seen the row that is meant may still come.
  return { key: keys[place] ?? key, at: place }
}

function only(state: TopState): Updated {
  return { state, effects: [] }
}

function pressed(state: TopState, key: string, page: number): Updated {
  if (key === 'ctrl-c') return { state, effects: [{ kind: 'quit' }] }
  if (state.question !== undefined) return answered(state, key)
  if (key === 'q') return { state, effects: [{ kind: 'quit' }] }
  if (state.isHelp) return only({ ...state, isHelp: false })
  const cleared = { ...state, message: state.isBusy ? state.message : undefined }
  const moved = movedBy(key, state.cursor.at, page)
  if (moved !== undefined) {
    const keys = keysOf(state.seen)
    return only({ ...cleared, cursor: keptAt({ key: undefined, at: Math.max(0, moved) }, keys) })
  }
  switch (key) {
    case '?':
      return only({ ...cleared, isHelp: true })
    case 'enter':
    case 'right':
    case 'l':
      return opened(cleared)
    case 'esc':
    case 'left':
    case 'h':
    case 'backspace':
      return state.isBusy && key === 'esc' ? { state: cleared, effects: [{ kind: 'stop' }] } : back(cleared)
    case 'p':
      return pausing(cleared)
    case 'r':
    case 'R':
      return redriving(cleared, key === 'R')
    case 'ctrl-l':
      return { state: cleared, effects: [{ kind: 'look' }] }
    default:
      return tabbed(cleared, key)
  }
}

function answered(state: TopState, key: string): Updated {
  const { question } = state
  const done = { ...state, question: undefined }
  if (question !== undefined && (key === 'y' || key === 'Y')) return { state: done, effects: [question.effect] }
  return only({ ...done, message: 'nothing was changed' })
}

function movedBy(key: string, at: number, page: number): number | undefined {
  const places: Readonly<Record<string, number>> = {
    up: at - 1,
    k: at - 1,
    down: at + 1,
    j: at + 1,
    pageup: at - page,
    pagedown: at + page,
    home: 0,
    g: 0,
    end: Number.MAX_SAFE_INTEGER,
    G: Number.MAX_SAFE_INTEGER,
  }
  return places[key]
}

function opened(state: TopState): Updated {
  const { view } = state
  const row = rowKey(state)
  if (row === undefined || view.kind === 'jobs') return only(state)
  const next: View =
    view.kind === 'streams'
      ? { kind: 'groups', stream: row }
      : { kind: 'jobs', stream: view.stream, group: row, tab: 'pending' }
  const behind = [...state.behind, { view, cursor: state.cursor }]
  return entered({ ...state, behind, cursor: { key: undefined, at: 0 } }, next)
}

function back(state: TopState): Updated {
  const last = state.behind.at(-1)
  if (last === undefined) return only({ ...state, message: 'q quits' })
  return entered({ ...state, behind: state.behind.slice(0, -1), cursor: last.cursor }, last.view)
}

function tabbed(state: TopState, key: string): Updated {
  const { view } = state
  if (view.kind !== 'jobs') return only(state)
  const at = TABS.indexOf(view.tab)
  const tab: Tab | undefined = key === 'tab' ? TABS[(at + 1) % TABS.length] : TABS[['1', '2', '3'].indexOf(key)]
  if (tab === undefined || tab === view.tab) return only(state)
  return entered({ ...state, cursor: { key: undefined, at: 0 } }, { ...view, tab })
}

function entered(state: TopState, view: View): Updated {
  return { state: { ...state, view, seen: undefined, trouble: undefined }, effects: [{ kind: 'look' }] }
}

function pausing(state: TopState): Updated {
  const target = targetOf(state)
  if (target === undefined) return only({ ...state, message: 'nothing is under the cursor' })
  const kind = isTargetPaused(state, target) ? 'resume' : 'pause'
  return only({ ...state, question: { text: `${kind} ${targetText(target)}?`, effect: { kind, target } } })
}

function redriving(state: TopState, isAll: boolean): Updated {
  const target = targetOf(state)
  if (target?.group === undefined)
    return only({ ...state, message: 'open a stream first: dead letters are of a group' })
  if (state.isBusy) return only({ ...state, message: 'dead letters are being dealt with already; Esc ends that' })
  const isLetter = !isAll && state.view.kind === 'jobs' && state.view.tab === 'dead'
  const deadId = isLetter ? rowKey(state) : undefined
  if (isLetter && deadId === undefined) return only({ ...state, message: 'no dead letter is under the cursor' })
  const asked: RedriveAsked = { stream: target.stream, group: target.group, deadId }
  const message = 'counting dead letters; Esc ends that'
  return { state: { ...state, message, isBusy: true }, effects: [{ kind: 'plan', asked }] }
}

function planned(
  state: TopState,
  { asked, count, untilDeadId }: Extract<Happening, { readonly kind: 'planned' }>,
): Updated {
  const idle = { ...state, isBusy: false, message: undefined }
  const place = `of group ${asked.group} of ${asked.stream}`
  if (count === 0) return only({ ...idle, message: `nothing to redrive ${place}` })
  const effect: Effect = { kind: 'redrive', asked, untilDeadId }
  const text = `redrive ${plural(count, 'dead letter')} ${place}?`
  return only({ ...idle, question: { text, effect } })
}

/** What a key that changes something is about: the stream or the group under the cursor, or the one whose jobs are shown. */
export function targetOf(state: TopState): Target | undefined {
  const { view } = state
  if (view.kind === 'jobs') return { stream: view.stream, group: view.group }
  const row = rowKey(state)
  if (row === undefined) return undefined
  return view.kind === 'streams' ? { stream: row, group: undefined } : { stream: view.stream, group: row }
}

export function targetText({ stream, group }: Target): string {
  return group === undefined ? `stream ${stream}` : `group ${group} of ${stream}`
}

function isTargetPaused({ seen }: TopState, { stream, group }: Target): boolean {
  if (seen === undefined) return false
  const { streams } = seen.kind === 'streams' ? seen : { streams: [seen.stats] }
  const stats = streams.find((each) => each.stream === stream)
  const paused = group === undefined ? stats?.paused : stats?.groups.find((each) => each.group === group)?.paused
  return paused !== undefined && paused !== null
}

/** Of a row that is shown, and of nothing else. */
function rowKey({ seen, cursor }: TopState): string | undefined {
  return keysOf(seen)[cursor.at]
}
