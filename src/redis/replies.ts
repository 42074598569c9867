import { MillraceError } from '../errors.ts'

/**
 * The only place that narrows what Redis answers. A reply of another shape than expected is an error of the server or of a
 * proxy between, never a reason to guess.
 */

/** An entry as read: its id and its fields, flat (name, value, …). */
export interface RawEntry {
  readonly id: string
  readonly fields: string[]
}

export function asArray(reply: unknown): unknown[] {
  if (Array.isArray(reply)) return reply
  throw unexpected('an array', reply)
}

export function asText(reply: unknown): string {
  if (typeof reply === 'string') return reply
  if (typeof reply === 'number') return String(reply)
  throw unexpected('a text', reply)
}

export function asNumber(reply: unknown): number {
  const value = typeof reply === 'string' && reply !== '' ? Number(reply) : reply
  if (typeof value === 'number' && !Number.isNaN(value)) return value
  throw unexpected('a number', reply)
}

/** A number, or undefined for an empty or missing reply. */
export function asOptionalNumber(reply: unknown): number | undefined {
  return reply === null || reply === undefined || reply === '' ? undefined : asNumber(reply)
}

/** A flat name, value, … reply as a map. */
export function asFields(reply: unknown): Map<string, unknown> {
  const flat = asArray(reply)
  const named = new Map<string, unknown>()
  for (let at = 0; at + 1 < flat.length; at += 2) named.set(asText(flat[at]), flat[at + 1])
  return named
}

/** One stream's part of an XREADGROUP or XRANGE reply. Entries that were deleted meanwhile have no fields and are left out. */
export function asEntries(reply: unknown): RawEntry[] {
  const entries: RawEntry[] = []
  for (const row of asArray(reply)) {
    const [id, fields] = row as [string, string[] | null]
    if (fields !== null && fields !== undefined) entries.push({ id, fields })
  }
  return entries
}

function unexpected(wanted: string, reply: unknown): MillraceError {
  const got = reply === null ? 'nil' : Array.isArray(reply) ? 'an array' : typeof reply
  return new MillraceError('ERR_REDIS_REPLY', `expected ${wanted} from Redis, got ${got}; is a proxy between?`)
}
