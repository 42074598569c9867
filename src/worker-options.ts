import { resolveAccept, type Accepts } from './accept.ts'
import { checkBatches } from './batch/check.ts'
import { resolveCron, type DeclaredCron, type ResolvedCron } from './cron/declared.ts'
import { OptionError } from './errors.ts'
import { resolveHandlers, resolveTimeout, type Handler, type Handlers } from './job.ts'
import type { HealthPlace } from './lease/health-server.ts'
import { resolveLimits, type Limit, type LimitOptions } from './limits/limit.ts'
import { resolveLogger, type Logger } from './logger.ts'
import { checkRegistry, type MetricsRegistry } from './metrics/metric.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { resolveRedis, type RedisOption, type RedisTarget } from './redis/target.ts'
import { checkRetry, LONGEST_DELAY_MS, type RetryOptions } from './retry.ts'
import { checkGroupName } from './redis/keys.ts'
import { checkTracing, type Tracing } from './tracing.ts'
import { resolveStreams, type ResolvedStream, type StreamPriority, type WorkerStream } from './worker-streams.ts'

/** `State`: what the worker's middleware gives its handlers as `job.state`. */
export interface WorkerOptions<State = object> {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** The stream to work on; or `streams`. */
  stream?: string
  /** The streams to work on, each by its name or with its share; or `stream`. */
  streams?: readonly (string | WorkerStream)[]
  /** Which of several streams goes first: each by its weight, or always the one that stands before the others. @default 'weighted' */
  priority?: StreamPriority
  /** The group to be a member of. @default 'main' */
  group?: string
  /** What to run: a list of `handle(job, function)` and `handleBatch(job, options, function)`, or an object of functions by job name. */
  handlers: Handlers<State>
  /** How many handlers run at once. @default 32 */
  concurrency?: number
  /** Where a further group of the stream starts; a stream's first group starts at its oldest entry. @default none */
  startAt?: 'oldest' | 'now'
  /** How long a job of a worker that went away stays unclaimed, in ms. The group keeps its first worker's. @default 10000 */
  leaseMs?: number
  /** Deliveries without an outcome before a job is dead. The group keeps its first worker's. @default 3 */
  maxDeliveries?: number
  /** How long one run may take, in ms; `false` is no limit. A job's own definition counts before it. @default 1800000 */
  timeoutMs?: number | false
  /**
   * The largest result that is told to whoever published its job with `result`, as JSON, in bytes, up to 1 MiB. A job whose result is
   * larger is completed all the same. @default 262144
   */
  maxResultBytes?: number
  /** When a failed run is tried again, and how often; a job's own definition counts before it. @default 25 attempts, 1 s doubling to 6 h */
  retry?: RetryOptions
  /**
   * How long a job whose name or version this worker does not know waits for one that does, in ms, before it is dead; 0 is not
   * at all. While another worker of the group that is alive knows it, it waits on. @default 3600000
   */
  unknownJobMs?: number
  /**
   * The jobs that the group wants: names, with `*` for any run of characters. Any other is settled as skipped. All workers of a group
   * are to have the same. @default all: one without a handler waits for a worker that has it
   */
  accept?: readonly string[]
  /** How many jobs may begin in a time, and how many may run at once, on all workers together. @default no limits */
  limits?: readonly LimitOptions[]
  /** Recurring schedules of its streams, made at the start; one that was declared before and says the same is left as it is. @default none */
  cron?: readonly DeclaredCron[]
  /** How long `run()` and `stop()` let running jobs finish, in ms. @default 25000 */
  drainMs?: number
  /** How long the event loop may stand still before the leases of this worker are no longer renewed, in ms. @default 300000 */
  stallMs?: number
  /** Serves `/livez` and `/readyz` on this port, from a thread that a blocked event loop does not stop; 0 is any free one. @default none */
  healthPort?: number
  /** The address to serve them on. @default all interfaces */
  healthHost?: string
  /** A prom-client Registry that the worker's metrics are put into. @default none */
  registry?: MetricsRegistry
  /** What traces the runs: `openTelemetry()` of `millrace/otel`. @default none */
  tracing?: Tracing
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

/** The same with every default in place. */
export interface ResolvedWorkerOptions {
  readonly target: RedisTarget
  readonly streams: readonly [ResolvedStream, ...ResolvedStream[]]
  readonly priority: StreamPriority
  readonly group: string
  /** The worker's own, which it puts its middleware around. */
  readonly handlers: Map<string, Handler>
  readonly concurrency: number
  readonly startAt: 'oldest' | 'now' | undefined
  readonly leaseMs: number
  readonly maxDeliveries: number
  /** Which of the group's settings this worker was told, and did not merely assume. */
  readonly declared: { readonly leaseMs: boolean; readonly maxDeliveries: boolean }
  readonly timeoutMs: number | false
  readonly maxResultBytes: number
  readonly retry: RetryOptions
  readonly unknownJobMs: number
  /** Whether the group wants a job; undefined where it wants all. */
  readonly accepts: Accepts | undefined
  readonly limits: readonly Limit[]
  readonly cron: readonly ResolvedCron[]
  readonly drainMs: number
  readonly stallMs: number
  /** Where health checks are answered; undefined is nowhere. */
  readonly healthPlace: HealthPlace | undefined
  readonly registry: MetricsRegistry | undefined
  readonly tracing: Tracing | undefined
  readonly logger: Logger
}

/** A pulse is at most a second apart, and close enough for three of them to be missed well within a lease. */
export function pulseMsFor(leaseMs: number): number {
  return Math.min(1000, Math.floor(leaseMs / 5))
}

/** @throws OptionError before anything is opened. */
export function resolveWorkerOptions<State>(given: WorkerOptions<State>): ResolvedWorkerOptions {
  refuseUnknownKeys('Worker', given, KNOWN)
  const leaseMs = wholeNumber('leaseMs', given.leaseMs, { or: 10_000, min: 500, max: 24 * 3_600_000 })
  const stallMs = wholeNumber('stallMs', given.stallMs, { or: Math.max(300_000, leaseMs), max: 2 ** 31 - 1 })
  if (stallMs < leaseMs) {
    throw new OptionError(`expected \`stallMs\` to be at least \`leaseMs\` (${leaseMs}), got ${stallMs}`)
  }
  const handlers = resolveHandlers(given.handlers)
  const concurrency = wholeNumber('concurrency', given.concurrency, { or: 32, max: 10_000 })
  const streams = resolveStreams(given, concurrency)
  const timeoutMs = resolveTimeout(given.timeoutMs) ?? 30 * 60_000
  checkBatches(handlers, { concurrency, timeoutMs })
  return {
    target: resolveRedis(given.redis),
    ...streams,
    group: checkGroupName(given.group ?? 'main'),
    handlers,
    concurrency,
    startAt: oneOf('startAt', given.startAt, ['oldest', 'now']),
    leaseMs,
    maxDeliveries: wholeNumber('maxDeliveries', given.maxDeliveries, { or: 3, max: 1000 }),
    declared: { leaseMs: given.leaseMs !== undefined, maxDeliveries: given.maxDeliveries !== undefined },
    timeoutMs,
    maxResultBytes: wholeNumber('maxResultBytes', given.maxResultBytes, { or: 256 * 1024, max: 1024 * 1024 }),
    retry: checkRetry('retry', given.retry) ?? {},
    unknownJobMs: wholeNumber('unknownJobMs', given.unknownJobMs, { or: 3_600_000, min: 0, max: LONGEST_DELAY_MS }),
    accepts: resolveAccept(given.accept, [...handlers.keys()]),
    limits: resolveLimits(given.limits, [...handlers.keys()]),
    cron: resolveCron(
      given.cron,
      streams.streams.map(({ stream }) => stream),
    ),
    drainMs: wholeNumber('drainMs', given.drainMs, { or: 25_000, min: 0, max: 2 ** 31 - 1 }),
    stallMs,
    healthPlace: resolveHealthPlace(given.healthPort, given.healthHost),
    registry: checkRegistry(given.registry),
    tracing: checkTracing(given.tracing),
    logger: resolveLogger(given.logger),
  }
}

function resolveHealthPlace(port: unknown, host: unknown): HealthPlace | undefined {
  if (host !== undefined && (typeof host !== 'string' || host === '')) {
    throw new OptionError(`expected \`healthHost\` to be an address or a host name, got ${shown(host)}`)
  }
  // A host without a port would be ignored in silence, and the health checks refused.
  if (port === undefined && host !== undefined) throw new OptionError('expected `healthPort` beside `healthHost`')
  if (port === undefined) return undefined
  return { port: wholeNumber('healthPort', port, { or: 0, min: 0, max: 65_535 }), host }
}

const KNOWN = [
  'redis',
  'stream',
  'streams',
  'priority',
  'group',
  'handlers',
  'concurrency',
  'startAt',
  'leaseMs',
  'maxDeliveries',
  'timeoutMs',
  'maxResultBytes',
  'retry',
  'unknownJobMs',
  'accept',
  'limits',
  'cron',
  'drainMs',
  'stallMs',
  'healthPort',
  'healthHost',
  'registry',
  'tracing',
  'logger',
]
