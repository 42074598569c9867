import { askAgain } from '../ask-again.ts'
import type { Asking } from '../asking.ts'
import { MillraceError, UnknownGroupError } from '../errors.ts'
import { existingGroup } from '../existing.ts'
import { PRESENT_MS } from '../group-reading.ts'
import { didYouMean } from '../options.ts'
import { compareIds } from '../redis/entry-id.ts'
import {
  countElsewhere,
  PENDING_MOST,
  readPoint,
  setGroupBack,
  type Elsewhere,
  type GroupPoint,
  type SetBack,
} from '../redis/rewinding.ts'
import { checkRewind, notHeld, refusalOf, workersAlive, type RewindAsked, type RewindOptions } from './asked.ts'
import { countAgain, type Counted } from './count.ts'

/** What a rewind would do, or did. */
export interface RewindResult {
  /** Whether it was to be done; else nothing was changed. */
  readonly executed: boolean
  readonly stream: string
  readonly group: string
  /** The last entry that the group counts as delivered then: everything behind it runs again. */
  readonly toId: string
  /** The last entry that was delivered to it before. */
  readonly fromId: string
  /** Jobs that run again, pending ones among them. 0: the group is there already, and nothing was changed. */
  readonly again: number
  /** Of these, jobs that are pending: a worker had them and did not finish; they run once more, and not twice. */
  readonly pendingAgain: number
  /** The first and the last entry of what runs again; null if nothing does. */
  readonly firstId: string | null
  readonly lastId: string | null
  /** Entries of the stream not yet delivered to the group, now and after the rewind; null where Redis does not know. */
  readonly lagBefore: number | null
  readonly lagAfter: number | null
  /** Workers of the group that were heard of in the last 5 seconds. */
  readonly workers: number
  /**
   * Jobs of the range that the group has elsewhere too, and that run from there beside this: retries that wait, dead letters
   * if they are redriven, and what is in its redelivery stream. Delayed publishes are not counted; null where there are too many to count.
   */
  readonly also: Elsewhere | null
}

/** The group may read on while it is counted, if it is forced; a few pages later the count has caught up. */
const TRIES = 50

/**
 * Sets a group back to a point of its stream's history, in one step of Redis, after its jobs were counted.
 * What it throws is said at `Groups.rewind`.
 */
export async function rewindGroup(
  asking: Asking,
  { stream, group }: { stream: string; group: string },
  options: RewindOptions,
): Promise<RewindResult> {
  const asked = checkRewind(stream, group, options)
  const executed = options.execute === true
  const first = await pointOf(asking, asked)
  let point = first
  let counted: Counted | undefined
  let also: Elsewhere | null | undefined
  for (let tries = 0; tries < TRIES; tries++) {
    if (compareIds(asked.toId, point.lastId) >= 0) return nothingAgain(asked, point, executed)
    if (executed && !asked.force && point.workers > 0) throw workersAlive(asked, point.workers)
    counted = await countAgain(asking, asked, { point, counted })
    if (counted.firstId === undefined) return nothingAgain(asked, point, executed)
    if (also === undefined) also = await elsewhere(asking, asked, point.lastId)
    const plan = planOf(asked, { point, counted, also })
    if (!executed) return plan
    const set = await setBackOnce(asking, asked, { counted, firstId: counted.firstId, lookedMs: first.nowMs })
    if (set.how !== 'moved') return resultOf(asked, plan, set)
    point = await pointOf(asking, asked)
  }
  throw new MillraceError(
    'ERR_WORKERS_ALIVE',
    `group ${group} of ${stream} is read faster than its jobs can be counted: stop its workers first; nothing was changed`,
  )
}

/** Where the group is. @throws if what is asked for cannot be had. */
async function pointOf(asking: Asking, asked: RewindAsked): Promise<GroupPoint> {
  const { stream, group, toId, signal } = asked
  signal?.throwIfAborted()
  const point = await askAgain(asking, { what: `group ${group} of ${stream}`, signal }, async (client) => {
    const { groups } = await existingGroup(client, stream, group)
    const found = await readPoint(client, stream, { group, toId, presentMs: PRESENT_MS })
    if (found === undefined) throw new UnknownGroupError({ stream, group, groups }, didYouMean(group, groups))
    return found
  })
  const refusal = refusalOf(asked, point)
  if (refusal !== undefined) throw refusal
  return point
}

function nothingAgain({ stream, group, toId }: RewindAsked, point: GroupPoint, executed: boolean): RewindResult {
  const { lastId, lag = null, workers } = point
  return {
    ...{ executed, stream, group, toId, fromId: lastId, again: 0, pendingAgain: 0, firstId: null, lastId: null },
    ...{ lagBefore: lag, lagAfter: lag, workers, also: { scheduled: 0, dead: 0, redelivery: 0 } },
  }
}

async function elsewhere(
  asking: Asking,
  { stream, group, toId, signal }: RewindAsked,
  lastId: string,
): Promise<Elsewhere | null> {
  const what = `the jobs that group ${group} of ${stream} has elsewhere`
  const found = await askAgain(asking, { what, signal }, (client) =>
    countElsewhere(client, stream, { group, toId, lastId }),
  )
  return found ?? null
}

function planOf(
  { stream, group, toId }: RewindAsked,
  { point, counted, also }: { point: GroupPoint; counted: Counted; also: Elsewhere | null },
): RewindResult {
  const { lastId: fromId, lag, workers, pendingAgain } = point
  const { entries, firstId = null, lastId = null } = counted
  return {
    ...{ executed: false, stream, group, toId, fromId, again: entries, pendingAgain, firstId, lastId },
    ...{ lagBefore: lag ?? null, lagAfter: lag === undefined ? null : lag + entries, workers, also },
  }
}

async function setBackOnce(
  asking: Asking,
  asked: RewindAsked,
  { counted, firstId, lookedMs }: { counted: Counted; firstId: string; lookedMs: number },
): Promise<SetBack> {
  const { stream, group, toId, force, signal } = asked
  signal?.throwIfAborted()
  const { upTo: countedTo, entriesRead } = counted
  const wanted = { group, presentMs: PRESENT_MS, force, toId, firstId, countedTo, entriesRead, lookedMs }
  // Sent again after a lost answer it does nothing: the first one was noted.
  return askAgain(asking, { what: `the rewind of group ${group} of ${stream}`, signal }, (client) =>
    setGroupBack(client, stream, wanted),
  )
}

/** @throws what kept it from being done. */
function resultOf(asked: RewindAsked, plan: RewindResult, set: Exclude<SetBack, { how: 'moved' }>): RewindResult {
  const { stream, group, firstId } = asked
  switch (set.how) {
    case 'rewound': {
      const { fromId, further, pendingAgain, lag = null, workers } = set
      const lastId = further > 0 ? fromId : plan.lastId
      const again = plan.again + further
      return { ...plan, executed: true, fromId, again, pendingAgain, lastId, lagAfter: lag, workers }
    }
    case 'same':
      return { ...plan, executed: true, fromId: set.fromId }
    case 'alive':
      throw workersAlive(asked, set.workers)
    case 'trimmed':
      throw notHeld({ stream, firstId }, set.oldestId)
    case 'pending':
      throw new MillraceError(
        'ERR_PENDING',
        `more than ${PENDING_MOST} jobs behind ${asked.toId} are pending in group ${group} of ${stream}, and a rewind ` +
          'settles no more in one step: let a worker finish them first; nothing was changed',
      )
    case 'gone':
      throw new UnknownGroupError({ stream, group, groups: [] }, undefined)
  }
}
