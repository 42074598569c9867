import type { PublishError } from '../errors.ts'
import { headersOf, type Headers } from '../headers.ts'
import { firstOf } from '../wire.ts'
import type { Outgoing } from './outgoing.ts'
import { DEFAULT_PRIORITY, type BufferPriority } from './priority.ts'
import { optionsOf, type UniqueOptions } from './unique.ts'

/** A job that a producer had and could not publish: everything that is needed to publish it again. */
export interface UnpublishedJob {
  readonly stream: string
  /** The job's name. */
  readonly job: string
  readonly data: unknown
  /** What its publish was given, and its definition's `version`: with the name they can be handed to `publish` again as they are. */
  readonly options: UnpublishedOptions
  /** Whether it is in Redis: `unknown` only if it was in a batch on its way. */
  readonly published: 'no' | 'unknown'
  /** The ref that its publish resolved with, of a buffered job; undefined of one whose publish was rejected. */
  readonly ref: string | undefined
  /** Why it was not published. */
  readonly error: PublishError
  /** Whether it is in the spill file, and will be published by the next producer with it. */
  readonly spilled: boolean
}

export interface UnpublishedOptions {
  readonly stream: string
  readonly delayMs?: number
  readonly runAt?: number
  /** As it was given; a publish refuses one that is over. */
  readonly expiresAt?: number
  /** Counts from when Redis has the job, so it begins anew. */
  readonly ttlMs?: number
  readonly bufferPriority?: BufferPriority
  readonly idempotencyToken?: string
  readonly tokenTtlMs?: number
  readonly uniqueKey?: string
  readonly unique?: UniqueOptions
  readonly headers?: Headers
  /** That of the definition which the job was published with, if it is above 1. */
  readonly version?: number
}

/** A job that gave way to others in a full buffer. */
export type ShedJob = Omit<UnpublishedJob, 'published' | 'spilled'> & { readonly published: 'no' }

/** @param left `error.published` says whether it may be in Redis. */
export function toUnpublished(
  item: Outgoing,
  left: { stream: string; error: PublishError; spilled: boolean },
): UnpublishedJob {
  const { stream, error, spilled } = left
  const published = error.published === 'no' ? 'no' : 'unknown'
  return { ...told(item, stream), published, error, spilled }
}

export function toShed(item: Outgoing, stream: string, error: PublishError): ShedJob {
  return { ...told(item, stream), published: 'no', error }
}

function told(item: Outgoing, stream: string): Pick<UnpublishedJob, 'stream' | 'job' | 'data' | 'options' | 'ref'> {
  const { due, token, unique, priority, fields } = item
  // Nobody was told the ref of one that was never let in.
  const ref = item.admitted === undefined ? item.ref : undefined
  const [, job = '', , json = 'null'] = fields
  const headers = headersOf(fields)
  const version = firstOf(fields, 'version')
  const options = {
    stream,
    ...(due?.startsWith('+') === true && { delayMs: Number(due.slice(1)) }),
    ...(due?.startsWith('+') === false && { runAt: Number(due) }),
    ...deadlineOf(fields),
    ...(priority !== DEFAULT_PRIORITY && { bufferPriority: priority }),
    ...(token !== undefined && { idempotencyToken: token.text, tokenTtlMs: token.ttlMs }),
    ...(unique !== undefined && { uniqueKey: unique.key, unique: optionsOf(unique) }),
    ...(headers !== undefined && { headers }),
    ...(version !== undefined && { version: Number(version) }),
  }
  return { stream, job, data: JSON.parse(json), options, ref }
}

function deadlineOf(fields: readonly string[]): Pick<UnpublishedOptions, 'expiresAt' | 'ttlMs'> {
  const expires = firstOf(fields, 'expires')
  if (expires === undefined) return {}
  return expires.startsWith('+') ? { ttlMs: Number(expires.slice(1)) } : { expiresAt: Number(expires) }
}
