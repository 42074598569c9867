import { monotonicMs } from './clock.ts'

const EVERY_MS = 1000
const MOST_NAMES = 100
/** Further names, together. */
const OTHERS = ''
/** A name of which nothing was said for so long makes room. */
const FORGOTTEN_MS = 60_000

/**
 * Says at most one warning a second for each name, and with the next one how many there were meanwhile: a job or a listener
 * that fails thousands of times a second must not fill the log, nor cost the time that jobs need.
 */
export class QuietWarnings {
  readonly #byName = new Map<string, { saidAtMs: number; unsaid: number }>()

  /** Undefined: do not say it. Else how many of this name were not said since the last one. */
  due(name: string): number | undefined {
    const nowMs = monotonicMs()
    const counted = this.#byName.has(name) || this.#hasRoom(nowMs) ? name : OTHERS
    const known = this.#byName.get(counted)
    if (known !== undefined && nowMs - known.saidAtMs < EVERY_MS) {
      known.unsaid += 1
      return undefined
    }
    this.#byName.set(counted, { saidAtMs: nowMs, unsaid: 0 })
    return known?.unsaid ?? 0
  }

  /** Forgetting all names would say each of them anew, thousands of times a second where there are more than these. */
  #hasRoom(nowMs: number): boolean {
    if (this.#byName.size < MOST_NAMES) return true
    for (const [name, { saidAtMs }] of this.#byName) {
      if (nowMs - saidAtMs >= FORGOTTEN_MS) this.#byName.delete(name)
    }
    return this.#byName.size < MOST_NAMES
  }
}
