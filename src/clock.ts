/** Taken from the process once: the global is a getter, and the clock is read twice a job. */
const { hrtime } = process

/** Milliseconds that never jump: for leases, timeouts and deadlines. The same reading in every thread of the process. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = hrtime()
  return seconds * 1000 + nanoseconds / 1e6
}

/** Resolves after `ms`, or at once when the signal aborts: a loop that sleeps must still stop without delay. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve()
    const done = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, ms)
    signal?.addEventListener('abort', done, { once: true })
  })
}

/** Doubling delays between tries, from `firstMs` to `capMs`, with up to half of each left to chance so that processes
 * that lost Redis together do not come back together. `triesSoFar` starts at 0. */
export function backoffMs(triesSoFar: number, firstMs: number, capMs: number): number {
  const full = Math.min(capMs, firstMs * 2 ** Math.min(triesSoFar, 30))
  return full / 2 + (Math.random() * full) / 2
}
