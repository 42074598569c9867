import { MillraceError, messageOf, PublishError, type Published } from '../errors.ts'
import { packHeaders } from '../headers.ts'
import { throughOnion, type Inside } from '../onion.ts'
import type { AnyPublishOptions } from '../producer-options.ts'
import type { Route } from './packing.ts'
import { refusal } from './router.ts'

/**
 * Middleware of a producer: around each publish, after its options were checked and before its payload is. What it changes is
 * checked as if the caller had given it.
 */

/** A publish as middleware sees it; of a `publishMany`, the whole of it. */
export interface PublishContext {
  /** The job's name. */
  readonly job: string
  readonly stream: string
  readonly isMany: boolean
  /** The payload, which may be changed or replaced; undefined of a `publishMany`, which has many. */
  data: unknown
  /** The headers of the job, or of each job: to be added to. */
  readonly headers: Record<string, string>
  /** What else the publish was given, as it was given. */
  readonly options: Readonly<Omit<AnyPublishOptions, 'stream' | 'headers'>>
}

/**
 * Calls `next` once, which publishes and gives what the publish resolves with. What this throws makes the publish fail, with a
 * PublishError that says whether the job is in Redis; it resolves with nothing else than what happened.
 */
export type PublishMiddleware = (publish: PublishContext, next: () => Promise<unknown>) => unknown

/** A publish on its way through the middleware. */
export interface Through {
  readonly layers: readonly PublishMiddleware[]
  readonly route: Route
  readonly options: AnyPublishOptions
  readonly isMany: boolean
  readonly data: unknown
}

/** @throws PublishError, also for what a middleware has thrown; its error is the cause. */
export function publishThrough<Result>(
  { layers, route, options, isMany, data }: Through,
  send: (route: Route, data: unknown) => Result | Promise<Result>,
): Promise<Result> {
  const context = contextOf(route, options, { isMany, data })
  const about = { route, isMany }
  return throughOnion<PublishContext, Result>({
    layers,
    context,
    innermost: () => {
      if (isMany && context.data !== undefined) {
        throw notSent('a middleware has set `data` of a publishMany, which has none; nothing was published', undefined)
      }
      return send({ ...route, headers: headersIn(context) }, context.data)
    },
    failed: (thrown, inside) => failure(thrown, inside, about),
    refused: (text) => new MillraceError('ERR_MIDDLEWARE', text),
  })
}

/** @throws PublishError for what a middleware has made of them. */
function headersIn({ headers }: PublishContext): readonly string[] | undefined {
  try {
    return packHeaders(headers)?.fields
  } catch (error) {
    throw refusal(error)
  }
}

function contextOf(
  { name, batcher }: Route,
  given: AnyPublishOptions,
  { isMany, data }: { isMany: boolean; data: unknown },
): PublishContext {
  const headers = Object.assign(Object.create(null) as Record<string, string>, given.headers)
  const options: Partial<AnyPublishOptions> = { ...given }
  delete options.stream
  delete options.headers
  return { job: name, stream: batcher.numbers.stream, isMany, data, headers, options: Object.freeze(options) }
}

/** What a publish fails with because of a middleware, and the truth about its job. */
function failure(
  thrown: unknown,
  inside: Inside<unknown>,
  { route: { name, numbers }, isMany }: { route: Route; isMany: boolean },
): PublishError {
  const text = `a middleware failed the publish of ${name}: ${messageOf(thrown).split('\n')[0]}`
  if (inside === undefined) {
    if (!isMany) numbers.rejected += 1
    return notSent(`${text}; nothing was published`, thrown)
  }
  if ('error' in inside) {
    const { published = 'unknown', confirmed = 0 } = inside.error instanceof PublishError ? inside.error : {}
    return new PublishError('ERR_MIDDLEWARE', `${text}, after it had failed by itself`, {
      published,
      confirmed,
      cause: thrown,
    })
  }
  const { published, confirmed, where } = doneOf(inside.result)
  return new PublishError('ERR_MIDDLEWARE', `${text}, after it ${where}`, { published, confirmed, cause: thrown })
}

function notSent(text: string, cause: unknown): PublishError {
  return new PublishError('ERR_MIDDLEWARE', text, { published: 'no', cause })
}

/** What had been done when a middleware threw all the same. */
function doneOf(result: unknown): { published: Published; confirmed: number; where: string } {
  const { id, published } = result as { id?: string; published?: number }
  if (published !== undefined)
    return { published: 'yes', confirmed: published, where: 'was done: all of its jobs are in Redis' }
  if (id === undefined)
    return { published: 'unknown', confirmed: 0, where: 'was taken into the buffer, from where it goes on' }
  return { published: 'yes', confirmed: 0, where: `was done: the job is in Redis as ${id}` }
}
