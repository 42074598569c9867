import { compareIds, hasMadeId } from '../redis/entry-id.ts'
import type { Client } from '../redis/connection.ts'
import { readEntriesOf, readEntryBytes, type BytesEntry } from '../redis/reading.ts'
import { searchEntry } from '../redis/whereabouts.ts'
import { scanPages, type Ask, type ScanPage } from '../scan.ts'

/** What a replay reads, page by page, with the bytes as they were written. An entry without fields is not there. */

/** Entries that are read by their ids in one page. */
export const IDS_PAGE = 500

export function rangePages(
  ask: Ask,
  source: string,
  { low, high, signal }: { low: string; high: string; signal: AbortSignal | undefined },
): AsyncGenerator<ScanPage<BytesEntry>> {
  return scanPages(ask, { low, high, signal }, (client, range) => readEntryBytes(client, source, range))
}

/**
 * The entries of a list of ids, which comes in parts; the next part is asked for while the last is looked at. Ends without a
 * word when the signal aborts.
 */
export async function* listedPages(
  ask: Ask,
  source: string,
  {
    part,
    signal,
  }: {
    part: (client: Client, from: number) => Promise<readonly string[]>
    signal: AbortSignal | undefined
  },
  from = 0,
): AsyncGenerator<ScanPage<BytesEntry>> {
  const next = (at: number) => {
    const page = ask(async (client) => {
      const ids = await part(client, at)
      return ids.length === 0 ? [] : readEntriesOf(client, source, ids)
    })
    // Whoever takes it hears of its failure; if nobody does, it is nobody's business.
    page.catch(() => {})
    return page
  }
  let at = from
  let reading = next(at)
  while (signal?.aborted !== true) {
    const entries = await reading
    if (entries.length === 0) return
    at += entries.length
    reading = next(at)
    yield { entries, next: entries[entries.length - 1]?.id }
  }
}

/** Where the entries of named jobs are: sorted, each of them once. `unknownIds` are of jobs that the stream does not hold. */
export interface Resolved {
  readonly entryIds: readonly string[]
  readonly unknownIds: readonly string[]
}

export async function resolveIds(
  ask: Ask,
  source: string,
  { ids, signal }: { ids: readonly string[]; signal: AbortSignal | undefined },
): Promise<Resolved> {
  /** By entry, the job that it was asked for. */
  const asked = new Map<string, string>()
  const unknownIds: string[] = []
  for (const id of ids) {
    if (signal?.aborted === true) break
    const entryId = hasMadeId(id) ? (await ask((client) => searchEntry(client, source, id))).entryId : id
    if (entryId === '') unknownIds.push(id)
    else asked.set(entryId, id)
  }
  const sorted = [...asked.keys()].sort(compareIds)
  const entryIds: string[] = []
  const part = (_client: Client, from: number) => Promise.resolve(sorted.slice(from, from + IDS_PAGE))
  for await (const { entries } of listedPages(ask, source, { part, signal })) {
    for (const { id, fields } of entries) {
      if (fields.length === 0) unknownIds.push(asked.get(id) ?? id)
      else entryIds.push(id)
    }
  }
  return { entryIds, unknownIds }
}
