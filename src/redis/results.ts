import type { Redis } from 'ioredis'
import { scheduledJobsKey, repliesKey, settingsKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { readResults } from './scripts/reply.ts'
import { run, type Argument } from './scripts/script.ts'

/** How jobs that were published with `result` ended, as workers have told it. */

/** Replies of one read, of each stream, at most. */
export const READ_REPLIES = 500

/** One reply: of a job, the text of its answer or the first line of it. */
export interface ReplyTold {
  readonly stream: string
  readonly jobId: string
  readonly text: string
}

/** Replies of a stream since the last read. */
export interface RepliesRead {
  readonly stream: string
  readonly replies: readonly ReplyTold[]
  readonly lastId: string
}

/** Waits for replies to a producer on these streams, by the id that was read last on each. */
export async function readReplies(
  client: Redis,
  producerId: string,
  { lastIds, blockMs }: { lastIds: ReadonlyMap<string, string>; blockMs: number },
): Promise<RepliesRead[]> {
  const streams = [...lastIds.keys()]
  const keys = streams.map((stream) => repliesKey(stream, producerId))
  const reply = await client.xread('COUNT', READ_REPLIES, 'BLOCK', blockMs, 'STREAMS', ...keys, ...lastIds.values())
  if (reply === null) return []
  return asArray(reply).map((one) => {
    const [key, rows] = asArray(one)
    const stream = streams[keys.indexOf(asText(key))] ?? ''
    const entries = asArray(rows).map((row) => {
      const [id, fields] = row as [string, string[]]
      return { id, told: { stream, jobId: fields[1] ?? '', text: fields[3] ?? '' } }
    })
    return { stream, replies: entries.map(({ told }) => told), lastId: entries.at(-1)?.id ?? '0-0' }
  })
}

/** A job whose answer is looked up. */
export interface AnswerAsked {
  readonly jobId: string
  /** The group whose answer is wanted; undefined for the first one. */
  readonly group?: string | undefined
  /** Whether it is known that it was published with `result`. */
  readonly isKnown: boolean
}

export interface AnswerKept {
  /** Empty where there is none. */
  readonly text: string
  /** Whether the job was published with `result`; undefined where that is not known. */
  readonly isAsked: boolean | undefined
}

/** Jobs of one call: each is three arguments, and as many keys as there are groups. */
export const READ_JOBS = 200

/** Looks up the answers of jobs, in their order. The answer may be shorter than the question; the rest is to be asked again. */
export async function readAnswers(client: Redis, stream: string, asked: readonly AnswerAsked[]): Promise<AnswerKept[]> {
  const args: Argument[] = []
  for (const { jobId, group = '', isKnown } of asked.slice(0, READ_JOBS)) args.push(jobId, group, isKnown ? 1 : 0)
  const keys = [stream, settingsKey(stream), scheduledJobsKey(stream)]
  return asArray(await run(client, readResults, keys, args)).map((row) => {
    const [text, isAsked] = asArray(row)
    return { text: asText(text), isAsked: asNumber(isAsked) < 0 ? undefined : asNumber(isAsked) === 1 }
  })
}
