import { Registry } from 'prom-client'
import { Producer, Worker } from '../../src/index.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import type { Control, LimitedSetup } from './control.ts'
import type { RunningWorker } from './contender.ts'
import { repeated } from './millrace.ts'
import { connect, GROUP, STREAM, unsettledEntries } from './stream.ts'
import { groupScheduledKey, redeliveryKey } from '../../src/redis/keys.ts'

/** millrace's unique keys that hold until the job is settled, its default, and a limit of the group. */
export function openMillraceControl(url: string): Control {
  const producer = new Producer({ redis: url, registry: new Registry() })
  const redis = connect(url)
  return {
    publishUnique: (uniqueKey) => producer.publish(JOB_NAME, PAYLOAD, { stream: STREAM, uniqueKey }),
    publish: async (count, stream = STREAM) => {
      const { published } = await producer.publishMany(JOB_NAME, repeated(PAYLOAD, count), { stream })
      if (published !== count) throw new Error(`expected ${count} jobs to be published, got ${published}`)
    },
    limited: (setup) => startLimited(url, setup),
    unsettled: async () => {
      const counts = await Promise.all([
        unsettledEntries(redis),
        unsettledEntries(redis, redeliveryKey(STREAM, GROUP)),
        redis.zcard(groupScheduledKey(STREAM, GROUP)),
      ])
      return counts.reduce((sum, count) => sum + count, 0)
    },
    close: async () => {
      redis.disconnect()
      await producer.close()
    },
  }
}

async function startLimited(url: string, setup: LimitedSetup): Promise<RunningWorker> {
  const { workers: count, concurrency, perSecond, onJob } = setup
  const workers = Array.from({ length: count }, () => {
    const rate = { jobs: perSecond, perMs: 1000 }
    const handlers = { [JOB_NAME]: async () => onJob() }
    const registry = new Registry()
    return new Worker({ redis: url, stream: STREAM, group: GROUP, concurrency, handlers, registry, limits: [{ rate }] })
  })
  await Promise.all(workers.map((worker) => worker.start()))
  return {
    get completed() {
      return workers.reduce((sum, { counts }) => sum + counts.completed, 0)
    },
    stop: async () => {
      const ends = await Promise.all(workers.map((worker) => worker.stop()))
      const unsettled = ends.reduce((sum, end) => sum + end.unsettled, 0)
      if (unsettled > 0) throw new Error(`${unsettled} jobs of the workers were not settled when they stopped`)
    },
  }
}
