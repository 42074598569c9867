import type { Redis } from 'ioredis'
import { look } from './inspection.ts'
import { holdsKey, settingsKey } from './keys.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { run, type Argument } from './scripts/script.ts'
import { planTrim, trim } from './scripts/trim.ts'

/** What retention asks of Redis. */

/** What settled entries are kept within; where nothing is said, without a bound. */
export interface Bounds {
  readonly maxAgeMs?: number | undefined
  readonly maxBytes?: number | undefined
  readonly maxEntries?: number | undefined
}

/** `forced` counts before the stream's settings, `defaults` behind them. */
export interface Retaining {
  readonly forced?: Bounds
  readonly defaults: Bounds
}

export interface Trimmed {
  readonly removed: number
  readonly watermark: string
  readonly more: boolean
}

/** One bounded step on any key that groups read, within these bounds and no others. */
export async function trimStep(
  client: Redis,
  key: string,
  { limit, ...forced }: Bounds & { limit: number },
): Promise<Trimmed> {
  return asTrimmed(await run(client, trim, [key], [limit, ...boundArguments({ forced, defaults: {} })]))
}

/** One bounded step of retention on a stream, as its settings say. */
export async function retainStep(
  client: Redis,
  stream: string,
  { limit, ...retaining }: Retaining & { limit: number },
): Promise<Trimmed> {
  const args = [limit, ...boundArguments(retaining)]
  return asTrimmed(await run(client, trim, [stream, settingsKey(stream), holdsKey(stream)], args))
}

/** What a stream holds and what keeps retention from removing more of it. */
export interface TrimSeen {
  readonly nowMs: number
  readonly entries: number
  /** Undefined where Redis may not tell, or where most of what it tells is of pending entries. */
  readonly bytes: number | undefined
  readonly oldestId: string | undefined
  readonly newestId: string | undefined
  readonly bounds: Bounds
  /** Undefined where the stream has no group. */
  readonly watermark:
    | {
        readonly id: string
        /** Empty where a replay holds it. */
        readonly group: string
        readonly replay?: { readonly stream: string; readonly id: string } | undefined
        /** Undefined where it is the last delivered id. */
        readonly pending:
          { readonly consumer: string; readonly idleMs: number; readonly deliveries: number } | undefined
      }
    | undefined
  /** Of the oldest entries: how many are over age, and how many lie before the watermark; `isAll` if those are all. */
  readonly counted: { readonly overAge: number; readonly settled: number; readonly isAll: boolean }
  /** Ids up to which groups have read, and how many entries there are up to them. */
  readonly read: readonly { readonly id: string; readonly entries: number }[]
}

export async function readTrim(client: Redis, stream: string, retaining: Retaining): Promise<TrimSeen> {
  const args = ['', ...boundArguments(retaining)]
  const reply = asArray(await look(client, planTrim, [stream, settingsKey(stream), holdsKey(stream)], args))
  const [nowMs, entries, bytes, oldestId, newestId, bounds, holder, counted, read] = reply
  const [maxAgeMs, maxBytes, maxEntries] = asArray(bounds).map(asOptionalNumber)
  const [overAge, settled, isAll] = asArray(counted).map(asNumber)
  const ids = asArray(read)
  return {
    nowMs: asNumber(nowMs),
    entries: asNumber(entries),
    bytes: asOptionalNumber(bytes),
    oldestId: asText(oldestId) || undefined,
    newestId: asText(newestId) || undefined,
    bounds: { maxAgeMs, maxBytes, maxEntries },
    watermark: asWatermark(asArray(holder)),
    counted: { overAge: overAge ?? 0, settled: settled ?? 0, isAll: isAll === 1 },
    read: ids.flatMap((id, at) => (at % 2 === 0 ? [{ id: asText(id), entries: asNumber(ids[at + 1]) }] : [])),
  }
}

function asWatermark([group, id, holder, idleMs, deliveries]: unknown[]): TrimSeen['watermark'] {
  if (group === undefined) return undefined
  const at = { group: asText(group), id: asText(id), replay: undefined, pending: undefined }
  if (holder === undefined || holder === null) return at
  const name = asText(holder)
  if (group !== '') {
    return { ...at, pending: { consumer: name, idleMs: asNumber(idleMs), deliveries: asNumber(deliveries) } }
  }
  const space = name.lastIndexOf(' ')
  return { ...at, replay: { stream: name.slice(0, space), id: name.slice(space + 1) } }
}

function asTrimmed(reply: unknown): Trimmed {
  const [removed, watermark, more] = asArray(reply)
  return { removed: asNumber(removed), watermark: asText(watermark), more: asNumber(more) === 1 }
}

function boundArguments({ forced = {}, defaults }: Retaining): Argument[] {
  return [forced, defaults].flatMap(({ maxAgeMs, maxBytes, maxEntries }) =>
    [maxAgeMs, maxBytes, maxEntries].map((bound) => bound ?? ''),
  )
}
