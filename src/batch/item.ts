import type { Job } from '../job.ts'

/**
 * One job of a batch. Its outcome is decided once, by whatever comes first:
 *
 *   waiting ──▶ given to the function ──complete() | the function returns──▶ completed
 *      │                    └──────────fail() | the function throws────────▶ failed
 *      └── its signal aborts, its deadline is over ──▶ failed with the reason, and never given
 *
 * What comes later changes nothing: it must not undo what Redis was told.
 */
export interface BatchItem<Data = unknown, Result = unknown, State = object> {
  readonly data: Data
  readonly job: Job<State>
  /** Completes this job now, whatever becomes of the others. Gives false where its outcome was decided before: nothing has changed. */
  readonly complete: (result?: Result) => boolean
  /** Fails this job now, and it alone, as if its handler had thrown. Gives false where its outcome was decided before: nothing has changed. */
  readonly fail: (error: unknown) => boolean
}

/** An item from when its job joins to its outcome. */
export class GatheredItem implements BatchItem {
  readonly data: unknown
  readonly job: Job
  /** When it joined, by the monotonic clock. */
  readonly sinceMs: number
  /** When it waits for others no longer, by the monotonic clock. */
  readonly dueMs: number
  /** The end of the job's run: what it was completed with, or what it failed with. */
  readonly outcome: Promise<unknown>
  /** Told once its outcome is decided. */
  onClosed: () => void = () => {}
  readonly complete: (result?: unknown) => boolean
  readonly fail: (error: unknown) => boolean
  #isOpen = true

  constructor(data: unknown, job: Job, { sinceMs, dueMs }: { sinceMs: number; dueMs: number }) {
    this.data = data
    this.job = job
    this.sinceMs = sinceMs
    this.dueMs = dueMs
    let complete: (result: unknown) => void = () => {}
    let fail: (error: unknown) => void = () => {}
    this.outcome = new Promise((resolve, reject) => {
      complete = resolve
      fail = reject
    })
    // No methods: people take them off the item, as they do with functions.
    this.complete = (result) => {
      const isFirst = this.#close()
      if (isFirst) complete(result)
      return isFirst
    }
    this.fail = (error) => {
      const isFirst = this.#close()
      if (isFirst) fail(error)
      return isFirst
    }
  }

  /** Whether its outcome is yet to be decided. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  #close(): boolean {
    if (!this.#isOpen) return false
    this.#isOpen = false
    this.onClosed()
    return true
  }
}
