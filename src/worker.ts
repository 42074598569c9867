import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { Claimer } from './claimer.ts'
import { monotonicMs, sleep } from './clock.ts'
import { newCounts, type WorkerCounts } from './counts.ts'
import type { Delivery } from './delivery.ts'
import { Dispatcher } from './dispatcher.ts'
import { LeaseLostError, messageOf, MillraceError, StoppingError } from './errors.ts'
import { Executor } from './executor.ts'
import { Fetcher } from './fetcher.ts'
import { Holdings } from './holdings.ts'
import { KeeperHost } from './lease/keeper-host.ts'
import { Connection } from './redis/connection.ts'
import { SOURCES, type Member } from './redis/member.ts'
import { begin, handBackAll, join, leave, listStream, readRaw, type PulseReply } from './redis/stream.ts'
import { Settler } from './settler.ts'
import { DEFAULT_RETENTION, Trimmer } from './trimmer.ts'
import { pulseMsFor, resolveWorkerOptions, type ResolvedWorkerOptions, type WorkerOptions } from './worker-options.ts'

/**
 * One member of a group. It owns the parts and says when they begin and end:
 *
 *   new ──start()──▶ running ──stop()──▶ draining ──▶ stopped
 *
 * - start: connect, join the group (or refuse a group nobody knows), then keep leases, read, claim, trim.
 * - draining: no new reads; what was only prefetched is handed back at once; what runs may finish within drainMs; then its
 *   signal aborts, and what still has not ended is handed back too, at no cost to its deliveries. Outcomes are settled, the
 *   worker leaves the group's list, and only then are the leases let go.
 *
 * A worker that is killed does none of this: its leases run out and the claimers of the others take over. Its consumer name
 * is new at every start, since the name is what ownership is checked against.
 */

/** A read waits this long for entries; short enough for a connection that died in silence to be found soon. */
const BLOCK_MS = 5000
/** Between the abort of the running handlers and the hand-back of those that did not heed it. */
const ABORT_GRACE_MS = 250
/** How long outcomes may take to be settled at a stop, beyond the drain. */
const SETTLE_MS = 5000

export class Worker {
  readonly #options: ResolvedWorkerOptions
  readonly #member: Member
  readonly #commands: Connection
  readonly #holdings: Holdings
  readonly #counts: WorkerCounts = newCounts()
  readonly #settler: Settler
  readonly #dispatcher: Dispatcher
  readonly #executor: Executor
  readonly #claimer: Claimer
  readonly #fetcher: Fetcher
  readonly #trimmer: Trimmer
  #keeper: KeeperHost | undefined
  #group: { leaseMs: number; pulseMs: number; maxDeliveries: number }
  #reporting: NodeJS.Timeout | undefined
  #state: 'new' | 'running' | 'draining' | 'stopped' = 'new'
  #stopped: Promise<StopResult> | undefined
  #rejoining: Promise<void> | undefined

  /** @throws OptionError on an unknown, wrong or impossible option; nothing was opened then. */
  constructor(options: WorkerOptions) {
    const own = resolveWorkerOptions(options)
    this.#options = own
    const { stream, group, leaseMs, maxDeliveries, concurrency, logger } = own
    const host = hostname().replace(/[^A-Za-z0-9_.-]/g, '_')
    const consumer = `${host}:${process.pid}:${randomBytes(6).toString('hex')}`
    const member = { stream, group, consumer }
    this.#member = member
    this.#group = { leaseMs, maxDeliveries, pulseMs: pulseMsFor(leaseMs) }
    this.#commands = new Connection(own.target, { role: 'worker', socketTimeoutMs: 5000 })
    this.#holdings = new Holdings(member, concurrency * 4 + 2048)
    const [holdings, counts, connection] = [this.#holdings, this.#counts, this.#commands]
    const settler = new Settler(
      { connection, member },
      { holdings, counts, logger, onSettled: () => this.#dispatcher.dispatch() },
    )
    this.#settler = settler
    this.#dispatcher = new Dispatcher({
      concurrency,
      holdings,
      counts,
      executor: () => this.#executor,
      begin: (source, claimed) => begin(connection.client, member, source, claimed),
    })
    const dispatcher = this.#dispatcher
    this.#executor = new Executor({
      handlers: own.handlers,
      holdings,
      settler,
      counts,
      logger,
      timeoutMs: own.timeoutMs,
      maxDeliveries: () => this.#group.maxDeliveries,
      readRaw: ({ source, entryId }) => readRaw(connection.client, member, source, entryId),
      onEnded: (delivery) => dispatcher.ended(delivery),
    })
    const executor = this.#executor
    this.#claimer = new Claimer({
      connection,
      member,
      holdings,
      dispatcher,
      executor,
      counts,
      logger,
      group: () => this.#group,
    })
    this.#fetcher = new Fetcher({
      target: own.target,
      commands: connection,
      member,
      dispatcher,
      logger,
      rejoin: () => this.#rejoin(),
      blockMs: BLOCK_MS,
    })
    this.#trimmer = new Trimmer({ connection, member, retention: DEFAULT_RETENTION, counts, logger })
  }

  get stream(): string {
    return this.#member.stream
  }

  get group(): string {
    return this.#member.group
  }

  /** The name that this worker's pending entries are under in Redis. */
  get consumer(): string {
    return this.#member.consumer
  }

  /** What this worker has done so far. */
  get counts(): Readonly<WorkerCounts> {
    return { ...this.#counts }
  }

  /** What the group's workers follow: the lease and the deliveries that its first worker declared. */
  get groupSettings(): { readonly leaseMs: number; readonly maxDeliveries: number } {
    return { leaseMs: this.#group.leaseMs, maxDeliveries: this.#group.maxDeliveries }
  }

  /**
   * Connects, joins the group and begins to work.
   * @throws RedisError if Redis cannot be reached within 10 s or refuses us; UnknownGroupError for a further group without
   * `startAt`; MillraceError ERR_WORKER_STATE if it was started before.
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') {
      throw new MillraceError('ERR_WORKER_STATE', `this worker is ${this.#state}; make a new one to start again`)
    }
    this.#state = 'running'
    try {
      await this.#commands.ready(10_000)
      await this.#join(this.#options.startAt)
    } catch (error) {
      this.#state = 'stopped'
      this.#commands.close()
      throw error
    }
    void listStream(this.#commands.client, this.stream)
    this.#keeper = this.#newKeeper()
    this.#keeper.start()
    this.#reporting = setInterval(() => this.#report(), 100)
    this.#report()
    this.#fetcher.start()
    this.#trimmer.start()
  }

  /** Stops, finishing what runs within `drainMs`; see above. Calling it again waits for the same end. */
  async stop({ drainMs = this.#options.drainMs }: { drainMs?: number } = {}): Promise<StopResult> {
    if (this.#state === 'new') {
      this.#state = 'stopped'
      this.#commands.close()
    }
    if (this.#state === 'stopped' && this.#stopped === undefined) return { handedBack: 0, unsettled: 0 }
    this.#stopped ??= this.#drain(drainMs)
    return this.#stopped
  }

  /** Works until SIGTERM or SIGINT, then drains. A second signal ends the process now. */
  async run(): Promise<StopResult> {
    await this.start()
    return new Promise((resolve, reject) => {
      let asked = false
      const onSignal = (signal: NodeJS.Signals) => {
        if (asked) process.exit(signal === 'SIGINT' ? 130 : 143)
        asked = true
        this.stop()
          .then(resolve, reject)
          .finally(() => {
            process.off('SIGTERM', onSignal)
            process.off('SIGINT', onSignal)
          })
      }
      process.on('SIGTERM', onSignal)
      process.on('SIGINT', onSignal)
    })
  }

  async #drain(drainMs: number): Promise<StopResult> {
    this.#state = 'draining'
    const untilMs = monotonicMs() + drainMs
    await Promise.all([this.#fetcher.stop(), this.#claimer.stop(), this.#trimmer.stop()])
    let handedBack = await this.#handBack(await this.#dispatcher.close(1000))
    while (this.#dispatcher.running > 0 && monotonicMs() < untilMs) await sleep(5)
    if (this.#dispatcher.running > 0) {
      for (const delivery of this.#holdings.running()) delivery.end(new StoppingError(this.stream, delivery.id))
      const graceMs = monotonicMs() + ABORT_GRACE_MS
      while (this.#dispatcher.running > 0 && monotonicMs() < graceMs) await sleep(5)
    }
    handedBack += await this.#handBack(this.#holdings.running())
    const unsettled = await this.#settler.stop(SETTLE_MS)
    if (this.#commands.isReady) await leave(this.#commands.client, this.#member).catch(() => {})
    clearInterval(this.#reporting)
    await this.#keeper?.stop()
    this.#commands.close()
    this.#state = 'stopped'
    return { handedBack, unsettled }
  }

  /** Gives back what did not run, or did not end; a delivery that was counted for it is taken off the count again. */
  async #handBack(deliveries: Delivery[]): Promise<number> {
    let handed = 0
    for (const source of SOURCES) {
      const held = deliveries
        .filter((delivery) => delivery.source === source)
        .map(({ entryId, deliveries: count, fields }) => ({
          id: entryId,
          deliveries: count,
          newDeliveries: fields === undefined ? count : count - 1,
        }))
      if (held.length === 0) continue
      handed += await handBackAll(this.#commands.client, this.#member, source, held).catch((error: unknown) => {
        const where = { stream: this.stream, group: this.group, jobs: held.length, fault: messageOf(error) }
        this.#options.logger.warn(where, 'could not hand back; these jobs are claimed when their lease is over')
        return 0
      })
    }
    for (const delivery of deliveries) {
      delivery.end(new StoppingError(this.stream, delivery.id))
      this.#holdings.abandon(delivery)
    }
    this.#counts.handedBack += handed
    return handed
  }

  async #join(startAt: 'oldest' | 'now' | undefined): Promise<void> {
    const { leaseMs, maxDeliveries, declared, logger } = this.#options
    const joined = await join(this.#commands.client, this.#member, { startAt, leaseMs, maxDeliveries })
    const where = { stream: this.stream, group: this.group }
    if (joined.how === 'restored') {
      logger.warn(
        { ...where, floor: joined.floor },
        'the group had vanished; it was made again where it had settled all',
      )
    }
    for (const name of ['leaseMs', 'maxDeliveries'] as const) {
      if (!declared[name] || this.#options[name] === joined[name]) continue
      logger.warn(
        { ...where, declared: this.#options[name], group: joined[name] },
        `the group's ${name} counts, not this worker's`,
      )
    }
    this.#follow(joined.leaseMs, joined.maxDeliveries)
  }

  /** The group vanished under us (DESTROY, DEL, FLUSHALL): it is made again, once, however many parts noticed. */
  #rejoin(): Promise<void> {
    this.#rejoining ??= this.#join(this.#options.startAt ?? 'oldest')
      .catch(async (error: unknown) => {
        this.#options.logger.error(
          { stream: this.stream, group: this.group, fault: messageOf(error) },
          'cannot join the group',
        )
        await sleep(500)
        throw error
      })
      .finally(() => {
        this.#rejoining = undefined
      })
    return this.#rejoining
  }

  #newKeeper(): KeeperHost {
    const { target, stallMs, logger, concurrency } = this.#options
    const about = { host: hostname(), pid: process.pid, node: process.version, slots: concurrency }
    const settings = {
      member: this.#member,
      stallMs,
      about,
      leaseMs: this.#group.leaseMs,
      pulseMs: this.#group.pulseMs,
    }
    const events = {
      pulse: (reply: PulseReply) => this.#pulsed(reply),
      lost: (rows: readonly { slot: number; generation: number }[]) => this.#lost(rows),
    }
    return new KeeperHost({ target, commands: this.#commands }, this.#holdings.table, settings, { events, logger })
  }

  #pulsed({ leaseMs, maxDeliveries, claimDue }: PulseReply): void {
    if (leaseMs === undefined || maxDeliveries === undefined) return
    if (leaseMs !== this.#group.leaseMs || maxDeliveries !== this.#group.maxDeliveries)
      this.#follow(leaseMs, maxDeliveries)
    if (claimDue && this.#state === 'running') this.#claimer.start()
  }

  #follow(leaseMs: number, maxDeliveries: number): void {
    this.#group = { leaseMs, maxDeliveries, pulseMs: pulseMsFor(leaseMs) }
    this.#keeper?.follow(leaseMs, this.#group.pulseMs)
  }

  #lost(rows: readonly { slot: number; generation: number }[]): void {
    for (const row of rows) {
      const delivery = this.#holdings.reported(row)
      if (delivery === undefined || delivery.ended !== undefined) continue
      this.#counts.leaseLost += 1
      this.#holdings.abandon(delivery)
      delivery.end(new LeaseLostError(this.stream, delivery.id))
      const { id, name } = delivery
      this.#options.logger.warn(
        { stream: this.stream, group: this.group, id, job: name },
        'lease lost: the job runs elsewhere',
      )
    }
  }

  /** What the keeper's pulse tells, and the look at runs that are past their time. */
  #report(): void {
    this.#holdings.table.report({
      running: this.#dispatcher.running,
      completed: this.#counts.completed,
      claimRoom: this.#state === 'running' ? this.#dispatcher.claimRoom : 0,
    })
    this.#executor.endOverdue()
  }
}

/** What a stop left. */
export interface StopResult {
  /** Jobs that were given back to the group, at no cost to their deliveries. */
  readonly handedBack: number
  /** Outcomes that Redis would not take in time; these jobs run again. */
  readonly unsettled: number
}
