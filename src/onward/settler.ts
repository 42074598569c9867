import type { Delivery } from '../delivery.ts'
import type { PublishError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { OutcomeWriter } from '../outcome-writer.ts'
import type { Connection } from '../redis/connection.ts'
import { faultText } from '../redis/faults.ts'
import { SOURCES, type Member, type Source } from '../redis/member.ts'
import { settleAndPublish, type PublishingFate } from '../redis/onward.ts'
import { listStream } from '../redis/stream.ts'
import { endOf } from '../run-end.ts'
import { FarPublisher, type Sent } from './far-publisher.ts'
import { published, refused, refusedError, type OnwardPublish } from './onward.ts'

/**
 * Settles the runs that have completed and publish. First goes what lies in other slots, under tokens; when Redis has all of it,
 * the run is acked, in one step with the append of what lies in its own slot. Where it stands when its worker dies:
 *
 *     completed ──▶ far publishes (tokens) ──▶ near publishes + ack, one step ──▶ settled
 *
 * Before the last arrow the job is pending: it runs again, the far publishes of its second run meet their tokens, and of the
 * near ones there are none yet. While Redis is away or refuses, the outcome and its lease are kept, as for any completion.
 *
 * A run that cannot publish, since a target holds another type of key or may not be written, is given back as failed.
 */
export interface OnwardSettlerDeps {
  readonly connection: Connection
  readonly member: Member
  readonly logger: Logger
  readonly writer: OutcomeWriter
  /** For what is published to other slots, which is no settlement of its own to be traced. */
  readonly farWriter: OutcomeWriter
  readonly stopped: AbortSignal
  /** All that it publishes is in Redis, and nothing is left but to ack it. */
  readonly onPublished: (delivery: Delivery) => void
  /** They are settled, but for so many that were before. `isWoken`: a job that waited for its turn is due now. */
  readonly onSettled: (settled: readonly Delivery[], told: { readonly late: number; readonly isWoken?: true }) => void
  /** It has to fail, and comes back as any failure. */
  readonly onRefused: (delivery: Delivery, error: PublishError) => void
  /** Another worker has it: it is no matter of this one any more. */
  readonly onLost: (delivery: Delivery) => void
}

/** What a script call may touch beyond one job. */
const MOST_ENTRIES = 500
const MOST_BYTES = 1024 * 1024
const MOST_LISTED = 10_000

export class OnwardSettler {
  readonly #deps: OnwardSettlerDeps
  readonly #far: Delivery[] = []
  readonly #near: [Delivery[], Delivery[]] = [[], []]
  readonly #farPublisher: FarPublisher
  readonly #listed = new Set<string>()
  #isPublishing = false
  #isSettling = false

  constructor(deps: OnwardSettlerDeps) {
    this.#deps = deps
    this.#farPublisher = new FarPublisher(deps.connection, deps.farWriter)
  }

  push(delivery: Delivery): void {
    if (farOf(delivery).length === 0) return this.#pushNear(delivery)
    this.#far.push(delivery)
    this.#wakeFar()
  }

  #pushNear(delivery: Delivery): void {
    this.#near[delivery.source].push(delivery)
    this.#wakeNear()
  }

  #wakeFar(): void {
    if (this.#isPublishing) return
    this.#isPublishing = true
    void this.#gathered(() => this.#publishAll()).finally(() => {
      this.#isPublishing = false
      if (this.#far.length > 0 && !this.#deps.stopped.aborted) this.#wakeFar()
    })
  }

  #wakeNear(): void {
    if (this.#isSettling) return
    this.#isSettling = true
    void this.#gathered(() => this.#settleAll()).finally(() => {
      this.#isSettling = false
      if (this.#near.some(({ length }) => length > 0) && !this.#deps.stopped.aborted) this.#wakeNear()
    })
  }

  /** What ends in one turn of the event loop goes together. */
  async #gathered(work: () => Promise<void>): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
    await work().catch((error: unknown) => {
      // Never expected; the leases of what is held let it run again.
      this.#deps.logger.error({ fault: faultText(error) }, 'what completed jobs publish could not be published')
    })
  }

  async #publishAll(): Promise<void> {
    while (this.#far.length > 0 && !this.#deps.stopped.aborted) {
      const batch = takeBatch(this.#far, farOf)
      const lost = batch.filter(({ ended }) => endOf(ended) === 'lost')
      for (const delivery of lost) {
        delivery.onward?.drop()
        this.#deps.onLost(delivery)
      }
      await this.#publishBatch(batch.filter((delivery) => !lost.includes(delivery)))
    }
  }

  async #publishBatch(batch: readonly Delivery[]): Promise<void> {
    const byStream = new Map<string, Sent[]>()
    for (const delivery of batch) {
      for (const publish of farOf(delivery)) {
        const { stream } = publish.target
        const sent = byStream.get(stream) ?? []
        if (sent.push({ delivery, publish }) === 1) byStream.set(stream, sent)
      }
    }
    const told = await Promise.all([...byStream].map(([stream, some]) => this.#farPublisher.publish(stream, some)))
    if (told.includes(undefined)) return
    this.#list(byStream.keys())
    for (const delivery of batch) {
      const error = told.map((failed) => failed?.get(delivery)).find((one) => one !== undefined)
      if (error !== undefined) this.#refuse(delivery, nearOf(delivery), error)
      else if (nearOf(delivery).length > 0) this.#pushNear(delivery)
      else this.#deps.onPublished(delivery)
    }
  }

  async #settleAll(): Promise<void> {
    for (const source of SOURCES) {
      while (this.#near[source].length > 0 && !this.#deps.stopped.aborted) {
        await this.#settle(source, takeBatch(this.#near[source], nearOf), false)
      }
    }
  }

  async #settle(source: Source, batch: readonly Delivery[], wasRefused: boolean): Promise<void> {
    const { connection, member, writer, onSettled } = this.#deps
    const done = batch.map((delivery) => {
      const publishing = nearOf(delivery).map(({ item, target: { stream } }) => ({ item, stream }))
      const { entryId, id, extra, answer, hasNotes } = delivery
      return { entryId, id, extra, answer, hasNotes, publishing }
    })
    let fault: unknown
    const about = { what: 'settle jobs that publish', operation: 'ack', deliveries: batch, mayDivide: true } as const
    const written = await writer.write(about, async (resent) => {
      try {
        return await settleAndPublish(connection.client, member, { source, done, resent: resent || wasRefused })
      } catch (error) {
        fault = error
        throw error
      }
    })
    if (written.kind === 'stopped') return
    if (written.kind === 'refused') return this.#divide(source, batch, fault)
    // A group that is gone has nothing pending, so nothing to settle: made again at its floor, it delivers what is left.
    const { fates, ...told } =
      written.kind === 'answered' ? written.reply : { late: 0, fates: batch.map((): PublishingFate => LATE) }
    const isResent = written.kind === 'answered' && (written.isResent || wasRefused)
    const settled = batch.filter((delivery, at) => this.#told(delivery, fates[at] ?? LATE, isResent))
    this.#list(done.flatMap(({ publishing }) => publishing.map(({ stream }) => stream)))
    onSettled(settled, told)
  }

  /** Whether it is settled; by an earlier try whose answer was lost, if it looks late of one that was sent again. */
  #told(delivery: Delivery, fate: PublishingFate, isResent: boolean): boolean {
    const near = nearOf(delivery)
    switch (fate.kind) {
      case 'settled':
        for (const [at, publish] of near.entries()) published(publish, fate.ids[at])
        return true
      case 'late':
        if (isResent) for (const publish of near) published(publish, undefined)
        else delivery.onward?.drop()
        return true
      case 'left': {
        const error = refusedError(fate.stream, fate.why, 'ERR_PUBLISH_REFUSED')
        this.#refuse(delivery, near, error)
        return false
      }
    }
  }

  /** Redis will not do it, for one of them at least: until that one stands alone. */
  async #divide(source: Source, batch: readonly Delivery[], fault: unknown): Promise<void> {
    const [first, ...others] = batch
    if (first === undefined) return
    if (others.length === 0) {
      const stream = nearOf(first)[0]?.target.stream ?? ''
      const error = refusedError(stream, faultText(fault), 'ERR_PUBLISH_REFUSED', fault)
      return this.#refuse(first, nearOf(first), error)
    }
    const half = Math.ceil(batch.length / 2)
    await this.#settle(source, batch.slice(0, half), true)
    await this.#settle(source, batch.slice(half), true)
  }

  #refuse(delivery: Delivery, left: readonly OnwardPublish[], error: PublishError): void {
    for (const publish of left) refused(publish, error)
    this.#deps.onRefused(delivery, error)
  }

  /** Once each, as a producer does with the streams that it publishes to. */
  #list(streams: Iterable<string>): void {
    for (const stream of streams) {
      if (this.#listed.has(stream)) continue
      if (this.#listed.size >= MOST_LISTED) this.#listed.clear()
      this.#listed.add(stream)
      void listStream(this.#deps.connection.client, stream)
    }
  }
}

const LATE = { kind: 'late' } as const

function farOf({ onward }: Delivery): readonly OnwardPublish[] {
  return onward?.far ?? []
}

function nearOf({ onward }: Delivery): readonly OnwardPublish[] {
  return onward?.near ?? []
}

/** Takes as many as one call may bring, one at least. */
function takeBatch(from: Delivery[], publishesOf: (delivery: Delivery) => readonly OnwardPublish[]): Delivery[] {
  let [entries, bytes, count] = [0, 0, 0]
  for (const delivery of from) {
    const publishes = publishesOf(delivery)
    entries += publishes.length + 1
    bytes += delivery.answer?.body.length ?? 0
    for (const { item } of publishes) bytes += item.bytes
    if (count > 0 && (entries > MOST_ENTRIES || bytes > MOST_BYTES)) break
    count += 1
  }
  return from.splice(0, count)
}
