import type { Redis } from 'ioredis'
import { tallySlot } from './entry-id.ts'
import { withoutArguments } from './faults.ts'
import {
  cancelledKey,
  cronDueKey,
  cronKey,
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  holdsKey,
  indexKey,
  orderKey,
  outcomesKey,
  redeliveryKey,
  replayIdsKey,
  replayKey,
  replaysKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  STREAMS_KEY,
  tallyKey,
  workersInfoKey,
  workersKey,
} from './keys.ts'
import { asArray, asFields, asText } from './replies.ts'
import { listReplays, readReplay, release } from './replays.ts'

/** Tallies live for seven days; a day more covers jobs that were published long before their tally was begun. */
const TALLY_HOURS = 8 * 24
/** Keys in one command. */
const BATCH = 200

/**
 * Removes the keys of a stream, by name: its own, those of its groups, and its place in the list of streams. Nothing is
 * searched for, so no other stream's key can be met. Returns how many keys there were. A producer's key ends by itself.
 */
export async function removeKeys(client: Redis, stream: string): Promise<number> {
  try {
    const [seconds] = await client.time()
    const groups = await groupNames(client, stream)
    // The groups' keys first: what is cut short in the middle still has the stream to find the groups by.
    const due = [scheduledKey(stream), scheduledJobsKey(stream), cronDueKey(stream), cronKey(stream)]
    const own = [...due, cancelledKey(stream), holdsKey(stream), stream]
    const replays = [...(await replayKeys(client, stream)), replaysKey(stream)]
    const keys = [...groups.flatMap((group) => groupKeys(stream, group, Number(seconds) * 1000)), ...replays, ...own]
    let removed = 0
    for (let from = 0; from < keys.length; from += BATCH) removed += await client.unlink(keys.slice(from, from + BATCH))
    removed += await client.unlink(settingsKey(stream))
    await client.srem(STREAMS_KEY, stream).catch(withoutArguments)
    return removed
  } catch (error) {
    throw withoutArguments(error)
  }
}

/** The keys of the replays into the stream. What they hold of other streams is let go. */
async function replayKeys(client: Redis, stream: string): Promise<string[]> {
  const ids = await listReplays(client, stream, Infinity)
  for (const id of ids) {
    const source = (await readReplay(client, { stream, id }))?.['source'] ?? stream
    if (source !== stream) await release(client, source, { stream, id })
  }
  return ids.flatMap((id) => [replayKey(stream, id), replayIdsKey(stream, id)])
}

/** The groups that the stream has, and those that its settings tell of where the stream itself is gone. */
async function groupNames(client: Redis, stream: string): Promise<string[]> {
  const names = new Set<string>()
  if ((await client.exists(stream)) === 1) {
    for (const group of asArray(await client.xinfo('GROUPS', stream))) names.add(asText(asFields(group).get('name')))
  }
  for (const field of await client.hkeys(settingsKey(stream))) {
    const name = /^group:([^:]+):/.exec(field)?.[1]
    if (name !== undefined) names.add(name)
  }
  return [...names]
}

/** All keys that are a group's own. */
export function groupKeys(stream: string, group: string, nowMs: number): string[] {
  const hours = Array.from({ length: TALLY_HOURS + 2 }, (_, back) => {
    return tallySlot(`${nowMs - (back - 1) * 3_600_000}-0`).hour
  })
  return [
    redeliveryKey(stream, group),
    groupScheduledKey(stream, group),
    groupScheduledJobsKey(stream, group),
    deadKey(stream, group),
    indexKey(stream, group),
    orderKey(stream, group),
    workersKey(stream, group),
    workersInfoKey(stream, group),
    ...hours.flatMap((hour) => [tallyKey(stream, group, hour), outcomesKey(stream, group, hour)]),
  ]
}
