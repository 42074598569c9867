/** The leases of a worker's streams. Its health is judged by the longest: rounds of renewals are a third of it apart. */
export class Leases {
  readonly #byLane: number[]

  constructor(lanes: readonly { readonly leaseMs: number }[]) {
    this.#byLane = lanes.map(({ leaseMs }) => leaseMs)
  }

  get longest(): number {
    return Math.max(...this.#byLane)
  }

  /** Another lease was declared for one of them. @returns the longest now. */
  follow(lane: number, leaseMs: number): number {
    this.#byLane[lane] = leaseMs
    return this.longest
  }
}
