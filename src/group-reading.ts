import { MOST_GROUPS } from './existing.ts'
import type { Logger } from './logger.ts'
import type { Client } from './redis/connection.ts'
import { readGroup, type StreamSeen } from './redis/inspection.ts'
import { groupStats, type GroupStats } from './stats.ts'

/** A worker sends a pulse at least every second; four may be late before it no longer counts as present. */
export const PRESENT_MS = 5000
export const MOST_WORKERS = 1000

/** How the groups of a stream stand, by name; at most 200 of them. */
export async function readGroups(
  client: Client,
  stream: string,
  { nowMs, groups, more }: StreamSeen & { kind: 'stream' },
  logger: Logger,
): Promise<GroupStats[]> {
  if (more) logger.warn({ stream, most: MOST_GROUPS }, 'the stream has more groups than are looked at')
  const asked = { nowMs, presentMs: PRESENT_MS, mostWorkers: MOST_WORKERS }
  const stats: GroupStats[] = []
  for (const group of [...groups].sort()) {
    const found = await readGroup(client, stream, group, asked)
    if (found !== undefined) stats.push(groupStats(group, found))
  }
  return stats
}
