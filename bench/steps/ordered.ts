import { Registry } from 'prom-client'
import { defineJob, Producer, Worker, type Handlers } from '../../src/index.ts'
import { GROUP, STREAM } from '../contenders/stream.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import { seenThrough } from './seen-through.ts'
import { Tally } from './tally.ts'
import type { Figures, OrderedTask } from './task.ts'

interface Keyed {
  readonly key: string
  readonly n: number
}

/**
 * One worker on jobs that wait, whose keys take turns. With `inOrder` they have those keys, and any that begins before the one before it of its
 * key has ended fails the measure; without, they are the same jobs with no keys. Timed is as for any jobs that wait.
 */
export async function measureOrdered(url: string, task: OrderedTask): Promise<Figures> {
  const { jobs, warmUpJobs, keys, concurrency, inOrder } = task
  const count = jobs + warmUpJobs
  const job = defineJob<Keyed>(JOB_NAME, { stream: STREAM, ...(inOrder && { orderBy: 'data.key' }) })
  const producer = new Producer({ redis: url, registry: new Registry() })
  await producer.publishMany(job, keyed(count, keys))
  const tally = new Tally({ skip: warmUpJobs, timed: jobs })
  const nextOf = new Map<string, number>()
  let wrong = 0
  const handlers: Handlers = {
    [JOB_NAME]: async (data) => {
      const { key, n } = data as Keyed
      if (n !== (nextOf.get(key) ?? 0)) wrong += 1
      nextOf.set(key, n + 1)
      tally.hit()
    },
  }
  const worker = new Worker({
    redis: url,
    stream: STREAM,
    group: GROUP,
    concurrency,
    handlers,
    registry: new Registry(),
  })
  await worker.start()
  const elapsedMs = await seenThrough(worker, tally, count)
  await worker.stop()
  await producer.close()
  expectCount('jobs, each run once', count, tally.calls)
  if (inOrder) expectCount('jobs out of order', 0, wrong)
  return { jobsPerSecond: (jobs / elapsedMs) * 1000 }
}

function* keyed(count: number, keys: number): Iterable<Keyed> {
  for (let at = 0; at < count; at++) yield { ...PAYLOAD, key: `key-${at % keys}`, n: Math.floor(at / keys) }
}
