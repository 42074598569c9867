import { askAgain } from '../ask-again.ts'
import type { Asking } from '../asking.ts'
import { monotonicMs, sleep } from '../clock.ts'
import { MillraceError } from '../errors.ts'
import { Pace } from '../pace.ts'
import {
  COPY_BATCH,
  hold,
  copyStep,
  readNotedIds,
  readReplay,
  release,
  turn,
  type ReplayPlace,
} from '../redis/replays.ts'
import { compareIds } from '../redis/entry-id.ts'
import type { BytesEntry } from '../redis/reading.ts'
import { ReplayBatch } from './batch.ts'
import { IDS_PAGE, listedPages, rangePages } from './pages.ts'
import type { ReplayProgress } from './asked.ts'
import { tooMany } from './start.ts'
import { fractionOf, isOver, replayOfFields, type Replay } from './state.ts'
import type { Ask, ScanPage } from '../scan.ts'
import { compileWhere } from '../where.ts'

/** How often the cursor moves where nothing is copied, and how often the hold on the history is renewed, in ms. */
const MOVE_MS = 1000

export interface RunOptions {
  readonly signal: AbortSignal | undefined
  readonly onProgress: ((progress: ReplayProgress) => void) | undefined
}

/** What became of a step: it is done, the replay stands elsewhere than was thought, or the signal aborted. */
type StepEnd = 'done' | 'reload' | 'aborted'

/**
 * Runs one replay from where it stands. Any number of runners may do so at once, and any of them may die anywhere: each step
 * copies and moves the cursor at once, and only from where the cursor stands. While it reads, it holds the history.
 */
export class ReplayRunner {
  readonly #asking: Asking
  readonly #place: ReplayPlace
  readonly #options: RunOptions
  readonly #what: string
  #replay: Replay | undefined
  #pace: Pace | undefined
  /** The server's time when it was last told, and when that was by the clock here. */
  #server = { nowMs: Date.now(), atMs: monotonicMs() }
  #movedAtMs = 0
  #heldAtMs = -Infinity

  constructor(asking: Asking, place: ReplayPlace, options: RunOptions) {
    this.#asking = asking
    this.#place = place
    this.#options = options
    this.#what = `replay ${place.id} into ${place.stream}`
  }

  /** As it was last seen. */
  get replay(): Replay | undefined {
    return this.#replay
  }

  /** Ends when the replay is over, or paused, by the signal or by somebody else. */
  async run(): Promise<Replay> {
    for (;;) {
      const replay = await this.#load()
      if (replay.status !== 'running') {
        if (isOver(replay)) await this.#ask((client) => release(client, replay.source, this.#place))
        return replay
      }
      this.#pace ??= replay.perSecond === null ? undefined : new Pace(replay.perSecond)
      if (this.#isAborted || (await this.#round(replay)) === 'aborted') await this.pause()
    }
  }

  /** Lets it stand where it is; its hold lasts a day from now on. */
  async pause(): Promise<void> {
    // Not under the signal: it has aborted already.
    const status = await this.#asking.run(this.#what, (client) => turn(client, this.#place, { wanted: 'paused' }))
    const cursor = this.#replay?.cursor
    if (cursor !== undefined && status === 'paused')
      await this.#asking.run(this.#what, (client) => this.#hold(client, cursor))
  }

  readonly #ask: Ask = (question) =>
    askAgain(this.#asking, { what: this.#what, signal: this.#options.signal }, question)

  get #isAborted(): boolean {
    return this.#options.signal?.aborted === true
  }

  async #load(): Promise<Replay> {
    const { stream, id } = this.#place
    const fields = await this.#ask((client) => readReplay(client, this.#place))
    if (fields === undefined) throw noReplay(this.#place)
    const replay = replayOfFields(id, stream, fields)
    // What somebody else has copied meanwhile counts for the rate too.
    const others = replay.copied - (this.#replay?.copied ?? replay.copied)
    if (others > 0) this.#notePace(others, monotonicMs())
    this.#replay = replay
    return replay
  }

  /** One reading of what is left, until it ends or somebody else has moved the cursor. */
  async #round(replay: Replay): Promise<StepEnd> {
    this.#movedAtMs = monotonicMs()
    await this.#keepHold(replay)
    let batch = this.#newBatch(replay)
    for await (const page of this.#pages(replay)) {
      for (const entry of page.entries) {
        batch.add(entry)
        if (!batch.isFull) continue
        const end = await this.#step(batch)
        if (end !== 'done' || batch.isLast) return end
        batch = this.#newBatch(this.#current)
      }
      if (this.#isAborted) return 'aborted'
      if (monotonicMs() - this.#movedAtMs < MOVE_MS) continue
      const end = await this.#step(batch)
      if (end !== 'done') return end
      batch = this.#newBatch(this.#current)
    }
    if (this.#isAborted) return 'aborted'
    // Before it is called done: what was removed meanwhile was not read, and looks like the end.
    await this.#keepHold(this.#current, true)
    batch.isLast = true
    return this.#step(batch)
  }

  get #current(): Replay {
    if (this.#replay === undefined) throw noReplay(this.#place)
    return this.#replay
  }

  #pages(replay: Replay): AsyncGenerator<ScanPage<BytesEntry>> {
    const { signal } = this.#options
    const { source, cursor, toId, ids, scanned } = replay
    if (ids === null) {
      if (compareIds(cursor, toId) >= 0) return nothing()
      return rangePages(this.#ask, source, { low: `(${cursor}`, high: toId, signal })
    }
    const place = this.#place
    const part: Parameters<typeof listedPages>[2]['part'] = (client, from) =>
      readNotedIds(client, place, { from, most: IDS_PAGE })
    return listedPages(this.#ask, source, { part, signal }, scanned)
  }

  #newBatch(replay: Replay): ReplayBatch {
    const where = this.#where(replay)
    const filter = { job: replay.job ?? undefined, where }
    return new ReplayBatch(replay, { filter, most: this.#pace?.portionWithin(COPY_BATCH) })
  }

  #compiled: { expression: string; where: ReturnType<typeof compileWhere> } | undefined

  #where({ where: expression }: Replay) {
    if (expression === null) return undefined
    if (this.#compiled?.expression !== expression) this.#compiled = { expression, where: compileWhere(expression) }
    return this.#compiled.where
  }

  async #step(batch: ReplayBatch): Promise<StepEnd> {
    if (batch.isEmpty) return 'done'
    const { copies } = batch
    for (;;) {
      if (!(await this.#paced(copies.length))) return 'aborted'
      const sentMs = monotonicMs()
      const asked = { ...batch.asked, nowMs: this.#server.nowMs + sentMs - this.#server.atMs }
      const told = await this.#ask((client) => copyStep(client, this.#place, asked))
      if (!('nowMs' in told)) {
        if (told.kind === 'missing') throw noReplay(this.#place)
        if (told.kind === 'gone') throw this.#groupGone()
        return 'reload'
      }
      this.#server = { nowMs: told.nowMs, atMs: monotonicMs() }
      if (told.kind === 'clock') continue
      this.#notePace(copies.length, sentMs)
      this.#replay = batch.after
      this.#movedAtMs = monotonicMs()
      this.#tell(batch.after)
      await this.#keepHold(batch.after)
      return 'done'
    }
  }

  /** Waits until as many may be copied; false if the signal aborted meanwhile. */
  async #paced(count: number): Promise<boolean> {
    if (count === 0) return true
    let waitMs
    while ((waitMs = this.#pace?.waitMs(count, monotonicMs()) ?? 0) > 0) {
      await sleep(Math.min(waitMs, MOVE_MS), this.#options.signal)
      if (this.#isAborted) return false
      await this.#keepHold(this.#current)
    }
    return true
  }

  #notePace(count: number, sentMs: number): void {
    this.#pace?.note(count, { sentMs, answeredMs: monotonicMs() })
  }

  #tell(replay: Replay): void {
    const { id, copied, scanned } = replay
    this.#options.onProgress?.({ id, copied, scanned, fraction: fractionOf(replay) })
  }

  /** Renews the hold, about once a second. @throws MillraceError ERR_HISTORY if entries that were not read yet are gone. */
  async #keepHold(replay: Replay, now = false): Promise<void> {
    const { cursor, fromId, toId, ids, scanned, source, status } = replay
    if (isOver({ status }) || (!now && monotonicMs() - this.#heldAtMs < MOVE_MS)) return
    const held = await this.#ask((client) => this.#hold(client, cursor))
    this.#heldAtMs = monotonicMs()
    if (held === 'full') throw tooMany(source)
    // The cursor stands on an entry, but at the beginning, where it stands before the first one.
    const expected = compareIds(cursor, fromId) < 0 ? fromId : cursor
    const { oldestId } = held
    if (oldestId !== undefined && compareIds(oldestId, expected) <= 0) return
    // All of it was read: what is gone by now was copied, and only its end is to be noted.
    if (ids === null ? compareIds(cursor, toId) >= 0 : scanned >= ids) return
    throw new MillraceError(
      'ERR_HISTORY',
      `entries of ${source} that replay ${this.#place.id} had not read yet were removed: it stands at ${cursor}, and the ` +
        `history ${oldestId === undefined ? 'is empty' : `begins with ${oldestId}`}; cancel it` +
        (oldestId === undefined ? '' : `, and begin another one from ${oldestId} on`),
    )
  }

  #hold(client: Parameters<typeof hold>[0], cursor: string) {
    return hold(client, this.#current.source, { place: this.#place, cursor })
  }

  #groupGone(): MillraceError {
    const { stream, group } = this.#current.target
    return new MillraceError(
      'ERR_UNKNOWN_GROUP',
      `group ${group ?? ''} of ${stream} is gone: replay ${this.#place.id} stands where it was; make the group again and ` +
        'resume it, or cancel it',
    )
  }
}

export function noReplay({ stream, id }: ReplayPlace): MillraceError {
  return new MillraceError('ERR_NOT_FOUND', `there is no replay ${id} into ${stream}`)
}

async function* nothing(): AsyncGenerator<never> {}
