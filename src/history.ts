import type { Asking } from './asking.ts'
import { existingGroup } from './existing.ts'
import { refuseUnknownKeys, wholeNumber } from './options.ts'
import { tallySlot } from './redis/entry-id.ts'
import { readTallies } from './redis/history.ts'

/** What became of the jobs of the last minutes. The counts stand at the minute in which a job was published. */

export interface HistoryOptions {
  /** How far back, up to 1440 (24 hours). @default 60 */
  minutes?: number
}

/** Jobs that were published in one minute, by what became of them so far. */
export interface HistoryMinute {
  /** When the minute began, in ms since the epoch by the clock of Redis. */
  readonly ms: number
  readonly completed: number
  /** Attempts that failed and were scheduled again. */
  readonly retried: number
  readonly dead: number
  readonly cancelled: number
  /** Jobs that the group does not want. */
  readonly skipped: number
  /** Completions of jobs that were settled already: they ran twice. */
  readonly late: number
  readonly redriven: number
  /** Copies that a replay brought into the group in that minute. */
  readonly replayed: number
}

export interface GroupHistory {
  readonly group: string
  /** Oldest first, without gaps; the last is the minute that runs. */
  readonly minutes: readonly HistoryMinute[]
}

const OUTCOMES = ['completed', 'retried', 'dead', 'cancelled', 'skipped', 'late', 'redriven', 'replayed'] as const
const MINUTE_MS = 60_000
const MOST_MINUTES = 24 * 60

/** @throws OptionError; MillraceError ERR_NOT_FOUND; UnknownGroupError; RedisError. */
export async function groupHistory(
  asking: Asking,
  stream: string,
  group: string,
  options: HistoryOptions = {},
): Promise<GroupHistory> {
  refuseUnknownKeys('history', options, ['minutes'])
  const count = wholeNumber('minutes', options.minutes, { or: 60, max: MOST_MINUTES })
  return asking.run(`the history of ${stream}`, async (client) => {
    const { nowMs } = await existingGroup(client, stream, group)
    const asked = minutesUntil(nowMs, count)
    const hours = [...new Set(asked.map((ms) => tallySlot(`${ms}-0`).hour))]
    return { group, minutes: historyOf(asked, await readTallies(client, { stream, group }, hours)) }
  })
}

/** When the last `count` minutes began, oldest first. Pure. */
export function minutesUntil(nowMs: number, count: number): number[] {
  const last = Math.floor(nowMs / MINUTE_MS)
  return Array.from({ length: count }, (_, at) => (last - count + 1 + at) * MINUTE_MS)
}

/** Pure. What is no count was written by somebody else, and counts as nothing. */
export function historyOf(
  minutes: readonly number[],
  tallies: ReadonlyMap<string, Readonly<Record<string, string>>>,
): HistoryMinute[] {
  return minutes.map((ms) => {
    const { hour, minute } = tallySlot(`${ms}-0`)
    const tally = tallies.get(hour) ?? {}
    const counts = OUTCOMES.map((outcome) => [outcome, countOf(tally[`${minute}:${outcome}`])])
    return { ms, ...(Object.fromEntries(counts) as Record<(typeof OUTCOMES)[number], number>) }
  })
}

function countOf(text: string | undefined): number {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : 0
}
