import type { RunningWorker } from './contender.ts'

/** What is done with a system that runs failed jobs again, holds jobs until they are due, and keeps the dead ones. */
export interface Lifecycle {
  /** Publishes jobs in bulk, as its authors recommend; resolves when they are in Redis. */
  publish(count: number, how: LifecyclePublish): Promise<void>
  /** A worker whose handlers do nothing but call `onJob`; a run fails if that throws. */
  worker(how: LifecycleSetup): Promise<LifecycleWorker>
  /** How many jobs wait for their time, and how many of them are due by the clock of Redis. */
  scheduled(): Promise<{ readonly count: number; readonly due: number }>
  /** Gives all dead letters back to the workers; resolves when it is done, not when they have run. */
  redrive(): Promise<void>
  /** Jobs in Redis that are neither completed nor removed: waiting, running, scheduled and dead ones. */
  unsettled(): Promise<number>
  close(): Promise<void>
}

export interface LifecyclePublish {
  /** Runs in total. */
  readonly attempts: number
  /** How long they wait before they are due, in ms. @default 0 */
  readonly delayMs?: number
}

export interface LifecycleSetup {
  readonly concurrency: number
  /** Runs in total; the next one follows a failed one after `RETRY_DELAY_MS`. */
  readonly attempts: number
  readonly onJob: (run: { readonly isFirst: boolean }) => void
}

export interface LifecycleWorker extends RunningWorker {
  /** Jobs of which Redis has confirmed that they are dead letters. */
  readonly dead: number
}

/** The shortest that all of them can be told. */
export const RETRY_DELAY_MS = 1
