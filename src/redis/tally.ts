import { outcomesKey, tallyKey } from './keys.ts'

/** How long tallies are kept after they were begun: a week of history for stats and audit. */
export const TALLY_TTL_MS = 7 * 24 * 3_600_000

/** The tallies of a group that one call touches, by the number that its arguments name them with. */
export class Tallies {
  readonly #stream: string
  readonly #group: string
  readonly #hours: string[] = []

  constructor({ stream, group }: { readonly stream: string; readonly group: string }) {
    this.#stream = stream
    this.#group = group
  }

  /** The number of an hour as `tallySlot` names it, from 1. */
  numberOf(hour: string): number {
    const at = this.#hours.indexOf(hour)
    return at >= 0 ? at + 1 : this.#hours.push(hour)
  }

  /** Their keys, by number, and behind them those of the outcomes of the same hours. */
  get keys(): string[] {
    return [
      ...this.#hours.map((hour) => tallyKey(this.#stream, this.#group, hour)),
      ...this.#hours.map((hour) => outcomesKey(this.#stream, this.#group, hour)),
    ]
  }
}
