import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { collectDefaultMetrics, Registry } from 'prom-client'
import { PoolMetrics } from '../../cli/pool-metrics.ts'
import type { Pool } from '../../cli/pool.ts'

/** Every metric that there is, from the tables in the code: what a rule or a dashboard may name. */

export interface MetricFacts {
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly labels: readonly string[]
}

const ofMillrace = new Map<string, MetricFacts>([...(await inTables()), ...(await ofPool())])
const ofNode = await factsOf((registry) => collectDefaultMetrics({ register: registry }))

/** By name: metrics of millrace, its pools, and prom-client's own of the process. */
export function knownMetrics(): Map<string, MetricFacts> {
  return new Map([...ofMillrace, ...ofNode])
}

/** Those that millrace itself makes. */
export function ownMetrics(): Map<string, MetricFacts> {
  return new Map(ofMillrace)
}

/** The metric that a series belongs to: a histogram has three names for its series. */
export function metricOfSeries(series: string, known: ReadonlyMap<string, MetricFacts>): string | undefined {
  if (known.has(series)) return series
  const metric = series.replace(/_(bucket|sum|count)$/, '')
  return known.get(metric)?.type === 'histogram' ? metric : undefined
}

/** Every exported list of metrics under src/metrics, whatever it is called. */
async function inTables(): Promise<Map<string, MetricFacts>> {
  const folder = join(import.meta.dirname, '../../src/metrics')
  const found = new Map<string, MetricFacts>()
  for (const file of (await readdir(folder)).filter((name) => name.endsWith('.ts'))) {
    const exported = (await import(join(folder, file))) as Record<string, unknown>
    for (const { name, type, labels } of Object.values(exported).filter(isTable).flat()) {
      found.set(name, { type, labels })
    }
  }
  return found
}

function isTable(value: unknown): value is (MetricFacts & { name: string })[] {
  const isMetric = (entry: unknown): boolean =>
    typeof entry === 'object' && entry !== null && 'name' in entry && 'help' in entry && 'labels' in entry
  return Array.isArray(value) && value.length > 0 && value.every(isMetric)
}

/** A pool makes its metrics in its constructor; without processes they are all there. */
async function ofPool(): Promise<Map<string, MetricFacts>> {
  const idle = { size: 0, workers: [], members: [], replaced: 0 } as unknown as Pool
  const { registry } = new PoolMetrics(idle)
  return factsIn(registry)
}

async function factsOf(fill: (registry: Registry) => void): Promise<Map<string, MetricFacts>> {
  const registry = new Registry()
  fill(registry)
  return factsIn(registry)
}

async function factsIn(registry: Registry): Promise<Map<string, MetricFacts>> {
  const labels = new Map(
    registry
      .getMetricsAsArray()
      .map((metric) => [metric.name, (metric as { labelNames?: readonly string[] }).labelNames ?? []]),
  )
  const metrics = await registry.getMetricsAsJSON()
  return new Map(
    metrics.map(({ name, type }) => [
      name,
      { type: String(type) as MetricFacts['type'], labels: labels.get(name) ?? [] },
    ]),
  )
}
