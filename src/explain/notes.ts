import type { NotesSeen } from '../redis/notes.ts'
import { say, type GroupSubject } from './subject.ts'
import { numberText } from './words.ts'
import type { ExplainedNotes, Sentence } from './explanation.ts'

/** What the handler of a job has said of it, as it is told. Pure. */

/** Lines that are said; whoever wants all that are kept has them as data. */
const MOST_SAID = 10

export function notesOf(seen: NotesSeen): ExplainedNotes {
  const { progress, progressMs = null, log = '', dropped = 0, checkpointBytes = null, checkpointMs = null } = seen
  const lines = log === '' ? [] : log.split('\n')
  return {
    ...(progress !== undefined && { progress: jsonOr(progress) }),
    progressMs,
    lines: lines.map((line) => {
      const [, atMs = '0', text = line] = /^(\d{1,15}) (.*)$/s.exec(line) ?? []
      return { atMs: Number(atMs), text }
    }),
    dropped,
    checkpointBytes,
    checkpointMs,
  }
}

export function noteSentences(subject: GroupSubject, notes: ExplainedNotes | undefined): Sentence[] {
  if (notes === undefined) return []
  const { nowMs } = subject
  const { progress, progressMs, checkpointBytes, checkpointMs } = notes
  const ago = (atMs: number | null) => (atMs === null ? '' : ` ${Math.max(0, Math.round((nowMs - atMs) / 1000))} s ago`)
  const said =
    progress === undefined
      ? []
      : [say(`Its handler said${ago(progressMs)} how far it was: ${JSON.stringify(progress)}.`)]
  const kept =
    checkpointBytes === null
      ? []
      : [
          say(
            `It has kept a checkpoint of ${checkpointBytes} bytes${ago(checkpointMs)}; the next run may go on from it.`,
          ),
        ]
  return [...said, ...kept, ...lineSentences(subject, notes)]
}

function lineSentences({ stream, id, group }: GroupSubject, { lines, dropped }: ExplainedNotes): Sentence[] {
  if (lines.length === 0) return []
  const last = lines.slice(-MOST_SAID)
  const isAll = last.length === lines.length
  const which = isAll ? 'Its last lines' : `Its last ${last.length} lines, of ${lines.length} that are kept`
  const before = dropped === 0 ? '' : ` (${numberText(dropped)} before these were dropped)`
  const text = `${which}${before}: ${last.map((line) => line.text).join(' | ')}`
  return [{ text, command: isAll ? null : ['explain', stream, id, '--group', group, '--json'] }]
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
