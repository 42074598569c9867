import type { Outgoing } from './outgoing.ts'

/** Payloads of jobs that are gone may stay until they are more than those of the others by so much. */
const MOST_GONE_BYTES = 4 * 1024 * 1024

/**
 * Jobs in their order. One that is settled where it stands is gone: it is skipped, counts no more, and its place is given back
 * before such places are half of the line, in number or in bytes, so that a line which is expired or shed from the middle
 * stays as small as what is in it.
 */
export class Line {
  /** Those before `#head` were taken, so that taking a batch costs no shifting; their places keep no payloads. */
  #items: (Outgoing | undefined)[] = []
  #head = 0
  #jobs = 0
  #bytes = 0
  /** Of jobs that are gone and still have their places, at most. */
  #goneBytes = 0
  /** No item's time is up before. */
  #soonestMs = Infinity
  /** The items by priority, youngest last, while somebody asks who is to give way; see `weakest`. */
  #byPriority: Outgoing[][] | undefined

  get jobs(): number {
    return this.#jobs
  }

  get bytes(): number {
    return this.#bytes
  }

  /** The one that has waited longest. */
  get first(): Outgoing | undefined {
    while (this.#head < this.#items.length) {
      const item = this.#items[this.#head]
      if (item?.settled !== undefined) return item
      this.#leavePlace()
    }
    return undefined
  }

  push(item: Outgoing): void {
    this.#items.push(item)
    this.#byPriority?.[item.priority]?.push(item)
    this.#count(item)
  }

  /** Puts items back where they were taken from. */
  putBack(items: readonly Outgoing[]): void {
    this.#items = [...items, ...this.#items.slice(this.#head)]
    this.#head = 0
    this.#byPriority = undefined
    for (const item of items) if (item.settled !== undefined) this.#count(item)
  }

  /** Takes the next ones: at most so many and so large together, or one that is larger alone. */
  take(mostJobs: number, mostBytes: number): Outgoing[] {
    const taken: Outgoing[] = []
    let bytes = 0
    for (let item = this.first; item !== undefined && taken.length < mostJobs; item = this.first) {
      if (taken.length > 0 && bytes + item.bytes > mostBytes) break
      taken.push(item)
      bytes += item.bytes
      this.#leavePlace()
    }
    this.#jobs -= taken.length
    this.#bytes -= bytes
    this.#byPriority = undefined
    // When as many places are left as jobs: each job is moved a bounded number of times, however long the line is.
    const isMostlyTaken = this.#head > 10_000 && this.#head > this.#items.length / 2
    if (this.#head === this.#items.length || isMostlyTaken) this.#compact()
    return taken
  }

  /** Takes all of them. */
  takeAll(): Outgoing[] {
    return this.take(Infinity, Infinity)
  }

  /** To be called when an item was settled while it stood here. */
  dropped(item: Outgoing): void {
    this.#jobs -= 1
    this.#bytes -= item.bytes
    this.#goneBytes += item.bytes
    const length = this.#items.length - this.#head
    const isHollow = length > 64 && this.#jobs < length / 2
    if (isHollow || this.#goneBytes > this.#bytes + MOST_GONE_BYTES) this.#compact()
  }

  /** Those whose time is up. Looks at them only when the time of some may be. */
  late(nowMs: number): Outgoing[] {
    if (nowMs < this.#soonestMs) return []
    const late: Outgoing[] = []
    this.#soonestMs = Infinity
    for (const item of this) {
      if (item.deadlineMs <= nowMs) late.push(item)
      else if (item.deadlineMs < this.#soonestMs) this.#soonestMs = item.deadlineMs
    }
    return late
  }

  /**
   * The job that gives way first to one of this priority: the youngest of the lowest priority below it, since the older ones
   * have waited longest and are next. The items are sorted when this is asked and nothing was taken since: while Redis is
   * away that is once, and without a full buffer never.
   */
  weakest(priority: number): Outgoing | undefined {
    this.#byPriority ??= this.#sorted()
    for (const items of this.#byPriority.slice(0, priority)) {
      for (let item = items.pop(); item !== undefined; item = items.pop()) if (item.settled !== undefined) return item
    }
    return undefined
  }

  /** Those that `weakest` gave stay after all, the last of them first. */
  spare(items: readonly Outgoing[]): void {
    for (const item of items.toReversed()) this.#byPriority?.[item.priority]?.push(item)
  }

  *[Symbol.iterator](): Generator<Outgoing, void> {
    for (let at = this.#head; at < this.#items.length; at++) {
      const item = this.#items[at]
      if (item?.settled !== undefined) yield item
    }
  }

  #count(item: Outgoing): void {
    this.#jobs += 1
    this.#bytes += item.bytes
    if (item.deadlineMs < this.#soonestMs) this.#soonestMs = item.deadlineMs
  }

  #sorted(): Outgoing[][] {
    const sorted = Array.from({ length: 10 }, (): Outgoing[] => [])
    for (const item of this) sorted[item.priority]?.push(item)
    return sorted
  }

  #leavePlace(): void {
    this.#items[this.#head] = undefined
    this.#head += 1
  }

  #compact(): void {
    this.#items = [...this]
    this.#head = 0
    this.#goneBytes = 0
    // It has those that are gone, too.
    this.#byPriority = undefined
  }
}
