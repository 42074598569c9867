import { OptionError } from '../errors.ts'
import { checkJobName } from '../job.ts'
import { refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { checkRange, type Range } from '../range.ts'
import { checkJobId, isCopyId } from '../redis/entry-id.ts'
import { checkGroupName, checkStreamName } from '../redis/keys.ts'
import type { ReplayTarget } from './state.ts'
import type { JobFilter } from '../scan.ts'
import { compileWhere } from '../where.ts'

/** How far a replay is. */
export interface ReplayProgress {
  readonly id: string
  readonly copied: number
  readonly scanned: number
  /** How much of it is done, from 0 to 1, as far as that can be told: by time where the number of jobs is not known. */
  readonly fraction: number
}

/** What is to be replayed, and where to. */
export interface ReplayOptions extends Range {
  /** Jobs by their ids, up to 100 000, in place of a range. */
  readonly ids?: readonly string[]
  /** Only jobs of this name. @default any */
  readonly job?: string
  /** Only jobs for which this condition holds, such as `data.order > 40`. @default any */
  readonly where?: string
  /** The group of the stream that gets them; exactly one of `group` and `toStream`. */
  readonly group?: string
  /** The stream that they are appended to, not the one that is read. */
  readonly toStream?: string
  /** How many jobs at most, the oldest first. @default all */
  readonly limit?: number
  /** How many jobs a second at most. @default as fast as Redis takes them */
  readonly perSecond?: number
  /** Replay also what a replay brought into the stream. @default false */
  readonly includeReplays?: boolean
  /** Pauses it: the step on its way is waited for. */
  readonly signal?: AbortSignal
  /** Called when it was taken up and after every step; of a dry run, after every page. */
  readonly onProgress?: (progress: ReplayProgress) => void
}

/** The same, checked. */
export interface Asked {
  readonly source: string
  readonly target: ReplayTarget
  readonly bounds: { readonly low: string | undefined; readonly high: string | undefined }
  readonly ids: readonly string[] | undefined
  readonly filter: JobFilter
  readonly limit: number | undefined
  readonly perSecond: number | undefined
  readonly includeReplays: boolean
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: ReplayProgress) => void) | undefined
}

const KNOWN = [
  'from',
  'to',
  'ids',
  'job',
  'where',
  'group',
  'toStream',
  'limit',
  'perSecond',
  'includeReplays',
  'signal',
  'onProgress',
]
const MOST_IDS = 100_000
/** The fastest rate that is kept: what is more is no rate. */
export const MOST_PER_SECOND = 1_000_000

/** @throws OptionError */
export function checkAsked(where: string, source: string, options: ReplayOptions): Asked {
  refuseUnknownKeys(where, options, KNOWN)
  checkStreamName(source)
  const { from, to, ids, job, includeReplays, signal, onProgress } = options
  if (ids === undefined && from === undefined) {
    throw new OptionError(
      'expected `from` or `ids`: what to replay must be said; for all that the stream still holds, give its oldest entry, or 0',
    )
  }
  if (ids !== undefined && (from !== undefined || to !== undefined)) {
    throw new OptionError('expected either `ids` or a range of `from` and `to`, got both')
  }
  if (includeReplays !== undefined && typeof includeReplays !== 'boolean') {
    throw new OptionError(`expected \`includeReplays\` to be true or false, got ${shown(includeReplays)}`)
  }
  return {
    source,
    target: targetOf(source, options),
    bounds: checkRange(options),
    ids: ids === undefined ? undefined : checkIds(ids),
    filter: {
      job: job === undefined ? undefined : checkJobName(job),
      where: options.where === undefined ? undefined : compileWhere(options.where),
    },
    limit: optionalNumber('limit', options.limit, Number.MAX_SAFE_INTEGER),
    perSecond: optionalNumber('perSecond', options.perSecond, MOST_PER_SECOND),
    includeReplays: includeReplays === true,
    signal,
    onProgress,
  }
}

export function optionalNumber(name: string, value: number | undefined, max: number): number | undefined {
  return value === undefined ? undefined : wholeNumber(name, value, { or: 0, max })
}

function targetOf(source: string, { group, toStream }: ReplayOptions): ReplayTarget {
  if ((group === undefined) === (toStream === undefined)) {
    throw new OptionError(
      `expected either \`group\` or \`toStream\`, got ${group === undefined ? 'neither' : 'both'}: ` +
        'a replay goes to one group of the stream or into another stream',
    )
  }
  if (toStream === undefined) return { stream: source, group: checkGroupName(group) }
  if (checkStreamName(toStream) === source) {
    throw new OptionError(
      `expected \`toStream\` to be another stream than ${source}, which is read: it would never end, and every group would ` +
        'get the jobs again; give `group` to have one group of it run them again',
    )
  }
  return { stream: toStream, group: null }
}

function checkIds(ids: readonly string[]): string[] {
  if (!Array.isArray(ids) || ids.length === 0 || ids.length > MOST_IDS) {
    const got = Array.isArray(ids) ? `${ids.length}` : shown(ids)
    throw new OptionError(`expected \`ids\` to be a list of 1 to ${MOST_IDS} job ids, got ${got}`)
  }
  for (const id of ids) {
    if (isCopyId(checkJobId(id))) {
      throw new OptionError(
        `expected \`ids\` of jobs in the history, got ${id}, which a replay has made: name the job that it is a copy of`,
      )
    }
  }
  return [...new Set<string>(ids)]
}
