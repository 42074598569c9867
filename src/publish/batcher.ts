import { randomUUID } from 'node:crypto'
import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { RedisError, type PublishError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { ProducerNumbers } from '../metrics/producer-numbers.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { append, isRefused, open, type Appended } from '../redis/publishing.ts'
import type { OutageBuffer } from './outage-buffer.ts'
import { isAwaited, isSettled, type BatchLeft, type Outgoing } from './outgoing.ts'
import { refusalOf } from './refusals.ts'
import { awaitReplicas, type Confirmed } from './replicas.ts'
import { Trouble } from './trouble.ts'

/**
 * One stream's buffer, and the one batch that is on its way.
 *
 * A lone publish goes out at once; while a batch is in flight the next one fills, so batches grow under load. A batch is one
 * script call, tagged (producer id, sequence). It is sent until Redis has said what became of it, and the script answers
 * the same batch with the same ids, so a lost reply or a cut connection never makes two jobs of one.
 *
 *   filling ──▶ in flight ──answered──▶ each item resolved with its id ──(replicas asked for)──▶ once they have it, or late
 *                 │  │ ├─refused (OOM, loading …), or no room in the stream─▶ nothing was executed: back to the head of the
 *                 │  │ │                                                       line, sent again after a pause
 *                 │  │ └─refused for good (password …)─▶ the same, and publishes that somebody waits for are rejected
 *                 │  └──no answer─▶ `uncertain`: the same batch, same tag, is sent again and again
 *                 └─ time of all its items up ─▶ given up: rejected as 'unknown', and a new producer id from here on,
 *                    so that a late copy of the batch can meet none of ours
 *
 * An item whose time is up is rejected at once, as 'no' while it waits or was surely refused, as 'unknown' in an uncertain
 * batch. One that is buffered has no one who waits for it: it stays until it is too old, whatever Redis says meanwhile.
 */

/** Entries and bytes that one script call may carry; a single larger job goes alone. */
const BATCH_JOBS = 500
const BATCH_BYTES = 1024 * 1024

/** How often Redis is told to remember the producer for another hour: not with every batch, which would cost each a command. */
const REMIND_MS = 600_000

/** How often the stream's maxBacklog is looked at while there is none. */
const LOOK_MS = 1000

interface Batch {
  readonly items: Outgoing[]
  uncertain: boolean
  /** What Redis has said became of it, while replicas are waited for. */
  confirmed: Confirmed | undefined
}

export interface BatcherDeps {
  readonly buffer: OutageBuffer
  readonly numbers: ProducerNumbers
  readonly logger: Logger
  readonly whenStreamFull: 'wait' | 'reject'
  /** Why nothing is to be published now, for want of memory in Redis. */
  readonly memoryFault: () => string | undefined
  /** What must be published before anything else, or a part of it; undefined once all of it is. */
  readonly before: () => Promise<void> | undefined
  /** Something is to be sent, or nothing any more. */
  readonly hold: (held: boolean) => void
  readonly onProgress: (appended: boolean) => void
  readonly resolve: (item: Outgoing, answer: string, replicated: number, nowMs: number) => void
  readonly reject: (item: Outgoing, error: PublishError) => void
}

export class Batcher {
  readonly numbers: ProducerNumbers
  readonly buffer: OutageBuffer
  readonly #stream: string
  readonly #connection: Connection
  readonly #deps: BatcherDeps
  readonly #trouble: Trouble
  #inFlight: Batch | undefined
  #running = false
  #timer: NodeJS.Timeout | undefined
  #producerId: string | undefined
  /** When Redis was last told to remember the producer, by the monotonic clock. */
  #rememberedAtMs = 0
  #seq = 0
  /** When the stream's bound was last looked at; with every batch while there is one. */
  #lookedAtMs = -Infinity
  #isBounded = false
  /** How many jobs the next batch may have: fewer where the stream has only so much room. */
  #most = BATCH_JOBS
  #abandoned = false
  /** When Redis last took a batch, by the monotonic clock. */
  tookAtMs = -Infinity

  constructor(connection: Connection, deps: BatcherDeps) {
    this.numbers = deps.numbers
    this.#stream = deps.numbers.stream
    this.#connection = connection
    this.#deps = deps
    this.buffer = deps.buffer
    this.#trouble = new Trouble(this.#stream, connection, deps.logger)
  }

  /** Jobs without an answer. */
  get jobs(): number {
    return this.buffer.jobs + this.buffer.atDoor
  }

  /** @throws BufferFullError, PublishError ERR_PUBLISH_SHED: there is no room for it. */
  push(item: Outgoing): void {
    this.buffer.admit(item)
    if (this.#running) return
    this.#running = true
    // After this turn of the loop's current task, so that what is published together travels together.
    queueMicrotask(() => void this.#run())
  }

  /** Takes a job back: at once if it is not on its way yet, else when its batch was surely not executed. */
  withdraw(item: Outgoing): void {
    item.isUnwanted = true
    if (item.settled === undefined || item.isOnItsWay || this.#abandoned) return
    this.buffer.withdraw(item, this.#trouble.error('no', 'its signal was aborted', { code: 'ERR_PUBLISH_ABORTED' }))
  }

  /** Sends nothing any more. What is left is the caller's, who settles it: what waits, and the batch on its way. */
  abandon(): { waiting: Outgoing[]; batch: BatchLeft | undefined } {
    this.#abandoned = true
    const { line, door } = this.buffer.takeAll()
    const batch = this.#inFlight
    this.#inFlight = undefined
    if (batch?.confirmed !== undefined) this.#settleConfirmed(batch, () => true)
    const isLeft = batch !== undefined && batch.confirmed === undefined && this.#producerId !== undefined
    return {
      waiting: [...line, ...door],
      batch: isLeft ? { producerId: this.#producerId ?? '', seq: this.#seq + 1, items: batch.items } : undefined,
    }
  }

  /** Of a job whose time is up before it was on its way. */
  late(): PublishError {
    return this.#trouble.error('no', this.#trouble.whyLate(), { code: this.#trouble.code })
  }

  async #run(): Promise<void> {
    this.#wakeUp()
    for (let tries = 0; this.jobs > 0 && !this.#abandoned;) {
      const moved = await this.#step().catch((error: unknown) => this.#failed(error))
      tries = moved ? 0 : tries + 1
      if (!moved && this.jobs > 0) await sleep(backoffMs(tries - 1, 10, this.#trouble.isFull ? 100 : 500))
    }
    this.#running = false
    this.#deps.onProgress(false)
  }

  /**
   * One coarse timer for all items, and only while there are any: a timer per publish would cost more than the publish. It,
   * and the hold on the connection, outlast the last item until it next fires: one publish after the other begins nothing
   * anew.
   */
  #wakeUp(): void {
    if (this.#timer !== undefined) return
    this.#deps.hold(true)
    this.#timer = setInterval(() => {
      if (this.#running && !this.#abandoned) return this.#expire()
      clearInterval(this.#timer)
      this.#timer = undefined
      this.#deps.hold(false)
    }, 25)
  }

  /** Sends what is in flight, or the next batch; true if it was answered. */
  async #step(): Promise<boolean> {
    for (let before = this.#deps.before(); before !== undefined && !this.#abandoned; before = this.#deps.before()) {
      await before
    }
    if (!this.#connection.isReady) await this.#connection.ready(1000)
    if (this.#producerId === undefined && !(await this.#open())) return true
    if (this.#abandoned) return true
    const memory = this.#deps.memoryFault()
    if (memory !== undefined && this.#inFlight === undefined) return this.#hold('memory', memory)
    this.#inFlight ??= { items: this.buffer.take(this.#most, BATCH_BYTES), uncertain: false, confirmed: undefined }
    const batch = this.#inFlight
    if (batch.items.length === 0) {
      this.#inFlight = undefined
      return true
    }
    return this.#send(batch)
  }

  async #open(): Promise<boolean> {
    const producerId = randomUUID()
    this.#deps.memoryFault() // has it look, and its answer comes before the one to this
    if (!(await open(this.#connection.client, this.#stream, producerId))) return false
    this.#producerId = producerId
    this.#seq = 0
    this.#rememberedAtMs = monotonicMs()
    return true
  }

  async #send(batch: Batch): Promise<boolean> {
    const sentAtMs = monotonicMs()
    const isRemembered = sentAtMs - this.#rememberedAtMs < REMIND_MS
    const isChecked = !batch.uncertain && (this.#isBounded || sentAtMs - this.#lookedAtMs >= LOOK_MS)
    const producerId = this.#producerId ?? ''
    const tagged = { producerId, seq: this.#seq + 1, items: batch.items, isRemembered, isChecked }
    const answer = await append(this.#connection.client, this.#stream, tagged)
    if (!isRemembered) this.#rememberedAtMs = sentAtMs
    if (this.#inFlight !== batch) return true
    if (isChecked) this.#sawBound(answer, sentAtMs)
    const isDone = this.#answered(batch, answer)
    if (batch.confirmed !== undefined) await this.#replicate(batch, producerId)
    return isDone
  }

  #sawBound(answer: Appended, atMs: number): void {
    if (answer.kind !== 'done' && answer.kind !== 'full') return
    this.#lookedAtMs = atMs
    if (answer.bound !== undefined) this.#isBounded = answer.bound !== null
  }

  /** True if there is nothing to wait for before the next try. */
  #answered(batch: Batch, answer: Appended): boolean {
    switch (answer.kind) {
      case 'done':
        this.#trouble.over(this.jobs)
        this.#most = Math.min(BATCH_JOBS, this.#most * 2)
        this.#done(batch, answer.ids)
        return true
      case 'full':
        return this.#noRoom(batch, answer)
      case 'behind':
        this.#deps.logger.warn(
          { stored: answer.stored, sent: this.#seq + 1 },
          'Redis has lost batches that it had confirmed (a failover, or a restart without persistence)',
        )
        // Nothing under this id is appended there any more, whatever is still on its way. And a server that has those batches
        // after all, found again after a failover, must not take a new one for one of them: a new id, not their numbers.
        this.#producerId = undefined
        this.#putBack(batch)
        return true
      case 'forgotten':
      case 'stale':
        if (answer.kind === 'forgotten' && !batch.uncertain && batch.confirmed === undefined) {
          this.#producerId = undefined
          this.#putBack(batch)
        } else {
          this.#giveUp(batch, 'Redis no longer knows this producer, so whether the batch was appended cannot be told')
        }
        return true
    }
  }

  #done(batch: Batch, ids: readonly (string | undefined)[]): void {
    const nowMs = monotonicMs()
    this.tookAtMs = nowMs
    if (batch.items.some(({ replicas, settled }) => replicas !== undefined && settled !== undefined)) {
      batch.confirmed = { ids, atMs: batch.confirmed?.atMs ?? nowMs, replicated: 0 }
      this.#settleConfirmed(batch, ({ replicas }) => replicas === undefined)
      return
    }
    this.#finish(batch)
    batch.items.forEach((item, at) => this.#resolve(item, ids[at], 0, nowMs))
    this.#deps.onProgress(true)
  }

  /** Takes the batch off its way: its number is spent. */
  #finish(batch: Batch): void {
    if (this.#inFlight !== batch) return
    this.#inFlight = undefined
    this.#seq += 1
  }

  /** Waits for replicas; if the connection is lost meanwhile, the batch is sent again, which says whether it is still there. */
  async #replicate(batch: Batch, producerId: string): Promise<void> {
    const key = { stream: this.#stream, producerId }
    await awaitReplicas(this.#connection.client, key, {
      items: batch.items,
      confirmed: () => batch.confirmed,
      isOver: () => this.#abandoned || this.#inFlight !== batch,
      told: (isMeant) => this.#settleConfirmed(batch, isMeant),
    })
    this.#finish(batch)
    this.#deps.onProgress(true)
  }

  #settleConfirmed(batch: Batch, isMeant: (item: Outgoing) => boolean): void {
    const { confirmed } = batch
    if (confirmed === undefined) return
    const nowMs = monotonicMs()
    batch.items.forEach((item, at) => {
      if (isMeant(item)) this.#resolve(item, confirmed.ids[at], confirmed.replicated, nowMs)
    })
  }

  /** The stream has only so much room, or none. */
  #noRoom(batch: Batch, { backlog, bound }: { backlog: number; bound: number }): boolean {
    this.#putBack(batch)
    const room = bound - backlog
    this.#most = Math.max(1, Math.min(BATCH_JOBS, room))
    if (room >= 1) return true
    return this.#hold('backlog', `${this.#stream} has a backlog of ${backlog} jobs; its maxBacklog is ${bound}`)
  }

  /** Nothing may be published now. Always "not moved". */
  #hold(by: 'backlog' | 'memory', why: string): boolean {
    this.numbers.held[by] += 1
    const code = by === 'backlog' ? 'ERR_STREAM_FULL' : 'ERR_MEMORY_FULL'
    this.#trouble.meet(why, { waiting: this.jobs, code })
    if (this.#deps.whenStreamFull === 'reject') {
      this.buffer.rejectAll(isAwaited, () => this.#trouble.error('no', why, { code }))
      this.#deps.onProgress(false)
    }
    return false
  }

  /** What an error means for the batch in flight. Always "not moved". */
  #failed(error: unknown): boolean {
    if (this.#abandoned) return false
    const notReady = error instanceof RedisError
    const { kind } = this.#connection.fault(error)
    const batch = this.#inFlight
    this.#trouble.meet(faultText(error), { waiting: this.jobs })
    if (batch !== undefined && !notReady && kind === 'unknown') batch.uncertain = true
    else if (batch !== undefined && !batch.uncertain && batch.confirmed === undefined) this.#putBack(batch)
    if (notReady ? error.code === 'ERR_REDIS_REFUSED' : kind === 'fatal') this.#refuseAll(error)
    // Nobody waits for it any more, and nobody would see that its time is up.
    if (this.#inFlight?.items.every(isSettled) === true) this.#letGo(this.#inFlight)
    return false
  }

  /** Redis will not have these jobs as it is now: who waits is told; buffered ones wait until somebody has mended it. */
  #refuseAll(error: unknown): void {
    const batch = this.#inFlight
    const why = `Redis refuses it: ${faultText(error)}`
    this.buffer.rejectAll(isAwaited, () => this.#trouble.error('no', why, { cause: error }))
    if (batch !== undefined && batch.confirmed === undefined) {
      for (const item of batch.items) if (isAwaited(item)) this.#reject(item, this.#trouble.error('unknown', why))
    }
    this.#deps.onProgress(false)
  }

  /** A batch that was surely not executed returns to the head of the line, where items whose time is up leave as 'no'. */
  #putBack(batch: Batch): void {
    this.#inFlight = undefined
    // What Redis had said before is over, whatever replicas may say.
    batch.confirmed = undefined
    this.buffer.putBack(batch.items)
    for (const item of batch.items) if (item.isUnwanted) this.withdraw(item)
  }

  #giveUp(batch: Batch, reason: string): void {
    this.#inFlight = undefined
    this.#producerId = undefined
    for (const item of batch.items) this.#reject(item, this.#trouble.error('unknown', reason))
    this.#deps.onProgress(false)
  }

  #expire(): void {
    const nowMs = monotonicMs()
    this.buffer.dropLate(nowMs, () => this.late())
    const batch = this.#inFlight
    if (batch === undefined) return
    const { confirmed } = batch
    if (confirmed !== undefined) {
      const isLate = ({ replicas, deadlineMs }: Outgoing) =>
        Math.min(deadlineMs, confirmed.atMs + (replicas?.timeoutMs ?? 0)) <= nowMs
      this.#settleConfirmed(batch, isLate)
      return
    }
    for (const item of batch.items) {
      if (item.settled !== undefined && item.deadlineMs <= nowMs) {
        this.#reject(item, this.#trouble.error('unknown', this.#trouble.whyLate()))
      }
    }
    if (batch.uncertain && batch.items.every(isSettled)) this.#letGo(batch)
  }

  /** A batch whose items have all been told. */
  #letGo(batch: Batch): void {
    if (batch.confirmed === undefined) this.#giveUp(batch, '')
    else this.#finish(batch)
  }

  #resolve(item: Outgoing, answer: string | undefined, replicated: number, nowMs: number): void {
    if (item.settled === undefined) return
    if (isRefused(answer)) {
      const { why, ...more } = refusalOf(answer)
      return this.#reject(item, this.#trouble.error('no', why, more))
    }
    this.#deps.resolve(item, answer, replicated, nowMs)
    this.buffer.release(item)
  }

  /** Of a job that is on its way. */
  #reject(item: Outgoing, error: PublishError): void {
    if (item.settled === undefined) return
    this.#deps.reject(item, error)
    this.buffer.release(item)
  }
}
