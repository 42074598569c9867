import { MillraceError, RedisError, UnknownGroupError } from './errors.ts'
import type { Logger } from './logger.ts'
import type { Client } from './redis/connection.ts'
import { didYouMean } from './options.ts'
import { readStream, readStreams, type StreamSeen } from './redis/inspection.ts'
import { checkGroupName, checkStreamName } from './redis/keys.ts'

/** Which streams and groups there are, and the errors for those that there are not. */

const MOST_STREAMS = 1000
/** Groups of a stream that are looked at. */
export const MOST_GROUPS = 200

/** The streams in use, by name: at most 1000. */
export async function streamsInUse(client: Client, logger?: Logger): Promise<string[]> {
  const { names, more } = await readStreams(client, MOST_STREAMS)
  if (more) logger?.warn({ most: MOST_STREAMS }, 'there are more streams than are looked at')
  return names.filter(isStreamName).sort()
}

/** @throws MillraceError ERR_NOT_FOUND if it does not exist, RedisError if its key is of another type. */
export async function existingStream(
  client: Client,
  stream: string,
  mostGroups = MOST_GROUPS,
): Promise<StreamSeen & { kind: 'stream' }> {
  const seen = await readStream(client, checkStreamName(stream), mostGroups)
  if (seen.kind === 'missing') throw notFound(stream, await streamsInUse(client).catch(() => []))
  if (seen.kind === 'other') throw new RedisError('ERR_REDIS_REFUSED', otherType(stream, seen.type))
  return seen
}

/** @throws UnknownGroupError if the stream has no such group, else as `existingStream`. */
export async function existingGroup(
  client: Client,
  stream: string,
  group: string,
): Promise<StreamSeen & { kind: 'stream' }> {
  checkGroupName(group)
  const seen = await existingStream(client, stream)
  if (seen.groups.includes(group) || seen.more) return seen
  throw new UnknownGroupError({ stream, group, groups: seen.groups }, didYouMean(group, seen.groups))
}

/** Anybody may write into the list of streams in use. */
export function isStreamName(name: string): boolean {
  try {
    return checkStreamName(name) === name
  } catch {
    return false
  }
}

/** Of a group that somebody has made with XGROUP CREATE; no worker joins one of another name. */
export function isGroupName(name: string): boolean {
  try {
    return checkGroupName(name) === name
  } catch {
    return false
  }
}

function notFound(stream: string, listed: readonly string[]): MillraceError {
  return new MillraceError('ERR_NOT_FOUND', `stream ${stream} does not exist (${hintOf(stream, listed)})`)
}

function hintOf(stream: string, listed: readonly string[]): string {
  const others = listed.filter((name) => name !== stream)
  const names = others.slice(0, 20).join(', ')
  // A schedule of it, or a delayed publish, has put it on the list.
  if (others.length < listed.length) {
    return `nothing has come into it yet, or it was deleted${names === '' ? '' : `; there are others: ${names}`}`
  }
  const meant = didYouMean(stream, others)
  if (meant !== undefined) return `did you mean ${meant}?`
  return names === '' ? 'there is none yet' : `there are: ${names}`
}

export function otherType(stream: string, type: string): string {
  return `the key ${stream} holds a ${type}, not a stream: use another name, or remove that key if nobody needs it`
}
