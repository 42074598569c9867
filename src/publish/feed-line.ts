import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { RedisError, type ErrorCode } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import { faultOf, faultText } from '../redis/faults.ts'
import { append, isRefused, type Appended } from '../redis/publishing.ts'
import type { PackedFeedJob } from './feed-packing.ts'
import { inTime } from './in-time.ts'
import type { MemoryGuard } from './memory-guard.ts'
import { refusalOf } from './refusals.ts'
import { Trouble } from './trouble.ts'

/**
 * The jobs of a feed that wait, in their order, and the one batch that is on its way, from one opening of the feed to the
 * failure that ends it.
 *
 * A batch carries the position behind it, which the script writes with it, so Redis always knows a position that all jobs
 * before and none behind it are in the stream of. Nothing is skipped to keep it so: what cannot be published ends the line,
 * with everything behind it. Who opens the feed again fences off whatever of this line is still on its way.
 */

/** A packed job, and who waits for it. */
export interface WaitingFeedJob {
  readonly packed: PackedFeedJob
  readonly waiter: FeedWaiter
}

export interface FeedWaiter {
  /** The next one of its jobs is in Redis; `fateOf` reads the answer. */
  answered(answer: string): void
  /** No further answer will come. Of its jobs so many were on their way. */
  failed(failure: FeedFailure, uncertain: number): void
}

/** Why a line has ended. */
export interface FeedFailure {
  readonly code: ErrorCode
  readonly why: string
  readonly cause?: unknown
}

/** Entries and bytes that one script call may carry; a single larger job goes alone. */
const BATCH_JOBS = 500
const BATCH_BYTES = 1024 * 1024

/** How often Redis is told to remember the feed: not with every batch, which would cost each a command. */
const REMIND_MS = 600_000

/** What a try must be left for its answer: without it, it only makes uncertain what is known not to be in Redis. */
const LEAST_TRY_MS = 100

interface Batch {
  jobs: readonly WaitingFeedJob[]
  /** An earlier copy of it may have been executed: it must not change any more. */
  isUncertain: boolean
}

/** What a line needs of the feed. */
export interface FeedLineParts {
  /** The number of the last batch before it. */
  readonly seq: number
  readonly logger: Logger
  readonly guard: MemoryGuard | undefined
  readonly onAppended: () => void
}

/** `again`: there is something better to send at once. */
type Step = 'moved' | 'again' | 'wait'

export class FeedLine {
  readonly #connection: Connection
  readonly #feed: { readonly stream: string; readonly id: string; readonly timeoutMs: number }
  readonly #trouble: Trouble
  readonly #guard: MemoryGuard | undefined
  readonly #onAppended: () => void
  #seq: number
  /** Those before `#head` are gone, so that taking a batch costs no shifting. */
  #line: WaitingFeedJob[] = []
  #head = 0
  #batch: Batch | undefined
  #isRunning = false
  /** When nothing has been appended for too long, by the monotonic clock. */
  #untilMs = 0
  #rememberedAtMs = -Infinity
  #failure: FeedFailure | undefined
  readonly #ended = new AbortController()
  readonly #idle = new Set<() => void>()

  constructor(
    connection: Connection,
    feed: { readonly stream: string; readonly id: string; readonly timeoutMs: number },
    { seq, logger, guard, onAppended }: FeedLineParts,
  ) {
    this.#connection = connection
    this.#feed = feed
    this.#seq = seq
    this.#trouble = new Trouble(feed.stream, connection, logger)
    this.#guard = guard
    this.#onAppended = onAppended
  }

  get failure(): FeedFailure | undefined {
    return this.#failure
  }

  /** Jobs without an answer. */
  get jobs(): number {
    return this.#line.length - this.#head + (this.#batch?.jobs.length ?? 0)
  }

  push(jobs: readonly WaitingFeedJob[]): void {
    for (const job of jobs) this.#line.push(job)
    if (this.#failure !== undefined) return this.#tellAll(this.#failure)
    if (this.#isRunning) return
    this.#isRunning = true
    // After this turn of the loop's current task, so that what is published together travels together.
    queueMicrotask(() => void this.#run())
  }

  /** Resolves when no job waits any more, or when `timeoutMs` is over. */
  async idle(timeoutMs: number): Promise<void> {
    if (!this.#isRunning || timeoutMs <= 0) return
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#idle.delete(done)
        resolve()
      }
      const timer = setTimeout(done, timeoutMs)
      this.#idle.add(done)
    })
  }

  /** Ends it: whatever is left is told so. */
  end(failure: FeedFailure): void {
    if (this.#failure !== undefined) return
    this.#failure = failure
    this.#ended.abort()
    this.#tellAll(failure)
  }

  /** Whoever waits hears once, and those whose jobs were on their way first. */
  #tellAll(failure: FeedFailure): void {
    const batch = this.#batch
    const left = new Map<FeedWaiter, number>()
    for (const { waiter } of batch?.jobs ?? []) left.set(waiter, (left.get(waiter) ?? 0) + (batch?.isUncertain ? 1 : 0))
    for (const { waiter } of this.#line.slice(this.#head)) left.set(waiter, left.get(waiter) ?? 0)
    this.#line = []
    this.#head = 0
    this.#batch = undefined
    for (const [waiter, uncertain] of left) waiter.failed(failure, uncertain)
  }

  async #run(): Promise<void> {
    this.#connection.hold(true)
    this.#untilMs = monotonicMs() + this.#feed.timeoutMs
    for (let tries = 0; this.jobs > 0;) {
      const step = await this.#step().catch((error: unknown) => this.#failed(error))
      if (this.#failure !== undefined) break
      const nowMs = monotonicMs()
      if (step === 'moved') this.#untilMs = nowMs + this.#feed.timeoutMs
      tries = step === 'wait' ? tries + 1 : 0
      if (step !== 'wait') continue
      const leftMs = Math.max(0, this.#untilMs - nowMs)
      const isOver = leftMs <= LEAST_TRY_MS
      const pauseMs = isOver ? leftMs : Math.min(backoffMs(tries - 1, 10, 500), leftMs - LEAST_TRY_MS)
      await sleep(pauseMs, this.#ended.signal)
      if (isOver) this.end(this.#timeIsUp())
    }
    this.#isRunning = false
    this.#guard?.stop()
    this.#connection.hold(false)
    for (const told of this.#idle) told()
  }

  async #step(): Promise<Step> {
    const leftMs = Math.max(1, this.#untilMs - monotonicMs())
    if (!this.#connection.isReady) await this.#connection.ready(Math.min(leftMs, 1000))
    if (this.#failure !== undefined) return 'wait'
    const batch = (this.#batch ??= this.#take())
    if (this.#isHeld(batch)) return 'wait'
    const { id: producerId, stream } = this.#feed
    const sentAtMs = monotonicMs()
    const isRemembered = sentAtMs - this.#rememberedAtMs < REMIND_MS
    const { isUncertain, jobs } = batch
    // Until it is answered, it may be executed: a failure that comes meanwhile must say so.
    batch.isUncertain = true
    const answer = await inTime(
      append(this.#connection.client, stream, {
        producerId,
        seq: this.#seq + 1,
        items: jobs.map(({ packed }) => packed),
        positions: jobs.map(({ packed }) => packed.position),
        isRemembered,
        isChecked: !isUncertain,
      }).catch((error: unknown) => {
        batch.isUncertain = isUncertain || faultOf(error).kind === 'unknown'
        throw error
      }),
      leftMs,
      this.#ended.signal,
    )
    if (answer === undefined) {
      this.end(this.#timeIsUp())
      return 'wait'
    }
    if (!isRemembered) this.#rememberedAtMs = sentAtMs
    batch.isUncertain = isUncertain
    return this.#answered(batch, answer)
  }

  /** For the memory of Redis. What may have been executed takes no more of it when it is sent again. */
  #isHeld({ isUncertain }: Batch): boolean {
    this.#guard?.start()
    const fault = this.#guard?.fault
    if (fault === undefined || isUncertain) return false
    const { usedBytes, maxBytes, share } = fault
    const why = `Redis uses ${usedBytes} bytes of its maxmemory of ${maxBytes}, more than a share of ${share}`
    this.#trouble.meet(why, { waiting: this.jobs, code: 'ERR_MEMORY_FULL' })
    return true
  }

  #answered(batch: Batch, answer: Appended): Step {
    if (this.#failure !== undefined) return 'wait'
    switch (answer.kind) {
      case 'done':
        this.#seq += 1
        this.#batch = undefined
        this.#trouble.over(this.jobs)
        this.#settle(batch, answer.ids)
        return 'moved'
      case 'full':
        return this.#shrink(batch, answer)
      case 'stale':
        this.end({ code: 'ERR_FEED_TAKEN', why: `feed ${this.#feed.id} was opened by another process since` })
        return 'wait'
      case 'behind':
        // No copy of it is in Redis: that had to be there for its number to be the one that is stored.
        batch.isUncertain = false
        this.end({
          code: 'ERR_FEED_BEHIND',
          why: 'Redis has lost jobs before it that it had confirmed (a failover, or a restart without persistence); open the feed again and go on from where that says',
        })
        return 'wait'
      case 'forgotten':
        this.end({
          code: 'ERR_FEED_LOST',
          why: `Redis no longer knows feed ${this.#feed.id}: its key was deleted or has expired`,
        })
        return 'wait'
    }
  }

  #settle({ jobs }: Batch, answers: readonly (string | undefined)[]): void {
    this.#onAppended()
    const refused = jobs.findIndex((_, at) => isRefused(answers[at]))
    const told = refused < 0 ? jobs : jobs.slice(0, refused)
    told.forEach(({ waiter }, at) => waiter.answered(answers[at] ?? ''))
    const job = jobs[refused]
    if (job === undefined) return
    this.#batch = { jobs: jobs.slice(refused), isUncertain: false }
    const answer = answers[refused]
    const { code, why, cause } = refusalOf(isRefused(answer) ? answer : undefined)
    const refusal = code === undefined ? 'Redis refused to append' : `${why}; so Redis did not append`
    this.end({
      code: code ?? 'ERR_PUBLISH_REFUSED',
      why: `${refusal} the job before position ${job.packed.position}, and nothing behind it; opened again, the feed goes on with that job`,
      ...(cause !== undefined && { cause }),
    })
  }

  /** The stream has its maxBacklog: sends as much as there is room for, which surely was not executed with the rest. */
  #shrink(batch: Batch, { backlog, bound }: { backlog: number; bound: number }): Step {
    const why = `the stream has a backlog of ${backlog}, and its maxBacklog is ${bound}`
    this.#trouble.meet(why, { waiting: this.jobs, code: 'ERR_STREAM_FULL' })
    const fitting = howMany(batch.jobs, bound - backlog)
    if (fitting === 0 || fitting === batch.jobs.length) return 'wait'
    this.#line = [...batch.jobs.slice(fitting), ...this.#line.slice(this.#head)]
    this.#head = 0
    batch.jobs = batch.jobs.slice(0, fitting)
    return 'again'
  }

  /** What an error means for the batch that met it. */
  #failed(error: unknown): Step {
    const kind = error instanceof RedisError ? undefined : this.#connection.fault(error).kind
    const isRefused = error instanceof RedisError ? error.code === 'ERR_REDIS_REFUSED' : kind === 'fatal'
    const why = faultText(error)
    if (isRefused) this.end({ code: 'ERR_PUBLISH_REFUSED', why: `Redis refuses it: ${why}`, cause: error })
    else this.#trouble.meet(why, { waiting: this.jobs })
    return 'wait'
  }

  #timeIsUp(): FeedFailure {
    return { code: this.#trouble.code, why: this.#trouble.whyLate() }
  }

  #take(): Batch {
    const jobs: WaitingFeedJob[] = []
    let bytes = 0
    for (; jobs.length < BATCH_JOBS; this.#head++) {
      const job = this.#line[this.#head]
      if (job === undefined || (jobs.length > 0 && bytes + job.packed.bytes > BATCH_BYTES)) break
      jobs.push(job)
      bytes += job.packed.bytes
    }
    if (this.#head === this.#line.length || this.#head > 10_000) {
      this.#line = this.#line.slice(this.#head)
      this.#head = 0
    }
    return { jobs, isUncertain: false }
  }
}

/**
 * How many of the jobs that a stream had no room for are to be sent next. Where all of them seem to fit, some are for a time
 * that is over by the server's clock, and count: then no more than there is room for, or a single one, which may take none.
 */
function howMany(jobs: readonly WaitingFeedJob[], room: number): number {
  const fitting = fittingJobs(jobs, room)
  return fitting < jobs.length ? fitting : Math.min(jobs.length, Math.max(1, room))
}

/** How many jobs from the first on a stream has room for; those for later take none. */
export function fittingJobs(jobs: readonly WaitingFeedJob[], room: number): number {
  let left = room
  const over = jobs.findIndex(({ packed }) => packed.due === undefined && --left < 0)
  return over < 0 ? jobs.length : over
}
