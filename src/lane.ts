import { monotonicMs, sleep } from './clock.ts'
import { declareCron } from './cron/declared.ts'
import { MOST_SCHEDULES } from './cron/written.ts'
import type { StopResult } from './drain.ts'
import { CancelledError, LeaseLostError } from './errors.ts'
import { jobEventOf, tellingErrors, type Events } from './events.ts'
import { handBack } from './hand-back.ts'
import type { KeeperLane } from './lease/keeper-host.ts'
import type { Logger } from './logger.ts'
import type { LiveWorker, WorkerState } from './metrics/worker-numbers.ts'
import { faultText } from './redis/faults.ts'
import type { Member } from './redis/member.ts'
import { readPause } from './redis/pausing.ts'
import { join, listStream, NO_CANCELS, readCancelled, type PulseReply } from './redis/stream.ts'
import { versionOfPackage } from './version.ts'
import { pulseMsFor, type ResolvedWorkerOptions } from './worker-options.ts'
import { assembleParts, type GroupSettings, type SharedParts, type WorkerParts } from './worker-parts.ts'
import type { ResolvedStream } from './worker-streams.ts'

/** What a lane asks of its worker. */
export interface LaneHost {
  readonly events: Events
  readonly state: () => WorkerState
  readonly tickedAtMs: () => number
  /** Ends the read that is out: what it brings may not be begun. */
  readonly wake: () => void
}

/**
 * One stream of a worker, and its membership in the group there: what is joined, held, settled, claimed and told is told
 * apart by stream. What all streams of a worker share (connections, slots, the fetcher, the keeper's thread) is the worker's.
 */
export class Lane {
  readonly member: Member
  readonly weight: number
  /** Most slots that it takes at once. */
  readonly concurrency: number
  readonly logger: Logger
  readonly parts: WorkerParts
  readonly live: LiveWorker
  readonly #options: ResolvedWorkerOptions
  readonly #host: LaneHost
  #group: GroupSettings
  #onFollow: (leaseMs: number, pulseMs: number) => void = () => {}
  #rejoining: Promise<void> | undefined
  /** Why it could not be, as it was told last: such a fault may last, and is told once. */
  #saidUnjoined = ''
  /** The connection, by its epoch, in which its schedules were declared last; 0 for none. */
  #declaredIn = 0
  #saidUndeclared = ''
  #reportedAtMs = monotonicMs()
  #isStill = false

  constructor(
    options: ResolvedWorkerOptions,
    { stream, weight, concurrency }: ResolvedStream,
    { consumer, host, shared }: { consumer: string; host: LaneHost; shared: SharedParts },
  ) {
    const { group, leaseMs, maxDeliveries } = options
    this.member = { stream, group, consumer }
    this.weight = weight
    this.concurrency = concurrency
    this.#host = host
    this.logger = tellingErrors(shared.loggerOf(this.member), host.events, { stream, group })
    this.#options = { ...options, concurrency, logger: this.logger }
    this.#group = { leaseMs, maxDeliveries, pulseMs: pulseMsFor(leaseMs) }
    this.parts = assembleParts(this.#options, this.member, {
      shared,
      events: host.events,
      group: () => this.#group,
      wake: host.wake,
    })
    shared.slots?.add(this.parts.dispatcher, { weight, concurrency })
    this.live = this.#asLive()
  }

  get stream(): string {
    return this.member.stream
  }

  /** What the group's workers follow on this stream. */
  get group(): GroupSettings {
    return this.#group
  }

  get where(): { stream: string; group: string } {
    return { stream: this.stream, group: this.member.group }
  }

  /** Joins the group, and learns before the first read what is cancelled and whether work is paused. */
  async begin(): Promise<void> {
    await this.#join(this.#options.startAt)
    await this.#learnCancelled()
    await this.#declareCron(false)
    // Before the first read, too: a worker that starts while its group is paused begins nothing.
    this.parts.pauser.follow(await readPause(this.parts.commands.client, this.member))
  }

  /** From here on it works. */
  start(): void {
    void listStream(this.parts.commands.client, this.stream)
    this.parts.trimmer.start()
    this.parts.scheduler.start()
    this.parts.cron.start()
    const { handlers, concurrency } = this.#options
    const jobs = [...handlers.keys()]
    const { leaseMs, maxDeliveries } = this.#group
    const told = { leaseMs, maxDeliveries, concurrency, jobs, version: versionOfPackage() }
    this.logger.info(told, 'worker started')
    this.#host.events.emit('worker:started', this.where)
  }

  sayDraining(drainMs: number): void {
    this.logger.info({ running: this.parts.dispatcher.running, drainMs }, 'worker draining')
    this.#host.events.emit('worker:draining', this.where)
  }

  sayStopped(result: StopResult): void {
    const { completed, failed, retried, cancelled, skipped, dead } = this.parts.counts
    this.logger.info({ completed, failed, retried, cancelled, skipped, dead, ...result }, 'worker stopped')
    this.#host.events.emit('worker:stopped', { ...this.where, ...result })
  }

  /** What the lease keeper is to know of it; `follow` tells the keeper of another lease. */
  forKeeper(about: Readonly<Record<string, string | number>>, follow: KeeperFollow): KeeperLane {
    const { leaseMs, pulseMs } = this.#group
    this.#onFollow = follow
    return {
      table: this.parts.holdings.table,
      settings: { member: this.member, stallMs: this.#options.stallMs, about, leaseMs, pulseMs },
      logger: this.logger,
      permits: this.parts.limiter?.permits,
      events: {
        pulse: (reply) => this.#pulsed(reply),
        renewed: (count) => void (this.parts.numbers.renewals.ok += count),
        unrenewed: () => void (this.parts.numbers.renewals.error += 1),
        lostGroup: () => void this.rejoin().catch(() => {}),
        lost: (rows) => this.#lost(rows),
      },
    }
  }

  /** The group vanished under us (DESTROY, DEL, FLUSHALL): it is made again, once, however many parts noticed. */
  rejoin(): Promise<void> {
    this.#rejoining ??= this.#join('again')
      .then(() => {
        this.#saidUnjoined = ''
        // What took the group away has most likely taken them too.
        this.#declaredIn = 0
      })
      .catch(async (error: unknown) => {
        this.#sayUnjoined(faultText(error))
        await sleep(500)
        throw error
      })
      .finally(() => {
        this.#rejoining = undefined
      })
    return this.#rejoining
  }

  /** What the keeper's pulse tells, and the look at runs that are past their time. */
  report(): void {
    const { holdings, dispatcher, counts, executor } = this.parts
    holdings.table.report({
      running: dispatcher.running,
      completed: counts.completed,
      claimRoom: this.#host.state() === 'running' ? dispatcher.claimRoom : 0,
    })
    executor.endOverdue()
    const mostMs = 2 * this.#group.pulseMs
    if (this.#stoodStill(mostMs) && !dispatcher.isPaused) return
    // While it is paused nothing waits here: it is handed back and begun where and when work goes on.
    const overdue = dispatcher.takeOverdue(dispatcher.isPaused ? 0 : mostMs)
    if (overdue.length > 0) void handBack(this, overdue)
  }

  #sayUnjoined(fault: string): void {
    if (fault === this.#saidUnjoined || this.#host.state() === 'stopped') return
    this.#saidUnjoined = fault
    this.logger.error({ fault }, 'cannot join the group')
  }

  /** The loop stood still for so long, once each time: what waits for a slot is to have those first that became free meanwhile. */
  #stoodStill(mostMs: number): boolean {
    const [nowMs, wasStill] = [monotonicMs(), this.#isStill]
    this.#isStill = nowMs - this.#reportedAtMs > mostMs
    this.#reportedAtMs = nowMs
    return this.#isStill && !wasStill
  }

  async #join(startAt: 'oldest' | 'now' | 'again' | undefined): Promise<void> {
    const { leaseMs, maxDeliveries, declared } = this.#options
    const joined = await join(this.parts.commands.client, this.member, { startAt, leaseMs, maxDeliveries })
    this.parts.clock.sync(joined.nowMs, monotonicMs())
    if (joined.how === 'restored') {
      this.logger.warn({ floor: joined.floor }, 'the group had vanished; it was made again where it had settled all')
      this.#host.events.emit('group:restored', { ...this.where, floor: joined.floor })
    }
    for (const name of ['leaseMs', 'maxDeliveries'] as const) {
      if (!declared[name] || this.#options[name] === joined[name]) continue
      this.logger.warn(
        { option: name, declared: this.#options[name], counts: joined[name] },
        "the group's own setting counts, not what this worker declares",
      )
    }
    this.#follow(joined.leaseMs, joined.maxDeliveries)
  }

  /**
   * A new connection may be to a server that has lost what was declared in the one before: a failover, a restart without its
   * data. Tried again with every pulse until it is written.
   */
  async #declareAgain(): Promise<void> {
    try {
      await this.#declareCron(true)
      this.#saidUndeclared = ''
    } catch (error) {
      this.#declaredIn = 0
      const fault = faultText(error)
      if (this.parts.commands.fault(error).kind !== 'fatal' || fault === this.#saidUndeclared) return
      this.#saidUndeclared = fault
      this.logger.error({ fault }, 'cannot declare recurring schedules')
    }
  }

  /** Recurring schedules of this stream that code declares. */
  async #declareCron(isAgain: boolean): Promise<void> {
    const own = this.#options.cron.filter(({ stream }) => stream === this.stream)
    this.#declaredIn = this.parts.commands.epoch
    if (own.length === 0) return
    const nowMs = this.parts.clock.at(monotonicMs())
    const told = await declareCron(this.parts.commands.client, own, { nowMs, most: MOST_SCHEDULES, isAgain })
    for (const { name, outcome } of told) {
      if (outcome === 'full')
        this.logger.error({ schedule: name }, 'the stream has too many schedules: this one is not made')
      else if (outcome === 'kept' && !isAgain)
        this.logger.info({ schedule: name }, 'a schedule was removed by hand, and stays so')
      else if (outcome !== 'same' && outcome !== 'kept') this.logger.info({ schedule: name }, 'a schedule was declared')
    }
  }

  /** Before the first read: what was cancelled while no worker was there must not begin before the first pulse. */
  async #learnCancelled(): Promise<void> {
    let cursor = NO_CANCELS
    for (;;) {
      const told = await readCancelled(this.parts.commands.client, this.member, cursor)
      this.parts.cancelled.add(told.ids)
      if (!told.more) return
      cursor = told.cursor
    }
  }

  #pulsed({
    nowMs,
    receivedAtMs,
    leaseMs,
    maxDeliveries,
    claimDue,
    nextDueMs,
    cronDueMs,
    cancelled,
    paused,
  }: PulseReply): void {
    this.parts.clock.sync(nowMs, receivedAtMs)
    this.parts.pauser.follow(paused)
    if (cancelled.length > 0) this.#cancel(cancelled)
    if (nextDueMs !== undefined) this.parts.scheduler.note(nextDueMs)
    if (cronDueMs !== undefined) this.parts.cron.note(cronDueMs)
    if (this.#declaredIn !== this.parts.commands.epoch && this.#host.state() === 'running') void this.#declareAgain()
    if (leaseMs === undefined || maxDeliveries === undefined) return
    if (leaseMs !== this.#group.leaseMs || maxDeliveries !== this.#group.maxDeliveries)
      this.#follow(leaseMs, maxDeliveries)
    if (claimDue && this.#host.state() === 'running') this.parts.claimer.start()
  }

  #follow(leaseMs: number, maxDeliveries: number): void {
    this.#group = { leaseMs, maxDeliveries, pulseMs: pulseMsFor(leaseMs) }
    this.#onFollow(leaseMs, this.#group.pulseMs)
  }

  #lost(rows: readonly { slot: number; generation: number }[]): void {
    const { holdings, counts, numbers } = this.parts
    for (const row of rows) {
      const delivery = holdings.reported(row)
      if (delivery === undefined || delivery.ended !== undefined) continue
      counts.leaseLost += 1
      numbers.renewals.lost += 1
      delivery.count('lease_lost')
      holdings.abandon(delivery)
      delivery.end(new LeaseLostError(this.stream, delivery.id))
      const about = jobEventOf(delivery)
      this.logger.warn(about, 'lease lost: the job runs elsewhere')
      this.#host.events.emit('job:lease-lost', about)
    }
  }

  #cancel(ids: readonly string[]): void {
    this.parts.cancelled.add(ids)
    for (const delivery of this.parts.holdings.running()) {
      if (this.parts.cancelled.has(delivery.id)) delivery.end(new CancelledError(this.stream, delivery.id))
    }
  }

  /** What a scrape of the metrics asks of it. */
  #asLive(): LiveWorker {
    const { counts, holdings, executor, limiter } = this.parts
    const { state, tickedAtMs } = this.#host
    return {
      counts,
      slots: this.concurrency,
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
      held: () => limiter?.held ?? NONE_HELD,
    }
  }
}

/** Of a worker without limits. */
const NONE_HELD: ReadonlyMap<string, number> = new Map()

/** Tells the keeper that another lease was declared for the group. */
type KeeperFollow = (leaseMs: number, pulseMs: number) => void
