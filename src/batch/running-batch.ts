import { isThenable } from '../thenable.ts'
import { endedBy, whenEnded } from './ends.ts'
import type { GatheredItem } from './item.ts'
import type { BatchRun, BatchTerms } from './terms.ts'

/** Calls the function with a batch. What the function leaves open is completed when it returns, and failed when it throws. */
export function callBatch(call: BatchTerms['call'], items: readonly GatheredItem[]): void {
  const fail = (error: unknown) => items.forEach((item) => item.fail(error))
  const complete = () => items.forEach((item) => item.complete())
  try {
    // A list of its own: what it takes out of it would never have an outcome.
    const ended = call([...items] as never[], new RunningBatch(items))
    if (isThenable(ended)) Promise.resolve(ended).then(complete, fail)
    else complete()
  } catch (error) {
    fail(error)
  }
}

/** Most functions never look at it: its signal is made when it is asked for. */
class RunningBatch implements BatchRun {
  readonly #items: readonly GatheredItem[]
  #controller: AbortController | undefined

  constructor(items: readonly GatheredItem[]) {
    this.#items = items
  }

  get signal(): AbortSignal {
    this.#controller ??= this.#follow(new AbortController())
    return this.#controller.signal
  }

  #follow(controller: AbortController): AbortController {
    const useful = new Set<GatheredItem>()
    const look = () => {
      if (useful.size > 0) return
      const left = this.#items.find(({ isOpen }) => isOpen)
      if (left !== undefined) controller.abort(endedBy(left.job)?.reason)
    }
    for (const item of this.#items) {
      if (!item.isOpen || endedBy(item.job) !== undefined) continue
      useful.add(item)
      const drop = () => {
        if (useful.delete(item)) look()
      }
      item.onClosed = drop
      whenEnded(item.job, drop)
    }
    look()
    return controller
  }
}
