import { collectDefaultMetrics, Registry } from 'prom-client'
import { attachBuildInfo, StreamMetrics, type StreamMetricsOptions } from '../src/index.ts'
import { MetricsServer, text } from './metrics-server.ts'

/** Serves `/metrics`, `/livez` and `/readyz` of an exporter: the streams as Redis knows them, and the process itself. */
export class ExporterServer {
  readonly #metrics: StreamMetrics
  readonly #server: MetricsServer

  /** @throws OptionError on an impossible option. */
  constructor(options: Omit<StreamMetricsOptions, 'registry'>) {
    const registry = new Registry()
    this.#metrics = new StreamMetrics({ ...options, registry })
    attachBuildInfo(registry)
    collectDefaultMetrics({ register: registry })
    const pages = {
      '/metrics': async () => ({ status: 200, type: registry.contentType, body: await registry.metrics() }),
      '/livez': async () => text(200, 'alive'),
      '/readyz': async () => ((await this.isReady()) ? text(200, 'ready') : text(503, NOT_READY)),
    }
    this.#server = new MetricsServer(pages, { port: '--port', host: '--host' })
  }

  /** Listens. @returns the port. @throws CliError where it cannot. */
  start(port: number, host: string | undefined): Promise<number> {
    return this.#server.start(port, host)
  }

  /** Whether Redis tells of its streams; an answer may be 5 s old. Never rejects. */
  isReady(): Promise<boolean> {
    return this.#metrics.refresh()
  }

  async stop(): Promise<void> {
    this.#metrics.close()
    await this.#server.stop()
  }
}

const NOT_READY =
  'not ready: Redis cannot be reached, or does not tell of its streams; the messages of the exporter say why'
