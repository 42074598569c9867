import { backoffMs, monotonicMs, sleep } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import { provenanceOf, type DeadReason } from './decide.ts'
import type { Delivery } from './delivery.ts'
import { messageOf, RedisError } from './errors.ts'
import type { Holdings } from './holdings.ts'
import type { Logger } from './logger.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import { SOURCES, type Member, type Source } from './redis/member.ts'
import { bury, settle } from './redis/stream.ts'
import type { ServerClock } from './server-clock.ts'

/**
 * Writes outcomes, in batches: what ends in one turn of the event loop travels together, and while a batch is on its way the
 * next one fills. If Redis refuses or is away, the outcome is kept, the lease is kept with it, and it is tried again until
 * it is settled: the job is not run once more because of it.
 */

/** Entries per call of the settle script. */
const SETTLE_BATCH = 500
/** Dead letters on their way at once. */
const BURY_MOST = 50

interface Dead {
  readonly delivery: Delivery
  readonly reason: DeadReason
  readonly error: unknown
}

export class Settler {
  readonly #connection: Connection
  readonly #member: Member
  readonly #holdings: Holdings
  readonly #counts: WorkerCounts
  readonly #numbers: WorkerNumbers
  readonly #clock: ServerClock
  readonly #logger: Logger
  readonly #onSettled: () => void
  #done: [Delivery[], Delivery[]] = [[], []]
  #dead: Dead[] = []
  #burying = 0
  #unsettled = 0
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
      onSettled: () => void
    },
  ) {
    this.#connection = redis.connection
    this.#member = redis.member
    this.#holdings = own.holdings
    this.#counts = own.counts
    this.#numbers = own.numbers
    this.#clock = own.clock
    this.#logger = own.logger
    this.#onSettled = own.onSettled
  }

  /** Outcomes that Redis has not confirmed. */
  get unsettled(): number {
    return this.#unsettled
  }

  complete(delivery: Delivery): void {
    this.#holdings.finish(delivery)
    this.#done[delivery.source].push(delivery)
    this.#unsettled += 1
    if (this.#running === undefined) this.#wake()
  }

  bury(delivery: Delivery, reason: DeadReason, error: unknown): void {
    this.#holdings.finish(delivery)
    this.#dead.push({ delivery, reason, error })
    this.#unsettled += 1
    if (this.#running === undefined) this.#wake()
  }

  /** Writes all outcomes that there are. */
  async runOnce(): Promise<{ settled: number }> {
    const before = this.#unsettled
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
        this.#logger.error({ ...this.#where(), fault: faultText(error) }, 'an outcome could not be settled')
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
    return this.#done[0].length > 0 || this.#done[1].length > 0 || (this.#dead.length > 0 && this.#burying < BURY_MOST)
  }

  /** Completions in batches, one after the other. Burials go on their own: one that Redis refuses holds up nothing else. */
  async #settleAll(): Promise<void> {
    while (this.#burying < BURY_MOST && !this.#stopped.signal.aborted) {
      const dead = this.#dead.shift()
      if (dead === undefined) break
      this.#burying += 1
      void this.#buryOne(dead).finally(() => {
        this.#burying -= 1
        if (this.#running === undefined && this.#isWaiting() && !this.#stopped.signal.aborted) this.#wake()
      })
    }
    for (const source of SOURCES) {
      while (this.#done[source].length > 0 && !this.#stopped.signal.aborted) {
        const batch = this.#done[source].splice(0, SETTLE_BATCH)
        await this.#settleBatch(source, batch)
      }
    }
  }

  async #settleBatch(source: Source, batch: Delivery[]): Promise<void> {
    // A group that is gone has nothing pending, so nothing to settle: made again at its floor, it delivers what is left.
    const reply = await this.#persist({ what: 'settle completed jobs', jobs: batch.length }, { late: 0 }, (uncertain) =>
      settle(this.#connection.client, this.#member, { source, done: batch, resent: uncertain }),
    )
    if (reply === undefined) return
    this.#counts.completed += batch.length - reply.late
    this.#counts.late += reply.late
    this.#completed(batch, reply.late)
    if (reply.late > 0) {
      this.#logger.warn(
        { ...this.#where(), late: reply.late },
        'completions came late: these jobs were settled already, they ran twice',
      )
    }
    for (const delivery of batch) this.#holdings.release(delivery)
    this.#settled(batch.length)
  }

  async #buryOne({ delivery, reason, error }: Dead): Promise<void> {
    const { source, entryId, deliveries, id } = delivery
    const provenance = provenanceOf({ reason, error }, delivery, this.#member.consumer)
    const reply = await this.#persist<'dead' | 'stale' | 'gone'>({ what: 'dead-letter a job', jobs: 1 }, 'stale', () =>
      bury(this.#connection.client, this.#member, { source, id: entryId, deliveries, jobId: id }, provenance),
    )
    if (reply === undefined) return
    this.#numbers.acks[reply === 'dead' ? 'ok' : 'lost'] += 1
    if (reply === 'dead') {
      this.#counts.dead += 1
      this.#numbers.dead[reason] += 1
      this.#finished(delivery, 'dead', this.#clock.at(monotonicMs()))
      this.#logger.warn({ ...this.#where(), id, job: delivery.name, reason }, `job is dead: ${messageOf(error)}`)
    } else if (reply === 'gone') {
      this.#counts.gone += 1
    } else {
      this.#counts.late += 1
    }
    this.#holdings.release(delivery)
    this.#settled(1)
  }

  /** Tries until Redis has answered. `uncertain` tells a try that an earlier one may have been executed. */
  async #persist<Reply>(
    { what, jobs }: { what: string; jobs: number },
    ifGroupIsGone: Reply,
    write: (uncertain: boolean) => Promise<Reply>,
  ): Promise<Reply | undefined> {
    let uncertain = false
    for (let tries = 0; !this.#stopped.signal.aborted; tries++) {
      try {
        await this.#connection.ready(1000)
        const sentAtMs = monotonicMs()
        const reply = await write(uncertain)
        this.#numbers.ackDuration.observe((monotonicMs() - sentAtMs) / 1000)
        return reply
      } catch (error) {
        const { kind } = this.#connection.fault(error)
        this.#numbers.acks.error += jobs
        uncertain ||= kind === 'unknown' && !(error instanceof RedisError)
        if (kind === 'lost-group') return ifGroupIsGone
        if (tries === 0) {
          this.#logger.warn({ ...this.#where(), fault: faultText(error) }, `cannot ${what} now; the outcome is kept`)
        }
        await sleep(backoffMs(tries, 50, 1000), this.#stopped.signal)
      }
    }
    return undefined
  }

  #completed(batch: readonly Delivery[], late: number): void {
    const { acks } = this.#numbers
    acks.ok += batch.length - late
    acks.lost += late
    // Redis tells how many were late and not which: most likely those whose lease was lost, or whose time was over.
    const inOrder = late === 0 ? batch : batch.toSorted((a, b) => Number(isEnded(a)) - Number(isEnded(b)))
    const serverMs = this.#clock.at(monotonicMs())
    for (let at = 0; at < batch.length - late; at++) this.#finished(inOrder[at] as Delivery, 'completed', serverMs)
  }

  #finished(
    { numbers, publishedMs, attempt, deliveries }: Delivery,
    how: 'completed' | 'dead',
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

  #where(): { stream: string; group: string } {
    return { stream: this.#member.stream, group: this.#member.group }
  }
}

function isEnded({ ended }: Delivery): boolean {
  return ended !== undefined
}
