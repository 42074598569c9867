import { monotonicMs } from './clock.ts'
import type { WorkerCounts } from './counts.ts'
import { failureText, provenanceOf, waitText, type Dead, type Wait } from './decide.ts'
import type { Delivery } from './delivery.ts'
import { FatalError, messageOf } from './errors.ts'
import { jobEventOf, type Events } from './events.ts'
import type { Holdings } from './holdings.ts'
import type { KnownJobs } from './known-jobs.ts'
import type { Logger } from './logger.ts'
import type { WorkerNumbers } from './metrics/worker-numbers.ts'
import type { OutcomeWriter } from './outcome-writer.ts'
import { QuietWarnings } from './quiet-warnings.ts'
import type { Connection } from './redis/connection.ts'
import { SOURCES, type Member, type Source } from './redis/member.ts'
import { settleOthers, type Fate, type FencedOutcome } from './redis/settling.ts'
import type { ServerClock } from './server-clock.ts'

/**
 * Writes the outcomes that are no completions: scheduled for another attempt or to wait at no cost, dead, cancelled. In batches, several on their
 * way at once, so that a batch which Redis refuses holds up nothing else. What Redis refuses for good is divided until the
 * one outcome that it refuses stands alone.
 */

/** Outcomes per call of the script; each may bring 5 KB of provenance. */
const BATCH = 100
const MOST_BATCHES = 50

/** What becomes of a delivery whose run did not complete. */
export type Failed =
  | { readonly kind: 'retry'; readonly error: unknown; readonly delayMs: number; readonly givesTurn?: boolean }
  | Pick<Dead, 'kind' | 'reason' | 'error' | 'unlessKnown'>
  | Wait
  | { readonly kind: 'cancelled' }

interface Waiting {
  readonly delivery: Delivery
  readonly outcome: Failed
}

export interface FencedSettlerDeps {
  readonly connection: Connection
  readonly member: Member
  readonly holdings: Holdings
  readonly counts: WorkerCounts
  readonly numbers: WorkerNumbers
  readonly clock: ServerClock
  readonly logger: Logger
  readonly events: Events
  readonly writer: OutcomeWriter
  readonly knownJobs: KnownJobs
  readonly stopped: AbortSignal
  /** So many outcomes are settled, or given up. */
  readonly onSettled: (count: number) => void
  /** A retry is due then, by the server's time. */
  readonly onScheduled: (dueMs: number) => void
  /** A job of a key is here no more. */
  readonly onTurnEnded: (delivery: Delivery) => void
  /** The job has reached its end. */
  readonly onFinished: (delivery: Delivery, how: 'dead' | 'cancelled', serverMs: number) => void
}

export class FencedSettler {
  readonly #deps: FencedSettlerDeps
  readonly #waiting: [Waiting[], Waiting[]] = [[], []]
  readonly #warnings = new QuietWarnings()
  readonly #waitWarnings = new QuietWarnings()
  #batches = 0
  #isGathering = false

  constructor(deps: FencedSettlerDeps) {
    this.#deps = deps
  }

  /** Takes an outcome; what comes in this turn of the event loop and the next travels together. */
  push(delivery: Delivery, outcome: Failed): void {
    this.#waiting[delivery.source].push({ delivery, outcome })
    if (this.#isGathering || this.#batches >= MOST_BATCHES) return
    this.#isGathering = true
    setImmediate(() =>
      setImmediate(() => {
        this.#isGathering = false
        this.flush()
      }),
    )
  }

  /** Sends what waits, as far as there is room; `onSettled` tells when it is done. */
  flush(): void {
    for (const source of SOURCES) {
      while (this.#waiting[source].length > 0 && this.#batches < MOST_BATCHES && !this.#deps.stopped.aborted) {
        const batch = this.#waiting[source].splice(0, BATCH)
        this.#batches += 1
        const isToAsk = batch.some(({ outcome }) => unlessKnown(outcome) !== undefined)
        const written = isToAsk
          ? this.#reconsidered(batch).then((left) => this.#writeAll(source, left))
          : this.#writeAll(source, batch)
        void written
          .catch((error: unknown) => this.#gaveUp(batch, error))
          .finally(() => {
            this.#batches -= 1
            this.flush()
          })
      }
    }
  }

  /** What would be dead as a job that nobody knows waits on where another worker of the group does, or where that cannot be told. */
  async #reconsidered(batch: readonly Waiting[]): Promise<Waiting[]> {
    const known = await this.#deps.knownJobs.elsewhere()
    return batch.map(({ delivery, outcome }) => {
      const unless = unlessKnown(outcome)
      const isLeft = unless === undefined || (known !== undefined && (known.get(delivery.name) ?? 0) < unless.version)
      return { delivery, outcome: isLeft ? outcome : unless.wait }
    })
  }

  /** Never expected. What cannot be written must not end the process, nor be held for ever: when its lease is over it runs again. */
  #gaveUp(batch: readonly Waiting[], error: unknown): void {
    this.#deps.logger.error({ outcomes: batch.length, fault: messageOf(error) }, 'outcomes could not be settled')
    const held = batch.filter(({ delivery }) => this.#deps.holdings.holds(delivery))
    for (const { delivery } of held) this.#deps.holdings.release(delivery)
    this.#deps.onSettled(held.length)
  }

  async #writeAll(source: Source, batch: readonly Waiting[], wasRefused = false): Promise<void> {
    let left = batch
    while (left.length > 0) {
      const { connection, member, writer, clock } = this.#deps
      const outcomes = left.map((one) => this.#asWritten(one))
      const deliveries = left.map(({ delivery }) => delivery)
      const about = { what: 'settle failed jobs', operation: 'settle', deliveries, mayDivide: left.length > 1 } as const
      const onWoken = () => this.#deps.onScheduled(clock.at(monotonicMs()))
      const written = await writer.write(about, (resent) =>
        settleOthers(connection.client, member, { source, outcomes, resent: resent || wasRefused, onWoken }),
      )
      if (written.kind === 'stopped') return
      if (written.kind === 'refused') {
        const half = Math.ceil(left.length / 2)
        const halves = [left.slice(0, half), left.slice(half)]
        await Promise.all(halves.map((part) => this.#writeAll(source, part, true)))
        return
      }
      // A group that is gone has nothing pending: made again at its floor, it delivers what is left.
      const fates = written.kind === 'answered' ? written.reply : left.map((): Fate => 'stale')
      fates.forEach((fate, at) => this.#settled(left[at] as Waiting, fate))
      left = left.slice(fates.length)
    }
  }

  #asWritten({ delivery, outcome }: Waiting): FencedOutcome {
    const { entryId, id, deliveries, attempt, firstFailedMs, traced } = delivery
    switch (outcome.kind) {
      case 'retry': {
        const { delayMs, error, givesTurn } = outcome
        const failed = { attempt, firstFailedMs, error: failureText(error), trace: traced?.context?.traceparent }
        return { kind: 'retry', entryId, id, deliveries, delayMs, givesTurn, ...failed }
      }
      case 'wait': {
        const { delayMs, why, fields = [] } = outcome
        return { kind: 'wait', entryId, id, deliveries, delayMs, why: waitText(why), fields }
      }
      case 'dead': {
        const provenance = provenanceOf(outcome, delivery, this.#deps.member.consumer)
        return { kind: 'dead', entryId, id, deliveries, provenance }
      }
      case 'cancelled':
        return { kind: 'cancelled', entryId, id, deliveries }
    }
  }

  #settled(waiting: Waiting, fate: Fate): void {
    const { delivery, outcome } = waiting
    const { holdings, counts, numbers, logger } = this.#deps
    if (fate === 'wide') {
      const error = new FatalError('its entry has too many fields to be scheduled again', { cause: errorOf(outcome) })
      return this.push(delivery, { kind: 'dead', reason: 'fatal', error })
    }
    numbers.acks[fate === 'stale' || fate === 'gone' || fate === 'twin' ? 'lost' : 'ok'] += 1
    switch (fate) {
      case 'gone':
        counts.gone += 1
        break
      case 'stale':
        counts.late += 1
        break
      case 'twin':
        logger.warn(
          jobEventOf(delivery),
          'another entry of the same job id is scheduled already, and the two do not fit together: this one stays pending ' +
            'until its lease is over, and is not charged',
        )
        break
      case 'cancelled':
        this.#cancelled(delivery)
        break
      case 'retried':
      case 'waits':
      case 'dead':
      case 'done':
        this.#asIntended(waiting)
    }
    holdings.release(delivery)
    if (delivery.extra?.key !== undefined) this.#deps.onTurnEnded(delivery)
    this.#deps.onSettled(1)
  }

  #asIntended({ delivery, outcome }: Waiting): void {
    switch (outcome.kind) {
      case 'retry':
        return this.#retried(delivery, outcome)
      case 'wait':
        return this.#waits(delivery, outcome)
      case 'dead':
        return this.#dead(delivery, outcome)
      case 'cancelled':
        return this.#cancelled(delivery)
    }
  }

  #retried(delivery: Delivery, { delayMs, error }: Failed & { kind: 'retry' }): void {
    const { counts, clock, logger, events } = this.#deps
    counts.retried += 1
    if (delivery.numbers !== undefined) delivery.numbers.retried += 1
    const dueMs = Math.round(clock.at(monotonicMs()) + delayMs)
    this.#deps.onScheduled(dueMs)
    if (events.has('job:retried')) events.emit('job:retried', { ...jobEventOf(delivery), error, delayMs, dueMs })
    const unsaid = this.#warnings.due(delivery.name)
    if (unsaid === undefined) return
    const also = unsaid === 0 ? {} : { unsaid }
    const about = { ...jobEventOf(delivery), delayMs, error: messageOf(error), ...also }
    logger.warn(about, 'job failed; it is tried again')
  }

  #waits(delivery: Delivery, { delayMs, why, reason }: Wait): void {
    const { counts, clock, logger, events } = this.#deps
    counts.waited += 1
    const dueMs = Math.round(clock.at(monotonicMs()) + delayMs)
    this.#deps.onScheduled(dueMs)
    if (events.has('job:waiting')) events.emit('job:waiting', { ...jobEventOf(delivery), why, delayMs, dueMs })
    // One that keeps to a limit is as it should be; one that nobody knows may be a mistake.
    const unsaid = reason === undefined ? undefined : this.#waitWarnings.due(delivery.name)
    if (unsaid === undefined) return
    const also = unsaid === 0 ? {} : { unsaid }
    const about = { ...jobEventOf(delivery), delayMs, why, ...also }
    logger.warn(about, 'job cannot be run here: it waits at no cost for a worker that can')
  }

  #dead(delivery: Delivery, { reason, error }: Failed & { kind: 'dead' }): void {
    const { counts, numbers, clock, logger } = this.#deps
    counts.dead += 1
    numbers.dead[reason] += 1
    this.#deps.onFinished(delivery, 'dead', clock.at(monotonicMs()))
    const about = jobEventOf(delivery)
    logger.warn({ ...about, reason, error: messageOf(error) }, 'job is dead')
    this.#deps.events.emit('job:dead', { ...about, reason, error })
  }

  #cancelled(delivery: Delivery): void {
    const { counts, clock, logger } = this.#deps
    counts.cancelled += 1
    this.#deps.onFinished(delivery, 'cancelled', clock.at(monotonicMs()))
    const about = jobEventOf(delivery)
    logger.info(about, 'job was cancelled')
    this.#deps.events.emit('job:cancelled', about)
  }
}

function unlessKnown(outcome: Failed): Dead['unlessKnown'] {
  return outcome.kind === 'dead' ? outcome.unlessKnown : undefined
}

function errorOf(outcome: Failed): unknown {
  return 'error' in outcome ? outcome.error : undefined
}
