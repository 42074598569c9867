import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Contender, RunningWorker } from '../contenders/contender.ts'
import { expectCount } from './expect-count.ts'
import { Tally } from './tally.ts'
import type { Figures, ProcessTask } from './task.ts'

/**
 * One worker on jobs that wait. The first ones are the warm-up. Timed is from the call of the next one's handler until Redis
 * has confirmed all timed ones as done, so start and connecting are not in it, and the last acks are.
 */
export async function processWaiting(
  contender: Contender,
  { waitingJobs, warmUpJobs, jobs, concurrency, observed = 'metrics' }: ProcessTask,
): Promise<Figures> {
  expectCount('jobs waiting before processing', waitingJobs, await contender.unsettled())
  const tally = new Tally({ skip: warmUpJobs, timed: jobs })
  const worker = await contender.worker({ concurrency, onJob: () => tally.hit(), observed })
  // A worker that fails calls no handler any more; looking at its count throws what it failed with.
  await watched(tally.done, worker)
  await completion(worker, warmUpJobs + jobs)
  const elapsedMs = performance.now() - tally.startedAtMs
  const { maxRSS } = process.resourceUsage()
  await worker.stop()
  const { completed } = worker
  expectCount('handler calls, one for each completed job', completed, tally.calls)
  if (waitingJobs === warmUpJobs + jobs) expectCount('completed jobs', waitingJobs, completed)
  expectCount('jobs left in Redis', waitingJobs - completed, await contender.unsettled())
  return { jobsPerSecond: (jobs / elapsedMs) * 1000, maxRssMib: maxRSS / 1024 }
}

/** Resolves when `done` does, and rejects when the worker has failed. */
export async function watched(done: Promise<void>, worker: RunningWorker): Promise<void> {
  let watch: NodeJS.Timeout | undefined
  const failed = new Promise<never>((_, reject) => {
    watch = setInterval(() => {
      try {
        void worker.completed
      } catch (error) {
        reject(asError(error))
      }
    }, 500)
  })
  try {
    await Promise.race([done, failed])
  } finally {
    clearInterval(watch)
  }
}

/** Looked at every turn of the event loop, and only when all handlers were called: until then it would cost the worker time. */
export async function completion(worker: RunningWorker, count: number): Promise<void> {
  while (worker.completed < count) await nextTurn()
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown))
}
