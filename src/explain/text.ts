import type { CronTick } from '../cron/tick.ts'
import { pauseText } from './group-text.ts'
import { say } from './subject.ts'
import { bytesText, countedText, quoted, whenText } from './words.ts'
import type { AskedId, Explanation, Sentence, UnknownWhy } from './explanation.ts'
import { isCopyId, timeOf } from '../redis/entry-id.ts'

/** What is to be said of a job before its groups are spoken of; `absence` is what it means if nothing of it is there. Pure. */
export function jobSentences(explanation: Omit<Explanation, 'sentences'>, absence: UnknownWhy | 'trimmed'): Sentence[] {
  const { asked, job, isKnown } = explanation
  const sentences: Sentence[] = []
  if (asked !== null) sentences.push(say(askedText(asked, explanation.id)))
  if (job !== null) sentences.push(...describedSentences(explanation, job))
  else if (isCopyId(explanation.id) && isKnown)
    sentences.push(say('It is a copy that a replay made; nothing is left of it but counts.'))
  sentences.push(...delayedSentences(explanation))
  if (!isKnown) sentences.push(...unknownSentences(explanation, absence))
  sentences.push(say(historyText(explanation)))
  if (isKnown && explanation.groups.length === 0 && explanation.delayed === null) {
    sentences.push(say('No group reads the stream yet: the first one begins with its oldest entry.'))
  }
  if (explanation.paused !== null && isKnown) {
    const { stream, paused, nowMs } = explanation
    sentences.push({ text: pauseText('The stream', paused, nowMs), command: ['resume', stream] })
  }
  return sentences
}

function askedText({ id, is, group }: AskedId, jobId: string): string {
  const whose = group === null ? 'the stream' : `group ${group}`
  const what =
    is === 'entry' ? 'an entry' : is === 'dead letter' ? 'a dead letter' : 'an entry of the redelivery stream'
  return `${id} is the id of ${what} of ${whose}; its job is ${jobId}.`
}

function describedSentences(
  { id, nowMs, history }: Omit<Explanation, 'sentences'>,
  { name, entryId, publishedMs, bytes, replayOf, unique, cron }: NonNullable<Explanation['job']>,
): Sentence[] {
  const what = name === null ? 'without a job name' : quoted(name, 100)
  const entry =
    entryId === null
      ? 'its own entry is not in the stream'
      : entryId === id
        ? 'as an entry of that id'
        : `as entry ${entryId}`
  const place = entryId === null && history.entries === 0 ? '' : `, ${entry}`
  const first = say(`Job ${what}, ${payloadText(bytes)}, published ${whenText(publishedMs, nowMs)}${place}.`)
  const copy = replayOf === null ? [] : [say(`It is a copy that a replay made of ${quoted(replayOf)}.`)]
  const schedule = cron === undefined ? [] : [say(cronText(cron))]
  return [first, ...schedule, ...copy, ...(unique === undefined ? [] : [say(uniqueText(id, unique))])]
}

function cronText({ name, tickMs }: CronTick): string {
  const when = tickMs === null ? 'out of turn, as somebody asked' : `for its tick of ${instantOf(tickMs)}`
  return `The schedule ${quoted(name)} has published it, ${when}.`
}

/** Dates end where a field of 15 digits does not. */
function instantOf(ms: number): string {
  return ms <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`
}

function uniqueText(id: string, { key, holder }: NonNullable<NonNullable<Explanation['job']>['unique']>): string {
  if (holder === id) return `It holds the uniqueness key ${quoted(key, 256)}.`
  const whose = holder === null ? 'no job holds' : `job ${holder} holds`
  return `It has the uniqueness key ${quoted(key, 256)}, which ${whose} now.`
}

function delayedSentences({ delayed, stream, id, nowMs }: Omit<Explanation, 'sentences'>): Sentence[] {
  if (delayed === null) return []
  const { dueMs, problem } = delayed
  if (dueMs === null) {
    const why = problem === '' ? '' : `: ${quoted(problem)}`
    return [
      {
        text: `It was published with a delay and set aside: it could not be moved into the stream when it was due${why}.`,
        command: ['scheduled', 'show', stream, id],
      },
    ]
  }
  const when = whenText(dueMs, nowMs)
  const text =
    dueMs > nowMs
      ? `It was published with a delay, and comes into the stream ${when}.`
      : `It was published with a delay and was due ${when}: the next worker that looks moves it into the stream.`
  return [{ text, command: ['scheduled', 'promote', stream, id] }]
}

function unknownSentences(
  { stream, id, lookedTo, history, nowMs }: Omit<Explanation, 'sentences'>,
  why: UnknownWhy | 'trimmed',
): Sentence[] {
  if (lookedTo !== null) return [notFound(stream, id, lookedTo)]
  const { newestId } = history
  const text = `No job ${id} is known: ${WHY[why]}`.replace(
    'NEWEST',
    newestId === null ? 'not there any more' : newestId,
  )
  const time = timeOf(id)
  if (why !== 'never' || time > nowMs) return [say(text)]
  // What was published about then is found by its time.
  return [{ text, command: ['find', stream, '--from', isoOf(time - 60_000), '--to', isoOf(time + 60_000)] }]
}

const WHY: Readonly<Record<UnknownWhy | 'trimmed', string>> = {
  trimmed: 'the id is older than the history of the stream.',
  never:
    'it has no entry though its time is within the history, so it never was, or somebody deleted it. Check the id and the stream; what was published around its time:',
  newer:
    'the id is newer than the newest entry, which is NEWEST. Check the id, and whether this is the Redis it was published to.',
  older:
    'the id is older than the first entry that the stream ever had. Check the id, the stream, and whether this is the Redis it was published to.',
  delayed:
    'the id is of a delayed publish that is neither scheduled nor in the stream, so it was cancelled before it was due, or never was.',
  'not-found': 'its entry was not found.',
}

function notFound(stream: string, id: string, lookedTo: string): Sentence {
  return {
    text: `Its entry was looked for from the time of its id to ${lookedTo}, and not found so far. To go on looking:`,
    command: ['find', stream, '--where', `id == "${id}"`, '--from', lookedTo, '--limit', '1'],
  }
}

function isoOf(ms: number): string {
  return new Date(Math.max(0, ms)).toISOString()
}

function historyText({ stream, history, nowMs }: Omit<Explanation, 'sentences'>): string {
  const { entries, oldestId, newestId } = history
  if (oldestId === null || newestId === null) return `Stream ${stream} holds no entries.`
  const count = countedText(entries, 'entry', 'entries')
  return `Stream ${stream} has ${count}, from ${whenText(timeOf(oldestId), nowMs)} to ${whenText(timeOf(newestId), nowMs)}.`
}

function payloadText(bytes: number | null): string {
  return bytes === null ? 'no payload' : `${bytesText(bytes)} of payload`
}
