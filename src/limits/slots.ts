import { monotonicMs } from '../clock.ts'
import type { Connection } from '../redis/connection.ts'
import { limiterKey, type LimiterPlace } from '../redis/keys.ts'
import { askForSlots, LIMIT_BATCH, type SlotAsk, type SlotTold } from '../redis/limiting.ts'
import { Gathering } from './gathering.ts'
import { GRACE_LEAST_US, graceUs } from './limit.ts'
import type { Passage, PassageSlot, Toll } from './passage.ts'
import { SlotClock } from './slot-clock.ts'

/** Gets jobs their slots of the rates that count them. */

/** A slot lies at most this far ahead; a job whose slot is further away waits without one. */
const AHEAD_MS = 1000
/** From where on jobs are told times behind each other; those nearer wait in the worker. */
export const NEAR_MS = 2000

export type SlotsTold =
  | { readonly kind: 'given' }
  | { readonly kind: 'later'; readonly inMs: number; readonly toll: Toll }
  | { readonly kind: 'unknown'; readonly error: unknown; readonly toll: Toll }

interface Told extends SlotTold {
  /** When it was told, by the server's time. */
  readonly serverMs: number
}

export class Slots {
  readonly clock = new SlotClock()
  readonly #asks: Gathering<LimiterPlace, SlotAsk, Told>
  readonly #onTold: (toll: Toll, inMs: number) => void

  /**
   * @param onTold hears how long the job of a toll has to wait for it.
   * @param isFull whether no more jobs can wait here. None is near then: told the time of the next slot, all of them would
   * go to the scheduled set and come back for that one, again and again.
   */
  constructor(connection: Connection, onTold: (toll: Toll, inMs: number) => void, isFull = () => false) {
    this.#onTold = onTold
    this.#asks = new Gathering(LIMIT_BATCH, async (limiter, asks) => {
      const sentAtMs = monotonicMs()
      const range = { mostMs: AHEAD_MS, nearMs: isFull() ? 0 : NEAR_MS }
      const { serverMs, told } = await askForSlots(connection.client, limiter, asks, range)
      this.clock.note({ serverMs, sentAtMs, receivedAtMs: monotonicMs() })
      return told.map((one) => ({ ...one, serverMs }))
    })
  }

  /** Asks for all that it needs; `passage.slot` is where it has them. Never rejects. */
  async take(passage: Passage): Promise<SlotsTold> {
    passage.slot = undefined
    const tolls = passage.tolls.filter(({ limit }) => limit.rate !== undefined)
    if (tolls.length === 0) return { kind: 'given' }
    // A slot of one rate is lost where another has none: so it is looked first.
    const looked = tolls.length === 1 ? undefined : await this.#askAll(passage, tolls, 'look')
    if (looked !== undefined && looked.kind !== 'given') return looked
    return this.#askAll(passage, tolls, 'queue')
  }

  async #askAll(passage: Passage, tolls: readonly Toll[], how: SlotAsk['how']): Promise<SlotsTold> {
    const answers = await Promise.all(
      tolls.map((toll) => this.#ask(toll, how).catch((error: unknown) => ({ kind: 'failed', error }) as const)),
    )
    const slots: PassageSlot[] = []
    let later: Extract<SlotsTold, { kind: 'later' }> | undefined
    for (const [at, told] of answers.entries()) {
      const toll = tolls[at] as Toll
      if (told.kind === 'failed') return { kind: 'unknown', error: told.error, toll }
      if (told.kind === 'unknown') {
        return { kind: 'unknown', error: new Error('its key in Redis holds something else'), toll }
      }
      this.#onTold(toll, told.inMs)
      if (told.kind === 'later') {
        if (later === undefined || told.inMs > later.inMs) later = { kind: 'later', inMs: told.inMs, toll }
        continue
      }
      const { limit, cost } = toll
      const atMs = told.serverMs + told.inMs
      const lateUs = limit.rate === undefined ? 0 : Math.max(GRACE_LEAST_US, graceUs(limit.rate, cost))
      slots.push({ atMs, untilMs: atMs + lateUs / 1000, limit })
    }
    if (later !== undefined) return later
    passage.slot = lastOf(slots)
    return { kind: 'given' }
  }

  #ask(toll: Toll, how: SlotAsk['how']): Promise<Told> {
    const { limit, limiter, key, cost } = toll
    if (limit.rate === undefined) throw new Error('a limit without a rate has no slots')
    const { intervalUs, burst } = limit.rate
    const [costUs, burstUs] = [cost * intervalUs, burst * intervalUs]
    const ask = { key, costUs, burstUs, graceUs: graceUs(limit.rate, cost), how }
    return this.#asks.ask(limiterKey(limiter, 'slots', undefined), limiter, ask)
  }
}

/**
 * Of several slots the last one counts. One that is over by then, or so soon after it that no timer is as exact, was spent for nothing: it
 * is not asked for again, or the job would miss slot after slot of all of them.
 */
function lastOf(slots: readonly PassageSlot[]): PassageSlot {
  const last = slots.reduce((latest, slot) => (slot.atMs > latest.atMs ? slot : latest))
  const leastMs = last.atMs + GRACE_LEAST_US / 1000
  const ends = slots.map(({ untilMs }) => untilMs).filter((untilMs) => untilMs >= leastMs)
  return { ...last, untilMs: Math.min(last.untilMs, ...ends) }
}
