/** What every job of every contender carries: an order as a shop might publish it, some 130 bytes of JSON. */
export interface Payload {
  readonly order: number
  readonly customer: string
  readonly email: string
  readonly amount: number
  readonly locale: string
  readonly gift: boolean
  readonly express: boolean
  /** When it was published, by the shared clock; only where the latency is measured. */
  readonly sentAtMs?: number
}

/** One object for all jobs: building payloads is not what is measured, turning them into JSON is. */
export const PAYLOAD: Payload = {
  order: 48_213_907,
  customer: 'c-7f3a91',
  email: 'mira.holm@example.com',
  amount: 129.95,
  locale: 'en-GB',
  gift: false,
  express: true,
}

export const PAYLOAD_BYTES = JSON.stringify(PAYLOAD).length

export const JOB_NAME = 'bench'
