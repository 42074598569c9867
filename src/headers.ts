import { OptionError } from './errors.ts'
import { shown } from './options.ts'

/**
 * What a publisher sends along with a job, apart from its payload: a request id, a tenant, a locale. Each header is a field of
 * the entry, `h-<name>`, and so stays with the job through retries, redrives and replays. Values may be secrets: no text of
 * ours ever holds one.
 */
export type Headers = Readonly<Partial<Record<string, string>>>

/** Headers as a job takes them on its way. */
export interface PackedHeaders {
  /** Their fields, names and values in turn. */
  readonly fields: readonly string[]
  readonly bytes: number
}

export const NO_HEADERS: Headers = Object.freeze(Object.create(null) as Headers)

const MOST_HEADERS = 32
const MOST_BYTES = 8192

/** Longest names that are read, and what is before them in the entry. */
const NAME = /^[a-z0-9_.-]{1,64}$/
const PREFIX = 'h-'

/** Control characters, which would be a way into other people's logs, and halves of characters, which UTF-8 does not have. */
const UNFIT = /[\p{Cc}\p{Cs}]/u

/** Undefined if there are none. @throws OptionError, which names headers and never shows what they say. */
export function packHeaders(given: unknown): PackedHeaders | undefined {
  if (given === undefined) return undefined
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(`expected \`headers\` to be an object of texts by name, got ${shown(given)}`)
  }
  const entries = Object.entries(given)
  if (entries.length === 0 && isPlain(given)) return undefined
  if (entries.length === 0) {
    throw new OptionError('expected `headers` to be an object of texts by name, got an object that has none of its own')
  }
  if (entries.length > MOST_HEADERS) {
    throw new OptionError(`expected \`headers\` to be at most ${MOST_HEADERS}, got ${entries.length}`)
  }
  const fields = entries.flatMap(([name, value]) => checked(name, value))
  const bytes = Buffer.byteLength(fields.join(''))
  if (bytes - PREFIX.length * entries.length <= MOST_BYTES) return { fields, bytes }
  throw new OptionError(`expected \`headers\` to be at most ${MOST_BYTES} bytes in all, got more`)
}

/** A Map, and the Headers of a request, keep what they hold elsewhere: it must not be left out in silence. Of any realm. */
function isPlain(given: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(given)
  return prototype === null || Object.getPrototypeOf(prototype) === null
}

function checked(name: string, value: unknown): [string, string] {
  if (!NAME.test(name)) {
    const wanted = '1 to 64 of a-z, 0-9, _ . and -, in lower case'
    throw new OptionError(`expected the name of a header to be ${wanted}, got ${shown(name)}`)
  }
  if (typeof value !== 'string') {
    throw new OptionError(`expected the header \`${name}\` to be a text, got ${kindOf(value)}`)
  }
  if (UNFIT.test(value))
    throw new OptionError(`expected the header \`${name}\` to be a text without control characters`)
  return [PREFIX + name, value]
}

function kindOf(value: unknown): string {
  return value === null ? 'null' : Array.isArray(value) ? 'an array' : typeof value
}

export function isHeader(field: string): boolean {
  return field.startsWith(PREFIX)
}

/** Notes a field of an entry if it is a header that can be read: the first of its name counts. */
export function noteHeader(
  to: Record<string, string> | undefined,
  field: string,
  value: string,
): Record<string, string> | undefined {
  const name = field.slice(PREFIX.length).toLowerCase()
  if (!isHeader(field) || !NAME.test(name)) return to
  const headers = to ?? (Object.create(null) as Record<string, string>)
  headers[name] ??= value
  return headers
}

/** The headers among the fields of an entry; undefined if there are none. */
export function headersOf(fields: readonly string[]): Record<string, string> | undefined {
  let headers: Record<string, string> | undefined
  for (let at = 0; at + 1 < fields.length; at += 2)
    headers = noteHeader(headers, fields[at] ?? '', fields[at + 1] ?? '')
  return headers
}
