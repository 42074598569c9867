import type { Redis } from 'ioredis'
import { look } from './inspection.ts'
import type { EntryPage, EntryRange } from './reading.ts'
import { asArray, asText, type RawEntry } from './replies.ts'
import { readPageBack } from './scripts/tail.ts'

/** A page of a range, newest first; `next` is where the page before it ends, to be given as `to`. */
export async function readEntriesBack(
  client: Redis,
  stream: string,
  { from, to }: EntryRange,
): Promise<EntryPage<RawEntry>> {
  const [next, ...rows] = asArray(await look(client, readPageBack, [stream], [to, from]))
  const entries = rows.map((row) => {
    const [id, fields] = row as [string, string[]]
    return { id, fields }
  })
  return { entries, next: asText(next) || undefined }
}
