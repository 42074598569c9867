import { backoffMs, monotonicMs, sleep } from './clock.ts'
import { RedisError } from './errors.ts'
import type { Logger } from './logger.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'

/** How an attempt to write outcomes ended; `refused`: Redis will not do it however often it is asked. */
export type Written<Reply> =
  | { readonly kind: 'answered'; readonly reply: Reply; readonly isResent: boolean }
  | { readonly kind: 'lost-group' | 'refused' | 'stopped' }

/**
 * Writes outcomes to Redis until it has answered: if it is away or refuses, the outcome is kept and tried again, and the job
 * is not run once more because of it.
 */
export class OutcomeWriter {
  readonly #connection: Connection
  readonly #numbers: WorkerNumbers
  readonly #logger: Logger
  readonly #stopped: AbortSignal

  constructor(
    { connection }: { connection: Connection },
    { numbers, logger, stopped }: { numbers: WorkerNumbers; logger: Logger; stopped: AbortSignal },
  ) {
    this.#connection = connection
    this.#numbers = numbers
    this.#logger = logger
    this.#stopped = stopped
  }

  /**
   * @param write its argument tells a try that an earlier one may have been executed.
   * @param about `mayDivide`: what Redis refuses for good comes back as `refused`, and is not tried for ever.
   */
  async write<Reply>(
    { what, jobs, mayDivide }: { what: string; jobs: number; mayDivide: boolean },
    write: (uncertain: boolean) => Promise<Reply>,
  ): Promise<Written<Reply>> {
    let uncertain = false
    for (let tries = 0; !this.#stopped.aborted; tries++) {
      try {
        await this.#connection.ready(1000)
        const sentAtMs = monotonicMs()
        const reply = await write(uncertain)
        this.#numbers.ackDuration.observe((monotonicMs() - sentAtMs) / 1000)
        return { kind: 'answered', reply, isResent: uncertain }
      } catch (error) {
        const { kind } = this.#connection.fault(error)
        this.#numbers.acks.error += jobs
        uncertain ||= kind === 'unknown' && !(error instanceof RedisError)
        if (kind === 'lost-group') return { kind }
        if (kind === 'fatal' && mayDivide) return { kind: 'refused' }
        if (tries === 0) {
          const about = { outcomes: jobs, fault: faultText(error) }
          this.#logger.warn(about, `cannot ${what} now; the outcome is kept`)
        }
        await sleep(backoffMs(tries, 50, 1000), this.#stopped)
      }
    }
    return { kind: 'stopped' }
  }
}
