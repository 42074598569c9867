import type { Asking } from './asking.ts'
import { OptionError } from './errors.ts'
import { existingGroup, existingStream } from './existing.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { checkGroupName, checkStreamName } from './redis/keys.ts'
import type { Pause } from './redis/pause.ts'
import { pauseNow, resumeNow, type PauseWanted } from './redis/pausing.ts'

/** Pausing and resuming a stream or one of its groups. */

export interface PauseOptions {
  /** Pause this group only. @default all groups of the stream, also those that are made later */
  group?: string
  /** For so long, in ms, at most a year. @default until it is resumed */
  forMs?: number
  /** Until then, in ms since the epoch, by the time of Redis. */
  untilMs?: number
  /** At most 200 characters, shown wherever the pause is. */
  reason?: string
  /** Who pauses it: at most 100 characters. */
  by?: string
}

export interface PauseResult {
  readonly stream: string
  /** Null where the whole stream is paused. */
  readonly group: string | null
  readonly paused: Pause
  /** The pause that was in force already, and is replaced by this one. */
  readonly replaced: Pause | null
}

export interface ResumeResult {
  readonly stream: string
  readonly group: string | null
  /** The pause that this has ended; null if there was none: nothing was changed then. */
  readonly was: Pause | null
  /** What stays paused all the same: of a group, its stream (`group` null); of a stream, groups that are paused by themselves. */
  readonly still: readonly { readonly group: string | null; readonly pause: Pause }[]
}

const LONGEST_MS = 366 * 86_400_000
const REASON_MOST = 200
const BY_MOST = 100

export async function pauseStream(asking: Asking, stream: string, options: PauseOptions = {}): Promise<PauseResult> {
  checkStreamName(stream)
  const wanted = checkPause(options)
  const { group } = wanted
  return asking.run(`a pause of ${stream}`, async (client) => {
    if (group === null) await existingStream(client, stream)
    else await existingGroup(client, stream, group)
    const { paused, replaced = null } = await pauseNow(client, stream, wanted)
    return { stream, group, paused, replaced }
  })
}

export async function resumeStream(
  asking: Asking,
  stream: string,
  options: { group?: string } = {},
): Promise<ResumeResult> {
  checkStreamName(stream)
  refuseUnknownKeys('resume', options, ['group'])
  const group = options.group === undefined ? null : checkGroupName(options.group)
  return asking.run(`a resume of ${stream}`, async (client) => {
    const { groups } = await (group === null ? existingStream(client, stream) : existingGroup(client, stream, group))
    const others = group === null ? [...groups].sort() : [null]
    const { was = null, still } = await resumeNow(client, stream, { group, others })
    return { stream, group, was, still }
  })
}

function checkPause(options: PauseOptions): PauseWanted {
  refuseUnknownKeys('pause', options, ['group', 'forMs', 'untilMs', 'reason', 'by'])
  const { group, forMs, untilMs, reason, by } = options
  if (forMs !== undefined && untilMs !== undefined) {
    throw new OptionError('expected either `forMs` or `untilMs`: both say when the pause is over')
  }
  return {
    group: group === undefined ? null : checkGroupName(group),
    forMs: forMs === undefined ? undefined : wholeNumber('forMs', forMs, { or: 0, min: 1, max: LONGEST_MS }),
    untilMs: untilMs === undefined ? undefined : wholeNumber('untilMs', untilMs, { or: 0, max: 8.64e15 }),
    reason: checkText('reason', reason, REASON_MOST),
    by: checkText('by', by, BY_MOST),
  }
}

function checkText(name: string, text: unknown, most: number): string {
  if (text === undefined) return ''
  if (typeof text === 'string' && text.length <= most) return text
  const got = typeof text === 'string' ? `${text.length} characters` : shown(text)
  throw new OptionError(`expected \`${name}\` to be a text of at most ${most} characters, got ${got}`)
}
