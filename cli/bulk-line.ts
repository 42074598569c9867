import type { FeedJob } from '../src/index.ts'
import { parseZonedInstant, ZONED_FORM } from './instant.ts'
import { LineError, type Line } from './ndjson.ts'

/** When a job is due; now if it does not say. */
export interface When {
  readonly delayMs?: number
  readonly runAt?: number
}

/** A job as its line tells it. What is wrong with its values is left for the feed to say, in its words. */
export type LineJob = Omit<FeedJob, 'position'>

const KNOWN = ['job', 'data', 'delayMs', 'runAt', 'idempotencyToken', 'uniqueKey', 'unique', 'headers']

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
  const {
    job,
    data = null,
    delayMs,
    runAt,
    idempotencyToken,
    uniqueKey,
    unique,
    headers,
  } = parsed as Partial<Record<string, unknown>>
  if (job === undefined) throw new LineError(number, `${wanted}, got no job`)
  const due = delayMs === undefined && runAt === undefined ? when : whenOf(number, delayMs, runAt)
  const token = idempotencyToken === undefined ? undefined : { idempotencyToken }
  const held = { ...(uniqueKey !== undefined && { uniqueKey }), ...(unique !== undefined && { unique }) }
  return { job, data, ...due, ...token, ...held, ...(headers !== undefined && { headers }) } as LineJob
}

function whenOf(number: number, delayMs: unknown, runAt: unknown): When {
  const atMs = typeof runAt === 'string' ? parseZonedInstant(runAt) : runAt
  if (runAt !== undefined && atMs === undefined) {
    throw new LineError(number, `expected \`runAt\` to be ${ZONED_FORM}, got another text`)
  }
  return { ...(delayMs !== undefined && { delayMs }), ...(atMs !== undefined && { runAt: atMs }) } as When
}
