import { increase, process, rate } from '../build/expressions.ts'
import { look, runbook, series } from '../build/shorthand.ts'
import type { RowSpec } from '../build/spec.ts'

const perInstance = (name: string): string => `max by (instance) (${process(name)})`

export const processes: RowSpec = {
  title: 'Are the processes well?',
  panels: [
    series('Event loop', 's', {
      width: 8,
      description:
        'How late the event loop comes to what it should do (p99). Above the dashed line handlers block it: nothing else of that process runs meanwhile.',
      queries: [
        { expr: perInstance('nodejs_eventloop_lag_p99_seconds'), legend: '{{instance}}' },
        { expr: 'max(millrace:event_loop_seconds:threshold)', legend: 'threshold', isThreshold: true },
      ],
      links: [
        look('Which job is it?', 'stream', 'Duration by job'),
        runbook('What to do?', 'MillraceEventLoopStalled'),
      ],
    }),
    series('Memory', 'bytes', {
      width: 8,
      description:
        'Heap in use and resident memory of each process or pool. A rise that no collection undoes is a leak in a handler; a fall to nothing is a crash.',
      queries: [
        { expr: perInstance('nodejs_heap_size_used_bytes'), legend: '{{instance}} heap' },
        { expr: perInstance('process_resident_memory_bytes'), legend: '{{instance}} resident' },
      ],
      links: [look('Were processes replaced?', 'workers', 'Replaced processes')],
    }),
    series('CPU', 'percentunit', {
      width: 8,
      description:
        'CPU that each process or pool takes; 100 % is a whole core. A single process near it can do no more: add processes, not concurrency.',
      queries: [{ expr: `sum by (instance) (${rate(process('process_cpu_seconds_total'))})`, legend: '{{instance}}' }],
      links: [look('Does the loop suffer?', 'workers', 'Event loop')],
    }),
  ],
}

export const connections: RowSpec = {
  title: 'Do they reach Redis?',
  panels: [
    series('Redis connections', 'none', {
      width: 8,
      description:
        'Whether the connections are ready, by what they are for. 0 on all processes is Redis or the network; 0 on one is that process.',
      queries: [{ expr: `min by (instance, role) (${process('millrace_redis_up')})`, legend: '{{instance}} {{role}}' }],
      links: [look('Which errors?', 'workers', 'Redis errors'), runbook('What to do?', 'MillraceRedisDisconnected')],
    }),
    series('Reconnects', 'short', {
      width: 8,
      description:
        'Connections that became ready again. Some on a failover are as it should be; a steady row is a network or a Redis that drops them.',
      queries: [
        {
          expr: `sum by (instance, role) (${increase(process('millrace_redis_reconnects_total'))})`,
          legend: '{{instance}} {{role}}',
        },
      ],
      links: [look('Is Redis all right?', 'overview', 'Redis safety')],
    }),
    series('Redis errors', 'ops', {
      width: 8,
      description:
        'Errors by the first word of the answer. OOM, MISCONF, READONLY, NOREPLICAS: Redis takes no writes. NOPERM: rights. closed: connections lost. Workers keep what they have and try again.',
      queries: [
        {
          expr: `sum by (role, code) (${rate(process('millrace_redis_errors_total'))})`,
          legend: '{{code}} ({{role}})',
        },
      ],
      links: [
        runbook('Writes refused: what to do?', 'MillraceRedisWritesRefused'),
        look('Is it full?', 'overview', 'Redis memory'),
      ],
    }),
  ],
}
