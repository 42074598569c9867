import type { SlotAsk, SlotRange, SlotTold } from '../../src/redis/limiting.ts'

/** What reserveSlots is to answer, by a clock that a test may set: for its comparison with Redis, and to live through hours. */
export class SlotModel {
  readonly #range: SlotRange
  readonly #times = new Map<string, { tatUs: number; tailUs: number }>()

  constructor(range: SlotRange) {
    this.#range = range
  }

  /** @param fresh is of one call: what it has given to each key that was quiet before it. */
  ask(atUs: number, { key = '', costUs, burstUs, graceUs, how }: SlotAsk, fresh = new Map<string, number>()): SlotTold {
    const [mostUs, nearUs] = [this.#range.mostMs * 1000, this.#range.nearMs * 1000]
    let kept = this.#times.get(key) ?? { tatUs: 0, tailUs: 0 }
    if (kept.tatUs > atUs + burstUs + 100_000 + mostUs) {
      kept = { tatUs: atUs + burstUs + graceUs + mostUs, tailUs: 0 }
      this.#times.set(key, kept)
    }
    const tatUs = Math.max(Math.min(kept.tatUs, atUs + burstUs + graceUs + mostUs), atUs)
    if (tatUs === atUs) fresh.set(key, 0)
    const givenUs = fresh.get(key) ?? Infinity
    const waitUs = givenUs + costUs <= burstUs + 1 ? 0 : Math.max(0, tatUs + costUs - burstUs - atUs)
    if (waitUs <= mostUs) {
      if (how !== 'look') {
        this.#times.set(key, { tatUs: Math.max(tatUs, atUs + waitUs + graceUs) + costUs, tailUs: kept.tailUs })
        fresh.set(key, givenUs + costUs)
      }
      return { kind: 'given', inMs: Math.ceil(waitUs) / 1000 }
    }
    if (how === 'keep' || waitUs <= nearUs) return { kind: 'later', inMs: Math.ceil(waitUs) / 1000 }
    const tailUs = Math.min(Math.max(kept.tailUs, tatUs) + costUs, tatUs + costUs + 300e6)
    this.#times.set(key, { tatUs, tailUs })
    return { kind: 'later', inMs: Math.ceil(tailUs - burstUs - atUs) / 1000 }
  }
}

/** A job that began: when, and how much of the rate it counts. */
export interface Begun {
  readonly atUs: number
  readonly costUs: number
}

/** By how much what began in any window is above the burst and what the rate brings in it, in µs of the rate; 0 if nowhere. */
export function excessUs(begun: readonly Begun[], burstUs: number): number {
  // What a bucket of the burst's size, which runs dry at the rate of the limit, holds beyond its size: the windows of all lengths at once.
  let [levelUs, lastUs, excess] = [0, -Infinity, 0]
  for (const { atUs, costUs } of begun.toSorted((a, b) => a.atUs - b.atUs)) {
    levelUs = Math.max(0, levelUs - (atUs - lastUs)) + costUs
    lastUs = atUs
    excess = Math.max(excess, levelUs - burstUs)
  }
  return excess
}
