import { matchesJob, scannedJob, type JobFilter, type ScannedJob } from '../scan.ts'

/** Which entries are replayed. */

export type Verdict =
  | { readonly kind: 'meant'; readonly job: ScannedJob }
  /** Not what was asked for | a copy that a replay brought. */
  | { readonly kind: 'other' | 'replay' }
  /** The filter could not tell: then it is not replayed. */
  | { readonly kind: 'unclear'; readonly why: string }

const OTHER: Verdict = { kind: 'other' }
const REPLAY: Verdict = { kind: 'replay' }

export function judge(
  { id, fields }: { readonly id: string; readonly fields: readonly (string | Buffer)[] },
  { filter, includeReplays }: { readonly filter: JobFilter; readonly includeReplays: boolean },
): Verdict {
  const job = scannedJob(id, fields)
  const isMeant = matchesJob(filter, job)
  if (typeof isMeant === 'string') return { kind: 'unclear', why: isMeant.slice(0, MOST_WHY) }
  if (!isMeant) return OTHER
  return job.replayOf !== undefined && !includeReplays ? REPLAY : { kind: 'meant', job }
}

/** Characters of the reason that are kept. */
const MOST_WHY = 300

/** Fields that belong to a delivery or to the publish, and not to the job as it is copied. */
const DROPPED = new Set([
  'id',
  'attempt',
  'at',
  'first-failed',
  'past-attempts',
  'trace-last',
  'replay-of',
  'expires',
  'unique',
  'unique-until',
  'granted',
  'waited-since',
  'past-deliveries',
  'reply',
])
const LONGEST_DROPPED = Math.max(...[...DROPPED].map((name) => name.length))

/** What a copy takes over of the original's fields, byte for byte. */
export function copiedFields(fields: readonly Buffer[]): Buffer[] {
  const copied: Buffer[] = []
  for (let at = 0; at + 1 < fields.length; at += 2) {
    const [name, value] = [fields[at] as Buffer, fields[at + 1] as Buffer]
    if (name.length <= LONGEST_DROPPED && DROPPED.has(name.toString('latin1'))) continue
    copied.push(name, value)
  }
  return copied
}
