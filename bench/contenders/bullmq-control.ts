import { loadPeer } from '../peers.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { BATCH, NAME, UNSETTLED, type BullMq, type BullQueue } from './bullmq.ts'
import type { Control, LimitedSetup } from './control.ts'
import type { RunningWorker } from './contender.ts'

/** BullMQ's deduplication in its simple mode, which holds until the job is done, and its rate limiter. */
export async function openBullMqControl(url: string): Promise<Control> {
  const { Queue, Worker } = (await loadPeer('bullmq')) as BullMq
  const { hostname, port } = new URL(url)
  const connection = { host: hostname, port: Number(port) }
  const queue = new Queue(NAME, { connection, defaultJobOptions: { removeOnComplete: true } })
  return {
    publishUnique: (id) => queue.add(JOB_NAME, PAYLOAD, { deduplication: { id } }),
    publish: (count) => addAll(queue, count),
    limited: (setup) => startLimited(Worker, connection, setup),
    unsettled: async () => {
      const counts = await queue.getJobCounts(...UNSETTLED)
      return Object.values(counts).reduce((sum, count) => sum + count, 0)
    },
    close: () => queue.close(),
  }
}

async function addAll(queue: BullQueue, count: number): Promise<void> {
  for (let sent = 0; sent < count;) {
    const jobs = Array.from({ length: Math.min(BATCH, count - sent) }, () => ({ name: JOB_NAME, data: PAYLOAD }))
    sent += (await queue.addBulk(jobs)).length
  }
}

async function startLimited(
  Worker: BullMq['Worker'],
  connection: object,
  { workers, concurrency, perSecond, onJob }: LimitedSetup,
): Promise<RunningWorker> {
  let completed = 0
  let failure: unknown
  const limiter = { max: perSecond, duration: 1000 }
  const started = Array.from({ length: workers }, () => {
    const worker = new Worker(NAME, async () => onJob(), { connection, concurrency, limiter })
    worker.on('completed', () => (completed += 1))
    worker.on('failed', (_job, error) => (failure = error))
    worker.on('error', (error) => (failure = error))
    return worker
  })
  await Promise.all(started.map((worker) => worker.waitUntilReady()))
  return {
    get completed() {
      if (failure !== undefined) throw failure as Error
      return completed
    },
    stop: async () => void (await Promise.all(started.map((worker) => worker.close()))),
  }
}
