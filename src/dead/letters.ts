import { askAgain } from '../ask-again.ts'
import type { Asking } from '../asking.ts'
import { DeadErrorGroups, type DeadErrorGroup } from './errors.ts'
import { checkDeadFilter, checkDeadId, type DeadFilter } from './filter.ts'
import { Moving, planMove, type DeadMoved, type DeadPlan, type DeadProgress, type Mover } from './moves.ts'
import { deadByIds, newestDead, newestOfIds, type Ask } from './search.ts'
import { MillraceError, OptionError } from '../errors.ts'
import { existingGroup } from '../existing.ts'
import { refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { Pace } from '../pace.ts'
import { PartlyDoneError } from '../partly-done.ts'
import type { DeadField } from '../redis/dead-fields.ts'
import { purgeBatch, readDead, redriveBatch, type DeadLetter, type DeadPlace } from '../redis/dead.ts'

export interface DeadListOptions {
  filter?: DeadFilter
  /** How many letters at most, up to 1000. @default 100 */
  limit?: number
  /** Only letters older than the one of this dead id: `next` of the page before. */
  before?: string
  /** Only letters newer than the one of this dead id. */
  after?: string
}

export interface DeadPage {
  /** Newest first. */
  readonly letters: readonly DeadLetter[]
  /** Give it as `before` to go on; null if there is nothing more. A page may be short, or empty, and still have one. */
  readonly next: string | null
  /** How many dead letters the group has, whatever the filter. */
  readonly total: number
  /** Ids of the filter of which no dead letter is there. */
  readonly unknownIds: readonly string[]
}

export interface DeadLetterDetails extends DeadLetter {
  readonly stack: string
  /** The fields of the entry that died, after a retry with what it has written; null where the letter is not what a worker writes. */
  readonly fields: readonly DeadField[] | null
  /** The field `data`: its text, its bytes where they are no text, null if there is none. */
  readonly payload: string | Buffer | null
}

export interface DeadErrorsOptions {
  filter?: Omit<DeadFilter, 'ids'>
  /** How many letters to look at, up to 100 000. @default 10 000 */
  most?: number
  before?: string
}

export interface DeadErrors {
  /** The most frequent first. */
  readonly groups: readonly DeadErrorGroup[]
  readonly scanned: number
  /** Give it as `before` to look at more; null if all were looked at. */
  readonly next: string | null
}

interface DeadMoveOptions {
  /** Ids of jobs or of dead letters; the same as `filter.ids`. */
  ids?: readonly string[]
  filter?: DeadFilter
  /** Without it nothing is changed: the answer says what would be. @default false */
  execute?: boolean
  /** How many letters at most, the oldest first. @default all */
  limit?: number
  /** The newest letter that counts. @default the newest one at the beginning: what dies meanwhile is left alone */
  untilDeadId?: string | null
  /** Ends it early: the batch on its way is waited for, and the answer says what was done. */
  signal?: AbortSignal
  onProgress?: (progress: DeadProgress) => void
}

export interface RedriveOptions extends DeadMoveOptions {
  /** How many jobs a second at most, in any second. @default as fast as Redis takes them */
  ratePerSecond?: number
}

export interface PurgeOptions extends DeadMoveOptions {
  /** Only letters that died at least so long ago, in ms. */
  olderThanMs?: number
}

/** What was done. Asking for the same again, with `untilDeadId`, goes on with what is left. */
export interface DeadResult extends DeadMoved {
  readonly executed: true
}

/**
 * The dead letters of a group: looked at, given back to the group, deleted. All methods throw OptionError on a wrong name or
 * option, MillraceError ERR_NOT_FOUND for a stream that does not exist, UnknownGroupError for a group that does not, and
 * RedisError if Redis cannot be reached or refuses.
 */
export class DeadLetters {
  readonly #asking: Asking

  constructor(asking: Asking) {
    this.#asking = asking
  }

  /** A page of dead letters without their payloads, newest first. */
  async list(stream: string, group: string, options: DeadListOptions = {}): Promise<DeadPage> {
    refuseUnknownKeys('dead.list', options, ['filter', 'limit', 'before', 'after'])
    const { ids, ...filter } = checkDeadFilter(options.filter ?? {})
    const asked = {
      filter,
      limit: wholeNumber('limit', options.limit, { or: 100, max: 1000 }),
      before: optionalId('before', options.before),
      after: optionalId('after', options.after),
      mostScanned: MOST_SCANNED,
    }
    const { ask, place } = await this.#find(stream, group)
    if (ids !== undefined) return newestOfIds(ask, place, ids, asked)
    const { letters, next, total } = await newestDead(ask, place, asked)
    return { letters, next, total, unknownIds: [] }
  }

  /**
   * One dead letter with everything it holds, by its job's id or by its own.
   * @throws MillraceError ERR_NOT_FOUND if the group has no such dead letter.
   */
  async show(stream: string, group: string, id: string): Promise<DeadLetterDetails> {
    checkDeadId('id', id)
    const { ask, place } = await this.#find(stream, group)
    const { letters } = await deadByIds(ask, place, [id])
    const letter = letters[0]
    const read = letter === undefined ? undefined : await ask((client) => readDead(client, place, letter.deadId))
    if (letter === undefined || read === undefined) {
      throw new MillraceError('ERR_NOT_FOUND', `group ${group} of ${stream} has no dead letter ${id}`)
    }
    const { stack, fields = null } = read
    return { ...letter, stack, fields, payload: fields?.find(({ name }) => name === 'data')?.value ?? null }
  }

  /** What the dead letters died of: grouped by reason, class of error, and message without what differs from job to job. */
  async errors(stream: string, group: string, options: DeadErrorsOptions = {}): Promise<DeadErrors> {
    refuseUnknownKeys('dead.errors', options, ['filter', 'most', 'before'])
    const filter = checkDeadFilter(options.filter ?? {})
    if (filter.ids !== undefined)
      throw new OptionError('expected a filter without `ids`: they are looked at one by one')
    const most = wholeNumber('most', options.most, { or: 10_000, max: MOST_SCANNED })
    let before = optionalId('before', options.before)
    const { ask, place } = await this.#find(stream, group)
    const groups = new DeadErrorGroups()
    for (let scanned = 0; ;) {
      const asked = { filter, limit: PAGE, before, after: undefined, mostScanned: most - scanned }
      const page = await newestDead(ask, place, asked)
      for (const letter of page.letters) groups.add(letter)
      scanned += page.scanned
      before = page.next ?? undefined
      if (before === undefined || scanned >= most) return { groups: groups.list(), scanned, next: page.next }
    }
  }

  /**
   * Gives dead letters back to the group: each is delivered again under its job id, with attempts that start anew. It works
   * whether a worker of the group runs or not. A dry run unless `execute` says otherwise.
   *
   * Each batch is one step in Redis: a letter is given back once, also when an answer is lost or this process ends in the
   * middle. Then the same call goes on with what is left; with `untilDeadId`, without what died again meanwhile.
   * @throws PartlyDoneError if Redis is gone for half a minute, or refuses, after a part was done.
   */
  redrive(stream: string, group: string, options: RedriveOptions & { execute: true }): Promise<DeadResult>
  redrive(stream: string, group: string, options?: RedriveOptions & { execute?: false }): Promise<DeadPlan>
  redrive(stream: string, group: string, options?: RedriveOptions): Promise<DeadPlan | DeadResult>
  async redrive(stream: string, group: string, options: RedriveOptions = {}): Promise<DeadPlan | DeadResult> {
    refuseUnknownKeys('dead.redrive', options, [...MOVE_KEYS, 'ratePerSecond'])
    const rate = wholeNumber('ratePerSecond', options.ratePerSecond, { or: 0, max: 1_000_000 })
    return this.#move(stream, group, options, { step: redriveBatch, pace: rate === 0 ? undefined : new Pace(rate) })
  }

  /**
   * Deletes dead letters, for good. A dry run unless `execute` says otherwise; batches, and errors, as with `redrive`.
   */
  purge(stream: string, group: string, options: PurgeOptions & { execute: true }): Promise<DeadResult>
  purge(stream: string, group: string, options?: PurgeOptions & { execute?: false }): Promise<DeadPlan>
  purge(stream: string, group: string, options?: PurgeOptions): Promise<DeadPlan | DeadResult>
  async purge(stream: string, group: string, options: PurgeOptions = {}): Promise<DeadPlan | DeadResult> {
    refuseUnknownKeys('dead.purge', options, [...MOVE_KEYS, 'olderThanMs'])
    const olderThanMs = wholeNumber('olderThanMs', options.olderThanMs, { or: 0, min: 0 })
    return this.#move(stream, group, options, { step: purgeBatch, pace: undefined, olderThanMs })
  }

  async #move(
    stream: string,
    group: string,
    options: DeadMoveOptions,
    how: Pick<Mover, 'step' | 'pace'> & { readonly olderThanMs?: number },
  ): Promise<DeadPlan | DeadResult> {
    const { execute, signal, onProgress } = options
    const filter = meantBy(options)
    const limit = wholeNumber('limit', options.limit, { or: Number.MAX_SAFE_INTEGER })
    const untilDeadId = optionalId('untilDeadId', options.untilDeadId ?? undefined)
    if (execute !== undefined && typeof execute !== 'boolean') {
      throw new OptionError(`expected \`execute\` to be true or false, got ${shown(execute)}`)
    }
    const { ask, place, what, nowMs } = await this.#find(stream, group)
    const { olderThanMs = 0 } = how
    const toMs = olderThanMs === 0 ? filter.toMs : Math.min(filter.toMs ?? Infinity, nowMs - olderThanMs + 1)
    const asked = { filter: toMs === undefined ? filter : { ...filter, toMs }, limit, untilDeadId, signal }
    if (execute !== true) return planMove(ask, place, asked)
    const moving = new Moving((question) => askAgain(this.#asking, { what, signal }, question), place, asked)
    try {
      return { executed: true, ...(await moving.run({ ...how, onProgress })) }
    } catch (error) {
      const done = moving.soFar
      if (!(error instanceof MillraceError) || done.done + done.already === 0) throw error
      throw new PartlyDoneError(
        `${error.message}; before that ${done.done} dead letters of ${stream} were dealt with`,
        {
          code: error.code,
          done: { executed: true, ...done } satisfies DeadResult,
          cause: error,
        },
      )
    }
  }

  /** @throws UnknownGroupError, and what `existingGroup` throws else. */
  async #find(stream: string, group: string): Promise<{ ask: Ask; place: DeadPlace; what: string; nowMs: number }> {
    const what = `the dead letters of ${stream}`
    const ask: Ask = (question) => this.#asking.run(what, question)
    const { nowMs } = await ask((client) => existingGroup(client, stream, group))
    return { ask, place: { stream, group }, what, nowMs }
  }
}

/** How many letters one call looks at before it gives the caller a cursor, found or not. */
const MOST_SCANNED = 100_000
const PAGE = 500
const MOVE_KEYS = ['ids', 'filter', 'execute', 'limit', 'untilDeadId', 'signal', 'onProgress']

function meantBy({ ids, filter = {} }: DeadMoveOptions): DeadFilter {
  checkDeadFilter(filter)
  if (ids === undefined) return filter
  if (filter.ids !== undefined) throw new OptionError('expected either `ids` or `filter.ids`, got both')
  return checkDeadFilter({ ...filter, ids })
}

function optionalId(name: string, id: string | undefined): string | undefined {
  return id === undefined ? undefined : checkDeadId(name, id)
}
