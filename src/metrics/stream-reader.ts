import { MillraceError } from '../errors.ts'
import { isStreamName, MOST_GROUPS, otherType } from '../existing.ts'
import { MOST_WORKERS, PRESENT_MS } from '../group-reading.ts'
import type { Logger } from '../logger.ts'
import type { Client } from '../redis/connection.ts'
import { faultOf } from '../redis/faults.ts'
import { readStreams } from '../redis/inspection.ts'
import { countStreams, MOST_GROUPS_A_CALL, observe, type StreamObserved } from '../redis/observing.ts'
import { groupTold, streamTold, type GroupTold, type StreamTold } from './stream-told.ts'

/** Streams in use that are not told of. */
export interface LeftOut {
  /** Their key, or one that belongs to them, is of another type. */
  wrong_type: number
  error: number
  too_many: number
}

export interface StreamsTold {
  readonly streams: readonly StreamTold[]
  readonly leftOut: Readonly<LeftOut>
}

/** Names in the list of streams in use that are looked at; anybody may have written them. */
const MOST_LISTED = 10_000
/** Groups of all streams together that are told of. */
const MOST_GROUPS_IN_ALL = 2000
/** Streams that are asked for at a time: other clients of the server wait behind no more than these. */
const AT_ONCE = 16

/**
 * Reads streams and their groups, with one call a stream where no group is new: the keys of a call must be known before, so
 * the names of the last reading go along, and what is new is asked for by a further call.
 *
 * One stream that cannot be read is left out, and all others are told of.
 */
export class StreamReader {
  readonly #names: readonly string[] | undefined
  readonly #maxStreams: number
  readonly #logger: Logger
  /** Group ids by stream, as of the last reading. */
  #known = new Map<string, readonly string[]>()
  /** What was warned of and still is so. */
  #warned = new Set<string>()
  #isWarning = new Set<string>()

  /** @param names undefined is every stream in use. */
  constructor(names: readonly string[] | undefined, maxStreams: number, logger: Logger) {
    this.#names = names
    this.#maxStreams = maxStreams
    this.#logger = logger
  }

  /** @throws what the client throws where that is not the fault of a stream. */
  async read(client: Client): Promise<StreamsTold> {
    this.#isWarning = new Set()
    const { names, more } = await this.#listed(client)
    const leftOut: LeftOut = { wrong_type: 0, error: 0, too_many: more }
    const round: Round = { room: MOST_GROUPS_IN_ALL, known: new Map(), fault: undefined }
    const found: (StreamTold | undefined)[] = []
    for (let from = 0; from < names.length; from += AT_ONCE) {
      const chunk = names.slice(from, from + AT_ONCE)
      found.push(...(await Promise.all(chunk.map((stream) => this.#readOne(client, stream, { round, leftOut })))))
    }
    const streams = found.filter((told) => told !== undefined)
    // That it may not ask at all, or that a proxy answers for the server, is the fault of no stream.
    if (streams.length === 0 && leftOut.error > 0 && round.fault !== undefined) throw round.fault
    if (more > 0 && this.#isNews('more streams')) {
      this.#logger.warn({ most: this.#maxStreams }, 'there are more streams than metrics tell of')
    }
    if (round.room <= 0 && this.#isNews('more groups')) {
      this.#logger.warn({ most: MOST_GROUPS_IN_ALL }, 'there are more groups than metrics tell of: some are left out')
    }
    this.#known = round.known
    this.#warned = this.#isWarning
    return { streams, leftOut }
  }

  async #listed(client: Client): Promise<{ names: readonly string[]; more: number }> {
    if (this.#names !== undefined) return { names: this.#names, more: 0 }
    const { names, more } = await readStreams(client, MOST_LISTED)
    const unread = more ? Math.max(0, (await countStreams(client)) - names.length) : 0
    const sound = names.filter(isStreamName).sort()
    const told = sound.slice(0, this.#maxStreams)
    return { names: told, more: sound.length - told.length + unread }
  }

  async #readOne(
    client: Client,
    stream: string,
    { round, leftOut }: { round: Round; leftOut: LeftOut },
  ): Promise<StreamTold | undefined> {
    try {
      const told = await this.#read(client, stream, round)
      if (told === undefined || !('type' in told)) return told
      leftOut.wrong_type += 1
      this.#warnOfType(stream, otherType(stream, told.type))
      return undefined
    } catch (error) {
      if (!isOfStream(error)) throw error
      const isWrongType = error.message.includes('WRONGTYPE')
      leftOut[isWrongType ? 'wrong_type' : 'error'] += 1
      round.fault = error
      if (isWrongType) this.#warnOfType(stream, error.message)
      else if (this.#isNews(`unread ${stream}`)) {
        this.#logger.warn({ stream, fault: error.message }, 'this stream cannot be read: metrics do not tell of it')
      }
      return undefined
    }
  }

  async #read(
    client: Client,
    stream: string,
    round: Round,
  ): Promise<StreamTold | { readonly type: string } | undefined> {
    const admitted = new Set<string>()
    const admit = (ids: readonly string[]) => {
      for (const id of ids) {
        if (admitted.has(id) || round.room <= 0) continue
        admitted.add(id)
        round.room -= 1
      }
    }
    admit(this.#known.get(stream) ?? [])
    const groups = new Map<string, GroupTold | undefined>()
    let asked = [...admitted].slice(0, MOST_GROUPS_A_CALL)
    let seen: StreamObserved
    do {
      seen = await observe(client, stream, asked, ASKED)
      if (seen.kind === 'missing') return undefined
      if (seen.kind === 'other') return seen
      const { nowMs } = seen
      seen.groups.forEach((group, at) => {
        const id = asked[at] ?? ''
        groups.set(id, group === undefined ? undefined : groupTold(id, group, nowMs))
      })
      admit(seen.groupIds)
      asked = seen.groupIds.filter((id) => admitted.has(id) && !groups.has(id)).slice(0, MOST_GROUPS_A_CALL)
    } while (asked.length > 0)
    round.known.set(
      stream,
      seen.groupIds.filter((id) => admitted.has(id)),
    )
    if (seen.groupCount > MOST_GROUPS && this.#isNews(`groups ${stream}`)) {
      this.#logger.warn({ stream, most: MOST_GROUPS }, 'the stream has more groups than metrics tell of')
    }
    const told = seen.groupIds.map((id) => groups.get(id)).filter((group) => group !== undefined)
    return streamTold(stream, seen, told)
  }

  #warnOfType(stream: string, fault: string): void {
    if (!this.#isNews(`type ${stream}`)) return
    this.#logger.warn({ stream, fault }, 'a key of this stream is of another type: metrics do not tell of it')
  }

  /** Whether it was not so at the last reading: each thing is warned of once, until it is no longer so. */
  #isNews(what: string): boolean {
    this.#isWarning.add(what)
    return !this.#warned.has(what)
  }
}

/** One reading of all. */
interface Round {
  /** Groups that may still be told of. */
  room: number
  readonly known: Map<string, readonly string[]>
  /** The last one of a stream. */
  fault: Error | undefined
}

const ASKED = { presentMs: PRESENT_MS, mostWorkers: MOST_WORKERS, mostGroups: MOST_GROUPS }

/** Asked again it would be the same, and of another stream it need not be. */
function isOfStream(error: unknown): error is Error {
  if (error instanceof MillraceError) return true
  if (!(error instanceof Error) || error instanceof TypeError) return false
  const { kind } = faultOf(error)
  return kind === 'fatal' || kind === 'lost-group'
}
