import type { PublishMessage } from '../channels.ts'
import { PublishError } from '../errors.ts'
import { shown } from '../options.ts'
import type { AnyPublishOptions } from '../producer-options.ts'
import type { ContainedPublish } from '../tracing.ts'
import { traceFields } from '../wire.ts'
import type { BufferedJob, PublishedJob } from './outcomes.ts'
import type { Outgoing, Settled } from './outgoing.ts'
import type { Route } from './packing.ts'
import type { Named } from './router.ts'

/** The promise of a publish. */
export interface Answer {
  readonly resolve: (result: PublishedJob | BufferedJob) => void
  readonly reject: (error: unknown) => void
}

/** Who is told of a publish. */
export interface Told {
  readonly settled: Settled
  /** Of one that resolves once it is in the buffer. */
  readonly admitted: ((item: Outgoing) => void) | undefined
  /** The end of its span. */
  readonly ended?: Settled
}

/** The one, then the other. */
export function behind(first: Settled | undefined, settled: Settled | undefined): Settled | undefined {
  if (first === undefined) return settled
  return (...told) => {
    first(...told)
    settled?.(...told)
  }
}

/** What of a span travels with a job. */
export function carrying({ context }: ContainedPublish): Pick<Route, 'trace' | 'traceBytes'> {
  const trace = context && traceFields(context)
  return { trace, traceBytes: trace === undefined ? 0 : trace.join('').length }
}

/** What its channel says of a publish whose options nobody has checked yet. */
export function toldOf(job: Named, options: AnyPublishOptions, isMany: boolean): PublishMessage {
  const [name, stream] = typeof job === 'string' ? [job, undefined] : [job?.name, job?.stream]
  return { stream: options?.stream ?? stream, job: name, isMany }
}

/** A text is iterable too, but nobody means to publish its letters. */
export function checkIterable(items: unknown): void {
  const given = typeof items === 'object' && items !== null ? items : {}
  if (Symbol.iterator in given || Symbol.asyncIterator in given) return
  throw new PublishError('ERR_OPTION', `expected the items of publishMany to be an iterable, got ${shown(items)}`)
}

export function closedError(): PublishError {
  return new PublishError('ERR_PRODUCER_CLOSED', 'the producer is closed; the job is not in Redis', { published: 'no' })
}

export function abortedError(): PublishError {
  const text = 'the signal of the publish was aborted before it began; the job is not in Redis'
  return new PublishError('ERR_PUBLISH_ABORTED', text, { published: 'no' })
}
