import type { DeadPage, GroupHistory, PendingPage, StreamStats, WorkersPage } from '../../src/index.ts'

/** What `top` knows at a moment. Plain data: `update` makes the next of it, `draw` makes lines of it. */

export const TABS = ['pending', 'dead', 'workers'] as const
export type Tab = (typeof TABS)[number]

export type View =
  | { readonly kind: 'streams' }
  | { readonly kind: 'groups'; readonly stream: string }
  | { readonly kind: 'jobs'; readonly stream: string; readonly group: string; readonly tab: Tab }

/** What was seen in a view. */
export type Seen =
  | { readonly kind: 'streams'; readonly streams: readonly StreamStats[] }
  | { readonly kind: 'groups'; readonly stats: StreamStats; readonly history: GroupHistory | undefined }
  | { readonly kind: 'jobs'; readonly stats: StreamStats; readonly of: JobsSeen }

export type JobsSeen =
  | { readonly tab: 'pending'; readonly page: PendingPage }
  | { readonly tab: 'dead'; readonly page: DeadPage }
  | { readonly tab: 'workers'; readonly page: WorkersPage }

/** Where the cursor is: on a row, which may move under it, and at a place, for when the row is gone. */
export interface Cursor {
  readonly key: string | undefined
  readonly at: number
}

export interface TopState {
  readonly view: View
  readonly cursor: Cursor
  /** The views that Esc leads back to, and where the cursor was in them. */
  readonly behind: readonly { readonly view: View; readonly cursor: Cursor }[]
  /** Undefined until the first look at this view is there. */
  readonly seen: Seen | undefined
  /** When that was, in ms since the epoch. */
  readonly seenMs: number
  /** What is wrong at the moment: Redis is away, the stream is gone. */
  readonly trouble: string | undefined
  /** What became of the last key. */
  readonly message: string | undefined
  /** What waits for y or n. */
  readonly question: Question | undefined
  /** Dead letters are being counted or redriven; Esc ends that. */
  readonly isBusy: boolean
  readonly isHelp: boolean
}

export interface Question {
  readonly text: string
  readonly effect: Effect
}

export interface Target {
  readonly stream: string
  readonly group: string | undefined
}

export interface RedriveAsked {
  readonly stream: string
  readonly group: string
  /** One dead letter only. */
  readonly deadId: string | undefined
}

/** What the loop is to do. */
export type Effect =
  | { readonly kind: 'quit' }
  | { readonly kind: 'look' }
  | { readonly kind: 'plan'; readonly asked: RedriveAsked }
  | { readonly kind: 'redrive'; readonly asked: RedriveAsked; readonly untilDeadId: string | null }
  | { readonly kind: 'stop' }
  | { readonly kind: 'pause' | 'resume'; readonly target: Target }

/** What the loop tells. */
export type Happening =
  | { readonly kind: 'key'; readonly key: string; readonly page: number }
  | { readonly kind: 'seen'; readonly view: View; readonly seen: Seen; readonly atMs: number }
  | { readonly kind: 'trouble'; readonly text: string }
  | {
      readonly kind: 'planned'
      readonly asked: RedriveAsked
      readonly count: number
      readonly untilDeadId: string | null
    }
  | { readonly kind: 'told'; readonly text: string; readonly isBusy: boolean }

export function firstState(stream: string | undefined): TopState {
  const streams: View = { kind: 'streams' }
  const nowhere: Cursor = { key: undefined, at: 0 }
  const inStream = stream === undefined ? undefined : ({ kind: 'groups', stream } as const)
  return {
    view: inStream ?? streams,
    cursor: nowhere,
    behind: inStream === undefined ? [] : [{ view: streams, cursor: { key: stream, at: 0 } }],
    seen: undefined,
    seenMs: 0,
    trouble: undefined,
    message: undefined,
    question: undefined,
    isBusy: false,
    isHelp: false,
  }
}

export function isSameView(a: View, b: View): boolean {
  return JSON.stringify(a) === JSON.stringify(b)
}
