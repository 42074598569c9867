import { EXIT } from './exit.ts'
import type { MetricsSnapshot, StartFailure, WorkerEnd } from './pool-messages.ts'
import { PoolProcess, type PoolWorker, type ProcessOptions } from './pool-process.ts'

/**
 * A supervised worker pool: worker processes, each of which is replaced when it ends by itself.
 *
 *   running ──drain()──▶ draining ──▶ ended
 *
 * - running: a process that ended is replaced after 1 s; after 2 s, 4 s … 30 s if it ends again before it was well for a
 *   minute. What cannot get better by itself ends the pool instead, with the message of the process that met it: wrong
 *   options or handlers, an unknown group, a Redis that refuses us; while none of them has ever been ready also a Redis that
 *   cannot be reached, and handlers that end their process while they are loaded.
 * - draining: every process is told to drain. One that has not ended well after its time is killed.
 *
 * Jobs of a process that was killed are claimed by the others when their lease is over; nothing of that is done here.
 */

const FIRST_DELAY_MS = 1000
const MOST_DELAY_MS = 30_000
const WELL_MS = 60_000
/** What a worker may take beyond its drain to settle outcomes and to end. */
const END_MS = 10_000
/** The same for one that is not ready, and so holds nothing. */
const UNREADY_END_MS = 2000

export interface PoolOptions extends ProcessOptions {
  readonly processes: number
  readonly drainMs: number
  /** Waits for a Redis that cannot be reached at the start, for as long as it takes: somebody watches. @default false */
  readonly isPatient?: boolean
}

export interface PoolEvents {
  /** A process has its handlers and its options, and goes to Redis. */
  readonly loaded?: () => void
  readonly ready: (worker: PoolWorker) => void
  /** All of them are ready for the first time. */
  readonly allReady: () => void
  /** A process ended by itself; another one follows after `delayMs`. */
  readonly replaced: (gone: { pid: number; why: string; delayMs: number }) => void
  /** What a new process met ends the pool, in which others are ready. */
  readonly failed?: () => void
  /** A process did not end in its time and is killed. */
  readonly killed?: (pid: number) => void
  /** A process has ended, with all that it had counted when it was last asked. */
  readonly measured?: (last: MetricsSnapshot | undefined) => void
  /** Something that the handlers sent to us. */
  readonly message?: (pid: number, message: unknown) => void
}

export interface PoolResult {
  /** Why it ended, if it was not told to. */
  readonly failure: StartFailure | undefined
  /** Sums over the processes that drained. */
  readonly done: WorkerEnd
  readonly replaced: number
  /** Processes that were to drain and ended otherwise: killed by us or by others, or crashed. */
  readonly lost: number
}

/** A place in the pool: one process at a time. */
interface Slot {
  running: PoolProcess | undefined
  readyAtMs: number
  delayMs: number
  timer: NodeJS.Timeout | undefined
}

export class Pool {
  readonly ended: Promise<PoolResult>
  readonly #options: PoolOptions
  readonly #events: PoolEvents
  readonly #slots: Slot[]
  readonly #resolve: (result: PoolResult) => void
  #state: 'running' | 'draining' | 'ended' = 'running'
  #wasReady = false
  #wereAllReady = false
  #failure: StartFailure | undefined
  #replaced = 0
  #lost = 0
  #done: WorkerEnd = { completed: 0, failed: 0, cancelled: 0, skipped: 0, dead: 0, handedBack: 0, unsettled: 0 }

  constructor(options: PoolOptions, events: PoolEvents) {
    this.#options = options
    this.#events = events
    this.#slots = Array.from({ length: options.processes }, () => {
      return { running: undefined, readyAtMs: 0, delayMs: 0, timer: undefined }
    })
    let resolve: (result: PoolResult) => void = () => {}
    this.ended = new Promise((done) => (resolve = done))
    this.#resolve = resolve
  }

  /** Those that are ready now. */
  get workers(): PoolWorker[] {
    return this.#slots.map(({ running }) => running?.worker).filter((worker) => worker !== undefined)
  }

  /** How many processes it is to have. */
  get size(): number {
    return this.#slots.length
  }

  /** Those that there are, ready or not. */
  get members(): PoolProcess[] {
    return this.#slots.map(({ running }) => running).filter((member) => member !== undefined)
  }

  /** Processes that were replaced so far. */
  get replaced(): number {
    return this.#replaced
  }

  get isDraining(): boolean {
    return this.#state !== 'running'
  }

  start(): void {
    for (const slot of this.#slots) this.#launch(slot)
  }

  /** Ends the pool in order; calling it again changes nothing. */
  drain(): void {
    if (this.#state !== 'running') return
    this.#state = 'draining'
    for (const slot of this.#slots) {
      clearTimeout(slot.timer)
      const { running } = slot
      if (running === undefined) continue
      running.drain()
      const patienceMs = running.worker === undefined ? UNREADY_END_MS : this.#options.drainMs + END_MS
      slot.timer = setTimeout(() => {
        this.#events.killed?.(running.pid)
        running.kill()
      }, patienceMs)
    }
    this.#endIfEmpty()
  }

  /** Ends the pool now. */
  kill(): void {
    this.drain()
    for (const { running } of this.#slots) running?.kill()
  }

  /** Kills one process, as a crash would; it is replaced. */
  killWorker(pid: number): void {
    this.#find(pid)?.kill()
  }

  /** Sends a message to the handlers of one process. */
  send(pid: number, message: object): void {
    this.#find(pid)?.send(message)
  }

  #launch(slot: Slot): void {
    const launched = new PoolProcess(this.#options, {
      loaded: () => this.#events.loaded?.(),
      ready: (worker) => this.#ready(slot, worker),
      gone: (how) => this.#gone(slot, launched, how),
      message: (message) => this.#events.message?.(launched.pid, message),
    })
    slot.running = launched
  }

  #ready(slot: Slot, worker: PoolWorker): void {
    slot.readyAtMs = performance.now()
    this.#wasReady = true
    this.#events.ready(worker)
    if (this.#wereAllReady || this.workers.length < this.#slots.length) return
    this.#wereAllReady = true
    this.#events.allReady()
  }

  #gone(slot: Slot, { pid, worker, failure, end, metrics }: PoolProcess, how: string): void {
    slot.running = undefined
    this.#events.measured?.(metrics)
    clearTimeout(slot.timer)
    if (end !== undefined) this.#done = sum(this.#done, end)
    if (this.#state !== 'running') {
      if (worker !== undefined && end === undefined) this.#lost += 1
      return this.#endIfEmpty()
    }
    const final = worker === undefined ? this.#finalFailure(failure, how) : undefined
    if (final !== undefined) {
      this.#failure = final
      if (this.workers.length > 0) this.#events.failed?.()
      return this.drain()
    }
    const wasWell = worker !== undefined && performance.now() - slot.readyAtMs >= WELL_MS
    slot.delayMs = wasWell || slot.delayMs === 0 ? FIRST_DELAY_MS : Math.min(slot.delayMs * 2, MOST_DELAY_MS)
    slot.timer = setTimeout(() => this.#launch(slot), slot.delayMs)
    this.#replaced += 1
    const why = failure?.message ?? (end === undefined ? how : 'drained')
    this.#events.replaced({ pid, why, delayMs: slot.delayMs })
  }

  #finalFailure(failure: StartFailure | undefined, how: string): StartFailure | undefined {
    if (this.#options.isPatient === true && failure?.mayPass === true) return undefined
    return finalFailure(failure, how, this.#wasReady)
  }

  #endIfEmpty(): void {
    if (this.#state === 'ended' || this.#slots.some(({ running }) => running !== undefined)) return
    this.#state = 'ended'
    this.#resolve({ failure: this.#failure, done: this.#done, replaced: this.#replaced, lost: this.#lost })
  }

  #find(pid: number): PoolProcess | undefined {
    return this.#slots.find(({ running }) => running?.pid === pid)?.running
  }
}

/** Why the pool must end, of a process that ended before it was ready; undefined if another try may well succeed. */
export function finalFailure(
  failure: StartFailure | undefined,
  how: string,
  wasReady: boolean,
): StartFailure | undefined {
  if (failure !== undefined) return failure.mayPass && wasReady ? undefined : failure
  // Without a word: ended by its own handlers, most likely, and then every time; or killed, which may not happen again.
  if (wasReady || how.startsWith('SIG')) return undefined
  const message = `a worker ended before it was ready (${how}): do the handlers end their process?`
  return { message, exitCode: EXIT.failed, mayPass: false }
}

function sum(a: WorkerEnd, b: WorkerEnd): WorkerEnd {
  return {
    completed: a.completed + b.completed,
    failed: a.failed + b.failed,
    cancelled: a.cancelled + b.cancelled,
    skipped: a.skipped + b.skipped,
    dead: a.dead + b.dead,
    handedBack: a.handedBack + b.handedBack,
    unsettled: a.unsettled + b.unsettled,
  }
}
