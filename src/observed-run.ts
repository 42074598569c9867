import { runChannel } from './channels.ts'
import type { Delivery } from './delivery.ts'
import { jobEventOf } from './events.ts'
import type { Handler } from './job.ts'

/** In its span, and told to whoever subscribes to its channel. */
export function runObserved(delivery: Delivery, handler: Handler, data: unknown): unknown {
  const { traced } = delivery
  const work = () => handler.run(data, delivery)
  // A promise in any case: its end is what the channel tells of.
  const told = () => runChannel.tracePromise(() => Promise.resolve(work()), jobEventOf(delivery))
  const run = runChannel.hasSubscribers ? told : work
  return traced === undefined ? run() : traced.run(run)
}
