import { backoffMs, monotonicMs } from '../clock.ts'
import type { Delivery } from '../delivery.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { limiterKey, type LimiterPlace } from '../redis/keys.ts'
import {
  askForPermits,
  LIMIT_BATCH,
  permitKey,
  type Permit,
  type PermitAsk,
  type PermitTold,
} from '../redis/limiting.ts'
import type { Member } from '../redis/member.ts'
import { Gate } from './gate.ts'
import { Gathering } from './gathering.ts'
import type { Limit } from './limit.ts'
import { tollsOf, type Passage, type Toll } from './passage.ts'
import { PermitLines } from './permit-lines.ts'
import { Permits } from './permits.ts'
import { NEAR_MS, Slots } from './slots.ts'
import { Timetable } from './timetable.ts'

/**
 * Lets a worker's jobs begin within its limits. A job that is under one takes no slot of the worker while it waits: it is held as
 * what was fetched ahead is, with its lease renewed.
 *
 *   asked ─permits─▶ ─slots of its rates─▶ waits for its slot ─▶ passed: takes a slot of the worker ─▶ runs ─▶ permits back
 *     │     └─ none: waits here for one       └─ too far ahead                └─ too late for its slot: asks anew
 *     └──────────────┴── for long: goes to the scheduled set, and costs no attempt ──┘
 *
 * Permits come first: a slot is spent when it is over, and a permit is not. What goes away gives back what it holds; a slot that
 * was booked and not used is lost to the limit, at most a second's worth for a worker that dies.
 *
 * Where Redis does not answer, or the limiter's key holds something else, no job runs without its limit: it waits here a little, then
 * in the scheduled set, and asks again.
 */
export interface LimiterDeps {
  readonly connection: Connection
  readonly member: Member
  readonly logger: Logger
  readonly leaseMs: () => number
  /** The server's time. */
  readonly serverMs: () => number
  /** Whether the job still waits here: not lost, and not handed back by the keeper. */
  readonly isOurs: (delivery: Delivery) => boolean
  readonly isCancelled: (delivery: Delivery) => boolean
  /** How many jobs wait for their limits here. */
  readonly waiting: () => number
  /** It may begin; `enter` is to be called when there is a slot of the worker. */
  readonly onPassed: (delivery: Delivery) => void
  /** It does not wait here any more, and is not ours. */
  readonly onGone: (delivery: Delivery) => void
  /** It is to wait in the scheduled set. */
  readonly onWait: (delivery: Delivery, wait: { delayMs: number; why: string }) => void
  /** A job has to wait for a limit; told once for each that it waits for. */
  readonly onHeld: (limit: Limit) => void
  /** There may be room for more. */
  readonly onOpen: () => void
}

/** As many jobs wait here; further ones in the scheduled set. */
export const WAIT_HERE_MOST = 500
/** So long a job waits here for a permit where others need not wait with it. */
const PATIENCE_MS = 2000
/** A job that waits in the scheduled set comes back so much before its time. */
const LEAD_MS = 700
/** Between two tries of a job that waits for a permit, or for a Redis that answers. */
const AWAY_FIRST_MS = 1000
const AWAY_MOST_MS = 30_000
/** Tries here of what Redis does not answer. */
const FAILURES_HERE = 4
/**
 * A job that was too late for so many slots begins all the same: a loop that always comes too late would never begin one. What it
 * missed is counted in the rate, and so is its last slot: it comes closer to others than it should, and none is one too many.
 */
const LATE_MOST = 10

export class Limiter {
  readonly #deps: LimiterDeps
  readonly permits: Permits
  readonly #lines = new PermitLines()
  readonly #asks: Gathering<LimiterPlace, PermitAsk, PermitTold>
  readonly #slots: Slots
  readonly #timetable = new Timetable<() => void>((call) => call())
  readonly #passages = new Map<Delivery, Passage>()
  readonly #gates = new Map<Limit, Gate>()
  readonly #failing = new Set<string>()
  #asked = 0
  #untold = 0
  /** Those that wait for a limit which does not hold for all jobs. */
  #aside = 0
  #isStopped = false

  constructor(limits: readonly Limit[], deps: LimiterDeps) {
    this.#deps = deps
    const { connection, leaseMs } = deps
    this.permits = new Permits({ connection, leaseMs }, (permits) => this.#released(permits))
    this.#asks = new Gathering(LIMIT_BATCH, (limiter, asks) =>
      askForPermits(connection.client, limiter, asks, leaseMs()),
    )
    this.#slots = new Slots(
      connection,
      ({ limit }, inMs) => this.#gates.get(limit)?.told(inMs, inMs > NEAR_MS),
      () => this.#isFullHere,
    )
    for (const limit of limits) {
      if (!limit.holdsAll) continue
      const perSecond = limit.rate === undefined ? Infinity : 1e6 / limit.rate.intervalUs
      this.#gates.set(limit, new Gate(perSecond, deps.onOpen))
    }
  }

  /** How many jobs may be read now, as far as limits know, where so many slots of the worker are free. */
  roomBeside(slots: number): number {
    let room = this.#isFull ? 0 : Infinity
    // What was read and waits counts against what may be read: who asks knows of it before Redis has answered.
    // What waits for a key's limit takes nothing of a limit for all: it would keep the jobs of others out.
    const waiting = Math.max(0, this.#deps.waiting() - this.#aside)
    for (const gate of this.#gates.values()) room = Math.min(room, gate.roomBeside(slots) - waiting)
    return room
  }

  /** Jobs of which Redis has not said yet whether they have to wait: most of them need a slot of the worker in a moment. */
  get untold(): number {
    return this.#untold
  }

  /** How many jobs wait here for a limit, by its label. */
  get held(): ReadonlyMap<string, number> {
    const held = new Map<string, number>()
    for (const { waitsFor } of this.#passages.values()) {
      if (waitsFor !== undefined) held.set(waitsFor.label, (held.get(waitsFor.label) ?? 0) + 1)
    }
    return held
  }

  /** Takes a job that is to begin; `proceed` is called when it may, by `enter`. Undefined, or why it never can. */
  ask(delivery: Delivery, limits: readonly Limit[], data: unknown, proceed: () => void): string | undefined {
    const tolls = tollsOf(delivery, limits, data)
    if (typeof tolls === 'string') return tolls
    const { consumer } = this.#deps.member
    const passage: Passage = {
      ...{ delivery, tolls, proceed, permits: new Map(), slot: undefined, late: 0, failures: 0 },
      ...{ waitsFor: undefined, waitedFor: [], isAside: false, isTold: false, isOver: false },
      // A number: a job that is handed back and fetched again is another holder. The keeper reads the last two.
      holder: `${consumer} ${++this.#asked} ${delivery.stream} ${delivery.source} ${delivery.entryId}`,
    }
    this.#passages.set(delivery, passage)
    this.#untold += 1
    void this.#pass(passage)
    return undefined
  }

  /** A job that has passed has a slot of the worker now; false if it came too late for its own and waits anew. */
  enter(delivery: Delivery): boolean {
    const passage = this.#passages.get(delivery)
    if (passage === undefined) return false
    if (this.#isLate(passage) && passage.late < LATE_MOST) {
      passage.late += 1
      void this.#pass(passage)
      return false
    }
    for (const { limit } of passage.tolls) this.#gates.get(limit)?.begun()
    passage.proceed()
    return true
  }

  /** A job has ended, or does not wait here any more. */
  leave(delivery: Delivery): void {
    const passage = this.#passages.get(delivery)
    if (passage === undefined) return
    passage.isOver = true
    this.#passages.delete(delivery)
    this.#tell(passage)
    this.#stepAside(passage, false)
    this.#giveBack(passage)
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    this.#timetable.stop()
    this.#lines.wakeAll()
    for (const gate of this.#gates.values()) gate.stop()
    await this.permits.stop()
  }

  get #isFull(): boolean {
    return this.#deps.waiting() >= 2 * WAIT_HERE_MOST
  }

  /** As many wait here as may, and what was just read beside them. */
  get #isFullHere(): boolean {
    return this.#deps.waiting() >= WAIT_HERE_MOST
  }

  async #pass(passage: Passage): Promise<void> {
    for (;;) {
      const wait = await this.#tryToPass(passage)
      if (this.#isGone(passage)) return
      if (wait === undefined) {
        passage.waitsFor = undefined
        this.#tell(passage)
        this.#stepAside(passage, false)
        return this.#deps.onPassed(passage.delivery)
      }
      this.#giveBack(passage)
      this.#waits(passage, wait.toll.limit)
      if (wait.isAway || this.#isFullHere) {
        const { inMs, toll } = wait
        this.#passages.delete(passage.delivery)
        this.#stepAside(passage, false)
        return this.#deps.onWait(passage.delivery, {
          delayMs: Math.max(1, Math.round(inMs)),
          why: `the limit ${toll.limit.label}`,
        })
      }
      await this.#until(monotonicMs() + wait.inMs)
      if (this.#isGone(passage)) return
    }
  }

  /** Undefined once it has all that it needs, at the time of its slot; else what it has to wait for, and how long. */
  async #tryToPass(passage: Passage): Promise<Waits | undefined> {
    const refusal = await this.#takePermits(passage)
    if (refusal !== undefined || this.#isGone(passage)) return refusal
    const told = await this.#slots.take(passage)
    if (this.#isGone(passage)) return undefined
    if (told.kind === 'later') {
      const { inMs, toll } = told
      return { inMs: Math.max(1, inMs - LEAD_MS), isAway: inMs > NEAR_MS, toll }
    }
    if (told.kind === 'unknown') return this.#failed(passage, told.toll, told.error)
    for (const { limit } of passage.tolls) this.#recovered(limit)
    passage.failures = 0
    const { slot } = passage
    if (slot === undefined) return undefined
    const inMs = slot.atMs - this.#slots.clock.at(monotonicMs())
    if (inMs > 0) {
      // It has its slots, and begins in a moment.
      this.#waits(passage, slot.limit, false)
      await this.#until(monotonicMs() + inMs)
    }
    return undefined
  }

  /** One after the other, and none is held while another is waited for. */
  async #takePermits(passage: Passage): Promise<Waits | undefined> {
    const tolls = passage.tolls.filter(({ limit }) => limit.concurrency !== undefined)
    for (let tries = 0; tries < 5; tries++) {
      const told = await this.#takeAll(passage, tolls)
      if (told.kind === 'taken' || this.#isGone(passage)) return undefined
      this.#giveBack(passage)
      if (told.kind === 'unknown') return this.#failed(passage, told.toll, told.error)
      const isTaken = await this.#waitInLine(passage, told.toll)
      if (this.#isGone(passage)) return undefined
      if (isTaken) continue
      return { inMs: awayMs(passage.delivery, this.#deps.serverMs()), isAway: true, toll: told.toll }
    }
    return { inMs: AWAY_FIRST_MS, isAway: true, toll: tolls[0] as Toll }
  }

  async #takeAll(passage: Passage, tolls: readonly Toll[]): Promise<PermitsTold> {
    for (const toll of tolls) {
      if (passage.permits.has(toll)) continue
      // Who comes later does not overtake those that wait.
      if (this.#lines.has(permitKey(toll)) && passage.waitedFor.length === 0) return { kind: 'none', toll }
      const { kind, error } = await this.#takeOne(passage, toll)
      if (kind !== 'taken') return { kind, error, toll }
    }
    return { kind: 'taken' }
  }

  async #takeOne(passage: Passage, toll: Toll): Promise<{ kind: PermitTold; error: unknown }> {
    const { limiter, key, limit } = toll
    const { holder } = passage
    const permit: Permit = { limiter, key, holder }
    const ask = { key, holder, most: limit.concurrency ?? 1 }
    if (this.permits.countOf(permitKey(toll)) >= ask.most) return { kind: 'none', error: undefined }
    try {
      const kind = await this.#asks.ask(limiterKey(limiter, 'permits', undefined), limiter, ask)
      if (kind === 'taken') {
        this.permits.hold(permit)
        // It left while it was asked for.
        if (passage.isOver) this.permits.release([permit])
        else passage.permits.set(toll, permit)
      }
      return { kind, error: new Error('its key in Redis holds something else') }
    } catch (error) {
      return { kind: 'unknown', error }
    }
  }

  async #waitInLine(passage: Passage, toll: Toll): Promise<boolean> {
    const gate = this.#gates.get(toll.limit)
    if (this.#isFullHere && gate === undefined) return false
    gate?.waits(true)
    this.#waits(passage, toll.limit)
    const told = await this.#lines.wait(permitKey(toll), {
      ask: async () => (await this.#takeOne(passage, toll)).kind,
      isWanted: () => !this.#isStopped && this.#deps.isOurs(passage.delivery) && !this.#isCancelled(passage),
      untilMs: gate === undefined ? monotonicMs() + PATIENCE_MS : Infinity,
    })
    gate?.waits(false)
    return told !== 'none' || this.#isCancelled(passage)
  }

  #waits(passage: Passage, limit: Limit, isAside = !this.#gates.has(limit)): void {
    passage.waitsFor = limit
    this.#stepAside(passage, isAside)
    // It needs no slot for now: there is room for others.
    if (this.#tell(passage)) this.#deps.onOpen()
    if (passage.waitedFor.includes(limit)) return
    passage.waitedFor = [...passage.waitedFor, limit]
    this.#deps.onHeld(limit)
  }

  /** It stays so while it asks again: else what may be read would change with each of its tries. */
  #stepAside(passage: Passage, isAside: boolean): void {
    if (passage.isAside === isAside) return
    passage.isAside = isAside
    this.#aside += isAside ? 1 : -1
  }

  /** @returns whether it was not told before. */
  #tell(passage: Passage): boolean {
    if (passage.isTold) return false
    passage.isTold = true
    this.#untold -= 1
    return true
  }

  #isCancelled({ delivery }: Passage): boolean {
    return this.#deps.isCancelled(delivery)
  }

  /** It is said once until the limit works again. */
  #failed(passage: Passage, toll: Toll, error: unknown): Waits {
    const { label } = toll.limit
    if (!this.#failing.has(label) && !this.#isStopped) {
      this.#failing.add(label)
      this.#deps.logger.warn({ limit: label, fault: faultText(error) }, 'cannot ask for a limit now; its jobs wait')
    }
    const isAway = ++passage.failures > FAILURES_HERE
    const inMs = isAway ? awayMs(passage.delivery, this.#deps.serverMs()) : backoffMs(passage.failures, 50, 1000)
    return { inMs, isAway, toll }
  }

  #recovered({ label }: Limit): void {
    if (this.#failing.delete(label)) this.#deps.logger.warn({ limit: label }, 'the limit can be asked for again')
  }

  #isLate({ slot }: Passage): boolean {
    return slot !== undefined && this.#slots.clock.at(monotonicMs()) > slot.untilMs
  }

  #isGone(passage: Passage): boolean {
    if (passage.isOver) return true
    const { delivery } = passage
    if (this.#deps.isOurs(delivery)) return false
    this.leave(delivery)
    this.#deps.onGone(delivery)
    return true
  }

  #giveBack(passage: Passage): void {
    this.permits.release(passage.permits.values())
    passage.permits.clear()
  }

  #released(permits: readonly Permit[]): void {
    for (const permit of permits) this.#lines.wake(permitKey(permit))
  }

  #until(atMs: number): Promise<void> {
    return new Promise((resolve) => this.#timetable.add(atMs, resolve))
  }
}

/** What it waits for, how long, and whether that is in the scheduled set. */
interface Waits {
  readonly inMs: number
  readonly isAway: boolean
  readonly toll: Toll
}

type PermitsTold =
  { readonly kind: 'taken' } | { readonly kind: 'none' | 'unknown'; readonly toll: Toll; readonly error?: unknown }

/** A part of its age: nobody knows when a permit is given back, and a busy key has many jobs that wait for one. */
function awayMs({ publishedMs }: Delivery, serverMs: number): number {
  const upToMs = Math.min(AWAY_MOST_MS, Math.max(AWAY_FIRST_MS, (serverMs - publishedMs) / 4))
  return upToMs * (0.75 + Math.random() / 4)
}
