import { PublishError } from '../errors.ts'
import type { ProducerNumbers } from '../metrics/producer-numbers.ts'
import type { Outgoing } from '../publish/outgoing.ts'
import type { Named } from '../publish/router.ts'
import { fateOf } from '../redis/publishing.ts'
import type { ContainedPublish } from '../tracing.ts'
import type { JobPublishOptions } from './options.ts'

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
    for (const { traced } of this.publishes) traced?.end({ published: 0 })
  }
}

/** One call of `job.publish`. */
export interface OnwardPublish {
  readonly item: Outgoing
  readonly target: OnwardTarget
  readonly isNear: boolean
  readonly traced: ContainedPublish | undefined
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
  onward: Onward | undefined
}

/** What takes the publishes of runs. */
export interface OnwardPublishing {
  publish(run: OnwardRun, job: Named, data: unknown, options: JobPublishOptions | undefined): void
}

/** It is in Redis; undefined where the answer was lost, and only that is known. */
export function published({ item: { numbers }, traced }: OnwardPublish, answer: string | undefined): void {
  const fate = answer === undefined ? undefined : fateOf(answer)
  if (fate?.outcome === 'duplicate') numbers.duplicate += 1
  else if (fate?.outcome === 'replaced') numbers.replaced += 1
  else numbers.ok += 1
  traced?.end({ published: 1, id: fate?.id })
}

/** It cannot be in Redis, for which its run has failed. */
export function refused({ item: { numbers }, traced }: OnwardPublish, error: PublishError): void {
  numbers.rejected += 1
  traced?.end({ published: 0, error })
}

/** What a run fails with that cannot publish. */
export function refusedError(stream: string, why: string, code: PublishError['code'], cause?: unknown): PublishError {
  const text = `the run has completed, but what it publishes to ${stream} cannot be published: ${why}`
  return new PublishError(code, text, { published: 'no', cause })
}
