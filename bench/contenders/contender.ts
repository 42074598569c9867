import type { Payload } from '../payload.ts'
import type { Observed } from '../steps/task.ts'

/** Who is measured. The order is the one of the columns. */
export const CONTENDERS = ['millrace', 'raw', 'bullmq', 'bee-queue'] as const
export type ContenderName = (typeof CONTENDERS)[number]

export const LABELS: Readonly<Record<ContenderName, string>> = {
  millrace: 'millrace',
  raw: 'raw Streams',
  bullmq: 'BullMQ',
  'bee-queue': 'Bee-Queue',
}

/** What is done with a contender, the same for all, so that the steps are written once. */
export interface Contender {
  publisher(how: PublisherOptions): Promise<Publisher>
  /** A worker with handlers that do nothing but call `onJob`. It works from when this resolves, or before. */
  worker(how: WorkerSetup): Promise<RunningWorker>
  /** How many jobs Redis has that are not settled, running ones among them. */
  unsettled(): Promise<number>
  close(): Promise<void>
}

export interface PublisherOptions {
  /** Many publishes are in flight: who can put them together may. */
  readonly isConcurrent: boolean
}

export interface Publisher {
  /** Publishes `count` jobs in bulk, as its authors recommend. */
  publishMany(count: number): Promise<void>
  /** Publishes one; resolves when it is in Redis. */
  publish(payload: Payload): Promise<unknown>
  close(): Promise<void>
}

export interface WorkerSetup {
  readonly concurrency: number
  readonly onJob: (payload: Payload) => unknown
  /** In the place of `onJob`, with the number of jobs. For millrace alone. @default none */
  readonly batch?: { readonly size: number; readonly onBatch: (jobs: number) => Promise<unknown> }
  /** For millrace alone. @default 'metrics' */
  readonly observed?: Observed
}

export interface RunningWorker {
  /** Jobs of which Redis has confirmed that they are done. */
  readonly completed: number
  /** Resolves when no handler runs and nothing is unsettled here. */
  stop(): Promise<void>
}
