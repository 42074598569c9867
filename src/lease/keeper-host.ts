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
import { Keeper, type KeeperReports, type KeeperSettings } from './keeper.ts'
import type { KeeperNews, KeeperOrder, KeeperThreadData } from './keeper-thread.ts'
import type { LeaseTable } from './table.ts'

/**
 * The main thread's side of the lease keeper: starts its thread, hears from it, and starts another if it dies. Until the
 * new one is heard of, a keeper in the main thread does the same work, so that a dead thread costs no lease.
 */

export interface KeeperHostEvents {
  pulse: KeeperReports['pulse']
  renewed: KeeperReports['renewed']
  /** A round of renewals could not be done. */
  unrenewed: () => void
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
  readonly #table: LeaseTable
  readonly #events: KeeperHostEvents
  readonly #logger: Logger
  #settings: KeeperSettings
  #thread: Thread | undefined
  #standIn: Keeper | undefined
  #standInWatch: HealthWatch | undefined
  #ticking: NodeJS.Timeout | undefined
  #stopping = false
  #restarts = 0
  #restart: NodeJS.Timeout | undefined
  readonly #saidFaults = new Set<string>()

  constructor(
    redis: { target: RedisTarget; commands: Connection; numbers: ConnectionNumbers },
    table: LeaseTable,
    settings: KeeperSettings,
    {
      events,
      logger,
      healthPlace,
    }: { events: KeeperHostEvents; logger: Logger; healthPlace?: HealthPlace | undefined },
  ) {
    this.#target = redis.target
    this.#commands = redis.commands
    this.#numbers = redis.numbers
    this.#table = table
    this.#settings = settings
    this.#events = events
    this.#logger = logger
    this.health = new HealthRecord(healthPlace, logger)
  }

  /** The thread, for tests that kill it. */
  get thread(): Thread | undefined {
    return this.#thread
  }

  /** Resolves once health checks are answered, if they are asked for. @throws MillraceError ERR_LISTEN */
  async start(): Promise<void> {
    this.#table.tick()
    this.#ticking = setInterval(() => this.#table.tick(), TICK_MS)
    this.#numbers.open.add(this.#link)
    this.#startThread(true)
    await this.health.served()
  }

  /** One round of renewals from the main thread. */
  async runOnce(): Promise<{ renewed: number; lost: number }> {
    return (this.#standIn ?? this.#newKeeper()).runOnce()
  }

  follow(leaseMs: number, pulseMs: number): void {
    this.#settings = { ...this.#settings, leaseMs, pulseMs }
    this.#standIn?.follow(leaseMs, pulseMs)
    this.#standInWatch?.follow(leaseMs)
    this.#order({ kind: 'follow', leaseMs, pulseMs })
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
    await standIn?.stop()
    this.health.address = undefined
  }

  #startThread(isFirst: boolean): void {
    const entry = import.meta.url.endsWith('.ts') ? './keeper-thread.ts' : './keeper-thread.js'
    const workerData: KeeperThreadData = {
      target: this.#target,
      shared: this.#table.shared,
      settings: this.#settings,
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
      void this.#standIn.stop()
      this.#standInWatch?.stop()
      this.#standIn = undefined
    }
    switch (news.kind) {
      case 'pulse':
        this.#saidFaults.clear()
        this.#linked()
        this.#events.pulse(news.reply)
        break
      case 'renewed':
        this.#events.renewed(news.count)
        break
      case 'lost':
        this.#events.lost(news.rows)
        break
      case 'returned':
        this.#logger.warn(
          { jobs: news.slots },
          'the event loop stood still for a lease; prefetched jobs were handed back',
        )
        break
      case 'fault':
        this.#faulted(news)
        break
      case 'stopped':
        break
      case 'condition':
      case 'listening':
      case 'not-listening':
        this.health.heard(news)
    }
  }

  #died(thread: Thread): void {
    if (this.#stopping || this.#thread !== thread) return
    this.#thread = undefined
    this.#logger.error({}, 'the lease keeper thread ended; the main thread renews until the next one is up')
    if (this.#standIn === undefined) {
      this.#standIn = this.#newKeeper()
      this.#standIn.start()
      this.#standInWatch = this.#newWatch()
      this.#standInWatch.start()
    }
    this.#restart = setTimeout(() => this.#startThread(false), backoffMs(this.#restarts++, 100, 10_000))
  }

  #newKeeper(): Keeper {
    return new Keeper(this.#commands, this.#table, this.#settings, {
      pulse: (reply) => this.#events.pulse(reply),
      renewed: (count) => this.#events.renewed(count),
      lost: (rows) => this.#events.lost(rows),
      returned: () => {},
      fault: (error, what) => this.#faulted({ what, fault: faultText(error), code: faultOf(error).word }),
    })
  }

  #linked(): void {
    if (!this.#link.isReady && this.#link.wasReady) this.#numbers.reconnects += 1
    this.#link.isReady = this.#link.wasReady = true
  }

  #faulted({ what, fault, code }: { what: 'renew' | 'pulse'; fault: string; code: string }): void {
    this.#numbers.countCode(code)
    // What Redis has answered came over a connection.
    if (code === 'closed') this.#link.isReady = false
    if (what === 'renew') this.#events.unrenewed()
    this.#sayFault(fault, what)
  }

  #newWatch(): HealthWatch {
    const redis = { target: this.#target, table: this.#table }
    return new HealthWatch(redis, { ...this.#settings, hasJustJoined: false }, (condition) =>
      this.health.heard({ kind: 'condition', condition }),
    )
  }

  /** A fault is told once until things work again: an outage must not fill the log. */
  #sayFault(text: string, what: string): void {
    if (this.#stopping || this.#saidFaults.has(text) || this.#saidFaults.size > 20) return
    this.#saidFaults.add(text)
    this.#logger.warn({ what, fault: text }, 'the lease keeper cannot reach Redis as it should; it goes on trying')
  }

  #order(order: KeeperOrder): void {
    this.#thread?.postMessage(order)
  }
}
