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
  /** Those that other values have too. */
  sharedLabels?: Labels
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

  /** All values with all their labels: what goes from one process to another. */
  get(): Promise<object> {
    return this.#values(false)
  }

  /** The same for a page of text, where the labels that a histogram's values share are written once. */
  getForPromString(): Promise<object> {
    return this.#values(true)
  }

  /** The numbers belong to what is measured: they begin with it, and nobody sets them back. */
  reset(): void {}

  async #values(isShared: boolean): Promise<object> {
    const sources = await this.#sources()
    const values = await inTurn(() => {
      const read: Value[] = []
      for (const source of sources) {
        for (const [labels, value] of this.#metric.read(source)) {
          if (value instanceof Buckets) this.#pushBuckets(read, value, labels, isShared)
          else read.push({ labels: { ...labels }, value })
        }
      }
      return read
    })
    return { name: this.name, help: this.help, type: this.type, values, aggregator: this.aggregator }
  }

  #pushBuckets(values: Value[], { bounds, counts, sum }: Buckets, labels: Labels, isShared: boolean): void {
    // One object for all: what prom-client has written of it, it keeps by it.
    const rest = isShared ? { sharedLabels: { ...labels } } : {}
    const own = isShared ? {} : labels
    let count = 0
    for (let at = 0; at <= bounds.length; at++) {
      count += counts[at] ?? 0
      const le = bounds[at] ?? '+Inf'
      values.push({ metricName: `${this.name}_bucket`, labels: { ...own, le }, value: count, ...rest })
    }
    values.push({ metricName: `${this.name}_sum`, labels: { ...own }, value: sum, ...rest })
    values.push({ metricName: `${this.name}_count`, labels: { ...own }, value: count, ...rest })
  }
}

/** A turn of the event loop reads this many series, and those of one metric beyond. */
const SERIES_A_TURN = 500
let line: Promise<unknown> = Promise.resolve()
let read = 0

/**
 * A registry asks all its metrics at once, and writes the text of each as soon as it has answered: thousands of series in one
 * go, while handlers, renewals and probes wait. So they answer one after the other, a few hundred series at a time, and
 * in between the event loop turns. By count and not by time: a page of few series is made in one turn, however busy it is.
 */
function inTurn(readAll: () => Value[]): Promise<Value[]> {
  const mine = line.then(async () => {
    if (read >= SERIES_A_TURN) {
      await new Promise((resolve) => setImmediate(resolve))
      read = 0
    }
    const values = readAll()
    read += values.length
    return values
  })
  line = mine.catch(() => {})
  return mine
}
