import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { RedisError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { Connection } from '../redis/connection.ts'
import type { ConnectionNumbers } from '../redis/connection-numbers.ts'
import { faultText } from '../redis/faults.ts'
import { READ_REPLIES, readReplies, type ReplyTold } from '../redis/results.ts'
import type { RedisTarget } from '../redis/target.ts'

/**
 * Reads the reply streams of a producer, over one connection that does nothing else: any other command would wait behind the
 * blocked read. It connects when somebody waits, and does not keep the process when nobody does.
 *
 * It reads from the beginning of a stream, and after a reconnect from where it was: nothing is lost but what was trimmed or deleted.
 * Whoever waits is told of either, and looks for what it waits for.
 */
export interface ReplyReaderDeps {
  readonly target: RedisTarget
  readonly producerId: string
  /** Wakes the blocked read when there is another stream to be read. */
  readonly commands: Pick<Connection, 'isReady' | 'unblock'>
  readonly numbers: ConnectionNumbers
  readonly logger: Logger
  readonly onReply: (reply: ReplyTold) => void
  /** Replies may have been missed. */
  readonly onMissed: () => void
  readonly blockMs?: number
}

/** Beyond the block, for a server that is slow to answer. */
const MARGIN_MS = 3000

export class ReplyReader {
  readonly #deps: ReplyReaderDeps
  readonly #connection: Connection
  readonly #blockMs: number
  readonly #lastIds = new Map<string, string>()
  #epoch = 0
  #clientId: number | undefined
  #isReading = false
  #waiters = 0
  #isRunning = false
  #isFailing = false
  #awaited: () => void = () => {}
  readonly #closed = new AbortController()

  constructor(deps: ReplyReaderDeps) {
    this.#deps = deps
    this.#blockMs = deps.blockMs ?? 5000
    this.#connection = new Connection(deps.target, {
      role: 'replies',
      socketTimeoutMs: this.#blockMs + MARGIN_MS,
      onDemand: true,
      numbers: deps.numbers,
    })
  }

  /** Whether replies of this stream have been read without a break since it was begun. */
  reads(stream: string): boolean {
    return this.#lastIds.has(stream) && this.#connection.isReady && !this.#isFailing
  }

  /** Somebody waits for a reply of this stream, until `leave`. */
  join(stream: string): void {
    this.#waiters += 1
    if (this.#waiters === 1) this.#connection.hold(true)
    if (!this.#lastIds.has(stream)) {
      this.#lastIds.set(stream, '0-0')
      void this.#wake()
    }
    this.#awaited()
    if (this.#isRunning) return
    this.#isRunning = true
    void this.#run()
  }

  leave(): void {
    this.#waiters -= 1
    if (this.#waiters === 0) this.#connection.hold(false)
  }

  /** Whether replies cannot be read now. */
  get isFailing(): boolean {
    return this.#isFailing
  }

  close(): void {
    this.#closed.abort()
    this.#awaited()
    this.#connection.close()
  }

  async #run(): Promise<void> {
    let tries = 0
    while (!this.#closed.signal.aborted) {
      // While nobody waits nothing is read: an idle process is to end. What comes meanwhile is read from where this one has ended.
      if (this.#waiters === 0) await new Promise<void>((done) => (this.#awaited = done))
      if (this.#closed.signal.aborted) return
      try {
        await this.#read()
        tries = 0
        this.#recovered()
      } catch (error) {
        await this.#failed(error, tries++)
      }
    }
  }

  async #read(): Promise<void> {
    await this.#identify()
    let isFull = false
    this.#isReading = true
    const read = await readReplies(this.#connection.client, this.#deps.producerId, {
      lastIds: new Map(this.#lastIds),
      blockMs: this.#blockMs,
    }).finally(() => (this.#isReading = false))
    for (const { stream, replies, lastId } of read) {
      this.#lastIds.set(stream, lastId)
      // Only who is as far behind as a whole read may have been overtaken by the trimming.
      if (replies.length >= READ_REPLIES) isFull = true
      for (const reply of replies) this.#deps.onReply(reply)
    }
    if (isFull) this.#deps.onMissed()
  }

  async #identify(): Promise<void> {
    if (!this.#connection.isReady) await this.#connection.ready(1000)
    if (this.#epoch === this.#connection.epoch) return
    const { epoch } = this.#connection
    // Without it a read cannot be woken, and another stream is read with the next one.
    this.#clientId = await this.#connection.clientId().catch(() => undefined)
    if (this.#epoch > 0) this.#deps.onMissed()
    this.#epoch = epoch
  }

  /** The read may be on its way to Redis while we wake it. */
  async #wake(): Promise<void> {
    const { commands } = this.#deps
    const untilMs = monotonicMs() + this.#blockMs
    const lacked = this.#lastIds.size
    while (this.#isReading && this.#lastIds.size === lacked && monotonicMs() < untilMs) {
      if (this.#clientId === undefined || !commands.isReady) return
      if (await commands.unblock(this.#clientId)) return
      await sleep(20, this.#closed.signal)
    }
  }

  #recovered(): void {
    if (!this.#isFailing) return
    this.#isFailing = false
    this.#deps.logger.warn({}, 'the producer reads results from Redis again')
  }

  async #failed(error: unknown, tries: number): Promise<void> {
    if (this.#closed.signal.aborted) return
    this.#connection.fault(error)
    if (tries > 0 && !this.#isFailing && this.#waiters > 0) {
      this.#isFailing = true
      this.#deps.onMissed()
      this.#deps.logger.warn(
        { producer: this.#deps.producerId, fault: faultText(error) },
        'cannot read results from Redis now; they are asked for again',
      )
    }
    if (this.#waiters === 0) return
    await sleep(error instanceof RedisError ? 0 : backoffMs(tries, 20, 1000), this.#closed.signal)
  }
}
