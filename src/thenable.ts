/** Whether somebody answers later: a promise, or what merely looks like one. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}

/** Nobody waits for it, and a rejection that nobody handles would end the process. */
export function forgetAnswer(later: PromiseLike<unknown>): void {
  Promise.resolve(later).catch(() => {})
}
