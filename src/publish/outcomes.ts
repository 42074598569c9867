import { messageOf, type PublishError } from '../errors.ts'
import type { Events } from '../events.ts'
import type { Logger } from '../logger.ts'
import type { ProducerNumbers } from '../metrics/producer-numbers.ts'
import type { BufferRules } from '../producer-options.ts'
import type { Durability, ReplicaDurability } from './durability.ts'
import type { ProducerEventPayloads } from '../producer-events.ts'
import { QuietWarnings } from '../quiet-warnings.ts'
import { fateOf } from '../redis/publishing.ts'
import { jobNameOf, type Outgoing, type Settled } from './outgoing.ts'
import { toShed, toUnpublished } from './unpublished.ts'

/** A publish that succeeded: the job is in Redis. */
export interface PublishedJob {
  /** The job's id; it stays the same through everything that happens to the job. */
  readonly id: string
  /**
   * `added`: it is in the stream. `scheduled`: it waits for its time. `duplicate`: its idempotency token had a job already, or
   * another one holds its uniqueness key; this is the id of that one, and nothing was appended. `replaced`: it is there in the
   * place of a job that had its uniqueness key: that one, with the new payload, or a new job, for which `replacedId` gave way.
   */
  readonly outcome: 'added' | 'scheduled' | 'duplicate' | 'replaced'
  /** The job that is cancelled in favour of this one. */
  readonly replacedId?: string
}

/** The same, of a job that replicas shall have. */
export interface ReplicatedJob extends PublishedJob {
  /** How many replicas are known to have it. */
  readonly replicas: number
  /** Whether these are as many as were asked for. If not, the job is in Redis all the same: do not publish it again. */
  readonly isReplicated: boolean
}

/** A publish that is in the buffer of the producer. An event tells what becomes of it. */
export interface BufferedJob {
  /** What `job:published` and `job:unpublished` call it. */
  readonly ref: string
  readonly outcome: 'buffered'
}

/** What a publish resolves with, by its durability. */
export type PublishResult<Of extends Durability = 'redis'> = Of extends 'buffered'
  ? BufferedJob
  : Of extends ReplicaDurability
    ? ReplicatedJob
    : PublishedJob

export function resultOf(answer: string, item: Outgoing, replicas: number): PublishedJob | ReplicatedJob {
  const fate = fateOf(answer)
  if (item.replicas === undefined) return fate
  return { ...fate, replicas, isReplicated: replicas >= item.replicas.replicas }
}

/** What is to be done with the jobs of one stream once it is known what became of them. */
export class Outcomes {
  readonly #numbers: ProducerNumbers
  readonly #events: Events<ProducerEventPayloads>
  readonly #logger: Logger
  readonly #rules: BufferRules
  readonly #givenUp = new QuietWarnings()

  constructor(
    numbers: ProducerNumbers,
    { events, logger, rules }: { events: Events<ProducerEventPayloads>; logger: Logger; rules: BufferRules },
  ) {
    this.#numbers = numbers
    this.#events = events
    this.#logger = logger
    this.#rules = rules
  }

  /** @param nowMs by the monotonic clock. */
  resolve(item: Outgoing, answer: string, replicated: number, nowMs: number): void {
    const { numbers, settled, replicas } = item
    if (answer.startsWith('=')) numbers.duplicate += 1
    else if (answer.startsWith('~')) numbers.replaced += 1
    else numbers.ok += 1
    if (replicas !== undefined && replicated < replicas.replicas) this.#numbers.unreplicated += 1
    this.#numbers.duration.observe((nowMs - item.publishedAtMs) / 1000)
    item.settled = undefined
    settled?.(answer, undefined, item, replicated)
  }

  reject(item: Outgoing, error: PublishError): void {
    const { numbers, settled } = item
    numbers[error.published === 'no' ? 'rejected' : 'unknown'] += 1
    item.settled = undefined
    settled?.(undefined, error, item, 0)
  }

  /** Of a buffered job that a later process publishes: what became of it is not known yet, and not counted. */
  spill(item: Outgoing, error: PublishError): void {
    item.settled = undefined
    this.giveUp(item, error, true)
  }

  /** Hands a job to `onShed`. What that throws is no fault of the publish that the job gave way to. */
  shed(item: Outgoing, error: PublishError): void {
    item.numbers.shed += 1
    try {
      this.#rules.onShed?.(toShed(item, this.#numbers.stream, error))
    } catch (thrown) {
      const about = { job: jobNameOf(item), ref: item.ref, error: messageOf(thrown) }
      this.#logger.error(about, 'onShed failed; the job that it was given is in no other hands')
    }
  }

  /** For a job whose publish has resolved already. */
  readonly settleBuffered: Settled = (answer, error, item) => {
    const { ref = '' } = item
    const stream = this.#numbers.stream
    if (answer !== undefined) {
      if (this.#events.has('job:published')) {
        this.#events.emit('job:published', { stream, job: jobNameOf(item), ref, ...fateOf(answer) })
      }
    } else if (error !== undefined && error.code !== 'ERR_PUBLISH_SHED') this.giveUp(item, error, false)
  }

  /** Tells of a buffered job that was not published. Without a listener its payload is gone, which the log then says. */
  giveUp(item: Outgoing, error: PublishError, spilled: boolean): void {
    const { published } = error
    const unsaid = spilled ? undefined : this.#givenUp.due(published)
    if (unsaid !== undefined) {
      const isHeard = this.#events.has('job:unpublished')
      const about = { job: jobNameOf(item), ref: item.ref, jobs: unsaid + 1, published, isHeard, error: error.message }
      this.#logger.error(about, 'a buffered job was not published')
    }
    if (!this.#events.has('job:unpublished')) return
    this.#events.emit('job:unpublished', toUnpublished(item, { stream: this.#numbers.stream, error, spilled }))
  }
}
