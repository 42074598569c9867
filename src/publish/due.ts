import { types } from 'node:util'
import { OptionError } from '../errors.ts'
import { shown, wholeNumber } from '../options.ts'

/** Further ahead is a mistake more often than a plan: microseconds, or a date typed wrong. */
export const FURTHEST_MS = 10 * 365 * 24 * 3_600_000

/**
 * When a publish is to be delivered, as the publish script takes it: ms since the epoch, or `+` and the ms from when Redis has
 * it; undefined for now. Whether an instant is over is left to the server, whose clock is the one that counts.
 * @throws OptionError on a delay or an instant that is none, or is too far away.
 */
export function resolveDue(
  { delayMs, runAt }: { delayMs?: number; runAt?: Date | number },
  nowMs: number,
): string | undefined {
  if (delayMs === undefined && runAt === undefined) return undefined
  if (delayMs !== undefined && runAt !== undefined) {
    throw new OptionError('expected either `delayMs` or `runAt`, got both')
  }
  if (runAt === undefined) {
    const ms = wholeNumber('delayMs', delayMs, { or: 0, min: 0, max: FURTHEST_MS })
    return ms === 0 ? undefined : `+${ms}`
  }
  const atMs = types.isDate(runAt) ? runAt.getTime() : runAt
  if (Number.isSafeInteger(atMs) && atMs >= 0 && atMs <= nowMs + FURTHEST_MS) return String(atMs)
  throw new OptionError(
    `expected \`runAt\` to be a Date or ms since the epoch, at most 10 years ahead, got ${shownInstant(runAt)}`,
  )
}

export function shownInstant(runAt: unknown): string {
  if (!types.isDate(runAt)) return shown(runAt)
  return Number.isNaN(runAt.getTime()) ? 'an invalid Date' : runAt.toISOString()
}
