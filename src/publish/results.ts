import { InvalidDataError, PublishError, type SpillError } from '../errors.ts'
import type { ManyDone } from './many.ts'
import type { Route } from './packing.ts'
import { abortedError, closedError } from './telling.ts'
import type { UnpublishedJob } from './unpublished.ts'

/** What became of the jobs that were waiting when a producer was closed. */
export interface CloseResult {
  /** Jobs that are not in Redis, or may not be, each with its payload. Publishes of them that were awaited were rejected. */
  readonly unpublished: readonly UnpublishedJob[]
  /** How many of them are in the spill file, and will be published by the next producer with it. */
  readonly spilled: number
  /** Where these are; undefined if there are none. */
  readonly spillFile?: string
  /** Why there are none, though there should be: nothing is in the hands of anybody but yours then. */
  readonly spillError?: SpillError
}

/** Of a `publishMany`. */
export interface PublishedMany {
  /** All of its jobs, which are in Redis. */
  readonly published: number
  /** Of these, how many have as many replicas as was asked for; undefined if that was not. */
  readonly replicated?: number
}

/** @throws PublishError for one that did not publish everything. */
export function manyResult({ confirmed, replicated, cut, ...ended }: ManyDone, { replicas }: Route): PublishedMany {
  const failure = ended.failure ?? (cut && (cut === 'close' ? closedError() : abortedError()))
  if (failure === undefined)
    return replicas === undefined ? { published: confirmed } : { published: confirmed, replicated }
  const { code, message, published, cause } = failure
  const text = `${message} (${confirmed} jobs were published before)`
  if (failure instanceof InvalidDataError) throw new InvalidDataError(text, failure.issues, confirmed)
  throw new PublishError(code, text, { published, confirmed, cause })
}
