import { existingGroup, existingStream } from '../existing.ts'
import { MillraceError } from '../errors.ts'
import { historyRange } from '../range.ts'
import type { Client } from '../redis/connection.ts'
import { endsOf } from '../redis/replays.ts'
import type { Asked } from './asked.ts'
import { resolveIds } from './pages.ts'
import type { Ask } from '../scan.ts'

/** Which entries a replay is of, as Redis tells it now. */

export interface Meant {
  /** The first and the last of the entries; undefined if there are none. */
  readonly ends: { readonly fromId: string; readonly toId: string } | undefined
  /** The entries, where jobs are named by their ids. */
  readonly entryIds: readonly string[] | undefined
  readonly unknownIds: readonly string[]
}

/**
 * @throws MillraceError ERR_NOT_FOUND if a stream does not exist, UnknownGroupError if the group does not. Nothing is made
 * for a name that was mistyped.
 */
export async function checkPlaces(client: Client, { source, target }: Asked): Promise<void> {
  if (target.group !== null) {
    await existingGroup(client, source, target.group)
    return
  }
  await existingStream(client, source)
  try {
    await existingStream(client, target.stream)
  } catch (error) {
    if (!(error instanceof MillraceError) || error.code !== 'ERR_NOT_FOUND') throw error
    throw new MillraceError(
      error.code,
      `${error.message}; to make it with a group that gets the copies: ` +
        `millrace groups create ${target.stream} main --start oldest`,
      { cause: error },
    )
  }
}

/** @throws MillraceError ERR_HISTORY if the range begins before the history does. */
export async function meantBy(ask: Ask, { source, bounds, ids, signal }: Asked): Promise<Meant> {
  if (ids !== undefined) {
    const { entryIds, unknownIds } = await resolveIds(ask, source, { ids, signal })
    const [fromId, toId] = [entryIds[0], entryIds[entryIds.length - 1]]
    const ends = fromId === undefined || toId === undefined ? undefined : { fromId, toId }
    return { ends, entryIds, unknownIds }
  }
  const { range } = await ask((client) => historyRange(client, source, bounds))
  const ends = range === undefined ? undefined : await ask((client) => endsOf(client, source, range))
  return { ends, entryIds: undefined, unknownIds: [] }
}
