import type { Cancelled } from './cancelled.ts'
import type { WorkerCounts } from './counts.ts'
import type { Delivery } from './delivery.ts'
import type { Events } from './events.ts'
import type { Holdings } from './holdings.ts'
import type { JobKindsDeps } from './job-kinds.ts'
import type { Limiter } from './limits/limiter.ts'
import type { Logger } from './logger.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { NoteTaker } from './notes/taking.ts'
import type { Turns } from './order/turns.ts'
import type { ServerClock } from './server-clock.ts'
import type { Settler } from './settler.ts'
import type { ContainedTracing } from './tracing.ts'
import type { UniqueStarts } from './unique-starts.ts'

/** What the executor works with. */
export interface ExecutorDeps extends JobKindsDeps {
  readonly holdings: Holdings
  readonly settler: Pick<Settler, 'complete' | 'fail' | 'skip'>
  readonly counts: WorkerCounts
  readonly numbers: WorkerNumbers
  readonly clock: Pick<ServerClock, 'at'>
  /** What is left to chance: a number from 0 to 1. */
  readonly chance: () => number
  readonly logger: Logger
  readonly events: Events
  readonly cancelled: Cancelled
  readonly uniqueStarts: UniqueStarts
  readonly tracing: ContainedTracing | undefined
  readonly timeoutMs: number | false
  /** The largest result that is told to whoever asked for it, as JSON, in bytes. */
  readonly maxResultBytes: number
  /** How long a job may wait for a worker that knows it, in ms. */
  readonly unknownJobMs: number
  /** The raw fields of an entry whose text may not be its bytes; undefined if it is gone. */
  readonly readRaw: (delivery: Delivery) => Promise<Buffer[] | undefined>
  /** The delivery needs its slot no more. */
  readonly onEnded: () => void
  /** Who writes down what handlers say of their jobs. */
  readonly notes?: Pick<NoteTaker, 'ending' | 'mayHave'> | undefined
  /** What lets jobs begin within their limits, if the worker has any. */
  readonly limiter?: Pick<Limiter, 'ask' | 'leave'> | undefined
  /** What gives jobs of a key their turns; without it they begin as all others. */
  readonly turns?: Pick<Turns, 'ask'> | undefined
  /** The delivery waits for its turn, without a slot. */
  readonly onAsks?: (() => void) | undefined
  /** The delivery waits for its limits, without a slot; and it is dealt with after that, in one. */
  readonly onDeferred: (delivery: Delivery) => void
  readonly onUndeferred: (delivery: Delivery) => void
  /** The delivery is to have the count of its job's past ones, and to be claimed with that. */
  readonly onUncounted: (delivery: Delivery) => void
}
