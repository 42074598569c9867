import type { Reply } from './reply.ts'

/**
 * How a job ended, as whoever asked for its result is told: '<state> <when, ms> <group, or : for none>', and behind a line break
 * what there is to say. Of a completed job that is the JSON of what its handler gave back, empty for undefined; of a dead one the
 * JSON of why. An answer that is too large for the reply stream comes there without the rest, which its key has.
 */

/** `too-large`, `not-json`: it is completed, and what its handler gave back cannot be told. */
export type AnswerState = 'completed' | 'too-large' | 'not-json' | 'dead' | 'cancelled' | 'skipped'

export interface Answer {
  readonly state: AnswerState
  /** When the job ended, in ms since the epoch by the server's clock. */
  readonly atMs: number
  /** Null for a job that ended before any group had it. */
  readonly group: string | null
  /** Undefined where only its key has it. */
  readonly body: string | undefined
}

/** What a worker says beside the ack of a job that was published with `result`. */
export interface OwnAnswer {
  readonly state: AnswerState
  readonly body: string
}

const STATES: readonly string[] = ['completed', 'too-large', 'not-json', 'dead', 'cancelled', 'skipped']

/** Undefined for a text that is none: somebody else has written it. */
export function answerOf(text: string): Answer | undefined {
  const cut = text.indexOf('\n')
  const head = cut < 0 ? text : text.slice(0, cut)
  const [, state = '', atMs, group] = /^([a-z-]+) (\d{1,15}) (\S{1,64})$/.exec(head) ?? []
  if (!STATES.includes(state)) return undefined
  return {
    state: state as AnswerState,
    atMs: Number(atMs),
    group: group === ':' ? null : (group ?? null),
    body: cut < 0 ? undefined : text.slice(cut + 1),
  }
}

/** A run that has ended, as far as its answer goes. */
interface EndedRun {
  readonly extra: { readonly reply?: Reply } | undefined
  readonly group: string
  readonly replayOf: object | undefined
  answer: OwnAnswer | undefined
}

/** Keeps what a handler gave back for whoever asked, until it is settled. */
export function keepAnswer(run: EndedRun, result: unknown, maxBytes: number): void {
  if (isAsked(run)) run.answer = completedAnswer(result, maxBytes)
}

/** Of several groups another one may run a job that is skipped: only where this one was named is that the answer. */
export function keepSkipped(run: EndedRun): void {
  if (run.extra?.reply?.group !== undefined && isAsked(run)) run.answer = { state: 'skipped', body: '' }
}

/** Whether this group's end of the job is to be told. A copy by a replay is another job, for which nobody waits. */
function isAsked({ extra, group, replayOf }: EndedRun): boolean {
  const reply = extra?.reply
  return reply !== undefined && replayOf === undefined && (reply.group === undefined || reply.group === group)
}

/** What a handler gave back, as it is told. Its work is done, whatever cannot be said of it. */
function completedAnswer(result: unknown, maxBytes: number): OwnAnswer {
  if (result === undefined) return { state: 'completed', body: '' }
  let json: string | undefined
  try {
    json = JSON.stringify(result)
  } catch {
    return { state: 'not-json', body: '' }
  }
  if (json === undefined) return { state: 'not-json', body: '' }
  const bytes = Buffer.byteLength(json)
  return bytes > maxBytes ? { state: 'too-large', body: `{"bytes":${bytes}}` } : { state: 'completed', body: json }
}

/** The most that the answers of one call of a script hold, beyond one. */
const MOST_BYTES = 512 * 1024

/** Takes as many as one call may carry from the head of those that wait. */
export function takeBounded<Ended extends { readonly answer: OwnAnswer | undefined }>(
  waiting: Ended[],
  most: number,
): Ended[] {
  let [count, bytes] = [0, 0]
  while (count < waiting.length && count < most && bytes <= MOST_BYTES) {
    bytes += waiting[count]?.answer?.body.length ?? 0
    count += 1
  }
  return waiting.splice(0, count)
}
