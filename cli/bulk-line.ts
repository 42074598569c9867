import type { FeedJob } from '../src/index.ts'
import { parseZonedInstant, ZONED_FORM } from './instant.ts'
import { LineError, type Line } from './ndjson.ts'

/** When a job is due, now if it does not say; and until when it is to be started. */
export interface When {
  readonly delayMs?: number
  readonly runAt?: number
  readonly expiresAt?: number
  readonly ttlMs?: number
}

/** A job as its line tells it. What is wrong with its values is left for the feed to say, in its words. */
export type LineJob = Omit<FeedJob, 'position'>

const KNOWN = [
  ...['job', 'data', 'delayMs', 'runAt', 'expiresAt', 'ttlMs'],
  ...['idempotencyToken', 'uniqueKey', 'unique', 'key', 'headers'],
]

/** The job of a line. `when` is for a line that does not say. @throws LineError for what is no job at all. */
export function parseLine({ number, text }: Line, when: When): LineJob {
  const wanted = 'expected {"job":"send-receipt","data":…}'
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    // Without the parser's own words, which quote the line: it may be a payload.
    const position = /position \d+/.exec((error as Error).message)?.[0]
    throw new LineError(number, `${wanted}, got what is not JSON${position === undefined ? '' : ` at ${position}`}`)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new LineError(number, `${wanted}, got ${Array.isArray(parsed) ? 'an array' : `a ${typeof parsed}`}`)
  }
  for (const key in parsed) {
    if (KNOWN.includes(key)) continue
    throw new LineError(number, `unknown key ${JSON.stringify(key.slice(0, 60))} (known: ${KNOWN.join(', ')})`)
  }
  const { job, data = null, delayMs, runAt, expiresAt, ttlMs, ...others } = parsed as Partial<Record<string, unknown>>
  if (job === undefined) throw new LineError(number, `${wanted}, got no job`)
  const own = timesOf(number, { delayMs, runAt, expiresAt, ttlMs })
  const due = delayMs === undefined && runAt === undefined ? pick(when, 'delayMs', 'runAt') : {}
  const end = expiresAt === undefined && ttlMs === undefined ? pick(when, 'expiresAt', 'ttlMs') : {}
  return { job, data, ...own, ...due, ...end, ...others } as LineJob
}

/** What the line says of times, those that are texts as ms. */
function timesOf(number: number, { delayMs, runAt, expiresAt, ttlMs }: Partial<Record<string, unknown>>): When {
  const times = {
    delayMs,
    ttlMs,
    runAt: instantOf(number, 'runAt', runAt),
    expiresAt: instantOf(number, 'expiresAt', expiresAt),
  }
  return Object.fromEntries(Object.entries(times).filter(([, value]) => value !== undefined))
}

function instantOf(number: number, name: string, given: unknown): unknown {
  if (typeof given !== 'string') return given
  const atMs = parseZonedInstant(given)
  if (atMs === undefined) throw new LineError(number, `expected \`${name}\` to be ${ZONED_FORM}, got another text`)
  return atMs
}

function pick(when: When, ...names: readonly (keyof When)[]): When {
  return Object.fromEntries(names.flatMap((name) => (when[name] === undefined ? [] : [[name, when[name]]])))
}
