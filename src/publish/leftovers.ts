import { PublishError, type Published } from '../errors.ts'
import type { Batcher } from './batcher.ts'
import type { Outcomes } from './outcomes.ts'
import type { BatchLeft, Outgoing } from './outgoing.ts'
import { toUnpublished, type UnpublishedJob } from './unpublished.ts'

/** What a closing producer could not publish to one stream. */
export interface Leftover {
  readonly batcher: Batcher
  readonly outcomes: Outcomes
  readonly waiting: readonly Outgoing[]
  readonly batch: BatchLeft | undefined
}

/**
 * Tells everybody who waits, and gives all jobs back. Jobs of the batch on its way may be in Redis, the others are not. A job
 * counts as failed only if it is not in the spill file: that one is published later.
 */
export function settleLeft(left: readonly Leftover[], isSpilled: (item: Outgoing) => boolean): UnpublishedJob[] {
  const unpublished: UnpublishedJob[] = []
  for (const { batcher, outcomes, waiting, batch } of left) {
    const { stream } = batcher.numbers
    const settle = (item: Outgoing, published: Published) => {
      if (item.settled === undefined) return
      const spilled = isSpilled(item)
      const error = closedError(stream, published, spilled)
      unpublished.push(toUnpublished(item, { stream, error, spilled }))
      if (spilled) outcomes.spill(item, error)
      else outcomes.reject(item, error)
    }
    for (const item of batch?.items ?? []) settle(item, 'unknown')
    for (const item of waiting) settle(item, 'no')
  }
  return unpublished
}

function closedError(stream: string, published: Published, spilled: boolean): PublishError {
  const fate = published === 'no' ? 'the job is not in Redis' : 'the job may be in Redis or not'
  const later = spilled ? '; it is in the spill file' : ''
  const text = `could not publish to ${stream}: the producer was closed; ${fate}${later}`
  return new PublishError('ERR_PUBLISH_TIMEOUT', text, { published })
}
