import { loadPeer } from '../peers.ts'
import { PAYLOAD, type Payload } from '../payload.ts'
import type { Contender, Publisher, RunningWorker, WorkerSetup } from './contender.ts'

/** Bee-Queue with what its documentation says makes it faster: no events, no stored jobs, finished jobs removed. */

/** As much of Bee-Queue as is used here: its own types are there only where it is installed. */
type BeeQueue = new (name: string, options: object) => Bee
interface Bee {
  ready(): Promise<unknown>
  createJob(data: Payload): BeeJob
  saveAll(jobs: BeeJob[]): Promise<Map<BeeJob, Error>>
  process(concurrency: number, handler: (job: { data: Payload }) => Promise<unknown>): void
  on(event: 'succeeded' | 'failed' | 'error', listener: (...args: unknown[]) => void): unknown
  checkHealth(): Promise<Record<string, number>>
  close(timeoutMs?: number): Promise<void>
}
interface BeeJob {
  save(): Promise<unknown>
}

const NAME = 'bench'
const BATCH = 500

export async function openBeeQueue(url: string): Promise<Contender> {
  const Queue = (await loadPeer('bee-queue')) as BeeQueue
  const { hostname, port } = new URL(url)
  const lean = { getEvents: false, sendEvents: false, storeJobs: false, removeOnSuccess: true }
  const open = async (isWorker: boolean) => {
    const queue = new Queue(NAME, { ...lean, isWorker, redis: { host: hostname, port: Number(port) } })
    await queue.ready()
    return queue
  }
  const queue = await open(false)
  return {
    publisher: async () => publisherOf(await open(false)),
    worker: async (setup) => startWorker(await open(true), setup),
    unsettled: async () => {
      const { waiting = 0, active = 0, delayed = 0, failed = 0, succeeded = 0 } = await queue.checkHealth()
      return waiting + active + delayed + failed + succeeded
    },
    close: () => queue.close(),
  }
}

function publisherOf(queue: Bee): Publisher {
  return {
    publishMany: async (count) => {
      for (let sent = 0; sent < count;) {
        const jobs = Array.from({ length: Math.min(BATCH, count - sent) }, () => queue.createJob(PAYLOAD))
        const errors = await queue.saveAll(jobs)
        for (const error of errors.values()) throw error
        sent += jobs.length
      }
    },
    publish: (payload) => queue.createJob(payload).save(),
    close: () => queue.close(),
  }
}

function startWorker(queue: Bee, { concurrency, onJob }: WorkerSetup): RunningWorker {
  let completed = 0
  let failure: unknown
  queue.on('succeeded', () => (completed += 1))
  queue.on('failed', (_job, error) => (failure = error))
  queue.on('error', (error) => (failure = error))
  queue.process(concurrency, async ({ data }) => onJob(data))
  return {
    get completed() {
      if (failure !== undefined) throw failure as Error
      return completed
    },
    stop: () => queue.close(),
  }
}
