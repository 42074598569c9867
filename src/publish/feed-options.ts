import { OptionError } from '../errors.ts'
import type { Headers } from '../headers.ts'
import type { JobDefinition } from '../job.ts'
import type { Logger } from '../logger.ts'
import { flag, MOST_TIMER_MS, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { checkShare } from '../producer-options.ts'
import { checkStreamName } from '../redis/keys.ts'
import type { UniqueOptions } from './unique.ts'
import type { RedisOption } from '../redis/target.ts'

export interface FeedOptions {
  /** Where Redis is: a URL, ioredis options, or an ioredis instance, which is only read for its options. @default localhost:6379 */
  redis?: RedisOption
  /** The stream that its jobs are published to. */
  stream: string
  /**
   * What the feed is known by from one process to the next, 1 to 100 letters, digits and _ . - : a UUID that is kept, or a name
   * that is never used for another sequence.
   */
  id: string
  /**
   * Whether the feed may be begun here. Only until its owner has noted, on a disk, that `open()` has resolved: from then on a
   * feed that Redis does not know has been lost, and to begin it again would publish twice. @default false
   */
  isNew?: boolean
  /** How long Redis may take no job before a publish fails, in ms, up to 2147483647. @default 30000 */
  timeoutMs?: number
  /** Largest payload, as JSON, in bytes. @default 1048576 */
  maxPayloadBytes?: number
  /** The share of Redis's maxmemory above which nothing is published, 0.01 to 1; false is no such bound. @default 0.8 */
  maxMemoryShare?: number | false
  /** pino, or anything of its shape; `false` is silence. @default warnings and errors to stderr */
  logger?: Logger | false
}

/** One job of a feed. */
export interface FeedJob<Data = unknown> {
  readonly job: JobDefinition<Data, unknown> | string
  readonly data: Data
  /** The place behind this job, where the feed goes on once it is published: 1 to 1000 printable ASCII characters. */
  readonly position: string
  /** How long the job waits before it is delivered, in ms from when Redis has it; up to 10 years. @default 0 */
  readonly delayMs?: number
  /** From when on the job is delivered: a Date or ms since the epoch, at most 10 years ahead; past is now. @default now */
  readonly runAt?: Date | number
  /** Until when the job is to be started: a Date or ms since the epoch, in the future and behind its own delay. @default none */
  readonly expiresAt?: Date | number
  /** The same as a time from when Redis has the job, in ms, by the server's clock. @default none */
  readonly ttlMs?: number
  /**
   * A name for this job, 1 to 200 characters: another publish to the stream with the same one within `tokenTtlMs` appends nothing
   * and answers with the id of the first. A feed does without: it is for jobs that others may publish too. @default none
   */
  readonly idempotencyToken?: string
  /** How long Redis remembers the token, in ms, 1000 to 90 days. @default 86400000 */
  readonly tokenTtlMs?: number
  /** What the job is about, as of a `publish`. @default what the job's definition makes of the payload */
  readonly uniqueKey?: string
  /** What the job is in order by, 1 to 256 bytes of printable text. @default what the job's definition finds in the payload */
  readonly key?: string
  /** How it is unique. @default as the job's definition says, or until it is settled and rejecting others */
  readonly unique?: UniqueOptions
  /** What goes with the job beside its payload, as of `publish`. @default none */
  readonly headers?: Headers
}

/** A job of a feed that is in Redis. */
export interface FedJob {
  readonly id: string
  /** As of a `publish`: of a `duplicate`, `id` is that of the job which had its token or holds its uniqueness key. */
  readonly outcome: 'added' | 'scheduled' | 'duplicate' | 'replaced'
  /** The job that is cancelled in favour of this one. */
  readonly replacedId?: string
}

/** What a feed is and may, checked. */
export interface FeedRules {
  readonly stream: string
  readonly id: string
  readonly isNew: boolean
  readonly timeoutMs: number
  readonly maxPayloadBytes: number
  readonly maxMemoryShare: number | false
}

/** @throws OptionError */
export function checkFeed(options: FeedOptions): FeedRules {
  refuseUnknownKeys('Feed', options, KNOWN)
  const { id } = options
  if (typeof id !== 'string' || !/^[A-Za-z0-9_.-]{1,100}$/.test(id)) {
    throw new OptionError(`expected \`id\` to be 1 to 100 letters, digits and _ . - , got ${shown(id)}`, 'ERR_NAME')
  }
  return {
    stream: checkStreamName(options.stream),
    id,
    isNew: flag('isNew', options.isNew),
    timeoutMs: wholeNumber('timeoutMs', options.timeoutMs, { or: 30_000, max: MOST_TIMER_MS }),
    maxPayloadBytes: wholeNumber('maxPayloadBytes', options.maxPayloadBytes, { or: 1024 * 1024, max: 2 ** 29 }),
    maxMemoryShare: checkShare(options.maxMemoryShare),
  }
}

const KNOWN = ['redis', 'stream', 'id', 'isNew', 'timeoutMs', 'maxPayloadBytes', 'maxMemoryShare', 'logger']
