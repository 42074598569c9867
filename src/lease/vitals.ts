import type { Signs, WatchedState } from './health.ts'

/**
 * The signs of life of a worker, in the head of the lease table that both threads share: the main thread counts its reads
 * and says what it is doing, whichever keeper works counts its rounds and replies. See health.ts for what follows from them.
 */

const READS = 8
const RENEWALS = 9
const ANSWERS = 10
const HAS_ROOM = 11
const STATE = 12
const REFUSALS = 13

const COUNTERS = { reads: READS, renewals: RENEWALS, answers: ANSWERS, refusals: REFUSALS }
const STATES: readonly WatchedState[] = ['starting', 'running', 'draining']

export class Vitals {
  readonly #words: Int32Array

  /** `words` is the shared table; words 8 to 31 of its head are ours. */
  constructor(words: Int32Array) {
    this.#words = words
  }

  /** One more read, round of renewals, reply to the keeper, or read or renewal that Redis refused. */
  count(what: keyof typeof COUNTERS): void {
    Atomics.add(this.#words, COUNTERS[what], 1)
  }

  /** What the main thread is doing; only it calls this. */
  report({ state, hasRoom }: { state: WatchedState; hasRoom: boolean }): void {
    Atomics.store(this.#words, STATE, STATES.indexOf(state))
    Atomics.store(this.#words, HAS_ROOM, hasRoom ? 1 : 0)
  }

  get signs(): Omit<Signs, 'ticks'> {
    return {
      reads: Atomics.load(this.#words, READS),
      renewals: Atomics.load(this.#words, RENEWALS),
      answers: Atomics.load(this.#words, ANSWERS),
      refusals: Atomics.load(this.#words, REFUSALS),
      hasRoom: Atomics.load(this.#words, HAS_ROOM) === 1,
      state: STATES[Atomics.load(this.#words, STATE)] ?? 'starting',
    }
  }
}
