import type { RunningWorker, WorkerSetup } from './contender.ts'

/** What is done with a system that has recurring schedules. */
export interface Timed {
  /** Sets a schedule that is due at this time of every day, in UTC; resolves when it is in Redis. */
  setDaily(name: string, at: Date): Promise<unknown>
  worker(how: WorkerSetup): Promise<RunningWorker>
  close(): Promise<void>
}
