import type { Client } from '../redis/connection.ts'
import { readConsumers, readMemory, readStuck } from '../redis/observing.ts'
import { consumersTold, type ConsumerTold, type GroupTold, type StreamTold } from './stream-told.ts'

/** What is told of streams and groups beside their state: it costs more, or is told only where asked for. */

/** By stream, and in it by the id of the group. */
export type ByGroup<Told> = ReadonlyMap<string, ReadonlyMap<string, Told>>

/** Of each key the oldest pending entries are looked at, and no others. */
const MOST_STUCK = 200
/** A live worker renews what it holds three times in a lease. */
const STUCK_LEASES = 3
const DEFAULT_LEASE_MS = 10_000
const MOST_CONSUMERS = 50
const AT_ONCE = 16

/** Pending jobs that nobody renews. A group without any is not asked. */
export function stuckOf(client: Client, streams: readonly StreamTold[]): Promise<ByGroup<number>> {
  const asked = { most: MOST_STUCK, leases: STUCK_LEASES, leaseMs: DEFAULT_LEASE_MS }
  return byGroup(streams, ({ stream, clockAheadSeconds }, { id: groupId, stats }) =>
    stats.pending === 0
      ? Promise.resolve(0)
      : readStuck(client, { stream, groupId }, { ...asked, isAhead: clockAheadSeconds > 0 }),
  )
}

export function consumersOf(client: Client, streams: readonly StreamTold[]): Promise<ByGroup<ConsumerTold[]>> {
  return byGroup(streams, async ({ stream }, { id: groupId, consumers }) =>
    consumers === 0 ? [] : consumersTold(await readConsumers(client, { stream, groupId }, MOST_CONSUMERS)),
  )
}

export async function memoryOf(client: Client, streams: readonly StreamTold[]): Promise<ReadonlyMap<string, number>> {
  const bytes = new Map<string, number>()
  await inChunks(streams, async ({ stream }) => {
    const taken = await readMemory(client, stream)
    if (taken !== undefined) bytes.set(stream, taken)
  })
  return bytes
}

/** Of a group or stream that has come since there is nothing yet, and nothing is left of one that is gone. */
export function withMore(
  streams: readonly StreamTold[],
  {
    stuck,
    consumers,
    memory,
  }: {
    readonly stuck: ByGroup<number> | undefined
    readonly consumers: ByGroup<readonly ConsumerTold[]> | undefined
    readonly memory: ReadonlyMap<string, number> | undefined
  },
): StreamTold[] {
  return streams.map((told) => {
    const memoryBytes = memory?.get(told.stream)
    const groups = told.groups.map((group): GroupTold => {
      const count = stuck?.get(told.stream)?.get(group.id)
      const topConsumers = consumers?.get(told.stream)?.get(group.id)
      return {
        ...group,
        // It is up to 30 s older: what was settled meanwhile is stuck no more.
        ...(count === undefined ? {} : { stuck: Math.min(count, group.stats.pending) }),
        ...(topConsumers === undefined ? {} : { topConsumers }),
      }
    })
    return { ...told, groups, ...(memoryBytes === undefined ? {} : { memoryBytes }) }
  })
}

async function byGroup<Told>(
  streams: readonly StreamTold[],
  read: (stream: StreamTold, group: GroupTold) => Promise<Told>,
): Promise<ByGroup<Told>> {
  const found = new Map<string, Map<string, Told>>(streams.map(({ stream }) => [stream, new Map()]))
  const all = streams.flatMap((told) => told.groups.map((group) => ({ told, group })))
  await inChunks(all, async ({ told, group }) => {
    found.get(told.stream)?.set(group.id, await read(told, group))
  })
  return found
}

/** Other clients of the server wait behind no more than one chunk. */
async function inChunks<Item>(items: readonly Item[], visit: (item: Item) => Promise<void>): Promise<void> {
  for (let from = 0; from < items.length; from += AT_ONCE) {
    await Promise.all(items.slice(from, from + AT_ONCE).map(visit))
  }
}
