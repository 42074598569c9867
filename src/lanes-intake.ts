import { Bell } from './bell.ts'
import { backoffMs, monotonicMs } from './clock.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Batch, Intake } from './intake.ts'
import type { Logger } from './logger.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { Client } from './redis/connection.ts'
import { faultOf, faultText } from './redis/faults.ts'
import { readFirst, readWithin, type LaneAsked, type LaneRead } from './redis/lanes.ts'
import type { Member } from './redis/member.ts'
import type { RawEntry } from './redis/replies.ts'
import type { Slots } from './slots.ts'
import { countPoll } from './stream-intake.ts'

/**
 * What is read for several streams over one connection: first what is there, shared out by their turns; only if that is
 * nothing, one blocking read over all of them.
 *
 * A stream that is paused, or has all it may take, is left out, and so is one that cannot be read; the others go on. One whose
 * group is gone is joined again; any other fault is tried again with a growing delay, by a read of its own: Redis refuses a
 * script, or a read over several keys, as a whole where one key is refused. When a stream can be read again while the others
 * are waited for, that wait is ended.
 */
export interface IntakeLane {
  readonly member: Member
  readonly logger: Logger
  readonly parts: { readonly dispatcher: Dispatcher; readonly numbers: WorkerNumbers }
  /** Makes the group again after it vanished. */
  readonly rejoin: () => Promise<void>
}

/** Of each key, in the blocking read: whoever waits is woken by the first entries, and reads the others by turns. */
const FIRST_MOST = 16
/** Blocking reads that fail one after the other without a stream that cannot be read by itself. */
const DOUBTS_MOST = 3
const RETRY_MS = 100
const RETRY_MOST_MS = 5000

interface LaneState {
  readonly lane: IntakeLane
  readonly dispatcher: Dispatcher
  /** Entries that were read, and are handed on when the next read is on its way. */
  coming: number
  /** Set while it cannot be read. */
  out: { tries: number; retryAtMs: number; isSaid: boolean } | undefined
}

type Entries = [RawEntry[], RawEntry[]]
interface Found {
  readonly state: LaneState
  readonly entries: Entries
  /** Whether Redis has no more now. */
  readonly isDry: boolean
}

export class LanesIntake implements Intake {
  readonly #states: readonly LaneState[]
  readonly #slots: Slots
  readonly #wake: () => void
  readonly #room = new Bell()
  #turn: 0 | 1 = 0
  #doubts = 0
  /** Those that the blocking read which is out waits for. */
  #awaited: ReadonlySet<LaneState> | undefined

  constructor(lanes: readonly IntakeLane[], slots: Slots, wake: () => void) {
    this.#states = lanes.map((lane) => ({ lane, dispatcher: lane.parts.dispatcher, coming: 0, out: undefined }))
    this.#slots = slots
    this.#wake = wake
    slots.onRoom = () => this.#onRoom()
  }

  get room(): number {
    this.#slots.measure()
    return this.#totalOf(this.#states.map((state) => this.#wantOf(state, 0))) + this.#due().length
  }

  get isPaused(): boolean {
    return this.#states.every(({ dispatcher }) => dispatcher.isPaused)
  }

  roomBeside(): number {
    this.#slots.measure()
    // For all or for none. A read of some only would give them the turns of the others, again and again: it is the heavier
    // streams of which more comes. And the event loop is everybody's: long jobs of one keep what is read of another waiting.
    if (this.#states.some(({ dispatcher, coming }) => dispatcher.pace < coming)) return 0
    return this.#totalOf(this.#states.map((state) => this.#wantOf(state, state.coming)))
  }

  changed(timeoutMs: number): Promise<void> {
    return this.#room.wait(Math.min(timeoutMs, this.#untilRetryMs()))
  }

  async read(client: Client, { count, blockMs }: { count: number; blockMs: number }): Promise<Batch> {
    const found = [...(await this.#readThere(client, count)), ...(await this.#retry(client))]
    if (found.some(({ entries }) => sizeOf(entries) > 0)) return this.#batchOf(found)
    for (const { state, isDry } of found) if (isDry) this.#slots.isDry(this.#states.indexOf(state))
    return this.#batchOf(await this.#waitForFirst(client, { count, blockMs }))
  }

  failed(): void {
    for (const { lane } of this.#states) lane.parts.numbers.polls.error += 1
  }

  async #readThere(client: Client, total: number): Promise<Found[]> {
    const wants = this.#states.map((state) => this.#wantOf(state, state.coming))
    const coming = this.#states.map((state) => state.coming)
    const quotas = this.#slots.quotas(total, wants, coming)
    const places = this.#slots.order().filter((at) => (wants[at] ?? 0) > 0)
    if (places.length === 0) return []
    this.#turn = this.#turn === 0 ? 1 : 0
    const states = places.map((at) => this.#states[at] as LaneState)
    const asked = places.map((at, nth) => ({
      member: (states[nth] as LaneState).lane.member,
      quota: quotas[at] ?? 0,
      want: wants[at] ?? 0,
    }))
    const reads = await this.#readOrEach(client, asked, total)
    return states.map((state, nth) => this.#found(state, reads[nth]))
  }

  /** All in one go, or one by one where that is refused: one of them may be the reason. */
  async #readOrEach(client: Client, asked: readonly LaneAsked[], total: number): Promise<LaneRead[]> {
    try {
      return await readWithin(client, asked, { total, turn: this.#turn })
    } catch (error) {
      if (faultOf(error).kind !== 'fatal') throw error
      const reads = await readEach(client, asked, { total, turn: this.#turn })
      const faulty = reads.filter(({ fault }) => fault !== undefined)
      // What came is ours, whatever else failed.
      if (reads.some(({ entries }) => sizeOf(entries) > 0)) return reads
      // None of them, or all: it is not about one of the streams.
      if (faulty.length === 0 || (faulty.length === reads.length && reads.length > 1)) throw error
      return reads
    }
  }

  /** Those that could not be read, and whose time has come. */
  async #retry(client: Client): Promise<Found[]> {
    const due = this.#due()
    const asked = due.map(({ lane }) => ({ member: lane.member, quota: 1, want: 1 }))
    const reads = due.length === 0 ? [] : await readEach(client, asked, { total: due.length, turn: this.#turn })
    return due.map((state, nth) => this.#found(state, reads[nth]))
  }

  #found(state: LaneState, read: LaneRead | undefined): Found {
    if (read?.fault !== undefined) this.#leaveOut(state, read.fault)
    else if (read !== undefined && state.out !== undefined) this.#takeIn(state)
    return { state, entries: read?.entries ?? [[], []], isDry: read?.isShort === true && read.fault === undefined }
  }

  async #waitForFirst(client: Client, { count, blockMs }: { count: number; blockMs: number }): Promise<Found[]> {
    const open = this.#states.filter((state) => this.#wantOf(state, state.coming) > 0)
    if (open.length === 0) return []
    const least = Math.min(...open.map((state) => this.#wantOf(state, state.coming)), count / open.length)
    const asked = {
      count: Math.max(1, Math.min(FIRST_MOST, Math.floor(least / 2))),
      blockMs: Math.ceil(Math.min(blockMs, this.#untilRetryMs())),
    }
    this.#awaited = new Set(open)
    try {
      const entries = await readFirst(
        client,
        open.map(({ lane }) => lane),
        asked,
      )
      this.#doubts = 0
      return open.map((state, nth) => ({ state, entries: entries[nth] ?? [[], []], isDry: false }))
    } catch (error) {
      // It says not of which stream; the next read of what is there does.
      const { kind } = faultOf(error)
      if ((kind === 'fatal' || kind === 'lost-group') && this.#doubts++ < DOUBTS_MOST) return []
      throw error
    } finally {
      this.#awaited = undefined
    }
  }

  #batchOf(found: readonly Found[]): Batch {
    let size = 0
    for (const { state, entries } of found) {
      state.coming = sizeOf(entries)
      size += state.coming
      countPoll(state.lane.parts.numbers, state.coming)
    }
    return { size, entries: found.flatMap(({ entries }) => entries), take: () => this.#take(found) }
  }

  /** All wait here before the first of them begins: whose turn it is shows only then. */
  #take(found: readonly Found[]): void {
    for (const { state, entries } of found) {
      state.coming = 0
      if (sizeOf(entries) > 0) state.dispatcher.enqueue(entries)
    }
    for (const { state, isDry } of found) if (isDry) this.#slots.isDry(this.#states.indexOf(state))
    this.#slots.fill()
  }

  #leaveOut(state: LaneState, fault: Error): void {
    const { lane } = state
    const { kind } = faultOf(fault)
    const tries = (state.out?.tries ?? 0) + 1
    const isSaid = state.out?.isSaid === true || kind !== 'lost-group'
    if (isSaid && state.out?.isSaid !== true) {
      const level = kind === 'fatal' ? 'error' : 'warn'
      lane.logger[level]({ fault: faultText(fault) }, 'cannot read from Redis now; the worker goes on trying')
    }
    lane.parts.numbers.polls.error += 1
    const out = { tries, isSaid, retryAtMs: monotonicMs() + backoffMs(tries - 1, RETRY_MS, RETRY_MOST_MS) }
    state.out = out
    this.#slots.isOut(this.#states.indexOf(state), true)
    if (kind !== 'lost-group') return
    out.retryAtMs = Infinity
    void lane
      .rejoin()
      .catch(() => {})
      .then(() => {
        out.retryAtMs = 0
        this.#onRoom()
      })
  }

  #takeIn(state: LaneState): void {
    if (state.out?.isSaid === true) state.lane.logger.warn({}, 'the worker reads from Redis again')
    state.out = undefined
    this.#slots.isOut(this.#states.indexOf(state), false)
  }

  /** Somebody may have room who had none. */
  #onRoom(): void {
    if (this.#room.isAwaited && (this.room > 0 || this.#states.every(({ dispatcher }) => dispatcher.isClosed))) {
      this.#room.ring()
    }
    const awaited = this.#awaited
    if (awaited === undefined) return
    const isMissing = (state: LaneState) => !awaited.has(state) && this.#wantOf(state, 0) > 0
    if (this.#due().length > 0 || this.#states.some(isMissing)) this.#wake()
  }

  #wantOf({ dispatcher, out }: LaneState, coming: number): number {
    if (out !== undefined) return 0
    return Math.max(0, coming === 0 ? dispatcher.fetchRoom : dispatcher.roomBeside(coming))
  }

  /** What all of them want together: slots are shared, what is fetched ahead is each one's own. */
  #totalOf(wants: readonly number[]): number {
    let [ahead, slots, allComing] = [0, 0, 0]
    for (const [at, { dispatcher, coming }] of this.#states.entries()) {
      const want = wants[at] ?? 0
      const now = Math.min(want, Math.max(0, dispatcher.slotRoom - coming))
      slots += now
      ahead += want - now
      allComing += coming
    }
    return (
      Math.min(ahead, Math.max(0, this.#slots.aheadRoom - allComing)) + Math.min(slots, Math.max(0, this.#slots.free))
    )
  }

  #due(): LaneState[] {
    const nowMs = monotonicMs()
    return this.#states.filter(
      ({ out, dispatcher }) => out !== undefined && out.retryAtMs <= nowMs && dispatcher.fetchRoom > 0,
    )
  }

  #untilRetryMs(): number {
    const nowMs = monotonicMs()
    // One that is paused or full is not tried again before there is room, and whoever makes room rings.
    const tried = this.#states.filter(({ dispatcher }) => dispatcher.fetchRoom > 0)
    const times = tried.flatMap(({ out }) => (out === undefined ? [] : [out.retryAtMs - nowMs]))
    return Math.max(20, Math.min(Infinity, ...times))
  }
}

/** One by one, each as far as the total goes. What was read is told in any case: it is ours from then on. */
async function readEach(
  client: Client,
  asked: readonly LaneAsked[],
  { total, turn }: { total: number; turn: 0 | 1 },
): Promise<LaneRead[]> {
  const reads: LaneRead[] = []
  let left = total
  for (const one of asked) {
    const read = await readAlone(client, one, { total: left, turn })
    left -= sizeOf(read.entries)
    reads.push(read)
  }
  return reads
}

async function readAlone(
  client: Client,
  asked: LaneAsked,
  { total, turn }: { total: number; turn: 0 | 1 },
): Promise<LaneRead> {
  if (total <= 0) return { isShort: false, fault: undefined, entries: [[], []] }
  try {
    const [read] = await readWithin(client, [asked], { total, turn })
    if (read !== undefined) return read
    throw new Error('no answer for the stream')
  } catch (error) {
    const fault = error instanceof Error ? error : new Error(String(error))
    return { isShort: false, fault, entries: [[], []] }
  }
}

function sizeOf([stream, redelivered]: Entries): number {
  return stream.length + redelivered.length
}
