import { Registry } from 'prom-client'
import { defineJob, handleBatch, Producer, Worker, type WorkerOptions } from '../../src/index.ts'
import { JOB_NAME, PAYLOAD, type Payload } from '../payload.ts'
import type { Contender, Publisher, RunningWorker, WorkerSetup } from './contender.ts'
import { connect, GROUP, STREAM, unsettledEntries } from './stream.ts'

/** millrace with its defaults and its metrics, as a user of the library has it. */
export function openMillrace(url: string): Contender {
  const redis = connect(url)
  return {
    publisher: async () => openPublisher(url),
    worker: async (setup) => startWorker(url, setup),
    unsettled: () => unsettledEntries(redis),
    close: async () => redis.disconnect(),
  }
}

function openPublisher(url: string): Publisher {
  const producer = new Producer({ redis: url, registry: new Registry() })
  const options = { stream: STREAM }
  return {
    publishMany: async (count) => {
      const { published } = await producer.publishMany(JOB_NAME, repeated(PAYLOAD, count), options)
      if (published !== count) throw new Error(`expected ${count} jobs to be published, got ${published}`)
    },
    publish: (payload) => producer.publish(JOB_NAME, payload, options),
    close: async () => void (await producer.close()),
  }
}

async function startWorker(url: string, setup: WorkerSetup): Promise<RunningWorker> {
  const registry = setup.observed === 'none' ? undefined : new Registry()
  // Loaded for this alone: what is compared is a process that has never heard of it.
  const tracing = setup.observed === 'tracing' ? (await import('../../src/otel.ts')).openTelemetry() : undefined
  const worker = new Worker({ ...workerOptions(url, setup, registry), ...(tracing === undefined ? {} : { tracing }) })
  await worker.start()
  const scraping = setup.observed === 'scraped' ? setInterval(() => void registry?.metrics(), 1000) : undefined
  return {
    get completed() {
      return worker.counts.completed
    },
    stop: async () => {
      clearInterval(scraping)
      const { unsettled } = await worker.stop()
      if (unsettled > 0) throw new Error(`${unsettled} jobs of the worker were not settled when it stopped`)
    },
  }
}

/** Its defaults, and what it is looked at by. */
function workerOptions(url: string, { concurrency, onJob, batch }: WorkerSetup, registry?: Registry): WorkerOptions {
  return {
    redis: url,
    stream: STREAM,
    group: GROUP,
    concurrency,
    handlers: {
      [JOB_NAME]:
        batch === undefined
          ? async (data: unknown) => onJob(data as Payload)
          : handleBatch(
              defineJob(JOB_NAME),
              { size: batch.size },
              async ({ length }) => void (await batch.onBatch(length)),
            ),
    },
    ...(registry === undefined ? {} : { registry }),
  }
}

export function* repeated<Item>(item: Item, count: number): Iterable<Item> {
  for (let at = 0; at < count; at++) yield item
}
