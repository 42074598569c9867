/**
 * Every error that millrace throws. One base class with a stable `code`; a class of its own only where a caller branches.
 * Messages say what failed, where, and what to do next; they never hold a payload, a password or a URL with one in it.
 */

/** The stable codes, for `error.code`. Messages may be reworded between versions, codes may not. */
export type ErrorCode =
  | 'ERR_OPTION'
  | 'ERR_NAME'
  | 'ERR_PAYLOAD'
  | 'ERR_INVALID_DATA'
  | 'ERR_SCHEMA'
  | 'ERR_HANDLERS'
  | 'ERR_PUBLISH_TIMEOUT'
  | 'ERR_PUBLISH_REFUSED'
  | 'ERR_PUBLISH_ABORTED'
  | 'ERR_PUBLISH_SHED'
  | 'ERR_BUFFER_FULL'
  | 'ERR_STREAM_FULL'
  | 'ERR_RUN_ENDED'
  | 'ERR_RUN_PUBLISHES'
  | 'ERR_UNIQUE_GROUP'
  | 'ERR_MEMORY_FULL'
  | 'ERR_SPILL'
  | 'ERR_MIDDLEWARE'
  | 'ERR_FEED_LOST'
  | 'ERR_FEED_BEHIND'
  | 'ERR_FEED_TAKEN'
  | 'ERR_PRODUCER_CLOSED'
  | 'ERR_REDIS_UNREACHABLE'
  | 'ERR_REDIS_REFUSED'
  | 'ERR_REDIS_REPLY'
  | 'ERR_UNKNOWN_GROUP'
  | 'ERR_NOT_FOUND'
  | 'ERR_WORKER_STATE'
  | 'ERR_LISTEN'
  | 'ERR_LEASE_LOST'
  | 'ERR_JOB_TIMEOUT'
  | 'ERR_STOPPING'
  | 'ERR_CANCELLED'
  | 'ERR_RETRY_AFTER'
  | 'ERR_FATAL'
  | 'ERR_WORKERS_ALIVE'
  | 'ERR_PENDING'
  | 'ERR_CANCELLED_FULL'
  | 'ERR_HISTORY'
  | 'ERR_REPLAY'
  | 'ERR_NOT_DRAINED'
  | 'ERR_RESULT_TIMEOUT'
  | 'ERR_RESULT_ABORTED'
  | 'ERR_RESULT_FAILED'
  | 'ERR_RESULT_CANCELLED'
  | 'ERR_RESULT_SKIPPED'
  | 'ERR_RESULT_TOO_LARGE'
  | 'ERR_RESULT_NOT_JSON'
  | 'ERR_RESULT_NOT_ASKED'

/** What is wrong with a payload at one place. */
export interface SchemaIssue {
  /** Keys and indices from the payload down to the place; empty for the payload itself. */
  readonly path: readonly (string | number)[]
  /** As the schema says it. May quote the payload: not for logs. */
  readonly message: string
}

/** Base class of all errors thrown by millrace; `instanceof MillraceError` tells them from a handler's own. */
export class MillraceError extends Error {
  override readonly name: string = 'MillraceError'
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

/** An option, name or argument is not what it must be. Thrown before any connection is opened; nothing was done. */
export class OptionError extends MillraceError {
  override readonly name = 'OptionError'

  constructor(message: string, code: ErrorCode = 'ERR_OPTION', options?: ErrorOptions) {
    super(code, message, options)
  }
}

/**
 * Whether a job of a failed publish is in Redis. `unknown` only for a batch that was on its way and got no answer: its time
 * was up, the producer was closed, or Redis no longer knows. `yes` only where it was published and a middleware failed then.
 */
export type Published = 'no' | 'unknown' | 'yes'

/** A publish did not succeed. `published` says whether the job may be in Redis all the same. */
export class PublishError extends MillraceError {
  override readonly name: string = 'PublishError'
  readonly published: Published
  /** Of a `publishMany`: how many of its jobs are certainly in Redis. */
  readonly confirmed: number

  constructor(
    code: ErrorCode,
    message: string,
    { published = 'no', confirmed = 0, cause }: { published?: Published; confirmed?: number; cause?: unknown } = {},
  ) {
    super(code, message, cause === undefined ? undefined : { cause })
    this.published = published
    this.confirmed = confirmed
  }
}

/** The data does not fit the schema of its job. Nothing was published of it. */
export class InvalidDataError extends PublishError {
  override readonly name = 'InvalidDataError'
  readonly #issues: readonly SchemaIssue[]

  constructor(message: string, issues: readonly SchemaIssue[], confirmed = 0) {
    super('ERR_INVALID_DATA', message, { published: 'no', confirmed })
    this.#issues = issues
  }

  /** What is wrong, where, as the schema says it. No field, so that no logger writes it: a schema may quote the payload. */
  get issues(): readonly SchemaIssue[] {
    return this.#issues
  }
}

/** The producer's buffer has no room for the job, which is not in Redis: Redis is away, or slower than is published. */
export class BufferFullError extends PublishError {
  override readonly name = 'BufferFullError'

  constructor(message: string) {
    super('ERR_BUFFER_FULL', message, { published: 'no' })
  }
}

/** A publish of a feed did not succeed. The feed has ended with it: what is in Redis is known when it is opened again. */
export class FeedError extends PublishError {
  override readonly name = 'FeedError'
  /** What has ended the feed, without what became of these jobs. */
  readonly why: string
  /** The ids of the jobs that certainly are in Redis: the first ones. */
  readonly ids: readonly string[]
  /** How many of the jobs were in a batch on its way, and are in Redis or not. */
  readonly uncertain: number

  constructor(
    code: ErrorCode,
    { stream, why, cause }: { stream: string; why: string; cause?: unknown },
    { ids, uncertain }: { ids: readonly string[]; uncertain: number },
  ) {
    const confirmed = ids.length
    const which = confirmed > 0 ? `the jobs behind the first ${confirmed}` : 'the jobs'
    const fate = uncertain > 0 ? 'may be in Redis or not, which open() tells' : 'were not appended'
    const published = uncertain > 0 ? 'unknown' : 'no'
    super(code, `could not publish to ${stream}: ${why}; ${which} ${fate}`, { published, confirmed, cause })
    this.why = why
    this.ids = ids
    this.uncertain = uncertain
  }
}

/** A spill file cannot be read or written, or is not ours. What was to go into it is in the hands of the caller. */
export class SpillError extends MillraceError {
  override readonly name = 'SpillError'

  constructor(message: string, options?: ErrorOptions) {
    super('ERR_SPILL', message, options)
  }
}

/** Redis cannot be reached, or refuses us (password, permission, a key of another type). `cause` is the client's error. */
export class RedisError extends MillraceError {
  override readonly name = 'RedisError'
}

/** The stream has no such group: most often a mistyped name (P9). Nothing was created, nothing was changed. */
export class UnknownGroupError extends MillraceError {
  override readonly name = 'UnknownGroupError'
  readonly groups: readonly string[]

  /** @param asked whether somebody wants to work in the group, or only to look at it. */
  constructor(
    { stream, group, groups }: { stream: string; group: string; groups: readonly string[] },
    meant: string | undefined,
    asked: 'to join' | 'to look' = 'to look',
  ) {
    const all = groups.length === 0 ? 'it has none' : `its groups: ${groups.slice(0, 20).join(', ')}`
    const hint = meant === undefined ? all : `did you mean ${meant}?`
    const advice = asked === 'to join' ? "; to start a further group say where: startAt 'oldest' or 'now'" : ''
    super('ERR_UNKNOWN_GROUP', `stream ${stream} has no group ${group} (${hint})${advice}`)
    this.groups = groups
  }
}

/**
 * Thrown by a handler: try again, but not before `retryAfterMs`, whatever the back-off says; a server's Retry-After, for
 * one. It counts as an attempt.
 * @throws OptionError for what is no delay.
 */
export class RetryAfterError extends MillraceError {
  override readonly name = 'RetryAfterError'
  readonly retryAfterMs: number

  constructor(retryAfterMs: number, message = `to be tried again in ${retryAfterMs} ms`, options?: ErrorOptions) {
    super('ERR_RETRY_AFTER', message, options)
    if (!(typeof retryAfterMs === 'number' && retryAfterMs >= 0 && retryAfterMs <= 10 * 365 * 86_400_000)) {
      throw new OptionError(
        `expected a RetryAfterError to be given ms from 0 to ten years, got ${String(retryAfterMs)}`,
      )
    }
    this.retryAfterMs = retryAfterMs
  }
}

/** Thrown by a handler: no further attempt will help. The job is dead at once, with the reason `fatal`. */
export class FatalError extends MillraceError {
  override readonly name = 'FatalError'

  constructor(message: string, options?: ErrorOptions) {
    super('ERR_FATAL', message, options)
  }
}

/** Reason of a handler's signal: another worker owns the job now, whatever this run still does. */
export class LeaseLostError extends MillraceError {
  override readonly name = 'LeaseLostError'

  constructor(stream: string, id: string, why = 'it runs on another worker') {
    super('ERR_LEASE_LOST', `the lease of job ${id} on ${stream} was lost: ${why}, stop this run`)
  }
}

/** Reason of a handler's signal: the job ran longer than `timeoutMs`; its lease is no longer renewed. */
export class JobTimeoutError extends MillraceError {
  override readonly name = 'JobTimeoutError'

  constructor(stream: string, id: string, timeoutMs: number) {
    super('ERR_JOB_TIMEOUT', `job ${id} on ${stream} ran longer than its timeoutMs of ${timeoutMs} ms`)
  }
}

/** Reason of a handler's signal: the worker stops and `drainMs` is over; the job is handed back and runs elsewhere. */
export class StoppingError extends MillraceError {
  override readonly name = 'StoppingError'

  constructor(stream: string, id: string) {
    super('ERR_STOPPING', `the worker is stopping: job ${id} on ${stream} is handed back and runs on another worker`)
  }
}

/** Reason of a handler's signal: somebody cancelled the job; however this run ends but by completing, it is the last. */
export class CancelledError extends MillraceError {
  override readonly name = 'CancelledError'

  constructor(stream: string, id: string) {
    super('ERR_CANCELLED', `job ${id} on ${stream} was cancelled`)
  }
}

/** What is known of a job whose result was not to be had. */
export interface ResultAbout {
  readonly stream: string
  readonly jobId: string
  /** The group that ended the job; undefined where none has, or nobody knows. */
  readonly group?: string | undefined
  /** What it is dead of; see `DeadReason`. */
  readonly reason?: string | undefined
  /** The attempts that the job had, of one that is dead. */
  readonly attempts?: number | undefined
  readonly cause?: unknown
}

/** A result that was awaited is not to be had; `code` says why. What became of the job is a matter of its own. */
export class ResultError extends MillraceError {
  override readonly name = 'ResultError'
  readonly stream: string
  readonly jobId: string
  readonly group: string | undefined
  /** What the job is dead of: `attempts`, `expired`, `fatal` … ; undefined of one that is not. */
  readonly reason: string | undefined
  readonly attempts: number | undefined

  constructor(code: ErrorCode, message: string, { stream, jobId, group, reason, attempts, cause }: ResultAbout) {
    super(code, message, cause === undefined ? undefined : { cause })
    this.stream = stream
    this.jobId = jobId
    this.group = group
    this.reason = reason
    this.attempts = attempts
  }
}

/** The text of anything thrown, for logs and provenance. */
export function messageOf(error: unknown): string {
  return textOf(() => (error instanceof Error ? error.message : error))
}

/** Handlers can throw what has no text: an object without a prototype, an error whose getters throw. This never throws. */
export function textOf(read: () => unknown): string {
  try {
    return String(read())
  } catch {
    return '(what was thrown has no text)'
  }
}
