import type { Asking } from '../asking.ts'
import { MillraceError, OptionError } from '../errors.ts'
import { existingStream } from '../existing.ts'
import { refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import type { Client } from '../redis/connection.ts'
import { countCron, deleteCron, readCron, runCronNow, writeCron, type CronRow } from '../redis/cron.ts'
import { checkStreamName } from '../redis/keys.ts'
import { readTime } from '../redis/scheduled.ts'
import { listStream } from '../redis/stream.ts'
import type { CatchUp, Overlap } from './plan.ts'
import { checkCronName, checkSchedule, readTimes, type CronSchedule } from './schedule.ts'
import { MOST_SCHEDULES, writtenOf } from './written.ts'

/** A recurring schedule as it stands. Times are in ms since the epoch, by the server's clock. */
export interface CronStand {
  readonly name: string
  /** The job that it publishes; null if what the schedule says is not to be read. */
  readonly job: string | null
  /** Its fields, of a schedule by the calendar, and the zone that they are read in. */
  readonly at: string | null
  readonly zone: string | null
  /** The time between two ticks, of any other. */
  readonly everyMs: number | null
  readonly startMs: number | null
  readonly endMs: number | null
  readonly overlap: Overlap | null
  readonly catchUp: CatchUp | null
  readonly graceMs: number | null
  /** The tick that it waits for; null if none will come, or if it was set aside. */
  readonly nextMs: number | null
  /**
   * `waiting` for its tick; `overdue`: that is over by more than 5 s, so no worker fires; `queued`: it waits for the job of the tick before;
   * `ended`: no tick will come any more; `set-aside`: it could not be fired, and is not until it is set again.
   */
  readonly state: 'waiting' | 'overdue' | 'queued' | 'ended' | 'set-aside'
  readonly lastTickMs: number | null
  readonly lastJobId: string | null
  /** Jobs that it has published. */
  readonly fired: number
  /** Ticks that were left out, as the job of the one before had not ended. */
  readonly skipped: number
}

export interface CronList {
  /** The server's time in ms since the epoch. */
  readonly nowMs: number
  /** By when they are due, those that ended or were set aside last. */
  readonly schedules: readonly CronStand[]
  /** What to pass as `after` for the next page; null if this is the last. */
  readonly next: string | null
}

export interface CronListOptions {
  /** Schedules a page, up to 500. @default 100 */
  limit?: number
  /** `next` of the page before. @default the first page */
  after?: string
}

export interface CronSetResult {
  readonly stream: string
  readonly name: string
  /** `same`: it said this already, and nothing was changed. */
  readonly outcome: 'new' | 'set' | 'same'
  /** The tick that it waits for; null if none will come. */
  readonly nextMs: number | null
}

/** How late a tick is before somebody should look: workers fire within a pulse. */
export const OVERDUE_MS = 5000

/**
 * The recurring schedules of a stream. They are fired by its workers: while none runs, none is. Every method throws OptionError
 * on a wrong name or option, and RedisError if Redis cannot be reached or refuses.
 */
export class CronSchedules {
  readonly #asking: Asking

  constructor(asking: Asking) {
    this.#asking = asking
  }

  /**
   * A page of them. One that is fired while somebody reads may come again on a later page, with its next tick.
   * @throws MillraceError ERR_NOT_FOUND if there is neither such a stream nor a schedule of it.
   */
  async list(stream: string, options: CronListOptions = {}): Promise<CronList> {
    refuseUnknownKeys('cron.list', options, ['limit', 'after'])
    checkStreamName(stream)
    const limit = wholeNumber('limit', options.limit, { or: 100, max: 500 })
    const after = options.after === undefined ? undefined : parseCursor(options.after)
    return this.#asking.run(`the schedules of ${stream}`, async (client) => {
      const { nowMs, rows, more } = await readCron(client, stream, { after, limit })
      if (rows.length === 0 && after === undefined) await existingStream(client, stream)
      const last = rows.at(-1)
      const next = more && last !== undefined ? `${last.score}/${last.name}` : null
      return { nowMs, schedules: rows.map((row) => standOf(row, nowMs)), next }
    })
  }

  /**
   * Makes a schedule, or changes the one of that name. Its first tick is the next one from now on; one whose times stay the same
   * goes on waiting for its tick. What says the same as before changes nothing.
   * @throws MillraceError ERR_OPTION if the stream has 100 000 schedules; InvalidDataError.
   */
  async set(stream: string, schedule: CronSchedule): Promise<CronSetResult> {
    checkStreamName(stream)
    const checked = checkSchedule('cron.set', schedule)
    const { name } = checked
    return this.#asking.run(`schedule ${name} of ${stream}`, async (client) => {
      const set = await writeCron(client, stream, writtenOf(checked, await readTime(client)), MOST_SCHEDULES)
      if (set === 'full' || set === 'kept') throw tooMany(stream)
      await listStream(client, stream)
      return { stream, name, outcome: set.outcome, nextMs: set.dueMs ?? null }
    })
  }

  /**
   * Removes a schedule; the jobs that it has published stay. One that code declares is not made again, until its declaration says
   * something else or it is set by hand.
   * @throws MillraceError ERR_NOT_FOUND if there is no such schedule.
   */
  async remove(stream: string, name: string): Promise<void> {
    checkStreamName(stream)
    checkCronName(name)
    return this.#asking.run(`schedule ${name} of ${stream}`, async (client) => {
      if (!(await deleteCron(client, stream, name))) throw await notFound(client, stream, name)
    })
  }

  /**
   * Publishes the job of a schedule once, now; its ticks stay as they are, and `overlap` is not asked. After a lost connection it may
   * be published or not: look before it is asked again.
   * @throws MillraceError ERR_NOT_FOUND if there is no such schedule.
   */
  async run(stream: string, name: string): Promise<{ readonly id: string }> {
    checkStreamName(stream)
    checkCronName(name)
    return this.#asking.run(`a run of schedule ${name} of ${stream}`, async (client) => {
      const ran = await runCronNow(client, stream, name)
      if (ran === undefined) throw await notFound(client, stream, name)
      if (ran !== 'broken') return ran
      throw new MillraceError(
        'ERR_NOT_FOUND',
        `the job of schedule ${name} on ${stream} is not to be read; set it again`,
      )
    })
  }
}

function standOf(row: CronRow & { readonly score: string }, nowMs: number): CronStand {
  const { name, state } = row
  const { timing, rules } = readTimes(row) ?? {}
  return {
    name,
    job: rules?.job ?? null,
    at: timing?.at ?? null,
    zone: timing?.zone ?? null,
    everyMs: timing?.everyMs ?? null,
    startMs: timing?.startMs ?? null,
    endMs: timing?.endMs ?? null,
    overlap: rules?.overlap ?? null,
    catchUp: rules?.catchUp ?? null,
    graceMs: rules?.graceMs ?? null,
    nextMs: row.score === 'inf' ? null : (state?.dueMs ?? null),
    state: stateOf(row, nowMs),
    lastTickMs: state?.lastTickMs ?? null,
    lastJobId: state?.lastJobId ?? null,
    fired: state?.fired ?? 0,
    skipped: state?.skipped ?? 0,
  }
}

function stateOf({ state, score }: CronRow & { readonly score: string }, nowMs: number): CronStand['state'] {
  if (score === 'inf') return state !== undefined && state.dueMs === undefined ? 'ended' : 'set-aside'
  if (Number(score) < nowMs - OVERDUE_MS) return 'overdue'
  return state?.isHeld === true ? 'queued' : 'waiting'
}

function parseCursor(text: unknown): { score: string; name: string } {
  const [, score, name] = (typeof text === 'string' && /^(inf|[\d.e+-]{1,40})\/(.{1,200})$/.exec(text)) || []
  if (score !== undefined && name !== undefined && !Number.isNaN(score === 'inf' ? 0 : Number(score)))
    return { score, name }
  throw new OptionError(`expected \`after\` to be what the page before gave as \`next\`, got ${shown(text)}`)
}

function tooMany(stream: string): MillraceError {
  return new MillraceError('ERR_OPTION', `stream ${stream} has ${MOST_SCHEDULES} schedules already; remove some first`)
}

async function notFound(client: Client, stream: string, name: string): Promise<MillraceError> {
  const count = await countCron(client, stream)
  const others = count === 0 ? 'it has none' : `it has ${count}: millrace cron list ${stream}`
  return new MillraceError('ERR_NOT_FOUND', `stream ${stream} has no schedule ${name} (${others})`)
}
