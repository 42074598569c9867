/**
 * The server's time as exactly as slots need it. An answer that carries the server's time was made after it was asked for and
 * before it was received: so each one says between which bounds the difference of the two clocks is. What is kept is
 * within the bounds of all, at the lower end: a job begins at its slot or a little later, never before it.
 *
 * Where a bound contradicts those before it, the server's clock was set, and the newest counts.
 */
export class SlotClock {
  #serverAtZeroMs: number | undefined

  note({ serverMs, sentAtMs, receivedAtMs }: { serverMs: number; sentAtMs: number; receivedAtMs: number }): void {
    const [least, most] = [serverMs - receivedAtMs, serverMs - sentAtMs]
    this.#serverAtZeroMs = Math.min(most, Math.max(least, this.#serverAtZeroMs ?? least))
  }

  /** The server's time at a moment of the monotonic clock. */
  at(monotonicMs: number): number {
    return (this.#serverAtZeroMs ?? 0) + monotonicMs
  }
}
