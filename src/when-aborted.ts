interface Watched {
  readonly actions: Set<() => void>
  readonly listener: () => void
}

const watched = new WeakMap<AbortSignal, Watched>()

/**
 * Does something when a signal aborts, unless what it gives is called before. One listener for all who wait for a signal: Node takes
 * more than ten for a leak, and says so on stderr; and each further one would cost a look at all of them.
 */
export function whenAborted(signal: AbortSignal, action: () => void): () => void {
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
