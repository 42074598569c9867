import { bytesText, countedText, minuteText, numberText, quoted, spanText, whenText } from './explain-words.ts'
import type {
  Dead,
  Drain,
  ExplainedGroup,
  NotDelivered,
  Paused,
  Pending,
  Scheduled,
  Sentence,
  Settled,
} from './explanation.ts'
import type { Counted } from './redis/explaining.ts'

/** What the sentences about a group need to know besides its state. */
export interface GroupSubject {
  readonly stream: string
  readonly id: string
  readonly group: string
  readonly publishedMs: number
  readonly nowMs: number
  readonly oldestMs: number | null
  readonly lookedTo: string | null
}

/** What is to be said of a job in one group: where it is, why, how one knows, and what to run next. Pure. */
export function groupSentences(subject: GroupSubject, group: Omit<ExplainedGroup, 'sentences'>): Sentence[] {
  return [
    ...stateSentences(subject, group),
    ...rewindSentences(subject, group),
    ...cancelSentences(subject, group),
    ...pauseSentences(subject, group),
  ]
}

function stateSentences(subject: GroupSubject, { state }: Omit<ExplainedGroup, 'sentences'>): Sentence[] {
  switch (state.at) {
    case 'not-delivered':
      return notDelivered(subject, state)
    case 'pending':
      return pending(subject, state)
    case 'scheduled':
      return scheduled(subject, state)
    case 'dead':
      return dead(subject, state)
    case 'settled':
      return settled(subject, state)
    case 'delayed':
      return [say('It is in no group yet: it comes into the stream, and to every group, when it is due.')]
    case 'before-group':
      return [
        say(
          `It is not this group's: the group began behind entry ${state.startId}, and this one is not newer than that.`,
        ),
      ]
    case 'trimmed':
      return trimmed(subject, state.counts)
    case 'unknown':
      return [say(UNKNOWN[state.why])]
  }
}

const UNKNOWN = {
  never: 'The group has nothing of it.',
  newer: 'The group has nothing of it: no such id was given yet.',
  delayed: 'The group has nothing of it.',
  older: 'The group has nothing of it.',
  'not-found': 'The group has it neither pending, scheduled nor dead; where its entry is was not found.',
}

function notDelivered(subject: GroupSubject, state: NotDelivered): Sentence[] {
  const { source, ahead, isAheadExact, lag, lastDeliveredId, entryId, attempt } = state
  const again = source === 'redelivery'
  const count =
    ahead === null
      ? 'how many are ahead of it is not known, since Redis does not know the lag'
      : ahead === 0
        ? 'it is the next one'
        : `${isAheadExact ? '' : 'about '}${countedText(Math.round(ahead), 'entry', 'entries')} ahead of it`
  const where = again
    ? `as entry ${entryId} of the group's redelivery stream, which the group has read up to ${lastDeliveredId}`
    : `the group has read up to ${lastDeliveredId}`
  const of = lag === null ? '' : `, ${countedText(lag, 'entry', 'entries')} not delivered in all`
  const what = again
    ? `Waits to be delivered again${attempt > 0 ? `, for attempt ${attempt + 1}` : ''}`
    : 'Not yet delivered'
  const beside = again ? ' Workers read the redelivery stream beside the stream.' : ''
  return [say(`${what}: ${count} (${where}${of}).${beside}`), drain(subject, state)]
}

/** How fast the group gets on. */
function drain({ stream, nowMs }: GroupSubject, state: NotDelivered): Sentence {
  const { workers, perSecond, etaSeconds } = state
  if (workers === 0)
    return { text: nobody(state, nowMs, 'nothing is delivered until one starts'), command: ['stats', stream] }
  const who = `${countedText(workers, 'live worker')} ${workers === 1 ? 'completes' : 'complete'}`
  if (perSecond === 0) {
    return {
      text: `${countedText(workers, 'live worker')} completed nothing in the last seconds, so there is no estimate of when.`,
      command: ['stats', stream],
    }
  }
  const eta =
    etaSeconds === null
      ? 'when its turn comes cannot be told'
      : `its turn comes in about ${spanText(etaSeconds * 1000)}`
  return say(`${who} ${numberText(perSecond)} jobs a second: ${eta}.`)
}

function nobody({ lastHeardMs }: Drain, nowMs: number, therefore: string): string {
  const last = lastHeardMs === null ? 'none ever was' : `the last was heard of ${whenText(lastHeardMs, nowMs)}`
  return `No worker of the group is alive (${last}): ${therefore}.`
}

function pending({ nowMs, stream }: GroupSubject, state: Pending): Sentence[] {
  const { worker, idleMs, deliveries, maxDeliveries, leaseMs, leaseLeftMs, hasEntry, workers, entryId } = state
  const of = `delivery ${deliveries} of at most ${maxDeliveries}`
  const sentences: Sentence[] = []
  if (worker === null) {
    const counted = `its next delivery is ${deliveries + 1} of at most ${maxDeliveries}`
    sentences.push(
      say(
        `Handed back by a worker that stopped, ${spanText(idleMs)} ago: the next claim gives it to another; ${counted}.`,
      ),
    )
  } else {
    const { name, host, pid, lastHeardMs } = worker
    const place = host === null || pid === null ? '' : ` (pid ${pid} on ${quoted(host, 100)})`
    const heard =
      lastHeardMs === null ? 'it is not among the workers any more' : `last heard of ${whenText(lastHeardMs, nowMs)}`
    sentences.push(say(`Pending at worker ${quoted(name, 200)}${place}, ${heard}; ${of}.`))
    const lease =
      leaseLeftMs > 0
        ? `it has ${spanText(leaseLeftMs)} of ${spanText(leaseMs)} left`
        : `it ran out ${spanText(-leaseLeftMs)} ago, and the next claim of another worker takes the job over`
    sentences.push(say(`Its lease was renewed ${spanText(idleMs)} ago: ${lease}.`))
  }
  if (state.source === 'redelivery')
    sentences.push(say(`It was delivered again, as entry ${entryId} of the redelivery stream.`))
  if (!hasEntry) {
    sentences.push(
      say('Its entry was removed while it was pending: when it is claimed it is settled as gone, and does not run.'),
    )
  }
  const isWaiting = worker === null || leaseLeftMs <= 0
  if (isWaiting && workers === 0) {
    sentences.push({ text: nobody(state, nowMs, 'nobody claims it until one starts'), command: ['stats', stream] })
  }
  return sentences
}

function scheduled({ stream, id, group, nowMs }: GroupSubject, state: Scheduled): Sentence[] {
  const { dueMs, attempt, problem, workers } = state
  const promote = ['scheduled', 'promote', stream, id, '--group', group]
  const after = problem === '' ? '' : ` after the error ${quoted(problem)}`
  if (dueMs === null) {
    return [
      {
        text: `Set aside: its retry could not be moved when it was due${after}. It waits for somebody to look at it.`,
        command: ['scheduled', 'show', stream, id, '--group', group],
      },
    ]
  }
  const isDue = dueMs <= nowMs
  const first = isDue
    ? `Attempt ${attempt + 1} was due ${whenText(dueMs, nowMs)}${after}, and is moved by the next worker that looks.`
    : `Scheduled for attempt ${attempt + 1}, ${whenText(dueMs, nowMs)},${after || ' after a failure'}.`
  const sentences: Sentence[] = [{ text: first, command: promote }]
  if (workers === 0) sentences.push(say(nobody(state, nowMs, 'nobody moves it when it is due until one starts')))
  return sentences
}

function dead({ stream, id, group, nowMs }: GroupSubject, { letter }: Dead): Sentence[] {
  const { reason, attempts, totalAttempts, error, message, deadMs, deadId, worker } = letter
  const tried = attempts === null ? '' : ` after ${countedText(attempts, 'attempt')}`
  const total = totalAttempts === null || totalAttempts === attempts ? '' : ` (${totalAttempts} over all rounds)`
  const why = error === '' && message === '' ? '' : `: ${quoted(`${error}${message === '' ? '' : `: ${message}`}`)}`
  const whose = worker === '' ? '' : `, at worker ${quoted(worker, 200)}`
  return [
    say(`Dead since ${whenText(deadMs, nowMs)}, reason ${quoted(reason, 60)}${tried}${total}${why}.`),
    {
      text: `It is dead letter ${deadId}${whose}. To have it run again:`,
      command: ['dead', 'redrive', stream, group, '--id', id, '--execute'],
    },
  ]
}

const HOW: Readonly<Record<string, string>> = {
  completed: 'completed',
  cancelled: 'cancelled before it ran to its end',
  discarded: 'a dead letter that was deleted',
  gone: 'gone: its entry was deleted while it was pending',
  dead: 'dead, and its dead letter is not there any more',
}

function settled(subject: GroupSubject, { outcome, evidence, atMs, counts }: Settled): Sentence[] {
  const how = outcome === null ? '' : (HOW[outcome] ?? quoted(outcome, 30))
  if (evidence === 'recorded') {
    return [say(`Settled: ${how}, ${atMs === null ? '' : whenText(atMs, subject.nowMs)} (the group records outcomes).`)]
  }
  const minute = minuteText(subject.publishedMs)
  if (counts === null) {
    const text = `Settled: the group has passed it, and has it neither pending, scheduled nor dead. How is not known any more: nothing is counted of the jobs published in the minute ${minute} (counts are kept 7 days).`
    return [say(text)]
  }
  const all = counts.completed + counts.cancelled + counts.discarded + counts.gone
  if (evidence === 'certain') {
    const jobs = all === 1 ? 'the only settled job' : `all ${numberText(all)} settled jobs`
    return [
      say(
        `Settled: ${how}, ${all === 1 ? 'being' : 'like'} ${jobs} published in the minute ${minute}${alsoText(counts)}.`,
      ),
    ]
  }
  if (evidence === 'likely') {
    return [
      say(
        `Settled, most likely ${how}: of the jobs published in the minute ${minute}, ${countsText(counts)}${alsoText(counts)}.`,
      ),
    ]
  }
  return [
    say(
      `Settled, but not by a worker that counts: nothing was counted as settled of the jobs published in the minute ${minute}${alsoText(counts)}. Something else acknowledged it, or the group began behind it.`,
    ),
  ]
}

function countsText(counts: Counted): string {
  const told = (['completed', 'cancelled', 'discarded', 'gone'] as const).filter((name) => counts[name] > 0)
  return told.map((name) => `${numberText(counts[name])} ${name}`).join(', ')
}

/** What else is known of the jobs of that minute, though it is no end of one. */
function alsoText({ late, retried, redriven }: Counted): string {
  const told = [
    ...(retried > 0 ? [countedText(retried, 'retry', 'retries')] : []),
    ...(redriven > 0 ? [countedText(redriven, 'redrive')] : []),
    ...(late > 0 ? [`${countedText(late, 'late completion')}, which ran twice`] : []),
  ]
  return told.length === 0 ? '' : ` (also ${told.join(', ')})`
}

function trimmed({ publishedMs, oldestMs, nowMs }: GroupSubject, counts: Counted | null): Sentence[] {
  const since =
    oldestMs === null
      ? 'The stream holds no entries any more'
      : `The stream has history since ${whenText(oldestMs, nowMs)}`
  const known = counts === null ? 'nothing is counted' : countsText(counts) || 'none settled'
  return [
    say(
      `${since}, and the id is older: if there was such a job, it is settled and trimmed. Of the jobs published in the minute ${minuteText(publishedMs)}: ${known}.`,
    ),
  ]
}

function rewindSentences({ nowMs }: GroupSubject, { rewinds, state }: Omit<ExplainedGroup, 'sentences'>): Sentence[] {
  return rewinds.map(({ atMs, toId, fromId }) => {
    const again = state.at === 'not-delivered' ? 'so it will run again' : 'so it was delivered again since'
    return say(`The group was rewound from ${fromId} to ${toId} ${whenText(atMs, nowMs)}, ${again}.`)
  })
}

function cancelSentences(
  { nowMs }: GroupSubject,
  { state, cancelledMs }: Omit<ExplainedGroup, 'sentences'>,
): Sentence[] {
  if (cancelledMs === null) return []
  const effect = {
    'not-delivered': ': it is not run when its turn comes',
    pending: ': the signal of its handler is aborted, and if it completes all the same, it is completed',
    scheduled: ': it is not run when its turn comes',
  }
  const what = state.at in effect ? effect[state.at as keyof typeof effect] : ''
  return [say(`It was cancelled ${whenText(cancelledMs, nowMs)}${what}.`)]
}

function pauseSentences(
  { stream, group, nowMs }: GroupSubject,
  { state, paused }: Omit<ExplainedGroup, 'sentences'>,
): Sentence[] {
  if (paused === null || !isHeldByPause(state)) return []
  return [{ text: pauseText('The group', paused, nowMs), command: ['resume', stream, group] }]
}

/** What is settled or dead does not wait for anybody, and what runs goes on. */
function isHeldByPause(state: ExplainedGroup['state']): boolean {
  if (state.at === 'pending') return state.worker === null || state.leaseLeftMs <= 0
  return state.at === 'not-delivered' || state.at === 'scheduled' || state.at === 'delayed'
}

export function pauseText(what: string, { sinceMs, untilMs, by, reason }: Paused, nowMs: number): string {
  const who = by === '' ? '' : ` by ${quoted(by, 100)}`
  const why = reason === '' ? '' : `, because ${quoted(reason)}`
  const until = untilMs === null ? 'until it is resumed' : `until ${whenText(untilMs, nowMs)}`
  return `${what} is paused since ${whenText(sinceMs, nowMs)}${who}${why}: nothing is delivered ${until}.`
}

export function say(text: string): Sentence {
  return { text, command: null }
}

export function payloadText(bytes: number | null): string {
  return bytes === null ? 'no payload' : `${bytesText(bytes)} of payload`
}
