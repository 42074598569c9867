import { Redis, type RedisOptions } from 'ioredis'
import { backoffMs, monotonicMs } from '../clock.ts'
import { RedisError } from '../errors.ts'
import { ConnectionNumbers } from './connection-numbers.ts'
import { faultOf, withoutArguments, type Fault } from './faults.ts'
import type { RedisTarget } from './target.ts'

/**
 * One connection to Redis under our rules, which differ from the client's defaults for reasons that were seen:
 *
 * - `maxRetriesPerRequest: 0` and no offline queue: the client would send an unanswered command again after a reconnect,
 *   and an XADD sent twice is two jobs. A command either gets its answer or fails; who sent it decides what then.
 * - Reconnects for ever, with a capped delay, as long as somebody needs the connection.
 * - `socketTimeout`: a peer that went silent fails the command instead of holding it for ever.
 * - RESP2, which every server and proxy speaks, unless the user's options say otherwise.
 *
 * An `error` listener is always attached: without one the client prints, and an unheard error could end the process.
 */

/** What commands are called on, under src/redis/ and nowhere else. */
export type Client = Redis

/** Whatever command fails, in whatever way: its error has lost the arguments before anybody hears of it. */
class DiscreetRedis extends Redis {
  override sendCommand(...[command, stream]: Parameters<Redis['sendCommand']>): unknown {
    const { reject } = command
    command.reject = (error) => reject(withoutArguments(error))
    return super.sendCommand(command, stream)
  }
}

/** What the options of one connection say. */
export interface ConnectionOptions {
  /** What it is for; part of the name that CLIENT LIST shows. */
  readonly role: string
  /** A command without an answer for this long fails and the connection is made anew, in ms. */
  readonly socketTimeoutMs: number
  /** Upper bound of the delay between two tries to connect, in ms. @default 1000 */
  readonly reconnectCapMs?: number
  /** Connect only while somebody `hold`s it, so that an idle process can end. @default false */
  readonly onDemand?: boolean
  /** Where its reconnects and errors are counted. @default its own */
  readonly numbers?: ConnectionNumbers
}

export class Connection {
  readonly client: Redis
  readonly #numbers: ConnectionNumbers
  /** Counts the times it became ready: who keeps something of a connection (its CLIENT ID) sees when it is another. */
  epoch = 0
  #lastError: Error | undefined
  #errors = 0
  /** How many users have work for it; one that is not on demand is its own user. */
  #holders: number
  #closed = false
  readonly #waiting = new Set<() => void>()
  readonly #seen: { readonly isReady: boolean }

  constructor(target: RedisTarget, options: ConnectionOptions) {
    const capMs = options.reconnectCapMs ?? 1000
    this.#holders = options.onDemand === true ? 0 : 1
    this.#numbers = options.numbers ?? new ConnectionNumbers(options.role)
    const isUp = () => this.isReady || this.#holders === 0
    this.#seen = {
      get isReady() {
        return isUp()
      },
    }
    this.#numbers.open.add(this.#seen)
    const ours: RedisOptions & { replyMapping: 'legacy' } = {
      protocol: 2,
      ...target.options,
      replyMapping: 'legacy',
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      enableAutoPipelining: false,
      connectTimeout: Math.min(target.options.connectTimeout ?? 5000, 5000, options.socketTimeoutMs),
      keepAlive: 15_000,
      // How long a closed connection may linger, which would hold the process: nothing is left to be said on it.
      disconnectTimeout: 200,
      socketTimeout: options.socketTimeoutMs,
      connectionName: `millrace:${options.role}:${process.pid}`,
      retryStrategy: (tries) => (this.#holders > 0 && !this.#closed ? backoffMs(tries - 1, 50, capMs) : null),
      reconnectOnError: (error) => (faultOf(error).word === 'READONLY' ? 1 : false),
    }
    delete ours.commandTimeout
    delete ours.blockingTimeout
    this.client = target.url === undefined ? new DiscreetRedis(ours) : new DiscreetRedis(target.url, ours)
    this.client.on('error', (error: Error) => this.#note(error))
    this.client.on('connect', () => this.#refSocket())
    this.client.on('ready', () => {
      this.epoch += 1
      if (this.epoch > 1) this.#numbers.reconnects += 1
      this.#lastError = undefined
      this.#wake()
    })
  }

  get isReady(): boolean {
    return this.client.status === 'ready'
  }

  /** Whether it was closed for good. */
  get isClosed(): boolean {
    return this.#closed
  }

  /**
   * Resolves once commands can be sent.
   * @throws RedisError `ERR_REDIS_UNREACHABLE` when `timeoutMs` is over, `ERR_REDIS_REFUSED` at once on a wrong password.
   */
  async ready(timeoutMs: number): Promise<void> {
    const untilMs = monotonicMs() + timeoutMs
    const errorsBefore = this.#errors
    while (!this.isReady) {
      // Only what this wait has seen: a password that was wrong a minute ago may be right now.
      const refused = this.#errors > errorsBefore && faultOf(this.#lastError).kind === 'fatal'
      const leftMs = untilMs - monotonicMs()
      if (refused || leftMs <= 0 || this.#closed) throw this.unready()
      if (this.client.status === 'wait' || this.client.status === 'end') this.client.connect().catch(() => {})
      await this.#changed(leftMs)
    }
  }

  /** What an error of a command on it means; it is counted. */
  fault(error: unknown): Fault {
    return this.#numbers.count(error)
  }

  /** For an on-demand connection: a user says that it has work, or has it no more. While one has, the process is kept. */
  hold(held: boolean): void {
    this.#holders += held ? 1 : -1
    this.#refSocket()
  }

  /** The id that Redis knows this connection by; another one after every reconnect. */
  async clientId(): Promise<number> {
    return this.client.client('ID')
  }

  /** Wakes another connection's blocked read, which then returns without entries. False where Redis does not let us. */
  async unblock(clientId: number): Promise<boolean> {
    return this.client.client('UNBLOCK', clientId).then(
      (woken) => Number(woken) === 1,
      () => false,
    )
  }

  /** Ends the connection now; commands without an answer fail. Never waits: the client's `end` may never come. */
  close(): void {
    this.#closed = true
    this.#numbers.open.delete(this.#seen)
    this.client.disconnect(false)
    this.#wake()
  }

  /** Whether the last try to connect failed. Not while it reconnects by itself, as it does when a server turned read-only. */
  get isFailing(): boolean {
    return this.#lastError !== undefined
  }

  /** What keeps it from being ready, as an error that says where Redis was looked for. */
  unready(): RedisError {
    const { host, port, path } = this.client.options
    const where = path ?? `${host ?? 'localhost'}:${port ?? 6379}`
    const cause = this.#lastError
    const options = cause === undefined ? undefined : { cause }
    if (cause !== undefined && faultOf(cause).kind === 'fatal') {
      return new RedisError('ERR_REDIS_REFUSED', `Redis at ${where} refused the connection: ${cause.message}`, options)
    }
    // Loading, or busy with a script: it is there, and nothing is wrong with where it was looked for.
    if (cause !== undefined && faultOf(cause).kind === 'refused') {
      return new RedisError('ERR_REDIS_UNREACHABLE', `Redis at ${where} refuses for now: ${cause.message}`, options)
    }
    if (cause === undefined && this.client.status === 'connect') {
      const text = `Redis at ${where} took the connection and is not ready: is it still loading its data, or hanging?`
      return new RedisError('ERR_REDIS_UNREACHABLE', text)
    }
    const why = cause === undefined ? 'no answer' : cause.message || (cause as NodeJS.ErrnoException).code
    return new RedisError(
      'ERR_REDIS_UNREACHABLE',
      `cannot reach Redis at ${where}: ${why}; is it running there?`,
      options,
    )
  }

  #note(error: Error): void {
    this.#lastError = withoutArguments(error)
    this.#numbers.count(error)
    this.#errors += 1
    this.#wake()
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
  }

  #changed(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#waiting.delete(done)
        resolve()
      }
      // 'end' has no event of ours: a short look again finds a connection that must be opened once more.
      const timer = setTimeout(done, Math.min(timeoutMs, 100))
      this.#waiting.add(done)
    })
  }

  #refSocket(): void {
    // A socket that is not connected yet would collect a listener for every call; its 'connect' brings us here again.
    if (this.client.status !== 'connect' && this.client.status !== 'ready') return
    const socket = this.client.stream as Referenced | undefined
    // A blocked read has a timer of the client's beside its socket, which would keep the process for as long.
    const { socketTimeoutTimer: timer } = this.client as unknown as { socketTimeoutTimer?: Referenced }
    for (const one of [socket, timer]) {
      if (this.#holders > 0) one?.ref?.()
      else one?.unref?.()
    }
  }
}

/** What keeps a process running, or does not. */
interface Referenced {
  ref?: () => void
  unref?: () => void
}
