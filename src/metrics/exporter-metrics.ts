import type { ServerFacts } from '../redis/server-info.ts'
import { SAFETY_CHECKS, unsafeChecks } from '../server-safety.ts'
import type { Collector } from './collector.ts'
import { observed } from './group-metrics.ts'
import type { Metric } from './metric.ts'
import type { LeftOut } from './stream-reader.ts'

/** What the server tells of itself, and how the reading of streams goes. */
export const SERVER_METRICS: readonly Metric<ServerFacts>[] = [
  {
    ...observed(
      'millrace_redis_unsafe_config',
      'Whether the server is set up, or stands, so that it can lose or refuse jobs (1) or not (0), by check; no series where Redis does not say; read every 30 s.',
    ),
    labels: ['check'],
    *read(facts) {
      const unsafe = unsafeChecks(facts)
      for (const check of SAFETY_CHECKS) {
        if (unsafe[check] !== undefined) yield [{ check }, unsafe[check] ? 1 : 0]
      }
    },
  },
  {
    ...observed('millrace_redis_memory_used_bytes', 'Memory that the server uses, by its own count.'),
    labels: [],
    *read({ usedMemoryBytes }) {
      yield [{}, usedMemoryBytes]
    },
  },
  {
    ...observed(
      'millrace_redis_memory_limit_bytes',
      'Memory that the server may use; no series where it has no bound.',
    ),
    labels: [],
    *read({ maxMemoryBytes }) {
      if (maxMemoryBytes > 0) yield [{}, maxMemoryBytes]
    },
  },
  {
    ...observed('millrace_redis_info', 'Always 1; its labels tell the software of the server and its version.'),
    labels: ['software', 'version'],
    *read({ software, version }) {
      yield [{ software, version: version.slice(0, 100) }, 1]
    },
  },
]

/** How the reading of all that goes. */
export interface ReadingState {
  readonly isUp: boolean
  /** When Redis last told of streams, in ms since the epoch; undefined if it never has. */
  readonly lastSuccessMs: number | undefined
  /** Streams told of; undefined while Redis does not tell. */
  readonly streams: number | undefined
  readonly leftOut: Readonly<LeftOut> | undefined
  /** Those that are asked for. */
  readonly collectors: readonly Collector<unknown>[]
  readonly failures: ReadonlyMap<string, number>
}

export const READING_METRICS: readonly Metric<ReadingState>[] = [
  {
    ...observed(
      'millrace_exporter_up',
      'Whether Redis told of streams and groups at this scrape (1) or not (0); then their series are missing.',
    ),
    labels: [],
    *read({ isUp }) {
      yield [{}, isUp ? 1 : 0]
    },
  },
  {
    ...observed(
      'millrace_exporter_last_success_timestamp_seconds',
      'When Redis last told of streams and groups; no series before.',
    ),
    labels: [],
    *read({ lastSuccessMs }) {
      if (lastSuccessMs !== undefined) yield [{}, lastSuccessMs / 1000]
    },
  },
  {
    ...observed('millrace_exporter_scrape_duration_seconds', 'How long the last reading took, by what was read.'),
    labels: ['collector'],
    *read({ collectors }) {
      for (const { name, durationMs } of collectors) {
        if (durationMs !== undefined) yield [{ collector: name }, durationMs / 1000]
      }
    },
  },
  {
    name: 'millrace_exporter_scrape_errors_total',
    type: 'counter',
    help: 'Readings that failed, or that did not come in time, by what was to be read.',
    aggregator: 'sum',
    labels: ['collector'],
    *read({ failures }) {
      for (const [collector, count] of failures) yield [{ collector }, count]
    },
  },
  {
    ...observed('millrace_exporter_streams', 'Streams that are told of.'),
    labels: [],
    *read({ streams }) {
      if (streams !== undefined) yield [{}, streams]
    },
  },
  {
    ...observed(
      'millrace_exporter_left_out_streams',
      'Streams in use that are not told of, by reason: a key of another type, an error of Redis, too many streams.',
    ),
    labels: ['reason'],
    *read({ leftOut }) {
      for (const [reason, count] of Object.entries(leftOut ?? {})) yield [{ reason }, Number(count)]
    },
  },
]
