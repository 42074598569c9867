import { existingGroup } from '../existing.ts'
import { MillraceError, OptionError } from '../errors.ts'
import type { AuditScope } from './gather.ts'
import { checkRange, type Range } from '../range.ts'
import type { Client } from '../redis/connection.ts'
import { MINUTE_MS, minuteOf, readAuditSettings, type AuditPlace } from '../redis/auditing.ts'
import { isEntryId } from '../redis/entry-id.ts'
import { readHistoryOf, type History } from '../redis/reading.ts'
import { dateOf } from '../redis/whereabouts.ts'

/** Which minutes are audited: whole ones, for an audit adds up what is counted by the minute. */

/** A range in minutes since the epoch; undefined ends are for the history to say. */
export interface MinuteRange {
  readonly low: number | undefined
  readonly high: number | undefined
}

/** @throws OptionError as of any range. */
export function minuteRange(range: Range): MinuteRange {
  checkRange(range)
  const { from, to } = range
  if (to === 0) throw new OptionError('expected `to` to be after 1970-01-01T00:00:00.000Z')
  return {
    low: from === undefined ? undefined : minuteAt(from),
    high: to === undefined ? undefined : minuteAt(typeof to === 'number' ? to - 1 : to),
  }
}

function minuteAt(end: number | string): number {
  return typeof end === 'string' && isEntryId(end) ? minuteOf(end) : Math.floor(Number(end) / MINUTE_MS)
}

/** Ids ahead of the server's clock are of one that has jumped back; further ahead they are no dates. */
export const MOST_AHEAD = 60

/**
 * What an audit looks at.
 * @throws MillraceError ERR_NOT_FOUND, UnknownGroupError; ERR_HISTORY if the range begins before the first whole minute that
 * the stream still holds: of older ones the outcomes are counted, and the entries are not there to be counted with them.
 */
export async function scopeOf(
  client: Client,
  place: AuditPlace,
  { low, high }: MinuteRange,
): Promise<{ scope: AuditScope; isRecording: boolean }> {
  const { nowMs } = await existingGroup(client, place.stream, place.group)
  const history = await readHistoryOf(client, place.stream)
  const { hasDelayed, isRecording } = await readAuditSettings(client, place)
  const oldest = 'type' in history ? undefined : firstWholeMinute(history)
  if (low !== undefined && oldest !== undefined && low < oldest) {
    if (!('type' in history) && history.hasLost !== false) throw beforeHistory(place.stream, history, oldest)
  }
  const now = Math.floor(nowMs / MINUTE_MS)
  const newest = 'type' in history ? now : minuteOf(history.newestId ?? history.lastId)
  const last = newest > now && newest <= now + MOST_AHEAD ? newest : now
  const first = low ?? oldest ?? now + 1
  const scope = {
    ...place,
    ...{ nowMs, hasDelayed, isOpen: low === undefined },
    low: first,
    high: Math.min(high ?? last, last),
  }
  return { scope, isRecording }
}

/** What was removed may have been of the oldest minute too. */
export function firstWholeMinute({ oldestId, hasLost, lastId }: History): number | undefined {
  if (oldestId !== undefined) return minuteOf(oldestId) + (hasLost === false ? 0 : 1)
  return hasLost === false ? undefined : minuteOf(lastId) + 1
}

function beforeHistory(stream: string, { oldestId }: History, oldest: number): MillraceError {
  const begins = oldestId === undefined ? 'is empty' : `begins at ${dateOf(oldestId)} with entry ${oldestId}`
  return new MillraceError(
    'ERR_HISTORY',
    `the history of ${stream} ${begins}: what is older was removed, and can not be added up any more; ` +
      `its first whole minute is ${dateOf(`${oldest * MINUTE_MS}-0`)}: ask from there on`,
  )
}
