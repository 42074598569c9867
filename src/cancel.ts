import { MillraceError, OptionError } from './errors.ts'
import { refuseUnknownKeys } from './options.ts'
import {
  cancelBeforeGroups,
  cancelFor,
  MOST_CANCELLED,
  removeDelayed,
  type Cancelling,
  type Sought,
} from './redis/cancelling.ts'
import type { Client } from './redis/connection.ts'
import { checkJobId } from './redis/entry-id.ts'
import { checkGroupName, checkStreamName } from './redis/keys.ts'
import { readOneScheduled } from './redis/scheduled.ts'
import { searchEntry, type JobPlace } from './redis/whereabouts.ts'
import { groupsAsked, unknownJob } from './job-places.ts'

export interface CancelOptions {
  /** For this group only. @default all groups of the stream */
  group?: string
}

/** What became of a cancel. */
export interface CancelResult {
  readonly stream: string
  readonly id: string
  /** False if there was nothing left to cancel: it is settled in every group that was asked. */
  readonly cancelled: boolean
  /** It was a delayed publish, and has come into no group. `groups` is empty then. */
  readonly delayed: boolean
  readonly groups: readonly CancelledInGroup[]
}

export interface CancelledInGroup {
  readonly group: string
  /**
   * Where the group had it. `scheduled` and `dead`: it is gone from there. `waiting` and `redelivery`: not (or not again)
   * delivered yet; workers hear of it within two pulses, about two seconds, and do not run it then. `running`, or taken
   * before its worker has heard of it: the signal of its handler aborts; if it completes all the same, it is completed. `finished`: settled, nothing was done. `unknown`: the group has nothing of it,
   * or, if `cancelled`, the search for its entry was given up: it will not run if it has not.
   */
  readonly was: JobPlace
  readonly cancelled: boolean
}

/** Checks what is asked before anything is opened. @throws OptionError */
export function checkJobAsked(where: string, stream: string, jobId: string, options: CancelOptions): void {
  refuseUnknownKeys(where, options, ['group'])
  checkStreamName(stream)
  checkJobId(jobId)
  if (options.group !== undefined) checkGroupName(options.group)
}

/** Cancels a job; see `Inspector.cancel`. */
export async function cancelJob(
  client: Client,
  stream: string,
  jobId: string,
  { group }: CancelOptions,
): Promise<CancelResult> {
  if (group === undefined && (await removeDelayed(client, stream, jobId))) {
    return { stream, id: jobId, cancelled: true, delayed: true, groups: [] }
  }
  const { groups, oldestId } = await groupsAsked(client, stream, group)
  if (group !== undefined) await refuseDelayed(client, stream, jobId)
  const sought: Sought = { jobId, ...(await searchEntry(client, stream, jobId)) }
  if (groups.length === 0) return cancelUngrouped(client, stream, sought, oldestId)
  const done: (Cancelling & { group: string })[] = []
  for (const name of groups) {
    const asked = { group: name, alone: group !== undefined }
    done.push({ group: name, ...(await cancelFor(client, stream, asked, sought)) })
  }
  refuseFull(stream, jobId, done)
  const isKnown = done.some(({ place, exists }) => exists || (place !== 'finished' && place !== 'unknown'))
  if (!isKnown && !sought.gaveUp) throw unknownJob(stream, jobId, oldestId)
  const told = done.map((one) => ({ group: one.group, was: one.place, cancelled: one.outcome === 'cancelled' }))
  return { stream, id: jobId, cancelled: told.some(({ cancelled }) => cancelled), delayed: false, groups: told }
}

async function cancelUngrouped(
  client: Client,
  stream: string,
  sought: Sought,
  oldestId: string | undefined,
): Promise<CancelResult> {
  const done = await cancelBeforeGroups(client, stream, sought)
  // A first group came about meanwhile: it has the job now, wherever that is.
  if (done === undefined) return cancelJob(client, stream, sought.jobId, {})
  refuseFull(stream, sought.jobId, [done])
  if (done.outcome === 'not') throw unknownJob(stream, sought.jobId, oldestId)
  return { stream, id: sought.jobId, cancelled: true, delayed: false, groups: [] }
}

/** It will come to every group, or to none: to cancel it for one would need a note that outlives any delay. */
async function refuseDelayed(client: Client, stream: string, jobId: string): Promise<void> {
  if ((await readOneScheduled(client, stream, null, jobId)) === undefined) return
  throw new OptionError(
    `job ${jobId} is a delayed publish that is in no group of ${stream} yet: cancel it without a group, for all of them`,
  )
}

function refuseFull(stream: string, jobId: string, done: readonly (Cancelling & { group?: string })[]): void {
  if (done.every(({ outcome }) => outcome !== 'full')) return
  const cancelled = done.filter(({ outcome }) => outcome === 'cancelled').map(({ group }) => group)
  const others = cancelled.length === 0 ? 'nothing was done' : `it is cancelled in ${cancelled.join(', ')} only`
  throw new MillraceError(
    'ERR_CANCELLED_FULL',
    `cannot cancel job ${jobId} on ${stream}: ${MOST_CANCELLED} jobs are noted as cancelled already, ` +
      `each for 7 days; ${others}`,
  )
}
