import { increase, producer, quantiles, rate } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

export const publishing: RowSpec = {
  title: 'Do publishes get through?',
  panels: [
    series('Publishes by result', 'ops', {
      width: 8,
      stacked: true,
      description:
        'What became of publishes: ok is in Redis, duplicate had a job there already, replaced took the place of one, rejected certainly is not, unknown failed and may be. Whoever published was told.',
      queries: [
        {
          expr: `sum by (stream, result) (${rate(producer('millrace_published_jobs_total'))})`,
          legend: '{{stream}} {{result}}',
        },
      ],
      links: [
        look('Is the buffer full?', 'workers', 'Publish buffer'),
        look('Which errors?', 'workers', 'Redis errors'),
        runbook('What to do?', 'MillracePublishRejected'),
      ],
    }),
    series('Publish buffer', 'short', {
      width: 8,
      description:
        'Jobs that wait in producers for Redis, and how many may. Above the dashed line there is soon no room: Redis is away, holds publishes up, or is too slow for what comes.',
      queries: [
        { expr: `sum by (stream) (${producer('millrace_publish_buffer_jobs')})`, legend: '{{stream}} waiting' },
        { expr: `sum by (stream) (${producer('millrace_publish_buffer_limit_jobs')})`, legend: '{{stream}} limit' },
        {
          expr: `max(sum by (stream) (${producer('millrace_publish_buffer_limit_jobs')})) * scalar(max(millrace:publish_buffer_ratio:threshold))`,
          legend: 'threshold',
          isThreshold: true,
        },
      ],
      links: [
        runbook('What to do?', 'MillracePublishBufferFilling'),
        look('Is Redis reached?', 'workers', 'Redis connections'),
      ],
    }),
    series('Publish duration', 's', {
      width: 8,
      description:
        'From the call of publish to the answer of Redis. What a request that publishes waits for. Rises with the round trip and with the buffer.',
      queries: quantiles('millrace_publish_duration_seconds', producer),
      links: [look('Does it wait in the buffer?', 'workers', 'Publish buffer')],
    }),
    series('Publish buffer in bytes', 'bytes', {
      width: 8,
      description:
        'Payload that waits in producers for Redis, and how much may. It is memory of the services. Whichever bound is reached first counts, this or the number of jobs.',
      queries: [
        { expr: `sum by (stream) (${producer('millrace_publish_buffer_bytes')})`, legend: '{{stream}} waiting' },
        { expr: `sum by (stream) (${producer('millrace_publish_buffer_limit_bytes')})`, legend: '{{stream}} limit' },
        {
          expr: `max(sum by (stream) (${producer('millrace_publish_buffer_limit_bytes')})) * scalar(max(millrace:publish_buffer_ratio:threshold))`,
          legend: 'threshold',
          isThreshold: true,
        },
      ],
      links: [runbook('What to do?', 'MillracePublishBufferFilling')],
    }),
    series('Oldest in the buffer', 's', {
      width: 8,
      description:
        'How long the oldest job has waited in a producer. It rises through an outage, and falls to nothing when Redis is back. What is older than its maxAgeMs, 10 minutes unless told otherwise, is given up.',
      queries: [
        { expr: `max by (stream) (${producer('millrace_publish_buffer_oldest_seconds')})`, legend: '{{stream}}' },
        { expr: 'max(millrace:publish_oldest_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [
        look('Is Redis reached?', 'workers', 'Redis connections'),
        runbook('What to do?', 'MillracePublishBufferOld'),
      ],
    }),
    series('Publishes held up', 'ops', {
      width: 8,
      description:
        'Times that a bound held publishes up: backlog is the maxBacklog of the stream, memory is a Redis near its maxmemory. Awaited publishes wait or are refused, buffered ones wait.',
      queries: [
        {
          expr: `sum by (stream, bound) (${rate(producer('millrace_publish_held_batches_total'))})`,
          legend: '{{stream}} {{bound}}',
        },
      ],
      links: [
        runbook('The stream is full?', 'MillraceStreamFull'),
        runbook('The memory is?', 'MillraceMemoryGuard'),
        look('Who has the backlog?', 'stream', 'Ready jobs'),
      ],
    }),
    series('Buffer high and shed jobs', 'short', {
      width: 12,
      description:
        'Times that a buffer has reached 80 % of its jobs or bytes, and jobs that gave way to others in a full one. Shed jobs are not in Redis: the service was handed each of them.',
      queries: [
        {
          expr: `sum by (stream) (${increase(producer('millrace_publish_buffer_high_total'))})`,
          legend: '{{stream}} high',
        },
        {
          expr: `sum by (stream, job_name) (${increase(producer('millrace_publish_shed_jobs_total'))})`,
          legend: '{{stream}} {{job_name}} shed',
        },
      ],
      links: [look('How full is it?', 'workers', 'Publish buffer'), runbook('What to do?', 'MillracePublishShed')],
    }),
    series('Not replicated in time', 'short', {
      width: 12,
      description:
        'Jobs whose publish asked for replicas that did not confirm in time. They are in Redis, but a failover may lose them. Any of them: replicas are away, or behind.',
      queries: [
        {
          expr: `sum by (stream) (${increase(producer('millrace_publish_unreplicated_jobs_total'))})`,
          legend: '{{stream}}',
        },
      ],
      links: [look('Is Redis safe?', 'overview', 'Redis safety')],
    }),
  ],
}
