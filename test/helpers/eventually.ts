import { setTimeout as sleep } from 'node:timers/promises'

export interface EventuallyOptions {
  /** Long: on a busy machine a test is late and not wrong. @default 60_000 */
  timeoutMs?: number
  /** @default 20 */
  intervalMs?: number
}

/** Waits until the assertion passes and gives what it returns; when the time is up, fails with the last error. */
export async function eventually<T>(assertion: () => T | Promise<T>, options: EventuallyOptions = {}): Promise<T> {
  const { timeoutMs = 60_000, intervalMs = 20 } = options
  const deadline = performance.now() + timeoutMs
  for (;;) {
    try {
      return await assertion()
    } catch (error) {
      if (performance.now() >= deadline) throw error
    }
    await sleep(intervalMs)
  }
}

/** Waits until the predicate holds; `what` is the sentence of the error when it never does. */
export async function waitFor(
  predicate: () => boolean | Promise<boolean>,
  options: EventuallyOptions & { what?: string } = {},
): Promise<void> {
  await eventually(async () => {
    if (!(await predicate()))
      throw new Error(`still not true when the time was up: ${options.what ?? predicate.toString()}`)
  }, options)
}
