import { say, type GroupSubject } from './subject.ts'
import { countedText, minuteText, numberText, quoted, whenText } from './words.ts'
import type { Dead, Sentence, Settled } from './explanation.ts'
import type { Counted } from '../redis/explaining.ts'

/** What is to be said of a job that a group has done with, and how one knows. Pure. */

export function dead({ stream, id, group, nowMs }: GroupSubject, { letter }: Dead): Sentence[] {
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
  skipped: 'skipped: its name is none that the group wants',
  discarded: 'a dead letter that was deleted',
  gone: 'gone: its entry was deleted while it was pending',
  dead: 'dead, and its dead letter is not there any more',
}

export function settled(subject: GroupSubject, { outcome, evidence, atMs, counts }: Settled): Sentence[] {
  const how = outcome === null ? '' : (HOW[outcome] ?? quoted(outcome, 30))
  if (evidence === 'recorded') {
    return [say(`Settled: ${how}, ${atMs === null ? '' : whenText(atMs, subject.nowMs)} (the group records outcomes).`)]
  }
  const minute = minuteText(subject.publishedMs)
  if (counts === null) {
    const text = `Settled: the group has passed it, and has it neither pending, scheduled nor dead. How is not known any more: nothing is counted of the jobs published in the minute ${minute} (counts are kept 7 days).`
    return [say(text)]
  }
  const all = counts.completed + counts.cancelled + counts.skipped + counts.discarded + counts.gone
  if (evidence === 'certain') {
    const jobs = all === 1 ? 'the only settled job' : `all ${numberText(all)} settled jobs`
    return [
      say(
        `Settled: ${how}, ${all === 1 ? 'being' : 'like'} ${jobs} that ${all === 1 ? 'is' : 'are'} counted of the minute ${minute}${alsoText(counts)}.`,
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
  const told = (['completed', 'cancelled', 'skipped', 'discarded', 'gone'] as const).filter((name) => counts[name] > 0)
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

export function trimmed({ publishedMs, oldestMs, nowMs }: GroupSubject, counts: Counted | null): Sentence[] {
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
