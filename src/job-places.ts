import { MillraceError, type UnknownGroupError } from './errors.ts'
import { existingGroup, existingStream } from './existing.ts'
import type { Client } from './redis/connection.ts'
import { compareIds, isDelayedId } from './redis/entry-id.ts'
import { dateOf, locate, type JobPlace } from './redis/whereabouts.ts'

/** Which groups a question about a job goes to, and the errors that say where the job is instead. */

/** More than any stream should have; beyond it only a group that is named can be asked for. */
const MOST_GROUPS = 1000

const WORDS: Readonly<Record<JobPlace, string>> = {
  scheduled: 'it has just been scheduled',
  dead: 'it is a dead letter',
  waiting: 'it waits to be delivered',
  redelivery: 'it waits to be delivered again',
  running: 'a worker has it',
  finished: 'it is settled',
  unknown: 'nothing is known of it',
}

/** The named group, or all groups of the stream. @throws MillraceError ERR_NOT_FOUND, UnknownGroupError */
export async function groupsAsked(
  client: Client,
  stream: string,
  group: string | undefined,
): Promise<{ groups: readonly string[]; oldestId: string | undefined }> {
  if (group !== undefined) {
    const { oldestId } = await existingGroup(client, stream, group)
    return { groups: [group], oldestId }
  }
  const { groups, oldestId, more } = await existingStream(client, stream, MOST_GROUPS)
  if (more) {
    throw new MillraceError('ERR_OPTION', `stream ${stream} has more than ${MOST_GROUPS} groups: name one`)
  }
  return { groups: [...groups].sort(), oldestId }
}

/** The error for a job that is not scheduled: says where each group has it, as far as that needs no search. */
export async function notScheduled(
  client: Client,
  stream: string,
  { jobId, group }: { jobId: string; group: string | undefined },
): Promise<MillraceError | UnknownGroupError> {
  const { groups, oldestId } = await groupsAsked(client, stream, group)
  const told: string[] = []
  let isKnown = false
  for (const name of groups) {
    const { place, exists } = await locate(client, stream, { group: name, jobId })
    const isGuess = place === 'finished' && !exists
    isKnown ||= place !== 'unknown' && !isGuess
    told.push(`${name}: ${isGuess ? 'it is settled and trimmed, or never was' : WORDS[place]}`)
    if (told.length === 20) break
  }
  const what = `job ${jobId} is not scheduled on ${stream}`
  if (groups.length === 0) return new MillraceError('ERR_NOT_FOUND', `${what}, which has no group yet`)
  if (isKnown) return new MillraceError('ERR_NOT_FOUND', `${what}; in group ${told.join('; in group ')}`)
  if (!isDelayedId(jobId)) return unknownJob(stream, jobId, oldestId)
  return new MillraceError('ERR_NOT_FOUND', `${what}: it has come into the stream, was cancelled, or never was`)
}

/** The error for an id that the stream and its groups do not know. */
export function unknownJob(stream: string, jobId: string, oldestId: string | undefined): MillraceError {
  const what = `stream ${stream} has no job ${jobId}`
  if (oldestId === undefined) return new MillraceError('ERR_NOT_FOUND', `${what}: it holds no entries`)
  if (compareIds(jobId, oldestId) < 0) {
    return new MillraceError('ERR_NOT_FOUND', `${what}: it has history since ${dateOf(oldestId)}, the id is older`)
  }
  const why = isDelayedId(jobId) ? ': it was cancelled, or is settled and trimmed, or never was' : ''
  return new MillraceError('ERR_NOT_FOUND', `${what}${why}`)
}
