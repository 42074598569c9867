import { monotonicMs, sleep } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import type { Dispatcher } from './dispatcher.ts'
import type { Executor } from './executor.ts'
import type { Holdings } from './holdings.ts'
import type { Logger } from './logger.ts'
import type { Connection } from './redis/connection.ts'
import { faultText } from './redis/faults.ts'
import { SOURCES, type Member } from './redis/member.ts'
import { settleAsGone } from './redis/settling.ts'
import { claimStalled, forget, type Claimed, type SweepCursors } from './redis/stream.ts'

/**
 * Takes over what others left: entries that were handed back, and entries whose lease nobody renewed. The pulse says when
 * there is something to look for; the pass then works until nothing is expired or there is no room, whatever backlog waits
 * for the fetcher. Who may claim when is decided in the claim script, in Redis, for all workers at once.
 *
 * What has used up its deliveries is dead-lettered here; the rest goes to the head of the local queue.
 */
export interface ClaimerDeps {
  readonly connection: Connection
  readonly member: Member
  readonly holdings: Holdings
  readonly dispatcher: Dispatcher
  readonly executor: Executor
  readonly counts: WorkerCounts
  readonly logger: Logger
  readonly group: () => { leaseMs: number; pulseMs: number; maxDeliveries: number }
}

export interface ClaimCounts {
  readonly claimed: number
  readonly dead: number
  /** Why the pass ended. */
  readonly state: Claimed['state'] | 'no-room'
}

/** How often consumers that are gone are looked for, and after how long they count as gone, at least. */
const FORGET_EVERY_MS = 60_000

export class Claimer {
  readonly #deps: ClaimerDeps
  #cursors: SweepCursors = { stream: '0-0', redelivery: '0-0' }
  #pass: Promise<ClaimCounts> | undefined
  #stopped = false
  #forgotAtMs = monotonicMs()

  constructor(deps: ClaimerDeps) {
    this.#deps = deps
  }

  /** Begins a pass unless one is under way; the pulse calls it. */
  start(): void {
    if (this.#stopped || this.#pass !== undefined) return
    void this.runOnce().catch((error: unknown) => {
      if (this.#deps.connection.fault(error).kind !== 'fatal') return
      this.#deps.logger.error({ fault: faultText(error) }, 'cannot claim')
    })
  }

  /** One pass. A second call while one is under way waits for that one. */
  async runOnce(): Promise<ClaimCounts> {
    this.#pass ??= this.#claimAll().finally(() => {
      this.#pass = undefined
    })
    return this.#pass
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#pass?.catch(() => {})
  }

  async #claimAll(): Promise<ClaimCounts> {
    const { connection, member, dispatcher, counts } = this.#deps
    let [claimed, dead, mode] = [0, 0, 'take' as 'take' | 'go']
    while (!this.#stopped) {
      const room = dispatcher.claimRoom
      if (room <= 0) {
        this.#sayClaimed(claimed, dead)
        return { claimed, dead, state: 'no-room' }
      }
      const { leaseMs, pulseMs } = this.#deps.group()
      const asked = { mode, leaseMs, pulseMs, room, cursors: this.#cursors, avoided: this.#deps.holdings.avoided() }
      const found = await claimStalled(connection.client, member, asked)
      if (mode === 'take' && found.state !== 'taken' && found.state !== 'quiet') counts.claimPasses += 1
      this.#cursors = found.cursors
      counts.gone += found.gone.length
      const taken = this.#take(found.rows)
      await this.#countGone(found.gone)
      claimed += taken.claimed
      dead += taken.dead
      if (found.state !== 'more') {
        this.#sayClaimed(claimed, dead)
        await this.#forgetGone()
        return { claimed, dead, state: found.state }
      }
      mode = 'go'
    }
    return { claimed, dead, state: 'done' }
  }

  #sayClaimed(claimed: number, dead: number): void {
    if (claimed + dead === 0) return
    this.#deps.logger.info({ claimed, dead }, 'claimed jobs that other workers had left')
  }

  #take(rows: Claimed['rows']): { claimed: number; dead: number } {
    const { holdings, dispatcher, executor, counts } = this.#deps
    if (rows.length === 0) return { claimed: 0, dead: 0 }
    const { maxDeliveries } = this.#deps.group()
    // A sweep also finds what we hold ourselves, if renewals did not get through: it is renewed by that, and goes on.
    holdings.releaseReturned()
    const held = new Set(holdings.all().map(({ source, entryId }) => `${source} ${entryId}`))
    let [claimed, dead] = [0, 0]
    for (const { source, id, deliveries } of rows) {
      if (held.has(`${source} ${id}`)) continue
      const delivery = holdings.adopt(source, { entryId: id, deliveries })
      if (delivery === undefined) continue
      if (deliveries >= maxDeliveries) {
        dead += 1
        void executor.buryUnrun(delivery).catch(() => holdings.release(delivery))
      } else {
        claimed += 1
        dispatcher.claimed(delivery)
      }
    }
    counts.claimed += claimed
    dispatcher.dispatch()
    return { claimed, dead }
  }

  /** The claim has taken them out of the pending list: from here on nobody else could tell that they are gone. */
  async #countGone(gone: Claimed['gone']): Promise<void> {
    const { connection, member, logger } = this.#deps
    for (const source of SOURCES) {
      const ids = gone.filter((one) => one.source === source).map(({ id }) => id)
      if (ids.length === 0) continue
      try {
        await settleAsGone(connection.client, member, { source, ids, isAcked: true })
      } catch (error) {
        connection.fault(error)
        const told = { entries: ids.length, entryIds: ids, fault: faultText(error) }
        logger.warn(told, 'entries were deleted while they were pending, and could not be counted as gone')
      }
    }
  }

  async #forgetGone(): Promise<void> {
    if (monotonicMs() - this.#forgotAtMs < FORGET_EVERY_MS) return
    this.#forgotAtMs = monotonicMs()
    const forgetMs = Math.max(FORGET_EVERY_MS, this.#deps.group().leaseMs * 6)
    await forget(this.#deps.connection.client, this.#deps.member, forgetMs)
    await sleep(0)
  }
}
