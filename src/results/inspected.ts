import type { Asking } from '../asking.ts'
import { refuseUnknownKeys } from '../options.ts'
import { checkJobId } from '../redis/entry-id.ts'
import { checkGroupName, checkStreamName } from '../redis/keys.ts'
import { readAnswers } from '../redis/results.ts'
import { answerOf, type AnswerState } from './answer.ts'
import { resultIn, whyOf } from './told.ts'

export interface ResultLookOptions {
  /** The group whose end of the job is asked for. @default the first one that ended it */
  group?: string
}

/** How a job that was published with `result` stands, as far as that is told. */
export interface JobResult {
  /**
   * How it ended; `too-large` and `not-json`: completed, and its result cannot be told. `waiting`: it has not ended yet, or its answer
   * is forgotten. `not-asked`: it was published without `result`, or with that of another group. `unknown`: there is neither an answer nor an entry of it.
   */
  readonly state: AnswerState | 'waiting' | 'not-asked' | 'unknown'
  /** The group that ended it; null where none has. */
  readonly group: string | null
  /** When it ended, in ms since the epoch by the server's clock; null where it has not. */
  readonly atMs: number | null
  /** What its handler gave back, of a completed one, if that is not undefined. */
  readonly result?: unknown
  /** What it is dead of. */
  readonly reason?: string
  /** The text of its last error, of a dead one. */
  readonly error?: string
  readonly attempts?: number
}

/** See `Inspector.result`. */
export async function lookAtResult(
  asking: Asking,
  stream: string,
  jobId: string,
  options: ResultLookOptions,
): Promise<JobResult> {
  refuseUnknownKeys('result', options, ['group'])
  checkStreamName(stream)
  checkJobId(jobId)
  const { group } = options
  if (group !== undefined) checkGroupName(group)
  const [told] = await asking.run(`the result of job ${jobId} of ${stream}`, (client) =>
    readAnswers(client, stream, [{ jobId, group, isKnown: false }]),
  )
  const answer = answerOf(told?.text ?? '')
  if (answer === undefined) {
    const isAsked = told?.isAsked
    const state = isAsked === undefined ? 'unknown' : isAsked ? 'waiting' : 'not-asked'
    return { state, group: null, atMs: null }
  }
  const about = { state: answer.state, group: answer.group, atMs: answer.atMs }
  if (answer.state === 'completed') {
    const result = resultIn(answer, { stream, jobId })
    return result === undefined ? about : { ...about, result }
  }
  if (answer.state !== 'dead') return about
  const { reason, attempts, error, message } = whyOf(answer.body ?? '')
  return { ...about, reason, attempts, error: `${error}: ${message}` }
}
