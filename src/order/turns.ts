import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import { turnText } from '../decide.ts'
import type { Delivery } from '../delivery.ts'
import type { Logger } from '../logger.ts'
import { faultText } from '../redis/faults.ts'
import type { Source } from '../redis/member.ts'
import { TURN_BATCH, type TurnAsk, type TurnTold } from '../redis/turns.ts'

/**
 * Asks for the turns of a worker's jobs that have a key. A job that waits takes no slot of the worker: it is held as what was
 * fetched ahead is, with its lease renewed.
 *
 *   asked ─has its turn─▶ back into the queue: takes a slot, and runs ─▶ outcome: the next of its key that waits here asks
 *     │  ▲
 *     │  └─the one before it is gone from here ─┐
 *     ├─behind a job that this worker has─▶ waits here
 *     └─behind another's─▶ waits in the scheduled set, at no cost, until the one before it has its outcome
 *
 * What is asked for in one turn of the event loop travels together, and while one call is on its way the next one fills. Where Redis does
 * not answer, no job runs without its turn: it is asked for again for as long as the job is ours. What waits here and hears nothing
 * for a while asks again, and then waits in the scheduled set: whatever became of the job before it, nothing is held up for ever.
 */
export interface TurnsDeps {
  readonly ask: (source: Source, asks: readonly TurnAsk[]) => Promise<readonly TurnTold[]>
  readonly logger: Logger
  /** The server's time. */
  readonly serverMs: () => number
  /** Whether the job still waits here: not lost, and not handed back by the keeper. */
  readonly isOurs: (delivery: Delivery) => boolean
  readonly isCancelled: (delivery: Delivery) => boolean
  /** It goes on, as soon as there is a slot, by its `onTurn`. */
  readonly onGranted: (delivery: Delivery) => void
  /** It does not wait here any more, and is not ours. */
  readonly onGone: (delivery: Delivery) => void
  /** It is to wait in the scheduled set. */
  readonly onWait: (delivery: Delivery, wait: { delayMs: number; why: string }) => void
}

/** As many jobs wait here for a job that is here too; further ones in the scheduled set. */
const WAIT_HERE_MOST = 500
/** So long a job waits here while none of its key has ended here. */
const PATIENCE_MS = 2000
const LOOK_MS = 500
/** An answer of Redis takes as long on a busy machine. */
const ANSWER_MS = 40
/**
 * When a job in the scheduled set comes back by itself: it is due at once when it is first in line. The one behind the first looks soon
 * (see the script), each one behind it half as often: where all looked soon, the lines of jobs that wait for a service that is away
 * would be read again and again, and a hundred thousand looks would be all that is done.
 */
const AWAY_FIRST_MS = 30_000
const AWAY_MOST_MS = 3_600_000

interface Waiter {
  readonly delivery: Delivery
  readonly key: string
  readonly proceed: () => void
  sinceMs: number
  position: number
}

export class Turns {
  readonly #deps: TurnsDeps
  readonly #asking: [Waiter[], Waiter[]] = [[], []]
  readonly #isSending: [boolean, boolean] = [false, false]
  /** All that have no answer yet, or wait here. */
  readonly #waiters = new Map<Delivery, Waiter>()
  /** Those that wait here behind another of their key, in their order. */
  readonly #lines = new Map<string, Waiter[]>()
  #inLines = 0
  #timer: NodeJS.Timeout | undefined

  constructor(deps: TurnsDeps) {
    this.#deps = deps
  }

  /**
   * How many will most likely need a slot in a moment, where so many jobs end in a ms: those that have no answer yet, but for those whose
   * slots are free again by the time of the answer.
   */
  comingAt(endsPerMs: number): number {
    const untold = this.#waiters.size - this.#inLines
    // Whole ones: reads are of so many less.
    return untold === 0 ? 0 : Math.max(0, untold - Math.floor(endsPerMs * ANSWER_MS))
  }

  /** Jobs that ask, or wait here. */
  get held(): number {
    return this.#waiters.size
  }

  /** Takes a job that is to begin; `proceed` is called in a slot when it has its turn. */
  ask(delivery: Delivery, key: string, proceed: () => void): void {
    const waiter = { delivery, key, proceed, sinceMs: monotonicMs(), position: 0 }
    this.#waiters.set(delivery, waiter)
    this.#push(waiter)
  }

  /** A job of a key is here no more: the next of that key that waits here asks again. */
  ended({ extra, key }: Pick<Delivery, 'extra' | 'key'>): void {
    if (this.#inLines === 0 || extra === undefined || key === undefined) return
    const line = this.#lines.get(key)
    if (line === undefined) return
    const nowMs = monotonicMs()
    for (const waiter of line) waiter.sinceMs = nowMs
    const next = line[0]
    if (next !== undefined) this.#askAgain(next)
  }

  /** Takes out all that wait; nothing comes of what they have asked. */
  take(): Delivery[] {
    const taken = [...this.#waiters.keys()]
    this.#waiters.clear()
    this.#lines.clear()
    this.#inLines = 0
    clearTimeout(this.#timer)
    this.#timer = undefined
    return taken
  }

  #push(waiter: Waiter): void {
    const { source } = waiter.delivery
    this.#asking[source].push(waiter)
    if (this.#isSending[source]) return
    this.#isSending[source] = true
    setImmediate(() => void this.#send(source))
  }

  async #send(source: Source): Promise<void> {
    for (let tries = 0; this.#asking[source].length > 0;) {
      const batch = this.#asking[source].splice(0, TURN_BATCH).filter((waiter) => this.#isWanted(waiter))
      if (batch.length === 0) continue
      try {
        const asks = batch.map(({ delivery: { entryId, deliveries, id }, key }) => ({ entryId, deliveries, id, key }))
        const told = await this.#deps.ask(source, asks)
        tries = 0
        batch.forEach((waiter, at) => this.#told(waiter, told[at] as TurnTold))
      } catch (error) {
        // It is said once until it works again.
        const about = { fault: faultText(error) }
        if (tries === 0) this.#deps.logger.warn(about, 'cannot ask for the turns of jobs now; they wait')
        this.#asking[source].unshift(...batch)
        await sleep(backoffMs(tries++, 50, 1000))
      }
    }
    this.#isSending[source] = false
  }

  #told(waiter: Waiter, { state, firstId, before, position }: TurnTold): void {
    if (!this.#isWanted(waiter)) return
    // It does not run, and needs no turn for that.
    if (this.#deps.isCancelled(waiter.delivery)) return this.#granted(waiter)
    waiter.position = position
    switch (state) {
      case 'granted':
        return this.#granted(waiter)
      case 'again':
        return this.#push(waiter)
      case 'lost':
        return this.#gone(waiter)
      case 'here':
        if (this.#inLines < WAIT_HERE_MOST && monotonicMs() - waiter.sinceMs < PATIENCE_MS) return this.#lineUp(waiter)
        return this.#goAway(waiter, turnText(firstId), before)
      case 'behind':
        return this.#goAway(waiter, turnText(firstId), before)
      case 'broken':
        return this.#goAway(waiter, 'its turn, of which Redis holds something else', before)
    }
  }

  /** False if it is not to be told anything: it was taken out, or is not ours any more. */
  #isWanted(waiter: Waiter): boolean {
    if (this.#waiters.get(waiter.delivery) !== waiter) return false
    if (this.#deps.isOurs(waiter.delivery)) return true
    this.#gone(waiter)
    return false
  }

  #granted({ delivery, proceed }: Waiter): void {
    this.#waiters.delete(delivery)
    delivery.onTurn = proceed
    this.#deps.onGranted(delivery)
  }

  #gone({ delivery }: Waiter): void {
    this.#waiters.delete(delivery)
    this.#deps.onGone(delivery)
    this.ended(delivery)
  }

  #goAway({ delivery }: Waiter, why: string, before: number): void {
    this.#waiters.delete(delivery)
    const { extra } = delivery
    const leftMs = extra?.expiresMs === undefined ? Infinity : Math.max(1, extra.expiresMs - this.#deps.serverMs())
    const awayMs = Math.min(AWAY_MOST_MS, AWAY_FIRST_MS * 2 ** Math.max(0, before - 1))
    this.#deps.onWait(delivery, { delayMs: Math.ceil(Math.min(awayMs, leftMs)), why })
  }

  #lineUp(waiter: Waiter): void {
    const line = this.#lines.get(waiter.key)
    if (line === undefined) this.#lines.set(waiter.key, [waiter])
    else line.splice(line.findLastIndex(({ position }) => position < waiter.position) + 1, 0, waiter)
    this.#inLines += 1
    this.#timer ??= setTimeout(() => this.#look(), LOOK_MS)
  }

  #askAgain(waiter: Waiter): void {
    const line = this.#lines.get(waiter.key)
    const at = line?.indexOf(waiter) ?? -1
    if (line === undefined || at < 0) return
    line.splice(at, 1)
    if (line.length === 0) this.#lines.delete(waiter.key)
    this.#inLines -= 1
    this.#push(waiter)
  }

  /** Those that have heard nothing for a while ask again; those that need no turn any more go on. */
  #look(): void {
    this.#timer = undefined
    const sinceMs = monotonicMs() - PATIENCE_MS
    for (const waiter of [...this.#lines.values()].flat()) {
      const { delivery } = waiter
      const isOver = this.#deps.isCancelled(delivery) || !this.#deps.isOurs(delivery)
      if (isOver || waiter.sinceMs <= sinceMs) this.#askAgain(waiter)
    }
    if (this.#inLines > 0) this.#timer = setTimeout(() => this.#look(), LOOK_MS)
  }
}
