import { types } from 'node:util'
import { OptionError } from '../errors.ts'
import { shown, wholeNumber } from '../options.ts'

/**
 * Time that moves only when it is told to, as the time of Redis is for a worker. Retries, delays and deadlines go by it, and so
 * can anything else that is due at an instant.
 */
export class VirtualClock {
  #nowMs: number

  /** @param start when it begins: a Date or ms since the epoch. @default now */
  constructor(start: Date | number = Date.now()) {
    this.#nowMs = instant('start', start)
  }

  /** What time it is, in ms since the epoch. */
  get nowMs(): number {
    return this.#nowMs
  }

  /** Lets time pass. @throws OptionError for what is no time, or would bring it back. */
  advance(ms: number): void {
    this.#nowMs = instant('ms', this.#nowMs + wholeNumber('ms', ms, { or: 0, min: 0 }))
  }

  /** Lets time pass until an instant; one that is over changes nothing. @throws OptionError */
  advanceTo(at: Date | number): void {
    this.#nowMs = Math.max(this.#nowMs, instant('at', at))
  }
}

/** The last one that a Date can tell. */
const LAST_MS = 8.64e15

function instant(name: string, given: unknown): number {
  const ms = types.isDate(given) ? given.getTime() : given
  if (typeof ms === 'number' && Number.isSafeInteger(ms) && ms >= 0 && ms <= LAST_MS) return ms
  throw new OptionError(`expected \`${name}\` to be a Date or ms since the epoch, got ${shown(given)}`)
}
