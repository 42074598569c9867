import type { Redis } from 'ioredis'
import { JOB_NAME, PAYLOAD, type Payload } from '../payload.ts'
import type { Contender, Publisher, PublisherOptions, RunningWorker, WorkerSetup } from './contender.ts'
import { connect, GROUP, STREAM, unsettledEntries } from './stream.ts'

/**
 * The plain loop over Redis Streams that one writes by hand with ioredis: no leases, no retries, no claims, no counts, no
 * timeouts. It is what the machinery of a job system is to be compared with, not a job system.
 */

/** XADDs per pipeline, and entries per read. */
const BATCH = 500
const BLOCK_MS = 5000

export function openRaw(url: string): Contender {
  const redis = connect(url)
  return {
    publisher: async (how) => openPublisher(url, how),
    worker: async (setup) => startWorker(url, setup),
    unsettled: () => unsettledEntries(redis),
    close: async () => redis.disconnect(),
  }
}

function openPublisher(url: string, { isConcurrent }: PublisherOptions): Publisher {
  const redis = connect(url, { enableAutoPipelining: isConcurrent })
  return {
    publishMany: (count) => publishPipelined(redis, count),
    publish: (payload) => redis.xadd(STREAM, '*', 'job', JOB_NAME, 'data', JSON.stringify(payload)),
    close: async () => redis.disconnect(),
  }
}

/** One pipeline after the other: the next is sent when the last was answered. */
async function publishPipelined(redis: Redis, count: number): Promise<void> {
  for (let sent = 0; sent < count;) {
    const pipeline = redis.pipeline()
    const upTo = Math.min(count, sent + BATCH)
    for (; sent < upTo; sent++) pipeline.xadd(STREAM, '*', 'job', JOB_NAME, 'data', JSON.stringify(PAYLOAD))
    const replies = (await pipeline.exec()) ?? []
    for (const [error] of replies) if (error !== null) throw error
  }
}

type Entries = [id: string, fields: string[]][]

/**
 * Reads 500 at a time on a connection of its own, blocked while there is nothing. The next read is on its way before the
 * entries of the last are processed. An entry is parsed and its handler called, synchronously: no await, no slots, so the
 * setup's concurrency means nothing here. A read's entries are acked with one XACK, which is not waited for; its reply
 * counts them as done.
 */
async function startWorker(url: string, { onJob }: WorkerSetup): Promise<RunningWorker> {
  const [reader, acker] = [connect(url), connect(url)]
  await acker.xgroup('CREATE', STREAM, GROUP, '0', 'MKSTREAM')
  let completed = 0
  let failure: unknown
  let isStopping = false
  const read = async (): Promise<Entries> => {
    const args = ['COUNT', BATCH, 'BLOCK', BLOCK_MS, 'STREAMS', STREAM, '>'] as const
    const reply = (await reader.xreadgroup('GROUP', GROUP, 'raw', ...args)) as [string, Entries][] | null
    return reply?.[0]?.[1] ?? []
  }
  const loop = async () => {
    let next = read()
    while (!isStopping) {
      const entries = await next
      next = read()
      // Handled here and not only where it is awaited: by then the process may have ended over it.
      next.catch(() => {})
      if (entries.length === 0) continue
      const ids: string[] = []
      for (const [id, fields] of entries) {
        onJob(JSON.parse(fields[3] ?? 'null') as Payload)
        ids.push(id)
      }
      acker.xack(STREAM, GROUP, ...ids).then((acked) => (completed += acked), fail)
    }
  }
  const fail = (error: unknown) => {
    if (!isStopping) failure = error
  }
  loop().catch(fail)
  return {
    get completed() {
      if (failure !== undefined) throw failure as Error
      return completed
    },
    stop: async () => {
      isStopping = true
      reader.disconnect()
      acker.disconnect()
    },
  }
}
