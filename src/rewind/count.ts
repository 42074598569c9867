import { askAgain } from '../ask-again.ts'
import type { Asking } from '../asking.ts'
import { compareIds } from '../redis/entry-id.ts'
import { countPage, type GroupPoint } from '../redis/rewinding.ts'
import type { RewindAsked } from './asked.ts'

/** Counting what a rewind has run again, page by page. */

export interface Counted {
  readonly entries: number
  readonly firstId: string | undefined
  readonly lastId: string | undefined
  /** The last delivered id up to which was counted. */
  readonly upTo: string
  /** Entries that the group has read at the point; undefined where that cannot be known. */
  readonly entriesRead: number | undefined
}

/** Counts what lies between the point and where the group is, or what came to that since it was counted before. */
export async function countAgain(
  asking: Asking,
  asked: RewindAsked,
  { point, counted }: { point: GroupPoint; counted: Counted | undefined },
): Promise<Counted> {
  const { toId, onProgress } = asked
  const goesOn = counted !== undefined && compareIds(counted.upTo, point.lastId) <= 0
  const before = goesOn ? counted : undefined
  const already = before?.entries ?? 0
  const since = await countRange(asking, asked, {
    ...{ from: `(${before?.upTo ?? toId}`, to: point.lastId },
    onPage: (entries) => onProgress(already + entries),
  })
  const entries = already + since.entries
  return {
    entries,
    firstId: before?.firstId ?? since.firstId,
    lastId: since.lastId ?? before?.lastId,
    upTo: point.lastId,
    // How many entries there were up to a point does not change: what was worked out once holds.
    entriesRead: before?.entriesRead ?? (await entriesReadAt(asking, asked, { point, entries })),
  }
}

/**
 * How many entries the group has read at the point: what it has read less what runs again. Where Redis does not know the
 * former, all that were ever added less all that are behind the point, which is the longer count.
 */
async function entriesReadAt(
  asking: Asking,
  asked: RewindAsked,
  { point, entries }: { point: GroupPoint; entries: number },
): Promise<number | undefined> {
  if (point.hasLost === undefined) return undefined
  if (point.entriesRead !== undefined) return Math.max(0, point.entriesRead - entries)
  const rest = await countRange(asking, asked, {
    ...{ from: `(${point.lastId}`, to: '+' },
    onPage: (more) => asked.onProgress(entries + more),
  })
  return rest.added === undefined ? undefined : Math.max(0, rest.added - entries - rest.entries)
}

async function countRange(
  asking: Asking,
  { stream, group, signal }: RewindAsked,
  { from, to, onPage }: { from: string; to: string; onPage: (entries: number) => void },
): Promise<Pick<Counted, 'entries' | 'firstId' | 'lastId'> & { added: number | undefined }> {
  let [entries, next, added] = [0, from as string | undefined, undefined as number | undefined]
  let firstId: string | undefined
  let lastId: string | undefined
  while (next !== undefined) {
    signal?.throwIfAborted()
    const range = { from: next, to }
    const what = `the entries of ${stream} that group ${group} has been given`
    const page = await askAgain(asking, { what, signal }, (client) => countPage(client, stream, range))
    entries += page.entries
    firstId ??= page.firstId
    lastId = page.lastId ?? lastId
    next = page.next
    added = page.added
    onPage(entries)
  }
  return { entries, firstId, lastId, added }
}
