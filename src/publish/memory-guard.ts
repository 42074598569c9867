import { monotonicMs } from '../clock.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { readMemory, type MemorySeen } from '../redis/memory.ts'

/** Redis is fuller than producers may make it. */
export interface MemoryFault {
  readonly usedBytes: number
  readonly maxBytes: number
  readonly share: number
}

/** Between two looks at a memory that can be full. */
const EVERY_MS = 1000
/** The same where there is no bound, or we may not look: somebody may set one, or allow us. */
const SELDOM_MS = 30_000
/** A memory at its edge goes over it and back all the time, and need not be told of each time. */
const SAY_EVERY_MS = 60_000

/**
 * Looks how full Redis is while a producer has work, so that publishes are held before Redis refuses them. The memory
 * between the share and the bound is for the workers: retries, dead letters and counts of jobs that are there already need
 * it, and a Redis that is full to the brim refuses those too.
 *
 * It guards, and nothing depends on it: where Redis does not let us look, or is away, nothing is held.
 */
export class MemoryGuard {
  readonly #connection: Connection
  readonly #share: number
  readonly #logger: Logger
  readonly #onChange: () => void
  #fault: MemoryFault | undefined
  #isWanted = false
  #timer: NodeJS.Timeout | undefined
  #reading: Promise<MemoryFault | undefined> | undefined
  #dueMs = 0
  /** Which connection was looked at: another one may lead to another server. */
  #epoch = -1
  #saidMs = -Infinity
  /** The last line said that it is full. */
  #isSaid = false
  #isForbidden = false

  /** `onChange` is called when publishes must be held, and when they need not be any more. */
  constructor(
    connection: Connection,
    options: { readonly share: number; readonly logger: Logger; readonly onChange?: () => void },
  ) {
    this.#connection = connection
    this.#share = options.share
    this.#logger = options.logger
    this.#onChange = options.onChange ?? (() => {})
  }

  /** What publishes are held for now; undefined is nothing. */
  get fault(): MemoryFault | undefined {
    return this.#fault
  }

  /**
   * There is work. Called as often as one likes, best as soon as the connection is ready: then the answer is there before that to
   * what is sent next.
   */
  start(): void {
    this.#isWanted = true
    if (this.#isDue) void this.runOnce()
    if (this.#timer === undefined) this.#timer = this.#later()
  }

  /** There is no more work. What is held stays looked at until it need not be held any more: the next publish goes by it. */
  stop(): void {
    this.#isWanted = false
  }

  /** Looks, whether it is time to or not. Never rejects. */
  runOnce(): Promise<MemoryFault | undefined> {
    return this.#reading ?? this.#look()
  }

  get #isDue(): boolean {
    return monotonicMs() >= this.#dueMs || this.#connection.epoch !== this.#epoch
  }

  /** It does not hold the process open: what waits for Redis does that. */
  #later(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#timer = undefined
      if (!this.#isWanted && this.#fault === undefined) return
      if (this.#isDue) void this.runOnce()
      this.#timer = this.#later()
    }, EVERY_MS).unref()
  }

  #look(): Promise<MemoryFault | undefined> {
    const { client, epoch, isReady } = this.#connection
    // Without a connection nothing is published anyway, and what was seen before is not known any more.
    if (!isReady) return Promise.resolve(this.#become(undefined))
    this.#epoch = epoch
    this.#dueMs = monotonicMs() + EVERY_MS
    // Not a step more between the answer and what follows from it: the answer to a command sent later is close behind.
    this.#reading = readMemory(client).then(
      (seen) => this.#seen(seen),
      (error: unknown) => this.#unseen(error),
    )
    return this.#reading
  }

  #seen(seen: MemorySeen): MemoryFault | undefined {
    this.#isForbidden = false
    if (!isBounded(seen)) this.#dueMs = monotonicMs() + SELDOM_MS
    return this.#become(memoryFault(seen, this.#share))
  }

  /** A connection that went is told of by who publishes on it. */
  #unseen(error: unknown): MemoryFault | undefined {
    if (this.#connection.fault(error).kind === 'fatal') this.#sayForbidden(error)
    return this.#become(undefined)
  }

  #become(fault: MemoryFault | undefined): MemoryFault | undefined {
    const isChange = (fault === undefined) !== (this.#fault === undefined)
    this.#fault = fault
    this.#reading = undefined
    if (isChange) {
      this.#say(fault)
      this.#onChange()
    }
    return fault
  }

  #say(fault: MemoryFault | undefined): void {
    const nowMs = monotonicMs()
    if (fault !== undefined && nowMs - this.#saidMs >= SAY_EVERY_MS) {
      this.#saidMs = nowMs
      this.#isSaid = true
      this.#logger.warn({ ...fault }, 'Redis has used its share of maxmemory: publishes are held until it has less')
    } else if (fault === undefined && this.#isSaid) {
      this.#isSaid = false
      this.#logger.info({}, 'publishes are no longer held for the memory of Redis')
    }
  }

  #sayForbidden(error: unknown): void {
    this.#dueMs = monotonicMs() + SELDOM_MS
    if (this.#isForbidden) return
    this.#isForbidden = true
    this.#logger.warn({ fault: faultText(error) }, 'cannot see how full Redis is: it is published to until it refuses')
  }
}

/**
 * Pure. Only of a Redis that refuses writes when it is full: one that evicts is at its bound all the time, and one without a
 * bound has no share to keep.
 */
export function memoryFault(seen: MemorySeen, share: number): MemoryFault | undefined {
  const { usedBytes, maxBytes } = seen
  return isBounded(seen) && usedBytes / maxBytes > share ? { usedBytes, maxBytes, share } : undefined
}

function isBounded({ maxBytes, evictionPolicy }: MemorySeen): boolean {
  return maxBytes > 0 && evictionPolicy === 'noeviction'
}
