import { BufferFullError, PublishError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { LineSeen, ProducerNumbers } from '../metrics/producer-numbers.ts'
import { monotonicMs } from '../clock.ts'
import type { BufferRules } from '../producer-options.ts'
import type { BufferLevel } from '../producer-events.ts'
import { Line } from './line.ts'
import type { Outgoing } from './outgoing.ts'

/**
 * What a producer keeps of one stream, and within which bounds. A job counts from when it is let in until it is settled, also
 * while its batch is on its way: only then is its memory given back.
 *
 *   publish ──room──▶ line ──take──▶ in flight ──▶ settled
 *      │                ▲  └──────── put back ◀┘
 *      ├─no room: wait──┘ (at the door, in order, as many as the buffer holds at most)
 *      ├─no room: shed ▶ the weakest of the line gives way, or the newcomer itself
 *      └─no room: reject
 */

export interface BufferDeps {
  readonly rules: BufferRules
  readonly numbers: ProducerNumbers
  readonly logger: Logger
  /** Gives a job up that stands in the line or was not let in. */
  readonly reject: (item: Outgoing, error: PublishError) => void
  /** Hands a job that was shed to the user. */
  readonly shed: (item: Outgoing, error: PublishError) => void
  readonly onLevel: (event: 'buffer:high' | 'buffer:eased', level: BufferLevel) => void
}

const HIGH = 0.8
const EASED = 0.5

export class OutageBuffer implements LineSeen {
  readonly #deps: BufferDeps
  readonly #line = new Line()
  /** Those that wait for room. */
  readonly #door = new Line()
  /** The last batch: it stood before the line, so its jobs are the oldest until they are settled. */
  #taken: readonly Outgoing[] = []
  #jobs = 0
  #bytes = 0
  #isHigh = false
  #saidHighAtMs = -Infinity
  readonly #highJobs: number
  readonly #highBytes: number

  constructor(deps: BufferDeps) {
    this.#deps = deps
    this.#highJobs = deps.rules.maxJobs * HIGH
    this.#highBytes = deps.rules.maxBytes * HIGH
  }

  /** Jobs that were let in and have no answer yet. */
  get jobs(): number {
    return this.#jobs
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Jobs that wait for room. */
  get atDoor(): number {
    return this.#door.jobs
  }

  get mostJobs(): number {
    return this.#deps.rules.maxJobs
  }

  get mostBytes(): number {
    return this.#deps.rules.maxBytes
  }

  get oldestMs(): number {
    const oldest = this.#taken.find(({ settled }) => settled !== undefined) ?? this.#line.first ?? this.#door.first
    return oldest === undefined ? 0 : Math.max(0, monotonicMs() - oldest.publishedAtMs)
  }

  /** Whether there is room for a job of so many bytes and nobody was there before it. A large one alone always fits. */
  hasRoom(bytes: number): boolean {
    return this.#door.jobs === 0 && this.#fits(bytes)
  }

  /**
   * Lets a job in, or does with it what the rules say; its `admitted` is called at once or later.
   * @throws BufferFullError, PublishError ERR_PUBLISH_SHED: it is not in.
   */
  admit(item: Outgoing): void {
    if (this.hasRoom(item.bytes)) return this.#letIn(item)
    const { whenFull } = this.#deps.rules
    if (whenFull === 'shed') return this.#shedFor(item)
    // Who waits holds a payload too.
    const isDoorFull = this.#door.jobs >= this.mostJobs || this.#door.bytes >= this.mostBytes
    if (whenFull === 'reject' || isDoorFull) throw this.#full()
    item.isAtDoor = true
    this.#door.push(item)
  }

  /** Takes what goes into the next batch. */
  take(mostJobs: number, mostBytes: number): Outgoing[] {
    const taken = this.#line.take(mostJobs, mostBytes)
    this.#taken = taken
    for (const item of taken) item.isOnItsWay = true
    return taken
  }

  /** A batch that was surely not executed returns to the head of the line. */
  putBack(items: readonly Outgoing[]): void {
    this.#taken = []
    for (const item of items) item.isOnItsWay = false
    this.#line.putBack(items)
  }

  /** To be called when an item that was taken has got its answer: its room is free. */
  release(item: Outgoing): void {
    this.#jobs -= 1
    // Else an idle producer would keep their payloads.
    if (this.#jobs === 0) this.#taken = []
    this.#bytes -= item.bytes
    if (this.#isHigh && this.#jobs <= this.mostJobs * EASED && this.#bytes <= this.mostBytes * EASED) {
      this.#isHigh = false
      this.#deps.onLevel('buffer:eased', this.#level())
    }
    this.#openDoor()
  }

  /** Gives up what waits and is late. */
  dropLate(nowMs: number, errorOf: (item: Outgoing) => PublishError): void {
    for (const item of this.#door.late(nowMs)) this.#reject(item, this.#full())
    this.#openDoor()
    for (const item of this.#line.late(nowMs)) this.#reject(item, errorOf(item))
  }

  /** Gives up every waiting job of which `isMeant` says so. */
  rejectAll(isMeant: (item: Outgoing) => boolean, errorOf: (item: Outgoing) => PublishError): void {
    // First those at the door, which the others would let in.
    for (const item of [...this.#door, ...this.#line]) if (isMeant(item)) this.#reject(item, errorOf(item))
    this.#openDoor()
  }

  /** Takes a job back that still waits here. */
  withdraw(item: Outgoing, error: PublishError): void {
    this.#reject(item, error)
    this.#openDoor()
  }

  /** Everything that waits, in its order; nothing is left here. */
  takeAll(): { line: Outgoing[]; door: Outgoing[] } {
    this.#taken = []
    return { line: this.#line.takeAll(), door: this.#door.takeAll() }
  }

  #reject(item: Outgoing, error: PublishError): void {
    if (item.settled === undefined) return
    this.#deps.reject(item, error)
    if (item.isAtDoor) return this.#door.dropped(item)
    this.#line.dropped(item)
    this.release(item)
  }

  #letIn(item: Outgoing): void {
    this.#jobs += 1
    this.#bytes += item.bytes
    this.#line.push(item)
    item.isAtDoor = false
    const { admitted } = item
    item.admitted = undefined
    admitted?.(item)
    if (!this.#isHigh && (this.#jobs >= this.#highJobs || this.#bytes >= this.#highBytes)) this.#sayHigh()
  }

  #openDoor(): void {
    if (this.#door.jobs === 0) return
    for (let next = this.#door.first; next !== undefined && this.#fits(next.bytes); next = this.#door.first) {
      this.#door.take(1, Infinity)
      this.#letIn(next)
    }
  }

  /** All that must give way for it does, or nobody but itself. */
  #shedFor(item: Outgoing): void {
    const yielding: Outgoing[] = []
    let bytes = 0
    while (!this.#fits(item.bytes, yielding.length, bytes)) {
      const weakest = this.#line.weakest(item.priority)
      if (weakest === undefined) {
        this.#line.spare(yielding)
        const error = this.#shedError()
        this.#deps.shed(item, error)
        throw error
      }
      yielding.push(weakest)
      bytes += weakest.bytes
    }
    for (const weakest of yielding) {
      const error = this.#shedError()
      this.#deps.shed(weakest, error)
      this.#reject(weakest, error)
    }
    this.#letIn(item)
  }

  /** Whether there is room once so many jobs of so many bytes are gone. */
  #fits(bytes: number, jobsGone = 0, bytesGone = 0): boolean {
    const jobs = this.#jobs - jobsGone
    return jobs < this.mostJobs && (this.#bytes - bytesGone + bytes <= this.mostBytes || jobs === 0)
  }

  #sayHigh(): void {
    this.#isHigh = true
    this.#deps.numbers.highWaters += 1
    const { jobs, maxJobs, bytes, maxBytes } = this.#level()
    // Not at every wave of a producer that is faster than Redis for a moment.
    if (monotonicMs() - this.#saidHighAtMs >= 10_000) {
      this.#saidHighAtMs = monotonicMs()
      this.#deps.logger.warn({ jobs, maxJobs, bytes, maxBytes }, 'the buffer of the producer is filling')
    }
    this.#deps.onLevel('buffer:high', this.#level())
  }

  #level(): BufferLevel {
    const { mostJobs: maxJobs, mostBytes: maxBytes } = this
    return { stream: this.#deps.numbers.stream, jobs: this.#jobs, maxJobs, bytes: this.#bytes, maxBytes }
  }

  #full(): BufferFullError {
    return new BufferFullError(`${this.#whatWaits()}; the job is not in Redis, publish it later`)
  }

  #shedError(): PublishError {
    const text = `${this.#whatWaits()}; the job was shed for those of a higher bufferPriority and is not in Redis`
    return new PublishError('ERR_PUBLISH_SHED', text, { published: 'no' })
  }

  #whatWaits(): string {
    return `${this.#jobs} jobs (${this.#bytes} bytes) of ${this.#deps.numbers.stream} wait for Redis already`
  }
}
