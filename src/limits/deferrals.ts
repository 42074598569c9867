import { monotonicMs } from '../clock.ts'
import type { Delivery } from '../delivery.ts'
import type { Holdings } from '../holdings.ts'
import type { Limiter } from './limiter.ts'

/**
 * The jobs of a dispatcher that are with the limiter: those that wait for their limits, and those that have passed and need a slot.
 * None of them is running; all are held as what was fetched ahead is.
 */
export class Deferrals {
  readonly #limiter: Limiter
  readonly #holdings: Holdings
  readonly #waiting = new Set<Delivery>()
  #passed: Delivery[] = []

  constructor(limiter: Limiter, holdings: Holdings) {
    this.#limiter = limiter
    this.#holdings = holdings
  }

  get waiting(): number {
    return this.#waiting.size + this.#passed.length
  }

  /** Those that have passed their limits, and need a slot. */
  get passed(): number {
    return this.#passed.length
  }

  /** How many jobs to fetch at most, as far as limits know too, where so many slots are free and so many entries were fetched. */
  bounded(room: number, slots: number, fetched: number): number {
    // They need a slot now, or most likely in a moment.
    const coming = this.#passed.length + this.#limiter.untold
    return Math.min(room - coming, this.#limiter.roomBeside(slots) - fetched)
  }

  wait(delivery: Delivery): void {
    this.#waiting.add(delivery)
  }

  pass(delivery: Delivery): void {
    if (!this.#waiting.delete(delivery)) return
    // From now on it waits for a slot, as if it had just been fetched.
    delivery.heldAtMs = monotonicMs()
    this.#passed.push(delivery)
  }

  /** It waits here no more. */
  end(delivery: Delivery): void {
    this.#waiting.delete(delivery)
  }

  /** The next one that has passed and is still ours. */
  next(): Delivery | undefined {
    for (let one = this.#passed.shift(); one !== undefined; one = this.#passed.shift()) {
      if (one.ended === undefined && this.#holdings.awaits(one)) return one
      this.#limiter.leave(one)
      this.#holdings.release(one)
    }
    return undefined
  }

  /** Begins it in a slot that it has; false if it came too late for its limit, and waits again. */
  enter(delivery: Delivery): boolean {
    this.#waiting.add(delivery)
    if (!this.#limiter.enter(delivery)) return false
    this.#waiting.delete(delivery)
    return true
  }

  /** Takes out those that have passed and found no slot since, or all. */
  take(isOverdue: 'all' | ((delivery: Delivery) => boolean)): Delivery[] {
    const taken = isOverdue === 'all' ? [...this.#waiting, ...this.#passed] : this.#passed.filter(isOverdue)
    if (isOverdue === 'all') this.#waiting.clear()
    if (taken.length > 0) this.#passed = this.#passed.filter((one) => !taken.includes(one))
    for (const one of taken) this.#limiter.leave(one)
    return taken
  }
}
