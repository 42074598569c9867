/** Resolves after `ms`, or at once when the signal aborts: a loop that waits must still stop without delay. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal.addEventListener('abort', done, { once: true })
  })
}

/** 0.2 s doubling to 5 s, up to half of it left to chance: relays that failed together do not come back together. */
export function backoffMs(triesBefore: number): number {
  const full = Math.min(5_000, 200 * 2 ** Math.min(triesBefore, 10))
  return full / 2 + (Math.random() * full) / 2
}
