import type { Redis } from 'ioredis'
import { limiterKey, type LimiterPlace } from './keys.ts'
import { asArray, asNumber } from './replies.ts'
import { releasePermits, renewPermits, reserveSlots, takePermits } from './scripts/limit.ts'
import { run, type Argument } from './scripts/script.ts'

/** What a worker asks of Redis for its limits. All asks of a call are of one limiter; see the scripts. */

/** Asks in one call. */
export const LIMIT_BATCH = 250

/** A job asks for its slot of a rate. */
export interface SlotAsk {
  /** What the limiter tells jobs apart by; undefined where it does not. */
  readonly key: string | undefined
  readonly costUs: number
  readonly burstUs: number
  readonly graceUs: number
  /** `look`: nothing is booked. Whoever gets no slot is told a time behind all that were told one before, but for `keep`. */
  readonly how: 'look' | 'keep' | 'queue'
}

/** `given`: a slot in so long. `later`: none is booked, ask again then. `unknown`: the key holds something else. */
export interface SlotTold {
  readonly kind: 'given' | 'later' | 'unknown'
  readonly inMs: number
}

export interface PermitAsk {
  readonly key: string | undefined
  readonly most: number
  readonly holder: string
}

export type PermitTold = 'taken' | 'none' | 'unknown'

/** A permit of a limiter: which one, and who holds it. Plain data. */
export interface Permit {
  readonly limiter: LimiterPlace
  readonly key: string | undefined
  readonly holder: string
}

const SLOT_STATES: Readonly<Record<number, SlotTold['kind']>> = { 1: 'given', 0: 'later', [-1]: 'unknown' }
const PERMIT_STATES: Readonly<Record<number, PermitTold>> = { 1: 'taken', 0: 'none', [-1]: 'unknown' }

/** How far ahead a slot may lie, and from where on those that get none are told times behind each other. */
export interface SlotRange {
  readonly mostMs: number
  readonly nearMs: number
}

export async function askForSlots(
  client: Redis,
  limiter: LimiterPlace,
  asks: readonly SlotAsk[],
  { mostMs, nearMs }: SlotRange,
): Promise<{ serverMs: number; told: SlotTold[] }> {
  const keys = asks.map(({ key }) => limiterKey(limiter, 'slots', key))
  const args: Argument[] = [mostMs * 1000, nearMs * 1000]
  for (const { costUs, burstUs, graceUs, how } of asks) args.push(costUs, burstUs, graceUs, how)
  keys.push(limiterKey(limiter, 'permits', undefined))
  const [serverUs, ...flat] = asArray(await run(client, reserveSlots, keys, args))
  const told = asks.map((_, at) => ({
    kind: SLOT_STATES[asNumber(flat[2 * at])] ?? 'unknown',
    inMs: asNumber(flat[2 * at + 1]) / 1000,
  }))
  return { serverMs: asNumber(serverUs) / 1000, told }
}

export async function askForPermits(
  client: Redis,
  limiter: LimiterPlace,
  asks: readonly PermitAsk[],
  leaseMs: number,
): Promise<PermitTold[]> {
  const keys = asks.map(({ key }) => limiterKey(limiter, 'permits', key))
  const args: Argument[] = [leaseMs]
  for (const { most, holder } of asks) args.push(most, holder)
  const told = asArray(await run(client, takePermits, keys, args))
  return told.map((state) => PERMIT_STATES[asNumber(state)] ?? 'unknown')
}

/** All of one limiter, at most `LIMIT_BATCH`. Tells those that are gone. */
export async function renewHeld(client: Redis, permits: readonly Permit[], leaseMs: number): Promise<Permit[]> {
  const args = [leaseMs, ...permits.map(({ holder }) => holder)]
  const gone = asArray(await run(client, renewPermits, permits.map(permitKey), args))
  return gone.flatMap((number) => permits[asNumber(number) - 1] ?? [])
}

/** All of one limiter, at most `LIMIT_BATCH`. */
export async function giveBack(client: Redis, permits: readonly Permit[]): Promise<void> {
  await run(
    client,
    releasePermits,
    permits.map(permitKey),
    permits.map(({ holder }) => holder),
  )
}

/** The permits by limiter, in calls' sizes: those of two limiters may be in two slots. */
export function inBatches(permits: Iterable<Permit>): Permit[][] {
  const byLimiter = new Map<string, Permit[]>()
  const batches: Permit[][] = []
  for (const permit of permits) {
    const place = limiterKey(permit.limiter, 'permits', undefined)
    let batch = byLimiter.get(place)
    if (batch === undefined || batch.length >= LIMIT_BATCH) {
      batch = []
      byLimiter.set(place, batch)
      batches.push(batch)
    }
    batch.push(permit)
  }
  return batches
}

/** Tells a permit from all others, also where it is a copy in another thread. */
export function permitId(permit: Permit): string {
  return `${permitKey(permit)}\n${permit.holder}`
}

/** Where the permits of a limiter's key are kept, this one among them. */
export function permitKey({ limiter, key }: Pick<Permit, 'limiter' | 'key'>): string {
  return limiterKey(limiter, 'permits', key)
}
