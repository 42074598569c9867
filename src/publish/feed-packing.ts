import { OptionError, PublishError } from '../errors.ts'
import { packHeaders } from '../headers.ts'
import { checkJobName } from '../job.ts'
import { refuseUnknownKeys, shown } from '../options.ts'
import { checkToken } from '../producer-options.ts'
import type { Item } from '../redis/publishing.ts'
import { encodeJob } from '../wire.ts'
import { resolveDeadline } from './deadline.ts'
import { checkFits, checkKind, versionFields, type Kind } from './definition.ts'
import { resolveDue } from './due.ts'
import type { FeedJob } from './feed-options.ts'
import { jsonFault } from './json-fault.ts'
import { orderFields, orderRule } from './order.ts'
import { ruleOf, uniqueFields, uniqueOf } from './unique.ts'

/** A job of a feed as a batch carries it. */
export interface PackedFeedJob extends Item {
  readonly bytes: number
  readonly position: string
}

/** @throws PublishError for a job that cannot be published as it is. */
export function packFeedJob(given: FeedJob, maxPayloadBytes: number): PackedFeedJob {
  try {
    refuseUnknownKeys('a job of a feed', given, KNOWN)
    const name = checkJobName(typeof given.job === 'object' ? given.job?.name : given.job)
    const position = checkPosition(given.position)
    const due = resolveDue(given, Date.now())
    const token = checkToken(given)
    const headers = packHeaders(given.headers)
    const { json, bytes } = payloadOf(name, given.data, maxPayloadBytes)
    const definition: Kind = typeof given.job === 'object' ? given.job : {}
    checkKind(name, definition)
    if (definition.schema !== undefined) checkFits(name, definition.schema, json)
    const expires = resolveDeadline(given, Date.now())
    const unique = uniqueIn(given, due !== undefined)
    const extra = [
      ...versionFields(definition),
      ...(expires === undefined ? [] : ['expires', expires]),
      ...orderIn(given),
      ...(unique === undefined ? [] : uniqueFields(unique)),
      ...(headers?.fields ?? []),
    ]
    const fields = [...encodeJob(name, json), ...extra]
    const own = bytes + name.length + (headers?.bytes ?? 0) + (unique?.key.length ?? 0)
    return { fields, due, token, unique, bytes: own, position }
  } catch (error) {
    throw error instanceof OptionError ? new PublishError(error.code, error.message, { published: 'no' }) : error
  }
}

function uniqueIn({ job, data, uniqueKey, unique }: FeedJob, isLater: boolean): Item['unique'] {
  const definition = typeof job === 'object' ? job.unique : undefined
  const rule = ruleOf({ uniqueKey, ...(unique !== undefined && { unique }), isLater }, definition)
  return rule && uniqueOf(rule, data)
}

function orderIn({ job, data, key }: FeedJob): readonly string[] {
  const rule = orderRule(typeof job === 'object' ? job : undefined, { key })
  return rule === undefined ? [] : orderFields(rule, typeof job === 'object' ? job.name : job, data)
}

/** Printable, so that it comes back from Redis as it was given and can be told in a message. */
function checkPosition(position: unknown): string {
  if (typeof position === 'string' && /^[\x20-\x7e]{1,1000}$/.test(position)) return position
  const got = typeof position === 'string' ? `${position.length} others` : shown(position)
  throw new OptionError(`expected \`position\` to be 1 to 1000 printable ASCII characters, got ${got}`)
}

function payloadOf(name: string, data: unknown, maxPayloadBytes: number): { json: string; bytes: number } {
  const refused = (why: string, cause?: unknown) =>
    new PublishError('ERR_PAYLOAD', `expected the data of ${name} to be ${why}`, { published: 'no', cause })
  let json: string | undefined
  try {
    json = JSON.stringify(data)
  } catch (error) {
    throw refused(`JSON-able: ${jsonFault(error)}`, error)
  }
  if (json === undefined) throw refused(`JSON-able, got ${shown(data)}; null is no data`)
  const bytes = Buffer.byteLength(json)
  if (bytes <= maxPayloadBytes) return { json, bytes }
  throw refused(
    `at most ${maxPayloadBytes} bytes of JSON, got ${bytes}; store large data elsewhere and publish where it is`,
  )
}

const KNOWN = [
  ...['job', 'data', 'position', 'delayMs', 'runAt', 'expiresAt', 'ttlMs'],
  ...['idempotencyToken', 'tokenTtlMs', 'uniqueKey', 'unique', 'key', 'headers'],
]
