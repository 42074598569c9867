import { monotonicMs, sleep } from '../clock.ts'
import type { Connection } from '../redis/connection.ts'
import { compareIds } from '../redis/entry-id.ts'
import { faultOf } from '../redis/faults.ts'
import { SOURCES, type Member } from '../redis/member.ts'
import { handBackAll, NO_CANCELS, renew, sendPulse, type PulseReply } from '../redis/stream.ts'
import type { Permit } from '../redis/limiting.ts'
import type { KeptPermits } from './kept-permits.ts'
import { PREFETCHED, RUNNING, UNSETTLED, type HeldRow, type LeaseTable } from './table.ts'
import type { Vitals } from './vitals.ts'

/**
 * Keeps the leases of what this worker holds, and its presence.
 *
 * It lives in a thread of its own (keeper-thread.ts), so that a handler which blocks the event loop keeps its lease; while
 * that thread is being restarted the main thread runs one as a stand-in. Both read the same table.
 *
 * - Every third of a lease it renews what the table holds and is still ours, and reports what is lost.
 * - Every pulse it writes the worker's presence and brings back the group's settings and whether to look for claims.
 * - If the main thread's loop has not ticked for a lease, jobs that were only prefetched are handed back: they could run
 *   elsewhere now. Running ones are still renewed, until nothing has ticked for `stallMs`: then nobody knows any more
 *   whether they run at all.
 * - A job past its timeout is not renewed.
 * - The permits of running jobs, for limits, are renewed in the same rounds; those of jobs that are handed back are given back.
 *
 * A worker on several streams has a keeper for each, with a table of its own; all of them live in one thread, share its
 * connection, and write down the worker's signs of life in one place.
 */

/** What a keeper is told once. Plain data: it crosses a thread boundary. */
export interface KeeperSettings {
  readonly member: Member
  readonly leaseMs: number
  readonly pulseMs: number
  readonly stallMs: number
  /** What the presence says of this worker besides its counts. */
  readonly about: Readonly<Record<string, string | number>>
}

/** What a keeper tells. */
export interface KeeperReports {
  pulse(reply: PulseReply): void
  /** A round of renewals is done, of so many leases. */
  renewed(count: number): void
  lost(rows: readonly { slot: number; generation: number }[]): void
  returned(slots: number): void
  /** Permits that Redis does not know any more. */
  permitsLost(permits: readonly Permit[]): void
  fault(error: unknown, what: KeeperTask): void
}

export type KeeperTask = 'renew' | 'pulse' | 'permits'

export interface KeeperCounts {
  readonly renewed: number
  readonly lost: number
  readonly returned: number
}

/** Ids per call of the renewal script. */
const RENEW_BATCH = 400

export class Keeper {
  readonly #connection: Connection
  readonly #table: LeaseTable
  readonly #vitals: Vitals
  readonly #reports: KeeperReports
  readonly #permits: KeptPermits | undefined
  #settings: KeeperSettings
  #stopped = new AbortController()
  #loops: Promise<unknown> = Promise.resolve()
  #ticks = -1
  #tickedAtMs = monotonicMs()
  #completed = 0
  #countedAtMs = monotonicMs()
  #perSecond = 0
  #cancelCursor = NO_CANCELS

  constructor(
    { connection, vitals, permits }: { connection: Connection; vitals: Vitals; permits?: KeptPermits | undefined },
    table: LeaseTable,
    settings: KeeperSettings,
    reports: KeeperReports,
  ) {
    this.#connection = connection
    this.#vitals = vitals
    this.#permits = permits
    this.#table = table
    this.#settings = settings
    this.#reports = reports
  }

  start(): void {
    this.#loops = Promise.all([this.#renewing(), this.#pulsing()])
  }

  async stop(): Promise<void> {
    this.#stopped.abort()
    await this.#loops
  }

  /** Another lease was declared for the group: the group's counts. */
  follow(leaseMs: number, pulseMs: number): void {
    this.#settings = { ...this.#settings, leaseMs, pulseMs }
  }

  /** One round of renewals. */
  async runOnce(): Promise<KeeperCounts> {
    const { leaseMs, stallMs } = this.#settings
    const silentMs = this.#silentMs()
    if (silentMs > stallMs) return { renewed: 0, lost: 0, returned: 0 }
    const returned = silentMs > leaseMs ? await this.#handBackPrefetched() : 0
    const nowMs = monotonicMs()
    const rows = this.#table
      .held([PREFETCHED, RUNNING, UNSETTLED])
      .filter(({ slot, state }) => state !== RUNNING || !this.#table.isOverdue(slot, nowMs))
    const lost: HeldRow[] = []
    for (const source of SOURCES) {
      const ours = rows.filter((row) => row.source === source).sort((a, b) => compareIds(a.id, b.id))
      for (let from = 0; from < ours.length; from += RENEW_BATCH) {
        const batch = ours.slice(from, from + RENEW_BATCH)
        // A prefetched job's count may be on its way up right now; for it the owner is fence enough, as nothing runs yet.
        const held = batch.map(({ id, state, deliveries }) => ({
          id,
          deliveries: state === PREFETCHED ? 0 : deliveries,
        }))
        const positions = await renew(this.#connection.client, this.#settings.member, {
          source,
          held,
          youngMs: leaseMs / 4,
        })
        for (const position of positions) {
          const row = batch[position]
          if (row !== undefined) lost.push(row)
        }
      }
    }
    if (rows.length > 0) this.#vitals.count('answers')
    if (lost.length > 0) this.#reports.lost(lost.map(({ slot, generation }) => ({ slot, generation })))
    const counts = { renewed: rows.length - lost.length, lost: lost.length }
    this.#reports.renewed(counts.renewed)
    await this.#renewPermits(leaseMs)
    return { ...counts, returned }
  }

  /** After the leases: a Redis that refuses the limiter's keys must not cost one. */
  async #renewPermits(leaseMs: number): Promise<void> {
    if (this.#permits === undefined) return
    const { gone, fault } = await this.#permits.renew(this.#connection, leaseMs)
    if (gone.length > 0) this.#reports.permitsLost(gone)
    if (fault !== undefined) this.#reports.fault(fault, 'permits')
  }

  async #renewing(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      const startedMs = monotonicMs()
      let pauseMs = this.#settings.leaseMs / 3
      try {
        await this.#connection.ready(this.#settings.leaseMs)
        await this.runOnce()
        this.#vitals.count('renewals')
        pauseMs = Math.max(0, pauseMs - (monotonicMs() - startedMs))
      } catch (error) {
        // Soon again: after an outage the keepers must have renewed before claims begin.
        pauseMs = this.#settings.pulseMs / 4
        if (faultOf(error).kind === 'refused') this.#vitals.count('refusals')
        this.#reports.fault(error, 'renew')
      }
      await sleep(pauseMs, this.#stopped.signal)
    }
  }

  async #pulsing(): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      try {
        await this.#connection.ready(this.#settings.leaseMs)
        if (this.#silentMs() <= this.#settings.stallMs) {
          const reply = await this.#pulse()
          this.#reports.pulse(reply)
          if (reply.moreCancelled) continue
        }
      } catch (error) {
        this.#reports.fault(error, 'pulse')
      }
      await sleep(this.#settings.pulseMs * (0.9 + Math.random() * 0.2), this.#stopped.signal)
    }
  }

  async #pulse(): Promise<PulseReply> {
    const { member, leaseMs, pulseMs, about } = this.#settings
    const { running, claimRoom } = this.#table.reported
    const told = JSON.stringify({ ...about, running, perSecond: this.#rate() })
    const cancelCursor = this.#cancelCursor
    const asked = { pulseMs, leaseMs, about: told, cancelCursor }
    const reply = await sendPulse(this.#connection.client, member, asked)
    this.#cancelCursor = reply.cancelCursor
    this.#vitals.count('answers')
    // A worker whose loop stands still, or that has no room, must leave the claim tick to others.
    const able = claimRoom > 0 && this.#silentMs() < pulseMs * 2
    return { ...reply, claimDue: reply.claimDue && able }
  }

  /** Completed jobs a second, smoothed over a few pulses. */
  #rate(): number {
    const { completed } = this.#table.reported
    const nowMs = monotonicMs()
    const elapsedMs = Math.max(1, nowMs - this.#countedAtMs)
    const latest = (((completed - this.#completed) >>> 0) * 1000) / elapsedMs
    const weight = Math.min(1, elapsedMs / 3000)
    this.#perSecond += (latest - this.#perSecond) * weight
    this.#completed = completed
    this.#countedAtMs = nowMs
    return Math.round(this.#perSecond * 10) / 10
  }

  /** For how long the main thread's loop has not ticked. */
  #silentMs(): number {
    const ticks = this.#table.ticks
    if (ticks !== this.#ticks) {
      this.#ticks = ticks
      this.#tickedAtMs = monotonicMs()
    }
    return monotonicMs() - this.#tickedAtMs
  }

  async #handBackPrefetched(): Promise<number> {
    const table = this.#table
    const given = table
      .held([PREFETCHED])
      .filter(({ slot }) => table.giveBack(slot))
      .map((row) => table.returned(row))
    for (const source of SOURCES) {
      const held = given
        .filter((row) => row.source === source)
        .map(({ id, deliveries, claimed }) => ({
          id,
          deliveries,
          newDeliveries: claimed ? deliveries : deliveries - 1,
        }))
      if (held.length === 0) continue
      // If this fails, nobody renews them any more and they are claimed a lease later: late, not lost.
      await handBackAll(this.#connection.client, this.#settings.member, source, held)
    }
    await this.#permits?.handedBack(this.#connection, given).catch(() => {})
    if (given.length > 0) this.#reports.returned(given.length)
    return given.length
  }
}
