import { monotonicMs } from '../clock.ts'
import type { Cancelled } from '../cancelled.ts'
import type { Dispatcher } from '../dispatcher.ts'
import type { Executor } from '../executor.ts'
import type { Holdings } from '../holdings.ts'
import type { WorkerNumbers } from '../metrics/worker-numbers.ts'
import type { ServerClock } from '../server-clock.ts'
import { Deferrals } from './deferrals.ts'
import type { Limit } from './limit.ts'
import { Limiter, type LimiterDeps } from './limiter.ts'

/** What a worker needs for its limits. One without any has none of it, and its jobs do not look for one. */
export interface LimitingParts {
  readonly limits: readonly Limit[]
  readonly limiter: Limiter | undefined
  readonly deferrals: Deferrals | undefined
}

export function assembleLimits(
  limits: readonly Limit[],
  redis: Pick<LimiterDeps, 'connection' | 'member' | 'logger' | 'leaseMs'>,
  {
    holdings,
    cancelled,
    clock,
    numbers: { held },
  }: { holdings: Holdings; cancelled: Cancelled; clock: ServerClock; numbers: WorkerNumbers },
  who: () => { dispatcher: Dispatcher; executor: Executor },
): LimitingParts {
  if (limits.length === 0) return { limits, limiter: undefined, deferrals: undefined }
  // From the start, and at 0, as the counts of job names are.
  for (const { label } of limits) held.set(label, held.get(label) ?? 0)
  const limiter: Limiter = new Limiter(limits, {
    ...redis,
    serverMs: () => clock.at(monotonicMs()),
    isOurs: (delivery) => delivery.ended === undefined && holdings.awaits(delivery),
    isCancelled: ({ id }) => cancelled.has(id),
    waiting: () => deferrals.waiting,
    onPassed: (delivery) => who().dispatcher.passed(delivery),
    onGone: (delivery) => who().executor.lose(delivery),
    onWait: (delivery, wait) => who().executor.defer(delivery, wait),
    onHeld: ({ label }) => void held.set(label, (held.get(label) ?? 0) + 1),
    onOpen: () => who().dispatcher.dispatch(),
  })
  const deferrals: Deferrals = new Deferrals(limiter, holdings)
  return { limits, limiter, deferrals }
}
