import type { Handler } from '../job.ts'
import { Gathering, type GatheringHost } from './gathering.ts'

/** The handlers of one stream of a worker, and what its batches are gathered in. */
export class Batches {
  /** Each its own: batches are of one stream, and of one worker. */
  readonly handlers: Map<string, Handler>
  readonly #gatherings: Gathering[] = []

  constructor(handlers: ReadonlyMap<string, Handler>, host: GatheringHost) {
    this.handlers = new Map(handlers)
    for (const [name, handler] of handlers) {
      if (handler.batch === undefined) continue
      const gathering = new Gathering(handler.batch, host)
      this.#gatherings.push(gathering)
      this.handlers.set(name, { ...handler, run: (data, job) => gathering.join(data, job) })
    }
  }

  /** The worker stops: what waits goes now, and what still comes does not wait. */
  hurry(): void {
    for (const gathering of this.#gatherings) gathering.hurry()
  }
}
