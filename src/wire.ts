import { isUtf8 } from 'node:buffer'
import { isHeader } from './headers.ts'
import { isJobName } from './job-name.ts'
import { isEntryId } from './redis/entry-id.ts'
import { addHeader, countOf, extraOf, type Extra, type ExtraFields } from './wire-extra.ts'

export type { Extra } from './wire-extra.ts'

/**
 * The wire format: how a job is written into an entry's fields and read back. Any language with a Redis client is a
 * producer, so every field is taken for hostile: reading never throws, and an entry that breaks the format is told apart
 * with the reason. The first of duplicate fields counts; fields that we do not know are carried along by whoever moves the
 * entry, and ignored here.
 */

/** An entry that is a job. */
export interface WireJob {
  readonly kind: 'job'
  readonly name: string
  readonly data: unknown
  readonly id: string
  /** Attempts that failed before. */
  readonly failed: number
  /** What only an entry has that is not its job's first one; undefined in the common case. */
  readonly earlier: Earlier | undefined
  /** What few jobs have; undefined in the common case. */
  readonly extra: Extra | undefined
}

/** What became of a job before this entry. */
export interface Earlier {
  /** When it became due, in ms since the epoch, if that is not the time of its entry. */
  readonly dueMs: number | undefined
  /** When its first attempt failed, in ms since the epoch. */
  readonly firstFailedMs: number | undefined
  /** Attempts that were spent before it was redriven. */
  readonly spent: number
  /** What it is a copy of; `stream` is undefined where that is a job of the same one. */
  readonly replayOf: { readonly stream: string | undefined; readonly id: string } | undefined
}

/** Where a job stands in a trace, as the W3C writes it down. */
export interface TraceContext {
  readonly traceparent: string
  readonly tracestate?: string | undefined
}

/** What an entry says of traces, unchecked. */
export interface EntryTrace {
  /** What published it. */
  readonly publish: TraceContext | undefined
  /** The last attempt before it that was traced, as a `traceparent`. */
  readonly last: string | undefined
}

/** An entry that is none; `why` never quotes the payload. `suspect`: its text may not be its bytes, look at them raw. */
export interface Malformed {
  readonly kind: 'malformed' | 'suspect'
  readonly why: string
}

/** The fields of a job in the common order, for which Redis stores no field names per entry. */
export function encodeJob(name: string, json: string): readonly string[] {
  return ['job', name, 'data', json]
}

/** The fields that carry a trace, behind those of the job: flat names and values. */
export function traceFields({ traceparent, tracestate = '' }: TraceContext): readonly string[] {
  return tracestate === '' ? ['traceparent', traceparent] : ['traceparent', traceparent, 'tracestate', tracestate]
}

/** Not read with the rest: only a worker that is traced wants to know. */
export function traceOf(fields: readonly string[]): EntryTrace {
  const traceparent = firstOf(fields, 'traceparent')
  const publish = traceparent === undefined ? undefined : { traceparent, tracestate: firstOf(fields, 'tracestate') }
  return { publish, last: firstOf(fields, 'trace-last') }
}

/** Reads an entry's fields. `checked`: its bytes were seen to be UTF-8, so a replacement character is what was written. */
export function decodeJob(entryId: string, fields: readonly string[], checked = false): WireJob | Malformed {
  let name: string | undefined, json: string | undefined, id: string | undefined, attempt: string | undefined
  let codec: string | undefined, earlier: EarlierFields | undefined, rare: ExtraFields | undefined
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const value = fields[index + 1]
    switch (fields[index] ?? '') {
      case 'job':
        name ??= value
        break
      case 'data':
        json ??= value
        break
      case 'id':
        id ??= value
        break
      case 'attempt':
        attempt ??= value
        break
      case 'codec':
        codec ??= value
        break
      case 'at':
      case 'replay-of':
      case 'first-failed':
      case 'past-attempts':
        ;(earlier ??= {})[fields[index] as keyof EarlierFields] ??= value ?? ''
        break
      case 'expires':
      case 'unique':
      case 'unique-until':
      case 'key':
      case 'version':
      case 'waited-since':
      case 'past-deliveries':
      case 'granted':
      case 'cron':
      case 'reply':
        ;(rare ??= {})[fields[index] as Exclude<keyof ExtraFields, 'headers'>] ??= value ?? ''
        break
      default:
        if (isHeader(fields[index] ?? '')) addHeader((rare ??= {}), fields[index] ?? '', value ?? '')
        break
    }
  }
  if (name === undefined) return malformed('it has no field job')
  if (name !== lastName && !isJobName(name)) return malformed(NO_NAME)
  lastName = name
  if (codec !== undefined && codec !== 'json') return malformed('its codec is not known here')
  if (id !== undefined && !isEntryId(id)) return malformed('its field id is not an entry id')
  if (attempt !== undefined && !/^\d{1,9}$/.test(attempt)) return malformed('its field attempt is not a count')
  if (earlier?.at !== undefined && !/^\d{1,15}$/.test(earlier.at)) return malformed('its field at is not a time in ms')
  const extra = rare && extraOf(rare, id ?? entryId)
  if (extra !== undefined && 'why' in extra) return malformed(extra.why)
  if (!checked && json !== undefined && json.includes('\uFFFD'))
    return { kind: 'suspect', why: 'its data may not be UTF-8' }
  const data = json === undefined ? null : parsed(json)
  if (data === NOT_JSON) return malformed('its data is not JSON')
  const failed = attempt === undefined ? 0 : Number(attempt)
  return { kind: 'job', name, data, id: id ?? entryId, failed, earlier: earlier && earlierOf(earlier), extra }
}

/** Reads an entry whose text had replacement characters from its bytes. */
export function decodeRaw(entryId: string, fields: readonly Buffer[]): WireJob | Malformed {
  const at = fields.findIndex((field, index) => index % 2 === 0 && field.equals(DATA))
  const data = at < 0 ? undefined : fields[at + 1]
  if (data !== undefined && !isUtf8(data)) return malformed('its data is not UTF-8')
  return decodeJob(
    entryId,
    fields.map((field) => field.toString()),
    true,
  )
}

/** The id that a job without a readable entry goes by: its field if that is an id, else the entry's. */
export function jobIdOf(entryId: string, fields: readonly string[]): string {
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const value = fields[at + 1] ?? ''
    if (fields[at] === 'id') return isEntryId(value) ? value : entryId
  }
  return entryId
}

/** The value of the first field of this name. */
export function firstOf(fields: readonly string[], name: string): string | undefined {
  for (let at = 0; at + 1 < fields.length; at += 2) if (fields[at] === name) return fields[at + 1]
  return undefined
}

const NOT_JSON = Symbol('not JSON')
const NO_NAME = 'its job name is not 1 to 100 letters, digits and _ . : -'

function parsed(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    return NOT_JSON
  }
}

type EarlierFields = { at?: string; 'first-failed'?: string; 'past-attempts'?: string; 'replay-of'?: string }

function earlierOf(given: EarlierFields): Earlier {
  return {
    dueMs: countOf(given.at),
    firstFailedMs: countOf(given['first-failed']),
    spent: countOf(given['past-attempts']) ?? 0,
    replayOf: originalOf(given['replay-of']),
  }
}

/** `<job id>` or `<stream> <job id>`; what is neither was written by somebody else, and is not worth a job. */
export function originalOf(text: string | undefined): Earlier['replayOf'] {
  if (text === undefined) return undefined
  const space = text.lastIndexOf(' ')
  const [stream, id] = [space < 0 ? undefined : text.slice(0, space), text.slice(space + 1)]
  return isEntryId(id) && stream !== '' ? { stream, id } : undefined
}

const DATA = Buffer.from('data')

/** A name that was found to be one: the next job has the same one more often than not. */
let lastName: string | undefined

function malformed(why: string): Malformed {
  return { kind: 'malformed', why }
}
