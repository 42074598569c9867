import type { Asking } from './asking.ts'
import { cancelJob, checkJobAsked, type CancelOptions, type CancelResult } from './cancel.ts'
import { MillraceError, OptionError } from './errors.ts'
import { existingGroup } from './existing.ts'
import { groupsAsked, notScheduled } from './job-places.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import type { Client } from './redis/connection.ts'
import { checkGroupName, checkStreamName } from './redis/keys.ts'
import { hasDelayed, moveDue, readOneScheduled, readScheduled, readTime, type ScheduledRow } from './redis/scheduled.ts'
import { compareScheduled, cursorOf, firstOf, parseCursor, scoreMs, startIn, type Ordered } from './scheduled-order.ts'

/** A job that waits to become due: a delayed publish, the next attempt of one that failed in a group, or one that waits there at no cost. */
export interface ScheduledJob {
  readonly id: string
  /** The job's name; null if what it will be is missing or not to be read. */
  readonly job: string | null
  /** The group that it will go to; null for a delayed publish, which goes to the stream and so to every group. */
  readonly group: string | null
  /** When it is due by the server's clock, in ms since the epoch; null if it could not be moved and was set aside. */
  readonly dueMs: number | null
  /** Attempts that failed. */
  readonly attempt: number
  /** What the last attempt failed with, `Name: message`; `waits: …` and for what; empty for a delayed publish. */
  readonly error: string
  /** What it takes in Redis. */
  readonly bytes: number
}

export interface ScheduledJobs {
  /** The server's time in ms since the epoch. */
  readonly nowMs: number
  /** By due time, those that were set aside last. */
  readonly jobs: readonly ScheduledJob[]
  /** What to pass as `after` for the next page; null if this is the last. */
  readonly next: string | null
}

export interface ScheduledJobDetail extends ScheduledJob {
  /** Its payload as JSON text; null if it has none. */
  readonly data: string | null
  /** The other fields of the entry that it will be: name and value, in their order. */
  readonly fields: readonly (readonly [name: string, value: string])[]
}

export interface ScheduledListOptions {
  /** Only the retries of this group. @default delayed publishes and the retries of all groups */
  group?: string
  /** Jobs a page, up to 1000. @default 100 */
  limit?: number
  /** `next` of the page before. @default the first page */
  after?: string
}

export interface RescheduleOptions {
  /** Due in so many ms from now, by the server's clock, up to ten years. Either this or `runAt`. */
  delayMs?: number
  /** Due at this time, a Date or ms since the epoch, at most ten years from now; a time in the past is now. */
  runAt?: Date | number
  /** Only the retry of this group. @default wherever it is scheduled */
  group?: string
}

/** Where a job is due from now on; group null for a delayed publish. */
export interface Rescheduled {
  readonly stream: string
  readonly id: string
  readonly places: readonly { readonly group: string | null; readonly dueMs: number }[]
}

const TEN_YEARS_MS = 10 * 365.25 * 24 * 3_600_000

/**
 * What waits to become due on a stream: delayed publishes, and the retries of its groups. Every method throws OptionError
 * on a wrong name, id or option, MillraceError ERR_NOT_FOUND where there is no such stream, group (ERR_UNKNOWN_GROUP) or
 * job, and RedisError if Redis cannot be reached or refuses.
 */
export class Scheduled {
  readonly #asking: Asking

  constructor(asking: Asking) {
    this.#asking = asking
  }

  /** A page of what is scheduled, without payloads. Pages stay true while jobs come, go and change their due time. */
  async list(stream: string, options: ScheduledListOptions = {}): Promise<ScheduledJobs> {
    refuseUnknownKeys('scheduled.list', options, ['group', 'limit', 'after'])
    checkStreamName(stream)
    if (options.group !== undefined) checkGroupName(options.group)
    const limit = wholeNumber('limit', options.limit, { or: 100, max: 1000 })
    const after = options.after === undefined ? undefined : parseCursor(options.after)
    return this.#asking.run(`what is scheduled on ${stream}`, async (client) => {
      const places = await this.#places(client, stream, options.group)
      let found: ScheduledRow[] = []
      for (const group of places) found = await nearest(client, stream, { group, after, found, most: limit + 1 })
      const page = found.slice(0, limit)
      const last = page.at(-1)
      const next = found.length > limit && last !== undefined ? cursorOf(last) : null
      return { nowMs: await readTime(client), jobs: page.map(jobOf), next }
    })
  }

  /** A scheduled job with its payload: one for each place where it waits, which is one but for retries in several groups. */
  async show(stream: string, jobId: string, options: { group?: string } = {}): Promise<ScheduledJobDetail[]> {
    checkJobAsked('scheduled.show', stream, jobId, options)
    return this.#asking.run(`job ${jobId} on ${stream}`, async (client) => {
      const found: ScheduledJobDetail[] = []
      for (const group of await this.#places(client, stream, options.group)) {
        const one = await readOneScheduled(client, stream, group, jobId)
        if (one !== undefined) found.push(detailOf(one.row, one.fields))
      }
      if (found.length === 0) throw await notScheduled(client, stream, { jobId, group: options.group })
      return found
    })
  }

  /** The same as `Inspector.cancel`: cancels a job wherever it is. */
  async cancel(stream: string, jobId: string, options: CancelOptions = {}): Promise<CancelResult> {
    checkJobAsked('scheduled.cancel', stream, jobId, options)
    return this.#asking.run(`a cancel of job ${jobId} on ${stream}`, (client) =>
      cancelJob(client, stream, jobId, options),
    )
  }

  /**
   * Gives a scheduled job another due time; one that was set aside is tried again then.
   * @throws MillraceError ERR_NOT_FOUND if it is not scheduled, and says where it is; or if what it will be is not to be
   * read any more, and it can only be cancelled.
   */
  async reschedule(stream: string, jobId: string, options: RescheduleOptions): Promise<Rescheduled> {
    const { group } = options
    refuseUnknownKeys('scheduled.reschedule', options, ['delayMs', 'runAt', 'group'])
    checkJobAsked('scheduled.reschedule', stream, jobId, group === undefined ? {} : { group })
    return this.#moveDue(stream, jobId, group, dueOf(options))
  }

  /** Makes a scheduled job due now: a worker of its group, or for a delayed publish of any group, moves it within a pulse. */
  async promote(stream: string, jobId: string, options: { group?: string } = {}): Promise<Rescheduled> {
    checkJobAsked('scheduled.promote', stream, jobId, options)
    return this.#moveDue(stream, jobId, options.group, { how: 'in', ms: 0 })
  }

  async #moveDue(stream: string, jobId: string, group: string | undefined, due: Due): Promise<Rescheduled> {
    return this.#asking.run(`another due time of job ${jobId} on ${stream}`, async (client) => {
      const places: { group: string | null; dueMs: number }[] = []
      let isBroken = false
      for (const place of await this.#places(client, stream, group)) {
        const moved = await moveDue(client, stream, place, { jobId, due, mostMs: TEN_YEARS_MS })
        if (moved.outcome === 'far') throw new OptionError('expected `runAt` to be at most ten years from now')
        if (moved.outcome === 'ok') places.push({ group: place, dueMs: moved.dueMs })
        isBroken ||= moved.outcome === 'broken'
      }
      if (isBroken) throw broken(stream, jobId)
      if (places.length === 0) throw await notScheduled(client, stream, { jobId, group })
      return { stream, id: jobId, places }
    })
  }

  /** Where to look. A stream that nothing was published to yet but with a delay has no key of its own. */
  async #places(client: Client, stream: string, group: string | undefined): Promise<(string | null)[]> {
    if (group !== undefined) {
      await existingGroup(client, stream, group)
      return [group]
    }
    try {
      return [null, ...(await groupsAsked(client, stream, undefined)).groups]
    } catch (error) {
      const isMissing = error instanceof MillraceError && error.code === 'ERR_NOT_FOUND'
      if (isMissing && (await hasDelayed(client, stream))) return [null]
      throw error
    }
  }
}

interface Due {
  readonly how: 'in' | 'at'
  readonly ms: number
}

function dueOf({ delayMs, runAt }: RescheduleOptions): Due {
  if ((delayMs === undefined) === (runAt === undefined)) {
    throw new OptionError(`expected either \`delayMs\` or \`runAt\`, got ${delayMs === undefined ? 'neither' : 'both'}`)
  }
  if (runAt === undefined)
    return { how: 'in', ms: wholeNumber('delayMs', delayMs, { or: 0, min: 0, max: TEN_YEARS_MS }) }
  const ms = runAt instanceof Date ? runAt.getTime() : runAt
  if (Number.isSafeInteger(ms) && ms >= 0) return { how: 'at', ms }
  throw new OptionError(`expected \`runAt\` to be a Date or ms since the epoch, got ${shown(runAt)}`)
}

/** Adds what waits in one place to what was found in the others, as far as it belongs to the nearest ones. */
async function nearest(
  client: Client,
  stream: string,
  asked: { group: string | null; after: Ordered | undefined; found: ScheduledRow[]; most: number },
): Promise<ScheduledRow[]> {
  const { group, after, most } = asked
  let { found } = asked
  let from = after === undefined ? undefined : startIn(group, after)
  for (let read = 0; read < most;) {
    const { rows, more } = await readScheduled(client, stream, group, { from, limit: most - read })
    const last = rows.at(-1)
    if (last === undefined) return found
    read += rows.length
    found = firstOf(found, rows, most)
    const worst = found.length < most ? undefined : found.at(-1)
    if (!more || (worst !== undefined && compareScheduled(last, worst) > 0)) return found
    from = { score: last.score, id: last.id, inclusive: false }
  }
  return found
}

function jobOf(row: ScheduledRow): ScheduledJob {
  const { id, group, bytes, record } = row
  const ms = scoreMs(row)
  const attempt = /^\d{1,9}$/.test(record?.attempt ?? '') ? Number(record?.attempt) : 0
  const dueMs = ms === Infinity ? null : Math.round(ms)
  return { id, job: record?.job ?? null, group, dueMs, attempt, error: record?.error ?? '', bytes }
}

function detailOf(row: ScheduledRow, flat: readonly string[]): ScheduledJobDetail {
  const fields: [string, string][] = []
  let data: string | null = null
  for (let at = 0; at + 1 < flat.length; at += 2) {
    const [name = '', value = ''] = [flat[at], flat[at + 1]]
    if (name === 'data' && data === null) data = value
    else fields.push([name, value])
  }
  return { ...jobOf(row), data, fields }
}

function broken(stream: string, jobId: string): MillraceError {
  const what = `job ${jobId} on ${stream} cannot be brought back`
  return new MillraceError('ERR_NOT_FOUND', `${what}: what it would be is missing or not to be read; cancel it`)
}
