/** How long after a signal the next one is taken for the same: npm passes on what the terminal has sent to us already. */
const SAME_MS = 250

/** What a process that was ended by a signal answers to its shell. */
export function exitCodeOfSignal(signal: NodeJS.Signals): number {
  return signal === 'SIGINT' ? 130 : 143
}

/**
 * Calls `first` at the first SIGTERM or SIGINT, and `second` at every later one, with its exit code. Returns what ends the
 * listening.
 */
export function onStopSignals(first: (signal: NodeJS.Signals) => void, second: (exitCode: number) => void): () => void {
  let firstMs: number | undefined
  const heard = (signal: NodeJS.Signals) => {
    const nowMs = performance.now()
    if (firstMs === undefined) {
      firstMs = nowMs
      first(signal)
    } else if (nowMs - firstMs > SAME_MS) {
      second(exitCodeOfSignal(signal))
    }
  }
  process.on('SIGTERM', heard)
  process.on('SIGINT', heard)
  return () => {
    process.off('SIGTERM', heard)
    process.off('SIGINT', heard)
  }
}
