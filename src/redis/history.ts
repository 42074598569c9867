import type { Redis } from 'ioredis'
import { withoutArguments } from './faults.ts'
import { tallyKey } from './keys.ts'

/** What became of a group's jobs, minute by minute: its tallies as they are kept. */

/** Fields `<minute>:<outcome>` with their counts, by hour as `tallySlot` names it. At most some 500 fields an hour. */
export async function readTallies(
  client: Redis,
  { stream, group }: { readonly stream: string; readonly group: string },
  hours: readonly string[],
): Promise<ReadonlyMap<string, Readonly<Record<string, string>>>> {
  const read = hours.map(async (hour) => [hour, await client.hgetall(tallyKey(stream, group, hour))] as const)
  return new Map(
    await Promise.all(read).catch((error: unknown) => {
      throw withoutArguments(error)
    }),
  )
}
