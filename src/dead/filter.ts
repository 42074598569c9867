import type { DeadReason } from '../decide.ts'
import { OptionError } from '../errors.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import type { DeadLetter } from '../redis/dead.ts'
import { isEntryId } from '../redis/entry-id.ts'

/** Which dead letters are meant: those to which all of this applies. Pure. */
export interface DeadFilter {
  /** Ids of jobs, or of the letters themselves; at most 10 000. */
  ids?: readonly string[]
  /** The job's name. */
  job?: string
  reason?: DeadReason
  /** A part of the error's class or message, in upper or lower case. */
  error?: string
  /** Died at this time or later, in ms since the epoch. */
  fromMs?: number
  /** Died before this time, in ms since the epoch. */
  toMs?: number
}

export const DEAD_REASONS = [
  'attempts',
  'deliveries',
  'malformed',
  'invalid',
  'expired',
  'unknown-job',
  'fatal',
  'manual',
] as const satisfies readonly DeadReason[]

const MOST_IDS = 10_000

/** @throws OptionError on an unknown or impossible part of it. */
export function checkDeadFilter(filter: DeadFilter): DeadFilter {
  refuseUnknownKeys('a filter of dead letters', filter, ['ids', 'job', 'reason', 'error', 'fromMs', 'toMs'])
  const { ids, job, reason, error, fromMs, toMs } = filter
  if (ids !== undefined) checkIds(ids)
  checkText('job', job)
  checkText('error', error)
  oneOf('reason', reason, DEAD_REASONS)
  const from = wholeNumber('fromMs', fromMs, { or: 0, min: 0 })
  const to = wholeNumber('toMs', toMs, { or: Number.MAX_SAFE_INTEGER, min: 0 })
  if (from >= to) throw new OptionError(`expected \`fromMs\` to be before \`toMs\`, got ${from} and ${to}`)
  return filter
}

export function matchesDeadFilter(letter: DeadLetter, filter: DeadFilter): boolean {
  const { ids, job, reason, error, fromMs = -Infinity, toMs = Infinity } = filter
  if (ids !== undefined && !ids.includes(letter.id) && !ids.includes(letter.deadId)) return false
  if (job !== undefined && letter.job !== job) return false
  if (reason !== undefined && letter.reason !== reason) return false
  if (error !== undefined && !contains(letter.error, error) && !contains(letter.message, error)) return false
  return letter.deadMs >= fromMs && letter.deadMs < toMs
}

function contains(text: string, part: string): boolean {
  return text.toLowerCase().includes(part.toLowerCase())
}

function checkIds(ids: unknown): void {
  if (!Array.isArray(ids) || ids.length === 0 || ids.length > MOST_IDS) {
    throw new OptionError(`expected \`ids\` to be a list of 1 to ${MOST_IDS} ids, got ${shown(ids)}`)
  }
  for (const id of ids as unknown[]) checkDeadId('ids', id)
}

/** An id of a job or of a dead letter. @throws OptionError */
export function checkDeadId(name: string, id: unknown): string {
  if (typeof id === 'string' && isEntryId(id)) return id
  throw new OptionError(`expected \`${name}\` to be an id such as 1795245552380-0, got ${shown(id)}`)
}

function checkText(name: string, text: unknown): void {
  if (text === undefined || (typeof text === 'string' && text !== '')) return
  throw new OptionError(`expected \`${name}\` to be a text, got ${shown(text)}`)
}
