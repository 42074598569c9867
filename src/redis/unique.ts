import type { Redis } from 'ioredis'
import { cancelledKey, uniqueKey } from './keys.ts'
import type { Member } from './member.ts'
import { asArray, asNumber } from './replies.ts'
import { run } from './scripts/script.ts'
import { startUnique } from './scripts/unique.ts'

/** A unique job that is about to be started. */
export interface UniqueStart {
  readonly id: string
  /** The key that it holds until then; undefined if it holds its key for longer. */
  readonly key: string | undefined
}

/**
 * Lets go of the keys of those that may start; of one that another job holds by now, nothing. Gives those that may not: they are
 * noted as cancelled.
 */
export async function startAll<Start extends UniqueStart>(
  client: Redis,
  member: Member,
  starts: readonly Start[],
): Promise<Set<Start>> {
  const keys = [cancelledKey(member.stream)]
  const ordered: Start[] = []
  for (const start of starts) {
    if (start.key === undefined) continue
    keys.push(uniqueKey(member.stream, start.key))
    ordered.push(start)
  }
  for (const start of starts) if (start.key === undefined) ordered.push(start)
  const noted = asArray(await run(client, startUnique, keys, [member.group, ...ordered.map(({ id }) => id)]))
  return new Set(noted.map((position) => ordered[asNumber(position) - 1] as Start))
}
