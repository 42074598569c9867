import type { Redis } from 'ioredis'
import { tallySlot } from './entry-id.ts'
import { cancelledKey, outcomesKey, scheduledJobsKey, scheduledKey, settingsKey, tallyKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { cancelDelayed, cancelInGroup, cancelUnread } from './scripts/cancel.ts'
import { run } from './scripts/script.ts'
import { TALLY_TTL_MS } from './tally.ts'
import { placeKeys, type JobPlace } from './whereabouts.ts'

/** How many jobs may be noted as cancelled at a time: workers read them all when they start. */
export const MOST_CANCELLED = 100_000
/** A job that is noted for this long has long been settled. */
export const KEEP_CANCELLED_MS = 7 * 24 * 3_600_000

/** What became of a cancel at one place; `full`: too many jobs are noted as cancelled. */
export interface Cancelling {
  readonly place: JobPlace
  readonly outcome: 'cancelled' | 'not' | 'full'
  /** Its entry is in the stream. */
  readonly exists: boolean
}

/** A job and its entry, as far as that is known. */
export interface Sought {
  readonly jobId: string
  readonly entryId: string
  /** Its entry was searched for and not found, but may be there. */
  readonly gaveUp: boolean
}

/** Takes a delayed publish out; false if there is none of this id. */
export async function removeDelayed(client: Redis, stream: string, jobId: string): Promise<boolean> {
  const keys = [scheduledKey(stream), scheduledJobsKey(stream), settingsKey(stream)]
  return asNumber(await run(client, cancelDelayed, keys, [jobId])) === 1
}

/** Cancels a job for a group; `alone`: and for no other, also where the note of it is seen by all. */
export async function cancelFor(
  client: Redis,
  stream: string,
  { group, alone }: { group: string; alone: boolean },
  { jobId, entryId, gaveUp }: Sought,
): Promise<Cancelling> {
  const { hour, minute } = tallySlot(jobId)
  const counted = [tallyKey(stream, group, hour), settingsKey(stream), outcomesKey(stream, group, hour)]
  const keys = [...placeKeys(stream, group), cancelledKey(stream), ...counted]
  const member = alone ? `${jobId} ${group}` : jobId
  const args = [group, jobId, entryId, member, gaveUp ? 1 : 0, minute, TALLY_TTL_MS, MOST_CANCELLED, KEEP_CANCELLED_MS]
  return asCancelling(await run(client, cancelInGroup, keys, args))
}

/** Cancels a job of a stream without groups; undefined if it has one by now. */
export async function cancelBeforeGroups(
  client: Redis,
  stream: string,
  { jobId, entryId, gaveUp }: Sought,
): Promise<Cancelling | undefined> {
  const keys = [stream, cancelledKey(stream)]
  const args = [jobId, entryId, gaveUp ? 1 : 0, MOST_CANCELLED, KEEP_CANCELLED_MS]
  const reply = asArray(await run(client, cancelUnread, keys, args))
  return reply[0] === 'groups' ? undefined : asCancelling(reply)
}

function asCancelling(reply: unknown): Cancelling {
  const [place, done, exists] = asArray(reply)
  const outcomes = { '1': 'cancelled', '0': 'not', '-1': 'full' } as const
  return {
    place: asText(place) as JobPlace,
    outcome: outcomes[String(asNumber(done)) as keyof typeof outcomes],
    exists: asNumber(exists) === 1,
  }
}
