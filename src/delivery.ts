import { monotonicMs } from './clock.ts'
import type { Member, Source } from './redis/member.ts'
import type { Handler, Job } from './job.ts'
import type { JobNumbers, Outcome } from './metrics/worker-numbers.ts'

/**
 * One delivery while this worker holds it. Fields and not a tree of objects: there is one per job, and the common case must
 * cost little; what is rarely used (the signal) is made when it is asked for.
 */
export class Delivery implements Job {
  readonly source: Source
  readonly entryId: string
  readonly slot: number
  readonly claimed: boolean
  /** Flat field names and values; undefined until a claimed delivery was begun. */
  fields: readonly string[] | undefined
  deliveries: number
  id: string
  name = ''
  attempt = 1
  /** Attempts that were spent before the job was redriven. */
  past = 0
  firstFailedMs: number | undefined
  /** When it became due, in ms since the epoch, if that is not the time of its entry. */
  dueMs: number | undefined
  handler: Handler | undefined
  /** When this worker took it, by the monotonic clock. */
  heldAtMs = 0
  /** When its handler was called; 0 before. */
  startedAtMs = 0
  timeoutMs = Infinity
  /** When the job was first published, in ms since the epoch by the time of Redis. */
  publishedMs = 0
  /** Where its job name is counted; undefined until its entry was read. */
  numbers: JobNumbers | undefined
  #isCounted = false
  /** When its signal was aborted, by the monotonic clock; 0 before. */
  endedAtMs = 0
  /** Whether it was said that the handler does not heed its signal. */
  isSaidOverdue = false
  /** Why this run no longer counts: another worker owns the job, its time was over, or the worker stops. */
  ended: Error | undefined
  readonly #member: Member
  #controller: AbortController | undefined

  constructor(
    member: Member,
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
    this.id = entryId
    this.slot = slot
    this.deliveries = deliveries
    this.claimed = fields === undefined
    this.fields = fields
  }

  get stream(): string {
    return this.#member.stream
  }

  get group(): string {
    return this.#member.group
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.ended !== undefined) this.#controller.abort(this.ended)
    }
    return this.#controller.signal
  }

  /** Counts what ended this run; only the first one counts. */
  count(outcome: Outcome): void {
    if (this.#isCounted || this.numbers === undefined) return
    this.#isCounted = true
    this.numbers.outcomes[outcome] += 1
  }

  /** The first reason counts; a handler that never looked at its signal costs nothing. */
  end(reason: Error): void {
    if (this.ended !== undefined) return
    this.ended = reason
    this.endedAtMs = monotonicMs()
    this.#controller?.abort(reason)
  }
}
