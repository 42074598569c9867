import { randomBytes, randomUUID } from 'node:crypto'
import { MillraceError } from '../errors.ts'
import { compareIds, idBefore } from '../redis/entry-id.ts'
import { forgetOldReplays, hold, noteIds, release, takeUpReplay, type ReplayPlace } from '../redis/replays.ts'
import type { Asked } from './asked.ts'
import { checkPlaces, meantBy } from './meant.ts'
import { IDS_PAGE } from './pages.ts'
import type { Ask } from '../scan.ts'

/** Taking a replay up: what it is of is held, looked at and written down, in this order. Nothing is copied yet. */

/** How long the history is held for a replay that is not written down yet, in ms. */
const START_HOLD_MS = 600_000
/** Replays that are over are kept, the newest ones, for each stream. */
const MOST_KEPT = 1000
const TRIES = 5

export interface TakenUp {
  readonly place: ReplayPlace
  /** Ids of jobs that the stream does not hold. */
  readonly unknownIds: readonly string[]
}

export async function takeUp(ask: Ask, asked: Asked): Promise<TakenUp> {
  await ask((client) => checkPlaces(client, asked))
  await ask((client) => forgetOldReplays(client, asked.target.stream, MOST_KEPT))
  for (let tries = 0; tries < TRIES; tries++) {
    const place = { stream: asked.target.stream, id: newReplayId() }
    const unknownIds = await begun(ask, asked, place)
    if (unknownIds !== undefined) return { place, unknownIds }
  }
  throw new MillraceError('ERR_REPLAY', `found no free id for a replay into ${asked.target.stream}: try again`)
}

/** Undefined if the id is taken. */
async function begun(ask: Ask, asked: Asked, place: ReplayPlace): Promise<readonly string[] | undefined> {
  const { source } = asked
  // First of all: what is checked against the history a moment later must not go between the two.
  const held = await ask((client) =>
    hold(client, source, { place, cursor: idBefore(lowestOf(asked)), ttlMs: START_HOLD_MS }),
  )
  if (held === 'full') throw tooMany(source)
  let isTaken = false
  try {
    const { ends, entryIds, unknownIds } = await meantBy(ask, asked)
    if (asked.signal?.aborted === true) {
      throw new MillraceError(
        'ERR_REPLAY',
        `the replay of ${source} was interrupted before it began: nothing was changed`,
      )
    }
    if (ends === undefined) throw nothingMeant(asked)
    if (entryIds !== undefined) await note(ask, place, entryIds)
    const fields = fieldsOf(asked, { ...ends, ids: entryIds?.length })
    const token = randomUUID()
    isTaken = await ask((client) => takeUpReplay(client, place, { token, fields }))
    return isTaken ? unknownIds : undefined
  } finally {
    if (!isTaken) await ask((client) => release(client, source, place)).catch(() => {})
  }
}

export function tooMany(source: string): MillraceError {
  return new MillraceError(
    'ERR_REPLAY',
    `100 replays hold the history of ${source} already: finish or cancel one of them first`,
  )
}

function nothingMeant({ source, ids }: Asked): MillraceError {
  const told = ids === undefined ? 'no entry in this range' : `none of these ${ids.length} jobs`
  return new MillraceError('ERR_NOT_FOUND', `stream ${source} holds ${told}: there is nothing to replay`)
}

function lowestOf({ bounds, ids = [] }: Asked): string {
  return ids.reduce((low, id) => (compareIds(id, low) < 0 ? id : low), bounds.low ?? ids[0] ?? '0-0')
}

async function note(ask: Ask, place: ReplayPlace, entryIds: readonly string[]): Promise<void> {
  for (let given = 0; given < entryIds.length; given += IDS_PAGE) {
    const ids = entryIds.slice(given, given + IDS_PAGE)
    await ask((client) => noteIds(client, place, { given, ids }))
  }
}

function fieldsOf(
  asked: Asked,
  { fromId, toId, ids }: { fromId: string; toId: string; ids: number | undefined },
): Record<string, string> {
  const { source, target, filter, limit, perSecond, includeReplays } = asked
  return {
    source,
    group: target.group ?? '',
    fromId,
    toId,
    ids: String(ids ?? ''),
    job: filter.job ?? '',
    where: filter.where?.expression ?? '',
    limit: String(limit ?? ''),
    perSecond: String(perSecond ?? ''),
    includeReplays: includeReplays ? '1' : '',
    status: 'running',
    cursor: idBefore(fromId),
    copied: '0',
  }
}

/** `r` and eight letters and digits that are not taken for each other. */
export function newReplayId(): string {
  return `r${[...randomBytes(8)].map((byte) => LETTERS[byte % LETTERS.length]).join('')}`
}

const LETTERS = 'abcdefghijklmnopqrstuvwxyz234567'
