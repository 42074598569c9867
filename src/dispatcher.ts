import { Bell } from './bell.ts'
import { backoffMs, monotonicMs, sleep } from './clock.ts'
import type { Delivery } from './delivery.ts'
import type { DispatcherDeps } from './dispatcher-deps.ts'
import { EndRate } from './end-rate.ts'
import type { Deferrals } from './limits/deferrals.ts'
import { isSuspect } from './quarantine.ts'
import type { RawEntry } from './redis/replies.ts'
import type { Begun } from './redis/stream.ts'
import type { SlotUser } from './slots.ts'

/**
 * The local queue and the slots. Claimed deliveries stand at its head, fetched ones behind; a slot that becomes free takes
 * from the head. Claimed ones are begun in Redis first, which counts their delivery and brings their fields.
 *
 * A job that took two workers down already waits in quarantine: one of those at a time per worker, and the next only when
 * Redis has confirmed the outcome of the last. Whoever dies with it then dies with it alone, so the jobs that happened to
 * run beside a poison job, or just before it, are not charged with what it did.
 *
 * How much is fetched ahead follows from how fast jobs end here: what ends within PREFETCH_MS. Slow jobs are not fetched
 * ahead at all; they would wait behind each other here while other workers are idle.
 *
 * Where a worker works on several streams there is a dispatcher for each, and the slots are the worker's: they say whose turn
 * a free one is (slots.ts).
 */

const PREFETCH_MS = 10
const PREFETCH_MOST = 500

export class Dispatcher implements SlotUser {
  readonly #deps: DispatcherDeps
  leastAhead = 0
  #fetched: Delivery[] = []
  #head = 0
  #claimed: Delivery[] = []
  #quarantined: Delivery[] = []
  #inQuarantine: Delivery | undefined
  #running = 0
  #beginning = 0
  #dispatching = false
  #closed = false
  /** Closed, or paused: nothing is begun, and nothing is asked for. */
  #halted = false
  /** Whose begin was on its way when it was closed. */
  #unstarted: Delivery[] = []
  readonly #rate = new EndRate()
  readonly #room = new Bell()

  constructor(deps: DispatcherDeps) {
    this.#deps = deps
  }

  get running(): number {
    return this.#running
  }

  get waiting(): number {
    return this.#fetched.length - this.#head + this.claims
  }

  get claims(): number {
    return this.#claimed.length + this.#quarantined.length
  }

  get taken(): number {
    return this.#running + this.#beginning
  }

  get ready(): number {
    if (this.#halted) return 0
    const quarantined = this.#quarantined.length > 0 && this.#isQuarantineFree ? 1 : 0
    const passed = (this.#deps.deferrals?.passed ?? 0) + this.#fetched.length - this.#head
    return Math.min(this.#deps.concurrency - this.taken, passed + this.#claimed.length + quarantined)
  }

  get pace(): number {
    this.#rate.measure()
    return this.#rate.perMs * PREFETCH_MS
  }

  /** How many of what is fetched now would not wait for a slot. */
  get slotRoom(): number {
    return this.#halted ? 0 : Math.max(0, this.#free - this.#claimed.length)
  }

  /** How many entries to fetch now; 0 while what was fetched ahead still lasts. */
  get fetchRoom(): number {
    return this.#roomWith(0)
  }

  /**
   * How many to fetch before `coming` entries, which were read already, run: none unless jobs are known to be so short that
   * these take but a moment. What a read brings is held only when the event loop takes it from the socket, so no read may be
   * out while handlers keep the loop for long.
   */
  roomBeside(coming: number): number {
    return this.pace < coming ? 0 : this.#roomWith(coming)
  }

  #roomWith(coming: number): number {
    const ahead = Math.min(PREFETCH_MOST, Math.max(this.leastAhead, Math.floor(this.#rate.perMs * PREFETCH_MS)))
    const queued = this.#fetched.length - this.#head + coming + (this.#deps.turns?.comingAt(this.#rate.perMs) ?? 0)
    const slots = this.#free - this.#claimed.length
    // Where slots are free, what comes does not stay in the queue.
    const { deferrals, holdings } = this.#deps
    if (this.#halted || queued - (coming > 0 ? Math.max(0, slots) : 0) > ahead / 2) return 0
    const room = Math.min(slots + ahead - queued, Math.floor((holdings.free - coming) / 2))
    return deferrals === undefined ? room : deferrals.bounded(room, slots, coming + queued)
  }

  /** How many entries a claim may bring. */
  get claimRoom(): number {
    if (this.#halted) return 0
    // As many as there are slots, also while all are taken: a backlog must not keep claims out. Those that wait too long move on.
    const { concurrency, holdings, slots } = this.#deps
    const waiting = this.claims
    const shared = slots === undefined ? Infinity : slots.claimRoomBeside(waiting)
    return Math.min(concurrency - waiting, holdings.free, shared)
  }

  get #free(): number {
    const { concurrency, slots } = this.#deps
    const own = concurrency - this.#running - this.#beginning
    return slots === undefined ? own : Math.min(own, slots.free)
  }

  /** Takes entries as they were read. Stream and redelivery stream share the slots in turn. */
  fetched(entries: readonly [RawEntry[], RawEntry[]]): void {
    this.enqueue(entries)
    this.dispatch()
  }

  /** The same, and begins none of them. */
  enqueue(entries: readonly [RawEntry[], RawEntry[]]): void {
    this.#rate.measure()
    const heldAtMs = monotonicMs()
    const [stream, redelivery] = entries
    const most = Math.max(stream.length, redelivery.length)
    for (let at = 0; at < most; at++) {
      for (const source of [1, 0] as const) {
        const entry = entries[source][at]
        if (entry === undefined) continue
        const delivery = this.#deps.holdings.adopt(source, { entryId: entry.id, deliveries: 1, fields: entry.fields })
        // Without a row it cannot be renewed, so it is not held: it is claimed, by us or others, when its lease is over.
        if (delivery === undefined) continue
        delivery.heldAtMs = heldAtMs
        this.#fetched.push(delivery)
      }
    }
    this.#deps.counts.delivered += stream.length + redelivery.length
    this.#deps.counts.redelivered += redelivery.length
  }

  claimed(delivery: Delivery): void {
    delivery.heldAtMs = monotonicMs()
    if (isSuspect(delivery.deliveries, this.#deps.maxDeliveries())) this.#quarantined.push(delivery)
    else this.#claimed.push(delivery)
  }

  /**
   * Takes out of the queue what has waited for `mostMs`: other workers may be idle, and here the slots are held by long jobs,
   * or by handlers that hang. It is for the caller to hand back.
   */
  takeOverdue(mostMs: number): Delivery[] {
    const sinceMs = monotonicMs() - mostMs
    const isOverdue = ({ heldAtMs }: Delivery) => heldAtMs < sinceMs
    const oldest = this.#fetched[this.#head]
    const waiting = this.claims + (this.#deps.deferrals?.waiting ?? 0) + (this.#deps.turns?.held ?? 0)
    if (this.#closed || (waiting === 0 && (oldest === undefined || !isOverdue(oldest)))) return []
    const queues = [this.#fetched.slice(this.#head), this.#claimed, this.#quarantined]
    const left = queues.map((queue) => queue.filter((one) => !isOverdue(one)))
    ;[this.#fetched = [], this.#claimed = [], this.#quarantined = []] = left
    this.#head = 0
    const { holdings } = this.#deps
    const deferred = this.#deps.deferrals?.take(mostMs === 0 ? 'all' : isOverdue) ?? []
    // Those that wait for their turn do not wait for a slot.
    const turned = mostMs === 0 ? (this.#deps.turns?.take() ?? []) : []
    const overdue = [...queues.flatMap((queue) => queue.filter(isOverdue)), ...deferred, ...turned]
    for (const one of overdue) if (!holdings.awaits(one)) holdings.release(one)
    return overdue.filter((one) => holdings.awaits(one))
  }

  /** Fills free slots from the head of the queue. */
  dispatch(): void {
    const { slots } = this.#deps
    if (slots !== undefined) return slots.fill()
    if (this.#dispatching || this.#halted) return
    this.#dispatching = true
    try {
      if (this.#deps.deferrals !== undefined) this.#enterPassed(this.#deps.deferrals, Infinity)
      if (this.#claimed.length + this.#quarantined.length > 0) this.#beginClaimed(Infinity)
      while (this.taken < this.#deps.concurrency && this.#startNext());
    } finally {
      this.#dispatching = false
    }
    this.#tellRoom()
  }

  beginOne(): void {
    if (this.#deps.deferrals !== undefined && this.#enterPassed(this.#deps.deferrals, 1) > 0) return
    if (this.#claimed.length + this.#quarantined.length > 0 && this.#beginClaimed(1) > 0) return
    this.#startNext()
  }

  /** Starts the first of what was fetched; false if there is none. */
  #startNext(): boolean {
    const delivery = this.#fetched[this.#head]
    if (delivery === undefined) return false
    this.#head += 1
    if (this.#head === this.#fetched.length || this.#head > 4096) {
      this.#fetched = this.#fetched.slice(this.#head)
      this.#head = 0
    }
    this.#start(delivery)
    return true
  }

  /** Begins nothing until `resume`; what waits here is for `takeOverdue`, what runs goes on. */
  pause(): void {
    this.#halted = true
  }

  resume(): void {
    this.#halted = this.#closed
    this.dispatch()
  }

  get isClosed(): boolean {
    return this.#closed
  }

  get isPaused(): boolean {
    return this.#halted && !this.#closed
  }

  /** The executor is done with a delivery's slot. */
  ended(): void {
    this.#running -= 1
    this.#rate.ended += 1
    if (!this.#dispatching) this.dispatch()
  }

  /** A delivery waits for its limits, and needs its slot no more for now. */
  deferred(delivery: Delivery): void {
    this.#running -= 1
    this.#deps.deferrals?.wait(delivery)
    if (!this.#dispatching) this.dispatch()
  }

  /** A delivery asks for its turn, and needs its slot no more for now. */
  asks(): void {
    this.#running -= 1
    if (!this.#dispatching) this.dispatch()
  }

  /** It has its turn: it goes on as soon as there is a slot, as if it had just been fetched. */
  turned(delivery: Delivery): void {
    delivery.heldAtMs = monotonicMs()
    this.#fetched.push(delivery)
    this.dispatch()
  }

  /** Its limits allow it to begin: as soon as there is a slot. */
  passed(delivery: Delivery): void {
    this.#deps.deferrals?.pass(delivery)
    this.dispatch()
  }

  /** What was deferred is dealt with by the executor now, in a slot. */
  undeferred(delivery: Delivery): void {
    this.#running += 1
    this.#deps.deferrals?.end(delivery)
  }

  /** Takes no more; returns what was not started, to be handed back. Waits for begins that are on their way. */
  async close(timeoutMs: number): Promise<Delivery[]> {
    this.#closed = true
    this.#halted = true
    this.#tellRoom()
    const untilMs = monotonicMs() + timeoutMs
    while (this.#beginning > 0 && monotonicMs() < untilMs) await sleep(5)
    const deferred = this.#deps.deferrals?.take('all') ?? []
    const unstarted = [
      ...deferred,
      ...(this.#deps.turns?.take() ?? []),
      ...this.#unstarted,
      ...this.#fetched.slice(this.#head),
      ...this.#claimed,
      ...this.#quarantined,
    ]
    ;[this.#fetched, this.#claimed, this.#quarantined, this.#head] = [[], [], [], 0]
    return unstarted
  }

  /** Resolves when there is room to fetch, when it is closed, or after `timeoutMs`. */
  changed(timeoutMs: number): Promise<void> {
    return this.#room.wait(timeoutMs)
  }

  #start(delivery: Delivery): void {
    if (delivery.ended !== undefined) return this.#deps.holdings.release(delivery)
    this.#running += 1
    this.#deps.executor.start(delivery)
  }

  /** Those that have passed their limits, up to `most`: before all others, for they may be too late soon. @returns how many. */
  #enterPassed(deferrals: Deferrals, most: number): number {
    let entered = 0
    while (entered < most && this.taken < this.#deps.concurrency) {
      const delivery = deferrals.next()
      if (delivery === undefined) break
      this.#running += 1
      if (deferrals.enter(delivery)) entered += 1
      else this.#running -= 1
    }
    return entered
  }

  // A run that was ended (its time was over) no longer counts as one that may take us down: others must not wait for it.
  get #isQuarantineFree(): boolean {
    const last = this.#inQuarantine
    return last === undefined || last.ended !== undefined || !this.#deps.holdings.holds(last)
  }

  /** Begins what was claimed, up to `most`. @returns how many. */
  #beginClaimed(most: number): number {
    const before = this.#beginning
    const free = () => Math.min(most - (this.#beginning - before), this.#deps.concurrency - this.taken)
    if (free() > 0 && this.#quarantined.length > 0 && this.#isQuarantineFree) {
      const delivery = this.#quarantined.shift()
      if (delivery !== undefined) {
        this.#inQuarantine = delivery
        void this.#begin([delivery])
      }
    }
    while (free() > 0 && this.#claimed.length > 0) {
      const source = this.#claimed[0]?.source
      const other = this.#claimed.findIndex((delivery) => delivery.source !== source)
      const count = Math.min(free(), other < 0 ? this.#claimed.length : other, 100)
      void this.#begin(this.#claimed.splice(0, count))
    }
    return this.#beginning - before
  }

  /** Counts the deliveries in Redis and starts them. All are of one source. */
  async #begin(batch: Delivery[]): Promise<void> {
    this.#beginning += batch.length
    let left = batch
    for (let tries = 0; left.length > 0 && !this.#closed;) {
      // What the keeper has handed back meanwhile must not be begun: that would charge it a delivery without a run.
      const gone = left.filter((one) => !this.#deps.holdings.awaits(one))
      left = left.filter((one) => !gone.includes(one))
      for (const one of gone) this.#begun(one, { state: 'lost', fields: [] })
      if (left.length === 0) return
      try {
        const claimed = left.map(({ entryId, deliveries }) => ({ id: entryId, deliveries }))
        const begun = await this.#deps.begin(left[0]?.source ?? 0, claimed)
        begun.forEach((one, at) => this.#begun(left[at] as Delivery, one))
        left = left.slice(begun.length)
        tries = 0
      } catch {
        // Redis is away or refuses: the rows are still prefetched and renewed as soon as it is back.
        await sleep(backoffMs(tries++, 50, 1000))
      }
    }
    this.#beginning -= left.length
    this.#unstarted.push(...left)
  }

  #begun(delivery: Delivery, { state, fields }: Begun): void {
    this.#beginning -= 1
    if (state === 'ok') {
      delivery.begun()
      delivery.fields = fields
      // The keeper gave it up while it was begun. Its hand-back came too late for the fence, so it is ours: start it anew.
      if (!this.#deps.holdings.counted(delivery) && !this.#closed) return this.#restart(delivery)
      if (this.#closed) this.#unstarted.push(delivery)
      else if (this.#halted) this.#fetched.push(delivery)
      else this.#start(delivery)
      return
    }
    if (state === 'gone') this.#deps.counts.gone += 1
    this.#deps.holdings.release(delivery)
    this.dispatch()
  }

  #restart({ source, entryId, deliveries, fields = [] }: Delivery): void {
    this.#deps.holdings.releaseReturned()
    const again = this.#deps.holdings.adopt(source, { entryId, deliveries, fields })
    if (again !== undefined) this.#start(again)
  }

  #tellRoom(): void {
    if (this.#deps.slots !== undefined) return this.#deps.slots.onRoom()
    if (this.#room.isAwaited && (this.fetchRoom > 0 || this.#closed)) this.#room.ring()
  }
}
