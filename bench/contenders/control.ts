import type { RunningWorker } from './contender.ts'

/** What is done with a system that refuses duplicates and holds a rate. */
export interface Control {
  /** Publishes one job under a key that no other job may hold; resolves when the answer is there. */
  publishUnique(key: string): Promise<unknown>
  /** Publishes jobs in bulk, to one of its streams; resolves when they are in Redis. */
  publish(count: number, stream?: string): Promise<void>
  /** `workers` workers of their own connections, which together start no more jobs than the limit. */
  limited(how: LimitedSetup): Promise<RunningWorker>
  /** Jobs in Redis that are not settled. */
  unsettled(): Promise<number>
  close(): Promise<void>
}

export interface LimitedSetup {
  readonly workers: number
  /** Of each worker. */
  readonly concurrency: number
  /** Starts a second, of all workers together. */
  readonly perSecond: number
  readonly onJob: () => void
}
