import type { Redis } from 'ioredis'
import { hasMadeId, isCopyId, timeOf } from './entry-id.ts'
import { look } from './inspection.ts'
import { deadKey, groupScheduledJobsKey, groupScheduledKey, indexKey, redeliveryKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { findEntry, locateJob } from './scripts/whereabouts.ts'

/**
 * Where a group has a job: waiting for its next attempt (`scheduled`), as a dead letter (`dead`), not yet delivered or
 * handed back (`waiting` from the stream, `redelivery` from what the group alone sees again), with a worker (`running`),
 * settled (`finished`).
 */
export type JobPlace = 'scheduled' | 'dead' | 'waiting' | 'redelivery' | 'running' | 'finished' | 'unknown'

/** Calls of the search for an entry, each over at most 500 entries. */
const MOST_CALLS = 50

/** The keys in which a group may have a job, in the order in which the scripts take them. */
export function placeKeys(stream: string, group: string): string[] {
  return [
    stream,
    redeliveryKey(stream, group),
    groupScheduledKey(stream, group),
    groupScheduledJobsKey(stream, group),
    deadKey(stream, group),
    indexKey(stream, group),
  ]
}

/** Where a group has a job, without a search for its entry. `exists`: its entry is in the stream. */
export async function locate(
  client: Redis,
  stream: string,
  { group, jobId }: { group: string; jobId: string },
): Promise<{ place: JobPlace; exists: boolean }> {
  const args = [group, jobId, hasMadeId(jobId) ? '' : jobId]
  const [place, exists] = asArray(await look(client, locateJob, placeKeys(stream, group), args))
  return { place: asText(place) as JobPlace, exists: asNumber(exists) === 1 }
}

/**
 * The entry of a job in the stream. The job's id is its entry's, but that of a delayed publish, whose entry is searched for
 * from the time of its id on. `entryId` is empty if it was not found, and `gaveUp` says that there was more to search.
 */
export async function searchEntry(
  client: Redis,
  stream: string,
  jobId: string,
): Promise<{ entryId: string; gaveUp: boolean }> {
  // A copy is in the redelivery stream of its group, and nowhere else.
  if (isCopyId(jobId)) return { entryId: '', gaveUp: false }
  if (!hasMadeId(jobId)) return { entryId: jobId, gaveUp: false }
  let from = `${jobId.slice(0, jobId.indexOf('-'))}-0`
  for (let calls = 0; calls < MOST_CALLS; calls++) {
    const [state, id] = asArray(await look(client, findEntry, [stream], [from, jobId])).map(asText)
    if (state === 'found') return { entryId: id ?? '', gaveUp: false }
    if (state === 'absent') return { entryId: '', gaveUp: false }
    from = id ?? ''
  }
  return { entryId: '', gaveUp: true }
}

/** An id's time for people, or the id where that is no date. */
export function dateOf(id: string): string {
  const ms = timeOf(id)
  return ms <= 8.64e15 ? new Date(ms).toISOString() : id
}
