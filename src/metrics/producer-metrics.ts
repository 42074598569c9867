import type { Metric } from './metric.ts'
import type { LineSeen, ProducerNumbers } from './producer-numbers.ts'

/** The metrics of producers, by stream. */
export const PRODUCER_METRICS: readonly Metric<ProducerNumbers>[] = [
  {
    name: 'millrace_published_jobs_total',
    type: 'counter',
    help: 'Publishes by what became of them: ok, in Redis; duplicate, their idempotency token had a job already or another job holds their uniqueness key; replaced, in Redis in the place of the job that held it; rejected, certainly not in Redis; unknown, failed and perhaps in Redis.',
    labels: ['stream', 'job_name', 'result'],
    aggregator: 'sum',
    *read({ stream, jobs }) {
      for (const [job_name, { ok, duplicate, replaced, rejected, unknown }] of jobs) {
        yield [{ stream, job_name, result: 'ok' }, ok]
        yield [{ stream, job_name, result: 'duplicate' }, duplicate]
        yield [{ stream, job_name, result: 'replaced' }, replaced]
        yield [{ stream, job_name, result: 'rejected' }, rejected]
        yield [{ stream, job_name, result: 'unknown' }, unknown]
      }
    },
  },
  {
    name: 'millrace_publish_duration_seconds',
    type: 'histogram',
    help: 'From the call of publish to the answer of Redis, of publishes that succeeded.',
    labels: ['stream'],
    aggregator: 'sum',
    *read({ stream, duration }) {
      yield [{ stream }, duration]
    },
  },
  {
    name: 'millrace_publish_buffer_jobs',
    type: 'gauge',
    help: 'Jobs that wait in the producer for Redis, those on their way included.',
    labels: ['stream'],
    aggregator: 'sum',
    *read(numbers) {
      yield [{ stream: numbers.stream }, sumOf(numbers, ({ jobs }) => jobs)]
    },
  },
  {
    name: 'millrace_publish_buffer_limit_jobs',
    type: 'gauge',
    help: 'Jobs that may wait in the producer before it is full.',
    labels: ['stream'],
    aggregator: 'sum',
    *read(numbers) {
      yield [{ stream: numbers.stream }, sumOf(numbers, ({ mostJobs }) => mostJobs)]
    },
  },
  {
    name: 'millrace_publish_buffer_bytes',
    type: 'gauge',
    help: 'Bytes of payload that wait in the producer for Redis.',
    labels: ['stream'],
    aggregator: 'sum',
    *read(numbers) {
      yield [{ stream: numbers.stream }, sumOf(numbers, ({ bytes }) => bytes)]
    },
  },
  {
    name: 'millrace_publish_buffer_limit_bytes',
    type: 'gauge',
    help: 'Bytes of payload that may wait in the producer before it is full.',
    labels: ['stream'],
    aggregator: 'sum',
    *read(numbers) {
      yield [{ stream: numbers.stream }, sumOf(numbers, ({ mostBytes }) => mostBytes)]
    },
  },
  {
    name: 'millrace_publish_buffer_oldest_seconds',
    type: 'gauge',
    help: 'How long the oldest job in the producer has waited for Redis; 0 while none waits.',
    labels: ['stream'],
    aggregator: 'max',
    *read({ stream, open }) {
      yield [{ stream }, Math.max(0, ...[...open].map(({ oldestMs }) => oldestMs)) / 1000]
    },
  },
  {
    name: 'millrace_publish_buffer_high_total',
    type: 'counter',
    help: 'Times that what waits in a producer has reached 80 % of its jobs or bytes, after it was at half or less.',
    labels: ['stream'],
    aggregator: 'sum',
    *read({ stream, highWaters }) {
      yield [{ stream }, highWaters]
    },
  },
  {
    name: 'millrace_publish_shed_jobs_total',
    type: 'counter',
    help: 'Jobs that gave way to others in a full buffer and were handed to onShed; they count as rejected, too.',
    labels: ['stream', 'job_name'],
    aggregator: 'sum',
    *read({ stream, jobs }) {
      for (const [job_name, { shed }] of jobs) yield [{ stream, job_name }, shed]
    },
  },
  {
    name: 'millrace_publish_held_batches_total',
    type: 'counter',
    help: 'Times that a bound held a batch up, or had it refused: backlog, the maxBacklog of the stream; memory, the share of maxmemory.',
    labels: ['stream', 'bound'],
    aggregator: 'sum',
    *read({ stream, held }) {
      yield [{ stream, bound: 'backlog' }, held.backlog]
      yield [{ stream, bound: 'memory' }, held.memory]
    },
  },
  {
    name: 'millrace_publish_unreplicated_jobs_total',
    type: 'counter',
    help: 'Jobs that are in Redis, but were not in time on as many replicas as their publish asked for.',
    labels: ['stream'],
    aggregator: 'sum',
    *read({ stream, unreplicated }) {
      yield [{ stream }, unreplicated]
    },
  },
]

/** Over the producers of this process that are open. */
function sumOf({ open }: ProducerNumbers, of: (line: LineSeen) => number): number {
  return [...open].reduce((sum, line) => sum + of(line), 0)
}
