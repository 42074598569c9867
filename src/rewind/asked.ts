import { MillraceError, OptionError } from '../errors.ts'
import { refuseUnknownKeys, shown } from '../options.ts'
import { checkJobId, compareIds, isEntryId, timeOf } from '../redis/entry-id.ts'
import { checkGroupName, checkStreamName } from '../redis/keys.ts'
import type { GroupPoint } from '../redis/rewinding.ts'
import { dateOf } from '../redis/whereabouts.ts'

/** What a rewind is asked to do, and what it cannot do. Pure. */

export interface RewindOptions {
  /** The first entry that runs again: its id, or the time in ms since the epoch from which on everything runs again. */
  to: number | string
  /** Set the group back; else it is only told what that would be. @default false */
  execute?: boolean
  /** Also while workers of the group are alive: what they run now runs once more beside that. @default false */
  force?: boolean
  /** Ends it while it still counts: the call rejects with the signal's reason, and nothing was changed. */
  signal?: AbortSignal
  /** Called as the entries are counted, with how many so far. */
  onProgress?: (entries: number) => void
}

/** What is asked for, checked. */
export interface RewindAsked {
  readonly stream: string
  readonly group: string
  /** The first entry that may run again, and the id right before it. */
  readonly firstId: string
  readonly toId: string
  readonly force: boolean
  readonly signal: AbortSignal | undefined
  readonly onProgress: (entries: number) => void
}

const LAST_SEQ = 18_446_744_073_709_551_615n

/** @throws OptionError */
export function checkRewind(stream: string, group: string, options: RewindOptions): RewindAsked {
  checkStreamName(stream)
  checkGroupName(group)
  refuseUnknownKeys('rewind', options, ['to', 'execute', 'force', 'signal', 'onProgress'])
  const firstId = checkPoint(options.to)
  const { force, signal, onProgress = () => {} } = options
  return { stream, group, firstId, toId: idBefore(firstId), force: force === true, signal, onProgress }
}

function checkPoint(to: unknown): string {
  if (typeof to === 'number' && Number.isSafeInteger(to) && to >= 0) return to === 0 ? '0-1' : `${to}-0`
  // As `--from 0-0` of a replay: from the beginning on. No entry has this id.
  if (to === '0-0') return '0-1'
  if (typeof to === 'string' && isEntryId(to)) return checkJobId(to)
  throw new OptionError(`expected \`to\` to be ms since the epoch or an entry id, got ${shown(to)}`)
}

/** The highest id below one. */
export function idBefore(id: string): string {
  const [ms = '0', seq = '0'] = id.split('-')
  return seq === '0' ? `${BigInt(ms) - 1n}-${LAST_SEQ}` : `${ms}-${BigInt(seq) - 1n}`
}

/** Why a point cannot be rewound to, if it cannot: it is ahead of the group, or what is there was removed. */
export function refusalOf({ stream, group, firstId, toId }: RewindAsked, point: GroupPoint): MillraceError | undefined {
  const { lastId, unreadId, oldestId, hasLost, nowMs } = point
  if (compareIds(toId, lastId) >= 0) {
    const skips = unreadId !== undefined && compareIds(unreadId, toId) <= 0
    return skips || timeOf(firstId) > nowMs ? ahead({ stream, group, firstId }, lastId) : undefined
  }
  if (hasLost === false || (oldestId !== undefined && compareIds(firstId, oldestId) >= 0)) return undefined
  return notHeld({ stream, firstId }, oldestId)
}

function ahead(
  { stream, group, firstId }: Pick<RewindAsked, 'stream' | 'group' | 'firstId'>,
  lastId: string,
): OptionError {
  const upTo = lastId === '0-0' ? 'nothing yet' : `entries up to ${lastId} (${dateOf(lastId)})`
  return new OptionError(
    `group ${group} of ${stream} has been given ${upTo}, and ${firstId} (${dateOf(firstId)}) is ahead of that: ` +
      'a rewind skips nothing; what the group has not been given yet it is given without one, ' +
      'and jobs that shall not run are to be cancelled; nothing was changed',
  )
}

export function notHeld(
  { stream, firstId }: Pick<RewindAsked, 'stream' | 'firstId'>,
  oldestId: string | undefined,
): MillraceError {
  const held =
    oldestId === undefined
      ? `stream ${stream} holds no entries any more: retention has trimmed them, or somebody deleted them`
      : `the history of ${stream} begins at ${dateOf(oldestId)} with entry ${oldestId}, and ${firstId} is of ` +
        `${dateOf(firstId)}: what is older was removed; rewind to ${oldestId}`
  return new MillraceError('ERR_HISTORY', `${held}; nothing was changed`)
}

export function workersAlive({ stream, group }: RewindAsked, workers: number): MillraceError {
  return new MillraceError(
    'ERR_WORKERS_ALIVE',
    `group ${group} of ${stream} has ${workers} live ${workers === 1 ? 'worker' : 'workers'}; stop them first, or use ` +
      '`force`: then what they run now runs once more beside that; nothing was changed',
  )
}
