import { matchesDeadFilter, type DeadFilter } from './filter.ts'
import type { Client } from '../redis/connection.ts'
import {
  DEAD_PAGE,
  findDead,
  readDeadPage,
  readDeadRefs,
  type DeadLetter,
  type DeadPageRead,
  type DeadPlace,
  type DeadRef,
} from '../redis/dead.ts'
import { compareIds, timeOf } from '../redis/entry-id.ts'

/**
 * Finding dead letters: page after page without their payloads, filtered here. Each page is one bounded step for Redis; a
 * search has no end of its own but that of the dead letters, so whoever may not wait for it says how many it may look at.
 */

/** How a question gets to Redis. */
export type Ask = <Told>(ask: (client: Client) => Promise<Told>) => Promise<Told>

/** A letter's id is never older than its time of death by more than what a script takes; this is far more. */
const SLACK_MS = 60_000

export interface NewestAsked {
  readonly filter: DeadFilter
  readonly limit: number
  readonly before: string | undefined
  readonly after: string | undefined
  readonly mostScanned: number
}

/** Newest first. `next`: where to go on, null if there is nothing behind these. `total`: of all dead letters. */
export async function newestDead(
  ask: Ask,
  place: DeadPlace,
  { filter, limit, before, after, mostScanned }: NewestAsked,
): Promise<{ letters: DeadLetter[]; next: string | null; total: number; scanned: number }> {
  const letters: DeadLetter[] = []
  const oldestMs = (filter.fromMs ?? 0) - SLACK_MS
  let [below, scanned] = [before, 0]
  for (;;) {
    const most = isFiltering(filter) ? undefined : { most: Math.min(limit - letters.length, DEAD_PAGE) }
    const page: DeadPageRead = await ask((client) =>
      readDeadPage(client, place, { order: 'newest', above: after, below, ...most }),
    )
    const { total } = page
    for (const [at, letter] of page.letters.entries()) {
      if (timeOf(letter.deadId) < oldestMs) return { letters, next: null, total, scanned }
      scanned += 1
      below = letter.deadId
      if (matchesDeadFilter(letter, filter)) letters.push(letter)
      const isLast = at === page.letters.length - 1 && !page.more
      if (letters.length === limit || scanned === mostScanned) {
        return { letters, next: isLast ? null : below, total, scanned }
      }
    }
    if (!page.more) return { letters, next: null, total, scanned }
  }
}

/** The same for a filter with ids: these are looked up and not searched for. */
export async function newestOfIds(
  ask: Ask,
  place: DeadPlace,
  ids: readonly string[],
  { filter, limit, before, after }: Omit<NewestAsked, 'mostScanned'>,
): Promise<{ letters: DeadLetter[]; next: string | null; total: number; unknownIds: string[] }> {
  const { letters, unknownIds } = await deadByIds(ask, place, ids)
  const { total } = await ask((client) => readDeadPage(client, place, { order: 'newest', most: 1 }))
  const meant = letters.reverse().filter((letter) => {
    if (before !== undefined && compareIds(letter.deadId, before) >= 0) return false
    if (after !== undefined && compareIds(letter.deadId, after) <= 0) return false
    return matchesDeadFilter(letter, filter)
  })
  const shown = meant.slice(0, limit)
  const next = meant.length > limit ? (shown.at(-1)?.deadId ?? null) : null
  return { letters: shown, next, total, unknownIds }
}

/** Where a search begins and what it is about. */
export interface OldestAsked {
  readonly filter: DeadFilter
  /** The newest letter that counts. */
  readonly untilDeadId: string
  readonly limit: number
  readonly signal: AbortSignal | undefined
}

/** Oldest first, a page at a time, none of them empty: the order in which jobs are given back. Without `filter.ids`. */
export function oldestDead(ask: Ask, place: DeadPlace, asked: OldestAsked): AsyncGenerator<DeadLetter[]> {
  const read = (range: DeadRange) => ask((client) => readDeadPage(client, place, { order: 'oldest', ...range }))
  return pagesFrom(asked, { read, isMeant: (letter) => matchesDeadFilter(letter, asked.filter) })
}

/** The same with nothing but the ids, where there is no filter: cheaper for Redis by half. */
export function oldestDeadRefs(ask: Ask, place: DeadPlace, asked: OldestAsked): AsyncGenerator<DeadRef[]> {
  if (isFiltering(asked.filter)) return oldestDead(ask, place, asked)
  const read = (range: DeadRange) => ask((client) => readDeadRefs(client, place, range))
  return pagesFrom(asked, { read, isMeant: () => true })
}

interface DeadRange {
  readonly above: string | undefined
  readonly upTo: string
}

interface Pages<Letter> {
  readonly read: (range: DeadRange) => Promise<{ readonly letters: readonly Letter[]; readonly more: boolean }>
  readonly isMeant: (letter: Letter) => boolean
}

async function* pagesFrom<Letter extends DeadRef>(
  { filter, untilDeadId, limit, signal }: OldestAsked,
  { read, isMeant }: Pages<Letter>,
): AsyncGenerator<Letter[]> {
  const fromMs = Math.floor((filter.fromMs ?? 0) - SLACK_MS)
  let left = limit
  const next = (above: string | undefined) => {
    if (left <= 0 || signal?.aborted === true) return undefined
    if (above !== undefined && compareIds(above, untilDeadId) >= 0) return undefined
    const page = read({ above, upTo: untilDeadId })
    // Whoever takes it hears of its failure; if nobody does, it is nobody's business.
    page.catch(() => {})
    return page
  }
  let reading = next(fromMs > 0 ? `${fromMs}-0` : undefined)
  while (reading !== undefined) {
    const { letters, more } = await reading
    const found = letters.filter(isMeant).slice(0, left)
    left -= found.length
    // While these are dealt with, the next ones are read: what is behind them does not change by it.
    reading = more ? next(letters.at(-1)?.deadId) : undefined
    if (found.length > 0) yield found
  }
}

/**
 * The letters of these ids, oldest first, each once. What the index does not lead to is searched for: of two letters with
 * the same job id it knows only one. `unknownIds`: those of no dead letter.
 */
export async function deadByIds(
  ask: Ask,
  place: DeadPlace,
  ids: readonly string[],
): Promise<{ letters: DeadLetter[]; unknownIds: string[] }> {
  const found = new Map<string, DeadLetter>()
  const missing = new Set<string>()
  const looked = await ask((client) => findDead(client, place, ids))
  for (const [at, id] of ids.entries()) {
    const letter = looked[at]
    if (letter === undefined) missing.add(id)
    else found.set(letter.deadId, letter)
  }
  let below: string | undefined
  let more = missing.size > 0
  while (more && missing.size > 0) {
    const page: DeadPageRead = await ask((client) => readDeadPage(client, place, { order: 'newest', below }))
    for (const letter of page.letters) {
      if ([letter.id, letter.deadId].filter((id) => missing.delete(id)).length > 0) found.set(letter.deadId, letter)
    }
    below = page.letters.at(-1)?.deadId
    more = page.more
  }
  const letters = [...found.values()].sort((a, b) => compareIds(a.deadId, b.deadId))
  return { letters, unknownIds: [...missing] }
}

/** The id of the newest dead letter, or null if there is none. */
export async function newestDeadId(ask: Ask, place: DeadPlace): Promise<string | null> {
  const { letters } = await ask((client) => readDeadPage(client, place, { order: 'newest', most: 1 }))
  return letters[0]?.deadId ?? null
}

function isFiltering(filter: DeadFilter): boolean {
  return Object.values(filter).some((part) => part !== undefined)
}
