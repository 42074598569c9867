import { newCounts, type WorkerCounts } from '../counts.ts'
import type { DeadReason } from '../decide.ts'
import { Buckets } from './buckets.ts'
import { JobNames } from './job-names.ts'

/**
 * What the workers of one stream and group in this process have done: plain numbers and buckets, written on the hot path and
 * read at a scrape. One worker after the other adds to the same numbers, so that counters never go back while the process
 * lives; what only a living worker has, such as slots, is read from those that are attached.
 */

/** How a run of a handler ended, or why none began. */
export const OUTCOMES = [
  'completed',
  'failed',
  'timed_out',
  'lease_lost',
  'cancelled',
  'handed_back',
  'malformed',
  'unknown_job',
  'expired',
  'invalid',
  'waited',
  'skipped',
] as const

export type Outcome = (typeof OUTCOMES)[number]

/** Upper bounds in seconds: of a handler's time, of waiting times, of round trips to Redis. */
export const DURATION_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]
export const WAIT_BOUNDS = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600]
export const ROUND_TRIP_BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1]
const BATCH_BOUNDS = [1, 2, 5, 10, 20, 50, 100, 250, 500]
const HANDLER_BATCH_BOUNDS = [...BATCH_BOUNDS, 1000]
const ATTEMPT_BOUNDS = [1, 2, 3, 5, 8, 13]

/** The numbers of one job name. */
export class JobNumbers {
  readonly outcomes: Record<Outcome, number> = {
    completed: 0,
    failed: 0,
    timed_out: 0,
    lease_lost: 0,
    cancelled: 0,
    handed_back: 0,
    malformed: 0,
    unknown_job: 0,
    expired: 0,
    invalid: 0,
    waited: 0,
    skipped: 0,
  }
  completed = 0
  dead = 0
  cancelled = 0
  retried = 0
  readonly okDuration = new Buckets(DURATION_BOUNDS)
  readonly errorDuration = new Buckets(DURATION_BOUNDS)
  readonly wait = new Buckets(WAIT_BOUNDS)
  readonly endToEnd = new Buckets(WAIT_BOUNDS)
  /** Of a job whose handler takes several at once: how many it was given. */
  handlerBatch: Buckets | undefined

  gathers(): void {
    this.handlerBatch ??= new Buckets(HANDLER_BATCH_BOUNDS)
  }
}

export type WorkerState = 'new' | 'starting' | 'running' | 'draining' | 'stopped'

/** What a scrape asks of a worker that is there. */
export interface LiveWorker {
  readonly counts: Readonly<WorkerCounts>
  readonly slots: number
  readonly state: WorkerState
  /** When its event loop last proved that it turns, in ms since the epoch. */
  readonly tickedAtMs: number
  /** When the oldest of its runs began, in ms since the epoch; undefined if none runs. */
  oldestStartMs(): number | undefined
  /** Handlers that go on though their signal is aborted. */
  overdue(): number
  /** Jobs that wait for a limit, by its label. */
  held(): ReadonlyMap<string, number>
}

export class WorkerNumbers {
  readonly stream: string
  readonly group: string
  readonly jobs: JobNames<JobNumbers>
  readonly polls = { jobs: 0, empty: 0, error: 0 }
  readonly pollBatch = new Buckets(BATCH_BOUNDS)
  readonly acks = { ok: 0, lost: 0, error: 0 }
  readonly ackDuration = new Buckets(ROUND_TRIP_BOUNDS)
  readonly renewals = { ok: 0, lost: 0, error: 0 }
  readonly dead: Record<DeadReason, number> = {
    attempts: 0,
    deliveries: 0,
    malformed: 0,
    invalid: 0,
    expired: 0,
    'unknown-job': 0,
    fatal: 0,
    manual: 0,
  }
  readonly attempts = new Buckets(ATTEMPT_BOUNDS)
  /** Jobs that had to wait for a limit, by the label of each that the workers have. */
  readonly held = new Map<string, number>()
  /** Jobs that a worker left behind when it ended: neither settled nor handed back. */
  abandoned = 0
  readonly live = new Set<LiveWorker>()
  /** Of the workers that have ended. */
  readonly #ended = newCounts()
  #running = 0
  /** Sum of the start times of what runs, and of the durations of what ran: busy time without asking each run. */
  #startedMs = 0
  #ranMs = 0
  #busyMs = 0

  constructor(stream: string, group: string, onManyNames: () => void) {
    this.stream = stream
    this.group = group
    this.jobs = new JobNames(() => new JobNumbers(), onManyNames)
  }

  /** Handlers that run now. */
  get running(): number {
    return this.#running
  }

  /** A handler is called at `startedAtMs` of the monotonic clock. */
  started(startedAtMs: number): void {
    this.#running += 1
    this.#startedMs += startedAtMs
  }

  /** A handler has ended. @returns how long it ran, in ms. */
  ended(startedAtMs: number, endedAtMs: number): number {
    const ranMs = endedAtMs - startedAtMs
    this.#running -= 1
    this.#startedMs -= startedAtMs
    this.#ranMs += ranMs
    return ranMs
  }

  /** Time that slots were taken so far, summed over them, in ms. */
  busyMs(nowMs: number): number {
    // Sums of floats drift, and a counter must not go back.
    this.#busyMs = Math.max(this.#busyMs, this.#ranMs + this.#running * nowMs - this.#startedMs)
    return this.#busyMs
  }

  /** One of the plain counts, over all workers that there were and are. */
  count(name: keyof WorkerCounts): number {
    let count = this.#ended[name]
    for (const { counts } of this.live) count += counts[name]
    return count
  }

  /** A worker has ended: its counts are kept. */
  detach(worker: LiveWorker): void {
    if (!this.live.delete(worker)) return
    for (const name of Object.keys(this.#ended) as (keyof WorkerCounts)[]) this.#ended[name] += worker.counts[name]
  }
}
