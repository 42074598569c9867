import type { Metric } from './metric.ts'
import type { ProducerNumbers } from './producer-numbers.ts'

/** The metrics of producers, by stream. */
export const PRODUCER_METRICS: readonly Metric<ProducerNumbers>[] = [
  {
    name: 'millrace_published_jobs_total',
    type: 'counter',
    help: 'Publishes by what became of them: ok, in Redis; rejected, certainly not in Redis; unknown, failed and perhaps in Redis.',
    labels: ['stream', 'job_name', 'result'],
    aggregator: 'sum',
    *read({ stream, jobs }) {
      for (const [job_name, { ok, rejected, unknown }] of jobs) {
        yield [{ stream, job_name, result: 'ok' }, ok]
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
    *read({ stream, open }) {
      yield [{ stream }, [...open].reduce((sum, { jobs }) => sum + jobs, 0)]
    },
  },
  {
    name: 'millrace_publish_buffer_limit_jobs',
    type: 'gauge',
    help: 'Jobs that may wait in the producer before further ones are refused.',
    labels: ['stream'],
    aggregator: 'sum',
    *read({ stream, open }) {
      yield [{ stream }, [...open].reduce((sum, { mostJobs }) => sum + mostJobs, 0)]
    },
  },
]
