import { usageError } from './exit.ts'

/**
 * A moment as people write it, in ms since the epoch: 2026-11-21T10:00Z, local time where no zone is given; 10:00 is the
 * next time that the clock here shows it.
 * @throws CliError that says what was expected.
 */
export function parseMoment(option: string, text: string, nowMs = Date.now()): number {
  const ms = /^\d\d:\d\d(:\d\d)?$/.test(text) ? nextTime(text, nowMs) : dateTime(text)
  if (!Number.isNaN(ms)) return ms
  const got = JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)
  throw usageError(`expected \`${option}\` to be a time such as 10:00 or 2026-11-21T10:00Z, got ${got}`)
}

function dateTime(text: string): number {
  return /^\d{4}-\d\d-\d\dT\d\d:\d\d/.test(text) ? Date.parse(text) : NaN
}

function nextTime(text: string, nowMs: number): number {
  const [hours = NaN, minutes = NaN, seconds = 0] = text.split(':').map(Number)
  if (hours > 23 || minutes > 59 || seconds > 59) return NaN
  const moment = new Date(nowMs)
  moment.setHours(hours, minutes, seconds, 0)
  if (moment.getTime() < nowMs) moment.setDate(moment.getDate() + 1)
  return moment.getTime()
}
