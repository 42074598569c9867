/** Numbers that look random and are the same for the same seed (mulberry32). */
export class Chance {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** From 0 up to, and not including, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let mixed = this.#state
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  /** Small ones are as likely as large ones are, by their order of magnitude. */
  between(least: number, most: number): number {
    return Math.round(least * (most / least) ** this.next())
  }

  isTrue(share: number): boolean {
    return this.next() < share
  }

  of<One>(all: readonly One[]): One {
    const one = all[Math.floor(this.next() * all.length)]
    if (one === undefined) throw new Error('expected something to choose from')
    return one
  }
}
