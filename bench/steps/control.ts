import { setTimeout as sleep } from 'node:timers/promises'
import type { Control } from '../contenders/control.ts'
import { expectCount } from './expect-count.ts'
import { watched } from './process.ts'
import { measureStreams } from './streams.ts'
import { Tally } from './tally.ts'
import type { ControlTask, Figures } from './task.ts'

/** What is asked of jobs beside running them: that there is one of a key, and that no more start than a limit lets. */
export async function measureControl(system: Control, url: string, task: ControlTask): Promise<Figures> {
  switch (task.what) {
    case 'unique':
      return unique(system, task)
    case 'limited':
      return limited(system, task)
    case 'streams':
      return measureStreams(url, task)
  }
}

/** How many publishes are on their way at any time. */
const IN_FLIGHT = 500

/** Every second publish is of a key that is held: the answer is the job that was there before. */
async function unique(system: Control, { jobs, warmUpJobs }: ControlTask): Promise<Figures> {
  await publishUnique(system, 'warm-up', warmUpJobs)
  const startedAtMs = performance.now()
  await publishUnique(system, 'timed', jobs)
  const elapsedMs = performance.now() - startedAtMs
  const kept = Math.ceil(jobs / 2) + Math.ceil(warmUpJobs / 2)
  expectCount('jobs in Redis, one of each key', kept, await system.unsettled())
  return { jobsPerSecond: (jobs / elapsedMs) * 1000 }
}

async function publishUnique(system: Control, prefix: string, count: number): Promise<void> {
  let next = 0
  const lane = async () => {
    while (next < count) {
      const at = next++
      await system.publishUnique(`${prefix}:${Math.floor(at / 2)}`)
    }
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane))
}

const WORKERS = 4

/**
 * Four workers under a limit, on more jobs than it lets start. Counted are starts, from when the first second is over: what a limit lets
 * start at once at its beginning is no part of its rate. The greatest count of any second tells how evenly they come.
 */
async function limited(system: Control, { perSecond, seconds, concurrency }: ControlTask): Promise<Figures> {
  await system.publish(perSecond * (seconds + 5))
  const startsMs: number[] = []
  const first = new Tally({ skip: 0, timed: 1 })
  const worker = await system.limited({
    workers: WORKERS,
    concurrency,
    perSecond,
    onJob: () => {
      startsMs.push(performance.now())
      first.hit()
    },
  })
  await watched(first.done, worker)
  const fromMs = (startsMs[0] ?? 0) + 1000
  const toMs = fromMs + seconds * 1000
  while (performance.now() < toMs) await sleep(Math.min(100, Math.max(1, toMs - performance.now())))
  void worker.completed
  await worker.stop()
  const counted = startsMs.filter((ms) => ms >= fromMs && ms < toMs)
  const rate = counted.length / seconds
  return {
    jobsPerSecond: rate,
    offBy: Math.abs(rate / perSecond - 1) * 100,
    busiestSecond: busiest(counted, 1000),
  }
}

/** The most starts within any span of so many ms. */
function busiest(sortedMs: readonly number[], spanMs: number): number {
  let [most, from] = [0, 0]
  sortedMs.forEach((ms, at) => {
    while (ms - (sortedMs[from] ?? 0) >= spanMs) from += 1
    most = Math.max(most, at - from + 1)
  })
  return most
}
