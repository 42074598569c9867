import { OptionError } from './errors.ts'
import { refuseUnknownKeys, shown, wholeNumber } from './options.ts'
import { forgetAnswer, isThenable } from './thenable.ts'
import { thrownText } from './thrown.ts'

/**
 * Payloads change while entries of the old kind are still in the stream. A definition says which version it publishes and how
 * an older payload becomes the next one; whoever runs the job sees the newest only.
 */

/** Makes of a payload of one version that of the next. Its parameter may be annotated with the type of the older payload. */
export type Upcast = { step(old: unknown): unknown }['step']

/** Steps by the version that they begin at: `{ 1: … }` makes a payload of version 2. */
export type Upcasts = Readonly<Record<number, Upcast>>

export const MOST_VERSIONS = 1000

/** @throws OptionError */
export function checkVersion(given: unknown): number {
  return wholeNumber('version', given, { or: 1, max: MOST_VERSIONS })
}

/** @throws OptionError unless there is a step from every version before this one, and no other. */
export function checkVersions(given: { version?: number; upcast?: Upcasts }): {
  version: number
  upcast: Upcasts | undefined
} {
  const version = checkVersion(given.version)
  const { upcast } = given
  if (upcast !== undefined && (typeof upcast !== 'object' || upcast === null || Array.isArray(upcast))) {
    throw new OptionError(`expected \`upcast\` to be an object of functions by version, got ${shown(upcast)}`)
  }
  const steps = Array.from({ length: version - 1 }, (_, at) => String(at + 1))
  if (upcast !== undefined && steps.length === 0) {
    throw new OptionError('expected `version` above 1 beside `upcast`: there is nothing older than version 1')
  }
  refuseUnknownKeys('upcast', upcast ?? {}, steps)
  for (const from of steps) {
    const step: unknown = upcast?.[Number(from)]
    if (typeof step === 'function') continue
    const wanted = `a function that makes a payload of version ${Number(from) + 1}`
    throw new OptionError(`expected \`upcast.${from}\` to be ${wanted}, got ${shown(step)}`)
  }
  return { version, upcast }
}

export type Upcasted =
  { readonly kind: 'done'; readonly data: unknown } | { readonly kind: 'failed'; readonly error: Error }

/** Brings a payload from an older version to this one. What a step has thrown may quote the payload, and is the cause alone. */
export function upcastData(
  data: unknown,
  { from, to, upcast }: { from: number; to: number; upcast: Upcasts | undefined },
): Upcasted {
  let newest = data
  for (let at = from; at < to; at++) {
    try {
      newest = upcast?.[at]?.(newest)
      if (isThenable(newest)) {
        forgetAnswer(newest)
        return failed(`its upcast from version ${at} is async, and only one that answers at once can be used`)
      }
    } catch (cause) {
      return failed(`its upcast from version ${at} threw ${thrownText(cause)}`, cause)
    }
    // No payload is that: a step without its `return` must not hand nothing to the handler.
    if (newest === undefined) return failed(`its upcast from version ${at} gave back nothing`)
  }
  return { kind: 'done', data: newest }
}

function failed(why: string, cause?: unknown): Upcasted {
  return { kind: 'failed', error: new Error(why, cause === undefined ? undefined : { cause }) }
}
