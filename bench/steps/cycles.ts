import type { Contender } from '../contenders/contender.ts'
import { connect, STREAM } from '../contenders/stream.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import { completion, watched } from './process.ts'
import { Tally } from './tally.ts'
import type { CyclesTask, Figures } from './task.ts'

/**
 * Never more than a thousand jobs waiting: a thousand are put into Redis at one instant, worked off, and then the next
 * thousand. Timed is each thousand from its first handler's call to its last confirmation, so neither the publishing nor the
 * wake of the worker is in it. What is in it is the worker's way up to speed, once a thousand. A feeder that keeps a
 * thousand waiting all the time would take a third of what the machine has from the worker and Redis, and measure that.
 */
export async function processInCycles(
  contender: Contender,
  url: string,
  { cycles, warmUpCycles, jobsPerCycle, concurrency }: CyclesTask,
): Promise<Figures> {
  const feeder = connect(url)
  let tally = new Tally({ skip: 0, timed: jobsPerCycle })
  const worker = await contender.worker({ concurrency, onJob: () => tally.hit() })
  let elapsedMs = 0
  for (let cycle = 0; cycle < warmUpCycles + cycles; cycle++) {
    tally = new Tally({ skip: 0, timed: jobsPerCycle })
    await feeder.eval(FEED, 1, STREAM, jobsPerCycle, JOB_NAME, JSON.stringify(PAYLOAD))
    await watched(tally.done, worker)
    await completion(worker, (cycle + 1) * jobsPerCycle)
    expectCount('handler calls in a cycle', jobsPerCycle, tally.calls)
    if (cycle >= warmUpCycles) elapsedMs += performance.now() - tally.startedAtMs
  }
  await worker.stop()
  expectCount('completed jobs', (warmUpCycles + cycles) * jobsPerCycle, worker.completed)
  expectCount('jobs left in Redis', 0, await contender.unsettled())
  feeder.disconnect()
  return { jobsPerSecond: ((cycles * jobsPerCycle) / elapsedMs) * 1000 }
}

/** In one step, and with a short answer: nothing of it is to be done while the worker works. */
const FEED = `for _ = 1, tonumber(ARGV[1]) do redis.call('XADD', KEYS[1], '*', 'job', ARGV[2], 'data', ARGV[3]) end`
