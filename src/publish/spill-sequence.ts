import { append, isRefused, takeOver, type Item } from '../redis/publishing.ts'
import type { Ending, Publishing } from './spill-batch.ts'
import type { PlannedSequence } from './spill-book.ts'
import { lineOf, type SpillSequence } from './spill-format.ts'

/**
 * Publishing what is in a spill file, once, whoever is killed in the middle of it and however often it is begun.
 *
 * What a stream's jobs were published under is a sequence of the file's own, in the stream's slot, and its mark in Redis says
 * how many lines are in: written with the batch, in one step. Whoever goes on takes the sequence over, and gets the mark;
 * batches of whoever had it before are stale from there on. So two processes that find the same file double nothing either:
 * the one that is stale leaves it to the other.
 *
 * The line of the sequence in the file says whether it was ever begun. Only when Redis has confirmed that, and before the
 * first batch, is it written: a missing key then means that Redis has forgotten the sequence and its jobs, or kept the jobs
 * and lost the key to its time. Who was there all the while (its name is still in the line, and it has seen each answer)
 * knows which lines were never sent, and goes on with them under the next generation; anybody else can only say that he
 * does not know.
 */

/** Entries and bytes that one script call may carry; a single larger job goes alone. */
const BATCH_JOBS = 500
const BATCH_BYTES = 1024 * 1024

/** A line that is to be sent. */
interface Sendable {
  readonly offset: number
  /** Lines up to this one, it included. */
  readonly at: number
  readonly item: Item
}

/** Publishes the jobs of one stream that waited, behind whatever of them is in already. */
export class SequenceRun {
  readonly #publishing: Publishing
  readonly #planned: PlannedSequence
  /** Lines that are certainly in, or not to be sent; undefined before it was taken over. */
  #at: number | undefined
  /** Lines up to here may be in: a batch without an answer. */
  #sentTo = 0

  constructor(publishing: Publishing, planned: PlannedSequence) {
    this.#publishing = publishing
    this.#planned = planned
  }

  async run(): Promise<Ending> {
    const { book, asking } = this.#publishing
    const { offset } = this.#planned
    for (let tries = 0; ; tries++) {
      if (tries > 0) await asking.pause(tries)
      const opened = await this.#open()
      if (opened === 'taken' || opened === 'done') return opened
      const ending = await this.#publish(opened)
      if (ending === 'again') continue
      if (ending === 'taken') return 'taken'
      const { sequence } = await book.sequenceAt(offset)
      await book.writeSequence(offset, 'done', sequence)
      return 'done'
    }
  }

  /** Takes the sequence over; from here on nobody else sends a batch of it. */
  async #open(): Promise<Ending | Opened> {
    const { book, asking, owner } = this.#publishing
    const { offset, stream } = this.#planned
    const before = await book.sequenceAt(offset)
    if (before.state === 'done' || before.state === 'unknown') return 'done'
    const producerId = idOf(book.id, before.sequence)
    const isNew = before.state === 'todo'
    const { answer: taken } = await asking.ask(() => takeOver(asking.connection.client, stream, { producerId, isNew }))
    const { state, sequence } = await book.sequenceAt(offset)
    if (state === 'done' || state === 'unknown') return 'done'
    if (sequence.generation !== before.sequence.generation) return 'taken'
    if (taken === undefined) return this.#forgotten(sequence)
    // Made just now, though somebody has begun it since we looked: it was forgotten in between. He knows how far he was.
    if (isNew && state !== 'todo' && taken.seq === 0) return 'taken'
    await book.writeSequence(offset, 'begun', { ...sequence, owner })
    this.#at = taken.mark === '' ? sequence.from : Number(taken.mark)
    this.#sentTo = this.#at
    return { producerId, seq: taken.seq, at: this.#at }
  }

  async #forgotten(sequence: SpillSequence): Promise<Ending | Opened> {
    const { book, asking, owner, logger } = this.#publishing
    const { offset, stream, jobs } = this.#planned
    const at = this.#at
    if (at === undefined || sequence.owner !== owner) {
      await book.writeSequence(offset, 'unknown', sequence)
      logger.warn({ stream, jobs: jobs - sequence.from }, 'Redis no longer knows which of the spilled jobs it has')
      return 'done'
    }
    // Up to `at` each answer was seen; behind `sentTo` nothing was ever sent.
    const unknown = await this.#offsetsOf(at, this.#sentTo)
    await book.writeStates(unknown, 'unknown')
    logger.warn({ stream, jobs: unknown.length }, 'Redis has forgotten the jobs that were recovered; the others follow')
    const next = { ...sequence, generation: sequence.generation + 1, from: this.#sentTo }
    const producerId = idOf(book.id, next)
    const { answer } = await asking.ask(() => takeOver(asking.connection.client, stream, { producerId, isNew: true }))
    if (answer === undefined || answer.mark !== '') return 'taken'
    await book.writeSequence(offset, 'begun', next)
    this.#at = next.from
    return { producerId, seq: answer.seq, at: next.from }
  }

  /** `again`: Redis has lost some of it, and says after another take-over from where on. */
  async #publish(opened: Opened): Promise<Ending | 'again'> {
    const { jobsOffset, jobs, stream } = this.#planned
    let [line, bytes, batch]: [number, number, Sendable[]] = [0, 0, []]
    for await (const raw of this.#publishing.book.jobLines(jobsOffset, jobs)) {
      line += 1
      if (line <= opened.at) continue
      const read = lineOf(raw.bytes)
      // What cannot be read, or is not to be sent, is passed over, and counted at the end.
      if (read.kind !== 'job' || read.state !== 'todo' || read.stream !== stream) continue
      const size = raw.bytes.length
      if (batch.length === BATCH_JOBS || (batch.length > 0 && bytes + size > BATCH_BYTES)) {
        const ending = await this.#sendAll(opened, batch)
        if (ending !== 'done') return ending
        ;[batch, bytes] = [[], 0]
      }
      batch.push({ offset: raw.offset, at: line, item: read.item })
      bytes += size
    }
    return this.#sendAll(opened, batch)
  }

  /** In smaller parts where the stream's bound has no room for all of it. */
  async #sendAll(opened: Opened, batch: readonly Sendable[]): Promise<Ending | 'again'> {
    let [from, size] = [0, batch.length]
    for (let tries = 0; from < batch.length;) {
      const part = batch.slice(from, from + size)
      const ending = this.#publishing.isHeld() ? { room: 0 } : await this.#send(opened, part)
      if (typeof ending === 'number') {
        from += ending
        size = batch.length - from
        tries = 0
      } else if (typeof ending === 'string') {
        return ending
      } else {
        size = ending.room > 0 ? Math.min(part.length, ending.room) : part.length
        if (ending.room <= 0) await this.#publishing.asking.pause(tries++)
      }
    }
    return 'done'
  }

  /**
   * Sends a batch until there is an answer: of how many, since it ends at the first one that is refused. `room`: the stream is
   * full but for that.
   */
  async #send(
    opened: Opened,
    part: readonly Sendable[],
  ): Promise<Ending | 'again' | number | { readonly room: number }> {
    const { asking, book, logger } = this.#publishing
    const at = part.at(-1)?.at ?? 0
    const { producerId, seq } = opened
    const items = part.map(({ item }) => item)
    this.#sentTo = at
    const { answer, mayBeDone } = await asking.ask((mayBeDone) => {
      const positions = part.map((one) => String(one.at))
      const batch = { producerId, seq: seq + 1, items, positions, isChecked: !mayBeDone }
      return append(asking.connection.client, this.#planned.stream, batch)
    })
    switch (answer.kind) {
      case 'done':
        // Who goes on after a crash begins with it, as long as this is not written.
        await book.writeStates(refusedOf(part.slice(0, answer.ids.length), answer.ids), 'refused')
        this.#at = this.#sentTo = part[answer.ids.length - 1]?.at ?? at
        opened.seq += 1
        return answer.ids.length
      case 'full':
        return { room: answer.bound - answer.backlog }
      case 'stale':
        return 'taken'
      case 'behind':
        logger.warn(
          { stream: this.#planned.stream, stored: answer.stored, sent: seq + 1 },
          'Redis has lost batches that it had confirmed (a failover, or a restart without persistence)',
        )
        if (!mayBeDone) this.#sentTo = this.#at ?? at
        return 'again'
      case 'forgotten':
        // Redis has only now forgotten it, and says so: nothing of this batch was executed.
        if (!mayBeDone) this.#sentTo = this.#at ?? at
        return 'again'
    }
  }

  async #offsetsOf(from: number, to: number): Promise<number[]> {
    const { book } = this.#publishing
    const { jobsOffset, jobs } = this.#planned
    const offsets: number[] = []
    let line = 0
    for await (const raw of book.jobLines(jobsOffset, Math.min(jobs, to))) {
      if (line >= from && lineOf(raw.bytes).kind === 'job') offsets.push(raw.offset)
      line += 1
    }
    return offsets
  }
}

interface Opened {
  readonly producerId: string
  /** Of the last batch that was answered. */
  seq: number
  /** Lines before it. */
  readonly at: number
}

function idOf(id: string, { generation }: SpillSequence): string {
  return generation === 0 ? id : `${id}.${generation}`
}

function refusedOf(batch: readonly Sendable[], ids: readonly (string | undefined)[]): number[] {
  return batch.filter((_, at) => isRefused(ids[at])).map(({ offset }) => offset)
}
