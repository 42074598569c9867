import { process } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

export const redis: RowSpec = {
  title: 'Redis and exporters',
  panels: [
    series('Redis memory', 'bytes', {
      width: 8,
      height: 7,
      description:
        'What Redis uses and what it may (maxmemory; no line if there is none). Publishers are refused before it is full. What takes most are retained entries: see the stream.',
      queries: [
        { expr: 'max(millrace_redis_memory_used_bytes)', legend: 'used' },
        { expr: 'max(millrace_redis_memory_limit_bytes)', legend: 'limit' },
        {
          expr: 'max(millrace_redis_memory_limit_bytes) * scalar(max(millrace:memory_used_ratio:threshold))',
          legend: 'threshold',
          isThreshold: true,
        },
      ],
      links: [look('Which stream is big?', 'stream', 'Entries'), runbook('What to do?', 'MillraceRedisMemoryHigh')],
    }),
    series('Redis safety', 'none', {
      width: 8,
      height: 7,
      description:
        'Checks of settings and states under which jobs can be lost: 1 is unsafe; no_replicas is a choice. A check that is missing is one that Redis did not answer.',
      queries: [{ expr: 'max by (check) (millrace_redis_unsafe_config)', legend: '{{check}}' }],
      links: [runbook('What to do?', 'MillraceUnsafeRedisConfig'), look('Do writes fail?', 'workers', 'Redis errors')],
    }),
    {
      kind: 'table',
      title: 'Redis server',
      description: 'What answers as Redis, and its version. Two lines mean that exporters look at different servers.',
      unit: 'none',
      width: 8,
      height: 7,
      queries: [{ expr: 'max by (software, version) (millrace_redis_info)', legend: 'exporters agree' }],
      links: [look('Is it reached?', 'workers', 'Redis connections')],
    },
    series('Exporters', 'none', {
      width: 6,
      height: 7,
      description:
        'Whether each exporter got an answer from Redis at its last scrape. 0 on all of them is Redis or the network; 0 on one is that one.',
      queries: [{ expr: 'max by (instance) (millrace_exporter_up)', legend: '{{instance}}' }],
      links: [
        runbook('What to do?', 'MillraceExporterDown'),
        look('Do workers reach it?', 'workers', 'Redis connections'),
      ],
    }),
    series('Age of what is shown', 's', {
      width: 6,
      height: 7,
      description:
        'How long ago each exporter last heard from Redis. It should stay below twice the scrape interval; a line that rises is an exporter that hears nothing.',
      queries: [
        {
          expr: 'time() - max by (instance) (millrace_exporter_last_success_timestamp_seconds)',
          legend: '{{instance}}',
        },
      ],
      links: [look('What fails?', 'overview', 'Reading from Redis')],
    }),
    series('Reading from Redis', 's', {
      width: 6,
      height: 7,
      description:
        'How long the last reading of each kind took. Near the scrape timeout, series will go missing: ask for less (no --consumers, no --memory).',
      queries: [{ expr: 'max by (collector) (millrace_exporter_scrape_duration_seconds)', legend: '{{collector}}' }],
      links: [
        look('Do any fail?', 'overview', 'Failed readings'),
        look('How much is there to read?', 'overview', 'Streams told of'),
      ],
    }),
    series('Failed readings', 'ops', {
      width: 6,
      height: 7,
      description:
        'Readings that Redis refused or did not answer in time, by kind: what they would have told is missing meanwhile, and alerts on it are blind.',
      queries: [
        {
          expr: 'sum by (collector) (rate(millrace_exporter_scrape_errors_total[$__rate_interval]))',
          legend: '{{collector}}',
        },
      ],
      links: [runbook('What to do?', 'MillraceExporterDown'), look('Is it Redis?', 'workers', 'Redis errors')],
    }),
    series('Streams told of', 'short', {
      width: 6,
      height: 7,
      description:
        'Streams that the exporter tells of, and those in use that it leaves out and why. Whatever is left out, no alert sees: wrong_type is a key of another kind under the name of a stream.',
      queries: [
        { expr: 'max(millrace_exporter_streams)', legend: 'told of' },
        { expr: 'max by (reason) (millrace_exporter_left_out_streams)', legend: 'left out: {{reason}}' },
      ],
      links: [runbook('What to do?', 'MillraceExporterLeavesOut'), look('Which are seen?', 'overview', 'Groups')],
    }),
    {
      kind: 'table',
      title: 'Versions',
      description:
        'Versions of millrace and Node.js that run, and in how many processes. More than one is a deploy on its way, or one that stopped in the middle.',
      unit: 'short',
      width: 6,
      height: 7,
      queries: [{ expr: `count by (version, node_version) (${process('millrace_build_info')})`, legend: 'processes' }],
      links: [look('Are any being replaced?', 'workers', 'Pool processes')],
    },
    {
      kind: 'table',
      title: 'Alerts',
      description:
        'Alerts of millrace that fire or are about to. Page means now, ticket means today. The name of an alert is its heading in the runbook.',
      unit: 'short',
      width: 12,
      height: 7,
      queries: [
        {
          expr: `max by (alertname, severity, alertstate, stream, group, job, instance, code, check, reason) (ALERTS{alertname=~"Millrace.*"})`,
          legend: 'active',
        },
      ],
      links: [runbook('What to do?', ''), look('Which group is late?', 'overview', 'Lag')],
    },
  ],
}
