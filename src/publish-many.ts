import type { Batcher, Outgoing } from './batcher.ts'
import { PublishError } from './errors.ts'

/**
 * Publishes from an iterable in constant memory: takes from it only while fewer than two batches wait, so that one is always
 * ready and no more. Stops at the first failure, and waits for what is on its way before it tells.
 */
export interface ManyDeps<Data> {
  readonly batcher: Batcher
  /** @throws PublishError for a payload that cannot be published. */
  readonly pack: (data: Data) => Outgoing
  /** Resolves when something was answered, or soon. */
  readonly progressed: () => Promise<void>
  readonly isClosed: () => boolean
}

const AHEAD_JOBS = 1000
const AHEAD_BYTES = 4 * 1024 * 1024

/**
 * How many are certainly in Redis, the failure that ended it, and whether a close cut it short. An error of the iterable is
 * thrown as it is.
 */
export async function publishEach<Data>(
  items: Iterable<Data> | AsyncIterable<Data>,
  { batcher, pack, progressed, isClosed }: ManyDeps<Data>,
): Promise<{ confirmed: number; failure: PublishError | undefined; cut: boolean }> {
  let confirmed = 0
  let waiting = 0
  let failure: PublishError | undefined
  let cut = false
  let onFailure = () => {}
  const settled = (answer: string | undefined, error?: PublishError) => {
    waiting -= 1
    if (answer !== undefined) confirmed += 1
    else {
      if (failure === undefined || error?.published === 'unknown') failure = error
      onFailure()
    }
  }
  const isFull = () => batcher.jobs >= AHEAD_JOBS || batcher.bytes >= AHEAD_BYTES
  const mayTake = () => {
    cut ||= failure === undefined && isClosed()
    return failure === undefined && !cut
  }
  const push = (data: Data) => {
    try {
      const item = pack(data)
      item.settled = settled
      waiting += 1
      batcher.push(item)
    } catch (error) {
      if (!(error instanceof PublishError)) throw error
      failure = error
    }
  }
  try {
    if (Symbol.iterator in items) {
      for (const data of items) {
        while (isFull() && mayTake()) await progressed()
        if (!mayTake()) break
        push(data)
      }
    } else {
      const iterator = items[Symbol.asyncIterator]()
      for (;;) {
        while (isFull() && mayTake()) await progressed()
        if (!mayTake()) break
        // A source that yields nothing for long must not keep a failure from being told.
        const next = iterator.next()
        const taken = await new Promise<IteratorResult<Data> | undefined>((resolve, reject) => {
          onFailure = () => resolve(undefined)
          next.then(resolve, reject)
        })
        // Closed, or failed, while it was waited for: nobody would send it any more.
        if (taken === undefined || taken.done === true || !mayTake()) break
        push(taken.value)
      }
      // Not awaited: a generator answers only when what it waits for itself has come.
      if (!mayTake()) iterator.return?.().catch(() => {})
    }
  } finally {
    while (waiting > 0) await progressed()
  }
  return { confirmed, failure, cut }
}
