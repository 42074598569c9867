import { monotonicMs, sleep } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import type { Delivery } from './delivery.ts'
import { jobEventOf, type Events } from './events.ts'
import { FencedSettler, type Failed } from './fenced-settler.ts'
import type { Holdings } from './holdings.ts'
import { KnownJobs } from './known-jobs.ts'
import type { Logger } from './logger.ts'
import type { PublishError } from './errors.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import { OnwardSettler } from './onward/settler.ts'
import { OutcomeWriter } from './outcome-writer.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import { SOURCES, type Member, type Source } from './redis/member.ts'
import { settle } from './redis/settling.ts'
import { takeBounded } from './results/answer.ts'
import type { ServerClock } from './server-clock.ts'
import type { ContainedTracing } from './tracing.ts'
import { Unwanted } from './unwanted.ts'

/**
 * Writes outcomes, in batches: what ends in one turn of the event loop travels together, and while a batch is on its way the
 * next one fills. If Redis refuses or is away, the outcome is kept, the lease is kept with it, and it is tried again until
 * it is settled: the job is not run once more because of it.
 *
 * Completions go one batch after the other; what did not complete goes its own way (fenced-settler.ts).
 */

/** Entries per call of the settle script. */
const SETTLE_BATCH = 500

export class Settler {
  readonly #connection: Connection
  readonly #member: Member
  readonly #holdings: Holdings
  readonly #counts: WorkerCounts
  readonly #numbers: WorkerNumbers
  readonly #clock: ServerClock
  readonly #logger: Logger
  readonly #events: Events
  readonly #onSettled: () => void
  readonly #onScheduled: (dueMs: number) => void
  readonly #onTurnEnded: (delivery: Delivery) => void
  readonly #writer: OutcomeWriter
  readonly #fenced: FencedSettler
  readonly #onward: OnwardSettler
  #done: [Delivery[], Delivery[]] = [[], []]
  #unsettled = 0
  /** Whether there ever was a delivery that the group does not want. */
  #hasSkipped = false
  readonly #unwanted: Unwanted
  /** Whether there ever was one whose result somebody asked for. */
  #hasAnswers = false
  #running: Promise<void> | undefined
  readonly #stopped = new AbortController()

  constructor(
    redis: { connection: Connection; member: Member },
    own: {
      holdings: Holdings
      counts: WorkerCounts
      numbers: WorkerNumbers
      clock: ServerClock
      logger: Logger
      events: Events
      tracing: ContainedTracing | undefined
      onSettled: () => void
      /** A retry is due then, by the server's time. */
      onScheduled: (dueMs: number) => void
      /** A job of a key is here no more. */
      onTurnEnded: (delivery: Delivery) => void
      /** The run has completed, and cannot publish what it published: it is a failed one. */
      onRefused: (delivery: Delivery, error: PublishError) => void
    },
  ) {
    this.#connection = redis.connection
    this.#member = redis.member
    this.#holdings = own.holdings
    this.#counts = own.counts
    this.#numbers = own.numbers
    this.#clock = own.clock
    this.#logger = own.logger
    this.#events = own.events
    this.#onSettled = own.onSettled
    this.#onScheduled = own.onScheduled
    this.#onTurnEnded = own.onTurnEnded
    const stopped = this.#stopped.signal
    this.#writer = new OutcomeWriter(redis, { ...own, stopped })
    const knownJobs = new KnownJobs(redis.connection, redis.member)
    this.#unwanted = new Unwanted(knownJobs, own.logger)
    this.#fenced = new FencedSettler({
      ...redis,
      ...own,
      stopped,
      writer: this.#writer,
      knownJobs,
      onFinished: (delivery, how, serverMs) => this.#finished(delivery, how, serverMs),
      onSettled: (count) => this.#settled(count),
    })
    this.#onward = new OnwardSettler({
      ...{ ...redis, logger: own.logger, stopped, writer: this.#writer },
      farWriter: new OutcomeWriter(redis, { ...own, tracing: undefined, stopped }),
      onPublished: (delivery) => this.#ack(delivery),
      onSettled: (settled, told) => this.#acked(settled, { ...told, skippedLate: 0 }),
      onRefused: (delivery, error) => {
        this.#settled(1)
        own.onRefused(delivery, error)
      },
      onLost: (delivery) => {
        this.#holdings.release(delivery)
        this.#settled(1)
      },
    })
  }

  /** Outcomes that Redis has not confirmed. */
  get unsettled(): number {
    return this.#unsettled
  }

  complete(delivery: Delivery): void {
    this.#holdings.finish(delivery)
    if (delivery.answer !== undefined) this.#hasAnswers = true
    this.#unsettled += 1
    if (delivery.onward === undefined) this.#ack(delivery)
    else this.#onward.push(delivery)
  }

  #ack(delivery: Delivery): void {
    this.#done[delivery.source].push(delivery)
    if (this.#running === undefined) this.#wake()
  }

  /** Settles a delivery that its group does not want: it travels with the completions. */
  skip(delivery: Delivery): void {
    delivery.isSkipped = true
    this.#hasSkipped = true
    this.#unwanted.skipped(delivery.name)
    this.complete(delivery)
  }

  /** Settles a delivery that did not complete. */
  fail(delivery: Delivery, outcome: Failed): void {
    this.#holdings.finish(delivery)
    this.#unsettled += 1
    this.#fenced.push(delivery, outcome)
  }

  /** Writes all outcomes that there are. */
  async runOnce(): Promise<{ settled: number }> {
    const before = this.#unsettled
    this.#fenced.flush()
    if (this.#running === undefined) this.#wake()
    await this.#running
    return { settled: before - this.#unsettled }
  }

  /** Waits until everything is settled or the time is up; returns how many outcomes are left. */
  async stop(timeoutMs: number): Promise<number> {
    const untilMs = monotonicMs() + timeoutMs
    while (this.#unsettled > 0 && monotonicMs() < untilMs) {
      if (this.#running === undefined && this.#isWaiting()) this.#wake()
      await sleep(5)
    }
    this.#stopped.abort()
    return this.#unsettled
  }

  #wake(): void {
    this.#running = this.#gathered()
      .then(() => this.#settleAll())
      .catch((error: unknown) => {
        // Never expected; an outcome that cannot be written must not end the process, and its lease lets it run again.
        this.#logger.error({ fault: faultText(error) }, 'an outcome could not be settled')
      })
      .finally(() => {
        this.#running = undefined
        if (this.#isWaiting() && !this.#stopped.signal.aborted) this.#wake()
      })
  }

  /**
   * Resolves after this turn of the event loop, or after the next one if it may bring enough for a fuller batch: under load
   * that halves the calls, and without load the next turn comes at once.
   */
  #gathered(): Promise<void> {
    return new Promise((resolve) => {
      setImmediate(() => {
        if (this.#done[0].length > SETTLE_BATCH / 2) resolve()
        else setImmediate(resolve)
      })
    })
  }

  #isWaiting(): boolean {
    return this.#done[0].length > 0 || this.#done[1].length > 0
  }

  /** Completions in batches, one after the other. */
  async #settleAll(): Promise<void> {
    for (const source of SOURCES) {
      while (this.#done[source].length > 0 && !this.#stopped.signal.aborted) {
        const waiting = this.#done[source]
        const batch = this.#hasAnswers ? takeBounded(waiting, SETTLE_BATCH) : waiting.splice(0, SETTLE_BATCH)
        await this.#settleBatch(source, batch)
      }
    }
  }

  async #settleBatch(source: Source, batch: Delivery[]): Promise<void> {
    const about = { what: 'settle completed jobs', operation: 'ack', deliveries: batch, mayDivide: false } as const
    const written = await this.#writer.write(about, (resent) =>
      settle(this.#connection.client, this.#member, { source, done: batch, resent }),
    )
    if (written.kind === 'stopped') return
    // A group that is gone has nothing pending, so nothing to settle: made again at its floor, it delivers what is left.
    this.#acked(batch, written.kind === 'answered' ? written.reply : NOTHING_SETTLED)
  }

  #acked(
    batch: readonly Delivery[],
    { late, skippedLate, isWoken }: { late: number; skippedLate: number; isWoken?: true },
  ): void {
    if (isWoken === true) this.#onScheduled(this.#clock.at(monotonicMs()))
    const completed = this.#hasSkipped ? batch.filter(({ isSkipped }) => !isSkipped) : batch
    if (completed.length < batch.length) this.#skipped(batch.length - completed.length, skippedLate)
    this.#counts.completed += completed.length - late
    this.#counts.late += late
    this.#completed(completed, late)
    if (late > 0) {
      this.#logger.warn({ late }, 'completions came late: these jobs were settled already, they ran twice')
      const { stream, group } = this.#member
      this.#events.emit('job:late', { stream, group, count: late })
    }
    for (const delivery of batch) {
      this.#holdings.release(delivery)
      if (delivery.extra?.key !== undefined) this.#onTurnEnded(delivery)
    }
    this.#settled(batch.length)
  }

  #skipped(skipped: number, late: number): void {
    const { acks } = this.#numbers
    acks.ok += skipped - late
    acks.lost += late
    this.#counts.skipped += skipped - late
  }

  #completed(batch: readonly Delivery[], late: number): void {
    const { acks } = this.#numbers
    acks.ok += batch.length - late
    acks.lost += late
    // Redis tells how many were late and not which: most likely those whose lease was lost, or whose time was over.
    const inOrder = late === 0 ? batch : batch.toSorted((a, b) => Number(isEnded(a)) - Number(isEnded(b)))
    const serverMs = this.#clock.at(monotonicMs())
    const isTold = this.#events.has('job:completed')
    for (let at = 0; at < batch.length - late; at++) {
      const delivery = inOrder[at] as Delivery
      this.#finished(delivery, 'completed', serverMs)
      if (isTold) this.#events.emit('job:completed', jobEventOf(delivery))
    }
  }

  #finished(
    { numbers, publishedMs, attempt, deliveries }: Delivery,
    how: 'completed' | 'dead' | 'cancelled',
    serverMs: number,
  ): void {
    this.#numbers.attempts.observe(attempt + deliveries - 1)
    if (numbers === undefined) return
    numbers[how] += 1
    numbers.endToEnd.observe(Math.max(0, serverMs - publishedMs) / 1000)
  }

  #settled(count: number): void {
    this.#unsettled -= count
    this.#onSettled()
  }
}

const NOTHING_SETTLED: Awaited<ReturnType<typeof settle>> = { late: 0, skippedLate: 0 }

function isEnded({ ended }: Delivery): boolean {
  return ended !== undefined
}
