import { OptionError, PublishError } from '../errors.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { checkGroupName } from '../redis/keys.ts'
import type { UniqueItem } from '../redis/publishing.ts'

/** How the jobs of one uniqueness key get along: of those with the same key on a stream, one is there at a time. */
export interface UniqueOptions {
  /**
   * How long a job holds its key. `until-settled`: until it is completed, dead or cancelled in its group; retries are a part of
   * that. `until-started`: until its handler is called for the first time. `{ ttlMs }`: for so many ms from its publish, 1 to
   * 31536000000, whatever becomes of it but death and cancelling. @default 'until-settled'
   */
  scope?: 'until-settled' | 'until-started' | { readonly ttlMs: number }
  /** The group that settles or starts it. @default the only one of the stream; of several one has to be named */
  group?: string
  /**
   * What a publish does that meets a holder. `reject`: nothing is appended, and it is told the holder's id. `replace`: a holder
   * that was not delivered yet, or waits for another attempt, gives way. `debounce`: one that waits for its time is given the new
   * payload and the new time; needs `delayMs` or `runAt`. @default 'reject'
   */
  mode?: 'reject' | 'replace' | 'debounce'
  /** How long after the first publish a job is due at the latest that is put off again and again, in ms. @default no bound */
  maxWaitMs?: number
}

/** Of a job definition: how all of its jobs are unique. */
export interface JobUniqueOptions<Data = unknown> extends UniqueOptions {
  /** The uniqueness key of a job, 1 to 256 characters, by its payload; undefined for a job that is not unique. */
  key(this: void, data: Data): string | undefined
}

/** What jobs of one publish are to be unique by, checked: the key of all of them, or what gives that of each. */
export interface UniqueRule {
  readonly key: string | ((data: unknown) => unknown)
  readonly how: Omit<UniqueItem, 'key'>
}

const MOST_TTL_MS = 365 * 24 * 3_600_000
const MOST_WAIT_MS = 10 * MOST_TTL_MS
const KNOWN = ['scope', 'group', 'mode', 'maxWaitMs']
const DEFAULTS: UniqueRule['how'] = { until: 'settled', ttlMs: 0, group: '', mode: 'reject', maxWaitMs: 0 }

/** @throws OptionError */
export function checkUnique(options: UniqueOptions): UniqueRule['how'] {
  refuseUnknownKeys('unique', options, KNOWN)
  const mode = oneOf('unique.mode', options.mode, ['reject', 'replace', 'debounce']) ?? 'reject'
  if (options.maxWaitMs !== undefined && mode !== 'debounce') {
    throw new OptionError(`expected \`unique.maxWaitMs\` only with \`mode: 'debounce'\`, got it with '${mode}'`)
  }
  return {
    ...scopeOf(options.scope),
    group: options.group === undefined ? '' : checkGroupName(options.group),
    mode,
    maxWaitMs: wholeNumber('unique.maxWaitMs', options.maxWaitMs, { or: 0, max: MOST_WAIT_MS }),
  }
}

/** Of a definition. @throws OptionError */
export function checkJobUnique<Data>(
  name: string,
  given: JobUniqueOptions<Data> | undefined,
): JobUniqueOptions<Data> | undefined {
  if (given === undefined) return undefined
  refuseUnknownKeys(`unique of job ${name}`, given, ['key', ...KNOWN])
  const { key, ...options } = given
  if (typeof key !== 'function') throw new OptionError(`expected \`unique.key\` to be a function, got ${shown(key)}`)
  checkUnique(options)
  return given
}

/** What a publish is given, and what its job is defined with. `isLater`: it has a time. @throws OptionError */
export function ruleOf(
  asked: { readonly uniqueKey?: unknown; readonly unique?: UniqueOptions; readonly isLater: boolean },
  definition: JobUniqueOptions<never> | undefined,
): UniqueRule | undefined {
  const { uniqueKey, unique, isLater } = asked
  if (uniqueKey === undefined && definition === undefined) {
    if (unique === undefined) return undefined
    throw new OptionError('expected `unique` only with a `uniqueKey`, or of a job that is defined with one')
  }
  if (unique !== undefined) checkUnique(unique)
  // Most say nothing but the key.
  if (unique === undefined && definition === undefined) return { key: checkKey('uniqueKey', uniqueKey), how: DEFAULTS }
  const { key, ...defined } = definition ?? {}
  const how = checkUnique({ ...defined, ...unique })
  if (how.mode === 'debounce' && !isLater) {
    throw new OptionError("expected `delayMs` or `runAt` with `mode: 'debounce'`, which puts off a job that waits")
  }
  if (uniqueKey === undefined) return { key: key as (data: unknown) => unknown, how }
  return { key: checkKey('uniqueKey', uniqueKey), how }
}

/** The key of one job; undefined if it is not to be unique. @throws OptionError; PublishError if the function for it throws. */
export function uniqueOf({ key, how }: UniqueRule, data: unknown): UniqueItem | undefined {
  const found = typeof key === 'string' ? key : keyBy(key, data)
  if (found === undefined) return undefined
  const { until, ttlMs, group, mode, maxWaitMs } = how
  return { key: found, until, ttlMs, group, mode, maxWaitMs }
}

function keyBy(keyOf: (data: unknown) => unknown, data: unknown): string | undefined {
  let key: unknown
  try {
    key = keyOf(data)
  } catch (cause) {
    const failed = 'expected `unique.key` to give a key, but it threw; see the cause'
    throw new PublishError('ERR_OPTION', failed, { published: 'no', cause })
  }
  return key === undefined ? undefined : checkKey('unique.key', key)
}

/** The fields by which a worker knows of it. */
export function uniqueFields({ key, until }: UniqueItem): readonly string[] {
  return until === 'settled' ? ['unique', key] : ['unique', key, 'unique-until', until]
}

/** What a publish was given, so that it can be published again as it is. */
export function optionsOf({ until, ttlMs, group, mode, maxWaitMs }: UniqueRule['how']): UniqueOptions {
  return {
    scope: until === 'ttl' ? { ttlMs } : `until-${until}`,
    mode,
    ...(group !== '' && { group }),
    ...(maxWaitMs > 0 && { maxWaitMs }),
  }
}

/** A key may be made of what is nobody's business: it is never shown. */
function checkKey(name: string, key: unknown): string {
  const wanted = `expected \`${name}\` to be a text of 1 to 256 characters`
  if (typeof key !== 'string') throw new OptionError(`${wanted}, got ${key === null ? 'null' : `a ${typeof key}`}`)
  if (key.length < 1 || key.length > 256) throw new OptionError(`${wanted}, got ${key.length}`)
  // Redis has it as UTF-8, in which half of a character becomes another one: two keys would be the same.
  if (/\p{Surrogate}/u.test(key)) throw new OptionError(`${wanted}, got one with half of a surrogate pair`)
  return key
}

function scopeOf(given: UniqueOptions['scope']): Pick<UniqueItem, 'until' | 'ttlMs'> {
  if (given === undefined || given === 'until-settled') return { until: 'settled', ttlMs: 0 }
  if (given === 'until-started') return { until: 'started', ttlMs: 0 }
  if (typeof given !== 'object' || given === null) {
    const words = "'until-settled', 'until-started' or { ttlMs }"
    throw new OptionError(`expected \`unique.scope\` to be ${words}, got ${shown(given)}`)
  }
  refuseUnknownKeys('unique.scope', given, ['ttlMs'])
  if (given.ttlMs === undefined) throw new OptionError('expected `unique.scope` to have `ttlMs`')
  return { until: 'ttl', ttlMs: wholeNumber('unique.scope.ttlMs', given.ttlMs, { or: 1, max: MOST_TTL_MS }) }
}
