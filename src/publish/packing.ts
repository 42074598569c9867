import { monotonicMs } from '../clock.ts'
import { OptionError, PublishError } from '../errors.ts'
import { shown } from '../options.ts'
import type { PublishNumbers } from '../metrics/producer-numbers.ts'
import type { ReplicaDurability } from './durability.ts'
import { encodeJob } from '../wire.ts'
import type { Item, UniqueItem } from '../redis/publishing.ts'
import type { ResultAsked } from '../results/options.ts'
import type { Schema } from '../schema.ts'
import type { Batcher } from './batcher.ts'
import { checkFits } from './definition.ts'
import { jsonFault } from './json-fault.ts'
import { orderFields, type OrderRule } from './order.ts'
import type { Outgoing } from './outgoing.ts'
import type { BufferPriority } from './priority.ts'
import { uniqueFields, uniqueOf, type UniqueRule } from './unique.ts'

/** Where a publish goes, how it is to be treated, and where it is counted. */
export interface Route<Target = Batcher> {
  readonly batcher: Target
  readonly name: string
  /** How long its caller waits. */
  readonly timeoutMs: number
  /** How long it may wait for Redis at all. */
  readonly maxAgeMs: number
  /** Whether its publish resolves once it is in the buffer. */
  readonly isBuffered: boolean
  readonly replicas: ReplicaDurability | undefined
  readonly priority: BufferPriority
  /** As `Item.due`. */
  readonly due: string | undefined
  readonly token: Item['token']
  readonly unique: UniqueRule | undefined
  readonly order: OrderRule | undefined
  readonly signal: AbortSignal | undefined
  /** The fields that carry its trace, if it is traced. */
  readonly trace: readonly string[] | undefined
  readonly traceBytes: number
  /** What the data must be, if its definition says. */
  readonly schema: Schema | undefined
  /** What is to be told of how its job ends, if anything. */
  readonly result?: ResultAsked | undefined
  /** Fields that few jobs have. */
  readonly extra: readonly string[] | undefined
  /** The fields of its headers. */
  readonly headers: readonly string[] | undefined
  readonly numbers: PublishNumbers
}

/** @throws PublishError: the data has no JSON, or too much of it, or does not fit its schema. It is counted. */
export function pack(route: Route<unknown>, data: unknown, maxPayloadBytes: number): Outgoing {
  const { name, due, token, traceBytes, schema, numbers, priority, replicas } = route
  const publishedAtMs = monotonicMs()
  let json: string | undefined
  try {
    json = JSON.stringify(data)
  } catch (error) {
    throw refused(numbers, `expected the data of ${name} to be JSON-able: ${jsonFault(error)}`, error)
  }
  if (json === undefined) {
    throw refused(numbers, `expected the data of ${name} to be JSON-able, got ${shown(data)}; null is no data`)
  }
  const bytes = Buffer.byteLength(json)
  if (bytes > maxPayloadBytes) {
    throw refused(
      numbers,
      `expected the data of ${name} to be at most ${maxPayloadBytes} bytes of JSON, got ${bytes}; ` +
        'store large data elsewhere and publish where it is',
    )
  }
  if (schema !== undefined) checkCounted(route, schema, json)
  const unique = route.unique && uniqueItem(route, data)
  const more = moreFields(route, unique, route.order && orderItem(route, data))
  return {
    fields: more === undefined ? encodeJob(name, json) : [...encodeJob(name, json), ...more.fields],
    due,
    token,
    unique,
    bytes: bytes + name.length + traceBytes + (more === undefined ? 0 : more.bytes),
    numbers,
    priority,
    ref: undefined,
    replicas,
    publishedAtMs,
    deadlineMs: publishedAtMs + Math.min(route.timeoutMs, route.maxAgeMs),
    isAtDoor: false,
    isOnItsWay: false,
    isUnwanted: false,
    admitted: undefined,
    settled: undefined,
  }
}

function checkCounted({ name, numbers }: Route<unknown>, schema: Schema, json: string): void {
  try {
    checkFits(name, schema, json)
  } catch (error) {
    numbers.rejected += 1
    throw error
  }
}

/** Behind job and data; undefined in the common case. The bytes are without those of the trace. */
function moreFields(
  { extra, headers, trace }: Route<unknown>,
  unique: UniqueItem | undefined,
  order: readonly string[] | undefined,
): { fields: readonly string[]; bytes: number } | undefined {
  const isCommon = extra === undefined && headers === undefined && trace === undefined && order === undefined
  if (isCommon && unique === undefined) return undefined
  if (isCommon && unique !== undefined) {
    // Unique, and nothing else: as many may come as of the common ones.
    const fields = uniqueFields(unique)
    return { fields, bytes: Buffer.byteLength(fields.join('')) }
  }
  const own = [
    ...(extra ?? []),
    ...(order ?? []),
    ...(unique === undefined ? [] : uniqueFields(unique)),
    ...(headers ?? []),
  ]
  return { fields: trace === undefined ? own : [...own, ...trace], bytes: Buffer.byteLength(own.join('')) }
}

function uniqueItem({ unique, numbers }: Route<unknown>, data: unknown): UniqueItem | undefined {
  try {
    return unique && uniqueOf(unique, data)
  } catch (error) {
    numbers.rejected += 1
    throw error instanceof OptionError ? new PublishError(error.code, error.message, { published: 'no' }) : error
  }
}

function orderItem({ order, name, numbers }: Route<unknown>, data: unknown): readonly string[] | undefined {
  try {
    return order && orderFields(order, name, data)
  } catch (error) {
    numbers.rejected += 1
    throw error instanceof OptionError ? new PublishError(error.code, error.message, { published: 'no' }) : error
  }
}

/** A job that goes nowhere; it is counted. */
function refused(numbers: PublishNumbers, why: string, cause?: unknown): PublishError {
  numbers.rejected += 1
  return new PublishError('ERR_PAYLOAD', why, { published: 'no', cause })
}
