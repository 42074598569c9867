import type { Dispatcher } from './dispatcher.ts'
import type { Logger } from './logger.ts'
import type { Pause } from './redis/pause.ts'

/**
 * Holds a worker back while its group, or the whole stream, is paused: nothing is read, claimed or begun. What only waits in
 * the worker is handed back at no cost by its next report; what runs finishes and is settled. Retries are scheduled, and
 * delayed jobs moved, all the same: they wait in Redis then.
 *
 * Each pulse says whether it is so by the server's time, so that a pause and its end are in force within two pulses.
 */
export class Pauser {
  readonly #dispatcher: Dispatcher
  readonly #wake: () => void
  readonly #logger: Logger
  #isPaused = false

  constructor({ dispatcher, wake, logger }: { dispatcher: Dispatcher; wake: () => void; logger: Logger }) {
    this.#dispatcher = dispatcher
    this.#wake = wake
    this.#logger = logger
  }

  follow(pause: Pause | undefined): void {
    if ((pause !== undefined) === this.#isPaused) return
    this.#isPaused = pause !== undefined
    if (pause === undefined) {
      this.#dispatcher.resume()
      this.#logger.warn({}, 'the pause is over: the worker goes on')
      return
    }
    this.#dispatcher.pause()
    this.#wake()
    const { by, reason, untilMs } = pause
    const until = untilMs === null ? 'until it is resumed' : `until ${new Date(untilMs).toISOString()}`
    this.#logger.warn({ by, reason, untilMs }, `paused ${until}: the worker begins no jobs`)
  }
}
