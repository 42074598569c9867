/**
 * The entry point `millrace/testing`: for tests of handlers, with any test runner. Handlers run through the same code as in a
 * worker, without Redis and without waiting; `drained` waits for a real stream.
 */
export { VirtualClock } from './testing/clock.ts'
export { drained } from './testing/drained.ts'
export type { DrainedOptions } from './testing/drained.ts'
export { runBatch } from './testing/run-batch.ts'
export type { RunBatchOptions } from './testing/run-batch.ts'
export { runJob, runToEnd } from './testing/run-job.ts'
export type { JobRuns, TimedRun } from './testing/run-job.ts'
export type { JobRun, PublishedByRun, RunResult } from './testing/lone-worker.ts'
export type { AbortedRun, AbortWhy } from './testing/aborts.ts'
export type { RunJobOptions, RunToEndOptions, TestedJob } from './testing/asked.ts'
