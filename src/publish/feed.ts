import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { FeedError, MillraceError, OptionError, PublishError, RedisError } from '../errors.ts'
import { resolveLogger, withFields, type Logger } from '../logger.ts'
import { flag, MOST_TIMER_MS, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { fateOf, forgetSoon, takeOver, type TakenOver } from '../redis/publishing.ts'
import { listStream } from '../redis/stream.ts'
import { resolveRedis } from '../redis/target.ts'
import { FeedLine, type FeedFailure, type FeedWaiter } from './feed-line.ts'
import { checkFeed, type FedJob, type FeedJob, type FeedOptions, type FeedRules } from './feed-options.ts'
import { inTime } from './in-time.ts'
import { MemoryGuard } from './memory-guard.ts'
import { packFeedJob, type PackedFeedJob } from './feed-packing.ts'

/**
 * Publishes a sequence of jobs that can be gone through again from a position in it (a file, a table, a log): each job once and in
 * its order, however often whoever publishes it is interrupted, and by whatever.
 *
 * Each job names the position behind it. Redis keeps the position of the last job that was published, written in the same step
 * as the jobs before it, so the two are never apart: a crash, a lost reply or a cut connection at any moment neither doubles nor
 * loses a job. `open()` gives that position, and takes the feed over from whoever had it: what that one still has on its way
 * is not appended any more.
 *
 *     const feed = new Feed({ redis, stream: 'orders', id, isNew })
 *     const { position } = await feed.open()     // '' at the beginning
 *     // If the feed is new: write its id to disk, here and not later, so that the next process opens it with isNew: false.
 *     await feed.publish(jobsBehind(position))   // [{ job, data, position }, …]
 *     await feed.close()
 *
 * Redis knows a feed for 14 days from its last job on. Connects at `open()`; an idle feed does not keep the process running.
 * @throws OptionError at construction, on an unknown or impossible option.
 */
export class Feed {
  readonly #rules: FeedRules
  readonly #connection: Connection
  readonly #logger: Logger
  readonly #guard: MemoryGuard | undefined
  #line: FeedLine | undefined
  /** What ended it before a line did: a job that cannot be published, which nothing may pass. */
  #refusal: PublishError | undefined
  #isNew: boolean
  #isOpening = false
  #isListed = false
  #isClosed = false

  constructor(options: FeedOptions) {
    this.#rules = checkFeed(options)
    this.#logger = withFields(resolveLogger(options.logger), { stream: this.#rules.stream, feed: this.#rules.id })
    this.#isNew = this.#rules.isNew
    this.#connection = new Connection(resolveRedis(options.redis), {
      role: 'feed',
      socketTimeoutMs: 5000,
      onDemand: true,
    })
    const share = this.#rules.maxMemoryShare
    this.#guard = share === false ? undefined : new MemoryGuard(this.#connection, { share, logger: this.#logger })
  }

  /**
   * Takes the feed over, at first and after a publish has failed, and tells what is published of it: everything before the
   * position, and nothing behind it. The position is empty at the beginning.
   * @param options.timeoutMs how long it may take, in ms; by default the feed's.
   * @throws MillraceError ERR_FEED_LOST if Redis does not know it and it is not new; RedisError if Redis cannot be asked.
   */
  async open(options: { timeoutMs?: number } = {}): Promise<{ position: string }> {
    refuseUnknownKeys('open', options, ['timeoutMs'])
    const timeoutMs = wholeNumber('timeoutMs', options.timeoutMs, { or: this.#rules.timeoutMs, max: MOST_TIMER_MS })
    this.#checkClosed()
    if (this.#isOpening || (this.#line !== undefined && this.#line.failure === undefined && this.#line.jobs > 0)) {
      throw new OptionError('expected a feed to be opened again only when nothing of it is on its way')
    }
    this.#isOpening = true
    this.#connection.hold(true)
    try {
      const { seq, mark } = await this.#takeOver(timeoutMs)
      this.#line?.end({ code: 'ERR_FEED_TAKEN', why: 'the feed was opened again' })
      // From here on the caller may have noted it: what Redis does not know any more has been lost.
      this.#isNew = false
      this.#refusal = undefined
      const onAppended = () => this.#list()
      const [logger, guard] = [this.#logger, this.#guard]
      this.#line = new FeedLine(this.#connection, this.#rules, { seq, logger, guard, onAppended })
      return { position: mark }
    } finally {
      this.#isOpening = false
      this.#guard?.stop()
      this.#connection.hold(false)
    }
  }

  /**
   * Publishes jobs behind those that were handed over before; any number, but each waits in memory until it is published. To
   * keep Redis busy hand over the next some thousand before the last are published.
   *
   * The first failure ends the feed, since nothing may pass a job that is not published: everything behind it is refused
   * until the feed is opened again, which tells what is in Redis, also of what was uncertain.
   * @returns what each of them became, in their order, once all are in Redis.
   * @throws FeedError if not all of them are; `confirmed` says how many certainly are, the first ones.
   */
  async publish(jobs: readonly FeedJob[]): Promise<readonly FedJob[]> {
    if (!Array.isArray(jobs)) throw new OptionError(`expected the jobs of a feed to be an array, got ${shown(jobs)}`)
    this.#checkClosed()
    const line = this.#line
    if (line === undefined) throw new OptionError('expected the feed to be opened before something is published')
    if (this.#refusal !== undefined) throw this.#errorOf(failureOf(this.#refusal), { ids: [], uncertain: 0 })
    if (line.failure !== undefined) throw this.#errorOf(line.failure, { ids: [], uncertain: 0 })
    const { packed, refusal } = this.#packAll(jobs)
    this.#refusal = refusal
    const fates = await this.#pushed(line, packed)
    if (refusal === undefined) return fates
    const { code, message: why, cause } = refusal
    throw this.#errorOf({ code, why, cause }, { ids: fates.map(({ id }) => id), uncertain: 0 })
  }

  /**
   * Takes no more jobs, waits until those that wait are in Redis or `timeoutMs` (5000) is over, and ends the connection. What
   * is left fails. The feed can be opened again by another `Feed`, unless it is closed as finished: its sequence is at its end
   * and nobody will go on with it, so Redis need not know it any more in an hour.
   */
  async close(options: { timeoutMs?: number; isFinished?: boolean } = {}): Promise<void> {
    refuseUnknownKeys('close', options, ['timeoutMs', 'isFinished'])
    const timeoutMs = wholeNumber('timeoutMs', options.timeoutMs, { or: 5000, min: 0, max: MOST_TIMER_MS })
    const isFinished = flag('isFinished', options.isFinished)
    this.#isClosed = true
    await this.#line?.idle(timeoutMs)
    this.#line?.end(CLOSED)
    if (isFinished && this.#connection.isReady) await this.#forget()
    this.#connection.close()
  }

  async #takeOver(timeoutMs: number): Promise<TakenOver> {
    const { stream, id } = this.#rules
    const untilMs = monotonicMs() + timeoutMs
    for (let tries = 0; ; tries++) {
      const leftMs = untilMs - monotonicMs()
      try {
        if (!this.#connection.isReady) await this.#connection.ready(Math.max(1, leftMs))
        // Asked for first: it is there before the first job.
        this.#guard?.start()
        const asked = takeOver(this.#connection.client, stream, { producerId: id, isNew: this.#isNew })
        const taken = await inTime(
          asked.then((found) => found ?? 'lost'),
          Math.max(1, untilMs - monotonicMs()),
        )
        if (taken === undefined) throw new Error('Redis did not answer')
        if (taken !== 'lost') return taken
      } catch (error) {
        this.#checkClosed()
        if (error instanceof RedisError) throw error
        const { kind } = this.#connection.fault(error)
        const told = `could not open feed ${id} of ${stream}: ${faultText(error)}`
        if (kind === 'fatal') throw new RedisError('ERR_REDIS_REFUSED', told, { cause: error })
        if (monotonicMs() >= untilMs) throw new RedisError('ERR_REDIS_UNREACHABLE', told, { cause: error })
        await sleep(Math.min(backoffMs(tries, 10, 500), Math.max(1, untilMs - monotonicMs())))
        continue
      }
      throw new MillraceError(
        'ERR_FEED_LOST',
        `Redis does not know feed ${id} of ${stream}: its key was deleted or has expired, or this is another Redis. ` +
          'How much of it is in the stream cannot be told; look there before you begin a new feed',
      )
    }
  }

  /** Those before the first that cannot be published, and why that cannot. */
  #packAll(jobs: readonly FeedJob[]): { packed: PackedFeedJob[]; refusal: PublishError | undefined } {
    const packed: PackedFeedJob[] = []
    for (const job of jobs) {
      try {
        packed.push(packFeedJob(job, this.#rules.maxPayloadBytes))
      } catch (error) {
        if (error instanceof PublishError) return { packed, refusal: error }
        throw error
      }
    }
    return { packed, refusal: undefined }
  }

  #pushed(line: FeedLine, packed: readonly PackedFeedJob[]): Promise<FedJob[]> {
    return new Promise((resolve, reject) => {
      const fates: FedJob[] = []
      if (packed.length === 0) return resolve(fates)
      const waiter: FeedWaiter = {
        answered: (answer) => {
          if (fates.push(fateOf(answer)) === packed.length) resolve(fates)
        },
        failed: (failure, uncertain) => reject(this.#errorOf(failure, { ids: fates.map(({ id }) => id), uncertain })),
      }
      line.push(packed.map((job) => ({ packed: job, waiter })))
    })
  }

  #errorOf({ code, why, cause }: FeedFailure, fate: { ids: readonly string[]; uncertain: number }): FeedError {
    return new FeedError(code, { stream: this.#rules.stream, why, cause }, fate)
  }

  #checkClosed(): void {
    if (this.#isClosed) throw this.#errorOf(CLOSED, { ids: [], uncertain: 0 })
  }

  /** The key costs some bytes for two weeks where this fails, and nothing else. */
  async #forget(): Promise<void> {
    const { stream, id } = this.#rules
    await inTime(
      forgetSoon(this.#connection.client, stream, id).catch((error: unknown) => this.#connection.fault(error)),
      1000,
    )
  }

  #list(): void {
    if (this.#isListed) return
    this.#isListed = true
    void listStream(this.#connection.client, this.#rules.stream)
  }
}

const CLOSED: FeedFailure = { code: 'ERR_PRODUCER_CLOSED', why: 'the feed is closed' }

function failureOf({ code, message }: PublishError): FeedFailure {
  return { code, why: `a job before these cannot be published: ${message}` }
}
