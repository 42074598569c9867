import { monotonicMs, sleep } from '../clock.ts'
import { matchesDeadFilter, type DeadFilter } from './filter.ts'
import { deadByIds, newestDeadId, oldestDead, oldestDeadRefs, type Ask, type OldestAsked } from './search.ts'
import type { Pace } from '../pace.ts'
import type { Client } from '../redis/connection.ts'
import { DEAD_BATCH, type DeadLetter, type DeadMove, type DeadPlace, type DeadRef } from '../redis/dead.ts'
import { compareIds } from '../redis/entry-id.ts'

/** Taking dead letters away, to the group or for good: first what would go, then batch by batch, oldest first. */

/** What would be done. Nothing was changed. */
export interface DeadPlan {
  readonly executed: false
  /** How many letters are meant. */
  readonly count: number
  /** The most frequent first. */
  readonly byReason: readonly { readonly reason: string; readonly count: number }[]
  readonly byJob: readonly { readonly job: string | null; readonly count: number }[]
  /** The first three. */
  readonly samples: readonly DeadLetter[]
  /** Asked for ids of which no dead letter is there. */
  readonly unknownIds: readonly string[]
  /** The newest letter that was there at the beginning; null if there was none. What dies later is not meant. */
  readonly untilDeadId: string | null
  /** The signal aborted before everything was looked at. */
  readonly interrupted: boolean
}

/** Why a letter stayed: more fields than a script can move (about 3 900), or not what a worker writes. */
export interface DeadRefusal extends DeadRef {
  readonly why: 'wide' | 'unreadable'
}

export interface DeadProgress {
  /** Letters taken away by this call. */
  readonly done: number
  /** Letters that were gone when their turn came: by a try whose answer was lost, or by somebody else. */
  readonly already: number
  readonly refused: number
}

export interface DeadMoved extends DeadProgress {
  /** The first hundred of what was refused. */
  readonly refusals: readonly DeadRefusal[]
  readonly unknownIds: readonly string[]
  readonly untilDeadId: string | null
  readonly interrupted: boolean
}

export interface MoveAsked {
  readonly filter: DeadFilter
  readonly limit: number
  readonly untilDeadId: string | undefined
  readonly signal: AbortSignal | undefined
}

const MOST_NAMES = 10_000
const MOST_REFUSALS = 100
const SAMPLES = 3

export async function planMove(ask: Ask, place: DeadPlace, asked: MoveAsked): Promise<DeadPlan> {
  const { untilDeadId, unknownIds, pages } = await meant(ask, place, asked, oldestDead)
  const [reasons, jobs] = [new Map<string, number>(), new Map<string | null, number>()]
  const samples: DeadLetter[] = []
  let count = 0
  for await (const letters of pages) {
    count += letters.length
    samples.push(...letters.slice(0, SAMPLES - samples.length))
    for (const { reason, job } of letters) {
      addTo(reasons, reason, '')
      addTo(jobs, job, null)
    }
  }
  return {
    executed: false,
    count,
    byReason: ranked(reasons).map(([reason, of]) => ({ reason, count: of })),
    byJob: ranked(jobs).map(([job, of]) => ({ job, count: of })),
    samples,
    unknownIds,
    untilDeadId,
    interrupted: asked.signal?.aborted === true,
  }
}

/** How letters are moved: the step that takes a batch of them, at what pace, and who is told. */
export interface Mover {
  readonly step: (client: Client, place: DeadPlace, letters: readonly DeadRef[]) => Promise<DeadMove[]>
  readonly pace: Pace | undefined
  readonly onProgress: ((progress: DeadProgress) => void) | undefined
}

/** Keeps what was done also when it ends with an error. */
export class Moving {
  readonly #ask: Ask
  readonly #place: DeadPlace
  readonly #asked: MoveAsked
  readonly #refusals: DeadRefusal[] = []
  readonly #counts = { done: 0, already: 0, refused: 0 }
  #unknownIds: readonly string[] = []
  #untilDeadId: string | null = null

  constructor(ask: Ask, place: DeadPlace, asked: MoveAsked) {
    this.#ask = ask
    this.#place = place
    this.#asked = asked
  }

  get soFar(): DeadMoved {
    return {
      ...this.#counts,
      refusals: [...this.#refusals],
      unknownIds: this.#unknownIds,
      untilDeadId: this.#untilDeadId,
      interrupted: this.#isAborted,
    }
  }

  async run(mover: Mover): Promise<DeadMoved> {
    const { untilDeadId, unknownIds, pages } = await meant(this.#ask, this.#place, this.#asked, oldestDeadRefs)
    this.#untilDeadId = untilDeadId
    this.#unknownIds = unknownIds
    for await (const letters of pages) {
      let at = 0
      while (at < letters.length && !this.#isAborted) at += await this.#batch(mover, letters, at)
    }
    return this.soFar
  }

  get #isAborted(): boolean {
    return this.#asked.signal?.aborted === true
  }

  /** Returns how many letters it has dealt with: none if it was told to stop while it waited. */
  async #batch({ step, pace, onProgress }: Mover, letters: readonly DeadRef[], at: number): Promise<number> {
    const batch = letters.slice(at, at + Math.min(DEAD_BATCH, pace?.portion ?? DEAD_BATCH))
    let waitMs
    while ((waitMs = pace?.waitMs(batch.length, monotonicMs()) ?? 0) > 0) {
      await sleep(waitMs, this.#asked.signal)
      if (this.#isAborted) return 0
    }
    const sentMs = monotonicMs()
    const moves = await this.#ask((client) => step(client, this.#place, batch))
    pace?.note(moves.length, { sentMs, answeredMs: monotonicMs() })
    for (const [position, move] of moves.entries()) this.#count(move, batch[position] as DeadRef)
    onProgress?.({ ...this.#counts })
    return moves.length
  }

  #count(move: DeadMove, { deadId, id }: DeadRef): void {
    if (move === 'moved') this.#counts.done += 1
    else if (move === 'gone') this.#counts.already += 1
    else {
      this.#counts.refused += 1
      if (this.#refusals.length < MOST_REFUSALS) this.#refusals.push({ deadId, id, why: move })
    }
  }
}

interface Meant<Letter> {
  readonly untilDeadId: string | null
  readonly unknownIds: readonly string[]
  readonly pages: AsyncIterable<readonly Letter[]> | Iterable<readonly Letter[]>
}

/** @param search for what no ids are given: for letters, or for no more of them than is needed to move them. */
async function meant<Letter extends DeadRef>(
  ask: Ask,
  place: DeadPlace,
  asked: MoveAsked,
  search: (ask: Ask, place: DeadPlace, asked: OldestAsked) => AsyncIterable<readonly Letter[]>,
): Promise<Meant<Letter | DeadLetter>> {
  const { limit, signal } = asked
  const { ids, ...filter } = asked.filter
  const untilDeadId = asked.untilDeadId ?? (await newestDeadId(ask, place))
  if (ids !== undefined) {
    const { letters, unknownIds } = await deadByIds(ask, place, ids)
    const isMeant = (letter: DeadLetter) =>
      matchesDeadFilter(letter, filter) && untilDeadId !== null && compareIds(letter.deadId, untilDeadId) <= 0
    const found = letters.filter(isMeant).slice(0, limit)
    return { untilDeadId, unknownIds, pages: found.length === 0 ? [] : [found] }
  }
  if (untilDeadId === null) return { untilDeadId, unknownIds: [], pages: [] }
  return { untilDeadId, unknownIds: [], pages: search(ask, place, { filter, untilDeadId, limit, signal }) }
}

/** Names come from entries, which anybody may have written: those beyond a bound are counted together. */
function addTo<Name>(counts: Map<Name, number>, name: Name, others: Name): void {
  const counted = counts.has(name) || counts.size < MOST_NAMES ? name : others
  counts.set(counted, (counts.get(counted) ?? 0) + 1)
}

function ranked<Name>(counts: ReadonlyMap<Name, number>): [Name, number][] {
  return [...counts].sort((a, b) => b[1] - a[1])
}
