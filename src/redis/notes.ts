import type { Redis } from 'ioredis'
import { notesKey } from './keys.ts'
import { sourceKey, type Member, type Source } from './member.ts'
import { asArray, asOptionalNumber, asText } from './replies.ts'
import { writeNotes } from './scripts/notes.ts'
import { run, runText, type Argument } from './scripts/script.ts'

/** What a handler says of its job, as it is written. Empty is nothing. */
export interface NotesToWrite {
  readonly entryId: string
  readonly id: string
  readonly deliveries: number
  readonly progress?: string
  readonly lines?: readonly string[]
  /** Lines that were dropped before these. */
  readonly dropped?: number
  readonly checkpoint?: string
}

/** Jobs of one call: each may bring 17 KiB. */
export const NOTES_BATCH = 50

/**
 * Writes notes of jobs of one source. Tells of each whether it was still this worker's. `isLast`: what is sent next ends what they are
 * fenced by.
 */
export async function putNotes(
  client: Redis,
  member: Member,
  {
    source,
    notes,
    atMs,
    isLast = false,
  }: { source: Source; notes: readonly NotesToWrite[]; atMs: number; isLast?: boolean },
): Promise<boolean[]> {
  const keys = [sourceKey(member, source)]
  const args: Argument[] = [member.group, member.consumer, Math.round(atMs)]
  for (const { entryId, id, deliveries, progress = '', lines = [], dropped = 0, checkpoint = '' } of notes) {
    keys.push(notesKey(member.stream, member.group, id))
    args.push(entryId, deliveries, progress, lines.join('\n'), dropped, checkpoint)
  }
  const write = isLast ? runText : run
  return asArray(await write(client, writeNotes, keys, args)).map((word) => asText(word) === 'ok')
}

/** The last checkpoint of a job, as JSON; undefined where there is none. */
export async function readCheckpoint(
  client: Redis,
  { stream, group }: Member,
  id: string,
): Promise<string | undefined> {
  return (await client.hget(notesKey(stream, group, id), 'checkpoint')) ?? undefined
}

/** What its handler has said of it. */
export interface NotesSeen {
  /** As JSON. */
  readonly progress: string | undefined
  readonly progressMs: number | undefined
  /** Lines, each with its time. */
  readonly log: string
  readonly dropped: number | undefined
  readonly checkpointBytes: number | undefined
  readonly checkpointMs: number | undefined
}

/** As explain is told of it. */
export function notesSeen(reply: unknown): NotesSeen | undefined {
  if (reply === undefined) return undefined
  const [progress, progressMs, log, dropped, bytes, checkpointMs] = asArray(reply)
  return {
    progress: asText(progress) || undefined,
    progressMs: asOptionalNumber(progressMs),
    log: asText(log),
    dropped: asOptionalNumber(dropped),
    checkpointBytes: asOptionalNumber(bytes),
    checkpointMs: asOptionalNumber(checkpointMs),
  }
}
