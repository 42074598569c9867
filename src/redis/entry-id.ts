import { OptionError } from '../errors.ts'
import { shown } from '../options.ts'

/**
 * Entry ids. A job's id is the id of its first entry, so its time of publishing can be read from it.
 */

/** Whether a text is a complete entry id, both halves within 64 bits. */
export function isEntryId(text: string): boolean {
  const halves = /^(\d{1,20})-(\d{1,20})$/.exec(text)
  return halves !== null && fits(halves[1] ?? '') && fits(halves[2] ?? '')
}

/** Refuses what is no job id. Leading zeros too: ids are compared as texts. @throws OptionError */
export function checkJobId(id: unknown): string {
  if (typeof id === 'string' && /^(0|[1-9]\d*)-(0|[1-9]\d*)$/.test(id) && isEntryId(id)) return id
  throw new OptionError(`expected a job id such as 1795245552380-0, got ${shown(id)}`)
}

/** Whether an id was given to a delayed publish: its sequence is one that no entry id reaches by itself. */
export function isDelayedId(id: string): boolean {
  return hasMadeId(id) && !isCopyId(id)
}

/** Whether an id was given to a job that a replay brought into a group: its sequence is 2 and fifteen digits. */
export function isCopyId(id: string): boolean {
  return hasMadeId(id) && id[id.indexOf('-') + 1] === '2'
}

/** Whether an id is not that of an entry of the stream, but one that a script has made up. */
export function hasMadeId(id: string): boolean {
  return id.length - id.indexOf('-') > 16
}

/** The time part of an id in ms since the epoch. Foreign producers may choose ids far beyond any date. */
export function timeOf(id: string): number {
  // Entries that come one after the other share their time: most of what is asked was just asked.
  if (id.startsWith(lastPrefix)) return lastMs
  const dash = id.indexOf('-')
  if (dash < 1) return NaN
  lastPrefix = id.slice(0, dash + 1)
  lastMs = Number(id.slice(0, dash))
  return lastMs
}

let lastPrefix = '0-'
let lastMs = 0

/** Many ids as one text, in which those that share their time share its digits: 1795245552380-0,1,2, 1795245552381-0. */
export class IdList {
  #prefix = '-'
  readonly #parts: string[] = []

  add(id: string): void {
    if (id.startsWith(this.#prefix)) {
      this.#parts.push(id.slice(this.#prefix.length))
    } else {
      this.#prefix = id.slice(0, id.indexOf('-') + 1)
      this.#parts.push(` ${id}`)
    }
  }

  get text(): string {
    return this.#parts.join(',')
  }

  /** Another list that begins as this one is. */
  copy(): IdList {
    const list = new IdList()
    list.#prefix = this.#prefix
    list.#parts.push(...this.#parts)
    return list
  }
}

/** Rising order of two ids. */
export function compareIds(a: string, b: string): number {
  const [aMs = '', aSeq = ''] = a.split('-')
  const [bMs = '', bSeq = ''] = b.split('-')
  return aMs.length - bMs.length || compareText(aMs, bMs) || aSeq.length - bSeq.length || compareText(aSeq, bSeq)
}

/** The highest id below another; below the lowest there is none, and it is given itself. */
export function idBefore(id: string): string {
  const [ms = '0', seq = '0'] = id.split('-')
  if (BigInt(seq) > 0n) return `${ms}-${BigInt(seq) - 1n}`
  return BigInt(ms) > 0n ? `${BigInt(ms) - 1n}-${LAST_SEQ}` : '0-0'
}

/** The highest sequence that an id can have. */
export const LAST_SEQ = '18446744073709551615'

/** Where a job is counted: by the hour, as in 2026-11-21T03, and minute of its id. `name` is both. */
export interface TallySlot {
  readonly name: string
  readonly hour: string
  readonly minute: number
}

/** The jobs of one moment share a minute, so the last one is kept. */
export function tallySlot(id: string): TallySlot {
  const minutes = Math.floor(Math.min(timeOf(id), LAST_DATE_MS) / 60_000)
  if (minutes !== cachedMinutes) {
    const name = new Date(minutes * 60_000).toISOString().slice(0, -8)
    cachedMinutes = minutes
    cached = { name, hour: name.slice(0, -3), minute: minutes % 60 }
  }
  return cached
}

const LAST_DATE_MS = 8_639_999_999_000_000
let cachedMinutes = -1
let cached: TallySlot = { name: '', hour: '', minute: 0 }

function fits(half: string): boolean {
  return half.length < 20 || half <= '18446744073709551615'
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}
