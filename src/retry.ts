import { messageOf, OptionError, textOf } from './errors.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from './options.ts'

/**
 * When a failed job runs again, and when it has failed for good. Pure: what time it is and what chance says come from the
 * caller. Crashes are no failures: they are counted as deliveries and bounded by `maxDeliveries`.
 */

/** What a retry is decided from. */
export interface FailedAttempt {
  readonly id: string
  readonly name: string
  /** How many attempts have failed, this one among them. */
  readonly attempt: number
  readonly error: unknown
  /** When the job was published, in ms since the epoch by the time of Redis. */
  readonly publishedMs: number
  /** When its first attempt failed, likewise. */
  readonly firstFailedMs: number
}

export type ErrorClass = abstract new (...args: never[]) => unknown

/** Which errors are meant: classes and names or codes of errors, or a function that tells. */
export type ErrorFilter = readonly (ErrorClass | string)[] | ((error: unknown) => boolean)

/** How the delays grow, or a function that says how long to wait, in ms; `false` is no further attempt. */
export type Backoff = 'exponential' | 'linear' | 'fixed' | ((failed: FailedAttempt) => number | false)

export interface RetryOptions {
  /** Runs in total; 1 is no retry. @default 25 */
  attempts?: number
  /** How the delays grow: doubling, by the first delay each time, not at all, or as a function says. @default 'exponential' */
  backoff?: Backoff
  /** The delay before the second attempt, in ms. @default 1000 */
  delayMs?: number
  /** The longest delay, in ms; not for what a RetryAfterError asks. @default 21600000 */
  maxDelayMs?: number
  /** The share of a delay that is left to chance, from 0 to 1, so that what failed together does not come back together. @default 0.5 */
  jitter?: number
  /** How long after its first failure a job may still be tried again, in ms. @default no bound */
  retryForMs?: number
  /** Until when a job may still be tried again: a Date, ms since the epoch, or a function of the failure. @default no bound */
  retryUntil?: Date | number | ((failed: FailedAttempt) => Date | number)
  /** The errors that are worth another attempt; any other is fatal. @default all */
  retryOn?: ErrorFilter
  /** The errors that are fatal: the job is dead at once. @default none */
  failOn?: ErrorFilter
}

export type RetryDecision =
  | { readonly kind: 'retry'; readonly delayMs: number; readonly complaint: string | undefined }
  | { readonly kind: 'dead'; readonly reason: 'attempts' | 'fatal'; readonly complaint: string | undefined }

/** Ten years: what is further away is a mistake of units. */
export const LONGEST_DELAY_MS = 10 * 365 * 86_400_000

const DEFAULTS = {
  attempts: 25,
  backoff: 'exponential' as Backoff,
  delayMs: 1000,
  maxDelayMs: 6 * 3_600_000,
  jitter: 0.5,
}

/**
 * @param chance a number from 0 to 1.
 * A function of the user's that throws or returns what is no delay changes nothing: the default takes its place, and
 * `complaint` says so.
 */
export function decideRetry(
  options: RetryOptions,
  failed: FailedAttempt,
  { nowMs, chance }: { nowMs: number; chance: number },
): RetryDecision {
  const complaints: string[] = []
  const complain = (what: string) => void complaints.push(what)
  const said = () => (complaints.length === 0 ? undefined : complaints.join('; '))
  const dead = (reason: 'attempts' | 'fatal'): RetryDecision => ({ kind: 'dead', reason, complaint: said() })
  const wish = wishOf(failed.error)
  if (wish === 'fatal' || isFatal(options, failed.error, complain)) return dead('fatal')
  if (failed.attempt >= (options.attempts ?? DEFAULTS.attempts)) return dead('attempts')
  const delayMs = wish ?? delayOf(options, failed, { chance, complain })
  if (delayMs === false || nowMs + delayMs > deadlineOf(options, failed, complain)) return dead('attempts')
  return { kind: 'retry', delayMs, complaint: said() }
}

/** @throws OptionError that names the option under `where`. */
export function checkRetry(where: string, given: RetryOptions | undefined): RetryOptions | undefined {
  if (given === undefined) return undefined
  refuseUnknownKeys(where, given, KNOWN)
  const named = (name: string) => `${where}.${name}`
  const longest = LONGEST_DELAY_MS
  wholeNumber(named('attempts'), given.attempts, { or: 1, max: 1_000_000 })
  if (typeof given.backoff !== 'function')
    oneOf(named('backoff'), given.backoff, ['exponential', 'linear', 'fixed', 'a function'])
  wholeNumber(named('delayMs'), given.delayMs, { or: 0, min: 0, max: longest })
  wholeNumber(named('maxDelayMs'), given.maxDelayMs, { or: 0, min: 0, max: longest })
  wholeNumber(named('retryForMs'), given.retryForMs, { or: 0, min: 0, max: longest })
  const { jitter, retryUntil } = given
  if (jitter !== undefined && !(typeof jitter === 'number' && jitter >= 0 && jitter <= 1)) {
    throw new OptionError(`expected \`${named('jitter')}\` to be a number from 0 to 1, got ${shown(jitter)}`)
  }
  if (retryUntil !== undefined && typeof retryUntil !== 'function' && !Number.isFinite(Number(retryUntil))) {
    throw new OptionError(
      `expected \`${named('retryUntil')}\` to be a Date, ms since the epoch or a function, got ${shown(retryUntil)}`,
    )
  }
  checkFilter(named('retryOn'), given.retryOn)
  checkFilter(named('failOn'), given.failOn)
  return given
}

/** What `first` leaves open, or says to be undefined, is as in `second`. */
export function mergeRetry(first: RetryOptions = {}, second: RetryOptions = {}): RetryOptions {
  const said = Object.entries(first).filter(([, value]) => value !== undefined)
  return { ...second, ...(Object.fromEntries(said) as RetryOptions) }
}

/** What a back-off is before chance, in ms, bounded by the longest delay. `failures` is 1 after the first one. */
export function backoffDelayMs(
  options: RetryOptions,
  kind: Exclude<Backoff, (...args: never) => unknown>,
  failures: number,
): number {
  const { delayMs = DEFAULTS.delayMs, maxDelayMs = DEFAULTS.maxDelayMs } = options
  const times = kind === 'fixed' ? 1 : kind === 'linear' ? failures : 2 ** Math.min(failures - 1, 60)
  return Math.min(maxDelayMs, delayMs * times)
}

function delayOf(
  options: RetryOptions,
  failed: FailedAttempt,
  { chance, complain }: { chance: number; complain: (what: string) => void },
): number | false {
  const { backoff = DEFAULTS.backoff, jitter = DEFAULTS.jitter, maxDelayMs = DEFAULTS.maxDelayMs } = options
  if (typeof backoff === 'function') {
    const asked = called(() => backoff(failed), 'backoff', complain)
    if (asked === false) return false
    if (typeof asked === 'number' && asked >= 0 && asked <= LONGEST_DELAY_MS) {
      return Math.min(Math.round(asked), maxDelayMs)
    }
    if (asked !== THREW) complain(`the function \`backoff\` returned ${shown(asked)}, expected ms or false`)
  }
  const full = backoffDelayMs(options, typeof backoff === 'function' ? 'exponential' : backoff, failed.attempt)
  return Math.round(full - full * jitter * chance)
}

function deadlineOf(options: RetryOptions, failed: FailedAttempt, complain: (what: string) => void): number {
  const { retryForMs = Infinity, retryUntil } = options
  const soonest = failed.firstFailedMs + retryForMs
  if (retryUntil === undefined) return soonest
  const told = called(
    () => Number(typeof retryUntil === 'function' ? retryUntil(failed) : retryUntil),
    'retryUntil',
    complain,
  )
  if (told === THREW) return soonest
  if (Number.isFinite(told)) return Math.min(soonest, told)
  complain('the function `retryUntil` returned what is neither a Date nor ms')
  return soonest
}

/** By `code`, not by class: a handler may have another copy of this library. */
function wishOf(error: unknown): number | 'fatal' | undefined {
  if (typeof error !== 'object' || error === null) return undefined
  try {
    const { code, retryAfterMs } = error as { code?: unknown; retryAfterMs?: unknown }
    if (code === 'ERR_FATAL') return 'fatal'
    const isDelay = typeof retryAfterMs === 'number' && retryAfterMs >= 0 && retryAfterMs <= LONGEST_DELAY_MS
    return code === 'ERR_RETRY_AFTER' && isDelay ? Math.round(retryAfterMs) : undefined
  } catch {
    return undefined
  }
}

function isFatal({ failOn, retryOn }: RetryOptions, error: unknown, complain: (what: string) => void): boolean {
  if (failOn !== undefined && matches(failOn, error, 'failOn', complain) === true) return true
  // A filter that throws says nothing, and what nobody has said is fatal is tried again.
  return retryOn !== undefined && matches(retryOn, error, 'retryOn', complain) === false
}

function matches(
  filter: ErrorFilter,
  error: unknown,
  name: string,
  complain: (what: string) => void,
): boolean | undefined {
  if (typeof filter === 'function') {
    const told = called(() => filter(error), name, complain)
    return told === THREW ? undefined : Boolean(told)
  }
  const own = error as { name?: unknown; code?: unknown } | null | undefined
  const isMeant = (one: ErrorClass | string) =>
    typeof one === 'string'
      ? textOf(() => own?.name) === one || textOf(() => own?.code) === one
      : error instanceof (one as new () => unknown)
  // What was thrown may be anything, also what throws when it is asked for its class.
  const told = called(() => filter.some(isMeant), name, complain)
  return told === THREW ? undefined : told
}

const THREW = Symbol('threw')

/** What a function of the user's returns. A promise is no answer: a decision waits for nobody. */
function called<Told>(call: () => Told, name: string, complain: (what: string) => void): Told | typeof THREW {
  try {
    const told: unknown = call()
    if (typeof told !== 'object' || told === null || typeof (told as { then?: unknown }).then !== 'function') {
      return told as Told
    }
    Promise.resolve(told).catch(() => {})
    complain(`the function \`${name}\` returned a promise, which is not waited for`)
  } catch (error) {
    complain(`the function \`${name}\` threw: ${messageOf(error)}`)
  }
  return THREW
}

function checkFilter(name: string, filter: unknown): void {
  if (filter === undefined || typeof filter === 'function') return
  // An arrow function in a list is no class, and asking whether an error is one of it throws.
  const isClass = (one: unknown) => typeof one === 'function' && typeof one.prototype === 'object'
  const isEach = (one: unknown) => isClass(one) || (typeof one === 'string' && one !== '')
  if (Array.isArray(filter) && filter.length > 0 && filter.every(isEach)) return
  throw new OptionError(
    `expected \`${name}\` to be a function, or a list of error classes and names or codes of errors, got ${shown(filter)}`,
  )
}

const KNOWN = [
  'attempts',
  'backoff',
  'delayMs',
  'maxDelayMs',
  'jitter',
  'retryForMs',
  'retryUntil',
  'retryOn',
  'failOn',
]
