import type { Redis } from 'ioredis'
import { readLetter, type DeadField } from './dead-fields.ts'
import { isEntryId, tallySlot, timeOf } from './entry-id.ts'
import { withoutArguments } from './faults.ts'
import { look } from './inspection.ts'
import { deadKey, indexKey, redeliveryKey, settingsKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import {
  expiredDeadLetters,
  findDeadLetters,
  purgeDeadLetters,
  readDeadIds,
  readDeadLetters,
  redriveDeadLetters,
  ROW_FIELDS,
} from './scripts/dead.ts'
import { run, type Argument } from './scripts/script.ts'
import { TALLY_TTL_MS, Tallies } from './tally.ts'

/** What is asked of Redis about dead letters: one function per script, replies narrowed. */

/** How long dead letters are kept where the stream's settings say nothing, in ms. */
export const DEFAULT_DEAD_MAX_AGE_MS = 30 * 24 * 3_600_000

/** Letters that one call of the scripts takes. */
export const DEAD_BATCH = 200
/** A page holds Redis up for some 4 ms; with 500 letters it was 10 (measured, letters of 1.5 kB). */
export const DEAD_PAGE = 200

/** A stream and one of its groups. */
export interface DeadPlace {
  readonly stream: string
  readonly group: string
}

/** What became of a job that is dead. What is null is not told by the letter. */
export interface DeadLetter {
  /** The id of the dead letter itself; its time is when it died, and a job that dies again has another one. */
  readonly deadId: string
  /** The job's id. Empty if the entry among the dead letters is none that a worker wrote. */
  readonly id: string
  readonly job: string | null
  /** Why it is dead, as in `DeadReason`. */
  readonly reason: string
  /** Class and message of the last error. */
  readonly error: string
  readonly message: string
  /** Attempts of the last round, and over all redrives. */
  readonly attempts: number | null
  readonly totalAttempts: number | null
  /** Deliveries of the last entry. */
  readonly deliveries: number | null
  readonly worker: string
  /** The entry that it was when it died, in the stream or in the redelivery stream. */
  readonly origin: string
  readonly source: string
  readonly firstFailedMs: number | null
  readonly deadMs: number
  readonly publishedMs: number | null
}

export interface DeadPageRead {
  /** How many dead letters the group has. */
  readonly total: number
  readonly letters: DeadLetter[]
  /** Whether the range has others behind these. */
  readonly more: boolean
}

/** `above` and `below` are ids of dead letters, both left out of the page; `upTo` is in it. */
export interface DeadRange {
  readonly order: 'newest' | 'oldest'
  readonly above?: string | undefined
  readonly below?: string | undefined
  readonly upTo?: string | undefined
  readonly most?: number
}

export async function readDeadPage(client: Redis, place: DeadPlace, range: DeadRange): Promise<DeadPageRead> {
  const { order, above, below, upTo, most = DEAD_PAGE } = range
  const low = above === undefined ? '-' : `(${above}`
  const high = below === undefined ? (upTo ?? '+') : `(${below}`
  const args = [order, low, high, most]
  const [total, more, ...rows] = asArray(
    await look(client, readDeadLetters, [deadKey(place.stream, place.group)], args),
  )
  return { total: asNumber(total), more: asNumber(more) === 1, letters: rows.map(asLetter) }
}

/** The next letters above an id, oldest first and nothing but their ids, as what moves all of them wants them. */
export async function readDeadRefs(
  client: Redis,
  place: DeadPlace,
  { above, upTo }: { above: string | undefined; upTo: string },
): Promise<{ letters: DeadRef[]; more: boolean }> {
  const args = [above === undefined ? '-' : `(${above}`, upTo, DEAD_PAGE]
  const [more, ...ids] = asArray(await look(client, readDeadIds, [deadKey(place.stream, place.group)], args))
  const letters: DeadRef[] = []
  for (let at = 0; at < ids.length; at += 2) letters.push({ deadId: asText(ids[at]), id: asText(ids[at + 1]) })
  return { letters, more: asNumber(more) === 1 }
}

/** The dead letters of these ids, of jobs or of letters, in their order; undefined for those that are not found. */
export async function findDead(
  client: Redis,
  { stream, group }: DeadPlace,
  ids: readonly string[],
): Promise<(DeadLetter | undefined)[]> {
  const keys = [deadKey(stream, group), indexKey(stream, group)]
  const found: (DeadLetter | undefined)[] = []
  while (found.length < ids.length) {
    const asked = ids.slice(found.length, found.length + DEAD_BATCH)
    for (const row of asArray(await look(client, findDeadLetters, keys, asked))) {
      found.push(asArray(row).length === 0 ? undefined : asLetter(row))
    }
  }
  return found
}

/** One dead letter with its bytes, or undefined if it is gone. */
export async function readDead(
  client: Redis,
  { stream, group }: DeadPlace,
  deadId: string,
): Promise<{ stack: string; fields: readonly DeadField[] | undefined } | undefined> {
  const rows = await client.xrangeBuffer(deadKey(stream, group), deadId, deadId).catch((error: unknown) => {
    throw withoutArguments(error)
  })
  const flat = rows[0]?.[1]
  if (flat === undefined) return undefined
  const { provenance, fields } = readLetter(flat)
  return { stack: provenance.get('dead-stack') ?? '', fields }
}

/** What became of a letter that was to be moved; see the scripts. */
export type DeadMove = 'moved' | 'gone' | 'wide' | 'unreadable'

/** A letter as the scripts that move it want it. */
export type DeadRef = Pick<DeadLetter, 'deadId' | 'id'>

/** Redrives at most 200 letters in one step. The answer may be shorter than the question; the rest is asked again. */
export async function redriveBatch(client: Redis, place: DeadPlace, letters: readonly DeadRef[]): Promise<DeadMove[]> {
  const { stream, group } = place
  const { tallyKeys, args } = counted(place, letters)
  const keys = [stream, deadKey(stream, group), redeliveryKey(stream, group), indexKey(stream, group), ...tallyKeys]
  return asMoves(await run(client, redriveDeadLetters, keys, [group, TALLY_TTL_MS, ...args]))
}

/** Deletes at most 200 letters in one step. */
export async function purgeBatch(client: Redis, place: DeadPlace, letters: readonly DeadRef[]): Promise<DeadMove[]> {
  const { stream, group } = place
  const { tallyKeys, args } = counted(place, letters)
  const keys = [deadKey(stream, group), indexKey(stream, group), settingsKey(stream), ...tallyKeys]
  return asMoves(await run(client, purgeDeadLetters, keys, [group, TALLY_TTL_MS, ...args]))
}

/**
 * One bounded step of what ends the time of dead letters: at most 200 of the oldest go if they are past the age that the
 * stream's settings say (`dead:maxAgeMs`), else `maxAgeMs`. Any number of workers may do it at once.
 * @returns how many were removed, and whether there are more to go at once.
 */
export async function purgeExpired(
  client: Redis,
  place: DeadPlace,
  maxAgeMs: number = DEFAULT_DEAD_MAX_AGE_MS,
): Promise<{ removed: number; more: boolean }> {
  const keys = [deadKey(place.stream, place.group), settingsKey(place.stream)]
  const [more, ...rows] = asArray(await run(client, expiredDeadLetters, keys, [maxAgeMs, DEAD_BATCH]))
  const letters = rows.map((row) => {
    const [deadId, id] = asArray(row)
    return { deadId: asText(deadId), id: asText(id) }
  })
  if (letters.length === 0) return { removed: 0, more: false }
  const moves = await purgeBatch(client, place, letters)
  return { removed: moves.filter((move) => move === 'moved').length, more: asNumber(more) === 1 }
}

/** Where each letter is counted: by its job's id, or by its own where that is none. */
function counted(place: DeadPlace, letters: readonly DeadRef[]): { tallyKeys: string[]; args: Argument[] } {
  const tallies = new Tallies(place)
  const args: Argument[] = []
  for (const { deadId, id } of letters) {
    const { hour, minute } = tallySlot(isEntryId(id) ? id : deadId)
    args.push(deadId, id, tallies.numberOf(hour), minute)
  }
  return { tallyKeys: tallies.keys, args }
}

function asMoves(reply: unknown): DeadMove[] {
  return asArray(reply).map((move) => asText(move) as DeadMove)
}

/** A row as the scripts tell it. */
export function asLetter(row: unknown): DeadLetter {
  const [deadId = '', job = '', ...told] = asArray(row).map(asText)
  const text = (name: (typeof ROW_FIELDS)[number]) => told[ROW_FIELDS.indexOf(name)] ?? ''
  const attempts = countOf(text('dead-attempts'))
  const id = text('dead-id')
  return {
    deadId,
    id,
    job: job === '' ? null : job,
    reason: text('dead-reason'),
    error: text('dead-error'),
    message: text('dead-message'),
    attempts,
    totalAttempts: countOf(text('dead-total-attempts')) ?? attempts,
    deliveries: countOf(text('dead-deliveries')),
    worker: text('dead-worker'),
    origin: text('dead-origin'),
    source: text('dead-source'),
    firstFailedMs: countOf(text('dead-first-failed')),
    deadMs: countOf(text('dead-at')) ?? timeOf(deadId),
    publishedMs: isEntryId(id) ? timeOf(id) : null,
  }
}

/** A count or time of a letter, which anybody may have written. */
function countOf(text: string): number | null {
  return /^\d{1,15}$/.test(text) ? Number(text) : null
}
