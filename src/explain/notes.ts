import type { NotesSeen } from '../redis/notes.ts'
import { say } from './subject.ts'
import type { ExplainedNotes, Sentence } from './explanation.ts'

/** What the handler of a job has said of it, as it is told. Pure. */

const MOST_LINES = 10

export function notesOf(seen: NotesSeen): ExplainedNotes {
  const { progress, progressMs = null, log = '', dropped = 0, checkpointBytes = null, checkpointMs = null } = seen
  const lines = log === '' ? [] : log.split('\n').slice(-MOST_LINES)
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

export function noteSentences(nowMs: number, notes: ExplainedNotes | undefined): Sentence[] {
  if (notes === undefined) return []
  const { progress, progressMs, lines, dropped, checkpointBytes, checkpointMs } = notes
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
  const more = dropped === 0 ? '' : ` (${dropped} lines before these were dropped)`
  const last = lines.length === 0 ? [] : [say(`Its last lines${more}: ${lines.map(({ text }) => text).join(' | ')}`)]
  return [...said, ...kept, ...last]
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
