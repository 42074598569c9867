import type { Delivery } from './delivery.ts'
import { jobEventOf, type Events } from './events.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import { timeOf } from './redis/entry-id.ts'
import type { ServerClock } from './server-clock.ts'

/** A handler is called next: counts that, and how long the job has waited for it. */
export function tellBegun(
  delivery: Delivery,
  { numbers, clock, events }: { numbers: WorkerNumbers; clock: Pick<ServerClock, 'at'>; events: Events },
): void {
  const { startedAtMs, entryId } = delivery
  numbers.started(startedAtMs)
  if (events.has('job:started')) events.emit('job:started', jobEventOf(delivery))
  // Another delivery has not waited: it ran before, and its worker went away.
  if (delivery.deliveries > 1) return
  const readyMs = delivery.earlier?.dueMs ?? (entryId === delivery.id ? delivery.publishedMs : timeOf(entryId))
  delivery.numbers?.wait.observe(Math.max(0, clock.at(startedAtMs) - readyMs) / 1000)
}
