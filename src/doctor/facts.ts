import type { WorkerRow } from '../group-workers.ts'
import type { HoldSeen, ServerSeen } from '../redis/diagnosis.ts'
import type { PermissionsSeen } from '../redis/permissions.ts'
import type { GroupStats, StreamStats } from '../stats.ts'
import type { TrimPlan } from '../trim-plan.ts'

/** What a doctor has looked at. Its checks see this and nothing else. */
export interface Facts {
  /** By the clock of Redis where it is known, else by ours. */
  readonly nowMs: number
  readonly server: ServerSeen
  readonly permissions: PermissionsSeen | undefined
  readonly streams: readonly StreamFacts[]
  /** The list of streams in use was not to be had. */
  readonly isListForbidden: boolean
  /** There are more streams than were looked at. */
  readonly more: boolean
}

export type StreamFacts =
  /** `isAwaited`: nothing was published to it yet, and delayed publishes or recurring schedules wait to be. */
  | ({
      readonly stream: string
      readonly kind: 'missing'
      readonly isAwaited: boolean
    } & CronSeen)
  /** Its key, or one beside it, is of another type. */
  | { readonly stream: string; readonly kind: 'other'; readonly found: string }
  /** This user may not look at it. */
  | { readonly stream: string; readonly kind: 'forbidden' }
  | SoundStream

/** How the recurring schedules of a stream stand. */
export interface CronSeen {
  /** When the first of them is to be looked at; undefined if none is. */
  readonly cronDueMs: number | undefined
  /** Those that could not be fired. */
  readonly cronAside: number
}

export interface SoundStream extends CronSeen {
  readonly stream: string
  readonly kind: 'stream'
  readonly stats: StreamStats
  readonly trim: TrimPlan
  readonly deadMaxAgeMs: number | null
  /** Null is no bound. */
  readonly maxBacklog: number | null
  readonly lastIdMs: number | undefined
  readonly holds: readonly HoldSeen[]
  readonly groups: readonly GroupFacts[]
}

export interface GroupFacts {
  readonly stats: GroupStats
  readonly leaseMs: number
  /** Pending entries of workers that nobody has renewed for three leases, up to 100; undefined if that was not looked at. */
  readonly stuck: { readonly jobs: number; readonly idleMs: number } | undefined
  readonly workers: readonly WorkerRow[]
  readonly oldestDeadMs: number | undefined
}
