import type { PublishError } from '../errors.ts'
import type { PublishNumbers } from '../metrics/producer-numbers.ts'
import type { ReplicaDurability } from './durability.ts'
import type { Item } from '../redis/publishing.ts'
import type { BufferPriority } from './priority.ts'

/** One job on its way. */
export interface Outgoing extends Item {
  readonly bytes: number
  /** Where it is counted. */
  readonly numbers: PublishNumbers
  readonly priority: BufferPriority
  /** What a buffered job is known by; undefined of one whose publish waits for Redis. */
  ref: string | undefined
  /** The replicas that shall have it before it is settled. */
  readonly replicas: ReplicaDurability | undefined
  /** When it was published, by the monotonic clock. */
  readonly publishedAtMs: number
  /** When its time is up, by the monotonic clock; `Infinity` for never. */
  deadlineMs: number
  /** Whether it waits for room in the buffer. */
  isAtDoor: boolean
  /** Whether a batch carries it: nobody can take it back then, unless the batch comes back. */
  isOnItsWay: boolean
  /** Whether it is to be taken back. */
  isUnwanted: boolean
  /** Called once it is in the buffer, at once or after a wait; undefined from then on. */
  admitted: ((item: Outgoing) => void) | undefined
  /** Called once: with what became of it (`fateOf` reads it), or with the error. Undefined from then on. */
  settled: Settled | undefined
}

/** `replicated`: how many replicas have it, of a job for which that was asked. One of `answer` and `error` is there. */
export type Settled = (
  answer: string | undefined,
  error: PublishError | undefined,
  item: Outgoing,
  replicated: number,
) => void

/** A batch that was given up while nobody knew what became of it, as Redis would know it. */
export interface BatchLeft {
  readonly producerId: string
  readonly seq: number
  readonly items: readonly Outgoing[]
}

/** The name of its job. Every item is packed with this one first. */
export function jobNameOf({ fields }: Item): string {
  return fields[1] ?? ''
}

/** Whether somebody waits for Redis to have it. */
export function isAwaited({ ref, settled }: Outgoing): boolean {
  return ref === undefined && settled !== undefined
}

export function isSettled({ settled }: Outgoing): boolean {
  return settled === undefined
}
