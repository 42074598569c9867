import { AsyncLocalStorage } from 'node:async_hooks'
import { monotonicMs } from '../clock.ts'
import type { Job } from '../job.ts'
import { deadlineOf, endedBy, endIfLate, whenEnded } from './ends.ts'
import type { HeldSlots, Waits } from './held-slots.ts'
import { GatheredItem } from './item.ts'
import { callBatch } from './running-batch.ts'
import type { BatchTerms } from './terms.ts'

/**
 * What waits for the next batch of one handler, on one stream of one worker:
 *
 *   empty ──a job joins──▶ gathering ──full | due | no more can come | hurried──▶ the function has it; empty again
 *
 * Jobs hold their slots while they wait, and run as far as anybody else can tell: their leases are renewed, their time counts,
 * they can be cancelled. One whose signal aborts leaves, and the function never sees it. One with a deadline waits for half of what is left
 * of it at most: it must not be late for having waited for others. A worker that is killed loses nothing
 * by what waits here: to Redis it is pending, and is claimed as what runs is.
 */
export interface GatheringHost {
  /** The slots that its jobs wait in, of the narrowest kind first: where they hold all of one kind, no more can come. */
  readonly slots: readonly HeldSlots[]
  /** Whether a job is not to be put into a batch with others. */
  readonly goesAlone: (job: Job) => boolean
  /** The time of Redis, by which deadlines go. */
  readonly serverMs: () => number
  /** The function of a job is given so many at once. */
  readonly onBatch?: (job: string, jobs: number) => void
  /** By the monotonic clock. */
  readonly nowMs?: () => number
  /** Calls back once, and not before `waitMs` have passed. @returns what takes it back. */
  readonly wake?: (waitMs: number, due: () => void) => () => void
}

export class Gathering implements Waits {
  readonly #terms: BatchTerms
  readonly #host: GatheringHost
  readonly #nowMs: () => number
  readonly #wake: NonNullable<GatheringHost['wake']>
  /** What a function does belongs to no single job: not to the span nor the context of the one that came first or last. */
  readonly #outside = AsyncLocalStorage.snapshot()
  #waiting: GatheredItem[] = []
  #lingerMs: number
  /** When the first of those that wait is due, or one that has left was. */
  #dueMs = Infinity
  #sleep: (() => void) | undefined

  constructor(terms: BatchTerms, host: GatheringHost) {
    this.#terms = terms
    this.#host = host
    this.#nowMs = host.nowMs ?? monotonicMs
    this.#wake = host.wake ?? wakeAfter
    this.#lingerMs = terms.lingerMs
    for (const slots of host.slots) slots.add(this)
  }

  get waiting(): number {
    return this.#waiting.length
  }

  get sinceMs(): number {
    return this.#waiting[0]?.sinceMs ?? Infinity
  }

  /** A job joins. @returns the end of its run. */
  join(data: unknown, job: Job): Promise<unknown> {
    const sinceMs = this.#nowMs()
    const item = new GatheredItem(data, job, { sinceMs, dueMs: sinceMs + this.#mayWaitMs(job) })
    const ended = endedBy(job)
    if (ended !== undefined) item.fail(ended.reason)
    else if (this.#host.goesAlone(job)) this.#call([item])
    else {
      this.#waiting.push(item)
      whenEnded(job, () => this.#leave(item))
      for (const slots of this.#host.slots) slots.held += 1
      this.#look(item)
    }
    return item.outcome
  }

  go(): void {
    const batch = this.#waiting
    this.#waiting = []
    this.#dueMs = Infinity
    this.#sleep?.()
    this.#sleep = undefined
    for (const slots of this.#host.slots) slots.held -= batch.length
    // The event loop may have been held up for longer than there was time.
    this.#call(batch.filter((item) => !this.#isLate(item)))
  }

  /** Nothing waits here any longer than a turn of the event loop: the worker stops. */
  hurry(): void {
    this.#lingerMs = 0
    this.go()
  }

  #mayWaitMs(job: Job): number {
    const deadlineMs = deadlineOf(job)
    return deadlineMs === Infinity ? this.#lingerMs : Math.min(this.#lingerMs, (deadlineMs - this.#host.serverMs()) / 2)
  }

  #isLate(item: GatheredItem): boolean {
    if (!endIfLate(item.job, this.#host.serverMs)) return false
    item.fail(endedBy(item.job)?.reason)
    return true
  }

  #look({ dueMs }: GatheredItem): void {
    if (this.#waiting.length >= this.#terms.size) return this.go()
    for (const slots of this.#host.slots) slots.release()
    if (this.#waiting.length > 0 && dueMs < this.#dueMs) this.#linger(dueMs)
  }

  #linger(dueMs: number): void {
    this.#sleep?.()
    this.#dueMs = dueMs
    this.#sleep = this.#wake(Math.max(0, dueMs - this.#nowMs()), () => {
      this.#sleep = undefined
      // The one that it was set for may have left: the others have their own time.
      const nextMs = this.#waiting.reduce((least, item) => Math.min(least, item.dueMs), Infinity)
      this.#dueMs = Infinity
      if (nextMs <= this.#nowMs()) this.go()
      else if (nextMs < Infinity) this.#linger(nextMs)
    })
  }

  #leave(item: GatheredItem): void {
    const at = this.#waiting.indexOf(item)
    if (at < 0) return
    this.#waiting.splice(at, 1)
    for (const slots of this.#host.slots) slots.held -= 1
    item.fail(endedBy(item.job)?.reason)
  }

  #call(batch: readonly GatheredItem[]): void {
    const [first] = batch
    if (first === undefined) return
    this.#host.onBatch?.(first.job.name, batch.length)
    this.#outside(callBatch, this.#terms.call, batch)
  }
}

/** A wait of 0 still takes what comes in this turn of the event loop. */
function wakeAfter(waitMs: number, due: () => void): () => void {
  if (waitMs === 0) {
    const immediate = setImmediate(due)
    return () => clearImmediate(immediate)
  }
  const timer = setTimeout(due, Math.ceil(waitMs))
  return () => clearTimeout(timer)
}
