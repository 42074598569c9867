import { Batches } from '../batch/batches.ts'
import { HeldSlots } from '../batch/held-slots.ts'
import type { CronTick } from '../cron/tick.ts'
import { OptionError } from '../errors.ts'
import type { Handler, Handlers, JobDefinition } from '../job.ts'
import { refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { checkMiddleware } from '../onion.ts'
import type { PublishOptions } from '../producer-options.ts'
import { isSuspect } from '../quarantine.ts'
import { checkJobId } from '../redis/entry-id.ts'
import { wrapHandlers, type RunMiddleware } from '../run-middleware.ts'
import { resolveWorkerOptions, type ResolvedWorkerOptions, type WorkerOptions } from '../worker-options.ts'
import { checkAbort, type AbortedRun, type AbortWhy } from './aborts.ts'
import { VirtualClock } from './clock.ts'

/** A job as a test publishes it. */
export interface TestedJob<Data = unknown> extends Pick<
  PublishOptions,
  'stream' | 'headers' | 'delayMs' | 'runAt' | 'expiresAt' | 'ttlMs' | 'uniqueKey' | 'unique' | 'key'
> {
  /** The definition, whose schema checks the data as a publish does; or a name, as a publisher in another language has it. */
  job: JobDefinition<Data, unknown> | string
  /** The payload: the handler gets what JSON makes of it. */
  data: NoInfer<Data>
  /** The version of the payload, if it is not that of the definition: its schema checks nothing here then. */
  version?: number
  /** The job's id. @default one of the clock's time */
  id?: string
  /** The tick of a recurring schedule that has published it. @default none has */
  cron?: CronTick
  /** The job that a replay copied it from. @default it is no copy */
  replayOf?: { stream: string; id: string }
}

/** How it runs, for one attempt and for all of them. */
export interface RunToEndOptions<Data = unknown, State = object> extends TestedJob<Data> {
  /** The options of the worker; those that need Redis are checked and not used. @default those of a worker */
  worker?: Partial<Omit<WorkerOptions<State>, 'handlers'>>
  /** The middleware of the worker, as `worker.use` takes it. @default none */
  use?: readonly RunMiddleware<State>[]
  /** What time it is. @default a clock of its own, which begins now */
  clock?: VirtualClock
  /** What is left to chance, from 0 to 1: the part of the jitter that a delay is shorter by. @default 0: the longest delays */
  chance?: number | (() => number)
  /** How long a handler may go on after its signal was aborted, in ms of real time. @default 5000 */
  heedMs?: number
}

export interface RunJobOptions<Data = unknown, State = object> extends RunToEndOptions<Data, State> {
  /** Which attempt it is: those before it have failed. @default 1 */
  attempt?: number
  /** Which delivery it is: the workers that had it before went away. @default 1 */
  deliveries?: number
  /** Aborts the signal of the run once its handler has been called. @default it is not aborted */
  abort?: AbortWhy | AbortedRun
}

/** The same with every default in place. */
export interface Asked {
  readonly job: TestedJob
  readonly stream: string
  readonly worker: ResolvedWorkerOptions
  readonly clock: VirtualClock
  readonly chance: () => number
  readonly heedMs: number
  readonly attempt: number
  readonly deliveries: number
  readonly abort: AbortedRun | undefined
}

const JOB = [
  'job',
  'data',
  'version',
  'id',
  'cron',
  'replayOf',
  'stream',
  'headers',
  'delayMs',
  'runAt',
  'expiresAt',
  'ttlMs',
]
const TO_END = [...JOB, 'uniqueKey', 'unique', 'key', 'worker', 'use', 'clock', 'chance', 'heedMs']
const KNOWN = {
  runJob: [...TO_END, 'attempt', 'deliveries', 'abort'],
  runToEnd: TO_END,
  runBatch: [...TO_END, 'attempt', 'deliveries'],
}
/** A batch of any size is for a test to run: how many slots its worker has is not its matter. */
const MOST_CONCURRENCY = 10_000

/**
 * @param gather what batches are gathered in, before its middleware goes around the handlers. @default batches of one
 * @throws OptionError before anything runs; of the handlers and the worker's options as `new Worker` does.
 */
export function checkAsked<Data, State>(
  where: keyof typeof KNOWN,
  handlers: Handlers<State>,
  options: RunJobOptions<Data, State>,
  gather?: (handlers: Map<string, Handler>) => Batches,
): Asked {
  refuseUnknownKeys(where, options, KNOWN[where])
  const { job, clock = new VirtualClock(), use = [], worker = {}, id } = options
  if (!(clock instanceof VirtualClock)) {
    throw new OptionError(`expected \`clock\` to be a VirtualClock, got ${shown(clock)}`)
  }
  if (!Array.isArray(use)) throw new OptionError(`expected \`use\` to be a list of middleware, got ${shown(use)}`)
  if (id !== undefined) checkJobId(id)
  const stream = options.stream ?? (typeof job === 'string' ? undefined : job?.stream) ?? worker.stream ?? 'testing'
  const own = { logger: false as const, concurrency: MOST_CONCURRENCY, ...ofOneStream(worker) }
  const given = resolveWorkerOptions({ ...own, stream, handlers })
  const batches = gather?.(given.handlers) ?? batchesOf(given.handlers, new HeldSlots(1), { clock })
  const resolved = { ...given, handlers: new Map(batches.handlers) }
  const layers = use.map((one: RunMiddleware<State>) => checkMiddleware(one))
  if (layers.length > 0) wrapHandlers(resolved.handlers, layers)
  return {
    job: options,
    ...{ stream, worker: resolved, clock, chance: checkChance(options.chance) },
    heedMs: wholeNumber('heedMs', options.heedMs, { or: 5000, min: 0, max: 2 ** 31 - 1 }),
    attempt: wholeNumber('attempt', options.attempt, { or: 1, max: 1_000_000 }),
    deliveries: wholeNumber('deliveries', options.deliveries, { or: 1, max: 1_000_000 }),
    abort: checkAbort(options.abort),
  }
}

/** As a worker gathers its jobs. No more of them come than there are slots. */
export function batchesOf(
  handlers: ReadonlyMap<string, Handler>,
  slots: HeldSlots,
  { clock, maxDeliveries }: { clock: VirtualClock; maxDeliveries?: () => number },
): Batches {
  return new Batches(handlers, {
    slots: [slots],
    goesAlone: ({ deliveries }) => maxDeliveries !== undefined && isSuspect(deliveries - 1, maxDeliveries()),
    serverMs: () => clock.nowMs,
  })
}

/** The job is on one stream, whatever else the worker works on. */
function ofOneStream<State>(worker: Partial<WorkerOptions<State>>): Partial<WorkerOptions<State>> {
  const own = { ...worker }
  delete own.streams
  delete own.priority
  return own
}

function checkChance(given: unknown): () => number {
  const checked = (chance: unknown): number => {
    if (typeof chance === 'number' && chance >= 0 && chance <= 1) return chance
    throw new OptionError(`expected \`chance\` to be a number from 0 to 1, or a function of one, got ${shown(chance)}`)
  }
  if (typeof given === 'function') return () => checked((given as () => unknown)())
  const chance = checked(given ?? 0)
  return () => chance
}
