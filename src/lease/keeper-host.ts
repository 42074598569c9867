import { Worker as Thread } from 'node:worker_threads'
import { backoffMs } from '../clock.ts'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import type { RedisTarget } from '../redis/target.ts'
import type { ConnectionNumbers } from '../redis/connection-numbers.ts'
import { faultOf, faultText } from '../redis/faults.ts'
import { HealthRecord } from './health-record.ts'
import type { HealthPlace } from './health-server.ts'
import { HealthWatch } from './health-watch.ts'
import { Keeper, type KeeperReports, type KeeperSettings, type KeeperTask } from './keeper.ts'
import { KeptPermits, type PermitHolder } from './kept-permits.ts'
import type { KeeperNews, KeeperOrder, KeeperThreadData } from './keeper-thread.ts'
import { Leases } from './leases.ts'
import type { LeaseTable } from './table.ts'

/**
 * The main thread's side of the lease keeper: starts its thread, hears from it, and starts another if it dies. Until the
 * new one is heard of, a keeper in the main thread does the same work, so that a dead thread costs no lease.
 */

/** One stream whose leases are kept. */
export interface KeeperLane {
  readonly table: LeaseTable
  readonly settings: KeeperSettings
  readonly events: KeeperHostEvents
  readonly logger: Logger
  /** Who holds permits for the limits of this stream's jobs, if there are any. */
  readonly permits: PermitHolder | undefined
}

export interface KeeperHostEvents {
  pulse: KeeperReports['pulse']
  renewed: KeeperReports['renewed']
  /** A round of renewals could not be done. */
  unrenewed: () => void
  /** The group is gone, which nobody else sees while nothing is read. */
  lostGroup: () => void
  lost: KeeperReports['lost']
}

/** How often the main thread proves that its loop turns, in ms. */
const TICK_MS = 100

export class KeeperHost {
  readonly health: HealthRecord
  readonly #target: RedisTarget
  readonly #commands: Connection
  readonly #numbers: ConnectionNumbers
  /** The thread's connection as far as it is known here. */
  readonly #link = { isReady: false, wasReady: false }
  readonly #lanes: readonly Kept[]
  readonly #first: KeeperLane
  readonly #leases: Leases
  readonly #logger: Logger
  #thread: Thread | undefined
  #standIn: readonly Keeper[] | undefined
  #standInWatch: HealthWatch | undefined
  #ticking: NodeJS.Timeout | undefined
  #stopping = false
  #restarts = 0
  #restart: NodeJS.Timeout | undefined

  constructor(
    redis: { target: RedisTarget; commands: Connection; numbers: ConnectionNumbers },
    lanes: readonly [KeeperLane, ...KeeperLane[]],
    { logger, healthPlace }: { logger: Logger; healthPlace?: HealthPlace | undefined },
  ) {
    this.#target = redis.target
    this.#commands = redis.commands
    this.#numbers = redis.numbers
    this.#lanes = lanes.map((lane) => ({ ...lane, saidFaults: new Set(), keptHere: undefined }))
    this.#first = lanes[0]
    this.#leases = new Leases(lanes.map(({ settings }) => settings))
    this.#logger = logger
    this.health = new HealthRecord(healthPlace, logger)
  }

  /** The thread, for tests that kill it. */
  get thread(): Thread | undefined {
    return this.#thread
  }

  /** Resolves once health checks are answered, if they are asked for. @throws MillraceError ERR_LISTEN */
  async start(): Promise<void> {
    this.#lanes.forEach((kept, lane) => this.#hearOfPermits(kept, lane))
    this.#tick()
    this.#ticking = setInterval(() => this.#tick(), TICK_MS)
    this.#numbers.open.add(this.#link)
    this.#startThread(true)
    await this.health.served()
  }

  /** Another lease was declared for the group on the stream of this place. */
  follow(lane: number, leaseMs: number, pulseMs: number): void {
    const kept = this.#lanes[lane]
    if (kept === undefined) return
    kept.settings = { ...kept.settings, leaseMs, pulseMs }
    const longestMs = this.#leases.follow(lane, leaseMs)
    this.#standIn?.[lane]?.follow(leaseMs, pulseMs)
    this.#standInWatch?.follow(longestMs)
    this.#order({ kind: 'follow', lane, leaseMs, pulseMs })
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#numbers.open.delete(this.#link)
    clearInterval(this.#ticking)
    clearTimeout(this.#restart)
    const thread = this.#thread
    const standIn = this.#standIn
    this.#thread = undefined
    this.#standIn = undefined
    this.#standInWatch?.stop()
    if (thread !== undefined) {
      const ended = new Promise<void>((resolve) => {
        thread.once('exit', () => resolve())
        thread.on('message', (news: KeeperNews) => news.kind === 'stopped' && resolve())
      })
      thread.postMessage({ kind: 'stop' } satisfies KeeperOrder)
      const patience = setTimeout(() => void thread.terminate(), 2000)
      await ended
      clearTimeout(patience)
      await thread.terminate()
    }
    await stopAll(standIn)
    this.health.address = undefined
  }

  #startThread(isFirst: boolean): void {
    const entry = import.meta.url.endsWith('.ts') ? './keeper-thread.ts' : './keeper-thread.js'
    const workerData: KeeperThreadData = {
      target: this.#target,
      lanes: this.#lanes.map(({ table, settings, permits }) => {
        return { shared: table.shared, settings, permits: permits && [...permits.held] }
      }),
      place: this.health.place,
      isFirst,
    }
    const thread = new Thread(new URL(entry, import.meta.url), { workerData, name: 'millrace-lease-keeper' })
    this.#thread = thread
    thread.on('message', (news: KeeperNews) => this.#heard(news))
    thread.on('error', (error) => this.#logger.error({ fault: error.message }, 'the lease keeper thread failed'))
    thread.on('exit', () => this.#died(thread))
  }

  #heard(news: KeeperNews): void {
    if (this.#standIn !== undefined && news.kind === 'pulse') {
      this.#restarts = 0
      void stopAll(this.#standIn)
      this.#standInWatch?.stop()
      this.#standIn = undefined
      for (const kept of this.#lanes) kept.keptHere = undefined
    }
    switch (news.kind) {
      case 'pulse':
      case 'renewed':
      case 'lost':
      case 'returned':
      case 'permits-lost':
      case 'fault': {
        const lane = this.#lanes[news.lane]
        if (lane !== undefined) this.#heardOf(lane, news)
        break
      }
      case 'stopped':
        break
      case 'condition':
      case 'listening':
      case 'not-listening':
        this.health.heard(news)
    }
  }

  #heardOf(lane: Kept, news: Extract<KeeperNews, { lane: number }>): void {
    switch (news.kind) {
      case 'pulse':
        lane.saidFaults.clear()
        this.#linked()
        lane.events.pulse(news.reply)
        break
      case 'renewed':
        lane.events.renewed(news.count)
        break
      case 'lost':
        lane.events.lost(news.rows)
        break
      case 'returned':
        lane.logger.warn(
          { jobs: news.slots },
          'the event loop stood still for a lease; prefetched jobs were handed back',
        )
        break
      case 'permits-lost':
        lane.permits?.lost(news.permits)
        break
      case 'fault':
        this.#faulted(lane, news)
    }
  }

  #died(thread: Thread): void {
    if (this.#stopping || this.#thread !== thread) return
    this.#thread = undefined
    this.#logger.error({}, 'the lease keeper thread ended; the main thread renews until the next one is up')
    if (this.#standIn === undefined) {
      this.#standIn = this.#lanes.map((lane) => this.#newKeeper(lane))
      for (const keeper of this.#standIn) keeper.start()
      this.#standInWatch = this.#newWatch()
      this.#standInWatch.start()
    }
    this.#restart = setTimeout(() => this.#startThread(false), backoffMs(this.#restarts++, 100, 10_000))
  }

  #newKeeper(lane: Kept): Keeper {
    lane.keptHere = lane.permits && new KeptPermits(lane.permits.held)
    const place = { connection: this.#commands, vitals: this.#first.table.vitals, permits: lane.keptHere }
    return new Keeper(place, lane.table, lane.settings, {
      pulse: (reply) => lane.events.pulse(reply),
      renewed: (count) => lane.events.renewed(count),
      lost: (rows) => lane.events.lost(rows),
      returned: () => {},
      permitsLost: (permits) => lane.permits?.lost(permits),
      fault: (error, what) => this.#faulted(lane, { what, fault: faultText(error), code: faultOf(error).word }),
    })
  }

  #hearOfPermits(kept: Kept, lane: number): void {
    if (kept.permits === undefined) return
    kept.permits.onChange = (change) => {
      this.#order({ kind: 'permits', lane, change })
      kept.keptHere?.change(change)
    }
  }

  #linked(): void {
    if (!this.#link.isReady && this.#link.wasReady) this.#numbers.reconnects += 1
    this.#link.isReady = this.#link.wasReady = true
  }

  #faulted(lane: Kept, { what, fault, code }: { what: KeeperTask; fault: string; code: string }): void {
    this.#numbers.countCode(code)
    // What Redis has answered came over a connection.
    if (code === 'closed') this.#link.isReady = false
    if (what === 'renew') lane.events.unrenewed()
    if (fault.includes('NOGROUP')) lane.events.lostGroup()
    this.#sayFault(lane, fault, what)
  }

  #newWatch(): HealthWatch {
    const { table, settings } = this.#first
    const limits = { stallMs: settings.stallMs, leaseMs: this.#leases.longest, hasJustJoined: false }
    return new HealthWatch({ target: this.#target, table }, limits, (condition) =>
      this.health.heard({ kind: 'condition', condition }),
    )
  }

  /** A fault is told once until things work again: an outage must not fill the log. */
  #sayFault({ saidFaults, logger }: Kept, text: string, what: string): void {
    if (this.#stopping || saidFaults.has(text) || saidFaults.size > 20) return
    saidFaults.add(text)
    logger.warn({ what, fault: text }, 'the lease keeper cannot reach Redis as it should; it goes on trying')
  }

  #tick(): void {
    for (const { table } of this.#lanes) table.tick()
  }

  #order(order: KeeperOrder): void {
    this.#thread?.postMessage(order)
  }
}

/** A stream as it is kept now. */
interface Kept extends KeeperLane {
  settings: KeeperSettings
  /** What the stand-in renews of it, as long as there is one. */
  keptHere: KeptPermits | undefined
  readonly saidFaults: Set<string>
}

async function stopAll(keepers: readonly Keeper[] | undefined): Promise<void> {
  await Promise.all((keepers ?? []).map((keeper) => keeper.stop()))
}
