import { OptionError } from './errors.ts'
import type { Headers } from './headers.ts'
import type { Logger } from './logger.ts'
import type { MetricsRegistry } from './metrics/metric.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import type { Durability, ReplicaDurability } from './publish/durability.ts'
import { DEFAULT_PRIORITY, type BufferPriority } from './publish/priority.ts'
import type { UniqueOptions } from './publish/unique.ts'
import type { ShedJob } from './publish/unpublished.ts'
import type { RedisOption } from './redis/target.ts'
import type { ResultOptions } from './results/options.ts'
import type { Tracing } from './tracing.ts'

/** What a producer keeps while Redis is away, or slower than is published; for each stream. */
export interface BufferOptions {
  /** Most jobs that wait for Redis. @default 100000 */
  maxJobs?: number
  /** Most bytes of payload that wait for Redis; one job alone may be larger. @default 67108864 */
  maxBytes?: number
  /**
   * How long a job may wait for Redis before it is given up, in ms: one number, or one for each `bufferPriority`, as a budget
   * of retries. A publish that is awaited is given up at its `timeoutMs` if that is sooner. @default 600000
   */
  maxAgeMs?: number | Readonly<Partial<Record<BufferPriority, number>>>
  /**
   * What becomes of a publish for which there is no room. `reject`: it fails with a BufferFullError. `wait`: it waits for
   * room, until its time is up or its signal is aborted. `shed`: the jobs of the lowest `bufferPriority` give way, each is
   * handed to `onShed`. @default 'reject'
   */
  whenFull?: 'reject' | 'wait' | 'shed'
  /** Given every job that is shed, with its payload. Required with `whenFull: 'shed'`, and only then. @default none */
  onShed?: (job: ShedJob) => void
  /** A file for the buffered jobs that a `close()` could not publish; the next producer with it publishes them first. @default none */
  spillFile?: string
}

export interface ProducerOptions<Default extends Durability = 'redis'> {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** When a publish resolves. @default 'redis' */
  durability?: Default
  /** How long a publish may take before it fails, in ms. @default 10000 */
  timeoutMs?: number
  /** Largest payload, as JSON, in bytes. @default 1048576 */
  maxPayloadBytes?: number
  /** What waits in the producer for Redis, and what becomes of the rest. @default the defaults of its fields */
  buffer?: BufferOptions
  /**
   * What becomes of an awaited publish while its stream has its `maxBacklog`, or Redis its `maxMemoryShare`. `wait`: it waits
   * until its time is up or its signal is aborted. `reject`: it fails at once. Buffered jobs always wait. @default 'wait'
   */
  whenStreamFull?: 'wait' | 'reject'
  /** The share of Redis's maxmemory above which nothing is published, 0.01 to 1; false is no such bound. @default 0.8 */
  maxMemoryShare?: number | false
  /** A prom-client Registry that the producer's metrics are put into. @default none */
  registry?: MetricsRegistry
  /** What traces the publishes: `openTelemetry()` of `millrace/otel`. @default none */
  tracing?: Tracing
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

export interface PublishOptions {
  /** The stream to publish to. @default the job definition's */
  stream?: string
  /** How long this publish may take, in ms. @default the producer's timeoutMs */
  timeoutMs?: number
  /** How long the job waits before it is delivered, in ms from when Redis has it; up to 10 years. @default 0 */
  delayMs?: number
  /** From when on the job is delivered: a Date or ms since the epoch, at most 10 years ahead; past is now. @default now */
  runAt?: Date | number
  /**
   * Until when the job is to be started: a Date or ms since the epoch, in the future and behind its own delay, at most 10 years
   * ahead. One that has not been started by then, a retry of it too, is dead as `expired`. @default none
   */
  expiresAt?: Date | number
  /** The same as a time from when Redis has the job, in ms, by the server's clock. Either this or `expiresAt`. @default none */
  ttlMs?: number
  /** Which jobs a full buffer keeps, 0 (goes first) to 9. @default 5 */
  bufferPriority?: BufferPriority
  /**
   * Takes the publish back while the job is not on its way yet, or when Redis refuses its batch for now; it then fails with
   * `published: 'no'`. One that is buffered can be taken back only while it waits for room. @default none
   */
  signal?: AbortSignal
  /**
   * A name for this job, 1 to 200 characters: another publish to the stream with the same one within `tokenTtlMs` appends nothing
   * and answers with the id of the first. @default none
   */
  idempotencyToken?: string
  /** How long Redis remembers the token, in ms, 1000 to 90 days. @default 86400000 */
  tokenTtlMs?: number
  /**
   * What the job is about, 1 to 256 characters: while another job of the stream holds the same key, nothing is appended, or what
   * `unique` says. @default what the job's definition makes of the payload
   */
  uniqueKey?: string
  /** How it is unique. @default as the job's definition says, or until it is settled and rejecting others */
  unique?: UniqueOptions
  /**
   * What the job is in order by, 1 to 256 bytes of printable text: of the jobs of a key one runs at a time in each group, in the order in
   * which they were published. @default what the job's definition finds in the payload
   */
  key?: string
  /**
   * What goes with the job beside its payload, as `job.headers`: texts by name (1 to 64 of a-z, 0-9, _ . and -), at most 32 and
   * 8 KiB in all. @default none
   */
  headers?: Headers
  /**
   * Which version its payload is, 1 to 1000, of a job that is published by its name alone, as one that was given back is.
   * @default that of the job's definition, or 1
   */
  version?: number
}

/** The options of a publish that has a durability of its own. */
export interface DurablePublishOptions<Own extends Durability> extends PublishOptions {
  /** When this publish resolves. @default the producer's durability */
  durability: Own
}

/** The options of a publish whose job's result is wanted. */
export interface AwaitedPublishOptions extends PublishOptions {
  /** Has whoever ends the job tell how; the publish then resolves with `result`, which waits for that. Not of a buffered publish. */
  result: true | ResultOptions
}

/** Of a `publishMany`, which always waits for Redis: what each of its jobs is given. */
export interface PublishManyOptions extends Omit<PublishOptions, 'idempotencyToken' | 'tokenTtlMs' | 'uniqueKey'> {
  /** When Redis has a job, or replicas too. @default the producer's durability, or 'redis' where that is 'buffered' */
  durability?: Exclude<Durability, 'buffered'>
}

/** What a publish may have been given. */
export type AnyPublishOptions = PublishOptions & { durability?: Durability; result?: true | ResultOptions }

/** What a full buffer, and what a full stream, is answered with; checked. */
export interface BufferRules {
  readonly maxJobs: number
  readonly maxBytes: number
  /** By priority, 0 to 9. */
  readonly maxAgeMs: readonly number[]
  readonly whenFull: 'reject' | 'wait' | 'shed'
  readonly onShed: ((job: ShedJob) => void) | undefined
  readonly spillFile: string | undefined
}

export const PRODUCER_KNOWN = [
  'redis',
  'durability',
  'timeoutMs',
  'maxPayloadBytes',
  'buffer',
  'whenStreamFull',
  'maxMemoryShare',
  'registry',
  'tracing',
  'logger',
]
export const PUBLISH_KNOWN = [
  'stream',
  'timeoutMs',
  'delayMs',
  'runAt',
  'expiresAt',
  'ttlMs',
  'durability',
  'bufferPriority',
  'signal',
  'idempotencyToken',
  'tokenTtlMs',
  'uniqueKey',
  'unique',
  'key',
  'headers',
  'version',
  'result',
]

const DEFAULT_AGE_MS = 600_000
const MOST_AGE_MS = 7 * 24 * 3_600_000

/** @throws OptionError, also on what contradicts itself. */
export function checkBuffer(options: BufferOptions = {}): BufferRules {
  refuseUnknownKeys('buffer', options, ['maxJobs', 'maxBytes', 'maxAgeMs', 'whenFull', 'onShed', 'spillFile'])
  const { onShed, spillFile } = options
  const whenFull = oneOf('buffer.whenFull', options.whenFull, ['reject', 'wait', 'shed']) ?? 'reject'
  if (onShed !== undefined && typeof onShed !== 'function') {
    throw new OptionError(`expected \`buffer.onShed\` to be a function, got ${shown(onShed)}`)
  }
  if (whenFull === 'shed' && onShed === undefined) {
    throw new OptionError("expected `buffer.onShed` with `whenFull: 'shed'`: jobs are not dropped in silence")
  }
  if (whenFull !== 'shed' && onShed !== undefined) {
    throw new OptionError(`expected no \`buffer.onShed\` with \`whenFull: '${whenFull}'\`, which sheds nothing`)
  }
  if (spillFile !== undefined && (typeof spillFile !== 'string' || spillFile === '')) {
    throw new OptionError(`expected \`buffer.spillFile\` to be a path, got ${shown(spillFile)}`)
  }
  return {
    maxJobs: wholeNumber('buffer.maxJobs', options.maxJobs, { or: 100_000, max: 10_000_000 }),
    maxBytes: wholeNumber('buffer.maxBytes', options.maxBytes, { or: 64 * 1024 * 1024 }),
    maxAgeMs: checkAges(options.maxAgeMs),
    whenFull,
    onShed,
    spillFile,
  }
}

function checkAges(given: BufferOptions['maxAgeMs']): number[] {
  const limits = { or: DEFAULT_AGE_MS, max: MOST_AGE_MS }
  if (typeof given !== 'object' || given === null) {
    return Array.from<number>({ length: 10 }).fill(wholeNumber('buffer.maxAgeMs', given, limits))
  }
  refuseUnknownKeys('buffer.maxAgeMs', given, [...'0123456789'])
  return Array.from({ length: 10 }, (_, priority) =>
    wholeNumber(`buffer.maxAgeMs.${priority}`, given[priority as BufferPriority], limits),
  )
}

/** @throws OptionError */
export function checkDurability(given: unknown): Durability | undefined {
  if (given === undefined || given === 'redis' || given === 'buffered') return given
  if (typeof given !== 'object' || given === null) {
    const wanted = "'redis', 'buffered' or { replicas, timeoutMs }"
    throw new OptionError(`expected \`durability\` to be ${wanted}, got ${shown(given)}`)
  }
  refuseUnknownKeys('durability', given, ['replicas', 'timeoutMs'])
  const { replicas, timeoutMs } = given as Partial<ReplicaDurability>
  if (replicas === undefined || timeoutMs === undefined) {
    throw new OptionError('expected `durability` to have both `replicas` and `timeoutMs`')
  }
  return {
    replicas: wholeNumber('durability.replicas', replicas, { or: 1, max: 100 }),
    timeoutMs: wholeNumber('durability.timeoutMs', timeoutMs, { or: 1, max: 60_000 }),
  }
}

/** @throws OptionError */
export function checkShare(given: unknown): number | false {
  if (given === undefined) return 0.8
  if (given === false || (typeof given === 'number' && given >= 0.01 && given <= 1)) return given
  throw new OptionError(`expected \`maxMemoryShare\` to be a number from 0.01 to 1, or false, got ${shown(given)}`)
}

/** @throws OptionError */
export function checkPriority(given: unknown): BufferPriority {
  return wholeNumber('bufferPriority', given, { or: DEFAULT_PRIORITY, min: 0, max: 9 }) as BufferPriority
}

/** @throws OptionError */
export function checkSignal(given: unknown): AbortSignal | undefined {
  if (given === undefined || given instanceof AbortSignal) return given
  throw new OptionError(`expected \`signal\` to be an AbortSignal, got ${shown(given)}`)
}

/** The token as the script takes it. @throws OptionError */
export function checkToken({
  idempotencyToken: text,
  tokenTtlMs,
}: PublishOptions): { text: string; ttlMs: number } | undefined {
  if (text === undefined) {
    if (tokenTtlMs === undefined) return undefined
    throw new OptionError('expected `tokenTtlMs` only with an `idempotencyToken`')
  }
  if (typeof text !== 'string' || !/^[\x21-\x7e]{1,200}$/.test(text)) {
    throw new OptionError(
      `expected \`idempotencyToken\` to be 1 to 200 visible ASCII characters, got ${shownToken(text)}`,
    )
  }
  return { text, ttlMs: wholeNumber('tokenTtlMs', tokenTtlMs, { or: 86_400_000, min: 1000, max: 90 * 86_400_000 }) }
}

/** A token may be made of what is nobody's business. */
function shownToken(text: unknown): string {
  if (typeof text !== 'string') return shown(text)
  return text.length >= 1 && text.length <= 200 ? 'other ones too' : `${text.length}`
}
