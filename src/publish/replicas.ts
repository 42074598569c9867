import { monotonicMs } from '../clock.ts'
import { waitForReplicas } from '../redis/publishing.ts'
import type { Client } from '../redis/connection.ts'
import type { Outgoing } from './outgoing.ts'

/** A batch that Redis has, whose items wait for replicas. */
export interface Confirmed {
  readonly ids: readonly (string | undefined)[]
  /** When Redis first said so, by the monotonic clock. */
  readonly atMs: number
  /** How many replicas have it. */
  replicated: number
}

export interface ReplicaWait {
  readonly items: readonly Outgoing[]
  readonly confirmed: () => Confirmed | undefined
  readonly isOver: () => boolean
  /** Settles those items with as many replicas as are known. */
  readonly told: (isMeant: (item: Outgoing) => boolean) => void
}

/**
 * Asks for a batch's replicas until every item has as many as it wants or its time is up. WAIT holds the connection, so it is
 * asked in short steps: a dead server shows within the time of any other command, and other streams are not held up for long.
 */
export async function awaitReplicas(
  client: Client,
  key: { stream: string; producerId: string },
  { items, confirmed, isOver, told }: ReplicaWait,
): Promise<void> {
  for (;;) {
    const stand = confirmed()
    const left = items.filter(({ replicas, settled }) => replicas !== undefined && settled !== undefined)
    if (stand === undefined || left.length === 0 || isOver()) return
    const wanted = Math.max(...left.map(({ replicas }) => replicas?.replicas ?? 0))
    const untilMs = stand.atMs + Math.max(...left.map(({ replicas }) => replicas?.timeoutMs ?? 0))
    const timeoutMs = Math.ceil(untilMs - monotonicMs())
    if (timeoutMs > 0) stand.replicated = await waitForReplicas(client, key, { replicas: wanted, timeoutMs })
    const nowMs = monotonicMs()
    told(
      ({ replicas }) =>
        replicas !== undefined && (stand.replicated >= replicas.replicas || stand.atMs + replicas.timeoutMs <= nowMs),
    )
  }
}
