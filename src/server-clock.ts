import { monotonicMs } from './clock.ts'

/**
 * What time it is at the Redis server, without asking it: entry ids carry the server's time, and a wait measured against
 * this machine's clock would be off by the difference of the two. The join and each pulse bring the server's time along.
 */
export class ServerClock {
  /** The server's time at zero of our monotonic clock, in ms since the epoch. This machine's until the group was joined. */
  #atZeroMs = Date.now() - monotonicMs()

  /** The server answered `nowMs`, and we had that answer at `receivedAtMs` of the monotonic clock. */
  sync(nowMs: number, receivedAtMs: number): void {
    this.#atZeroMs = nowMs - receivedAtMs
  }

  /** The server's time at a moment of the monotonic clock, in ms since the epoch. */
  at(monotonic: number): number {
    return this.#atZeroMs + monotonic
  }
}
