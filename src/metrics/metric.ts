import type { Metric as PromMetric, Registry } from 'prom-client'
import { OptionError } from '../errors.ts'
import { Buckets } from './buckets.ts'

/**
 * How numbers become metrics of a prom-client registry: each metric is read when somebody scrapes, and costs nothing until
 * then. Only the registry that it is attached to knows it; prom-client's default registry is never touched.
 */

export type Labels = Readonly<Record<string, string>>

/** One series: its labels and its value now. */
export type Row = readonly [Labels, number | Buckets]

/** A metric that can be read from each source of a kind: a worker's numbers, a producer's, a connection's. */
export interface Metric<Source> {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  readonly labels: readonly string[]
  /** How the values of several processes of a pool become one. */
  readonly aggregator: 'sum' | 'min' | 'max' | 'first'
  read(source: Source): Iterable<Row>
}

/** A registry, as far as it is used; any copy of prom-client 15 will do. */
export type MetricsRegistry = Pick<Registry, 'registerMetric' | 'getSingleMetric'>

/** @throws OptionError for what is no prom-client registry. */
export function checkRegistry(given: unknown): MetricsRegistry | undefined {
  if (given === undefined) return undefined
  if (isRegistry(given)) return given
  throw new OptionError('expected `registry` to be a Registry of prom-client, got something else')
}

function isRegistry(given: unknown): given is MetricsRegistry {
  const registry = given as Partial<MetricsRegistry> | null
  return typeof registry?.registerMetric === 'function' && typeof registry.getSingleMetric === 'function'
}

/**
 * Puts metrics into a registry; doing so again changes nothing.
 * @throws OptionError if the registry has another metric of such a name.
 */
export function attach<Source>(
  registry: MetricsRegistry,
  owner: object,
  metrics: readonly Metric<Source>[],
  sources: () => Iterable<Source> | Promise<Iterable<Source>>,
): void {
  for (const metric of metrics) {
    const there: unknown = registry.getSingleMetric(metric.name)
    if (there instanceof ReadMetric && there.owner === owner) continue
    if (there !== undefined) {
      throw new OptionError(
        `the registry has a metric ${metric.name} from somebody else already; give another registry`,
      )
    }
    registry.registerMetric(new ReadMetric(owner, metric, sources) as unknown as PromMetric)
  }
}

interface Value {
  metricName?: string
  labels: Record<string, string | number>
  value: number
}

/** What a registry calls of a metric: its name, and `get` for its values. */
class ReadMetric<Source> {
  /** The registry itself rewrites the name of a counter when it speaks OpenMetrics. */
  name: string
  readonly help: string
  readonly type: string
  readonly aggregator: string
  /** What reads it: the same one may attach it again, where the registry was cleared. */
  readonly owner: object
  readonly #metric: Metric<Source>
  readonly #sources: () => Iterable<Source> | Promise<Iterable<Source>>

  constructor(owner: object, metric: Metric<Source>, sources: () => Iterable<Source> | Promise<Iterable<Source>>) {
    this.owner = owner
    this.#metric = metric
    this.#sources = sources
    this.name = metric.name
    this.help = metric.help
    this.type = metric.type
    this.aggregator = metric.aggregator
  }

  async get(): Promise<object> {
    const values: Value[] = []
    for (const source of await this.#sources()) {
      for (const [labels, value] of this.#metric.read(source)) {
        if (value instanceof Buckets) this.#pushBuckets(values, labels, value)
        else values.push({ labels: { ...labels }, value })
      }
    }
    return { name: this.name, help: this.help, type: this.type, values, aggregator: this.aggregator }
  }

  /** The numbers belong to what is measured: they begin with it, and nobody sets them back. */
  reset(): void {}

  #pushBuckets(values: Value[], labels: Labels, { bounds, counts, sum }: Buckets): void {
    let count = 0
    for (let at = 0; at <= bounds.length; at++) {
      count += counts[at] ?? 0
      values.push({ metricName: `${this.name}_bucket`, labels: { ...labels, le: bounds[at] ?? '+Inf' }, value: count })
    }
    values.push({ metricName: `${this.name}_sum`, labels: { ...labels }, value: sum })
    values.push({ metricName: `${this.name}_count`, labels: { ...labels }, value: count })
  }
}
