import type { Redis } from 'ioredis'
import { compareIds } from './entry-id.ts'
import { memberKeys, sourceKey, type Member, type Source } from './member.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { askTurns as script } from './scripts/order.ts'
import { run, type Argument } from './scripts/script.ts'

/** What a worker asks of Redis for jobs that are in order; see the script. */

/** Asks in one call. */
export const TURN_BATCH = 100
/** Entries that one call lines up at most. */
const WALK_MOST = 500

export interface TurnAsk {
  readonly entryId: string
  readonly deliveries: number
  readonly id: string
  readonly key: string
}

/**
 * `here`: behind a job that this worker has. `lost`: it is not this worker's. `again`: not everything up to it could be lined up
 * yet. `broken`: the key of its line holds something else.
 */
export interface TurnTold {
  readonly state: 'granted' | 'behind' | 'here' | 'lost' | 'again' | 'broken'
  /** The job that is first in line. */
  readonly firstId: string
  /** How many jobs are before it, and where it is in line. */
  readonly before: number
  readonly position: number
}

/** At most `TURN_BATCH`, of one source. What is told stands in the order of the asks. */
export async function askTurns(
  client: Redis,
  member: Member,
  source: Source,
  asks: readonly TurnAsk[],
): Promise<TurnTold[]> {
  const rising = asks
    .map((ask, at) => ({ ask, at }))
    .toSorted((a, b) => compareIds(a.ask.entryId, b.ask.entryId) || a.at - b.at)
  const asked = JSON.stringify(
    rising.map(({ ask: { entryId, deliveries, id, key } }) => [entryId, deliveries, id, key]),
  )
  const args: Argument[] = [member.group, member.consumer, source === 0 ? 1 : 0, WALK_MOST, asked]
  const keys = [
    sourceKey(member, source),
    memberKeys.settings(member),
    memberKeys.order(member),
    memberKeys.retries(member),
    memberKeys.index(member),
  ]
  const rows = asArray(await run(client, script, keys, args))
  const told: TurnTold[] = []
  rising.forEach(({ at }, row) => {
    const one: unknown = rows[row]
    const [state, firstId = '', before = 0, position = 0] = Array.isArray(one) ? asArray(one) : [one]
    told[at] = {
      state: asText(state) as TurnTold['state'],
      firstId: asText(firstId),
      before: asNumber(before),
      position: asNumber(position),
    }
  })
  return told
}
