/**
 * Gathers what is asked for in one turn of the event loop into calls of at most `most`, by where they go to. What a call
 * answers goes to each of those who asked, and so does its failure.
 */
export class Gathering<Place, Ask, Told> {
  readonly #most: number
  readonly #ask: (place: Place, asks: readonly Ask[]) => Promise<readonly Told[]>
  #waiting = new Map<string, { place: Place; asks: Waiting<Ask, Told>[] }>()

  constructor(most: number, ask: (place: Place, asks: readonly Ask[]) => Promise<readonly Told[]>) {
    this.#most = most
    this.#ask = ask
  }

  /** @param id of the place. */
  ask(id: string, place: Place, ask: Ask): Promise<Told> {
    return new Promise((resolve, reject) => {
      if (this.#waiting.size === 0) setImmediate(() => this.#send())
      let there = this.#waiting.get(id)
      if (there === undefined) this.#waiting.set(id, (there = { place, asks: [] }))
      there.asks.push({ ask, resolve, reject })
    })
  }

  #send(): void {
    const waiting = this.#waiting
    this.#waiting = new Map()
    for (const { place, asks } of waiting.values()) {
      for (let at = 0; at < asks.length; at += this.#most) void this.#call(place, asks.slice(at, at + this.#most))
    }
  }

  async #call(place: Place, asks: readonly Waiting<Ask, Told>[]): Promise<void> {
    try {
      const told = await this.#ask(
        place,
        asks.map(({ ask }) => ask),
      )
      asks.forEach(({ resolve }, at) => resolve(told[at] as Told))
    } catch (error) {
      for (const { reject } of asks) reject(error)
    }
  }
}

interface Waiting<Ask, Told> {
  readonly ask: Ask
  readonly resolve: (told: Told) => void
  readonly reject: (error: unknown) => void
}
