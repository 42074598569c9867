import { OptionError } from '../errors.ts'
import { checkDefined, type Handler, type Job, type JobDefinition } from '../job.ts'
import { refuseUnknownKeys, shown, wholeNumber } from '../options.ts'
import { GatheredItem, type BatchItem } from './item.ts'
import { callBatch } from './running-batch.ts'
import type { BatchRun, BatchTerms } from './terms.ts'

export interface BatchOptions {
  /** Most jobs of a batch, 1 to 1000; a worker takes no more of them than it has slots, so its `concurrency` is at least this. */
  size: number
  /**
   * How long a job waits at most for others to come, in ms, up to 60000; it is part of the job's time, and so below its `timeoutMs`. 0 takes
   * what is there. @default 100
   */
  lingerMs?: number
}

/** Called with a batch. What it leaves open is completed when it returns, and failed when it throws; what it returns is not looked at. */
export type BatchFunction<Data = unknown, Result = unknown, State = object> = (
  batch: readonly BatchItem<Data, Result, State>[],
  run: BatchRun,
) => void | PromiseLike<void>

export const MOST_SIZE = 1000
export const MOST_LINGER_MS = 60_000
const LINGER_MS = 100

/**
 * Ties a function to a job, to be called with several of its jobs at once. Each of them is still a job of its own, with its
 * timeout, signal, attempts and outcome.
 * @throws OptionError on a bad option, and for what is no function.
 */
export function handleBatch<Output, Result, State = object>(
  job: JobDefinition<unknown, Output, string, Result>,
  options: BatchOptions,
  run: BatchFunction<NoInfer<Output>, NoInfer<Result>, State>,
): Handler<State> {
  checkDefined('handleBatch', job)
  const where = `the batches of ${job.name}`
  refuseUnknownKeys(where, options, ['size', 'lingerMs'])
  if (options.size === undefined) {
    throw new OptionError(`expected \`size\` of ${where} to be a positive integer up to ${MOST_SIZE}, got undefined`)
  }
  const size = wholeNumber('size', options.size, { or: 1, max: MOST_SIZE })
  const lingerMs = wholeNumber('lingerMs', options.lingerMs, { or: LINGER_MS, min: 0, max: MOST_LINGER_MS })
  if (typeof run !== 'function') {
    throw new OptionError(`expected the batch handler of ${job.name} to be a function, got ${shown(run)}`)
  }
  const batch: BatchTerms = { size, lingerMs, call: run }
  return { job, batch, run: (data, one) => alone(batch, new GatheredItem(data, one as Job, { sinceMs: 0, dueMs: 0 })) }
}

/** Where no worker gathers its jobs: in a batch of one. */
function alone({ call }: BatchTerms, item: GatheredItem): Promise<unknown> {
  callBatch(call, [item])
  return item.outcome
}
