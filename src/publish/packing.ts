import { monotonicMs } from '../clock.ts'
import { messageOf, PublishError, type ErrorCode } from '../errors.ts'
import type { PackedHeaders } from '../headers.ts'
import { shown } from '../options.ts'
import type { PublishNumbers } from '../metrics/producer-numbers.ts'
import type { ReplicaDurability } from './durability.ts'
import { encodeJob } from '../wire.ts'
import type { Item } from '../redis/publishing.ts'
import type { Batcher } from './batcher.ts'
import type { Outgoing } from './outgoing.ts'
import type { BufferPriority } from './priority.ts'

/** Where a publish goes, how it is to be treated, and where it is counted. */
export interface Route {
  readonly batcher: Batcher
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
  readonly signal: AbortSignal | undefined
  /** The fields that carry its trace, if it is traced. */
  readonly trace: readonly string[] | undefined
  readonly traceBytes: number
  readonly headers: PackedHeaders | undefined
  readonly numbers: PublishNumbers
}

/** @throws PublishError ERR_PAYLOAD: the data has no JSON, or too much of it. It is counted. */
export function pack(route: Route, data: unknown, maxPayloadBytes: number): Outgoing {
  const { name, due, token, trace, headers, numbers, priority, replicas } = route
  const publishedAtMs = monotonicMs()
  let json: string | undefined
  try {
    json = JSON.stringify(data)
  } catch (error) {
    throw refused(numbers, `expected the data of ${name} to be JSON-able: ${messageOf(error).split('\n')[0]}`)
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
  return {
    fields:
      trace === undefined && headers === undefined
        ? encodeJob(name, json)
        : [...encodeJob(name, json), ...(headers?.fields ?? []), ...(trace ?? [])],
    due,
    token,
    bytes: bytes + name.length + route.traceBytes + (headers?.bytes ?? 0),
    numbers,
    priority,
    ref: undefined,
    replicas,
    publishedAtMs,
    deadlineMs: publishedAtMs + Math.min(route.timeoutMs, route.maxAgeMs),
    isAtDoor: false,
    isOnItsWay: false,
    admitted: undefined,
    settled: undefined,
  }
}

/** A job that goes nowhere; it is counted. */
function refused(numbers: PublishNumbers, why: string, code: ErrorCode = 'ERR_PAYLOAD'): PublishError {
  numbers.rejected += 1
  return new PublishError(code, why, { published: 'no' })
}
