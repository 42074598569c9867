import { Registry } from 'prom-client'
import { Inspector, Producer, Worker, type WorkerOptions } from '../../src/index.ts'
import { deadKey, groupScheduledKey, redeliveryKey, scheduledKey } from '../../src/redis/keys.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { RETRY_DELAY_MS, type Lifecycle, type LifecycleSetup, type LifecycleWorker } from './lifecycle.ts'
import { repeated } from './millrace.ts'
import { connect, GROUP, serverMs, STREAM, unsettledEntries } from './stream.ts'

/** millrace with its defaults and its metrics, but without a line in the log for each failure: BullMQ writes none. */
export function openMillraceLifecycle(url: string): Lifecycle {
  const producer = new Producer({ redis: url, registry: new Registry() })
  const inspector = new Inspector({ redis: url })
  const redis = connect(url)
  return {
    publish: async (count, { delayMs = 0 }) => {
      const { published } = await producer.publishMany(JOB_NAME, repeated(PAYLOAD, count), { stream: STREAM, delayMs })
      if (published !== count) throw new Error(`expected ${count} jobs to be published, got ${published}`)
    },
    worker: async (setup) => startWorker(url, setup),
    scheduled: async () => {
      const key = scheduledKey(STREAM)
      const nowMs = await serverMs(redis)
      return { count: await redis.zcard(key), due: await redis.zcount(key, '-inf', nowMs) }
    },
    redrive: async () => void (await inspector.dead.redrive(STREAM, GROUP, { execute: true })),
    unsettled: async () => {
      const counts = await Promise.all([
        unsettledEntries(redis),
        unsettledEntries(redis, redeliveryKey(STREAM, GROUP)),
        redis.zcard(scheduledKey(STREAM)),
        redis.zcard(groupScheduledKey(STREAM, GROUP)),
        redis.xlen(deadKey(STREAM, GROUP)),
      ])
      return counts.reduce((sum, count) => sum + count, 0)
    },
    close: async () => {
      redis.disconnect()
      inspector.close()
      await producer.close()
    },
  }
}

async function startWorker(url: string, setup: LifecycleSetup): Promise<LifecycleWorker> {
  const worker = new Worker(workerOptions(url, setup))
  await worker.start()
  return {
    get completed() {
      return worker.counts.completed
    },
    get dead() {
      return worker.counts.dead
    },
    stop: async () => {
      const { unsettled } = await worker.stop()
      if (unsettled > 0) throw new Error(`${unsettled} jobs of the worker were not settled when it stopped`)
    },
  }
}

function workerOptions(url: string, { concurrency, attempts, onJob }: LifecycleSetup): WorkerOptions {
  return {
    redis: url,
    stream: STREAM,
    group: GROUP,
    concurrency,
    handlers: { [JOB_NAME]: async (_data: unknown, { attempt }) => onJob({ isFirst: attempt === 1 }) },
    retry: { attempts, backoff: 'fixed', delayMs: RETRY_DELAY_MS, jitter: 0 },
    registry: new Registry(),
    logger: false,
  }
}
