import type { Delivery } from '../delivery.ts'
import type { Job } from '../job.ts'
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

/** What a job has to pass, or why that cannot be told. */
export function tollsOf(job: Job, limits: readonly Limit[], data: unknown): Toll[] | string {
  const { stream, group } = job
  const tolls: Toll[] = []
  for (const limit of limits) {
    const found = limit.keyOf?.(data, job)
    if (found !== undefined && 'fault' in found) return found.fault
    const counted = limit.rate === undefined ? { cost: 1 } : limit.costOf(data, job)
    if ('fault' in counted) return counted.fault
    const limiter = limit.name === undefined ? { stream, group, id: limit.id } : { name: limit.name }
    tolls.push({ limit, limiter, key: found?.key, cost: counted.cost })
  }
  return tolls
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
  /** The limit that it waits for, until it has passed. */
  waitsFor: Limit | undefined
  /** Those that it has waited for here. */
  waitedFor: readonly Limit[]
  /** Whether it waits for a limit that does not hold for all jobs. */
  isAside: boolean
  /** Whether it has passed or waits: where it does neither, Redis has not answered yet. */
  isTold: boolean
  /** It is not ours any more, or was handed back: what is on its way for it is given back. */
  isOver: boolean
}
