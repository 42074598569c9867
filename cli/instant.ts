import type { CliContext } from './context.ts'
import { durationMs } from './duration.ts'
import { wrongValue } from './exit.ts'

/** A point in time as an option gives it. */
export interface Instant {
  readonly text: string
  readonly ms: number
  /** Whether it depends on the clock or the time zone of this machine: then the user is told what it was taken for. */
  readonly isLocal: boolean
}

type Read = Omit<Instant, 'text'>

/** The end of the year 9999: later times have no common form that could be entered again. */
const LAST_MS = 253_402_300_799_999
const HOUR_MS = 3_600_000
const MINUTE_MS = 60_000

/**
 * A time that is over, as people write it: `2026-11-21T10:00:00Z`, without a zone (or `2026-11-21`, or `10:00` of today) in
 * local time, ms since the epoch, or so long ago as in `-15m`. @throws CliError that says what was expected.
 */
export function parsePastInstant(option: string, text: string, nowMs: number = Date.now()): Instant {
  const read = epoch(text) ?? ago(text, nowMs) ?? timeOfDay(text, nowMs) ?? dateAndTime(text)
  if (read !== undefined) return { text, ...read }
  throw wrongValue(option, `${FORM}, 10:00 (today, local), -15m (so long ago) or ms since the epoch`, text)
}

/**
 * A time when something is due, in the same forms, but `10:00` is the next time that the clock here shows it, and there is no
 * `-15m`. @throws CliError that says what was expected.
 */
export function parseDueInstant(option: string, text: string, nowMs: number = Date.now()): Instant {
  const read = epoch(text) ?? nextTimeOfDay(text, nowMs) ?? dateAndTime(text)
  if (read !== undefined) return { text, ...read }
  throw wrongValue(option, `${FORM}, 10:00 (the next, local) or ms since the epoch`, text)
}

/**
 * A time in a file, as ms since the epoch: with its zone, or the ms themselves. Undefined for anything else: without a zone
 * it would be another time on another machine.
 */
export function parseZonedInstant(text: string): number | undefined {
  const read = epoch(text) ?? dateAndTime(text)
  return read === undefined || read.isLocal ? undefined : read.ms
}

/** What `parseZonedInstant` takes, for messages. */
export const ZONED_FORM = 'an instant with its zone, such as 2026-11-21T10:00:00Z, or ms since the epoch'
const FORM = 'a time such as 2026-11-21T10:00:00Z'

/** Tells what a time was taken for, where that is not plain from its text. */
export function echoInstant(context: CliContext, option: string, { text, ms, isLocal }: Instant): void {
  if (isLocal) context.say(`${option} ${text} is ${new Date(ms).toISOString()}`)
}

function epoch(text: string): Read | undefined {
  return /^\d{12,15}$/.test(text) && Number(text) <= LAST_MS ? { ms: Number(text), isLocal: false } : undefined
}

function ago(text: string, nowMs: number): Read | undefined {
  const ms = text.startsWith('-') ? durationMs(text.slice(1)) : NaN
  return ms <= nowMs ? { ms: nowMs - ms, isLocal: true } : undefined
}

/** `inDays` from today. */
function timeOfDay(text: string, nowMs: number, inDays = 0): Read | undefined {
  const [found, ...parts] = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text) ?? []
  if (found === undefined) return undefined
  const day = new Date(nowMs)
  day.setDate(day.getDate() + inDays)
  return local([day.getFullYear(), day.getMonth() + 1, day.getDate()], parts.map(numberOf))
}

function nextTimeOfDay(text: string, nowMs: number): Read | undefined {
  const today = timeOfDay(text, nowMs)
  return today === undefined || today.ms >= nowMs ? today : timeOfDay(text, nowMs, 1)
}

function dateAndTime(text: string): Read | undefined {
  const pattern = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?$/i
  const [found, year, month, day, hours, minutes, seconds, fraction, zone] = pattern.exec(text) ?? []
  if (found === undefined) return undefined
  const date: [number, number, number] = [numberOf(year), numberOf(month), numberOf(day)]
  const time = [numberOf(hours), numberOf(minutes), numberOf(seconds), numberOf(fraction?.slice(0, 3).padEnd(3, '0'))]
  if (zone === undefined) return local(date, time)
  const ms = checked(date, time)
  const offset = /^([+-])(\d\d):?(\d\d)$/.exec(zone)
  if (offset === null) return ms === undefined ? undefined : { ms, isLocal: false }
  const [, sign, offsetHours, offsetMinutes] = offset
  if (ms === undefined || numberOf(offsetHours) > 15 || numberOf(offsetMinutes) > 59) return undefined
  const offsetMs = numberOf(offsetHours) * HOUR_MS + numberOf(offsetMinutes) * MINUTE_MS
  return { ms: sign === '-' ? ms + offsetMs : ms - offsetMs, isLocal: false }
}

function local(date: [number, number, number], time: number[]): Read | undefined {
  if (checked(date, time) === undefined) return undefined
  const [year, month, day] = date
  const [hours = 0, minutes = 0, seconds = 0, ms = 0] = time
  return { ms: new Date(year, month - 1, day, hours, minutes, seconds, ms).getTime(), isLocal: true }
}

/** As UTC, or undefined if there is no such day or time: Date would take the 31st of February for the 3rd of March. */
function checked([year, month, day]: [number, number, number], time: number[]): number | undefined {
  const [hours = 0, minutes = 0, seconds = 0, ms = 0] = time
  const date = new Date(Date.UTC(year, month - 1, day))
  const isDate = date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day
  if (!isDate || hours > 23 || minutes > 59 || seconds > 59) return undefined
  return date.getTime() + hours * HOUR_MS + minutes * MINUTE_MS + seconds * 1000 + ms
}

function numberOf(text: string | undefined): number {
  return text === undefined ? 0 : Number(text)
}
