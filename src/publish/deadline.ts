import { types } from 'node:util'
import { OptionError } from '../errors.ts'
import { shown, wholeNumber } from '../options.ts'
import { FURTHEST_MS, shownInstant } from './due.ts'

export interface DeadlineOptions {
  readonly expiresAt?: Date | number
  readonly ttlMs?: number
  readonly delayMs?: number
  readonly runAt?: Date | number
}

/**
 * Until when a job is to be started, as its field `expires` tells it: ms since the epoch, or `+` and the ms from when Redis has
 * it, which is what its id tells by the server's clock. An instant can only be compared with this machine's clock here; the
 * server's decides when the job is to start.
 * @throws OptionError on both at once, on a deadline that is none or is over, and on one that is over before the job is due.
 */
export function resolveDeadline(options: DeadlineOptions, nowMs: number): string | undefined {
  const { expiresAt, ttlMs, delayMs = 0 } = options
  if (expiresAt === undefined && ttlMs === undefined) return undefined
  if (expiresAt !== undefined && ttlMs !== undefined) {
    throw new OptionError('expected either `expiresAt` or `ttlMs`, got both')
  }
  const dueMs = options.runAt === undefined ? nowMs + delayMs : Math.max(nowMs, Number(options.runAt))
  if (expiresAt === undefined) {
    const ms = wholeNumber('ttlMs', ttlMs, { or: 1, max: FURTHEST_MS })
    if (nowMs + ms > dueMs) return `+${ms}`
    throw new OptionError(
      `expected \`ttlMs\` to end behind the job's own delay of ${Math.ceil(dueMs - nowMs)} ms, got ${ms}`,
    )
  }
  const atMs = instantOf(expiresAt, nowMs)
  if (atMs > dueMs) return String(atMs)
  throw new OptionError(
    `expected \`expiresAt\` to be behind ${new Date(dueMs).toISOString()}, when the job is due, got ${shownInstant(expiresAt)}`,
  )
}

function instantOf(expiresAt: Date | number, nowMs: number): number {
  const atMs = types.isDate(expiresAt) ? expiresAt.getTime() : expiresAt
  const isTime = typeof atMs === 'number' && Number.isSafeInteger(atMs) && atMs <= nowMs + FURTHEST_MS
  if (isTime && atMs > nowMs) return atMs
  const wanted = 'a Date or ms since the epoch, in the future and at most 10 years ahead'
  const got = types.isDate(expiresAt) ? shownInstant(expiresAt) : shown(expiresAt)
  throw new OptionError(`expected \`expiresAt\` to be ${wanted}, got ${got}`)
}
