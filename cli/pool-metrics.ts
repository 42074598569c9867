import { Counter, Gauge, Registry } from 'prom-client'
import type { Pool } from './pool.ts'
import type { MetricsSnapshot } from './pool-messages.ts'
import { snapshotOfSum, textOfSum } from './pool-sums.ts'

/**
 * The metrics of a worker pool as one scrape target: those of its processes added up, and those of the pool itself.
 *
 * A process that ends takes its counters with it, and a sum that falls looks to Prometheus like a restart of everything: it
 * would count all that the others did once more. So what ended processes last told stays in the sum. A process that does
 * not answer in time, because its event loop is blocked, is counted as it last was.
 */

/** How long a scrape waits for the processes. */
const PATIENCE_MS = 2000
/** As many ended processes are kept one by one. */
const COMPACT_FROM = 8
/** As in each process, with one more for what it counts together. */
const MOST_JOB_NAMES = 101
const OTHER_JOBS = '__other__'

export class PoolMetrics {
  /** For what the supervisor measures itself; the pool's own metrics are in it. */
  readonly registry = new Registry()
  readonly #pool: Pool
  /** Counters and histograms of processes that have ended; the first may be a sum of several. */
  #ended: MetricsSnapshot[] = []
  #isCompacting = false
  /** Job names that have series of their own, by stream. */
  readonly #names = new Map<string, Set<string>>()
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
    this.#ended.push(this.#bounded(last.filter(({ type }) => String(type) !== 'gauge')))
    // Also while nobody scrapes: processes may go on ending, for example for want of a Redis.
    // If that fails, the next scrape meets the same fault and tells it; here it would end the pool.
    if (this.#ended.length >= COMPACT_FROM) this.#compact().catch(() => {})
  }

  async #scrape(): Promise<string> {
    // At once: what it reads from Redis may take its time, and that is not to come on top.
    const own = this.registry.metrics()
    const measured = Promise.all(this.#pool.members.map((member) => member.measure(PATIENCE_MS)))
    const [ownText] = await Promise.all([own, measured])
    // In one go: a process that ends is at every instant either a member or among the ended, and so is counted once.
    const known = this.#pool.members.map(({ metrics }) => metrics).filter((snapshot) => snapshot !== undefined)
    const all = await textOfSum([...known.map((snapshot) => this.#bounded(snapshot)), ...this.#ended])
    return `${all}\n${ownText}`
  }

  /** Makes one of what many ended processes have left. */
  async #compact(): Promise<void> {
    if (this.#isCompacting) return
    this.#isCompacting = true
    try {
      const count = this.#ended.length
      const sum = await snapshotOfSum(this.#ended)
      // Others may have ended meanwhile; they stand behind.
      this.#ended.splice(0, count, sum)
    } finally {
      this.#isCompacting = false
    }
  }

  /**
   * Each process keeps its job names bounded, but each may have met others: together they must not be more. The first ones
   * keep their name for good, so that no series falls.
   */
  #bounded(snapshot: MetricsSnapshot): MetricsSnapshot {
    return snapshot.map((metric) => ({ ...metric, values: metric.values.map((value) => this.#named(value)) }))
  }

  #named<Value extends { labels: Partial<Record<string, string | number>> }>(value: Value): Value {
    const { job_name: name, stream } = value.labels
    if (typeof name !== 'string') return value
    const names = this.#names.get(String(stream)) ?? new Set<string>()
    this.#names.set(String(stream), names)
    if (names.size < MOST_JOB_NAMES) names.add(name)
    return names.has(name) ? value : { ...value, labels: { ...value.labels, job_name: OTHER_JOBS } }
  }
}
