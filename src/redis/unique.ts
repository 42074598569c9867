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

/** What a batch of starts was told. */
export interface StartsTold<Start> {
  /** Those that are not to be started: they are noted as cancelled. */
  readonly cancelled: ReadonlySet<Start>
  /** Whether any job of the stream is noted as cancelled. */
  readonly hasNotes: boolean
}

/** Lets go of the keys of those that may start; of one that another job holds by now, nothing. */
export async function startAll<Start extends UniqueStart>(
  client: Redis,
  member: Member,
  starts: readonly Start[],
): Promise<StartsTold<Start>> {
  const keys = [cancelledKey(member.stream)]
  const ordered: Start[] = []
  for (const start of starts) {
    if (start.key === undefined) continue
    keys.push(uniqueKey(member.stream, start.key))
    ordered.push(start)
  }
  for (const start of starts) if (start.key === undefined) ordered.push(start)
  const args = [member.group, ...ordered.map(({ id }) => id)]
  const [hasNotes, ...noted] = asArray(await run(client, startUnique, keys, args))
  const cancelled = new Set(noted.map((position) => ordered[asNumber(position) - 1] as Start))
  return { cancelled, hasNotes: asNumber(hasNotes) === 1 }
}
