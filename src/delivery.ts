import { monotonicMs } from './clock.ts'
import type { CronTick } from './cron/tick.ts'
import { NO_HEADERS, type Headers } from './headers.ts'
import type { NoteTaker } from './notes/taking.ts'
import type { RunNotes } from './notes/run-notes.ts'
import type { Member, Source } from './redis/member.ts'
import type { Handler, Job } from './job.ts'
import type { OwnAnswer } from './results/answer.ts'
import type { Onward, OnwardPublishing } from './onward/onward.ts'
import type { JobPublishOptions } from './onward/options.ts'
import type { Named } from './publish/router.ts'
import type { JobNumbers, Outcome } from './metrics/worker-numbers.ts'
import type { Expired } from './prepare.ts'
import type { ContainedRun, RunToTrace } from './tracing.ts'
import { traceOf, type Earlier, type EntryTrace, type Extra } from './wire.ts'

/**
 * One delivery while this worker holds it. Fields and not a tree of objects: there is one per job, and the common case must
 * cost little; what is rarely used (the signal) is made when it is asked for. Handlers and middleware get it as their job, so
 * that who it is cannot be set from outside: with another id it, and what is settled beside it, could not be settled.
 */
export class Delivery implements Job, RunToTrace {
  readonly source: Source
  readonly entryId: string
  readonly slot: number
  readonly claimed: boolean
  /** Flat field names and values; undefined until a claimed delivery was begun. */
  fields: readonly string[] | undefined
  #deliveries: number
  #id: string
  #name = ''
  #attempt = 1
  /** What became of the job before this entry, if this is not its first one. */
  earlier: Earlier | undefined
  /** What few jobs have. */
  extra: Extra | undefined
  /** Set when it is called, where runs are traced. */
  handler: Handler | undefined
  /** Goes on with it: it has its turn, and needs a slot. Undefined for a job that waits for none. */
  onTurn: (() => void) | undefined
  /** When this worker took it, by the monotonic clock. */
  heldAtMs = 0
  /** When its handler was called; 0 before. */
  startedAtMs = 0
  timeoutMs = Infinity
  /** When the job was first published, in ms since the epoch by the time of Redis. */
  publishedMs = 0
  /** Where its job name is counted; undefined until its entry was read. */
  numbers: JobNumbers | undefined
  /** What its run publishes, if it does. */
  onward: Onward | undefined
  /** What traces its run, if anything does. */
  traced: ContainedRun | undefined
  /** Whether its group does not want it. */
  isSkipped = false
  /** How it ended, for whoever asked for its result. */
  answer: OwnAnswer | undefined
  /** What becomes of it though it was begun: it was late when its function was to have it. */
  late: Expired | undefined
  #isCounted = false
  #ending: Ending | undefined
  /** What its handler has said and nobody has written down yet; undefined of most, which say nothing. */
  notes: RunNotes | undefined
  /** Whether it has notes in Redis that end with it. */
  hasNotes = false
  readonly #member: Home
  #asked: Asked | undefined

  constructor(
    member: Home,
    source: Source,
    {
      entryId,
      slot,
      deliveries,
      fields,
    }: { entryId: string; slot: number; deliveries: number; fields?: readonly string[] },
  ) {
    this.#member = member
    this.source = source
    this.entryId = entryId
    this.#id = entryId
    this.slot = slot
    this.#deliveries = deliveries
    this.claimed = fields === undefined
    this.fields = fields
  }

  get id(): string {
    return this.#id
  }

  get name(): string {
    return this.#name
  }

  get attempt(): number {
    return this.#attempt
  }

  get deliveries(): number {
    return this.#deliveries
  }

  get stream(): string {
    return this.#member.stream
  }

  get group(): string {
    return this.#member.group
  }

  get consumer(): string {
    return this.#member.consumer
  }

  get trace(): EntryTrace {
    return traceOf(this.fields ?? [])
  }

  get isFirstRun(): boolean {
    return this.source === 0 && this.attempt === 1 && this.deliveries === 1 && this.earlier?.replayOf === undefined
  }

  /** Why this run no longer counts: another worker owns the job, its time was over, or the worker stops. */
  get ended(): Error | undefined {
    return this.#ending?.reason
  }

  get firstFailedMs(): number | undefined {
    return this.earlier?.firstFailedMs
  }

  /** Attempts that were spent before the job was redriven. */
  get past(): number {
    return this.earlier?.spent ?? 0
  }

  get replayOf(): { readonly stream: string; readonly id: string } | undefined {
    const original = this.earlier?.replayOf
    return original && { stream: original.stream ?? this.stream, id: original.id }
  }

  get key(): string | undefined {
    return this.extra?.key
  }

  get cron(): CronTick | undefined {
    return this.extra?.cron
  }

  get signal(): AbortSignal {
    const asked = (this.#asked ??= {})
    if (asked.controller === undefined) {
      asked.controller = new AbortController()
      if (this.#ending !== undefined) asked.controller.abort(this.#ending.reason)
    }
    return asked.controller.signal
  }

  get headers(): Headers {
    return this.extra?.headers ?? NO_HEADERS
  }

  get state(): object {
    const asked = (this.#asked ??= {})
    return (asked.state ??= {})
  }

  progress(value: unknown): void {
    this.#member.notes?.progress(this, value)
  }

  log(line: string): void {
    this.#member.notes?.log(this, line)
  }

  async checkpoint(state: unknown): Promise<void> {
    await this.#member.notes?.checkpoint(this, state)
  }

  async lastCheckpoint(): Promise<unknown> {
    return this.#member.notes?.lastCheckpoint(this)
  }

  publish(job: Named, data: unknown, options?: JobPublishOptions): void {
    this.#member.onward?.publish(this, job, data, options)
  }

  /** Its entry was read: the job that it is of. */
  identify(id: string, name: string): void {
    this.#id = id
    this.#name = name
  }

  /** What its entry says of earlier runs, and what few jobs have. */
  know(failed: number, earlier: Earlier | undefined, extra: Extra | undefined): void {
    this.#attempt = failed + 1
    this.earlier = earlier
    this.extra = extra
  }

  /** A claimed one was begun, and its delivery counted. */
  begun(): void {
    this.#deliveries += 1
  }

  /** Counts what ended this run; only the first one counts. */
  count(outcome: Outcome): void {
    if (this.#isCounted || this.numbers === undefined) return
    this.#isCounted = true
    this.numbers.outcomes[outcome] += 1
  }

  /** The first reason counts; a handler that never looked at its signal costs nothing. */
  end(reason: Error): void {
    if (this.#ending !== undefined) return
    this.#ending = { reason, atMs: monotonicMs(), isSaid: false }
    this.#asked?.onEnd?.()
    this.#asked?.controller?.abort(reason)
  }

  /** Its deadline is over, and its function has not had it. */
  endLate(late: Expired): void {
    this.late = late
    this.end(late.error)
  }

  /** Calls `listener` when this run no longer counts, at less than what a signal costs; of several the last. */
  onEnd(listener: () => void): void {
    const asked = (this.#asked ??= {})
    asked.onEnd = listener
  }

  /** The first attempt has failed now, unless one had before. */
  failed(nowMs: number): void {
    if (this.firstFailedMs !== undefined) return
    const { dueMs, replayOf } = this.earlier ?? {}
    this.earlier = { dueMs, firstFailedMs: Math.floor(nowMs), spent: this.past, replayOf }
  }

  /** Whether it goes on for `graceMs` and more after its signal was aborted; true once. */
  becomesOverdue(nowMs: number, graceMs: number): boolean {
    const ending = this.#ending
    if (ending === undefined || ending.isSaid || nowMs - ending.atMs < graceMs) return false
    ending.isSaid = true
    return true
  }
}

/** The member that holds it, and who takes what its handlers say and publish: shared, since few do. */
export interface Home extends Member {
  readonly notes?: NoteTaker
  readonly onward?: OnwardPublishing
}

/** What few handlers ask for, made when they do. */
interface Asked {
  onEnd?: () => void
  controller?: AbortController
  state?: object
}

/** That a run no longer counts. */
interface Ending {
  readonly reason: Error
  /** When it was told so, by the monotonic clock. */
  readonly atMs: number
  /** Whether it was said that the handler does not heed it. */
  isSaid: boolean
}
