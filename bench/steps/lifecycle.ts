import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises'
import type { Lifecycle } from '../contenders/lifecycle.ts'
import { expectCount } from './expect-count.ts'
import { completion, watched } from './process.ts'
import { Tally } from './tally.ts'
import type { Figures, LifecycleTask } from './task.ts'

/**
 * What happens to jobs that fail or wait. Every step is done twice in the process, first with fewer jobs as the warm-up, each
 * time with a worker of its own: how far the warm-up has got would else be unclear, as jobs overtake each other here.
 */
export async function measureLifecycle(
  system: Lifecycle,
  { what, jobs, warmUpJobs, concurrency }: LifecycleTask,
): Promise<Figures> {
  const run = STEPS[what]
  if (warmUpJobs > 0) await run(system, { jobs: warmUpJobs, concurrency })
  return run(system, { jobs, concurrency })
}

interface StepSize {
  readonly jobs: number
  readonly concurrency: number
}

const STEPS: Readonly<Record<LifecycleTask['what'], (system: Lifecycle, size: StepSize) => Promise<Figures>>> = {
  retry,
  schedule,
  promote,
  redrive,
}

/** Timed is from the first handler call until Redis has confirmed the last completion. */
async function retry(system: Lifecycle, { jobs, concurrency }: StepSize): Promise<Figures> {
  await system.publish(jobs, { attempts: 3 })
  const tally = new Tally({ skip: 0, timed: 2 * jobs })
  const onJob = ({ isFirst }: { isFirst: boolean }) => {
    tally.hit()
    if (isFirst) throw new Error('the first run fails')
  }
  const worker = await system.worker({ concurrency, attempts: 3, onJob })
  await watched(tally.done, worker)
  await completion(worker, jobs)
  const elapsedMs = performance.now() - tally.startedAtMs
  await worker.stop()
  expectCount('handler calls, two for each job', 2 * jobs, tally.calls)
  expectCount('dead letters', 0, worker.dead)
  await expectNoneLeft(system)
  return { jobsPerSecond: (jobs / elapsedMs) * 1000 }
}

const FAR_MS = 24 * 3_600_000

/** What the warm-up has scheduled stays where it is. */
async function schedule(system: Lifecycle, { jobs }: StepSize): Promise<Figures> {
  const before = await system.unsettled()
  const startedAtMs = performance.now()
  await system.publish(jobs, { attempts: 1, delayMs: FAR_MS })
  const elapsedMs = performance.now() - startedAtMs
  const { count, due } = await system.scheduled()
  expectCount('scheduled jobs', before + jobs, count)
  expectCount('due jobs', 0, due)
  return { jobsPerSecond: (jobs / elapsedMs) * 1000 }
}

/** Long enough that a system cannot take it for none. */
const SOON_MS = 1000

/** Timed is from before the worker is started, when all jobs are due, until Redis has confirmed the last completion. */
async function promote(system: Lifecycle, { jobs, concurrency }: StepSize): Promise<Figures> {
  await system.publish(jobs, { attempts: 1, delayMs: SOON_MS })
  expectCount('scheduled jobs', jobs, (await system.scheduled()).count)
  while ((await system.scheduled()).due < jobs) await sleep(20)
  const tally = new Tally({ skip: 0, timed: jobs })
  const startedAtMs = performance.now()
  const worker = await system.worker({ concurrency, attempts: 1, onJob: () => tally.hit() })
  await watched(tally.done, worker)
  await completion(worker, jobs)
  const elapsedMs = performance.now() - startedAtMs
  await worker.stop()
  expectCount('handler calls', jobs, tally.calls)
  await expectNoneLeft(system)
  return { jobsPerSecond: (jobs / elapsedMs) * 1000 }
}

/**
 * Two times: from the first handler call until Redis has confirmed the last dead letter, and from the call that redrives them
 * all until it has confirmed the last completion. The worker goes on meanwhile.
 */
async function redrive(system: Lifecycle, { jobs, concurrency }: StepSize): Promise<Figures> {
  await system.publish(jobs, { attempts: 1 })
  const dying = new Tally({ skip: 0, timed: jobs })
  const living = new Tally({ skip: 0, timed: jobs })
  let isRedriven = false
  const onJob = () => {
    if (isRedriven) return living.hit()
    dying.hit()
    throw new Error('the only run fails')
  }
  const worker = await system.worker({ concurrency, attempts: 1, onJob })
  await watched(dying.done, worker)
  while (worker.dead < jobs) await nextTurn()
  const diedMs = performance.now() - dying.startedAtMs
  expectCount('jobs that are dead', jobs, await system.unsettled())
  isRedriven = true
  const redrivenAtMs = performance.now()
  await system.redrive()
  await watched(living.done, worker)
  await completion(worker, jobs)
  const redrivenMs = performance.now() - redrivenAtMs
  await worker.stop()
  expectCount('handler calls, two for each job', 2 * jobs, dying.calls + living.calls)
  await expectNoneLeft(system)
  return { deadPerSecond: (jobs / diedMs) * 1000, redrivenPerSecond: (jobs / redrivenMs) * 1000 }
}

async function expectNoneLeft(system: Lifecycle): Promise<void> {
  expectCount('jobs left in Redis', 0, await system.unsettled())
}
