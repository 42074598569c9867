import type { StandardSchemaV1 } from '@standard-schema/spec'
import { OptionError, textOf, type SchemaIssue } from './errors.ts'
import { shown } from './options.ts'
import { forgetAnswer, isThenable } from './thenable.ts'
import { thrownText } from './thrown.ts'

/**
 * Checking payloads by a Standard Schema, which is code of somebody else: it may throw, answer later or answer nonsense.
 * None of that may be taken for a payload that fits, and no text quotes the payload: an issue's message may.
 */

/** Any schema of a library that follows standardschema.dev: zod, valibot, arktype … */
export type Schema<Input = unknown, Output = Input> = StandardSchemaV1<Input, Output>

export type Checked =
  | { readonly kind: 'fits'; readonly value: unknown }
  | { readonly kind: 'invalid'; readonly issues: readonly SchemaIssue[] }
  /** The schema could not tell. */
  | { readonly kind: 'broken'; readonly why: string; readonly cause?: unknown }

/** Issues that are kept of one payload, and keys of each path. */
const MOST_ISSUES = 100
const MOST_KEYS = 50

/** Characters of a place that are shown. Keys are cut before they are put together: one may be a MiB, in every issue. */
const MOST_SHOWN = 100
const WHOLE = 'its top'

export function checkData(schema: Schema, data: unknown): Checked {
  let result: unknown
  try {
    result = schema['~standard'].validate(data)
    if (isThenable(result)) {
      forgetAnswer(result)
      // A zod schema whose own code threw says nothing at once either: it begins anew, as an async one.
      const why =
        'its schema answers later (it is async, or of zod and threw), and only one that answers at once can be used'
      return { kind: 'broken', why }
    }
    return checkedOf(result)
  } catch (cause) {
    return { kind: 'broken', why: `its schema threw ${thrownText(cause)} instead of telling what is wrong`, cause }
  }
}

/** @throws OptionError for what is no Standard Schema. */
export function checkSchema(option: string, given: unknown): Schema | undefined {
  if (given === undefined) return undefined
  const wanted = `expected \`${option}\` to be a Standard Schema (zod, valibot, arktype …; see standardschema.dev)`
  try {
    if (isStandard(given)) return given
  } catch (cause) {
    throw new OptionError(`${wanted}, got one that threw ${thrownText(cause)} when it was looked at`, 'ERR_OPTION', {
      cause,
    })
  }
  throw new OptionError(`${wanted}, got ${shown(given)}`)
}

function isStandard(given: unknown): given is Schema {
  const isObject = (typeof given === 'object' && given !== null) || typeof given === 'function'
  const standard: unknown = isObject ? (given as { '~standard'?: unknown })['~standard'] : undefined
  const { version, validate } = (standard ?? {}) as { version?: unknown; validate?: unknown }
  return version === 1 && typeof validate === 'function'
}

/** Where a payload does not fit, without what it is: `order.id, lines[2].price`. */
export function placesText(issues: readonly SchemaIssue[]): string {
  if (issues.length === 0) return WHOLE
  const places = [...new Set(issues.map(({ path }) => placeText(path)))]
  const told = places.slice(0, 5).join(', ')
  return places.length > 5 ? `${told} and ${places.length - 5} more places` : told
}

function placeText(path: SchemaIssue['path']): string {
  if (path.length === 0) return WHOLE
  const text = path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${key.slice(0, MOST_SHOWN)}`)).join('')
  const line = text.replace(/^\./, '').replace(/[^\p{L}\p{N}\p{P}\p{S} ]/gu, ' ')
  return line.length > MOST_SHOWN ? `${line.slice(0, MOST_SHOWN - 1)}…` : line
}

function checkedOf(result: unknown): Checked {
  const { issues } = (typeof result === 'object' && result !== null ? result : {}) as { issues?: unknown }
  if (Array.isArray(issues)) {
    return { kind: 'invalid', issues: Array.from(issues.slice(0, MOST_ISSUES), issueOf) }
  }
  if (issues === undefined && typeof result === 'object' && result !== null && 'value' in result) {
    return { kind: 'fits', value: result.value }
  }
  return { kind: 'broken', why: 'its schema answered neither a value nor issues' }
}

function issueOf(issue: unknown): SchemaIssue {
  const { message, path } = (issue ?? {}) as { message?: unknown; path?: unknown }
  // A copy: a library's path may be more than an array.
  const keys = Array.isArray(path) ? Array.from(path.slice(0, MOST_KEYS), keyOf) : []
  return { path: keys, message: typeof message === 'string' ? message : '' }
}

/** A segment of a path is a key, or an object with one. */
function keyOf(segment: unknown): string | number {
  const key: unknown = typeof segment === 'object' && segment !== null ? (segment as { key?: unknown }).key : segment
  return typeof key === 'number' ? key : textOf(() => String(key))
}
