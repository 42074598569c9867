import type { WorkerCounts } from './counts.ts'
import type { Executor } from './executor.ts'
import type { Holdings } from './holdings.ts'
import type { Deferrals } from './limits/deferrals.ts'
import type { Turns } from './order/turns.ts'
import type { Source } from './redis/member.ts'
import type { Begun } from './redis/stream.ts'
import type { Slots } from './slots.ts'

/** What a dispatcher is given by its worker. */
export interface DispatcherDeps {
  readonly concurrency: number
  /** What this stream shares with others. */
  readonly slots: Slots | undefined
  readonly holdings: Holdings
  readonly executor: Executor
  readonly counts: WorkerCounts
  readonly maxDeliveries: () => number
  /** The jobs that are with the limiter, if the worker has limits. */
  readonly deferrals?: Deferrals | undefined
  /** The jobs that ask for their turn, or wait for it. */
  readonly turns?: Pick<Turns, 'comingAt' | 'held' | 'take'> | undefined
  readonly begin: (source: Source, claimed: readonly { id: string; deliveries: number }[]) => Promise<Begun[]>
}
