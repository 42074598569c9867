import { PAYLOAD } from '../payload.ts'
import type { Contender } from '../contenders/contender.ts'
import { connect } from '../contenders/stream.ts'
import { expectCount } from './expect-count.ts'
import { completion, watched } from './process.ts'
import { Tally } from './tally.ts'
import type { BatchesTask, Figures } from './task.ts'

/**
 * One worker on jobs that wait, each of which writes a row to a store: a hash in the same Redis, through a client of its own, the same for
 * all. `each`: a write per job, awaited in its handler. `batch`: one write for all jobs of a batch, awaited once.
 */
export async function processBatches(
  contender: Contender,
  url: string,
  { waitingJobs, warmUpJobs, jobs, concurrency, size }: BatchesTask,
): Promise<Figures> {
  expectCount('jobs waiting before processing', waitingJobs, await contender.unsettled())
  const store = connect(url)
  const text = JSON.stringify(PAYLOAD)
  const tally = new Tally({ skip: warmUpJobs, timed: jobs })
  let row = 0
  let writes = 0
  const write = (count: number): Promise<unknown> => {
    const rows: string[] = []
    for (let at = 0; at < count; at++) {
      tally.hit()
      rows.push(String(row++), text)
    }
    writes += 1
    return store.hset(ROWS, ...rows)
  }
  const worker = await contender.worker({
    concurrency,
    onJob: () => write(1),
    ...(size > 1 && { batch: { size, onBatch: write } }),
  })
  await watched(tally.done, worker)
  await completion(worker, warmUpJobs + jobs)
  const elapsedMs = performance.now() - tally.startedAtMs
  await worker.stop()
  expectCount('rows in the store, one for each job', waitingJobs, await store.hlen(ROWS))
  expectCount('jobs left in Redis', 0, await contender.unsettled())
  store.disconnect()
  return { jobsPerSecond: (jobs / elapsedMs) * 1000, jobsPerWrite: row / writes }
}

const ROWS = 'bench-rows'
