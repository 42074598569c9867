import { Registry } from 'prom-client'
import { Producer, Worker } from '../../src/index.ts'
import type { BullMq } from '../contenders/bullmq.ts'
import type { ContenderName } from '../contenders/contender.ts'
import { GROUP, STREAM } from '../contenders/stream.ts'
import { loadPeer } from '../peers.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import type { Figures, ResultsTask } from './task.ts'

/**
 * Callers that publish a job, wait for what its handler gives back, and publish the next; the worker is in the same process. A result
 * that is another job's, or none, fails the measure.
 */
export async function measureResults(name: ContenderName, url: string, task: ResultsTask): Promise<Figures> {
  const system = name === 'bullmq' ? await openBullMq(url, task) : await openMillrace(url, task)
  await callAll(system, task.warmUpJobs, task.callers)
  const startedAtMs = performance.now()
  await callAll(system, task.jobs, task.callers)
  const elapsedMs = performance.now() - startedAtMs
  await system.close()
  return { jobsPerSecond: (task.jobs / elapsedMs) * 1000 }
}

interface Callable {
  /** Publishes a job and resolves with its result: the number that it was given. */
  call(n: number): Promise<unknown>
  close(): Promise<void>
}

async function callAll(system: Callable, count: number, callers: number): Promise<void> {
  let next = 0
  let answered = 0
  const caller = async () => {
    while (next < count) {
      const n = next++
      if ((await system.call(n)) !== n) throw new Error('a result is not that of its job')
      answered += 1
    }
  }
  await Promise.all(Array.from({ length: callers }, caller))
  expectCount('results', count, answered)
}

type Numbered = typeof PAYLOAD & { readonly n: number }

function numbered(n: number): Numbered {
  return { ...PAYLOAD, n }
}

async function openMillrace(url: string, { concurrency }: ResultsTask): Promise<Callable> {
  const producer = new Producer({ redis: url, registry: new Registry() })
  const handlers = { [JOB_NAME]: async (data: unknown) => (data as Numbered).n }
  const worker = new Worker({
    redis: url,
    stream: STREAM,
    group: GROUP,
    concurrency,
    handlers,
    registry: new Registry(),
  })
  await worker.start()
  return {
    call: async (n) => {
      const { result } = await producer.publish(JOB_NAME, numbered(n), { stream: STREAM, result: true })
      return result()
    },
    close: async () => {
      await worker.stop()
      await producer.close()
    },
  }
}

/** As much of its events as is used here. */
interface QueueEvents {
  waitUntilReady(): Promise<unknown>
  close(): Promise<void>
}
interface AddedJob {
  waitUntilFinished(events: QueueEvents, ttlMs: number): Promise<unknown>
}

async function openBullMq(url: string, { concurrency }: ResultsTask): Promise<Callable> {
  const peer = (await loadPeer('bullmq')) as BullMq & {
    QueueEvents: new (name: string, options: object) => QueueEvents
  }
  const { hostname, port } = new URL(url)
  const connection = { host: hostname, port: Number(port) }
  // A result is read from its job, which may not be removed at once.
  const queue = new peer.Queue('results', { connection, defaultJobOptions: { removeOnComplete: 10_000 } })
  const events = new peer.QueueEvents('results', { connection })
  const handle = async ({ data }: { data: object }) => (data as Numbered).n
  const worker = new peer.Worker('results', handle, { connection, concurrency })
  await Promise.all([events.waitUntilReady(), worker.waitUntilReady()])
  return {
    call: async (n) => {
      const job = (await queue.add(JOB_NAME, numbered(n))) as AddedJob
      return job.waitUntilFinished(events, 60_000)
    },
    close: async () => {
      await worker.close()
      await events.close()
      await queue.close()
    },
  }
}
