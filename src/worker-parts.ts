import { Batches } from './batch/batches.ts'
import { HeldSlots } from './batch/held-slots.ts'
import { Cancelled } from './cancelled.ts'
import { Claimer } from './claimer.ts'
import { monotonicMs } from './clock.ts'
import { newCounts, type WorkerCounts } from './counts.ts'
import { Dispatcher } from './dispatcher.ts'
import { CronFirer } from './cron/firer.ts'
import type { Events } from './events.ts'
import { Executor } from './executor.ts'
import { handBack } from './hand-back.ts'
import { assembleLimits } from './limits/limiting-parts.ts'
import type { Limiter } from './limits/limiter.ts'
import { Holdings } from './holdings.ts'
import { bookOf, type MetricsBook } from './metrics/book.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { Logger } from './logger.ts'
import { assembleTurns } from './order/ordering-parts.ts'
import { Connection } from './redis/connection.ts'
import type { Home } from './delivery.ts'
import type { Member } from './redis/member.ts'
import { OnwardPublisher, type OnwardDeps } from './onward/publisher.ts'
import { begin, readRaw } from './redis/stream.ts'
import { RedisNotes } from './notes/note-taker.ts'
import { Pauser } from './pauser.ts'
import { isSuspect } from './quarantine.ts'
import { Scheduler } from './scheduler.ts'
import { Slots } from './slots.ts'
import { ServerClock } from './server-clock.ts'
import { Settler } from './settler.ts'
import { DEFAULT_RETENTION, Trimmer } from './trimmer.ts'
import { containedTracing } from './tracing.ts'
import { startAll } from './redis/unique.ts'
import { UniqueStarts } from './unique-starts.ts'
import type { ResolvedWorkerOptions } from './worker-options.ts'

/** What all workers of a group follow. */
export interface GroupSettings {
  readonly leaseMs: number
  readonly pulseMs: number
  readonly maxDeliveries: number
}

/** What the streams of a worker share. */
export interface SharedParts {
  /** The connection for everything but the blocked read and the keeper. */
  readonly commands: Connection
  readonly book: MetricsBook
  /** Undefined for a worker with one stream: its dispatcher has them for itself. */
  readonly slots: Slots | undefined
  /** The slots of all its streams that jobs wait in for their batch. */
  readonly heldSlots: HeldSlots
  /** The logger of one of its streams. */
  readonly loggerOf: (member: Member) => Logger
}

/** Opens nothing. */
export function assembleShared(
  { target, registry, concurrency, streams, priority }: ResolvedWorkerOptions,
  loggerOf: SharedParts['loggerOf'],
): SharedParts {
  const book = bookOf(registry)
  const connected = { role: 'worker', socketTimeoutMs: 5000, numbers: book.connection('worker') }
  const slots = streams.length === 1 ? undefined : new Slots(concurrency, priority)
  const heldSlots = new HeldSlots(concurrency)
  return { book, loggerOf, slots, heldSlots, commands: new Connection(target, connected) }
}

/** The parts of a worker on one stream, each with one role, and who knows whom. */
export interface WorkerParts {
  readonly commands: Connection
  readonly events: Events
  readonly counts: WorkerCounts
  readonly numbers: WorkerNumbers
  readonly clock: ServerClock
  readonly holdings: Holdings
  readonly cancelled: Cancelled
  readonly settler: Settler
  readonly dispatcher: Dispatcher
  readonly executor: Executor
  readonly batches: Batches
  readonly limiter: Limiter | undefined
  readonly claimer: Claimer
  readonly pauser: Pauser
  readonly scheduler: Scheduler
  readonly cron: CronFirer
  readonly trimmer: Trimmer
}

/** Makes the parts of a worker on one stream and ties them together. Nothing is opened or started. */
export function assembleParts(
  options: ResolvedWorkerOptions,
  member: Member,
  {
    shared: { commands, book, slots, heldSlots },
    events,
    group,
    wake,
  }: { shared: SharedParts; events: Events; group: () => GroupSettings; wake: () => void },
): WorkerParts {
  const { concurrency, logger, timeoutMs, maxResultBytes, retry, unknownJobMs, accepts, limits } = options
  const numbers = book.worker(member.stream, member.group, logger)
  countFromStart(numbers, options.handlers)
  const counts = newCounts()
  const clock = new ServerClock()
  const tracing = containedTracing(options.tracing, logger)
  const notes = new RedisNotes({ connection: commands, member, clock, logger })
  // Running, fetched ahead, claimed, and finished while Redis is slow to confirm: reads stop when this is used up.
  const holdings = holdingsOf({ ...member, notes }, concurrency * 4 + 2048, { book, logger, tracing })
  const cancelled = new Cancelled()
  const own = { holdings, counts, numbers, clock, logger, events, tracing }
  const redis = { connection: commands, member, logger, leaseMs: () => group().leaseMs }
  const settler: Settler = new Settler(redis, {
    ...own,
    onSettled: () => dispatcher.dispatch(),
    onScheduled: (dueMs) => scheduler.note(dueMs),
    onTurnEnded: (one) => turns.ended(one),
    onRefused: (delivery, error) => executor.refuse(delivery, error),
  })
  const scheduler = new Scheduler({ ...own, connection: commands, member })
  const who = () => ({ dispatcher, executor })
  const turns = assembleTurns(redis, { holdings, cancelled, clock }, who)
  const uniqueStarts = new UniqueStarts((starts) => startAll(commands.client, member, starts), logger)
  const limiting = assembleLimits(limits, redis, { holdings, cancelled, clock, numbers }, who)
  const batches = batchesOf(options, heldSlots, { group, clock, numbers })
  const { handlers } = batches
  const executor: Executor = new Executor({
    ...{ ...own, handlers, settler, cancelled, uniqueStarts, timeoutMs, maxResultBytes, retry, unknownJobMs, accepts },
    ...{ ...limiting, notes, turns },
    chance: () => Math.random(),
    readRaw: ({ source, entryId }) => readRaw(commands.client, member, source, entryId),
    onEnded: () => dispatcher.ended(),
    onAsks: () => dispatcher.asks(),
    onDeferred: (delivery) => dispatcher.deferred(delivery),
    onUndeferred: (delivery) => dispatcher.undeferred(delivery),
    onUncounted: (delivery) => void handBack({ parts: { ...own, commands }, member, logger }, [delivery]),
  })
  const dispatcher: Dispatcher = new Dispatcher({
    ...{ ...own, concurrency, slots, executor, turns, ...limiting },
    maxDeliveries: () => group().maxDeliveries,
    begin: (source, claimed) => begin(commands.client, member, source, claimed),
  })
  return {
    ...own,
    ...{ commands, cancelled, scheduler, settler, dispatcher, executor, batches, limiter: limiting.limiter },
    cron: new CronFirer({ connection: commands, stream: member.stream, clock, counts, logger }),
    claimer: new Claimer({ ...own, connection: commands, member, dispatcher, executor, group }),
    pauser: new Pauser({ dispatcher, wake, logger }),
    trimmer: new Trimmer({ connection: commands, member, retention: DEFAULT_RETENTION, counts, logger }),
  }
}

/** From the start, and at 0: a series that begins at 1 has no increase that Prometheus could see. */
function countFromStart({ jobs }: WorkerNumbers, handlers: ResolvedWorkerOptions['handlers']): void {
  for (const [name, { batch }] of handlers) {
    const numbers = jobs.of(name)
    if (batch !== undefined) numbers.gathers()
  }
}

/** Its handlers publish by what it holds, for as long as they are at work. */
function holdingsOf(member: Home, rows: number, deps: Omit<OnwardDeps, 'isUnderWay' | 'nowMs'>): Holdings {
  const nowMs = () => Date.now()
  const onward = new OnwardPublisher(member, { ...deps, nowMs, isUnderWay: (run) => holdings.isUnderWay(run) })
  const holdings: Holdings = new Holdings({ ...member, onward }, rows)
  return holdings
}

/** A job that may take its worker down goes in no batch with others. */
function batchesOf(
  { handlers, concurrency }: ResolvedWorkerOptions,
  ofWorker: SharedParts['heldSlots'],
  { group, clock, numbers }: { group: () => GroupSettings; clock: ServerClock; numbers: WorkerNumbers },
): Batches {
  return new Batches(handlers, {
    slots: [new HeldSlots(concurrency), ofWorker],
    goesAlone: ({ deliveries }) => isSuspect(deliveries - 1, group().maxDeliveries),
    serverMs: () => clock.at(monotonicMs()),
    onBatch: (job, jobs) => numbers.jobs.of(job).handlerBatch?.observe(jobs),
  })
}
