import { Delivery, type Home } from './delivery.ts'
import { ABANDONED, LeaseTable, PREFETCHED, RETURNED, RUNNING, UNSETTLED } from './lease/table.ts'
import type { Source } from './redis/member.ts'

/**
 * Bytes of what completed runs publish that may wait for Redis before no further job is taken. Redis out of memory still delivers jobs:
 * these would run, publish, and fill the memory of the worker instead.
 */
const MOST_KEPT_BYTES = 64 * 1024 * 1024

/**
 * What this worker holds: a row in the lease table for the keeper, and the delivery that belongs to it for the main thread.
 * Nothing is held without a row, so nothing is held without being renewed.
 */
export class Holdings {
  readonly table: LeaseTable
  readonly #member: Home
  readonly #bySlot: (Delivery | undefined)[]
  #keptBytes = 0

  constructor(member: Home, slots: number) {
    this.#member = member
    this.table = new LeaseTable(slots)
    this.#bySlot = new Array<Delivery | undefined>(slots).fill(undefined)
  }

  /** How many more may be taken. */
  get free(): number {
    return this.#keptBytes > MOST_KEPT_BYTES ? 0 : this.table.freeSlots
  }

  /** Takes an entry that was just read (with its fields) or claimed (without); undefined if there is no row left. */
  adopt(
    source: Source,
    { entryId, deliveries, fields }: { entryId: string; deliveries: number; fields?: readonly string[] },
  ): Delivery | undefined {
    const slot = this.table.fill(source, entryId, deliveries, fields === undefined)
    if (slot < 0) return undefined
    const delivery = new Delivery(this.#member, source, { entryId, slot, deliveries, ...(fields && { fields }) })
    this.#bySlot[slot] = delivery
    return delivery
  }

  /** A claimed delivery was counted in Redis, and still waits here; false if the keeper has handed it back meanwhile. */
  counted(delivery: Delivery): boolean {
    return this.holds(delivery) && this.table.count(delivery.slot, delivery.deliveries)
  }

  /** Marks a delivery as running; false if the keeper has handed it back meanwhile. */
  start(delivery: Delivery): boolean {
    const deadlineMs = delivery.startedAtMs + delivery.timeoutMs
    return this.table.start(delivery.slot, delivery.deliveries, deadlineMs)
  }

  /** The time of a running delivery has begun only now. */
  timed(delivery: Delivery): void {
    this.table.setDeadline(delivery.slot, delivery.startedAtMs + delivery.timeoutMs)
  }

  /** The handler is done; the lease is kept until Redis has confirmed the outcome. */
  finish(delivery: Delivery): void {
    this.table.mark(delivery.slot, UNSETTLED)
    const { onward } = delivery
    if (onward === undefined || onward.isKept) return
    onward.isKept = true
    this.#keptBytes += onward.bytes
  }

  /** The run no longer counts, but its handler may still be at work: no renewals from here on. */
  abandon(delivery: Delivery): void {
    this.table.mark(delivery.slot, ABANDONED)
  }

  release(delivery: Delivery): void {
    if (this.#bySlot[delivery.slot] !== delivery) return
    this.#bySlot[delivery.slot] = undefined
    this.table.release(delivery.slot)
    if (delivery.onward?.isKept === true) this.#keptBytes -= delivery.onward.bytes
  }

  /** Whether a delivery's outcome is still open, here or in Redis. */
  holds(delivery: Delivery): boolean {
    return this.#bySlot[delivery.slot] === delivery
  }

  /** Whether a delivery still waits here to be started: not lost, and not handed back by the keeper. */
  awaits(delivery: Delivery): boolean {
    return this.holds(delivery) && this.table.state(delivery.slot) === PREFETCHED
  }

  /** Lets go of what the keeper has handed back while the event loop stood still. */
  releaseReturned(): void {
    for (const delivery of this.all()) if (this.table.state(delivery.slot) === RETURNED) this.release(delivery)
  }

  /** The delivery that a keeper's report is about, unless the slot holds another by now or its run is over. */
  reported({ slot, generation }: { slot: number; generation: number }): Delivery | undefined {
    if (this.table.generation(slot) !== generation || this.table.state(slot) === UNSETTLED) return undefined
    return this.#bySlot[slot]
  }

  all(): Delivery[] {
    return this.#bySlot.filter((delivery) => delivery !== undefined)
  }

  running(): Delivery[] {
    return this.all().filter(({ slot }) => this.table.state(slot) === RUNNING)
  }

  /** What a handler is at work on, also where that no longer counts. */
  underWay(): Delivery[] {
    return this.all().filter(({ slot }) => [RUNNING, ABANDONED].includes(this.table.state(slot)))
  }

  isUnderWay(run: { readonly slot: number }): boolean {
    return this.#bySlot[run.slot] === run && [RUNNING, ABANDONED].includes(this.table.state(run.slot))
  }

  /** Entries whose run here no longer counts while its handler is still at work: not to be claimed by this worker again. */
  avoided(): string[] {
    return this.all()
      .filter(({ slot }) => this.table.state(slot) === ABANDONED)
      .slice(0, 100)
      .map(({ entryId }) => entryId)
  }
}
