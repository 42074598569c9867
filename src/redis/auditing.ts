import type { Redis } from 'ioredis'
import { tallySlot } from './entry-id.ts'
import { withoutArguments } from './faults.ts'
import { look } from './inspection.ts'
import {
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  outcomesKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  tallyKey,
} from './keys.ts'
import type { Source } from './member.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { auditEntries, auditIndex, auditNames, auditRecords, repairDelayed, repairOrphans } from './scripts/audit.ts'
import { run, type Argument } from './scripts/script.ts'
import { groupFields } from './settings.ts'
import { TALLY_TTL_MS } from './tally.ts'
import { placeKeys } from './whereabouts.ts'

/** What an audit asks of Redis: one function per script, replies narrowed. */

/** A stream and the group that is audited. */
export interface AuditPlace {
  readonly stream: string
  readonly group: string
}

/** A page of a stream, added up by the minutes of the job ids. */
export interface EntrySums {
  /** Where the next page begins; undefined behind the last. */
  readonly next: string | undefined
  readonly entries: number
  /** Ids that are pending and have no entry. */
  readonly lost: readonly string[]
  readonly sums: readonly {
    readonly minute: number
    /** How often the entries of this minute are to be settled. */
    readonly settlings: number
    readonly waiting: number
    readonly pending: number
  }[]
}

export async function sumEntries(
  client: Redis,
  { stream, group }: AuditPlace,
  { source, from, to }: { source: Source; from: string; to: string },
): Promise<EntrySums> {
  const keys = [source === 0 ? stream : redeliveryKey(stream, group), settingsKey(stream)]
  const [next, entries, lost, flat] = asArray(await look(client, auditEntries, keys, [group, from, to]))
  const numbers = asArray(flat).map(asNumber)
  const sums = Array.from({ length: numbers.length / 4 }, (_, at) => {
    const [minute = 0, settlings = 0, waiting = 0, pending = 0] = numbers.slice(4 * at, 4 * at + 4)
    return { minute, settlings, waiting, pending }
  })
  return { next: asText(next) || undefined, entries: asNumber(entries), lost: asArray(lost).map(asText), sums }
}

/** What an hour's tally says, `minute of the hour:outcome` → count; undefined where there is none. */
export async function readTally(
  client: Redis,
  { stream, group }: AuditPlace,
  hour: string,
): Promise<ReadonlyMap<string, number> | undefined> {
  const found = await client.hgetall(tallyKey(stream, group, hour)).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  const counts = Object.entries(found).map(([field, count]) => [field, Number(count)] as const)
  return counts.length === 0 ? undefined : new Map(counts)
}

/** What the settings say that an audit must know. */
export async function readAuditSettings(
  client: Redis,
  { stream, group }: AuditPlace,
): Promise<{ hasDelayed: boolean; isRecording: boolean }> {
  const fields = ['scheduled-seq', `${groupFields(group)}record`]
  const [numbered, record] = await client.hmget(settingsKey(stream), ...fields).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  return { hasDelayed: numbered !== null && numbered !== undefined, isRecording: record === 'outcomes' }
}

/** What a line of the index lacks; see the script. */
export type IndexFault = 'time' | 'record' | 'both' | 'letter' | 'redelivery'

/** Where a walk through the index stands: ids that are left of its last step go first. */
export interface IndexWalk {
  readonly cursor: string
  readonly left: readonly string[]
}

/** A step through the index: lines whose place is not there, and where to go on, if there is more. May tell one twice. */
export async function findIndexFaults(
  client: Redis,
  { stream, group }: AuditPlace,
  { cursor, left }: IndexWalk,
): Promise<{ next: IndexWalk | undefined; faults: { id: string; fault: IndexFault }[] }> {
  const keys = [
    redeliveryKey(stream, group),
    groupScheduledKey(stream, group),
    groupScheduledJobsKey(stream, group),
    deadKey(stream, group),
    indexKey(stream, group),
  ]
  const [behind, others, ...told] = asArray(await look(client, auditIndex, keys, [group, cursor, ...left]))
  const next = { cursor: asText(behind), left: asArray(others).map(asText) }
  const flat = told.map(asText)
  const faults = Array.from({ length: flat.length / 2 }, (_, at) => {
    return { id: flat[2 * at] ?? '', fault: flat[2 * at + 1] as IndexFault }
  })
  return { next: next.cursor === '0' && next.left.length === 0 ? undefined : next, faults }
}

/** A step through the records of scheduled jobs, of the group or, with null, of delayed publishes: those without a time. */
export async function findLooseRecords(
  client: Redis,
  stream: string,
  { group, cursor }: { group: string | null; cursor: string },
): Promise<{ cursor: string; ids: string[] }> {
  const keys =
    group === null
      ? [scheduledKey(stream), scheduledJobsKey(stream)]
      : [groupScheduledKey(stream, group), groupScheduledJobsKey(stream, group)]
  const [next = '0', ...ids] = asArray(await look(client, auditRecords, keys, [cursor])).map(asText)
  return { cursor: next, ids }
}

/** A job and its entry; '' where that is not known. */
export interface NamedJob {
  readonly id: string
  readonly entryId: string
}

/** A page of the jobs of a minute that were delivered and are nowhere. The minute is that of `slotOf`. */
export async function nameMissing(
  client: Redis,
  place: AuditPlace,
  { from, to, minute }: { from: string; to: string; minute: number },
): Promise<{ next: string | undefined; jobs: NamedJob[] }> {
  const { stream, group } = place
  const { hour } = slotOf(minute)
  const keys = [...placeKeys(stream, group), settingsKey(stream), outcomesKey(stream, group, hour)]
  const [next, ...flat] = asArray(await look(client, auditNames, keys, [group, from, to, minute])).map(asText)
  const jobs = Array.from({ length: flat.length / 2 }, (_, at) => {
    return { id: flat[2 * at] ?? '', entryId: flat[2 * at + 1] ?? '' }
  })
  return { next: next === '' ? undefined : next, jobs }
}

/** Jobs that one call of the repairs takes. */
export const REPAIR_BATCH = 100

/** What became of a job that was to be handed back; see the scripts. */
export type Repaired = 'done' | 'elsewhere' | 'gone' | 'wide'

/** Hands back at most 100 jobs. The answer may be shorter than the question; the rest is asked again. */
export async function handBackOrphans(
  client: Redis,
  { stream, group }: AuditPlace,
  { jobs, execute }: { jobs: readonly (NamedJob & { isNamed: boolean })[]; execute: boolean },
): Promise<Repaired[]> {
  const args: Argument[] = [group, execute ? 1 : 0, TALLY_TTL_MS]
  const keys = placeKeys(stream, group)
  for (const { id, entryId, isNamed } of jobs) {
    const { hour, minute } = tallySlot(id)
    args.push(id, entryId, isNamed ? 1 : 0, minute)
    keys.push(outcomesKey(stream, group, hour), tallyKey(stream, group, hour))
  }
  return asArray(await run(client, repairOrphans, keys, args)).map((state) => asText(state) as Repaired)
}

/** Gives at most 100 delayed publishes their time again. */
export async function handBackDelayed(
  client: Redis,
  stream: string,
  { ids, execute }: { ids: readonly string[]; execute: boolean },
): Promise<Repaired[]> {
  const keys = [scheduledKey(stream), scheduledJobsKey(stream)]
  const reply = await run(client, repairDelayed, keys, [execute ? 1 : 0, ...ids])
  return asArray(reply).map((state) => asText(state) as Repaired)
}

/** Where the jobs of a minute, since the epoch, are counted. */
export function slotOf(minute: number): { hour: string; minuteOfHour: number } {
  const { hour, minute: minuteOfHour } = tallySlot(`${minute * MINUTE_MS}-0`)
  return { hour, minuteOfHour }
}

/** The minute of an id, since the epoch, as the scripts count it. */
export function minuteOf(id: string): number {
  const ms = Number(id.slice(0, id.indexOf('-')))
  return Math.floor(Math.min(ms, LAST_MS) / MINUTE_MS)
}

export const MINUTE_MS = 60_000
const LAST_MS = 8_639_999_999_000_000
