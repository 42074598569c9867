/**
 * Everything that was published, what its publisher was told, and what is in Redis: the one judge of the promises P1 and P2.
 *
 * Numbers are given out in the order of publishing. It keeps a few bytes for each, so that it can judge millions, and goes on
 * judging those of long ago: a late copy of a batch that was given up is found whenever it arrives.
 */

/** `in`: the publisher was told that Redis has it. */
export type Outcome = 'in' | 'no' | 'unknown'

const OUTCOMES: readonly Outcome[] = ['in', 'no', 'unknown']
const OUTCOME_BITS = 3
const SENT = 4
const FOUND = 8

export interface LedgerCounts {
  pushed: number
  in: number
  no: number
  unknown: number
  /** Of the unknown ones, those that Redis has. */
  unknownFound: number
  found: number
}

interface Open {
  readonly deadlineMs: number
}

interface Lane {
  readonly name: string
  /** The newest of its jobs that was found. */
  newest: number
}

const MOST_TOLD = 40

export class Ledger {
  readonly counts: LedgerCounts = { pushed: 0, in: 0, no: 0, unknown: 0, unknownFound: 0, found: 0 }
  /** Sentences; the first of them. */
  readonly violations: string[] = []
  violated = 0
  #states = new Uint8Array(1 << 16)
  #lanes = new Uint16Array(1 << 16)
  readonly #names: Lane[] = []
  readonly #open = new Map<number, Open>()
  /** Of those for which only one of both is known yet: what the publisher was told, or what Redis has. */
  readonly #ids = new Map<number, string>()

  /** A producer on one stream: what it publishes keeps its order. */
  lane(name: string): number {
    return this.#names.push({ name, newest: -1 }) - 1
  }

  /** The number of a publish that is being made; `deadlineMs` is by the clock of `performance.now()`. */
  push(lane: number, deadlineMs: number): number {
    const number = this.counts.pushed
    this.counts.pushed += 1
    if (number === this.#states.length) this.#grow()
    this.#lanes[number] = lane
    this.#open.set(number, { deadlineMs })
    return number
  }

  /** It was written to a connection. */
  sent(number: number): void {
    this.#mark(number, SENT)
  }

  told(number: number, outcome: Outcome, id?: string): void {
    const before = this.outcomeOf(number)
    if (before !== undefined) return this.violate(number, `was told ${before}, and then ${outcome}`)
    this.#open.delete(number)
    this.#mark(number, OUTCOMES.indexOf(outcome) + 1)
    this.counts[outcome] += 1
    if (outcome === 'unknown' && !this.#has(number, SENT)) this.violate(number, 'is unknown and was never on its way')
    if (outcome === 'in') this.#compare(number, id ?? '')
    if (!this.#has(number, FOUND)) return
    if (outcome === 'no') this.violate(number, "is in Redis, though its publisher was told 'no'")
    if (outcome === 'unknown') this.counts.unknownFound += 1
  }

  /** The same was said elsewhere; it must have been told so. */
  agree(number: number, outcome: Outcome): void {
    const told = this.outcomeOf(number)
    if (told !== outcome) this.violate(number, `was told ${told ?? 'nothing'}, and elsewhere ${outcome}`)
  }

  /** An entry, in the order of the stream. */
  found(id: string, number: number): void {
    if (!(number >= 0 && number < this.counts.pushed)) return this.violate(number, `of entry ${id} was never published`)
    if (this.#has(number, FOUND)) return this.violate(number, `is in Redis twice, again as ${id}`)
    this.#mark(number, FOUND)
    this.counts.found += 1
    const outcome = this.outcomeOf(number)
    if (outcome === 'no') this.violate(number, `is in Redis as ${id}, though its publisher was told 'no'`)
    if (outcome === 'unknown') this.counts.unknownFound += 1
    if (outcome === undefined || outcome === 'in') this.#compare(number, id)
    // A batch that was given up may arrive behind what was published after it.
    if (outcome === 'in') this.#follow(number, id)
  }

  outcomeOf(number: number): Outcome | undefined {
    const bits = (this.#states[number] ?? 0) & OUTCOME_BITS
    return bits === 0 ? undefined : OUTCOMES[bits - 1]
  }

  get lanes(): number {
    return this.#names.length
  }

  /** Publishes without an outcome. */
  get open(): number {
    return this.#open.size
  }

  /** Says of each publish that is open though its time was up `marginMs` ago that it hangs. */
  checkOverdue(nowMs: number, marginMs: number): void {
    for (const [number, { deadlineMs }] of this.#open) {
      if (nowMs < deadlineMs + marginMs) continue
      this.violate(number, `has no outcome ${Math.round(nowMs - deadlineMs)} ms after its time was up`)
      this.#open.delete(number)
    }
  }

  /** When every publish has its outcome and all of the stream was told to `found`: what is missing. */
  checkMissing(): void {
    for (const number of this.#open.keys()) this.violate(number, 'has no outcome')
    this.#open.clear()
    for (const [number, id] of this.#ids) {
      if (this.outcomeOf(number) === 'in') this.violate(number, `is not in Redis, though it was published as ${id}`)
    }
    this.#ids.clear()
  }

  /** The second of both ids is compared with the first. */
  #compare(number: number, id: string): void {
    const other = this.#ids.get(number)
    if (other === undefined) return void this.#ids.set(number, id)
    this.#ids.delete(number)
    if (other !== id) this.violate(number, `has the ids ${other} and ${id}`)
  }

  #follow(number: number, id: string): void {
    const lane = this.#names[this.#lanes[number] ?? 0]
    if (lane === undefined) return
    if (number < lane.newest) this.violate(number, `is behind job ${lane.newest}, published after it, as ${id}`)
    lane.newest = Math.max(lane.newest, number)
  }

  #has(number: number, bit: number): boolean {
    return ((this.#states[number] ?? 0) & bit) !== 0
  }

  #mark(number: number, bits: number): void {
    this.#states[number] = (this.#states[number] ?? 0) | bits
  }

  violate(number: number, what: string): void {
    this.violated += 1
    const lane = this.#names[this.#lanes[number] ?? 0]?.name ?? ''
    if (this.violations.length < MOST_TOLD) this.violations.push(`job ${number} of ${lane} ${what}`)
  }

  #grow(): void {
    const states = new Uint8Array(this.#states.length * 2)
    const lanes = new Uint16Array(states.length)
    states.set(this.#states)
    lanes.set(this.#lanes)
    this.#states = states
    this.#lanes = lanes
  }
}
