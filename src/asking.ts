import { MillraceError, RedisError } from './errors.ts'
import { resolveLogger, type Logger } from './logger.ts'
import { Connection, type Client } from './redis/connection.ts'
import { faultOf } from './redis/faults.ts'
import { resolveRedis, type RedisOption } from './redis/target.ts'

const REACH_MS = 5000

/**
 * A connection for questions and repairs, which is there only while somebody asks. While Redis is away every question fails
 * within 5 s, and a later one works again.
 */
export class Asking {
  readonly logger: Logger
  readonly #connection: Connection
  readonly #reachMs: number

  /** @param reachMs how long a question waits for a connection. */
  constructor({ redis, logger }: { redis?: RedisOption; logger?: Logger | false }, reachMs = REACH_MS) {
    this.#reachMs = reachMs
    const target = resolveRedis(redis)
    this.logger = resolveLogger(logger)
    this.#connection = new Connection(target, { role: 'inspector', socketTimeoutMs: REACH_MS, onDemand: true })
  }

  /** @param what is asked for, as in "lost Redis while it was asked for the dead letters of orders". @throws RedisError */
  async run<Told>(what: string, ask: (client: Client) => Promise<Told>): Promise<Told> {
    this.#connection.hold(true)
    try {
      await this.#connection.ready(this.#reachMs)
      return await ask(this.#connection.client)
    } catch (error) {
      throw error instanceof MillraceError ? error : redisError(what, error)
    } finally {
      this.#connection.hold(false)
    }
  }

  /** Ends the connection; questions that wait for an answer fail. */
  close(): void {
    this.#connection.close()
  }
}

function redisError(what: string, error: unknown): unknown {
  // A fault of ours is no fault of Redis.
  if (!(error instanceof Error) || error instanceof TypeError) return error
  const { kind } = faultOf(error)
  return kind === 'not-sent' || kind === 'unknown'
    ? new RedisError('ERR_REDIS_UNREACHABLE', `lost Redis while it was asked for ${what}: ${error.message}`, {
        cause: error,
      })
    : new RedisError('ERR_REDIS_REFUSED', `Redis refused when it was asked for ${what}: ${error.message}`, {
        cause: error,
      })
}
