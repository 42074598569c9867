import { monotonicMs } from './clock.ts'

const EVERY_MS = 1000
const MOST_NAMES = 100

/**
 * Says at most one warning a second for each name, and with the next one how many there were meanwhile: a job or a listener
 * that fails thousands of times a second must not fill the log, nor cost the time that jobs need.
 */
export class QuietWarnings {
  readonly #byName = new Map<string, { saidAtMs: number; unsaid: number }>()

  /** Undefined: do not say it. Else how many of this name were not said since the last one. */
  due(name: string): number | undefined {
    const nowMs = monotonicMs()
    const known = this.#byName.get(name)
    if (known !== undefined && nowMs - known.saidAtMs < EVERY_MS) {
      known.unsaid += 1
      return undefined
    }
    if (known === undefined && this.#byName.size >= MOST_NAMES) this.#byName.clear()
    this.#byName.set(name, { saidAtMs: nowMs, unsaid: 0 })
    return known?.unsaid ?? 0
  }
}
