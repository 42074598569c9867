import type { Delivery } from '../delivery.ts'
import type { LimiterPlace } from '../redis/keys.ts'
import type { Permit } from '../redis/limiting.ts'
import type { Limit } from './limit.ts'

/** One limit that a job is under: which of the limiter's keys it has, and how much of the rate it counts. */
export interface Toll {
  readonly limit: Limit
  readonly limiter: LimiterPlace
  readonly key: string | undefined
  readonly cost: number
}

/** When a job may begin, by the server's time, until when it must, and by which limit. */
export interface PassageSlot {
  readonly atMs: number
  readonly untilMs: number
  readonly limit: Limit
}

/** A job on its way through its limits, from where it was fetched to the end of its run. */
export interface Passage {
  readonly delivery: Delivery
  readonly tolls: readonly Toll[]
  /** Goes on with the job, in a slot of the worker. */
  readonly proceed: () => void
  /** Who it is where it holds permits. */
  readonly holder: string
  /** What it holds. */
  readonly permits: Map<Toll, Permit>
  /** Undefined where no rate counts it. */
  slot: PassageSlot | undefined
  /** How often it came too late for its slot, and how often Redis did not say anything of use. */
  late: number
  failures: number
  /** Whether it has waited for anything yet. */
  hasWaited: boolean
  /** It is not ours any more, or was handed back: what is on its way for it is given back. */
  isOver: boolean
}
