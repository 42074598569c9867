import { monotonicMs } from './clock.ts'
import { MillraceError, messageOf, OptionError } from './errors.ts'
import { Inspector } from './inspector.ts'
import { resolveLogger, type Logger } from './logger.ts'
import { GROUP_METRICS, READING_METRICS, type ReadingState } from './metrics/group-metrics.ts'
import { attach, checkRegistry, type MetricsRegistry } from './metrics/metric.ts'
import { refuseUnknownKeys, shown } from './options.ts'
import type { RedisOption } from './redis/target.ts'
import { checkStreamName } from './redis/keys.ts'
import type { StreamStats } from './stats.ts'

export interface StreamMetricsOptions {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** The streams to tell of, with all their groups; at most 100. */
  streams: readonly string[]
  /** The prom-client Registry that the metrics are put into. */
  registry: MetricsRegistry
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

const MOST_STREAMS = 100
/** However many scrape, Redis is asked this often at most. */
const KEEP_MS = 5000
/** Scrapers wait 10 s by default; a Redis that does not answer must not cost them everything else. */
const PATIENCE_MS = 2000

/**
 * Lag, pending, workers and dead letters of streams as metrics of a registry, read from Redis when somebody scrapes. One a
 * deployment is enough, and several are harmless: take `max by (stream, group)`.
 *
 * While Redis is away their series are missing rather than old, and `millrace_exporter_up` is 0; all else in the registry is
 * served.
 * @throws OptionError at construction, on an unknown or impossible option.
 */
export class StreamMetrics {
  readonly #inspector: Inspector
  readonly #streams: readonly string[]
  readonly #logger: Logger
  #stats: readonly StreamStats[] = []
  #state: ReadingState = { up: false, failures: 0, lastSuccessMs: undefined }
  #asking: Promise<StreamStats[]> | undefined
  #reading: Promise<void> | undefined
  #readAtMs = -Infinity
  #isClosed = false

  constructor(options: StreamMetricsOptions) {
    refuseUnknownKeys('StreamMetrics', options, ['redis', 'streams', 'registry', 'logger'])
    const registry = checkRegistry(options.registry)
    if (registry === undefined)
      throw new OptionError('expected `registry` to be a Registry of prom-client, got undefined')
    this.#streams = checkStreams(options.streams)
    this.#logger = resolveLogger(options.logger)
    this.#inspector = new Inspector({
      ...(options.redis === undefined ? {} : { redis: options.redis }),
      ...(options.logger === undefined ? {} : { logger: options.logger }),
    })
    attach(registry, this, GROUP_METRICS, () => this.#read().then(() => this.#stats))
    attach(registry, this, READING_METRICS, () => this.#read().then(() => [this.#state]))
  }

  /** Reads once, whatever is known already. @returns how many streams Redis told of. */
  async runOnce(): Promise<{ streams: number }> {
    this.#readAtMs = -Infinity
    await this.#read()
    return { streams: this.#stats.length }
  }

  /** Ends the connection; a scrape after it finds no streams. */
  close(): void {
    this.#isClosed = true
    this.#readAtMs = -Infinity
    this.#inspector.close()
  }

  /** Every metric of one scrape comes here; they share one reading. Never rejects. */
  async #read(): Promise<void> {
    if (monotonicMs() - this.#readAtMs < KEEP_MS) return
    this.#reading ??= this.#readNow().finally(() => {
      this.#reading = undefined
    })
    await this.#reading
  }

  async #readNow(): Promise<void> {
    // One that is still without an answer is waited for: a Redis that is slow must not be asked more and more.
    this.#asking ??= this.#ask().finally(() => {
      this.#asking = undefined
    })
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no answer within ${PATIENCE_MS} ms`)), PATIENCE_MS)
    })
    try {
      this.#stats = await Promise.race([this.#asking, late])
      this.#state = { ...this.#state, up: true, lastSuccessMs: Date.now() }
      this.#readAtMs = monotonicMs()
    } catch (error) {
      if (!this.#isClosed && (this.#state.up || this.#state.failures === 0)) {
        this.#logger.warn(
          { streams: this.#streams, fault: messageOf(error) },
          'cannot read the state of streams for metrics',
        )
      }
      this.#stats = []
      this.#state = { ...this.#state, up: false, failures: this.#state.failures + 1 }
    } finally {
      clearTimeout(timer)
    }
  }

  async #ask(): Promise<StreamStats[]> {
    const found: StreamStats[] = []
    for (const stream of this.#streams) {
      try {
        found.push(...(await this.#inspector.stats(stream)))
      } catch (error) {
        // A stream that nobody has published to yet has nothing to tell, and that is no fault.
        if (!(error instanceof MillraceError && error.code === 'ERR_NOT_FOUND')) throw error
      }
    }
    return found
  }
}

function checkStreams(streams: unknown): readonly string[] {
  if (!Array.isArray(streams) || streams.length === 0 || streams.length > MOST_STREAMS) {
    throw new OptionError(
      `expected \`streams\` to be a list of 1 to ${MOST_STREAMS} stream names, got ${shown(streams)}`,
    )
  }
  return [...new Set(streams.map(checkStreamName))]
}
