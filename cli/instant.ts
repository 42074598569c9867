import type { CliContext } from './context.ts'
import { usageError } from './exit.ts'

/** A point in time as an option gives it. */
export interface Instant {
  readonly ms: number
  /** Whether it depends on the clock or the time zone of this machine: then the user is told what it was taken for. */
  readonly isLocal: boolean
}

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const LAST_MS = 8_640_000_000_000_000

/**
 * A point in time as people write it: `2026-11-21T10:00:00Z`, without a zone (or `2026-11-21`, or `10:00` of today) in local
 * time, ms since the epoch, or so long ago as in `-15m`. @throws CliError that says what was expected.
 */
export function parseInstant(option: string, text: string, nowMs: number = Date.now()): Instant {
  const instant = epoch(text) ?? ago(text, nowMs) ?? timeOfDay(text, nowMs) ?? dateAndTime(text)
  if (instant !== undefined) return instant
  const got = JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)
  const forms = '2026-11-21T10:00:00Z, 10:00 (today, local), -15m (so long ago) or ms since the epoch'
  throw usageError(`expected \`${option}\` to be a time such as ${forms}, got ${got}`)
}

/** An age as people write it, in ms: 90s, 15m, 12h, 30d. @throws CliError that says what was expected. */
export function parseAge(option: string, text: string): number {
  const ms = spanMs(text)
  if (ms !== undefined && ms > 0) return ms
  const got = JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)
  throw usageError(`expected \`${option}\` to be an age such as 90s, 15m, 12h or 30d, got ${got}`)
}

/** Tells what a time was taken for, where that is not plain from its text. */
export function echoInstant(context: CliContext, option: string, text: string, { ms, isLocal }: Instant): void {
  if (isLocal) context.say(`${option} ${text} is ${new Date(ms).toISOString()}`)
}

/** Ms since the epoch as people read it; what is no date, since anybody may have written it, as it is. */
export function instantText(ms: number): string {
  return ms >= 0 && ms <= LAST_MS ? new Date(ms).toISOString() : String(ms)
}

function epoch(text: string): Instant | undefined {
  return /^\d{12,15}$/.test(text) ? { ms: Number(text), isLocal: false } : undefined
}

function ago(text: string, nowMs: number): Instant | undefined {
  const ms = text.startsWith('-') ? spanMs(text.slice(1)) : undefined
  return ms === undefined || ms > nowMs ? undefined : { ms: nowMs - ms, isLocal: true }
}

function spanMs(text: string): number | undefined {
  const [, amount = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)$/.exec(text) ?? []
  return amount === '' ? undefined : Math.round(Number(amount) * UNIT_MS[unit as keyof typeof UNIT_MS])
}

function timeOfDay(text: string, nowMs: number): Instant | undefined {
  const [found, ...parts] = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text) ?? []
  if (found === undefined) return undefined
  const today = new Date(nowMs)
  const date: [number, number, number] = [today.getFullYear(), today.getMonth() + 1, today.getDate()]
  return local(date, parts.map(numberOf))
}

function dateAndTime(text: string): Instant | undefined {
  const pattern = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,3}))?)?(Z|[+-]\d\d:?\d\d)?)?$/i
  const [found, year, month, day, hours, minutes, seconds, fraction, zone] = pattern.exec(text) ?? []
  if (found === undefined) return undefined
  const date: [number, number, number] = [numberOf(year), numberOf(month), numberOf(day)]
  const time = [numberOf(hours), numberOf(minutes), numberOf(seconds), numberOf(fraction?.padEnd(3, '0'))]
  if (zone === undefined) return local(date, time)
  const ms = checked(date, time)
  const offset = /^([+-])(\d\d):?(\d\d)$/.exec(zone)
  if (offset === null) return ms === undefined ? undefined : { ms, isLocal: false }
  const [, sign, offsetHours, offsetMinutes] = offset
  if (ms === undefined || numberOf(offsetHours) > 15 || numberOf(offsetMinutes) > 59) return undefined
  const offsetMs = numberOf(offsetHours) * UNIT_MS.h + numberOf(offsetMinutes) * UNIT_MS.m
  return { ms: sign === '-' ? ms + offsetMs : ms - offsetMs, isLocal: false }
}

function local(date: [number, number, number], time: number[]): Instant | undefined {
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
  return date.getTime() + hours * UNIT_MS.h + minutes * UNIT_MS.m + seconds * UNIT_MS.s + ms
}

function numberOf(text: string | undefined): number {
  return text === undefined ? 0 : Number(text)
}
