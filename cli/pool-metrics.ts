import { AggregatorRegistry, Counter, Gauge, Registry, type PrometheusContentType } from 'prom-client'
import type { Pool } from './pool.ts'
import type { MetricsSnapshot } from './pool-messages.ts'

/**
 * The metrics of a worker pool as one scrape target: those of its processes added up, and those of the pool itself.
 *
 * A process that ends takes its counters with it, and a sum that falls looks to Prometheus like a restart of everything: it
 * would count all that the others did once more. So what ended processes last told stays in the sum. A process that does
 * not answer in time, because its event loop is blocked, is counted as it last was.
 */

/** How long a scrape waits for the processes. */
const PATIENCE_MS = 2000

export class PoolMetrics {
  /** For what the supervisor measures itself; the pool's own metrics are in it. */
  readonly registry = new Registry()
  readonly #pool: Pool
  /** Counters and histograms of processes that have ended. */
  #ended: MetricsSnapshot = []
  #folding: Promise<void> = Promise.resolve()
  #scraping: Promise<string> | undefined

  constructor(pool: Pool) {
    this.#pool = pool
    const registers = [this.registry]
    new Gauge({
      ...{ name: 'millrace_pool_processes', help: 'Worker processes that the pool is to have.', registers },
      collect() {
        this.set(pool.size)
      },
    })
    new Gauge({
      ...{ name: 'millrace_pool_ready_processes', help: 'Worker processes that are ready.', registers },
      collect() {
        this.set(pool.workers.length)
      },
    })
    new Counter({
      name: 'millrace_pool_replaced_processes_total',
      help: 'Worker processes that ended by themselves and were replaced.',
      registers,
      collect() {
        this.reset()
        this.inc(pool.replaced)
      },
    })
  }

  get contentType(): string {
    return this.registry.contentType
  }

  /** The text of one scrape; those who ask at the same time share it. */
  scrape(): Promise<string> {
    this.#scraping ??= this.#scrape().finally(() => {
      this.#scraping = undefined
    })
    return this.#scraping
  }

  /** Keeps what a process that has ended had counted. */
  ended(last: MetricsSnapshot | undefined): void {
    if (last === undefined) return
    this.#folding = this.#folding.then(async () => {
      this.#ended = await sumOf([this.#ended, last.filter(({ type }) => String(type) !== 'gauge')]).getMetricsAsJSON()
    })
  }

  async #scrape(): Promise<string> {
    const snapshots = await Promise.all(this.#pool.members.map((member) => member.measure(PATIENCE_MS)))
    // After the processes have answered: one of them may have ended meanwhile, and is then in one of the two.
    const known = snapshots.filter((snapshot) => snapshot !== undefined)
    await this.#folding
    const texts = [sumOf([...known, this.#ended]).metrics(), this.registry.metrics()]
    return (await Promise.all(texts)).join('\n')
  }
}

/** By the aggregator that each metric names: counters add up, of timestamps the furthest behind counts, and so on. */
function sumOf(snapshots: readonly MetricsSnapshot[]): Registry {
  return AggregatorRegistry.aggregate<PrometheusContentType>([...snapshots])
}
