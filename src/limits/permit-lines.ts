import { backoffMs, monotonicMs, sleep } from '../clock.ts'
import type { PermitTold } from '../redis/limiting.ts'

/**
 * Those that wait here for a permit, in a line for each key of a limiter. Only the first of a line asks: at once when a permit is
 * given back here, and else every 50 ms up to every second, since other workers do not say when they give one back.
 */

export interface Waiter {
  /** Asks Redis for the permit. Never rejects. */
  readonly ask: () => Promise<PermitTold>
  /** Whether its job is still to run here. */
  readonly isWanted: () => boolean
  /** It waits until then, by the monotonic clock. */
  readonly untilMs: number
}

interface Line {
  readonly waiters: { readonly waiter: Waiter; readonly resolve: (told: PermitTold) => void }[]
  wake: AbortController
}

const FIRST_MS = 50
const MOST_MS = 1000

export class PermitLines {
  readonly #lines = new Map<string, Line>()

  /** Whether somebody waits here for a permit of this key: who comes later is to stand behind. */
  has(id: string): boolean {
    return this.#lines.has(id)
  }

  /** Resolves with what Redis told at last; 'none' when its time is up. */
  wait(id: string, waiter: Waiter): Promise<PermitTold> {
    return new Promise((resolve) => {
      const line = this.#lines.get(id)
      if (line !== undefined) return void line.waiters.push({ waiter, resolve })
      const begun: Line = { waiters: [{ waiter, resolve }], wake: new AbortController() }
      this.#lines.set(id, begun)
      void this.#serve(id, begun)
    })
  }

  /** A permit of this key was given back, or the worker stops: who waits looks again. */
  wake(id: string): void {
    this.#lines.get(id)?.wake.abort()
  }

  wakeAll(): void {
    for (const { wake } of this.#lines.values()) wake.abort()
  }

  async #serve(id: string, line: Line): Promise<void> {
    for (let tries = 0; line.waiters.length > 0;) {
      await sleep(backoffMs(tries++, FIRST_MS, MOST_MS), line.wake.signal)
      if (line.wake.signal.aborted) tries = 0
      line.wake = new AbortController()
      this.#dismiss(line)
      while (line.waiters[0] !== undefined) {
        const [{ waiter, resolve }] = line.waiters as [Line['waiters'][number]]
        const told = await waiter.ask()
        if (told === 'none') break
        line.waiters.shift()
        resolve(told)
        tries = 0
      }
    }
    this.#lines.delete(id)
  }

  /** Those whose time is up, and those who are not wanted here any more. */
  #dismiss(line: Line): void {
    const nowMs = monotonicMs()
    const left = line.waiters.filter(({ waiter }) => waiter.isWanted() && waiter.untilMs > nowMs)
    const gone = line.waiters.filter((one) => !left.includes(one))
    line.waiters.splice(0, line.waiters.length, ...left)
    for (const { resolve } of gone) resolve('none')
  }
}
