import { AggregatorRegistry, type PrometheusContentType, type Registry } from 'prom-client'
import type { MetricsSnapshot } from './pool-messages.ts'

/**
 * The metrics of several processes added up, piece by piece: thousands of series of each of many processes in one go would
 * hold up the event loop of the supervisor, which probes and signals wait for.
 */

type PoolMetric = MetricsSnapshot[number]

/** Values that are added up before the event loop turns. */
const VALUES_A_TURN = 1000

/** As a page of text. */
export async function textOfSum(snapshots: readonly MetricsSnapshot[]): Promise<string> {
  const parts: string[] = []
  for await (const { sum, isFirst } of piecesOf(snapshots)) {
    const text = (await sum.metrics()).trimEnd()
    // What a metric is and means is told once.
    parts.push(isFirst ? `\n${text}` : text.split('\n').slice(2).join('\n'))
  }
  return `${parts.join('\n').trimStart()}\n`
}

/** As one more snapshot; a metric may be in it in several pieces. */
export async function snapshotOfSum(snapshots: readonly MetricsSnapshot[]): Promise<MetricsSnapshot> {
  const parts: PoolMetric[] = []
  for await (const { sum } of piecesOf(snapshots)) parts.push(...(await sum.getMetricsAsJSON()))
  return parts
}

/** By the aggregator that each metric names: counters add up, of timestamps the furthest behind counts, and so on. */
async function* piecesOf(snapshots: readonly MetricsSnapshot[]): AsyncGenerator<{ sum: Registry; isFirst: boolean }> {
  let values = 0
  for (const metrics of byName(snapshots).values()) {
    let isFirst = true
    for (const piece of split(metrics)) {
      yield { sum: AggregatorRegistry.aggregate<PrometheusContentType>(piece.map((metric) => [metric])), isFirst }
      isFirst = false
      values += piece.reduce((count, metric) => count + metric.values.length, 0)
      if (values < VALUES_A_TURN) continue
      values = 0
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
}

function byName(snapshots: readonly MetricsSnapshot[]): Map<string, PoolMetric[]> {
  const found = new Map<string, PoolMetric[]>()
  for (const metric of snapshots.flat()) {
    const same = found.get(metric.name)
    if (same === undefined) found.set(metric.name, [metric])
    else same.push(metric)
  }
  return found
}

/** What is added up stays together: it has the same job name. */
function* split(metrics: readonly PoolMetric[]): Generator<PoolMetric[]> {
  const count = metrics.reduce((sum, { values }) => sum + values.length, 0)
  if (count <= VALUES_A_TURN) {
    yield [...metrics]
    return
  }
  const byJob = new Map<string, PoolMetric[]>()
  for (const metric of metrics) {
    for (const [job, values] of valuesByJob(metric)) {
      byJob.set(job, [...(byJob.get(job) ?? []), { ...metric, values }])
    }
  }
  let piece: PoolMetric[] = []
  let values = 0
  for (const same of byJob.values()) {
    piece.push(...same)
    values += same.reduce((sum, metric) => sum + metric.values.length, 0)
    if (values < VALUES_A_TURN) continue
    yield piece
    piece = []
    values = 0
  }
  if (piece.length > 0) yield piece
}

function valuesByJob({ values }: PoolMetric): Map<string, PoolMetric['values']> {
  const found = new Map<string, PoolMetric['values']>()
  for (const value of values) {
    const job = String(value.labels['job_name'] ?? '')
    const same = found.get(job)
    if (same === undefined) found.set(job, [value])
    else same.push(value)
  }
  return found
}
