import { randomUUID } from 'node:crypto'
import type { Logger } from '../logger.ts'
import type { Connection } from '../redis/connection.ts'
import type { ConnectionNumbers } from '../redis/connection-numbers.ts'
import { faultText } from '../redis/faults.ts'
import { READ_JOBS, readAnswers, type ReplyTold } from '../redis/results.ts'
import type { RedisTarget } from '../redis/target.ts'
import { answerOf, type Answer } from './answer.ts'
import { KeptAnswers } from './kept.ts'
import { checkWait, type ResultAsked, type ResultWaitOptions, type WithResult } from './options.ts'
import { ReplyReader } from './reply-reader.ts'
import { closedWhileWaiting, notAsked, waitFor, type ResultWait } from './waiting.ts'

/**
 * The results that a producer waits for. A worker tells the end of a job in the script that settles it, in the reply stream of the
 * producer, which `ReplyReader` reads: that is the way by which a result comes. What is too large for that, what came before
 * anybody waited and was forgotten, and what may have been missed is looked up by the key of the answer: at once where it is known
 * to be needed, and every 5 s for all that is awaited, as a net below the rest; every second while replies cannot be read, as where
 * somebody has put a key of another type in their place. A job that was there already when it was published
 * tells another producer: its key is looked at every second.
 */

const LOOK_MS = 1000
/** Of what is told by replies, which are to be relied upon, only every fifth look is for. */
const LOOKS = 5

export interface RepliesDeps {
  readonly target: RedisTarget
  /** The connection of the producer, on demand. */
  readonly commands: Connection
  readonly numbers: ConnectionNumbers
  readonly logger: Logger
}

/** How a publish stood when it was begun: whether its reply cannot be missed. */
export interface Mark {
  readonly isRead: boolean
  readonly forgotten: number
}

/** A publish whose result may be asked for. */
export interface Published {
  readonly stream: string
  readonly jobId: string
  /** Whether the job was there already. */
  readonly isDuplicate: boolean
  readonly asked: ResultAsked | undefined
  readonly mark: Mark
}

export class Replies {
  /** Where this producer is told. */
  readonly id = randomUUID()
  readonly #deps: RepliesDeps
  readonly #kept: KeptAnswers
  readonly #waits = new Map<string, Set<ResultWait>>()
  readonly #toLookUp = new Set<ResultWait>()
  #reader: ReplyReader | undefined
  #looking = false
  #timer: NodeJS.Timeout | undefined
  #looks = 0
  #isClosed = false

  constructor(deps: RepliesDeps, kept = new KeptAnswers()) {
    this.#deps = deps
    this.#kept = kept
  }

  /** To be taken before a job is sent. */
  mark(stream: string): Mark {
    return { isRead: this.#reader?.reads(stream) === true, forgotten: this.#kept.forgotten }
  }

  /** What a publish resolves with that was given `result`. */
  attachTo<Fate extends { readonly id: string; readonly outcome: string }>(
    published: Fate,
    { batcher, result: asked }: { batcher: { numbers: { stream: string } }; result?: ResultAsked | undefined },
    mark: Mark,
  ): Fate & WithResult {
    const isDuplicate = published.outcome === 'duplicate'
    const about = { stream: batcher.numbers.stream, jobId: published.id, isDuplicate, asked, mark }
    return { ...published, result: this.resultOf(about) }
  }

  /** The `result` of a publish. */
  resultOf(published: Published): (options?: ResultWaitOptions) => Promise<unknown> {
    const { stream, jobId, isDuplicate, asked, mark } = published
    let isFirst = true
    // Not async: a wrong option is a rejection all the same.
    return (options) => {
      try {
        const { timeoutMs, signal } = checkWait(options)
        const group = asked?.group
        const isUnheard = isFirst && !isDuplicate && mark.forgotten === this.#kept.forgotten
        const isSure = isUnheard && mark.isRead
        isFirst = false
        const about = { stream, jobId, group, isKnown: !isDuplicate, isTold: isUnheard || group !== undefined }
        return waitFor(about, { timeoutMs, signal }, (wait) => this.#begin(wait, isSure))
      } catch (error) {
        return Promise.reject(error instanceof Error ? error : new Error(String(error)))
      }
    }
  }

  /** Nobody is told anything any more: who waits is told that. */
  close(): void {
    this.#isClosed = true
    this.#reader?.close()
    for (const wait of this.#all()) wait.fail(closedWhileWaiting(wait))
  }

  #begin(wait: ResultWait, isSure: boolean): () => void {
    const job = nameOf(wait)
    const kept = wait.isTold ? this.#kept.get(job) : undefined
    if (kept?.body !== undefined && isWanted(kept, wait)) {
      this.#kept.delete(job)
      queueMicrotask(() => wait.settle(kept))
      return () => {}
    }
    if (this.#isClosed) {
      queueMicrotask(() => wait.fail(closedWhileWaiting(wait)))
      return () => {}
    }
    const waits = this.#waits.get(job) ?? new Set()
    this.#waits.set(job, waits.add(wait))
    this.#reader ??= this.#open()
    this.#reader.join(wait.stream)
    this.#timer ??= setInterval(() => this.#look(), LOOK_MS)
    if (!isSure || kept !== undefined) this.#lookUp(wait)
    return () => this.#leave(job, wait)
  }

  #leave(job: string, wait: ResultWait): void {
    const waits = this.#waits.get(job)
    if (waits?.delete(wait) !== true) return
    this.#toLookUp.delete(wait)
    this.#reader?.leave()
    if (waits.size === 0) this.#waits.delete(job)
    if (this.#waits.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #open(): ReplyReader {
    return new ReplyReader({
      ...this.#deps,
      producerId: this.id,
      onReply: (reply) => this.#replied(reply),
      onMissed: () => {
        for (const wait of this.#all()) this.#lookUp(wait)
      },
    })
  }

  #replied({ stream, jobId, text }: ReplyTold): void {
    const answer = answerOf(text)
    if (answer === undefined) return
    const job = nameOf({ stream, jobId })
    const waits = this.#waits.get(job)
    if (waits === undefined) return this.#kept.add(job, answer)
    for (const wait of waits) {
      if (!isWanted(answer, wait)) continue
      if (answer.body === undefined || !wait.isTold) this.#lookUp(wait)
      else wait.settle(answer)
    }
  }

  /** The net below the replies. */
  #look(): void {
    this.#looks += 1
    const isAll = this.#looks % LOOKS === 0 || this.#reader?.isFailing === true
    for (const wait of this.#all()) if (isAll || !wait.isKnown) this.#lookUp(wait)
  }

  #lookUp(wait: ResultWait): void {
    this.#toLookUp.add(wait)
    if (this.#looking) return
    this.#looking = true
    this.#deps.commands.hold(true)
    setImmediate(() => void this.#lookUpAll())
  }

  /** What cannot be looked up now is looked for again with the next look. */
  async #lookUpAll(): Promise<void> {
    try {
      await this.#deps.commands.ready(LOOK_MS)
      for (let first = this.#first(); first !== undefined; first = this.#first()) {
        const { stream } = first
        const batch = this.#take(stream)
        const told = await readAnswers(this.#deps.commands.client, stream, batch)
        for (const wait of batch.slice(told.length)) this.#toLookUp.add(wait)
        told.forEach(({ text, isAsked }, at) => this.#found(batch[at] as ResultWait, answerOf(text), isAsked))
      }
    } catch (error) {
      this.#deps.commands.fault(error)
      this.#toLookUp.clear()
      this.#deps.logger.debug({ fault: faultText(error) }, 'cannot look up results now; they are looked for again')
    } finally {
      // In the same turn as the last look at what is left: whoever asks again once its result came would be passed over.
      this.#looking = false
      this.#deps.commands.hold(false)
    }
  }

  /** Those of one call. Not all of them are looked through: with 100 000 that would be done 500 times. */
  #take(stream: string): ResultWait[] {
    const taken: ResultWait[] = []
    for (const wait of this.#toLookUp) {
      if (wait.stream !== stream) continue
      taken.push(wait)
      this.#toLookUp.delete(wait)
      if (taken.length === READ_JOBS) break
    }
    return taken
  }

  #first(): ResultWait | undefined {
    return this.#toLookUp.values().next().value
  }

  #found(wait: ResultWait, answer: Answer | undefined, isAsked: boolean | undefined): void {
    if (answer?.body !== undefined) wait.settle(answer)
    else if (isAsked === false && !wait.isKnown) wait.fail(notAsked(wait))
  }

  #all(): ResultWait[] {
    return [...this.#waits.values()].flatMap((waits) => [...waits])
  }
}

function nameOf({ stream, jobId }: { stream: string; jobId: string }): string {
  return `${jobId} ${stream}`
}

/** A job that ended before any group had it has ended for each of them. */
function isWanted({ group }: Answer, wait: ResultWait): boolean {
  return wait.group === undefined || group === null || group === wait.group
}
