import type { Worker } from '../../src/index.ts'
import { completion, watched } from './process.ts'
import type { Tally } from './tally.ts'

/** Waits until Redis has confirmed so many completions of a worker; gives the ms since the first timed call of its handler. */
export async function seenThrough(worker: Worker, tally: Tally, count: number): Promise<number> {
  const running = {
    get completed() {
      return worker.counts.completed
    },
    stop: async () => void (await worker.stop()),
  }
  await watched(tally.done, running)
  await completion(running, count)
  return performance.now() - tally.startedAtMs
}
