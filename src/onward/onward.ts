import { PublishError } from '../errors.ts'
import type { ProducerNumbers } from '../metrics/producer-numbers.ts'
import type { Outgoing } from '../publish/outgoing.ts'
import type { Named } from '../publish/router.ts'
import { fateOf } from '../redis/publishing.ts'
import type { ContainedRun } from '../tracing.ts'
import type { JobPublishOptions } from './options.ts'
import type { Told } from './told.ts'

/**
 * What one run publishes: kept until the run is over, appended if it has completed, and forgotten otherwise.
 *
 * A job whose stream shares the cluster slot of the run's own is appended by the script that acks the run (`near`): in one step,
 * so it is there exactly if the run was settled by that. Any other is published before the ack, under an idempotency token made
 * of the run's job (`far`): a worker that dies in between has the job run again, and the second publish meets the first.
 */
export class Onward {
  /** In the order of the calls. */
  readonly publishes: OnwardPublish[] = []
  bytes = 0
  /** The run is over: nothing may come after that. */
  isClosed = false
  /** Whether it is kept until Redis has it, and counts in what its worker keeps. */
  isKept = false
  readonly #tokened = new Map<string, number>()

  get near(): OnwardPublish[] {
    return this.publishes.filter(({ isNear }) => isNear)
  }

  get far(): OnwardPublish[] {
    return this.publishes.filter(({ isNear }) => !isNear)
  }

  /** The handler is done; what a run that did not complete has published is dropped. */
  close(isCompleted: boolean): void {
    this.isClosed = true
    if (!isCompleted) this.drop()
  }

  /** Nothing of it comes into Redis by this run. */
  drop(): void {
    for (const { told } of this.publishes) told?.dropped()
  }

  /** How many there were before of this job to this stream that got a token of the run's: it is counted. */
  countTokened(stream: string, job: string): number {
    const name = `${stream} ${job}`
    const count = this.#tokened.get(name) ?? 0
    this.#tokened.set(name, count + 1)
    return count
  }
}

/** One call of `job.publish`. */
export interface OnwardPublish {
  readonly item: Outgoing
  readonly target: OnwardTarget
  readonly isNear: boolean
  /** Undefined while nobody wants to know. */
  readonly told: Told | undefined
}

/** A stream that handlers publish to. */
export interface OnwardTarget {
  readonly stream: string
  readonly numbers: ProducerNumbers
  /** Whether its keys are in the slot of the run's own stream. */
  readonly isOfSlot: boolean
}

/** A run that publishes. */
export interface OnwardRun {
  /** Its place among what the worker holds. */
  readonly slot: number
  readonly id: string
  readonly name: string
  readonly handler: { readonly batch?: object | undefined } | undefined
  readonly traced: ContainedRun | undefined
  onward: Onward | undefined
}

/** What takes the publishes of runs. */
export interface OnwardPublishing {
  publish(run: OnwardRun, job: Named, data: unknown, options: JobPublishOptions | undefined): void
}

/** It is in Redis; undefined where the answer was lost, and only that is known. */
export function published({ item: { numbers }, told }: OnwardPublish, answer: string | undefined): void {
  const fate = answer === undefined ? undefined : fateOf(answer)
  if (fate?.outcome === 'duplicate') numbers.duplicate += 1
  else if (fate?.outcome === 'replaced') numbers.replaced += 1
  else numbers.ok += 1
  told?.published(fate)
}

/** It cannot be in Redis, for which its run has failed. */
export function refused({ item: { numbers }, told }: OnwardPublish, error: PublishError): void {
  numbers.rejected += 1
  told?.refused(error)
}

/** What a run fails with that cannot publish. */
export function refusedError(stream: string, why: string, code: PublishError['code'], cause?: unknown): PublishError {
  const text = `the run has completed, but what it publishes to ${stream} cannot be published: ${why}`
  return new PublishError(code, text, { published: 'no', cause })
}
