import type { Redis } from 'ioredis'
import { asLetter, type DeadLetter } from './dead.ts'
import { hasMadeId, isCopyId, isEntryId, tallySlot } from './entry-id.ts'
import { look } from './inspection.ts'
import {
  cancelledKey,
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  notesKey,
  outcomesKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  tallyKey,
  workersInfoKey,
  workersKey,
} from './keys.ts'
import { notesSeen, type NotesSeen } from './notes.ts'
import { asArray, asFields, asNumber, asOptionalNumber, asText } from './replies.ts'
import { explainGroups, explainJob, findAlias } from './scripts/explain.ts'
import { findEntry } from './scripts/whereabouts.ts'

/** What Redis has to tell about one job, and nothing that is concluded from it. */

/** What an entry, a record or a dead letter says of its job. */
export interface Described {
  /** Null where it has no name. */
  readonly name: string | null
  /** Size of the payload; null where it has none. */
  readonly bytes: number | null
  readonly replayOf: string | null
  /** Attempts that failed before. */
  readonly attempt: number
  /** The field that tells its schedule; empty for most. */
  readonly cron: string
  /** Only where it was asked for, and below 1 MiB. */
  readonly payload: string | null
}

export type JobSeen =
  | { readonly kind: 'missing' }
  | { readonly kind: 'other'; readonly type: string }
  | (JobFacts & { readonly kind: 'stream' })

export interface JobFacts {
  readonly nowMs: number
  readonly entries: number
  readonly oldestId: string | undefined
  readonly newestId: string | undefined
  readonly lastId: string
  /** Whether entries were removed; undefined where the server does not tell. */
  readonly hasLost: boolean | undefined
  /** Of its entry in the stream, or of its record. */
  readonly job: Described | undefined
  /** Its uniqueness key, if it has one, and which job holds that now; empty for none. */
  readonly unique: { readonly key: string; readonly holder: string } | undefined
  /** The job that the entry of this id carries, where that is another. */
  readonly carries: string | undefined
  /** While it is a delayed publish; `dueMs` is infinite where it was set aside. */
  readonly delayed: { readonly dueMs: number; readonly problem: string } | undefined
  /** When it was cancelled for all groups. */
  readonly cancelledMs: number | undefined
  readonly paused: string | undefined
  /** The highest number that a replay has given to a copy. */
  readonly copiedSeq: string | undefined
  readonly groups: readonly string[]
  readonly groupCount: number
}

export interface JobAsked {
  readonly jobId: string
  /** Its entry in the stream; empty where that is not known. */
  readonly entryId: string
  readonly wantsPayload: boolean
}

export async function readJobFacts(
  client: Redis,
  stream: string,
  { jobId, entryId, wantsPayload, mostGroups }: JobAsked & { mostGroups: number },
): Promise<JobSeen> {
  const keys = [stream, scheduledKey(stream), scheduledJobsKey(stream), cancelledKey(stream), settingsKey(stream)]
  const told = asFields(await look(client, explainJob, keys, [jobId, entryId, mostGroups, wantsPayload ? 1 : 0]))
  const kind = textOf(told, 'kind') ?? ''
  if (kind !== 'stream' && kind !== 'none') return { kind: 'other', type: kind }
  // Delayed publishes alone make a stream too, though it has no entries yet.
  if (kind === 'none' && !((numberOf(told, 'scheduled') ?? 0) > 0)) return { kind: 'missing' }
  const hasLost = numberOf(told, 'hasLost')
  const due = textOf(told, 'due')
  return {
    kind: 'stream',
    nowMs: numberOf(told, 'now') ?? 0,
    entries: numberOf(told, 'entries') ?? 0,
    oldestId: textOf(told, 'oldestId'),
    newestId: textOf(told, 'newestId'),
    lastId: textOf(told, 'lastId') ?? '0-0',
    hasLost: kind === 'none' ? false : hasLost === undefined ? undefined : hasLost === 1,
    job: describedOf(told.get('job')),
    unique: uniqueOf(told.get('unique')),
    carries: textOf(told, 'carries'),
    delayed: due === undefined ? undefined : { dueMs: scoreOf(due), problem: textOf(told, 'problem') ?? '' },
    cancelledMs: numberOf(told, 'cancelled'),
    paused: textOf(told, 'paused'),
    copiedSeq: textOf(told, 'copiedSeq'),
    groups: asArray(told.get('groups') ?? []).map(asText),
    groupCount: numberOf(told, 'groupCount') ?? 0,
  }
}

/** The outcomes that tallies count, as the script tells them. */
const COUNTED = [
  'completed',
  'cancelled',
  'skipped',
  'discarded',
  'gone',
  'dead',
  'redriven',
  'retried',
  'late',
  'replayed',
] as const
export type Counted = Readonly<Record<(typeof COUNTED)[number], number>>

export interface PendingFacts {
  readonly entryId: string
  readonly consumer: string
  readonly idleMs: number
  readonly deliveries: number
  /** What the worker says of itself. */
  readonly about: string | undefined
  readonly seenMs: number | undefined
}

export interface UnreadFacts {
  readonly entryId: string
  readonly lastDeliveredId: string
  /** Entries before it that the group was not given either: so many were counted, and whether these are all. */
  readonly counted: number
  readonly isExact: boolean
  /** Undefined where Redis does not know. */
  readonly lag: number | undefined
  /** Only where not all were counted. */
  readonly firstUnreadId: string | undefined
  readonly newestId: string | undefined
}

export interface WorkersFacts {
  readonly workers: number
  /** What some of them say of themselves. */
  readonly about: readonly string[]
  readonly lastHeardMs: number | undefined
}

/** What Redis tells of a job in a group, in one step. */
export interface GroupFacts {
  readonly group: string
  /** In which words, see `whereIs`. */
  readonly place: string
  /** Whether its entry is in the stream. */
  readonly hasEntry: boolean
  readonly source: 'stream' | 'redelivery'
  readonly job: Described | undefined
  readonly pending: PendingFacts | undefined
  readonly unread: UnreadFacts | undefined
  readonly scheduled: { readonly dueMs: number; readonly problem: string } | undefined
  readonly letter: DeadLetter | undefined
  readonly present: WorkersFacts
  /** What was counted of the jobs of its minute; undefined if nothing is kept of that hour. */
  readonly counts: Counted | undefined
  /** How it was settled, where the group records that. */
  readonly outcome: { readonly outcome: string; readonly atMs: number } | undefined
  /** What the index says of it, where it is not there. */
  readonly lost: string | undefined
  readonly cancelledMs: number | undefined
  readonly leaseMs: number | undefined
  readonly maxDeliveries: number | undefined
  readonly startId: string | undefined
  readonly rewinds: string
  readonly paused: string | undefined
  readonly records: boolean
  readonly notes: NotesSeen | undefined
}

/** Groups of one call: what each of them costs is bounded, and so is what all of them cost together. */
const GROUPS_AT_ONCE = 10
const PRESENT_MS = 5000
const MOST_WORKERS = 100

/** Where each group has the job. A group that is gone is left out. */
export async function readGroupFacts(
  client: Redis,
  stream: string,
  { jobId, entryId, wantsPayload }: JobAsked,
  groups: readonly string[],
): Promise<GroupFacts[]> {
  const { hour, minute } = tallySlot(jobId)
  const found: GroupFacts[] = []
  for (let at = 0; at < groups.length; at += GROUPS_AT_ONCE) {
    const names = groups.slice(at, at + GROUPS_AT_ONCE)
    const keys = [stream, settingsKey(stream), cancelledKey(stream)]
    for (const group of names) keys.push(...keysOf(stream, group, { hour, jobId }))
    const args = [jobId, entryId, minute, PRESENT_MS, MOST_WORKERS, wantsPayload ? 1 : 0, ...names]
    const reply = asArray(await look(client, explainGroups, keys, args))
    for (const [index, group] of names.entries()) {
      const facts = groupFacts(group, asFields(reply[index]))
      if (facts !== undefined) found.push(facts)
    }
  }
  return found
}

function keysOf(stream: string, group: string, { hour, jobId }: { hour: string; jobId: string }): string[] {
  return [
    redeliveryKey(stream, group),
    groupScheduledKey(stream, group),
    groupScheduledJobsKey(stream, group),
    deadKey(stream, group),
    indexKey(stream, group),
    workersKey(stream, group),
    workersInfoKey(stream, group),
    tallyKey(stream, group, hour),
    outcomesKey(stream, group, hour),
    notesKey(stream, group, jobId),
  ]
}

function groupFacts(group: string, told: Map<string, unknown>): GroupFacts | undefined {
  if (!told.has('there')) return undefined
  const due = textOf(told, 'due')
  const letter = told.get('letter')
  return {
    group,
    place: textOf(told, 'place') ?? 'unknown',
    hasEntry: numberOf(told, 'hasEntry') === 1,
    source: textOf(told, 'source') === 'redelivery' ? 'redelivery' : 'stream',
    job: describedOf(told.get('job')),
    pending: pendingOf(told),
    unread: unreadOf(told),
    scheduled: due === undefined ? undefined : { dueMs: scoreOf(due), problem: textOf(told, 'problem') ?? '' },
    letter: letter === undefined ? undefined : asLetter(letter),
    present: {
      workers: numberOf(told, 'workers') ?? 0,
      about: asArray(told.get('about') ?? []).map(asText),
      lastHeardMs: numberOf(told, 'heard'),
    },
    counts: countsOf(told.get('counts')),
    outcome: outcomeOf(textOf(told, 'outcome')),
    lost: textOf(told, 'lost'),
    cancelledMs: numberOf(told, 'cancelled'),
    leaseMs: countOf(textOf(told, 'leaseMs')),
    maxDeliveries: countOf(textOf(told, 'maxDeliveries')),
    startId: idOf(textOf(told, 'start')),
    rewinds: textOf(told, 'rewinds') ?? '',
    paused: textOf(told, 'paused'),
    records: textOf(told, 'record') === 'outcomes',
    notes: notesSeen(told.get('notes')),
  }
}

function pendingOf(told: Map<string, unknown>): PendingFacts | undefined {
  if (!told.has('pending')) return undefined
  const [entryId, consumer, idleMs, deliveries] = asArray(told.get('pending'))
  return {
    entryId: asText(entryId),
    consumer: asText(consumer),
    idleMs: asNumber(idleMs),
    deliveries: asNumber(deliveries),
    about: textOf(told, 'worker'),
    seenMs: numberOf(told, 'seen'),
  }
}

function unreadOf(told: Map<string, unknown>): UnreadFacts | undefined {
  if (!told.has('unread')) return undefined
  const [entryId, lastDeliveredId, counted, isExact] = asArray(told.get('unread'))
  const lag = numberOf(told, 'lag')
  return {
    entryId: asText(entryId),
    lastDeliveredId: asText(lastDeliveredId),
    counted: asNumber(counted),
    isExact: asNumber(isExact) === 1,
    // It is not delivered, so nothing ahead is no knowledge.
    lag: lag === 0 ? undefined : lag,
    firstUnreadId: idOf(textOf(told, 'firstUnread')),
    newestId: idOf(textOf(told, 'newest')),
  }
}

/** Which job an id means that is none's. */
export interface Alias {
  readonly is: 'dead' | 'redelivery'
  readonly group: string
  readonly jobId: string
}

export async function readAlias(
  client: Redis,
  stream: string,
  id: string,
  groups: readonly string[],
): Promise<Alias | undefined> {
  if (groups.length === 0) return undefined
  const keys = groups.flatMap((group) => [
    deadKey(stream, group),
    redeliveryKey(stream, group),
    indexKey(stream, group),
  ])
  const [is, group, jobId] = asArray(await look(client, findAlias, keys, [id, ...groups])).map(asText)
  if (is === undefined || group === undefined || jobId === undefined || !isEntryId(jobId)) return undefined
  return { is: is === 'dead' ? 'dead' : 'redelivery', group, jobId }
}

export type EntrySearch =
  | { readonly how: 'found'; readonly entryId: string }
  | { readonly how: 'absent' }
  /** There was more to look at, behind this entry. */
  | { readonly how: 'gave-up'; readonly lookedTo: string }

/** The entry of a delayed publish: not before the time of its id, and looked for so many pages from there. */
export async function searchDelayedEntry(
  client: Redis,
  stream: string,
  jobId: string,
  pages: number,
): Promise<EntrySearch> {
  if (!hasMadeId(jobId)) return { how: 'found', entryId: jobId }
  if (isCopyId(jobId)) return { how: 'absent' }
  let from = `${jobId.slice(0, jobId.indexOf('-'))}-0`
  for (let page = 0; page < pages; page++) {
    const [state = '', id = ''] = asArray(await look(client, findEntry, [stream], [from, jobId])).map(asText)
    if (state === 'found') return { how: 'found', entryId: id }
    if (state === 'absent') return { how: 'absent' }
    from = id
  }
  return { how: 'gave-up', lookedTo: from.replace('(', '') }
}

function uniqueOf(reply: unknown): JobFacts['unique'] {
  if (reply === undefined) return undefined
  const [key = '', holder = ''] = asArray(reply).map(asText)
  return { key, holder }
}

function describedOf(reply: unknown): Described | undefined {
  if (reply === undefined) return undefined
  const [name = '', bytes, replayOf = '', attempt = '', cron = '', payload] = asArray(reply)
  const size = asNumber(bytes)
  return {
    name: asText(name) || null,
    bytes: size < 0 ? null : size,
    replayOf: asText(replayOf) || null,
    attempt: countOf(asText(attempt)) ?? 0,
    cron: asText(cron),
    payload: payload === undefined ? null : asText(payload),
  }
}

function countsOf(reply: unknown): Counted | undefined {
  if (reply === undefined) return undefined
  const counts = asArray(reply)
  return Object.fromEntries(COUNTED.map((name, at) => [name, asNumber(counts[at])])) as Counted
}

/** `<outcome> <server ms>`. */
function outcomeOf(text: string | undefined): GroupFacts['outcome'] {
  const [, outcome = '', atMs = ''] = /^([a-z]+) (\d{1,15})$/.exec(text ?? '') ?? []
  return outcome === '' ? undefined : { outcome, atMs: Number(atMs) }
}

function textOf(told: Map<string, unknown>, name: string): string | undefined {
  const value = told.get(name)
  return value === undefined || value === null ? undefined : asText(value)
}

function numberOf(told: Map<string, unknown>, name: string): number | undefined {
  return asOptionalNumber(told.get(name))
}

/** A due time; what was set aside has one that never comes. */
function scoreOf(score: string): number {
  return score === 'inf' ? Infinity : asNumber(score)
}

function countOf(text: string | undefined): number | undefined {
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined
}

function idOf(text: string | undefined): string | undefined {
  return text !== undefined && isEntryId(text) ? text : undefined
}
