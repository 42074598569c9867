import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { parse } from 'yaml'

/** What may be asked for in Prometheus: metrics with their type and labels, and what rules record. */
export interface Known {
  readonly type: string
  readonly labels: readonly string[]
  /** Told by every exporter alike, of Redis; see grafana/src/build/expressions.ts. */
  readonly isOfStreams: boolean
}

const root = join(import.meta.dirname, '../..')
const OF_STREAMS = /^millrace_(group|stream|dead_letter|consumer|exporter)_|^millrace_redis_(unsafe|memory|clock|info)/
/** Of the pool as a whole: only the command line has them. */
const POOL = ['processes gauge', 'ready_processes gauge', 'replaced_processes_total counter']
/** Whoever scrapes adds these. */
export const TARGET_LABELS = ['job', 'instance']

/** From the table that a test compares with a real scrape. */
export function ownMetrics(): Map<string, Known> {
  const lines = readFileSync(join(root, 'test/fixtures/metrics.txt'), 'utf8').split('\n')
  const rows = [...lines, ...COMING, ...POOL.map((each) => `millrace_pool_${each} {}`)]
    .map((line) => /^(millrace_\w+) (\w+) \{(.*)\}$/.exec(line))
    .filter((row) => row !== null)
  return new Map(
    rows.map(([, name = '', type = '', labels = '']) => [
      name,
      { type, labels: labels.split(',').filter((each) => each !== ''), isOfStreams: OF_STREAMS.test(name) },
    ]),
  )
}

/** Those of prom-client, with the names that they have in each process. */
export async function processMetrics(): Promise<Map<string, Known>> {
  const register = new Registry()
  collectDefaultMetrics({ register })
  const metrics = await register.getMetricsAsJSON()
  register.clear()
  return new Map(metrics.map(({ name, type }) => [name, { type: String(type), labels: [], isOfStreams: false }]))
}

interface RulesFile {
  readonly groups: readonly { readonly rules: readonly { readonly record?: string; readonly alert?: string }[] }[]
}

/** Names that grafana/prometheus/rules/ records, and names of its alerts. */
export function rules(): { recorded: Set<string>; alerts: Set<string> } {
  const folder = join(root, 'grafana/prometheus/rules')
  const all = readdirSync(folder)
    .filter((name) => name.endsWith('.yml'))
    .map((name) => parse(readFileSync(join(folder, name), 'utf8')) as RulesFile)
    .flatMap(({ groups }) => groups.flatMap((group) => group.rules))
  const names = (key: 'record' | 'alert') => new Set(all.map((rule) => rule[key]).filter((name) => name !== undefined))
  return { recorded: names('record'), alerts: names('alert') }
}

/** Metrics that the exporter gets beside these dashboards. TO BE REMOVED when test/fixtures/metrics.txt has them. */
const COMING = [
  'millrace_stream_added_entries_total counter {stream}',
  'millrace_stream_scheduled_overdue_jobs gauge {stream}',
  'millrace_stream_scheduled_next_due_timestamp_seconds gauge {stream}',
  'millrace_stream_paused gauge {stream}',
  'millrace_redis_clock_ahead_seconds gauge {stream}',
  'millrace_stream_memory_bytes gauge {stream}',
  'millrace_group_entries_read gauge {stream,group}',
  'millrace_group_last_delivered_timestamp_seconds gauge {stream,group}',
  'millrace_group_redelivery_jobs gauge {stream,group}',
  'millrace_group_stuck_jobs gauge {stream,group}',
  'millrace_group_consumers gauge {stream,group}',
  'millrace_group_paused gauge {stream,group}',
  'millrace_group_scheduled_overdue_jobs gauge {stream,group}',
  'millrace_group_scheduled_next_due_timestamp_seconds gauge {stream,group}',
  'millrace_dead_letter_oldest_timestamp_seconds gauge {stream,group}',
  'millrace_consumer_pending_jobs gauge {stream,group,consumer}',
  'millrace_consumer_last_seen_timestamp_seconds gauge {stream,group,consumer}',
  'millrace_redis_unsafe_config gauge {check}',
  'millrace_redis_memory_used_bytes gauge {}',
  'millrace_redis_memory_limit_bytes gauge {}',
  'millrace_redis_info gauge {software,version}',
  'millrace_exporter_scrape_duration_seconds gauge {collector}',
  'millrace_exporter_scrape_errors_total counter {collector}',
  'millrace_exporter_streams gauge {}',
  'millrace_exporter_left_out_streams gauge {reason}',
]
