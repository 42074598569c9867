import { loadPeer } from '../peers.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import type { BullMq, BullQueue } from './bullmq.ts'
import { BATCH, NAME, UNSETTLED } from './bullmq.ts'
import { RETRY_DELAY_MS, type Lifecycle, type LifecycleSetup, type LifecycleWorker } from './lifecycle.ts'
import { connect, serverMs } from './stream.ts'

/** BullMQ with its defaults; completed jobs are removed, failed ones are kept, as ours are dead letters. */

/** Its delayed jobs have scores of their due time and, in the last 12 bits, their order within it. */
const DELAYED_KEY = `bull:${NAME}:delayed`
const STEPS_PER_MS = 0x1000

export async function openBullMqLifecycle(url: string): Promise<Lifecycle> {
  const { Queue, Worker } = (await loadPeer('bullmq')) as BullMq
  const { hostname, port } = new URL(url)
  const connection = { host: hostname, port: Number(port) }
  const queue = new Queue(NAME, { connection, defaultJobOptions: { removeOnComplete: true } })
  const redis = connect(url)
  return {
    publish: (count, { attempts, delayMs = 0 }) => {
      const backoff = { type: 'fixed', delay: RETRY_DELAY_MS }
      return addAll(queue, count, { attempts, backoff, delay: delayMs })
    },
    worker: (setup) => startWorker(Worker, connection, setup),
    scheduled: async () => {
      const upTo = (await serverMs(redis)) * STEPS_PER_MS
      return { count: await redis.zcard(DELAYED_KEY), due: await redis.zcount(DELAYED_KEY, '-inf', upTo) }
    },
    redrive: () => queue.retryJobs({ state: 'failed' }),
    unsettled: async () => {
      const counts = await queue.getJobCounts(...UNSETTLED)
      return Object.values(counts).reduce((sum, count) => sum + count, 0)
    },
    close: async () => {
      redis.disconnect()
      await queue.close()
    },
  }
}

async function addAll(queue: BullQueue, count: number, opts: object): Promise<void> {
  for (let sent = 0; sent < count;) {
    const jobs = Array.from({ length: Math.min(BATCH, count - sent) }, () => ({ name: JOB_NAME, data: PAYLOAD, opts }))
    sent += (await queue.addBulk(jobs)).length
  }
}

async function startWorker(
  Worker: BullMq['Worker'],
  connection: object,
  { concurrency, attempts, onJob }: LifecycleSetup,
): Promise<LifecycleWorker> {
  let completed = 0
  let dead = 0
  let failure: unknown
  const work = async ({ attemptsMade }: { attemptsMade: number }) => onJob({ isFirst: attemptsMade === 0 })
  const worker = new Worker(NAME, work, { connection, concurrency })
  worker.on('completed', () => (completed += 1))
  // Told of every run that failed, when Redis has confirmed what becomes of the job.
  worker.on('failed', (job) => {
    if ((job as { attemptsMade: number }).attemptsMade >= attempts) dead += 1
  })
  worker.on('error', (error) => (failure = error))
  await worker.waitUntilReady()
  return {
    get completed() {
      if (failure !== undefined) throw failure as Error
      return completed
    },
    get dead() {
      return dead
    },
    stop: () => worker.close(),
  }
}
