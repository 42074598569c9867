/**
 * What was asked for, or undefined if it has not come in time or before the signal. It may still come: a late answer, or error, is
 * then nobody's.
 *
 * Not a race with a promise of the signal: one that is never settled keeps what each race with it has brought.
 */
export function inTime<Answer>(
  asked: Promise<Answer>,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<Answer | undefined> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', late)
    }
    const late = () => {
      leave()
      resolve(undefined)
    }
    const timer = setTimeout(late, timeoutMs)
    signal?.addEventListener('abort', late, { once: true })
    if (signal?.aborted === true) late()
    asked.then(resolve, reject).finally(leave)
  })
}
