import { loadPeer } from '../peers.ts'
import { JOB_NAME, PAYLOAD, type Payload } from '../payload.ts'
import type { Contender, Publisher, RunningWorker, WorkerSetup } from './contender.ts'

/** BullMQ with its defaults; finished jobs are removed, as ours are no work for anyone any more. */

/** As much of BullMQ as is used here: its own types are there only where it is installed. */
export interface BullMq {
  readonly Queue: new (name: string, options: object) => BullQueue
  readonly Worker: new (name: string, processor: (job: BullJob) => Promise<unknown>, options: object) => BullWorker
}
export interface BullJob {
  readonly data: Payload
  /** Runs that failed. */
  readonly attemptsMade: number
}
export interface BullQueue {
  add(name: string, data: Payload, options?: object): Promise<unknown>
  addBulk(jobs: { name: string; data: Payload; opts?: object }[]): Promise<unknown[]>
  getJobCounts(...states: string[]): Promise<Record<string, number>>
  upsertJobScheduler(id: string, times: object, template: { name: string; data: Payload }): Promise<unknown>
  retryJobs(options: { state: 'failed' }): Promise<void>
  close(): Promise<void>
}
interface BullWorker {
  on(event: 'completed' | 'failed' | 'error', listener: (...args: unknown[]) => void): unknown
  waitUntilReady(): Promise<unknown>
  close(): Promise<void>
}

export const NAME = 'bench'
export const BATCH = 500
export const UNSETTLED = ['waiting', 'active', 'delayed', 'prioritized', 'paused', 'failed', 'completed']

export async function openBullMq(url: string): Promise<Contender> {
  const { Queue, Worker } = (await loadPeer('bullmq')) as BullMq
  const { hostname, port } = new URL(url)
  const connection = { host: hostname, port: Number(port) }
  const openQueue = () => new Queue(NAME, { connection, defaultJobOptions: { removeOnComplete: true } })
  const queue = openQueue()
  return {
    publisher: async () => publisherOf(openQueue()),
    worker: (setup) => startWorker(Worker, connection, setup),
    unsettled: async () => {
      const counts = await queue.getJobCounts(...UNSETTLED)
      return Object.values(counts).reduce((sum, count) => sum + count, 0)
    },
    close: () => queue.close(),
  }
}

function publisherOf(queue: BullQueue): Publisher {
  return {
    publishMany: async (count) => {
      for (let sent = 0; sent < count;) {
        const jobs = Array.from({ length: Math.min(BATCH, count - sent) }, () => ({ name: JOB_NAME, data: PAYLOAD }))
        sent += (await queue.addBulk(jobs)).length
      }
    },
    publish: (payload) => queue.add(JOB_NAME, payload),
    close: () => queue.close(),
  }
}

async function startWorker(
  Worker: BullMq['Worker'],
  connection: object,
  { concurrency, onJob }: WorkerSetup,
): Promise<RunningWorker> {
  let completed = 0
  let failure: unknown
  const worker = new Worker(NAME, async ({ data }) => onJob(data), { connection, concurrency })
  worker.on('completed', () => (completed += 1))
  worker.on('failed', (_job, error) => (failure = error))
  worker.on('error', (error) => (failure = error))
  await worker.waitUntilReady()
  return {
    get completed() {
      if (failure !== undefined) throw failure as Error
      return completed
    },
    stop: () => worker.close(),
  }
}
