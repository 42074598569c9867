import { firstOfKey, waitedFor } from '../decide.ts'
import { say, type GroupSubject } from './subject.ts'
import { countedText, numberText, quoted, spanText, whenText } from './words.ts'
import type { Drain, NotDelivered, Pending, Scheduled, Sentence } from './explanation.ts'

/** What is to be said of a job that is still to run in a group. Pure. */

export function notDelivered(subject: GroupSubject, state: NotDelivered): Sentence[] {
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

export function pending({ nowMs, stream }: GroupSubject, state: Pending): Sentence[] {
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

export function scheduled(subject: GroupSubject, state: Scheduled): Sentence[] {
  const { stream, id, group, nowMs } = subject
  const { dueMs, attempt, problem } = state
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
  const cause = waitedFor(problem)
  const firstId = isDue || cause === undefined ? undefined : firstOfKey(cause)
  if (cause !== undefined && firstId !== undefined) {
    // To promote it would only have it look: what holds it up is the other one.
    const text = `Waits at no cost: ${quoted(cause)}; it is due as soon as its turn comes, and else looks again ${whenText(dueMs, nowMs)}.`
    return [{ text, command: ['explain', stream, firstId, '--group', group] }, ...unmoved(subject, state)]
  }
  if (cause !== undefined) {
    const text = isDue
      ? `Waited until ${whenText(dueMs, nowMs)} at no cost (${quoted(cause)}), and is moved by the next worker that looks.`
      : `Waits until ${whenText(dueMs, nowMs)}, at no cost: ${quoted(cause)}.`
    return [{ text, command: promote }, ...unmoved(subject, state)]
  }
  const first = isDue
    ? `Attempt ${attempt + 1} was due ${whenText(dueMs, nowMs)}${after}, and is moved by the next worker that looks.`
    : `Scheduled for attempt ${attempt + 1}, ${whenText(dueMs, nowMs)},${after || ' after a failure'}.`
  return [{ text: first, command: promote }, ...unmoved(subject, state)]
}

function unmoved({ nowMs }: GroupSubject, state: Scheduled): Sentence[] {
  return state.workers === 0 ? [say(nobody(state, nowMs, 'nobody moves it when it is due until one starts'))] : []
}
