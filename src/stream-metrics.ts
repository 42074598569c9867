import { Asking } from './asking.ts'
import { monotonicMs } from './clock.ts'
import { OptionError } from './errors.ts'
import { resolveLogger, type Logger } from './logger.ts'
import { Collector, COLLECTORS, type CollectorName, type Turn } from './metrics/collector.ts'
import { READING_METRICS, SERVER_METRICS, type ReadingState } from './metrics/exporter-metrics.ts'
import { GROUP_METRICS } from './metrics/group-metrics.ts'
import { attach, checkRegistry, type MetricsRegistry } from './metrics/metric.ts'
import { consumersOf, memoryOf, stuckOf, withMore, type ByGroup } from './metrics/stream-more.ts'
import { StreamReader, type StreamsTold } from './metrics/stream-reader.ts'
import type { ConsumerTold, StreamTold } from './metrics/stream-told.ts'
import { flag, refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import type { Client } from './redis/connection.ts'
import { checkStreamName } from './redis/keys.ts'
import { readServer, type ServerFacts } from './redis/server-info.ts'
import type { RedisOption } from './redis/target.ts'

export interface StreamMetricsOptions {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** The streams to tell of, with all their groups. @default every stream in use */
  streams?: readonly string[]
  /** How many streams are told of at most, by name; 1 to 5000. @default 500 */
  maxStreams?: number
  /** Whether to tell of the 50 consumers of each group that hold the most, by name: series come and go with them. @default false */
  consumers?: boolean
  /** Whether to tell how much memory each stream takes. @default false */
  memory?: boolean
  /** The prom-client Registry that the metrics are put into. */
  registry: MetricsRegistry
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

/** However many scrape, Redis is asked this often at most. */
const KEEP_MS = 5000
/** What costs more, or changes less, is asked for this often. */
const KEEP_LONG_MS = 30_000
/** Scrapers wait 10 s by default; a Redis that does not answer must not cost them everything else. */
const PATIENCE_MS = 2000
/** Shorter, so that what is said of a Redis that cannot be reached is where it was looked for, and why. */
const REACH_MS = 1500

/**
 * Lag, pending, workers and dead letters of streams as metrics of a registry, read from Redis when somebody scrapes. One a
 * deployment is enough, and several are harmless: take `max by (stream, group)`.
 *
 * While Redis is away their series are missing rather than old, and `millrace_exporter_up` is 0; all else in the registry is
 * served. What Redis refuses, and a stream that cannot be read, is missing alone. At most 200 groups a stream are told of,
 * and 2000 in all, by the names of their streams.
 * @throws OptionError at construction, on an unknown or impossible option.
 */
export class StreamMetrics {
  readonly #asking: Asking
  readonly #logger: Logger
  readonly #reader: StreamReader
  readonly #streams: Collector<StreamsTold>
  readonly #server: Collector<ServerFacts>
  readonly #stuck: Collector<ByGroup<number>>
  readonly #consumers: Collector<ByGroup<readonly ConsumerTold[]>> | undefined
  readonly #memory: Collector<ReadonlyMap<string, number>> | undefined
  /** Of one scrape: what a reading that ends later brings is for the next one. */
  #told: readonly StreamTold[] = []
  #facts: readonly ServerFacts[] = []
  #state: Pick<ReadingState, 'isUp' | 'lastSuccessMs' | 'leftOut'> = OUT
  #reading: Promise<void> | undefined
  #readAtMs = -Infinity
  #isClosed = false

  constructor(options: StreamMetricsOptions) {
    refuseUnknownKeys('StreamMetrics', options, OPTIONS)
    const registry = checkRegistry(options.registry)
    if (registry === undefined)
      throw new OptionError('expected `registry` to be a Registry of prom-client, got undefined')
    const maxStreams = wholeNumber('maxStreams', options.maxStreams, { or: 500, max: 5000 })
    const streams = checkStreams(options.streams, maxStreams)
    const logger = (this.#logger = resolveLogger(options.logger))
    const hasConsumers = flag('consumers', options.consumers)
    const hasMemory = flag('memory', options.memory)
    const { redis } = options
    this.#asking = new Asking({ ...(redis === undefined ? {} : { redis }), logger }, REACH_MS)
    this.#reader = new StreamReader(streams, maxStreams, logger)
    this.#streams = new Collector('streams', 0)
    this.#server = new Collector('redis', KEEP_LONG_MS)
    this.#stuck = new Collector('stuck', KEEP_LONG_MS)
    this.#consumers = hasConsumers ? new Collector('consumers', 0) : undefined
    this.#memory = hasMemory ? new Collector('memory', KEEP_LONG_MS) : undefined
    attach(registry, this, GROUP_METRICS, () => this.#read().then(() => this.#told))
    attach(registry, this, SERVER_METRICS, () => this.#read().then(() => this.#facts))
    attach(registry, this, READING_METRICS, () => this.#read().then(() => [this.#stateNow()]))
  }

  /** Whether Redis told of streams and groups when it was last asked. */
  get isUp(): boolean {
    return this.#state.isUp
  }

  /** Reads once, whatever is known already. @returns how many streams Redis told of. */
  async runOnce(): Promise<{ streams: number }> {
    await this.#reading
    this.#readAtMs = -Infinity
    for (const collector of this.#collectors()) collector.forget()
    await this.#read()
    return { streams: this.#told.length }
  }

  /** Reads where what is known is older than 5 s, as a scrape does. Never rejects. @returns whether Redis told. */
  async refresh(): Promise<boolean> {
    await this.#read()
    return this.isUp
  }

  /** Ends the connection; a scrape after it finds no streams. */
  close(): void {
    this.#isClosed = true
    this.#readAtMs = -Infinity
    this.#asking.close()
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
    const untilMs = monotonicMs() + PATIENCE_MS
    const said = new Set<string>()
    const hadServer = this.#server.told !== undefined
    const turns = await Promise.all([
      this.#streams.run(() => this.#ask('streams', (client) => this.#reader.read(client)), untilMs),
      this.#server.run(() => this.#ask('server', readServer), untilMs),
    ])
    this.#say(turns, said)
    const told = this.#streams.told
    if (told === undefined) {
      // Nothing that is told may be older than the time when Redis last told anything.
      if (hadServer) {
        this.#server.forget()
        this.#say([await this.#server.run(() => this.#ask('server', readServer), untilMs)], said)
      }
      for (const collector of this.#further()) collector.forget()
      this.#state = { ...OUT, lastSuccessMs: this.#state.lastSuccessMs }
      this.#told = []
    } else {
      this.#say(await this.#readFurther(told, untilMs), said)
      const { stuck, consumers, memory } = this.#furtherTold()
      this.#told = withMore(told.streams, { stuck, consumers, memory })
      this.#state = { isUp: true, lastSuccessMs: Date.now(), leftOut: told.leftOut }
      this.#readAtMs = monotonicMs()
    }
    this.#facts = this.#server.told === undefined ? [] : [this.#server.told]
  }

  #readFurther({ streams }: StreamsTold, untilMs: number): Promise<(Turn | undefined)[]> {
    return Promise.all([
      this.#stuck.run(() => this.#ask('stuck jobs', (client) => stuckOf(client, streams)), untilMs),
      this.#consumers?.run(() => this.#ask('consumers', (client) => consumersOf(client, streams)), untilMs),
      this.#memory?.run(() => this.#ask('memory of streams', (client) => memoryOf(client, streams)), untilMs),
    ])
  }

  /**
   * Once, and that it reads again once. A Redis that is away, or back, is so for all of them.
   * @param said what was said of this reading already.
   */
  #say(turns: readonly (Turn | undefined)[], said: Set<string>): void {
    if (this.#isClosed) return
    for (const turn of turns) {
      if (turn === undefined || said.has(turn.kind)) continue
      said.add(turn.kind)
      const { collector, fault } = turn
      if (fault === undefined) this.#logger.warn({ collector }, 'metrics tell again of what could not be read')
      else this.#logger.warn({ collector, fault }, `cannot read ${READ_FOR[collector]} for metrics`)
    }
  }

  #furtherTold() {
    return { stuck: this.#stuck.told, consumers: this.#consumers?.told, memory: this.#memory?.told }
  }

  #ask<Told>(what: string, ask: (client: Client) => Promise<Told>): Promise<Told> {
    return this.#asking.run(`the ${what}, for metrics`, ask)
  }

  #further(): Collector<unknown>[] {
    return [this.#stuck, this.#consumers, this.#memory].filter((collector) => collector !== undefined)
  }

  #collectors(): Collector<unknown>[] {
    return [this.#streams, this.#server, ...this.#further()]
  }

  #stateNow(): ReadingState {
    const collectors = this.#collectors()
    const failed = new Map(collectors.map(({ name, failures }) => [name, failures]))
    return {
      ...this.#state,
      streams: this.#state.isUp ? this.#told.length : undefined,
      collectors,
      failures: new Map(COLLECTORS.map((name) => [name, failed.get(name) ?? 0])),
    }
  }
}

const OPTIONS = ['redis', 'streams', 'maxStreams', 'consumers', 'memory', 'registry', 'logger']

const OUT = { isUp: false, lastSuccessMs: undefined, leftOut: undefined }

const READ_FOR: Readonly<Record<CollectorName, string>> = {
  streams: 'the state of streams',
  redis: 'the state of the server',
  stuck: 'stuck jobs',
  consumers: 'consumers',
  memory: 'the memory of streams',
}

function checkStreams(streams: unknown, most: number): readonly string[] | undefined {
  if (streams === undefined) return undefined
  if (!Array.isArray(streams) || streams.length === 0 || streams.length > most) {
    throw new OptionError(`expected \`streams\` to be a list of 1 to ${most} stream names, got ${shown(streams)}`)
  }
  return [...new Set(streams.map(checkStreamName))].sort()
}
