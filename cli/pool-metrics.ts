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
  /** Counters and histograms of processes that have ended; the first may be a sum of several. */
  #ended: MetricsSnapshot[] = []
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
    if (last !== undefined) this.#ended.push(last.filter(({ type }) => String(type) !== 'gauge'))
  }

  async #scrape(): Promise<string> {
    await Promise.all(this.#pool.members.map((member) => member.measure(PATIENCE_MS)))
    await this.#compact()
    // In one go: a process that ends is at every instant either a member or among the ended, and so is counted once.
    const known = this.#pool.members.map(({ metrics }) => metrics).filter((snapshot) => snapshot !== undefined)
    const all = sumOf([...known, ...this.#ended])
    return (await Promise.all([all.metrics(), this.registry.metrics()])).join('\n')
  }

  /** Makes one of what many ended processes have left. */
  async #compact(): Promise<void> {
    const count = this.#ended.length
    if (count < 2) return
    const sum = await sumOf(this.#ended).getMetricsAsJSON()
    // Others may have ended meanwhile; they stand behind.
    this.#ended.splice(0, count, sum)
  }
}

/** By the aggregator that each metric names: counters add up, of timestamps the furthest behind counts, and so on. */
function sumOf(snapshots: readonly MetricsSnapshot[]): Registry {
  return AggregatorRegistry.aggregate<PrometheusContentType>([...snapshots])
}
