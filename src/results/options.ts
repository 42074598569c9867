import { OptionError } from '../errors.ts'
import { MOST_TIMER_MS, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { checkGroupName } from '../redis/keys.ts'
import { MOST_RESULT_TTL_MS, RESULT_TTL_MS } from './reply.ts'

/** Of a publish whose job's result is wanted. */
export interface ResultOptions {
  /** The group whose end of the job answers. @default the first group that ends it */
  group?: string
  /** How long Redis keeps the answer, in ms from the end of the job; 1000 to 7 days. @default 3600000 */
  ttlMs?: number
}

/** Of a wait for a result. */
export interface ResultWaitOptions {
  /** How long to wait, in ms. The job goes on whatever becomes of the wait. @default 60000 */
  timeoutMs?: number
  /** Ends the wait. @default none */
  signal?: AbortSignal
}

/** What a publish with `result` resolves with beside its id. */
export interface WithResult<Result = unknown> {
  /**
   * Waits until the job has ended, and gives what its handler gave back, as JSON has carried it. May be called again, and later.
   * @throws ResultError: the job is dead, cancelled or skipped, its result cannot be told, or the time is up; OptionError.
   */
  readonly result: (options?: ResultWaitOptions) => Promise<Result>
}

/** The same, checked. */
export interface ResultAsked {
  readonly group: string | undefined
  readonly ttlMs: number
}

/** @throws OptionError */
export function checkResult(given: unknown): ResultAsked | undefined {
  if (given === undefined) return undefined
  if (given === true) return { group: undefined, ttlMs: RESULT_TTL_MS }
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(`expected \`result\` to be true or { group, ttlMs }, got ${shown(given)}`)
  }
  refuseUnknownKeys('result', given, ['group', 'ttlMs'])
  const { group, ttlMs } = given as ResultOptions
  return {
    group: group === undefined ? undefined : checkGroupName(group),
    ttlMs: wholeNumber('result.ttlMs', ttlMs, { or: RESULT_TTL_MS, min: 1000, max: MOST_RESULT_TTL_MS }),
  }
}

/** @throws OptionError */
export function checkWait(given: ResultWaitOptions = {}): { timeoutMs: number; signal: AbortSignal | undefined } {
  refuseUnknownKeys('result()', given, ['timeoutMs', 'signal'])
  const { signal } = given
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new OptionError(`expected \`signal\` to be an AbortSignal, got ${shown(signal)}`)
  }
  return { timeoutMs: wholeNumber('timeoutMs', given.timeoutMs, { or: 60_000, max: MOST_TIMER_MS }), signal }
}
