import { MillraceError, RedisError } from './errors.ts'
import { resolveLogger, type Logger } from './logger.ts'
import { didYouMean, refuseUnknownKeys } from './options.ts'
import { Connection } from './redis/connection.ts'
import { resolveRedis, type RedisOption } from './redis/target.ts'
import { timeOf } from './redis/entry-id.ts'
import { faultOf } from './redis/faults.ts'
import { readGroup, readStream, readStreams, type StreamSeen } from './redis/inspection.ts'
import { checkStreamName } from './redis/keys.ts'
import { groupStats, type GroupStats, type StreamStats } from './stats.ts'

export interface InspectorOptions {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

/** A worker sends a pulse at least every second; three may be late before it no longer counts as present. */
const PRESENT_MS = 5000
const REACH_MS = 5000
const MOST_STREAMS = 1000
const MOST_GROUPS = 200
const MOST_WORKERS = 1000
/** Streams that are looked at together. */
const AT_ONCE = 20

/**
 * Looks at streams and groups. It creates nothing and writes nothing. Connects at the first call; an idle inspector does
 * not keep the process running. While Redis is away every call fails within 5 s, and a later one works again.
 * @throws OptionError at construction, on an unknown or impossible option.
 */
export class Inspector {
  readonly #connection: Connection
  readonly #logger: Logger

  constructor(options: InspectorOptions = {}) {
    refuseUnknownKeys('Inspector', options, ['redis', 'logger'])
    const target = resolveRedis(options.redis)
    this.#logger = resolveLogger(options.logger)
    this.#connection = new Connection(target, { role: 'inspector', socketTimeoutMs: REACH_MS, onDemand: true })
  }

  /** The streams in use, by name: at most 1000. Only a stream that producers or workers of millrace touched is listed. */
  async streams(): Promise<string[]> {
    return this.#asking('the list of streams', () => this.#streams())
  }

  /**
   * How one stream stands, or all of them. Of the listed ones those that do not exist are left out, and those whose key is
   * of another type too, with a warning.
   * @throws MillraceError ERR_NOT_FOUND for a named stream that does not exist; RedisError if its key is of another type,
   * and if Redis cannot be reached or refuses.
   */
  async stats(stream?: string): Promise<StreamStats[]> {
    if (stream !== undefined) {
      checkStreamName(stream)
      return this.#asking(`stream ${stream}`, async () => [await this.#named(stream)])
    }
    return this.#asking('the streams', () => this.#all())
  }

  /** Ends the connection; calls that wait for an answer fail. */
  close(): void {
    this.#connection.close()
  }

  async #streams(): Promise<string[]> {
    const { names, more } = await readStreams(this.#connection.client, MOST_STREAMS)
    if (more) this.#logger.warn({ most: MOST_STREAMS }, 'there are more streams than are looked at')
    return names.filter(isStreamName).sort()
  }

  async #named(stream: string): Promise<StreamStats> {
    const seen = await readStream(this.#connection.client, stream, MOST_GROUPS)
    if (seen.kind === 'missing') throw notFound(stream, await this.#streams().catch(() => []))
    if (seen.kind === 'other') throw new RedisError('ERR_REDIS_REFUSED', otherType(stream, seen.type))
    return this.#streamStats(stream, seen)
  }

  async #all(): Promise<StreamStats[]> {
    const names = await this.#streams()
    const found: (StreamStats | undefined)[] = []
    for (let from = 0; from < names.length; from += AT_ONCE) {
      found.push(...(await Promise.all(names.slice(from, from + AT_ONCE).map((stream) => this.#listed(stream)))))
    }
    return found.filter((stats) => stats !== undefined)
  }

  async #listed(stream: string): Promise<StreamStats | undefined> {
    const seen = await readStream(this.#connection.client, stream, MOST_GROUPS)
    if (seen.kind === 'other') this.#logger.warn({ stream }, otherType(stream, seen.type))
    return seen.kind === 'stream' ? this.#streamStats(stream, seen) : undefined
  }

  async #streamStats(stream: string, seen: StreamSeen & { kind: 'stream' }): Promise<StreamStats> {
    const { nowMs, entries, oldestId, groups, more } = seen
    if (more) this.#logger.warn({ stream, most: MOST_GROUPS }, 'the stream has more groups than are looked at')
    const asked = { nowMs, presentMs: PRESENT_MS, mostWorkers: MOST_WORKERS }
    const stats: GroupStats[] = []
    for (const group of [...groups].sort()) {
      const found = await readGroup(this.#connection.client, stream, group, asked)
      if (found !== undefined) stats.push(groupStats(group, found))
    }
    return { stream, entries, oldestEntryMs: oldestId === undefined ? null : timeOf(oldestId), groups: stats }
  }

  /** The connection is kept up while there are calls, and every fault of it comes out as a RedisError. */
  async #asking<Told>(what: string, ask: () => Promise<Told>): Promise<Told> {
    this.#connection.hold(true)
    try {
      await this.#connection.ready(REACH_MS)
      return await ask()
    } catch (error) {
      throw error instanceof MillraceError ? error : redisError(what, error)
    } finally {
      this.#connection.hold(false)
    }
  }
}

function isStreamName(name: string): boolean {
  try {
    return checkStreamName(name) === name
  } catch {
    return false
  }
}

function notFound(stream: string, known: readonly string[]): MillraceError {
  const meant = didYouMean(stream, known)
  const others = known.length === 0 ? 'there is none yet' : `there are: ${known.slice(0, 20).join(', ')}`
  return new MillraceError(
    'ERR_NOT_FOUND',
    `stream ${stream} does not exist (${meant === undefined ? others : `did you mean ${meant}?`})`,
  )
}

function otherType(stream: string, type: string): string {
  return `the key ${stream} holds a ${type}, not a stream: use another name, or remove that key if nobody needs it`
}

function redisError(what: string, error: unknown): unknown {
  // A fault of ours is no fault of Redis.
  if (!(error instanceof Error) || error instanceof TypeError) return error
  const { kind } = faultOf(error)
  return kind === 'not-sent' || kind === 'unknown'
    ? new RedisError('ERR_REDIS_UNREACHABLE', `lost Redis while it was asked for ${what}: ${error.message}`, {
        cause: error,
      })
    : new RedisError('ERR_REDIS_REFUSED', `Redis refused to tell of ${what}: ${error.message}`, { cause: error })
}
