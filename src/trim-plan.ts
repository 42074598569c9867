import { compareIds, timeOf } from './redis/entry-id.ts'
import type { TrimSeen } from './redis/trimming.ts'

/** What a trim would do, as it follows from what Redis told. Pure. */

export interface TrimPlan {
  readonly stream: string
  readonly entries: number
  /** Memory that the stream takes, as Redis estimates it; null where it may not, or cannot for many pending entries. */
  readonly bytes: number | null
  /** When the oldest entry was published, in ms since the epoch: the history goes back to it; null if the stream is empty. */
  readonly oldestEntryMs: number | null
  /** What is trimmed by: as asked for, else as the stream's settings say, else the defaults; null is no bound. */
  readonly bounds: {
    readonly maxAgeMs: number | null
    readonly maxBytes: number | null
    readonly maxEntries: number | null
  }
  /** Nothing from it on is removed, whatever the bounds; null for a stream without a group, of which nothing is. */
  readonly watermark: Watermark | null
  /** Entries before the watermark: no group needs them any more. */
  readonly settled: EntryCount
  /** Those of them that the bounds do not keep. */
  readonly wouldRemove: EntryCount
}

export interface Watermark {
  readonly id: string
  /** The group that holds it; others may hold it too. Null where a replay does. */
  readonly group: string | null
  /** The replay that holds it: the stream that it brings jobs into, and its id. */
  readonly replay: { readonly stream: string; readonly id: string } | null
  /** By an entry that the group has not settled, or by having read up to there and no further, as a replay does. */
  readonly heldBy: 'pending' | 'last-delivered' | 'replay'
  /** Age of the oldest entry that it keeps, in seconds. */
  readonly seconds: number
  /** Who has the pending entry, for how many ms nobody has renewed it, and how often it was delivered. */
  readonly pending: { readonly consumer: string; readonly idleMs: number; readonly deliveries: number } | null
}

/** Estimated from the times of ids where counting would mean to read the whole stream. */
export interface EntryCount {
  readonly entries: number
  readonly isExact: boolean
}

export function planOf(stream: string, seen: TrimSeen): TrimPlan {
  const { entries, bytes, oldestId, bounds } = seen
  const settled = settledIn(seen)
  return {
    stream,
    entries,
    bytes: bytes ?? null,
    oldestEntryMs: oldestId === undefined ? null : timeOf(oldestId),
    bounds: {
      maxAgeMs: bounds.maxAgeMs ?? null,
      maxBytes: bounds.maxBytes ?? null,
      maxEntries: bounds.maxEntries ?? null,
    },
    watermark: watermarkOf(seen),
    settled,
    wouldRemove: mostOf([overAge(seen, settled), overBytes(seen, settled), overEntries(seen, settled)], settled),
  }
}

function watermarkOf({ watermark, oldestId, nowMs }: TrimSeen): Watermark | null {
  if (watermark === undefined) return null
  const { id, group, pending, replay } = watermark
  // A group that has read nothing stands at 0-0, and an entry of that time there is none.
  const keptId = oldestId !== undefined && compareIds(oldestId, id) > 0 ? oldestId : id
  const seconds = Math.max(0, nowMs - timeOf(keptId)) / 1000
  if (replay !== undefined) return { id, group: null, replay, heldBy: 'replay', seconds, pending: null }
  const heldBy = pending === undefined ? 'last-delivered' : 'pending'
  return { id, group, replay: null, heldBy, seconds, pending: pending ?? null }
}

/** Whatever bound asks for the most decides; it is exact if none of the others could have asked for more. */
function mostOf(asked: readonly EntryCount[], settled: EntryCount): EntryCount {
  const entries = Math.max(...asked.map((count) => count.entries))
  const isAll = settled.isExact && asked.some((count) => count.isExact && count.entries === settled.entries)
  return { entries, isExact: isAll || asked.every((count) => count.isExact) }
}

function settledIn(seen: TrimSeen): EntryCount {
  const { counted, watermark } = seen
  if (watermark === undefined || counted.isAll) return { entries: counted.settled, isExact: true }
  return { entries: Math.max(counted.settled, entriesBefore(watermark.id, seen)), isExact: false }
}

function overAge(seen: TrimSeen, settled: EntryCount): EntryCount {
  const { counted, nowMs, bounds } = seen
  if (bounds.maxAgeMs === undefined) return { entries: 0, isExact: true }
  if (counted.isAll || counted.overAge < counted.settled) return { entries: counted.overAge, isExact: true }
  const cutoff = `${Math.max(0, nowMs - bounds.maxAgeMs)}-0`
  const estimate = Math.max(counted.overAge, entriesBefore(cutoff, seen))
  return { entries: Math.min(settled.entries, estimate), isExact: false }
}

/** In parts of the whole: entries may be of very different sizes. */
function overBytes({ bytes = 0, bounds, entries }: TrimSeen, settled: EntryCount): EntryCount {
  const { maxBytes = Infinity } = bounds
  if (bytes <= maxBytes) return { entries: 0, isExact: true }
  const wanted = Math.ceil((entries * (bytes - maxBytes)) / bytes)
  return { entries: Math.min(settled.entries, wanted), isExact: settled.entries === 0 || maxBytes === 0 }
}

function overEntries({ entries, bounds, counted }: TrimSeen, settled: EntryCount): EntryCount {
  const { maxEntries = Infinity } = bounds
  const wanted = Math.max(0, entries - maxEntries)
  return { entries: Math.min(settled.entries, wanted), isExact: settled.isExact || wanted <= counted.settled }
}

/** How many entries there are before an id, between what is known: nothing before the oldest, and what groups have read. */
function entriesBefore(id: string, { entries, oldestId = id, newestId = id, read }: TrimSeen): number {
  const known = [{ id: oldestId, entries: 0 }, ...read, { id: newestId, entries }].sort((a, b) =>
    compareIds(a.id, b.id),
  )
  let below = known[0] ?? { id, entries: 0 }
  let above = known[known.length - 1] ?? { id, entries }
  for (const point of known) {
    if (compareIds(point.id, id) <= 0) below = point
  }
  for (const point of [...known].reverse()) {
    if (compareIds(point.id, id) >= 0) above = point
  }
  const [fromMs, toMs] = [timeOf(below.id), timeOf(above.id)]
  const part = toMs > fromMs ? (timeOf(id) - fromMs) / (toMs - fromMs) : 0
  const estimate = below.entries + Math.min(1, Math.max(0, part)) * (above.entries - below.entries)
  return Math.round(Math.min(entries, Math.max(0, estimate)))
}
