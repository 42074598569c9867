import { nextOf, serve, shareOut, yieldTurns, type Sharing } from './shares.ts'
import type { StreamPriority } from './worker-streams.ts'

/**
 * The slots of a worker that works on several streams: whichever of them is free goes to the stream whose turn it is among
 * those that have something to begin here (see shares.ts). A worker with one stream has none of this.
 */

/** One of the streams, as its dispatcher tells. */
export interface SlotUser {
  /** Slots that it has taken. */
  readonly taken: number
  /** How much of what waits here could begin now, by its own bounds. */
  readonly ready: number
  /** How many entries it would fetch now, by its own bounds. */
  readonly fetchRoom: number
  /** What waits here to be begun. */
  readonly waiting: number
  /** Those of them that were claimed. */
  readonly claims: number
  /** How many of its jobs end in the time that is fetched ahead for. */
  readonly pace: number
  /** How many it may fetch ahead, however few of its own end: where others do, all must, or they were never asked for. */
  leastAhead: number
  /** Begins the first of what waits. */
  beginOne(): void
}

export class Slots {
  readonly #total: number
  readonly #priority: StreamPriority
  readonly #turns: Turn[] = []
  #filling = false
  /** While it is looked whose turn it is: how many are free, which each of the streams asks. */
  #known: number | undefined
  #ahead = 0
  /** Told whenever there may be room to read. */
  onRoom: () => void = () => {}

  constructor(total: number, priority: StreamPriority) {
    this.#total = total
    this.#priority = priority
  }

  /** In the order of the streams. */
  add(user: SlotUser, { weight, concurrency }: { weight: number; concurrency: number }): void {
    this.#turns.push(new Turn(user, weight, concurrency < this.#total ? concurrency : Infinity))
  }

  get free(): number {
    if (this.#known !== undefined) return this.#known
    let free = this.#total
    for (const { user } of this.#turns) free -= user.taken
    return free
  }

  /** How many may be fetched ahead on all streams together, beyond what waits here: else it would be by turns only in part. */
  get aheadRoom(): number {
    return Math.max(0, this.#ahead - sumOf(this.#turns, ({ user }) => user.waiting))
  }

  /** How many claimed deliveries may come to wait here on one stream, where so many wait on it. */
  claimRoomBeside(waiting: number): number {
    // Not what was fetched ahead: there is always some of it while a backlog of short jobs lasts.
    const all = sumOf(this.#turns, ({ user }) => user.claims)
    // One in any case: what is claimed on other streams must not keep a stream's own from being taken over.
    return Math.max(waiting === 0 ? 1 : 0, this.#total - all)
  }

  /** Fills what is free. */
  fill(): void {
    if (this.#filling) return
    this.#filling = true
    try {
      // One at a time: a handler that ends at once has its slot free again before the next turn.
      while ((this.#known = this.free) > 0) {
        const turn = this.#next()
        if (turn === undefined) break
        if (this.#priority === 'weighted') serve(this.#turns, turn)
        this.#known = undefined
        turn.user.beginOne()
      }
    } finally {
      this.#known = undefined
      this.#filling = false
    }
    this.onRoom()
  }

  /** Follows how fast jobs end; whoever asks for room asks for this before. */
  measure(): void {
    const [paces, weights] = [(turn: Turn) => turn.user.pace, (turn: Turn) => turn.weight]
    const all = Math.floor(sumOf(this.#turns, paces))
    this.#ahead = all
    const free = Math.max(0, this.free)
    const weight = this.#priority === 'strict' ? 1 : sumOf(this.#turns, weights)
    for (const turn of this.#turns) {
      // And what it is behind: with no more than its share it would stay behind, however long its backlog is.
      const share = Math.ceil((all * (this.#priority === 'strict' ? 1 : turn.weight)) / weight + turn.deficit)
      // One with a bound of its own has no more than it may begin when the slots of others are free: jobs that hang have none
      // fetched behind them.
      turn.user.leastAhead = Math.max(0, Math.min(share, turn.room - free))
    }
  }

  /** How many entries of each stream to read, of `total` together. What waits here, or is coming, has its turn already. */
  quotas(total: number, wants: readonly number[], coming: readonly number[] = []): number[] {
    const sharers = this.#turns.map(({ user, weight, deficit }, at) => {
      return { weight, deficit: deficit - user.waiting - (coming[at] ?? 0), want: wants[at] ?? 0 }
    })
    // In strict order all that is left may be one's own; the read ends with the total.
    return this.#priority === 'strict' ? [...wants] : shareOut(total, sharers)
  }

  /** The places of the streams, in the order in which they are read. */
  order(): number[] {
    const places = this.#turns.map((_, at) => at)
    if (this.#priority === 'strict') return places
    const dueOf = (at: number) => (1 - (this.#turns[at]?.deficit ?? 0)) / (this.#turns[at]?.weight ?? 1)
    return places.sort((a, b) => dueOf(a) - dueOf(b))
  }

  /** Redis has no more for the stream at this place now: it does not save up turns for later. */
  isDry(at: number): void {
    const turn = this.#turns[at]
    if (turn !== undefined && this.#priority === 'weighted') yieldTurns(this.#turns, turn, turn.user.waiting)
  }

  /** The stream at this place cannot be read: it falls behind nobody with what it cannot get. */
  isOut(at: number, isOut: boolean): void {
    const turn = this.#turns[at]
    if (turn !== undefined) turn.isOut = isOut
  }

  #next(): Turn | undefined {
    if (this.#priority === 'strict') return this.#turns.find(({ want }) => want > 0)
    return this.#turns[nextOf(this.#turns)]
  }
}

function sumOf(turns: readonly Turn[], numberOf: (turn: Turn) => number): number {
  return turns.reduce((sum, turn) => sum + numberOf(turn), 0)
}

/** A stream and how far it is behind. */
class Turn implements Sharing {
  readonly user: SlotUser
  readonly weight: number
  readonly #most: number
  deficit = 0
  isOut = false

  constructor(user: SlotUser, weight: number, most: number) {
    this.user = user
    this.weight = weight
    this.#most = most
  }

  /** How many more slots it may take by its own bound. */
  get room(): number {
    return this.#most - this.user.taken
  }

  get want(): number {
    return this.user.ready
  }

  /** One that is paused, cannot be read, or has all that it may take, falls behind nobody. */
  get isSharing(): boolean {
    return this.user.ready > 0 || (!this.isOut && this.room > 0 && this.user.fetchRoom > 0)
  }
}
