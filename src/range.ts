import { existingStream } from './existing.ts'
import { MillraceError, OptionError } from './errors.ts'
import { refuseUnknownKeys, shown } from './options.ts'
import type { Client } from './redis/connection.ts'
import { checkJobId, compareIds, isEntryId, LAST_SEQ } from './redis/entry-id.ts'
import { readHistoryOf, type History } from './redis/reading.ts'
import { dateOf } from './redis/whereabouts.ts'

/** A range of a stream's history: by time or by entry. */
export interface Range {
  /** The first entry: its id, or the time in ms since the epoch from which on. @default the oldest entry */
  readonly from?: number | string
  /** The last entry: its id, or the time in ms since the epoch before which. @default the newest entry */
  readonly to?: number | string
}

/** A range as it was checked: ids of entries, both ends included. */
export interface IdRange {
  readonly low: string
  readonly high: string
}

/** @throws OptionError for what is neither a time nor an id, and for a range that ends before it begins. */
export function checkRange({ from, to }: Range): { low: string | undefined; high: string | undefined } {
  const low = from === undefined ? undefined : typeof from === 'number' ? `${checkMs('from', from)}-0` : checkEnd(from)
  const high = to === undefined ? undefined : typeof to === 'number' ? lastBefore(checkMs('to', to)) : checkEnd(to)
  if (low !== undefined && high !== undefined && compareIds(low, high) > 0) {
    throw new OptionError(`expected \`to\` to be after \`from\`, got a range from ${endText(from)} to ${endText(to)}`)
  }
  return { low, high }
}

/** An end as it was given. */
function endText(end: number | string | undefined): string {
  return typeof end === 'number' ? dateOf(`${end}-0`) : String(end)
}

/** The keys of a range among other options. */
export const RANGE_KEYS = ['from', 'to'] as const

/** @throws OptionError; for callers whose options are nothing but a range. */
export function checkRangeOnly(where: string, range: Range): ReturnType<typeof checkRange> {
  refuseUnknownKeys(where, range, RANGE_KEYS)
  return checkRange(range)
}

/** A range of what a stream still holds; `range` is undefined where it holds nothing in it. */
export interface HistoryRange extends History {
  readonly range: IdRange | undefined
}

/**
 * What a stream holds of a range. It ends at the newest entry that is there now: what comes later is not meant.
 * @throws MillraceError ERR_NOT_FOUND if there is no such stream; ERR_HISTORY if the range begins before the history does:
 * what it asks for was there once, and nobody must take the rest for all of it.
 */
export async function historyRange(
  client: Client,
  stream: string,
  { low, high }: { low: string | undefined; high: string | undefined },
): Promise<HistoryRange> {
  const history = await readHistoryOf(client, stream)
  if ('type' in history) {
    const { nowMs } = await existingStream(client, stream)
    // Only delayed publishes so far: the stream exists, and has no entries.
    const none = { entries: 0, oldestId: undefined, newestId: undefined, hasLost: false, lastId: '0-0' }
    return { nowMs, ...none, range: undefined }
  }
  const { oldestId, newestId } = history
  if (low !== undefined && history.hasLost !== false) {
    if (oldestId === undefined) throw nothingHeld(stream)
    if (compareIds(low, oldestId) < 0) throw beforeHistory(stream, low, oldestId)
  }
  if (oldestId === undefined || newestId === undefined) return { ...history, range: undefined }
  const first = low === undefined || compareIds(low, oldestId) < 0 ? oldestId : low
  const last = high === undefined || compareIds(high, newestId) > 0 ? newestId : high
  return { ...history, range: compareIds(first, last) > 0 ? undefined : { low: first, high: last } }
}

function nothingHeld(stream: string): MillraceError {
  return new MillraceError(
    'ERR_HISTORY',
    `stream ${stream} holds no entries any more: retention has trimmed them, or somebody deleted them`,
  )
}

function beforeHistory(stream: string, low: string, oldestId: string): MillraceError {
  return new MillraceError(
    'ERR_HISTORY',
    `the history of ${stream} begins at ${dateOf(oldestId)} with entry ${oldestId}, and the range at ${dateOf(low)}: ` +
      `what is older was removed; ask from ${oldestId} on`,
  )
}

function checkMs(name: string, ms: number): number {
  if (Number.isSafeInteger(ms) && ms >= 0) return ms
  throw new OptionError(`expected \`${name}\` to be ms since the epoch or an entry id, got ${shown(ms)}`)
}

function checkEnd(id: unknown): string {
  if (typeof id === 'string' && isEntryId(id)) return checkJobId(id)
  throw new OptionError(`expected an end of the range to be ms since the epoch or an entry id, got ${shown(id)}`)
}

/** The highest id before a time. */
function lastBefore(ms: number): string {
  return ms === 0 ? '0-0' : `${ms - 1}-${LAST_SEQ}`
}
