import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { EVENT_CHANNELS } from './channels.ts'
import { sleep } from './clock.ts'
import { newCounts, type WorkerCounts } from './counts.ts'
import { drain, leaveGroups, type StopResult } from './drain.ts'
import { MillraceError, OptionError, RedisError } from './errors.ts'
import type { EventName } from './event-table.ts'
import { Events, tellingErrors, type EventListener } from './events.ts'
import { Fetcher } from './fetcher.ts'
import type { Intake } from './intake.ts'
import { knownText } from './known-jobs.ts'
import { Lane } from './lane.ts'
import { LanesIntake } from './lanes-intake.ts'
import { healthOf, SOUND, type WorkerHealth } from './lease/health.ts'
import type { HealthAddress } from './lease/health-server.ts'
import { KeeperHost } from './lease/keeper-host.ts'
import { withFields, type Logger } from './logger.ts'
import type { WorkerState } from './metrics/worker-numbers.ts'
import { checkMiddleware } from './onion.ts'
import { shown } from './options.ts'
import { faultOf, faultText } from './redis/faults.ts'
import { wrapHandlers, type RunMiddleware } from './run-middleware.ts'
import { StreamIntake } from './stream-intake.ts'
import { versionOfPackage } from './version.ts'
import { resolveWorkerOptions, type ResolvedWorkerOptions, type WorkerOptions } from './worker-options.ts'
import { assembleShared, type SharedParts } from './worker-parts.ts'
import type { ResolvedStream } from './worker-streams.ts'

/**
 * One member of a group, on one stream or on several: a lane for each (lane.ts), and what they share: connections, slots, the
 * fetcher, the keeper's thread. It says when they begin and end:
 *
 *   new ──start()──▶ starting ──▶ running ──stop()──▶ draining ──▶ stopped
 *
 * - start: connect, join the group (or refuse a group nobody knows), then keep leases, read, claim, trim.
 * - draining: what runs may finish, the rest is handed back (drain.ts); only then are the leases let go.
 *
 * A worker that is killed does none of this: its leases run out and the claimers of the others take over. Its consumer name
 * is new at every start, since the name is what ownership is checked against.
 */

/** A read waits this long for entries; short enough for a connection that died in silence to be found soon. */
const BLOCK_MS = 5000

export class Worker<State = object> {
  readonly #options: ResolvedWorkerOptions
  readonly #consumer: string
  /** Of what concerns all its streams. */
  readonly #logger: Logger
  readonly #events: Events
  readonly #shared: SharedParts
  readonly #lanes: readonly [Lane, ...Lane[]]
  readonly #intake: Intake
  readonly #fetcher: Fetcher
  #keeper: KeeperHost | undefined
  #reporting: NodeJS.Timeout | undefined
  #tickedAtMs = Date.now()
  #state: WorkerState = 'new'
  #started: Promise<void> | undefined
  #stopped: Promise<StopResult> | undefined
  readonly #middleware: RunMiddleware<State>[] = []
  /** Tells run(), whoever stopped the worker. */
  #onStopped: (result: Promise<StopResult>) => void = () => {}

  /** @throws OptionError on an unknown, wrong or impossible option; nothing was opened then. */
  constructor(options: WorkerOptions<State>) {
    const resolved = resolveWorkerOptions(options)
    const { streams, group } = resolved
    const host = hostname().replace(/[^A-Za-z0-9_.-]/g, '_')
    this.#consumer = `${host}:${process.pid}:${randomBytes(6).toString('hex')}`
    this.#options = resolved
    const stream = this.streams.join(',')
    const logger = withFields(resolved.logger, { stream, group, consumer: this.#consumer })
    this.#events = new Events(logger, EVENT_CHANNELS)
    this.#logger = tellingErrors(logger, this.#events, { stream, group })
    this.#shared = assembleShared(resolved, (member) => withFields(resolved.logger, member))
    const [first, ...others] = streams
    this.#lanes = [this.#newLane(first), ...others.map((one) => this.#newLane(one))]
    const { slots } = this.#shared
    this.#intake =
      slots === undefined
        ? new StreamIntake(this.#lanes[0].member, this.#lanes[0].parts)
        : new LanesIntake(this.#lanes, slots, () => void this.#fetcher.wake())
    this.#fetcher = this.#newFetcher()
  }

  /** The stream that it works on; of several the first. */
  get stream(): string {
    return this.#options.streams[0].stream
  }

  /** The streams that it works on, in the order in which they were given. */
  get streams(): readonly string[] {
    return this.#options.streams.map(({ stream }) => stream)
  }

  get group(): string {
    return this.#options.group
  }

  /** The name that this worker's pending entries are under in Redis, on each of its streams. */
  get consumer(): string {
    return this.#consumer
  }

  /** What this worker has done so far, on all its streams. */
  get counts(): Readonly<WorkerCounts> {
    const sum = newCounts()
    for (const { parts } of this.#lanes) {
      for (const name of Object.keys(sum) as (keyof WorkerCounts)[]) sum[name] += parts.counts[name]
    }
    return sum
  }

  /** What this worker has done so far on one of its streams. @throws OptionError if it does not work on it. */
  countsOf(stream: string): Readonly<WorkerCounts> {
    const lane = this.#lanes.find((one) => one.stream === stream)
    if (lane === undefined) {
      throw new OptionError(`expected one of the worker's streams (${this.streams.join(', ')}), got ${shown(stream)}`)
    }
    return { ...lane.parts.counts }
  }

  /** What the group's workers follow: the lease and the deliveries that its first worker declared; on its first stream. */
  get groupSettings(): { readonly leaseMs: number; readonly maxDeliveries: number } {
    const { leaseMs, maxDeliveries } = this.#lanes[0].group
    return { leaseMs, maxDeliveries }
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
   * Puts a middleware around every run of a handler; of several the first one is outermost.
   * @throws OptionError for what is no function; MillraceError ERR_WORKER_STATE after `start`.
   */
  use(middleware: RunMiddleware<State>): this {
    if (this.#state !== 'new') throw wrongState(this.#state, 'give it its middleware before it is started')
    this.#middleware.push(checkMiddleware(middleware))
    return this
  }

  /**
   * Connects, joins the group and begins to work.
   * @throws RedisError if Redis cannot be reached within 10 s or refuses us; UnknownGroupError for a further group without
   * `startAt`; MillraceError ERR_WORKER_STATE if it was started before, ERR_LISTEN if `healthPort` cannot be had.
   */
  async start(): Promise<void> {
    if (this.#state !== 'new') throw wrongState(this.#state, 'make a new one to start again')
    this.#state = 'starting'
    for (const { parts, live } of this.#lanes) {
      if (this.#middleware.length > 0) wrapHandlers(parts.batches.handlers, this.#middleware)
      parts.numbers.live.add(live)
    }
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
      await this.#shared.commands.ready(10_000)
      await Promise.all(this.#lanes.map((lane) => lane.begin()))
      this.#keeper = this.#newKeeper()
      await this.#keeper.start()
    } catch (error) {
      await this.#keeper?.stop()
      this.#end()
      throw refusedForNow(error)
    }
    this.#state = 'running'
    this.#reporting = setInterval(() => this.#report(), 100)
    this.#report()
    this.#fetcher.start()
    for (const lane of this.#lanes) lane.start()
  }

  async #drain(drainMs: number): Promise<StopResult> {
    this.#state = 'draining'
    this.#reportHealth('draining')
    for (const lane of this.#lanes) lane.sayDraining(drainMs)
    const results = await drain(this.#lanes, this.#fetcher, drainMs)
    clearInterval(this.#reporting)
    await this.#keeper?.stop()
    await leaveGroups(this.#lanes)
    this.#end()
    for (const [lane, result] of results) lane.sayStopped(result)
    return {
      handedBack: results.reduce((sum, [, { handedBack }]) => sum + handedBack, 0),
      unsettled: results.reduce((sum, [, { unsettled }]) => sum + unsettled, 0),
    }
  }

  #end(): void {
    this.#shared.commands.close()
    this.#fetcher.close()
    for (const { parts, live } of this.#lanes) parts.numbers.detach(live)
    this.#state = 'stopped'
  }

  #newLane(stream: ResolvedStream): Lane {
    return new Lane(this.#options, stream, {
      consumer: this.#consumer,
      shared: this.#shared,
      host: {
        events: this.#events,
        state: () => this.#state,
        tickedAtMs: () => this.#tickedAtMs,
        wake: () => void this.#fetcher.wake(),
      },
    })
  }

  #newFetcher(): Fetcher {
    const { commands, book } = this.#shared
    const [first] = this.#lanes
    const { vitals } = first.parts.holdings.table
    return new Fetcher({
      ...{ target: this.#options.target, commands, intake: this.#intake, logger: this.#logger },
      connectionNumbers: book.connection('fetcher'),
      blockMs: BLOCK_MS,
      // Of several, the intake finds out which, and joins it again.
      rejoin: () => (this.#lanes.length === 1 ? first.rejoin() : sleep(20)),
      onRead: () => vitals.count('reads'),
      onRefused: () => vitals.count('refusals'),
    })
  }

  #newKeeper(): KeeperHost {
    const { target, healthPlace, handlers } = this.#options
    const version = { version: versionOfPackage(), node: process.version }
    const about = { host: hostname(), pid: process.pid, ...version, startedMs: Date.now() }
    const kept = (lane: Lane, at: number) =>
      lane.forKeeper({ ...about, jobs: knownText(handlers), slots: lane.concurrency }, (leaseMs, pulseMs) =>
        this.#keeper?.follow(at, leaseMs, pulseMs),
      )
    const [first, ...others] = this.#lanes
    const lanes = [kept(first, 0), ...others.map((lane, at) => kept(lane, at + 1))] as const
    const { commands, book } = this.#shared
    return new KeeperHost({ target, commands, numbers: book.connection('keeper') }, [...lanes], {
      logger: this.#logger,
      healthPlace,
    })
  }

  #report(): void {
    this.#tickedAtMs = Date.now()
    if (this.#state === 'running') this.#reportHealth('running')
    for (const lane of this.#lanes) lane.report()
  }

  /** From which the keeper tells whether this worker works, see lease/health.ts. */
  #reportHealth(state: 'running' | 'draining'): void {
    this.#lanes[0].parts.holdings.table.vitals.report({ state, hasRoom: this.#intake.room > 0 })
  }
}

const wrongState = (state: WorkerState, todo: string): MillraceError =>
  new MillraceError('ERR_WORKER_STATE', `this worker is ${state}; ${todo}`)

/** What passes, such as a Redis that is read-only until its failover is over: whoever started the worker may try again. */
function refusedForNow(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { kind, word } = faultOf(error)
  if (kind !== 'refused' || word === 'MOVED' || word === 'ASK') return error
  const told = faultText(error).replace(/ script: [0-9a-f]{40}, on @user_script:\d+\.?$/, '')
  return new RedisError('ERR_REDIS_UNREACHABLE', `Redis does not let the worker start now: ${told}`, { cause: error })
}
