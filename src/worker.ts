import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { monotonicMs, sleep } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import { drain, handBack, type StopResult } from './drain.ts'
import { CancelledError, LeaseLostError, MillraceError, RedisError } from './errors.ts'
import { EVENT_CHANNELS } from './channels.ts'
import type { EventName } from './event-table.ts'
import { Events, jobEventOf, tellingErrors, type EventListener } from './events.ts'
import { healthOf, SOUND, type WorkerHealth } from './lease/health.ts'
import type { HealthAddress } from './lease/health-server.ts'
import { KeeperHost } from './lease/keeper-host.ts'
import { withFields } from './logger.ts'
import type { LiveWorker, WorkerState } from './metrics/worker-numbers.ts'
import { faultOf, faultText } from './redis/faults.ts'
import type { Member } from './redis/member.ts'
import { readPause } from './redis/pausing.ts'
import { join, listStream, NO_CANCELS, readCancelled, type PulseReply } from './redis/stream.ts'
import { versionOfPackage } from './version.ts'
import { pulseMsFor, resolveWorkerOptions, type ResolvedWorkerOptions, type WorkerOptions } from './worker-options.ts'
import { assembleParts, type GroupSettings, type WorkerParts } from './worker-parts.ts'

/**
 * One member of a group. It owns the parts and says when they begin and end:
 *
 *   new ──start()──▶ starting ──▶ running ──stop()──▶ draining ──▶ stopped
 *
 * - start: connect, join the group (or refuse a group nobody knows), then keep leases, read, claim, trim.
 * - draining: what runs may finish, the rest is handed back (drain.ts); only then are the leases let go.
 *
 * A worker that is killed does none of this: its leases run out and the claimers of the others take over. Its consumer name
 * is new at every start, since the name is what ownership is checked against.
 */

export class Worker {
  readonly #options: ResolvedWorkerOptions
  readonly #member: Member
  readonly #events: Events
  readonly #parts: WorkerParts
  #keeper: KeeperHost | undefined
  #group: GroupSettings
  #reporting: NodeJS.Timeout | undefined
  readonly #live: LiveWorker
  #tickedAtMs = Date.now()
  #state: WorkerState = 'new'
  #started: Promise<void> | undefined
  #stopped: Promise<StopResult> | undefined
  #rejoining: Promise<void> | undefined
  /** Tells run(), whoever stopped the worker. */
  #onStopped: (result: Promise<StopResult>) => void = () => {}

  /** @throws OptionError on an unknown, wrong or impossible option; nothing was opened then. */
  constructor(options: WorkerOptions) {
    const resolved = resolveWorkerOptions(options)
    const { stream, group, leaseMs, maxDeliveries } = resolved
    const host = hostname().replace(/[^A-Za-z0-9_.-]/g, '_')
    this.#member = { stream, group, consumer: `${host}:${process.pid}:${randomBytes(6).toString('hex')}` }
    const logger = withFields(resolved.logger, this.#member)
    this.#events = new Events(logger, EVENT_CHANNELS)
    this.#options = { ...resolved, logger: tellingErrors(logger, this.#events, { stream, group }) }
    this.#group = { leaseMs, maxDeliveries, pulseMs: pulseMsFor(leaseMs) }
    this.#parts = assembleParts(this.#options, this.#member, {
      events: this.#events,
      group: () => this.#group,
      rejoin: () => this.#rejoin(),
    })
    this.#live = this.#asLive()
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
    return { ...this.#parts.counts }
  }

  /** What the group's workers follow: the lease and the deliveries that its first worker declared. */
  get groupSettings(): { readonly leaseMs: number; readonly maxDeliveries: number } {
    return { leaseMs: this.#group.leaseMs, maxDeliveries: this.#group.maxDeliveries }
  }

  /** Where `/livez` and `/readyz` are answered, while they are. */
  get healthAddress(): HealthAddress | undefined {
    return this.#keeper?.health.address
  }

  /** Whether this worker works, as `/livez` and `/readyz` tell it; also without them, before `start` and after `stop`. */
  health(): WorkerHealth {
    return healthOf(this.#state, this.#keeper?.health.condition ?? SOUND)
  }

  /**
   * Connects, joins the group and begins to work.
   * @throws RedisError if Redis cannot be reached within 10 s or refuses us; UnknownGroupError for a further group without
   * `startAt`; MillraceError ERR_WORKER_STATE if it was started before, ERR_LISTEN if `healthPort` cannot be had.
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') {
      throw new MillraceError('ERR_WORKER_STATE', `this worker is ${this.#state}; make a new one to start again`)
    }
    this.#state = 'starting'
    this.#parts.numbers.live.add(this.#live)
    this.#started = this.#begin()
    await this.#started
  }

  /** Stops, finishing what runs within `drainMs`; see above. Calling it again waits for the same end. */
  async stop({ drainMs = this.#options.drainMs }: { drainMs?: number } = {}): Promise<StopResult> {
    await this.#started?.catch(() => {})
    if (this.#state === 'new') {
      this.#end()
    }
    if (this.#state === 'stopped') this.#stopped ??= Promise.resolve({ handedBack: 0, unsettled: 0 })
    this.#stopped ??= this.#drain(drainMs)
    this.#onStopped(this.#stopped)
    return this.#stopped
  }

  /**
   * Calls `listener` whenever the event occurs; docs/events.md tells when that is and what it does not mean. What a listener
   * throws is logged and changes nothing; an `error` that nobody listens to is logged and no more.
   * @throws OptionError on an event that there is not.
   */
  on<Name extends EventName>(name: Name, listener: EventListener<Name>): this {
    this.#events.on(name, listener)
    return this
  }

  /** The same, for the next time only. */
  once<Name extends EventName>(name: Name, listener: EventListener<Name>): this {
    this.#events.once(name, listener)
    return this
  }

  /** Takes a listener off again. */
  off<Name extends EventName>(name: Name, listener: EventListener<Name>): this {
    this.#events.off(name, listener)
    return this
  }

  /** Starts and works until SIGTERM or SIGINT, then drains. A second signal ends the process now. */
  async run(): Promise<StopResult> {
    let asked = false
    const result = new Promise<StopResult>((resolve) => (this.#onStopped = resolve))
    const onSignal = (signal: NodeJS.Signals) => {
      if (asked) process.exit(signal === 'SIGINT' ? 130 : 143)
      asked = true
      void this.stop()
    }
    process.on('SIGTERM', onSignal).on('SIGINT', onSignal)
    try {
      await this.start()
      return await result
    } finally {
      process.off('SIGTERM', onSignal).off('SIGINT', onSignal)
    }
  }

  async #begin(): Promise<void> {
    try {
      await this.#parts.commands.ready(10_000)
      await this.#join(this.#options.startAt)
      await this.#learnCancelled()
      // Before the first read, too: a worker that starts while its group is paused begins nothing.
      this.#parts.pauser.follow(await readPause(this.#parts.commands.client, this.#member))
      this.#keeper = this.#newKeeper()
      await this.#keeper.start()
    } catch (error) {
      await this.#keeper?.stop()
      this.#end()
      throw refusedForNow(error)
    }
    this.#state = 'running'
    void listStream(this.#parts.commands.client, this.stream)
    this.#reporting = setInterval(() => this.#report(), 100)
    this.#report()
    this.#parts.fetcher.start()
    this.#parts.trimmer.start()
    this.#parts.scheduler.start()
    this.#sayStarted()
    this.#events.emit('worker:started', this.#where())
  }

  #sayStarted(): void {
    const { concurrency, handlers, logger } = this.#options
    const jobs = [...handlers.keys()]
    logger.info({ ...this.groupSettings, concurrency, jobs, version: versionOfPackage() }, 'worker started')
  }

  async #drain(drainMs: number): Promise<StopResult> {
    this.#state = 'draining'
    this.#reportHealth('draining')
    this.#options.logger.info({ running: this.#parts.dispatcher.running, drainMs }, 'worker draining')
    this.#events.emit('worker:draining', this.#where())
    const result = await drain(this.#parts, this.#member, { drainMs, logger: this.#options.logger })
    clearInterval(this.#reporting)
    await this.#keeper?.stop()
    this.#end()
    const { completed, failed, retried, cancelled, dead } = this.counts
    this.#options.logger.info({ completed, failed, retried, cancelled, dead, ...result }, 'worker stopped')
    this.#events.emit('worker:stopped', { ...this.#where(), ...result })
    return result
  }

  #end(): void {
    this.#parts.commands.close()
    this.#parts.fetcher.close()
    this.#parts.numbers.detach(this.#live)
    this.#state = 'stopped'
  }

  /** What a scrape of the metrics asks of this worker. */
  #asLive(): LiveWorker {
    const { counts, holdings, executor } = this.#parts
    const slots = this.#options.concurrency
    const state = () => this.#state
    const tickedAtMs = () => this.#tickedAtMs
    return {
      counts,
      slots,
      get state() {
        return state()
      },
      get tickedAtMs() {
        return tickedAtMs()
      },
      oldestStartMs() {
        const starts = holdings.underWay().map(({ startedAtMs }) => startedAtMs)
        return starts.length === 0 ? undefined : Date.now() - monotonicMs() + Math.min(...starts)
      },
      overdue: () => executor.overdue,
    }
  }

  async #join(startAt: 'oldest' | 'now' | 'again' | undefined): Promise<void> {
    const { leaseMs, maxDeliveries, declared, logger } = this.#options
    const joined = await join(this.#parts.commands.client, this.#member, { startAt, leaseMs, maxDeliveries })
    this.#parts.clock.sync(joined.nowMs, monotonicMs())
    const where = this.#where()
    if (joined.how === 'restored') {
      logger.warn({ floor: joined.floor }, 'the group had vanished; it was made again where it had settled all')
      this.#events.emit('group:restored', { ...where, floor: joined.floor })
    }
    for (const name of ['leaseMs', 'maxDeliveries'] as const) {
      if (!declared[name] || this.#options[name] === joined[name]) continue
      logger.warn(
        { option: name, declared: this.#options[name], counts: joined[name] },
        "the group's own setting counts, not what this worker declares",
      )
    }
    this.#follow(joined.leaseMs, joined.maxDeliveries)
  }

  /** The group vanished under us (DESTROY, DEL, FLUSHALL): it is made again, once, however many parts noticed. */
  #rejoin(): Promise<void> {
    this.#rejoining ??= this.#join('again')
      .catch(async (error: unknown) => {
        this.#options.logger.error({ fault: faultText(error) }, 'cannot join the group')
        await sleep(500)
        throw error
      })
      .finally(() => {
        this.#rejoining = undefined
      })
    return this.#rejoining
  }

  #newKeeper(): KeeperHost {
    const { target, stallMs, logger, concurrency, healthPlace } = this.#options
    const version = { version: versionOfPackage(), node: process.version }
    const about = { host: hostname(), pid: process.pid, ...version, slots: concurrency, startedMs: Date.now() }
    const settings = {
      member: this.#member,
      stallMs,
      about,
      leaseMs: this.#group.leaseMs,
      pulseMs: this.#group.pulseMs,
    }
    const events = {
      pulse: (reply: PulseReply) => this.#pulsed(reply),
      renewed: (count: number) => void (this.#parts.numbers.renewals.ok += count),
      unrenewed: () => void (this.#parts.numbers.renewals.error += 1),
      lost: (rows: readonly { slot: number; generation: number }[]) => this.#lost(rows),
    }
    const { commands, book, holdings } = this.#parts
    return new KeeperHost({ target, commands, numbers: book.connection('keeper') }, holdings.table, settings, {
      events,
      logger,
      healthPlace,
    })
  }

  /** Before the first read: what was cancelled while no worker was there must not begin before the first pulse. */
  async #learnCancelled(): Promise<void> {
    let cursor = NO_CANCELS
    for (;;) {
      const told = await readCancelled(this.#parts.commands.client, this.#member, cursor)
      this.#parts.cancelled.add(told.ids)
      if (!told.more) return
      cursor = told.cursor
    }
  }

  #pulsed({ nowMs, receivedAtMs, leaseMs, maxDeliveries, claimDue, nextDueMs, cancelled, paused }: PulseReply): void {
    this.#parts.clock.sync(nowMs, receivedAtMs)
    this.#parts.pauser.follow(paused)
    if (cancelled.length > 0) this.#cancel(cancelled)
    if (nextDueMs !== undefined) this.#parts.scheduler.note(nextDueMs)
    if (leaseMs === undefined || maxDeliveries === undefined) return
    if (leaseMs !== this.#group.leaseMs || maxDeliveries !== this.#group.maxDeliveries)
      this.#follow(leaseMs, maxDeliveries)
    if (claimDue && this.#state === 'running') this.#parts.claimer.start()
  }

  #follow(leaseMs: number, maxDeliveries: number): void {
    this.#group = { leaseMs, maxDeliveries, pulseMs: pulseMsFor(leaseMs) }
    this.#keeper?.follow(leaseMs, this.#group.pulseMs)
  }

  #lost(rows: readonly { slot: number; generation: number }[]): void {
    for (const row of rows) {
      const delivery = this.#parts.holdings.reported(row)
      if (delivery === undefined || delivery.ended !== undefined) continue
      this.#parts.counts.leaseLost += 1
      this.#parts.numbers.renewals.lost += 1
      delivery.count('lease_lost')
      this.#parts.holdings.abandon(delivery)
      delivery.end(new LeaseLostError(this.stream, delivery.id))
      const about = jobEventOf(delivery)
      this.#options.logger.warn(about, 'lease lost: the job runs elsewhere')
      this.#events.emit('job:lease-lost', about)
    }
  }

  #cancel(ids: readonly string[]): void {
    this.#parts.cancelled.add(ids)
    for (const delivery of this.#parts.holdings.running()) {
      if (this.#parts.cancelled.has(delivery.id)) delivery.end(new CancelledError(this.stream, delivery.id))
    }
  }

  /** What the keeper's pulse tells, and the look at runs that are past their time. */
  #report(): void {
    this.#tickedAtMs = Date.now()
    this.#parts.holdings.table.report({
      running: this.#parts.dispatcher.running,
      completed: this.#parts.counts.completed,
      claimRoom: this.#state === 'running' ? this.#parts.dispatcher.claimRoom : 0,
    })
    if (this.#state === 'running') this.#reportHealth('running')
    this.#parts.executor.endOverdue()
    const { dispatcher } = this.#parts
    // While it is paused nothing waits here: it is handed back and begun where and when work goes on.
    const overdue = dispatcher.takeOverdue(dispatcher.isPaused ? 0 : 2 * this.#group.pulseMs)
    if (overdue.length > 0) void handBack(this.#parts, this.#member, this.#options.logger, overdue)
  }

  #where(): { stream: string; group: string } {
    return { stream: this.stream, group: this.group }
  }

  /** From which the keeper tells whether this worker works, see lease/health.ts. */
  #reportHealth(state: 'running' | 'draining'): void {
    this.#parts.holdings.table.vitals.report({ state, hasRoom: this.#parts.dispatcher.fetchRoom > 0 })
  }
}

/** What passes, such as a Redis that is read-only until its failover is over: whoever started the worker may try again. */
function refusedForNow(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { kind, word } = faultOf(error)
  if (kind !== 'refused' || word === 'MOVED' || word === 'ASK') return error
  const told = faultText(error).replace(/ script: [0-9a-f]{40}, on @user_script:\d+\.?$/, '')
  return new RedisError('ERR_REDIS_UNREACHABLE', `Redis does not let the worker start now: ${told}`, { cause: error })
}
