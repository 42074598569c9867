import { setTimeout as sleep } from 'node:timers/promises'
import type { Contender } from '../contenders/contender.ts'
import { quantile } from '../median.ts'
import { PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import { completion, watched } from './process.ts'
import { Tally } from './tally.ts'
import type { Figures } from './task.ts'

/**
 * From just before the call that publishes until the handler is called, one job at a time, on a system that has nothing else
 * to do. Publisher and worker share a process, so they share a clock, but no connection.
 */
export async function latency(
  contender: Contender,
  { samples, warmUpSamples, everyMs }: { samples: number; warmUpSamples: number; everyMs: number },
): Promise<Figures> {
  const latenciesMs: number[] = []
  const tally = new Tally({ skip: 0, timed: warmUpSamples + samples })
  const worker = await contender.worker({
    concurrency: 100,
    onJob: ({ sentAtMs = Number.NaN }) => {
      latenciesMs.push(nowMs() - sentAtMs)
      tally.hit()
    },
  })
  const publisher = await contender.publisher({ isConcurrent: false })
  for (let at = 0; at < warmUpSamples + samples; at++) {
    await publisher.publish({ ...PAYLOAD, sentAtMs: nowMs() })
    await sleep(everyMs)
  }
  await watched(tally.done, worker)
  await completion(worker, warmUpSamples + samples)
  await publisher.close()
  await worker.stop()
  expectCount('handler calls', warmUpSamples + samples, tally.calls)
  expectCount('jobs left in Redis', 0, await contender.unsettled())
  const timed = latenciesMs.slice(warmUpSamples)
  return { p50Ms: quantile(timed, 0.5), p99Ms: quantile(timed, 0.99) }
}

function nowMs(): number {
  return performance.timeOrigin + performance.now()
}
