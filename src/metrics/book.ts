import type { Logger } from '../logger.ts'
import { ConnectionNumbers } from '../redis/connection-numbers.ts'
import { MOST_JOB_NAMES, OTHER_JOBS } from './job-names.ts'
import { attach, type MetricsRegistry } from './metric.ts'
import { attachBuildInfo, CONNECTION_METRICS } from './process-metrics.ts'
import { PRODUCER_METRICS } from './producer-metrics.ts'
import { ProducerNumbers } from './producer-numbers.ts'
import { WORKER_METRICS } from './worker-metrics.ts'
import { WorkerNumbers } from './worker-numbers.ts'

/**
 * All numbers that belong to one registry. Workers and producers that are given the same registry share it, and add to the
 * same numbers where they share stream and group: a registry refuses a second metric of a name, and Prometheus a second
 * series of the same labels. Without a registry, whoever asks has a book of its own, which nobody reads.
 */
export class MetricsBook {
  readonly #registry: MetricsRegistry | undefined
  readonly #workers = new Map<string, WorkerNumbers>()
  readonly #producers = new Map<string, ProducerNumbers>()
  readonly #connections = new Map<string, ConnectionNumbers>()

  /** Use bookOf. */
  constructor(registry: MetricsRegistry | undefined) {
    this.#registry = registry
  }

  worker(stream: string, group: string, logger: Logger): WorkerNumbers {
    this.#attach()
    const onManyNames = () => sayManyNames(logger, stream)
    return made(this.#workers, `${stream} ${group}`, () => new WorkerNumbers(stream, group, onManyNames))
  }

  producer(stream: string, logger: Logger): ProducerNumbers {
    this.#attach()
    return made(this.#producers, stream, () => new ProducerNumbers(stream, () => sayManyNames(logger, stream)))
  }

  connection(role: string): ConnectionNumbers {
    this.#attach()
    return made(this.#connections, role, () => new ConnectionNumbers(role))
  }

  /** Every time: a registry that was cleared meanwhile has our metrics again. */
  #attach(): void {
    if (this.#registry === undefined) return
    attach(this.#registry, this, WORKER_METRICS, () => this.#workers.values())
    attach(this.#registry, this, PRODUCER_METRICS, () => this.#producers.values())
    attach(this.#registry, this, CONNECTION_METRICS, () => this.#connections.values())
    attachBuildInfo(this.#registry)
  }
}

const books = new WeakMap<MetricsRegistry, MetricsBook>()

/** @throws OptionError if the registry has metrics of our names that are not ours. */
export function bookOf(registry: MetricsRegistry | undefined): MetricsBook {
  if (registry === undefined) return new MetricsBook(undefined)
  const known = books.get(registry)
  if (known !== undefined) return known
  const book = new MetricsBook(registry)
  books.set(registry, book)
  return book
}

function made<Value>(map: Map<string, Value>, key: string, make: () => Value): Value {
  const known = map.get(key)
  if (known !== undefined) return known
  const value = make()
  map.set(key, value)
  return value
}

function sayManyNames(logger: Logger, stream: string): void {
  logger.warn(
    { stream, most: MOST_JOB_NAMES },
    `more job names than metrics keep apart: further ones are counted as ${OTHER_JOBS}`,
  )
}
