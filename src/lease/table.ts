import { timeOf } from '../redis/entry-id.ts'
import { Vitals } from './vitals.ts'

/**
 * What this worker holds, in memory that it shares with the lease keeper's thread: one row per slot, no messages.
 *
 * A row is owned by the main thread, which fills and frees it. Its state says what the keeper may do with it:
 *
 *   FREE ─fill─▶ PREFETCHED ─start─▶ RUNNING ─finish─▶ UNSETTLED ─settled─▶ FREE
 *                   │                   └─lost, timed out─▶ ABANDONED ─handler ended─▶ FREE
 *                   └─the keeper hands it back─▶ RETURNED ─seen by the main thread─▶ FREE
 *
 * PREFETCHED, RUNNING and UNSETTLED are renewed. Only what leaves PREFETCHED can race (to RUNNING, to RETURNED, and out of the
 * keeper's sight while its count is written), and all of that is compare-and-set: a job that the keeper gave away is never started here. UNSETTLED lasts until Redis has confirmed the
 * outcome: a finished job that Redis would not settle must not expire and run again.
 *
 * An entry id is two 64-bit numbers, four words, and words tear: they are written under a generation that is odd meanwhile,
 * and read again if it was odd or has changed. (Two plain words without it mixed two jobs in 4 % of reads.) Reports of the
 * keeper carry the generation, so that one about a slot's last job never hits its next.
 */

export const FREE = 0
export const PREFETCHED = 1
export const RUNNING = 2
export const UNSETTLED = 3
export const ABANDONED = 4
export const RETURNED = 5

/** One row as the keeper reads it. */
export interface HeldRow {
  readonly slot: number
  readonly generation: number
  readonly state: number
  readonly source: 0 | 1
  readonly id: string
  /** The delivery count that the entry has in Redis; for a claimed one that was not begun, the count before. */
  readonly deliveries: number
  /** Read from the stream (its count includes this delivery) or claimed (not counted yet). */
  readonly claimed: boolean
}

const WORDS = 10
const GENERATION = 0
const STATE = 1
/** Two words each, the high one first. */
const MS = 2
const SEQ = 4
const DELIVERIES = 6
const SOURCE = 7
const CLAIMED = 8
const DEADLINE = 9

/** Words before the rows: what both threads know of the worker as a whole. From word 8 on they are the vitals'. */
const HEADER = 32
const TICKS = 0
const RUNNING_COUNT = 1
const COMPLETED_COUNT = 2
const CLAIM_ROOM = 3

const TWO_32 = 2 ** 32
/** DEADLINE of a row without one. */
const NEVER = 0

export class LeaseTable {
  readonly shared: SharedArrayBuffer
  readonly slots: number
  /** The worker's signs of life, in the same memory. */
  readonly vitals: Vitals
  readonly #words: Int32Array
  readonly #free: number[] = []

  /** A new table of `slots` rows, or a second view of a shared one. */
  constructor(given: number | SharedArrayBuffer) {
    this.shared = typeof given === 'number' ? new SharedArrayBuffer((HEADER + given * WORDS) * 4) : given
    this.#words = new Int32Array(this.shared)
    this.vitals = new Vitals(this.#words)
    this.slots = (this.#words.length - HEADER) / WORDS
    if (typeof given === 'number') for (let slot = this.slots - 1; slot >= 0; slot--) this.#free.push(slot)
  }

  get freeSlots(): number {
    return this.#free.length
  }

  /** Fills a free row as prefetched; -1 if there is none. */
  fill(source: 0 | 1, id: string, deliveries: number, claimed: boolean): number {
    const slot = this.#free.pop()
    if (slot === undefined) return -1
    const row = HEADER + slot * WORDS
    const words = this.#words
    Atomics.add(words, row + GENERATION, 1)
    // Plain stores between two atomic ones: who reads the row sees them whole, or that the generation is another.
    this.#writeId(row, id)
    words[row + DELIVERIES] = deliveries
    words[row + SOURCE] = source
    words[row + CLAIMED] = claimed ? 1 : 0
    words[row + DEADLINE] = NEVER
    Atomics.store(words, row + STATE, PREFETCHED)
    Atomics.add(words, row + GENERATION, 1)
    return slot
  }

  generation(slot: number): number {
    return Atomics.load(this.#words, HEADER + slot * WORDS + GENERATION)
  }

  state(slot: number): number {
    return Atomics.load(this.#words, HEADER + slot * WORDS + STATE)
  }

  /**
   * The delivery of a claimed row was counted in Redis, and the row waits on; false if the keeper was faster. Nobody gives it
   * back meanwhile: with the count of before it would be given back to nobody.
   */
  count(slot: number, deliveries: number): boolean {
    const row = HEADER + slot * WORDS
    const words = this.#words
    if (Atomics.compareExchange(words, row + STATE, PREFETCHED, ABANDONED) !== PREFETCHED) return false
    Atomics.add(words, row + GENERATION, 1)
    words[row + DELIVERIES] = deliveries
    words[row + CLAIMED] = 0
    Atomics.store(words, row + STATE, PREFETCHED)
    Atomics.add(words, row + GENERATION, 1)
    return true
  }

  /** Prefetched → running, with the delivery count it runs under and the time (monotonic) after which it is not renewed. */
  start(slot: number, deliveries: number, deadlineMs: number): boolean {
    const row = HEADER + slot * WORDS
    // Before the exchange, which orders them: a row that is seen running has them.
    this.setDeadline(slot, deadlineMs)
    this.#words[row + DELIVERIES] = deliveries
    return Atomics.compareExchange(this.#words, row + STATE, PREFETCHED, RUNNING) === PREFETCHED
  }

  setDeadline(slot: number, deadlineMs: number): void {
    this.#words[HEADER + slot * WORDS + DEADLINE] = deadlineMs === Infinity ? NEVER : Math.ceil(deadlineMs / 1000)
  }

  /** Prefetched → returned; false if the main thread was faster. */
  giveBack(slot: number): boolean {
    return Atomics.compareExchange(this.#words, HEADER + slot * WORDS + STATE, PREFETCHED, RETURNED) === PREFETCHED
  }

  /** A row that was given back as it was at that moment: its delivery may have been counted after it was read. */
  returned(row: HeldRow): HeldRow {
    const last = this.#read(row.slot)
    return last?.state === RETURNED && last.id === row.id && last.source === row.source ? last : row
  }

  mark(slot: number, state: typeof UNSETTLED | typeof ABANDONED): void {
    Atomics.store(this.#words, HEADER + slot * WORDS + STATE, state)
  }

  release(slot: number): void {
    Atomics.store(this.#words, HEADER + slot * WORDS + STATE, FREE)
    this.#free.push(slot)
  }

  /** The rows in one of the given states, each read whole. */
  held(states: readonly number[]): HeldRow[] {
    const found: HeldRow[] = []
    for (let slot = 0; slot < this.slots; slot++) {
      if (!states.includes(this.state(slot))) continue
      const row = this.#read(slot)
      if (row !== undefined && states.includes(row.state)) found.push(row)
    }
    return found
  }

  /** Whether a running row is past its time. */
  isOverdue(slot: number, nowMs: number): boolean {
    const deadline = Atomics.load(this.#words, HEADER + slot * WORDS + DEADLINE)
    return deadline !== NEVER && nowMs / 1000 > deadline
  }

  /** The main thread's proof that its event loop turns. */
  tick(): void {
    Atomics.add(this.#words, TICKS, 1)
  }

  get ticks(): number {
    return Atomics.load(this.#words, TICKS)
  }

  /** What the pulse tells of this worker. */
  report({ running, completed, claimRoom }: { running: number; completed: number; claimRoom: number }): void {
    Atomics.store(this.#words, RUNNING_COUNT, running)
    Atomics.store(this.#words, COMPLETED_COUNT, completed | 0)
    Atomics.store(this.#words, CLAIM_ROOM, claimRoom)
  }

  get reported(): { running: number; completed: number; claimRoom: number } {
    return {
      running: Atomics.load(this.#words, RUNNING_COUNT),
      completed: Atomics.load(this.#words, COMPLETED_COUNT) >>> 0,
      claimRoom: Atomics.load(this.#words, CLAIM_ROOM),
    }
  }

  #read(slot: number): HeldRow | undefined {
    const row = HEADER + slot * WORDS
    const words = this.#words
    // A writer needs far less than this many reads; giving up means that the row is read in the next round.
    for (let tries = 0; tries < 1000; tries++) {
      const generation = Atomics.load(words, row + GENERATION)
      if (generation % 2 !== 0) continue
      // Before the count: a row that is seen running has the count that it was started with.
      const state = this.state(slot)
      const read: HeldRow = {
        slot,
        generation,
        state,
        id: `${this.#readHalf(row + MS)}-${this.#readHalf(row + SEQ)}`,
        deliveries: Atomics.load(words, row + DELIVERIES),
        source: Atomics.load(words, row + SOURCE) === 0 ? 0 : 1,
        claimed: Atomics.load(words, row + CLAIMED) === 1,
      }
      if (Atomics.load(words, row + GENERATION) === generation) return read
    }
    return undefined
  }

  #writeId(row: number, id: string): void {
    const dash = id.indexOf('-')
    const ms = timeOf(id)
    if (ms <= Number.MAX_SAFE_INTEGER) this.#writeHalf(row + MS, ms)
    else this.#writeWideHalf(row + MS, id.slice(0, dash))
    const digits = id.slice(dash + 1)
    const seq = Number(digits)
    if (seq <= Number.MAX_SAFE_INTEGER) this.#writeHalf(row + SEQ, seq)
    else this.#writeWideHalf(row + SEQ, digits)
  }

  #writeHalf(at: number, value: number): void {
    this.#words[at] = (value / TWO_32) | 0
    this.#words[at + 1] = value | 0
  }

  #writeWideHalf(at: number, digits: string): void {
    const wide = BigInt(digits)
    this.#words[at] = Number(BigInt.asIntN(32, wide >> 32n))
    this.#words[at + 1] = Number(BigInt.asIntN(32, wide))
  }

  #readHalf(at: number): string {
    const high = Atomics.load(this.#words, at) >>> 0
    const low = Atomics.load(this.#words, at + 1) >>> 0
    if (high < 2 ** 21) return String(high * TWO_32 + low)
    return String((BigInt(high) << 32n) | BigInt(low))
  }
}
