/**
 * Calls `told` at the first Ctrl-C (or what else is listed), and never again: a second one ends the process at once, as it
 * would without us. Returns what ends the listening.
 */
export function onInterrupt(told: (signal: NodeJS.Signals) => void, signals: readonly NodeJS.Signals[] = ['SIGINT']) {
  const stop = () => {
    for (const signal of signals) process.off(signal, heard)
  }
  const heard = (signal: NodeJS.Signals) => {
    stop()
    told(signal)
  }
  for (const signal of signals) process.on(signal, heard)
  return stop
}
