import { setTimeout as sleep } from 'node:timers/promises'
import type { Timed } from '../contenders/timed.ts'
import { expectCount } from './expect-count.ts'
import { completion, watched } from './process.ts'
import { Tally } from './tally.ts'
import type { Figures, SchedulesTask } from './task.ts'

/** How many schedules are being set at any time. */
const IN_FLIGHT = 100
/** For setting all of them; they are due after it, and no two contenders at different loads. */
const SETTING_MS = 15_000
const LEAST_MS = 3000

/**
 * Sets many schedules that are due at the same second, and has one worker fire and run them. Timed are the setting, and from that second
 * until Redis has confirmed the last of the jobs.
 */
export async function measureSchedules(system: Timed, { jobs, concurrency }: SchedulesTask): Promise<Figures> {
  const dueMs = Math.ceil((Date.now() + (jobs > 1000 ? SETTING_MS : LEAST_MS)) / 1000) * 1000
  const startedAtMs = performance.now()
  let next = 0
  const lane = async () => {
    while (next < jobs) await system.setDaily(`schedule-${next++}`, new Date(dueMs))
  }
  await Promise.all(Array.from({ length: IN_FLIGHT }, lane))
  const setMs = performance.now() - startedAtMs
  if (Date.now() > dueMs - 1000) throw new Error(`setting ${jobs} schedules took ${Math.round(setMs)} ms, too long`)
  const tally = new Tally({ skip: 0, timed: jobs })
  const worker = await system.worker({ concurrency, onJob: () => tally.hit() })
  await watched(tally.done, worker)
  await completion(worker, jobs)
  const ranMs = Date.now() - dueMs
  // A tick that was fired twice would show by now.
  await sleep(500)
  await worker.stop()
  expectCount('jobs, one of each schedule', jobs, tally.calls)
  return { setPerSecond: (jobs / setMs) * 1000, ranPerSecond: (jobs / ranMs) * 1000 }
}
