import { monotonicMs } from '../clock.ts'
import { PublishError, type ErrorCode, type Published } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'

/** A failover or a short burst is over by then. What lasts longer is told to who only reads warnings: buffered jobs fail late. */
const LASTING_MS = 5000

/** What keeps a stream's jobs from being published now, for the errors of those whose time is up meanwhile. */
export class Trouble {
  readonly #stream: string
  readonly #connection: Connection
  readonly #logger: Logger
  #text = ''
  #code: ErrorCode = 'ERR_PUBLISH_TIMEOUT'
  #isSaid = false
  #sinceMs = 0
  #isWarned = false

  constructor(stream: string, connection: Connection, logger: Logger) {
    this.#stream = stream
    this.#connection = connection
    this.#logger = logger
  }

  /** The code of a publish whose time is up in it. */
  get code(): ErrorCode {
    return this.#code
  }

  /** Whether there is only no room: workers make some at any time. */
  get isFull(): boolean {
    return this.#code !== 'ERR_PUBLISH_TIMEOUT'
  }

  /** Said once an outage, and once more if it lasts, however many batches and tries it costs. */
  meet(
    text: string,
    {
      waiting,
      code = 'ERR_PUBLISH_TIMEOUT',
      nowMs = monotonicMs(),
    }: { waiting: number; code?: ErrorCode; nowMs?: number },
  ): void {
    this.#text = text
    this.#code = code
    if (this.#isSaid) return this.#warnIfLasting(text, { waiting, nowMs })
    this.#isSaid = true
    this.#isWarned = false
    this.#sinceMs = nowMs
    this.#logger.info({ waiting, fault: text }, 'cannot publish to Redis now')
  }

  over(waiting: number): void {
    this.#text = ''
    this.#code = 'ERR_PUBLISH_TIMEOUT'
    if (!this.#isSaid) return
    this.#isSaid = false
    this.#logger.info({ waiting }, 'the producer publishes to Redis again')
  }

  #warnIfLasting(fault: string, { waiting, nowMs }: { waiting: number; nowMs: number }): void {
    if (this.#isWarned || nowMs - this.#sinceMs < LASTING_MS) return
    this.#isWarned = true
    this.#logger.warn({ waiting, fault }, 'still cannot publish to Redis')
  }

  /** Why a publish whose time is up has not succeeded. */
  whyLate(): string {
    const ofConnection = () => (this.#connection.isReady ? '' : this.#connection.unready().message)
    const fault = this.#text === '' || this.#connection.isFailing ? ofConnection() : this.#text
    return `its time was up${fault === '' ? '' : `; the last fault was: ${fault}`}`
  }

  error(published: Published, why: string, more: { code?: ErrorCode; cause?: unknown } = {}): PublishError {
    const fate = published === 'no' ? 'the job is not in Redis' : 'the job may be in Redis or not'
    const code = more.code ?? (more.cause === undefined ? 'ERR_PUBLISH_TIMEOUT' : 'ERR_PUBLISH_REFUSED')
    const { cause } = more
    return new PublishError(code, `could not publish to ${this.#stream}: ${why}; ${fate}`, { published, cause })
  }
}
