import { StreamMetrics, type Logger } from '../src/index.ts'
import { MetricsServer } from './metrics-server.ts'
import { PoolHealth } from './pool-health.ts'
import { PoolMetrics } from './pool-metrics.ts'
import type { Pool } from './pool.ts'
import type { MetricsSnapshot } from './pool-messages.ts'

/** What a pool serves, and where. */
export interface PoolServerOptions {
  readonly port: number
  /** Undefined is all interfaces. */
  readonly host: string | undefined
  /** The streams whose lag and pending jobs are told too; undefined for none. */
  readonly streams: { readonly names: readonly string[]; readonly redis: string } | undefined
  readonly logger: Logger
}

/** Serves `/metrics`, `/livez` and `/readyz` of a worker pool, from before its workers start until after they have ended. */
export class PoolServer {
  readonly #options: PoolServerOptions
  readonly #metrics: PoolMetrics
  readonly #server: MetricsServer
  #streams: StreamMetrics | undefined

  constructor(pool: Pool, options: PoolServerOptions) {
    this.#options = options
    this.#metrics = new PoolMetrics(pool)
    const health = new PoolHealth(pool)
    const pages = {
      '/metrics': async () => ({ status: 200, type: this.#metrics.contentType, body: await this.#metrics.scrape() }),
      '/livez': () => health.livez(),
      '/readyz': () => health.readyz(),
    }
    this.#server = new MetricsServer(pages, { port: '--metrics-port', host: '--metrics-host' })
  }

  /** Listens. @returns the port. @throws CliError where it cannot. */
  async start(): Promise<number> {
    const { port, host, streams, logger } = this.#options
    const bound = await this.#server.start(port, host)
    if (streams !== undefined) {
      const { registry } = this.#metrics
      this.#streams = new StreamMetrics({ redis: streams.redis, streams: [...streams.names], registry, logger })
    }
    return bound
  }

  /** A process of the pool has ended: what it counted stays. */
  ended(last: MetricsSnapshot | undefined): void {
    this.#metrics.ended(last)
  }

  async stop(): Promise<void> {
    await this.#server.stop()
    this.#streams?.close()
  }
}
