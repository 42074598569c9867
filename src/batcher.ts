import { randomUUID } from 'node:crypto'
import { backoffMs, monotonicMs, sleep } from './clock.ts'
import { PublishError, RedisError, type Published } from './errors.ts'
import type { Logger } from './logger.ts'
import type { ProducerNumbers, PublishNumbers } from './metrics/producer-numbers.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import { append, open, type Appended, type Item } from './redis/publishing.ts'

/**
 * One stream's bounded line of jobs and the one batch that is on its way.
 *
 * A lone publish goes out at once; while a batch is in flight the next one fills, so batches grow under load. A batch is one
 * script call, tagged (producer id, sequence). It is sent until Redis has said what became of it, and the script answers
 * the same batch with the same ids, so a lost reply or a cut connection never makes two jobs of one.
 *
 *   filling ──▶ in flight ──answered──▶ each item resolved with its id
 *                 │  │ └─refused (OOM, loading …)─▶ nothing was executed: back to the line, sent again after a pause
 *                 │  └──no answer─▶ `uncertain`: the same batch, same tag, is sent again and again
 *                 └─ time of all its items up ─▶ given up: rejected as 'unknown', and a new producer id from here on,
 *                    so that a late copy of the batch can meet none of ours
 *
 * An item whose time is up is rejected at once, as 'no' while it waits or was surely refused, as 'unknown' in an uncertain
 * batch. The line is bounded by the caller's check of `jobs` and `bytes`.
 */

/** One job on its way. */
export interface Outgoing extends Item {
  readonly bytes: number
  /** Where it is counted. */
  readonly numbers: PublishNumbers
  /** When it was published, by the monotonic clock. */
  readonly publishedAtMs: number
  /** When its time is up, by the monotonic clock. */
  readonly deadlineMs: number
  /** Called once: with what became of it (`fateOf` reads it), or with the error. */
  settled: ((answer: string | undefined, error?: PublishError) => void) | undefined
}

/** Entries and bytes that one script call may carry; a single larger job goes alone. */
const BATCH_JOBS = 500
const BATCH_BYTES = 1024 * 1024

/** How often Redis is told to remember the producer for another hour: not with every batch, which would cost each a command. */
const REMIND_MS = 600_000

interface Batch {
  readonly items: Outgoing[]
  uncertain: boolean
}

export class Batcher {
  readonly #stream: string
  readonly #connection: Connection
  readonly #logger: Logger
  readonly #numbers: ProducerNumbers
  /** The line; items before `#head` are gone, so that taking a batch costs no shifting. */
  #line: Outgoing[] = []
  #head = 0
  #bytes = 0
  #inFlight: Batch | undefined
  #running = false
  #isFailing = false
  #timer: NodeJS.Timeout | undefined
  #producerId: string | undefined
  /** When Redis was last told to remember the producer, by the monotonic clock. */
  #rememberedAtMs = 0
  #seq = 0
  #lastFault = ''
  #rejected = 0
  readonly #onProgress: (appended: boolean) => void

  constructor(
    connection: Connection,
    numbers: ProducerNumbers,
    { logger, onProgress }: { logger: Logger; onProgress: (appended: boolean) => void },
  ) {
    this.#stream = numbers.stream
    this.#connection = connection
    this.#logger = logger
    this.#numbers = numbers
    this.#onProgress = onProgress
  }

  get numbers(): ProducerNumbers {
    return this.#numbers
  }

  /** Jobs without an answer. */
  get jobs(): number {
    return this.#line.length - this.#head + (this.#inFlight?.items.length ?? 0)
  }

  /** Bytes that wait in the line. */
  get bytes(): number {
    return this.#bytes
  }

  /** Jobs whose publish has failed so far. */
  get rejected(): number {
    return this.#rejected
  }

  push(item: Outgoing): void {
    this.#line.push(item)
    this.#bytes += item.bytes
    if (this.#running) return
    this.#running = true
    // After this turn of the loop's current task, so that what is published together travels together.
    queueMicrotask(() => void this.#run())
  }

  /** Rejects everything that is left, for a close whose time is up. */
  abandon(reason: string): void {
    for (const item of this.#line.splice(0).slice(this.#head)) this.#reject(item, 'no', reason)
    this.#head = 0
    this.#bytes = 0
    const batch = this.#inFlight
    if (batch === undefined) return
    for (const item of batch.items) this.#reject(item, 'unknown', reason)
  }

  async #run(): Promise<void> {
    this.#wakeUp()
    for (let tries = 0; this.jobs > 0;) {
      const moved = await this.#step().catch((error: unknown) => this.#failed(error))
      tries = moved ? 0 : tries + 1
      if (!moved && this.jobs > 0) await sleep(backoffMs(tries - 1, 10, 500))
    }
    this.#running = false
    this.#onProgress(false)
  }

  /**
   * One coarse timer for all items, and only while there are any: a timer per publish would cost more than the publish. It,
   * and the hold on the connection, outlast the last item until it next fires: one publish after the other begins nothing
   * anew.
   */
  #wakeUp(): void {
    if (this.#timer !== undefined) return
    this.#connection.hold(true)
    this.#timer = setInterval(() => {
      if (this.#running) return this.#expire()
      clearInterval(this.#timer)
      this.#timer = undefined
      this.#connection.hold(false)
    }, 25)
  }

  /** Sends what is in flight, or the next batch; true if it was answered. */
  async #step(): Promise<boolean> {
    if (!this.#connection.isReady) await this.#connection.ready(1000)
    if (this.#producerId === undefined) {
      const producerId = randomUUID()
      if (!(await open(this.#connection.client, this.#stream, producerId))) return true
      this.#producerId = producerId
      this.#seq = 0
      this.#rememberedAtMs = monotonicMs()
    }
    this.#inFlight ??= this.#take()
    const batch = this.#inFlight
    if (batch.items.length === 0) {
      this.#inFlight = undefined
      return true
    }
    const { items } = batch
    const sentAtMs = monotonicMs()
    const isRemembered = sentAtMs - this.#rememberedAtMs < REMIND_MS
    const tagged = { producerId: this.#producerId, seq: this.#seq + 1, items, isRemembered }
    const answer = await append(this.#connection.client, this.#stream, tagged)
    if (!isRemembered) this.#rememberedAtMs = sentAtMs
    this.#answered(batch, answer)
    return true
  }

  #answered(batch: Batch, answer: Appended): void {
    if (answer.kind === 'done') {
      this.#seq += 1
      this.#lastFault = ''
      this.#sayWell()
      this.#inFlight = undefined
      const nowMs = monotonicMs()
      batch.items.forEach((item, at) => this.#resolve(item, answer.ids[at], nowMs))
      this.#onProgress(true)
    } else if (answer.kind === 'behind') {
      this.#logger.warn(
        { stored: answer.stored, sent: this.#seq + 1 },
        'Redis has lost batches that it had confirmed (a failover, or a restart without persistence)',
      )
      // A batch after the last one that Redis still knows cannot have been executed there: send it under the next number.
      this.#seq = answer.stored
    } else if (answer.kind === 'forgotten' && !batch.uncertain) {
      this.#producerId = undefined
      this.#putBack(batch)
    } else {
      this.#giveUp(batch, 'Redis no longer knows this producer, so whether the batch was appended cannot be told')
    }
  }

  /** What an error means for the batch in flight. Always "not moved". */
  #failed(error: unknown): boolean {
    const notReady = error instanceof RedisError
    const { kind } = this.#connection.fault(error)
    const batch = this.#inFlight
    this.#lastFault = faultText(error)
    this.#sayFailing()
    if (notReady ? error.code === 'ERR_REDIS_REFUSED' : kind === 'fatal') {
      this.#refuseAll(error)
    } else if (batch !== undefined && !notReady && kind === 'unknown') {
      batch.uncertain = true
    } else if (batch !== undefined && !batch.uncertain) {
      this.#putBack(batch)
    }
    return false
  }

  /** Once an outage, however many batches and tries it costs. */
  #sayFailing(): void {
    if (this.#isFailing) return
    this.#isFailing = true
    this.#logger.info({ waiting: this.jobs, fault: this.#lastFault }, 'cannot publish to Redis now')
  }

  #sayWell(): void {
    if (!this.#isFailing) return
    this.#isFailing = false
    this.#logger.info({ waiting: this.jobs }, 'the producer publishes to Redis again')
  }

  /** Redis will not have these jobs however often it is asked. */
  #refuseAll(error: unknown): void {
    const batch = this.#inFlight
    const uncertain = batch?.uncertain === true
    if (batch !== undefined && !uncertain) this.#putBack(batch)
    const why = `Redis refuses it: ${faultText(error)}`
    for (const item of this.#line.splice(0).slice(this.#head)) this.#reject(item, 'no', why, error)
    this.#head = 0
    this.#bytes = 0
    if (batch !== undefined && uncertain) this.#giveUp(batch, why)
    this.#onProgress(false)
  }

  /** A batch that was surely not executed returns to the head of the line, where items whose time is up leave as 'no'. */
  #putBack(batch: Batch): void {
    this.#line = [...batch.items, ...this.#line.slice(this.#head)]
    this.#head = 0
    for (const item of batch.items) this.#bytes += item.bytes
    this.#inFlight = undefined
  }

  #take(): Batch {
    const items: Outgoing[] = []
    let bytes = 0
    while (this.#head < this.#line.length && items.length < BATCH_JOBS) {
      const item = this.#line[this.#head]
      if (item === undefined) break
      if (item.settled !== undefined) {
        if (items.length > 0 && bytes + item.bytes > BATCH_BYTES) break
        items.push(item)
        bytes += item.bytes
      }
      this.#head += 1
      this.#bytes -= item.bytes
    }
    if (this.#head === this.#line.length || this.#head > 10_000) {
      this.#line = this.#line.slice(this.#head)
      this.#head = 0
    }
    return { items, uncertain: false }
  }

  #giveUp(batch: Batch, reason: string): void {
    this.#inFlight = undefined
    this.#producerId = undefined
    for (const item of batch.items) this.#reject(item, 'unknown', reason)
    this.#onProgress(false)
  }

  #expire(): void {
    const nowMs = monotonicMs()
    const late = (item: Outgoing) => item.settled !== undefined && item.deadlineMs <= nowMs
    const fault = () =>
      this.#lastFault === '' || this.#connection.isFailing ? this.#faultOfConnection() : this.#lastFault
    const why = () => `its time was up${fault() === '' ? '' : `; the last fault was: ${fault()}`}`
    const rejectedBefore = this.#rejected
    for (let at = this.#head; at < this.#line.length; at++) {
      const item = this.#line[at]
      if (item !== undefined && late(item)) this.#reject(item, 'no', why())
    }
    if (this.#rejected > rejectedBefore) this.#dropSettled()
    const batch = this.#inFlight
    if (batch === undefined) return
    for (const item of batch.items) if (late(item)) this.#reject(item, 'unknown', why())
    if (batch.uncertain && batch.items.every((item) => item.settled === undefined)) this.#giveUp(batch, why())
  }

  #faultOfConnection(): string {
    return this.#connection.isReady ? '' : this.#connection.unready().message
  }

  /** Lets go of items that were rejected: their payloads, and the work that they kept the process running for. */
  #dropSettled(): void {
    this.#line = this.#line.slice(this.#head).filter((item) => item.settled !== undefined)
    this.#head = 0
    this.#bytes = this.#line.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  #resolve(item: Outgoing, answer: string | undefined, nowMs: number): void {
    if (answer === undefined) return this.#reject(item, 'no', 'Redis refused to append it', new Error('XADD failed'))
    if (item.settled === undefined) return
    item.numbers.ok += 1
    this.#numbers.duration.observe((nowMs - item.publishedAtMs) / 1000)
    item.settled(answer)
    item.settled = undefined
  }

  #reject(item: Outgoing, published: Published, why: string, cause?: unknown): void {
    const told = item.settled
    item.settled = undefined
    if (told === undefined) return
    this.#rejected += 1
    item.numbers[published === 'no' ? 'rejected' : 'unknown'] += 1
    const fate = published === 'no' ? 'the job is not in Redis' : 'the job may be in Redis or not'
    const code = cause === undefined ? 'ERR_PUBLISH_TIMEOUT' : 'ERR_PUBLISH_REFUSED'
    told(
      undefined,
      new PublishError(code, `could not publish to ${this.#stream}: ${why}; ${fate}`, { published, cause }),
    )
  }
}
