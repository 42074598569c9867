import { dead, settled, trimmed } from './at-its-end.ts'
import { notDelivered, pending, scheduled } from './on-the-way.ts'
import { noteSentences } from './notes.ts'
import { say, type GroupSubject } from './subject.ts'
import { quoted, whenText } from './words.ts'
import type { ExplainedGroup, Paused, Sentence } from './explanation.ts'

/** What is to be said of a job in one group: where it is, why, how one knows, and what to run next. Pure. */
export function groupSentences(subject: GroupSubject, group: Omit<ExplainedGroup, 'sentences'>): Sentence[] {
  return [
    ...stateSentences(subject, group),
    ...noteSentences(subject, group.notes),
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
    case 'nowhere':
      return [nowhere(subject, state.place)]
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

function nowhere({ stream, group }: GroupSubject, place: string): Sentence {
  const where = {
    scheduled: 'as a retry that is scheduled',
    dead: 'as a dead letter',
    redelivery: 'in its redelivery stream',
  }
  const word = place.split(' ')[0] ?? ''
  const what = word in where ? where[word as keyof typeof where] : `as ${quoted(place, 50)}`
  return {
    text: `It is nowhere: the group knows it ${what}, and it is not there, so that it was deleted or acked by hand. What can be handed back is told by:`,
    command: ['audit', stream, '--group', group, '--repair'],
  }
}

function rewindSentences({ nowMs }: GroupSubject, { rewinds }: Omit<ExplainedGroup, 'sentences'>): Sentence[] {
  return rewinds.map(({ atMs, toId, fromId }) => {
    const again = 'so that it is delivered again from there on'
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
