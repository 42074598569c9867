import { createHash } from 'node:crypto'
import { OptionError } from '../errors.ts'
import { packHeaders, type Headers } from '../headers.ts'
import { isJobName, type JobDefinition } from '../job.ts'
import { oneOf, refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { checkFits, versionFields } from '../publish/definition.ts'
import { orderFields, orderRule } from '../publish/order.ts'
import { encodeJob } from '../wire.ts'
import { checkPattern, checkZone } from './pattern.ts'
import { CATCH_UPS, OVERLAPS, type CatchUp, type Overlap, type Rules } from './plan.ts'
import { nextTick, type Timing } from './timing.ts'

/** What a schedule needs of a job's definition. */
export type CronJob = Pick<JobDefinition, 'name' | 'stream' | 'schema' | 'version' | 'orderBy'>

/** When a job is published again and again, and which. */
export interface CronSchedule {
  /** Its name on the stream: 1 to 100 letters, digits and `_ . : -`. */
  name: string
  /** The job to publish, by its definition or its name. */
  job: CronJob | string
  /** Its payload, the same at each tick. @default null */
  data?: unknown
  /** When: five fields, or six with seconds. Either this or `everyMs`. */
  at?: string
  /** The time zone that `at` is read in. @default 'UTC' */
  zone?: string
  /** When: every so many ms, counted from `start`, or from the epoch, so that it never drifts. At least 100. */
  everyMs?: number
  /** No tick before it: a Date or ms since the epoch. @default none */
  start?: Date | number
  /** No tick from then on: a Date or ms since the epoch. @default none */
  end?: Date | number
  /** What becomes of a tick while the job of the one before has not ended. @default 'allow' */
  overlap?: Overlap
  /** What becomes of ticks that no worker was there for. @default 'one' */
  catchUp?: CatchUp
  /** A tick that is later than this was missed, in ms. @default 60000 */
  graceMs?: number
  /** Goes with each of its jobs, as `job.headers`. @default none */
  headers?: Headers
  /** How long one of its jobs may wait for its start, in ms; then it is dead as expired. @default for ever */
  ttlMs?: number
}

/** A schedule that was checked, in the words that Redis keeps it in. */
export interface CheckedSchedule {
  readonly name: string
  readonly timing: Timing
  readonly rules: Rules & { readonly job: string }
  /** The flat fields of its jobs. */
  readonly fields: readonly string[]
}

const KNOWN = [
  ...['name', 'job', 'data', 'at', 'zone', 'everyMs', 'start', 'end'],
  ...['overlap', 'catchUp', 'graceMs', 'headers', 'ttlMs'],
]
const DEFAULT_GRACE_MS = 60_000
const LONGEST_MS = 3650 * 86_400_000
/** The last one that Date knows is far behind it. */
const LAST_MS = 253_402_300_799_999
const MOST_BYTES = 65_536

/** @param where how a message names it. @throws OptionError; InvalidDataError for data that does not fit its job. */
export function checkSchedule(where: string, given: CronSchedule): CheckedSchedule {
  refuseUnknownKeys(where, given, KNOWN)
  const { name, overlap, catchUp, graceMs } = given
  checkCronName(name)
  const { job, fields } = fieldsOf(given)
  return {
    name,
    timing: timingOf(given),
    rules: {
      job,
      overlap: oneOf('overlap', overlap, OVERLAPS) ?? 'allow',
      catchUp: oneOf('catchUp', catchUp, CATCH_UPS) ?? 'one',
      graceMs: wholeNumber('graceMs', graceMs, { or: DEFAULT_GRACE_MS, min: 0, max: LONGEST_MS }),
    },
    fields,
  }
}

/** @throws OptionError ERR_NAME */
export function checkCronName(name: unknown): string {
  if (typeof name === 'string' && isJobName(name)) return name
  const wanted = 'a name of 1 to 100 letters, digits and _ . : -'
  throw new OptionError(`expected the \`name\` of a schedule to be ${wanted}, got ${shown(name)}`, 'ERR_NAME')
}

/** What tells this text from another one. */
export function digestOf({ timing, rules, fields }: CheckedSchedule): string {
  return createHash('sha1')
    .update(JSON.stringify([timing, rules, fields]))
    .digest('hex')
}

/** As they were written; undefined for what nobody of ours has. */
export function readTimes({
  timing,
  rules,
}: {
  timing: string
  rules: string
}): { timing: Timing; rules: Rules & { readonly job: string } } | undefined {
  try {
    return { timing: JSON.parse(timing) as Timing, rules: JSON.parse(rules) as Rules & { job: string } }
  } catch {
    return undefined
  }
}

function timingOf({ at, zone, everyMs, start, end }: CronSchedule): Timing {
  if ((at === undefined) === (everyMs === undefined)) {
    throw new OptionError(`expected either \`at\` or \`everyMs\`, got ${at === undefined ? 'neither' : 'both'}`)
  }
  if (at === undefined && zone !== undefined) {
    throw new OptionError('expected no `zone` beside `everyMs`: so many ms are the same in all of them')
  }
  const startMs = instantOf('start', start)
  const endMs = instantOf('end', end)
  const bounds = { ...(startMs !== undefined && { startMs }), ...(endMs !== undefined && { endMs }) }
  const timing: Timing =
    at === undefined
      ? { everyMs: wholeNumber('everyMs', everyMs, { or: 0, min: 100, max: LONGEST_MS }), ...bounds }
      : { at: checkPattern(at), zone: checkZone(zone ?? 'UTC'), ...bounds }
  if (nextTick(timing, startMs ?? 0) !== undefined || nextTick(timing, (startMs ?? 0) - 1) !== undefined) return timing
  throw new OptionError(
    at === undefined
      ? 'expected `end` to be behind `start`'
      : `expected \`at\` to be a time that comes, got ${shown(at)}, which never does${endMs === undefined ? '' : ' before its `end`'}`,
  )
}

function instantOf(name: string, given: Date | number | undefined): number | undefined {
  if (given === undefined) return undefined
  const ms = given instanceof Date ? given.getTime() : given
  if (Number.isSafeInteger(ms) && ms >= 0 && ms <= LAST_MS) return ms
  throw new OptionError(`expected \`${name}\` to be a Date or ms since the epoch, got ${shown(given)}`)
}

function fieldsOf({ job, data = null, headers, ttlMs }: CronSchedule): { job: string; fields: readonly string[] } {
  const definition = typeof job === 'object' && job !== null ? job : undefined
  const name: unknown = definition === undefined ? job : definition.name
  if (typeof name !== 'string' || !isJobName(name)) {
    throw new OptionError(`expected \`job\` to be a job or its name, got ${shown(name)}`, 'ERR_NAME')
  }
  const json = jsonOf(name, data)
  if (definition?.schema !== undefined) checkFits(name, definition.schema, json)
  const ttl = ttlMs === undefined ? [] : ['expires', `+${wholeNumber('ttlMs', ttlMs, { or: 1, max: LONGEST_MS })}`]
  const version = definition === undefined ? [] : versionFields(definition)
  const rule = orderRule(definition, {})
  // By what the worker will see, which is after JSON.
  const order = rule === undefined ? [] : orderFields(rule, name, JSON.parse(json))
  const fields = [...encodeJob(name, json), ...version, ...ttl, ...order, ...(packHeaders(headers)?.fields ?? [])]
  return { job: name, fields }
}

function jsonOf(name: string, data: unknown): string {
  let json: string | undefined
  try {
    json = JSON.stringify(data)
  } catch {
    // Said below: what it throws may show the data.
  }
  if (json === undefined) throw new OptionError(`expected the data of ${name} to be JSON-able`, 'ERR_PAYLOAD')
  const bytes = Buffer.byteLength(json)
  if (bytes <= MOST_BYTES) return json
  const why = `expected the data of a schedule to be at most ${MOST_BYTES} bytes of JSON, got ${bytes}`
  throw new OptionError(`${why}; let the job look up the rest`, 'ERR_PAYLOAD')
}
