import { backoffMs } from '../clock.ts'
import { MillraceError, RedisError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'

/** The recovery was told to stop. What it had begun goes on at the next start. */
export class RecoveryStopped extends Error {}

/** Redis will not have the jobs of one stream (permission, a key of another type), whatever it says of others. */
export class StreamRefused extends Error {}

/** Redis refuses us as a whole, and may do so only until somebody has repaired a password. */
const TEMPORARY = new Set(['NOAUTH', 'WRONGPASS'])

/**
 * Asks Redis until it has answered, over any outage, as long as the recovery is not told to stop. While it waits it does not
 * hold the process: jobs in a file are safe, and a process that has nothing else to do may end.
 */
export class SpillAsking {
  readonly connection: Connection
  readonly #logger: Logger
  readonly #signal: AbortSignal
  #isFailing = false

  constructor(connection: Connection, logger: Logger, signal: AbortSignal) {
    this.connection = connection
    this.#logger = logger
    this.#signal = signal
  }

  /** @throws RecoveryStopped */
  checkStopped(): void {
    if (this.#signal.aborted) throw new RecoveryStopped()
  }

  /**
   * What is asked must be what may be asked again. `mayBeDone`: it was asked before and its answer was lost; also told with
   * the answer, for which it makes a difference.
   * @throws RecoveryStopped
   * @throws StreamRefused
   */
  async ask<Answer>(
    asked: (mayBeDone: boolean) => Promise<Answer>,
  ): Promise<{ readonly answer: Answer; readonly mayBeDone: boolean }> {
    let mayBeDone = false
    for (let tries = 0; ; tries++) {
      this.checkStopped()
      try {
        if (!this.connection.isReady) await this.connection.ready(1000)
        const answer = await asked(mayBeDone)
        this.#sayWell()
        return { answer, mayBeDone }
      } catch (error) {
        // A fault of the connection itself: nothing was sent.
        const isSent = !(error instanceof RedisError)
        if (error instanceof MillraceError && isSent) throw error
        const { kind, word } = this.connection.fault(error)
        if (isSent && kind === 'unknown') mayBeDone = true
        if (isSent && kind === 'fatal' && !TEMPORARY.has(word)) {
          throw new StreamRefused(faultText(error), { cause: error })
        }
        this.#sayFailing(faultText(error))
      }
      await this.pause(tries)
    }
  }

  /** @throws RecoveryStopped */
  async pause(tries: number): Promise<void> {
    this.connection.hold(false)
    try {
      await this.#sleep(backoffMs(tries, 20, 1000))
    } finally {
      this.connection.hold(true)
    }
    this.checkStopped()
  }

  /** As that of the clock, but that it does not keep the process running. */
  #sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer)
        this.#signal.removeEventListener('abort', done)
        resolve()
      }
      const timer = setTimeout(done, ms)
      timer.unref()
      this.#signal.addEventListener('abort', done, { once: true })
    })
  }

  #sayFailing(fault: string): void {
    if (this.#isFailing) return
    this.#isFailing = true
    this.#logger.info({ fault }, 'cannot publish what was spilled now; it goes on trying')
  }

  #sayWell(): void {
    if (!this.#isFailing) return
    this.#isFailing = false
    this.#logger.info({}, 'what was spilled is published again')
  }
}
