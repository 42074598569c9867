import { monotonicMs } from '../clock.ts'
import { messageOf, MillraceError, RedisError } from '../errors.ts'

/** A part of a scrape that is read for itself: what it costs, and that it fails, is its own. */
export const COLLECTORS = ['streams', 'redis', 'stuck', 'consumers', 'memory'] as const
export type CollectorName = (typeof COLLECTORS)[number]

/** What came too late is told for so long: no scrape should find what is older. */
const LATE_MS = 20_000

/** That a reading has failed where the one before had not, or the other way round. */
export interface Turn {
  readonly collector: CollectorName
  /** Why it failed; undefined where it reads again. */
  readonly fault: string | undefined
  /** The same for all that fail for this reason. */
  readonly kind: string
}

export class Collector<Told> {
  readonly name: CollectorName
  /** Readings that failed, or that did not come in time. */
  failures = 0
  /** How long the last reading took; undefined before the first. */
  durationMs: number | undefined
  readonly #everyMs: number
  #told: Told | undefined
  #readAtMs = -Infinity
  #asking: Promise<void> | undefined
  #isFailing = false
  /** Its last reading took longer than anybody waits. */
  #isSlow = false
  #patienceMs = Infinity

  /** @param everyMs what was read is kept for so long. */
  constructor(name: CollectorName, everyMs: number) {
    this.name = name
    this.#everyMs = everyMs
  }

  /** Undefined where nothing was read, or the last reading failed. */
  get told(): Told | undefined {
    return this.#told
  }

  forget(): void {
    this.#told = undefined
    this.#readAtMs = -Infinity
  }

  /**
   * Reads, unless what it has is new enough, and waits until a time of the monotonic clock at most. Never rejects.
   * @returns what is to be said of it: why it failed, where the one before did not, or that it reads again.
   */
  async run(ask: () => Promise<Told>, untilMs: number): Promise<Turn | undefined> {
    const startedMs = monotonicMs()
    if (startedMs - this.#readAtMs < this.#everyMs) return undefined
    const patienceMs = (this.#patienceMs = Math.max(0, untilMs - startedMs))
    const asking = this.#begin(ask)
    if (this.#isSlow && startedMs - this.#readAtMs < LATE_MS) {
      // Else what always takes longer than a scrape may wait would never be told. One that fails is asked for again.
      asking.catch(() => (this.#isSlow = false))
      return undefined
    }
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new RedisError('ERR_REDIS_UNREACHABLE', 'Redis did not answer in time')),
        patienceMs,
      )
    })
    try {
      await Promise.race([asking, late])
      const wasFailing = this.#isFailing
      this.#isFailing = false
      return wasFailing ? { collector: this.name, fault: undefined, kind: 'again' } : undefined
    } catch (error) {
      const isNew = !this.#isFailing
      this.failures += 1
      this.forget()
      this.#isFailing = true
      return isNew ? failed(this.name, error) : undefined
    } finally {
      clearTimeout(timer)
      this.durationMs = monotonicMs() - startedMs
    }
  }

  /** One that is still without an answer is waited for: a Redis that is slow must not be asked more and more. */
  #begin(ask: () => Promise<Told>): Promise<void> {
    this.#asking ??= this.#ask(ask).finally(() => {
      this.#asking = undefined
    })
    return this.#asking
  }

  /** What comes too late for one scrape is told at the next. */
  async #ask(ask: () => Promise<Told>): Promise<void> {
    const startedMs = monotonicMs()
    this.#told = await ask()
    this.#readAtMs = monotonicMs()
    this.#isSlow = this.#readAtMs - startedMs >= this.#patienceMs
  }
}

function failed(collector: CollectorName, error: unknown): Turn {
  const fault = messageOf(error)
  const isAway = error instanceof MillraceError && error.code === 'ERR_REDIS_UNREACHABLE'
  return { collector, fault, kind: isAway ? error.code : fault }
}
