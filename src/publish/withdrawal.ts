import type { Batcher } from './batcher.ts'
import type { Outgoing } from './outgoing.ts'

/**
 * Has a signal take a job back as long as somebody waits for it. Gives what ends that: a signal that lives as long as the
 * process must not collect anything for every publish.
 */
export function withSignal(item: Outgoing, batcher: Batcher, signal: AbortSignal): () => void {
  const end = whenAborted(signal, () => batcher.withdraw(item))
  const { settled, admitted } = item
  item.settled = (...told) => {
    end()
    settled?.(...told)
  }
  if (item.ref !== undefined) {
    item.admitted = (admittedItem) => {
      end()
      admitted?.(admittedItem)
    }
  }
  return end
}

interface Watched {
  readonly actions: Set<() => void>
  readonly listener: () => void
}

const watched = new WeakMap<AbortSignal, Watched>()

/** One listener for all publishes of a signal: Node takes more than ten for a leak, and says so on stderr. */
function whenAborted(signal: AbortSignal, action: () => void): () => void {
  const { actions, listener } = watched.get(signal) ?? watch(signal)
  actions.add(action)
  return () => {
    actions.delete(action)
    if (actions.size > 0 || watched.get(signal)?.actions !== actions) return
    signal.removeEventListener('abort', listener)
    watched.delete(signal)
  }
}

function watch(signal: AbortSignal): Watched {
  const actions = new Set<() => void>()
  const listener = () => {
    for (const action of [...actions]) action()
  }
  const made = { actions, listener }
  watched.set(signal, made)
  signal.addEventListener('abort', listener, { once: true })
  return made
}
