import { Registry } from 'prom-client'
import { Producer, Worker, type Handlers } from '../../src/index.ts'
import { BATCH, type BullMq } from '../contenders/bullmq.ts'
import type { ContenderName, RunningWorker } from '../contenders/contender.ts'
import { repeated } from '../contenders/millrace.ts'
import { GROUP } from '../contenders/stream.ts'
import { loadPeer } from '../peers.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import { completion, watched } from './process.ts'
import { Tally } from './tally.ts'
import type { ChainTask, Figures } from './task.ts'

/**
 * Jobs that wait on one stream, each of which publishes one to a second; both have a worker in this process. Timed is from
 * the first timed job of the second stream until Redis has confirmed all of them.
 */
export async function measureChain(name: ContenderName, url: string, task: ChainTask): Promise<Figures> {
  const count = task.warmUpJobs + task.jobs
  const tally = new Tally({ skip: task.warmUpJobs, timed: task.jobs })
  const run = name === 'bullmq' ? bullMqChain : millraceChain
  const running = await run(url, { ...task, count, onLast: () => tally.hit() })
  await watched(tally.done, running)
  await completion(running, count)
  const elapsedMs = performance.now() - tally.startedAtMs
  await running.stop()
  expectCount('jobs at the end of the chain', count, tally.calls)
  return { jobsPerSecond: (task.jobs / elapsedMs) * 1000 }
}

type Chain = ChainTask & { readonly count: number; readonly onLast: () => void }

async function millraceChain(url: string, { how, count, concurrency, onLast }: Chain): Promise<RunningWorker> {
  const second = how === 'near' ? '{first}:second' : 'second'
  const producer = new Producer({ redis: url, registry: new Registry() })
  await producer.publishMany(JOB_NAME, repeated(PAYLOAD, count), { stream: 'first' })
  const options = { redis: url, group: GROUP, concurrency }
  const open = (stream: string, handlers: Handlers) =>
    new Worker({ ...options, stream, handlers, registry: new Registry() })
  const first = open('first', {
    [JOB_NAME]: async (data, job) => {
      if (how === 'producer') await producer.publish(JOB_NAME, data, { stream: second })
      else job.publish(JOB_NAME, data, { stream: second })
    },
  })
  const last = open(second, { [JOB_NAME]: async () => onLast() })
  await Promise.all([first.start(), last.start()])
  return {
    get completed() {
      return last.counts.completed
    },
    stop: async () => {
      await Promise.all([first.stop(), last.stop()])
      await producer.close()
    },
  }
}

async function bullMqChain(url: string, { count, concurrency, onLast }: Chain): Promise<RunningWorker> {
  const { Queue, Worker: BullWorker } = (await loadPeer('bullmq')) as BullMq
  const { hostname, port } = new URL(url)
  const connection = { host: hostname, port: Number(port) }
  const queue = (name: string) => new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } })
  const [first, second] = [queue('first'), queue('second')]
  for (let sent = 0; sent < count;) {
    const jobs = Array.from({ length: Math.min(BATCH, count - sent) }, () => ({ name: JOB_NAME, data: PAYLOAD }))
    sent += (await first.addBulk(jobs)).length
  }
  let completed = 0
  let failure: unknown
  const workers = [
    new BullWorker('first', async ({ data }) => void (await second.add(JOB_NAME, data)), { connection, concurrency }),
    new BullWorker('second', async () => onLast(), { connection, concurrency }),
  ]
  workers[1]?.on('completed', () => (completed += 1))
  for (const worker of workers) {
    worker.on('failed', (_job, error) => (failure = error))
    worker.on('error', (error) => (failure = error))
  }
  await Promise.all(workers.map((worker) => worker.waitUntilReady()))
  return {
    get completed() {
      if (failure !== undefined) throw failure as Error
      return completed
    },
    stop: async () => {
      await Promise.all(workers.map((worker) => worker.close()))
      await Promise.all([first.close(), second.close()])
    },
  }
}
