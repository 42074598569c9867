import { MillraceError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import { healthOf, SOUND, type Condition } from './health.ts'
import type { HealthAddress, HealthPlace } from './health-server.ts'

/** What the main thread knows of the worker's health: what the keeper found, and where its checks are answered. */

/** What the keeper's thread tells of it. Plain data: it crosses a thread boundary. */
export type HealthNews =
  | { kind: 'condition'; condition: Condition }
  | { kind: 'listening'; address: HealthAddress }
  | { kind: 'not-listening'; code: string | undefined; message: string }

/** A thread is up in less than a second; one that never comes up must not let `start()` wait for ever. */
const FIRST_MS = 20_000
/** Tries to listen are a second apart; of these one is told. */
const TOLD_EVERY = 60

export class HealthRecord {
  condition: Condition = SOUND
  /** Where health checks are answered now. */
  address: HealthAddress | undefined
  readonly #asked: HealthPlace | undefined
  readonly #logger: Logger
  #got: HealthAddress | undefined
  #first: { resolve: () => void; reject: (error: Error) => void } | undefined
  #failures = 0

  constructor(asked: HealthPlace | undefined, logger: Logger) {
    this.#asked = asked
    this.#logger = logger
  }

  /** Where to listen: on the port that was got first, for whoever asks for the worker's health knows that one. */
  get place(): HealthPlace | undefined {
    return this.#asked && { ...this.#asked, port: this.#got?.port ?? this.#asked.port }
  }

  /** Resolves when health checks are answered, or at once if none were asked for. @throws MillraceError ERR_LISTEN */
  async served(): Promise<void> {
    const place = this.#asked
    if (place === undefined) return
    let patience: NodeJS.Timeout | undefined
    await new Promise<void>((resolve, reject) => {
      this.#first = { resolve, reject }
      const never = new Error('the thread that answers them did not come up')
      patience = setTimeout(() => reject(notListening(place, undefined, never.message)), FIRST_MS)
    }).finally(() => {
      clearTimeout(patience)
      this.#first = undefined
    })
  }

  heard(news: HealthNews): void {
    if (news.kind === 'condition') return this.#found(news.condition)
    if (news.kind === 'listening') {
      if (this.#failures > 0) this.#logger.warn({ ...news.address }, 'health checks are answered again')
      this.#failures = 0
      this.#got ??= news.address
      this.address = news.address
      this.#first?.resolve()
      return
    }
    const place = this.place
    if (place === undefined) return
    const error = notListening(place, news.code, news.message)
    if (this.#first !== undefined) return this.#first.reject(error)
    this.address = undefined
    if (this.#failures++ % TOLD_EVERY > 0) return
    this.#logger.error(
      { ...place, fault: error.message },
      'health checks cannot be answered; the worker works and goes on trying to listen',
    )
  }

  #found(condition: Condition): void {
    const [before, now] = [healthOf('running', this.condition), healthOf('running', condition)]
    this.condition = condition
    if (before.live === now.live) return
    if (now.live) this.#logger.warn({}, 'the worker is live again')
    else this.#logger.error({ fault: now.reasons.join('; ') }, 'the worker is not live')
  }
}

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'it is in use by another process or worker; choose another healthPort',
  EACCES: 'this process is not allowed to; choose a healthPort above 1023',
  EADDRNOTAVAIL: 'this machine has no such address; choose another healthHost',
  ENOTFOUND: 'there is no such host; choose another healthHost',
}

function notListening({ host, port }: HealthPlace, code: string | undefined, message: string): MillraceError {
  const where = host === undefined ? `port ${port}` : `port ${port} of ${host}`
  return new MillraceError(
    'ERR_LISTEN',
    `cannot listen on ${where} for health checks: ${REASONS[code ?? ''] ?? message}`,
  )
}
