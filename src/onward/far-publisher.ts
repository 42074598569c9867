import { randomUUID } from 'node:crypto'
import type { Delivery } from '../delivery.ts'
import type { PublishError } from '../errors.ts'
import type { OutcomeWriter } from '../outcome-writer.ts'
import { refusalOf } from '../publish/refusals.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { append, isRefused, open } from '../redis/publishing.ts'
import { published, refused, refusedError, type OnwardPublish } from './onward.ts'

/** A publish on its way, and the run that it is of. */
export interface Sent {
  readonly delivery: Delivery
  readonly publish: OnwardPublish
}

/** The sequence under which batches go to one stream. */
interface Line {
  readonly producerId: string
  seq: number
}

const MOST_LINES = 1000

/**
 * Publishes what runs publish to other slots, under tokens. Each batch has a number, as those of a producer have, so that one
 * that is sent again appends nothing twice; and where Redis no longer knows the number, the tokens of its items do the same: a
 * new sequence is begun, and nobody has to ask what became of the old one.
 */
export class FarPublisher {
  readonly #connection: Connection
  readonly #writer: OutcomeWriter
  readonly #lines = new Map<string, Line>()

  constructor(connection: Connection, writer: OutcomeWriter) {
    this.#connection = connection
    this.#writer = writer
  }

  /** Of one stream, at most 500 entries. Tells which runs cannot publish; undefined if the worker has stopped before it was done. */
  async publish(stream: string, sent: readonly Sent[]): Promise<Map<Delivery, PublishError> | undefined> {
    let fault: unknown
    const items = sent.map(({ publish }) => publish.item)
    const deliveries = [...new Set(sent.map(({ delivery }) => delivery))]
    const what = 'publish what completed jobs publish'
    const about = { what, operation: 'settle', deliveries, mayDivide: true, mayBeElsewhere: true } as const
    const written = await this.#writer.write(about, async () => {
      try {
        return await this.#append(stream, items)
      } catch (error) {
        fault = error
        throw error
      }
    })
    if (written.kind === 'stopped') return undefined
    if (written.kind === 'answered') return this.#answered(stream, sent, written.reply)
    // It may have been executed under this number by an earlier try, whose answer was lost.
    this.#lines.delete(stream)
    if (sent.length > 1) {
      const half = Math.ceil(sent.length / 2)
      const first = await this.publish(stream, sent.slice(0, half))
      const second = first && (await this.publish(stream, sent.slice(half)))
      return second && new Map([...first, ...second])
    }
    const error = refusedError(stream, faultText(fault), 'ERR_PUBLISH_REFUSED', fault)
    return new Map(sent.map(({ delivery, publish }) => (refused(publish, error), [delivery, error])))
  }

  #answered(
    stream: string,
    sent: readonly Sent[],
    answers: readonly (string | undefined)[],
  ): Map<Delivery, PublishError> {
    const failed = new Map<Delivery, PublishError>()
    for (const [at, { delivery, publish }] of sent.entries()) {
      const answer = answers[at]
      if (!isRefused(answer)) {
        published(publish, answer)
        continue
      }
      const { why, code = 'ERR_PUBLISH_REFUSED', cause } = refusalOf(answer)
      const error = refusedError(stream, why, code, cause)
      refused(publish, error)
      failed.set(delivery, error)
    }
    return failed
  }

  async #append(stream: string, items: readonly OnwardPublish['item'][]): Promise<readonly (string | undefined)[]> {
    for (;;) {
      const line = await this.#line(stream)
      const answer = await append(this.#connection.client, stream, { ...line, seq: line.seq + 1, items })
      if (answer.kind === 'done') {
        line.seq += 1
        return answer.ids
      }
      this.#lines.delete(stream)
    }
  }

  async #line(stream: string): Promise<Line> {
    const known = this.#lines.get(stream)
    if (known !== undefined) return known
    const line = { producerId: randomUUID(), seq: 0 }
    await open(this.#connection.client, stream, line.producerId)
    if (this.#lines.size >= MOST_LINES) this.#lines.clear()
    this.#lines.set(stream, line)
    return line
  }
}
