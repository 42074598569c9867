import type { SlotAsk, SlotRange, SlotTold } from '../../src/redis/limiting.ts'

/** What reserveSlots is to answer, by a clock that a test may set: for its comparison with Redis, and to live through hours. */
export class SlotModel {
  readonly #range: SlotRange
  readonly #times = new Map<string, { tatUs: number; tailUs: number }>()

  constructor(range: SlotRange) {
    this.#range = range
  }

  ask(atUs: number, { key = '', costUs, burstUs, graceUs, how }: SlotAsk): SlotTold {
    const [mostUs, nearUs] = [this.#range.mostMs * 1000, this.#range.nearMs * 1000]
    const kept = this.#times.get(key) ?? { tatUs: 0, tailUs: 0 }
    const tatUs = Math.min(Math.max(kept.tatUs, atUs), atUs + burstUs + mostUs)
    const slotUs = tatUs + costUs - burstUs
    const waitUs = slotUs <= atUs ? 0 : slotUs - atUs + graceUs
    if (waitUs <= mostUs) {
      if (how !== 'look') this.#times.set(key, { tatUs: tatUs + costUs, tailUs: kept.tailUs })
      return { kind: 'given', inMs: Math.ceil(waitUs) / 1000 }
    }
    if (how !== 'queue' || waitUs <= nearUs) return { kind: 'later', inMs: Math.ceil(waitUs) / 1000 }
    const tailUs = Math.min(Math.max(kept.tailUs, tatUs) + costUs, tatUs + costUs + 300e6)
    this.#times.set(key, { tatUs, tailUs })
    return { kind: 'later', inMs: Math.ceil(tailUs - burstUs - atUs + graceUs) / 1000 }
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
