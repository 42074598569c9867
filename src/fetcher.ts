import { backoffMs, monotonicMs, sleep } from './clock.ts'
import { RedisError } from './errors.ts'
import type { Batch, Intake } from './intake.ts'
import type { Logger } from './logger.ts'
import { Connection } from './redis/connection.ts'
import type { ConnectionNumbers } from './redis/connection-numbers.ts'
import type { RedisTarget } from './redis/target.ts'
import { faultText } from './redis/faults.ts'
import type { RawEntry } from './redis/replies.ts'

/**
 * Reads new entries, only as many as there are slots for, over one connection that does nothing else: any other command
 * would wait behind the blocked read.
 *
 * The block is finite and a watchdog of our own looks at it: a read that outlives it gets a new connection, since the silent
 * worker behind a dead connection is what users of other systems report most. To stop, the read is woken with CLIENT
 * UNBLOCK from the command connection and its answer is taken: a disconnect would orphan what Redis had just delivered.
 */
export interface FetcherDeps {
  readonly target: RedisTarget
  /** The command connection, to wake the blocked read from. */
  readonly commands: Connection
  readonly intake: Intake
  readonly connectionNumbers: ConnectionNumbers
  readonly logger: Logger
  /** Makes the group again after it vanished. */
  readonly rejoin: () => Promise<void>
  readonly blockMs: number
  /** A read completed, with entries or without. */
  readonly onRead: () => void
  /** A read was answered with a no. */
  readonly onRefused: () => void
}

/** Beyond the block, for a server that is slow to answer. */
const MARGIN_MS = 3000
/** COUNT is per stream and a read names two: it may bring twice as many. */
const READ_MOST = 250
/** Entries of a read from which on the next one is sent before they run. */
const AHEAD_FROM = 16
/** XREADGROUP has no bound in bytes: the count of a read follows from the size of the entries before. */
const READ_BYTES = 1024 * 1024

export class Fetcher {
  readonly #deps: FetcherDeps
  #connection: Connection
  #clientId: number | undefined
  #epoch = 0
  #entryBytes = 2048
  #reading = false
  /** Counts the reads: who wakes one must not wake the next. */
  #reads = 0
  /** The last one that is being woken, or was. */
  #woken = 0
  #isFailing = false
  /** A read that was sent before the jobs of the last one were handed on. */
  #ahead: Promise<Batch> | undefined
  #loop: Promise<void> | undefined
  readonly #stopping = new AbortController()

  constructor(deps: FetcherDeps) {
    this.#deps = deps
    this.#connection = this.#connect()
  }

  start(): void {
    this.#loop ??= this.#run()
  }

  /** Stops reading; what the last read brings is still taken, so that nothing is delivered to nobody. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    // The read may be on its way to Redis while we wake it: wake until it has returned. If Redis does not answer at all,
    // what it may have delivered meanwhile is claimed by others when the lease is over.
    const untilMs = monotonicMs() + this.#deps.blockMs + MARGIN_MS
    while (this.#reading) {
      if (monotonicMs() > untilMs) this.#connection.close()
      await this.#unblock()
      await sleep(10)
    }
    await this.#loop
    this.close()
  }

  close(): void {
    this.#connection.close()
  }

  /** Ends the read that is out: what it brings nobody would begin, or there is more to be read by now. */
  async wake(): Promise<void> {
    const read = this.#reads
    // Once for each read, and for each: who still wakes the last one does nothing for the next.
    if (this.#woken === read) return
    this.#woken = read
    // It may be on its way to Redis while we wake it.
    while (this.#reading && this.#reads === read && !this.#stopping.signal.aborted) {
      if (this.#clientId !== undefined && this.#deps.commands.isReady) await this.#deps.commands.unblock(this.#clientId)
      await sleep(20, this.#stopping.signal)
    }
  }

  /** Reads once, or takes what the read that was sent ahead brings. @returns how many entries came. */
  async runOnce(): Promise<{ delivered: number }> {
    const reading = this.#ahead ?? (await this.#begin())
    this.#ahead = undefined
    if (reading === undefined) return { delivered: 0 }
    const batch = await reading
    this.#deps.onRead()
    const delivered = batch.size
    if (delivered === 0) return { delivered }
    this.#weigh(batch.entries)
    this.#sendAhead(delivered)
    batch.take()
    return { delivered }
  }

  async #begin(): Promise<Batch | undefined> {
    const { intake } = this.#deps
    const { room } = intake
    if (room <= 0) return undefined
    await this.#identify()
    const isHalted = this.#stopping.signal.aborted || intake.isPaused
    return isHalted ? undefined : this.#read(room)
  }

  /**
   * Sends the next read before the jobs of the last one run, so that Redis is at work while we are. A few jobs start first:
   * sending costs more time than they make them wait for it.
   */
  #sendAhead(coming: number): void {
    if (coming < AHEAD_FROM) return
    const room = this.#deps.intake.roomBeside(coming)
    if (room <= 0 || this.#stopping.signal.aborted || !this.#isIdentified) return
    this.#ahead = this.#read(room)
    // Heard of where it is taken; it may fail before that.
    this.#ahead.catch(() => {})
  }

  async #read(room: number): Promise<Batch> {
    const { intake, blockMs } = this.#deps
    const count = Math.max(1, Math.min(room, READ_MOST, Math.floor(READ_BYTES / this.#entryBytes)))
    this.#reading = true
    this.#reads += 1
    try {
      return await this.#watched(() => intake.read(this.#connection.client, { count, blockMs }))
    } finally {
      this.#reading = false
    }
  }

  /** Replaces the connection if there is no answer for longer than the block. */
  async #watched<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
    let isOut = true
    const watchdog = setTimeout(() => {
      // After the sockets were looked at: a handler may have kept the loop, and the answer has been lying there for long.
      setImmediate(() => isOut && this.#replaceConnection())
    }, this.#deps.blockMs + MARGIN_MS)
    try {
      return await ask()
    } finally {
      isOut = false
      clearTimeout(watchdog)
    }
  }

  /** Follows larger entries at once and smaller ones slowly, so that a read of large ones stays within its bytes. */
  #weigh(sources: readonly (readonly RawEntry[])[]): void {
    let [bytes, entries] = [0, 0]
    for (const source of sources) {
      entries += source.length
      for (const { fields } of source) for (const field of fields) bytes += field.length
    }
    const mean = bytes / entries
    this.#entryBytes = mean > this.#entryBytes ? mean : Math.max(64, this.#entryBytes * 0.9 + mean * 0.1)
  }

  async #run(): Promise<void> {
    let tries = 0
    // What a read brings that is on its way at a stop is still taken.
    while (!this.#stopping.signal.aborted || this.#ahead !== undefined) {
      if (this.#ahead === undefined && this.#deps.intake.room <= 0) {
        await this.#deps.intake.changed(1000)
        continue
      }
      try {
        await this.runOnce()
        tries = 0
        this.#recovered()
      } catch (error) {
        await this.#recover(error, tries++)
      }
    }
  }

  /** Whoever was told of the fault is told of its end. */
  #recovered(): void {
    if (!this.#isFailing) return
    this.#isFailing = false
    this.#deps.logger.warn({}, 'the worker reads from Redis again')
  }

  async #recover(error: unknown, tries: number): Promise<void> {
    if (this.#stopping.signal.aborted) return
    const { kind } = this.#connection.fault(error)
    if (kind === 'refused') this.#deps.onRefused()
    this.#deps.intake.failed()
    if (kind === 'lost-group') {
      const joined = await this.#deps.rejoin().then(
        () => true,
        () => false,
      )
      if (joined) return
    } else if (tries === 0) {
      const level = kind === 'fatal' ? 'error' : 'warn'
      this.#isFailing = true
      this.#deps.logger[level]({ fault: faultText(error) }, 'cannot read from Redis now; the worker goes on trying')
    }
    const pauseMs = error instanceof RedisError ? 0 : backoffMs(tries, 20, 1000)
    await sleep(pauseMs, this.#stopping.signal)
  }

  /** Every connection has another id at the server, and without it a blocked read cannot be woken. */
  async #identify(): Promise<void> {
    if (!this.#connection.isReady) await this.#connection.ready(1000)
    if (this.#isIdentified) return
    const epoch = this.#connection.epoch
    this.#clientId = await this.#watched(() => this.#connection.clientId())
    this.#epoch = epoch
  }

  get #isIdentified(): boolean {
    return this.#connection.isReady && this.#epoch === this.#connection.epoch && this.#clientId !== undefined
  }

  async #unblock(): Promise<void> {
    if (this.#clientId !== undefined && this.#deps.commands.isReady) await this.#deps.commands.unblock(this.#clientId)
    else if (!this.#connection.isReady) this.#connection.close()
  }

  #connect(): Connection {
    const { target, blockMs, connectionNumbers } = this.#deps
    return new Connection(target, {
      role: 'fetcher',
      // For a connection that goes silent before it is ready. The client does not ask whether an answer has come that nobody
      // has looked at yet; our watchdog does, and is to be first.
      socketTimeoutMs: 3 * (blockMs + MARGIN_MS),
      numbers: connectionNumbers,
    })
  }

  #replaceConnection(): void {
    this.#deps.logger.warn({}, 'a read outlived its block; connecting anew')
    const silent = this.#connection
    this.#connection = this.#connect()
    this.#clientId = undefined
    silent.close()
  }
}
