import { OptionError } from './errors.ts'
import { shown } from './options.ts'

/**
 * Middleware in layers, the first that was added outermost. One rule holds for publishes and for runs: **what happened
 * innermost is what happened**. A layer can make a success fail, by throwing, or another failure of a failure; it can
 * not make a failure, or what was never begun, look done:
 *
 * - `next` never called: that is a failure, since a publish or a job that is left out by accident must not look done;
 * - called twice, or after the layer has ended: refused, since it would publish or run again behind everybody's back;
 * - not awaited: waited for here, and what it came to counts.
 */

/** One middleware: `next` goes on to the next one, and at last to what they are about. */
export type Layer<Context, Result> = (context: Context, next: () => Promise<Result>) => unknown

/** How the end of what is inside a layer is told to `failed`; undefined if it was never begun. */
export type Inside<Result> = { readonly result: Result } | { readonly error: unknown } | undefined

export interface Onion<Context, Result> {
  readonly layers: readonly Layer<Context, Result>[]
  readonly context: Context
  readonly innermost: () => Result | PromiseLike<Result>
  /** The error that a layer's own becomes; `inside` is what happened behind it all the same. */
  readonly failed: (thrown: unknown, inside: Inside<Result>) => unknown
  /** The error of a layer that breaks the rules. */
  readonly refused: (text: string) => Error
}

export function throughOnion<Context, Result>(onion: Onion<Context, Result>): Promise<Result> {
  return throughLayer(onion, 0)
}

async function throughLayer<Context, Result>(onion: Onion<Context, Result>, at: number): Promise<Result> {
  const layer = onion.layers[at]
  if (layer === undefined) return onion.innermost()
  const { context, failed, refused } = onion
  const state: { inside?: Promise<Result>; isOver: boolean } = { isOver: false }
  const next = (): Promise<Result> => {
    if (state.isOver) throw refused(`${nameOf(layer, at)} called next() after it had ended`)
    if (state.inside !== undefined) throw refused(`${nameOf(layer, at)} called next() twice`)
    state.inside = throughLayer(onion, at + 1)
    // It is looked at below, however late; until then it must not count as a rejection that nobody heard.
    state.inside.catch(() => {})
    return state.inside
  }
  let own: { readonly thrown: unknown } | undefined
  try {
    await layer(context, next)
  } catch (thrown) {
    own = { thrown }
  }
  state.isOver = true
  if (state.inside === undefined) {
    throw failed(
      own === undefined ? refused(`${nameOf(layer, at)} ended without calling next()`) : own.thrown,
      undefined,
    )
  }
  const inside = await state.inside.then(
    (result) => ({ result }),
    (error: unknown) => ({ error }),
  )
  if ('error' in inside)
    throw own === undefined || own.thrown === inside.error ? inside.error : failed(own.thrown, inside)
  if (own !== undefined) throw failed(own.thrown, inside)
  return inside.result
}

function nameOf({ name }: { readonly name: string }, at: number): string {
  return name === '' ? `middleware ${at + 1}` : `middleware ${at + 1} (${name})`
}

/** @throws OptionError for what is no function. */
export function checkMiddleware<Middleware>(given: Middleware): Middleware {
  if (typeof given === 'function') return given
  throw new OptionError(`expected a middleware to be a function (context, next), got ${shown(given)}`)
}
