import { Cron } from 'croner'
import { OptionError } from '../errors.ts'
import { shown } from '../options.ts'

/**
 * Cron texts and time zones, read by croner. A time that the clocks skip in spring falls on the first one behind the gap, and
 * one that they show twice in autumn counts once; what is due at intervals (`*`, lists, ranges, steps) goes by the time that
 * passes: nothing in the gap, and both of the hours that are shown twice.
 */

const FORM =
  'five fields (minute hour day-of-month month day-of-week), or six with seconds before them, such as "0 3 * * 1-5" or "*/15 * * * *"'
/** Compiled ones: parsing takes longer than working out a tick. */
const MOST_KEPT = 20_000
const kept = new Map<string, Cron>()

/** @throws Error on a text that is none, or a zone that is not known here. */
export function compiled(at: string, zone: string): Cron {
  const key = `${zone} ${at}`
  const found = kept.get(key)
  if (found !== undefined) return found
  const made = new Cron(at, { timezone: zone, mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard', paused: true })
  if (kept.size >= MOST_KEPT) kept.clear()
  kept.set(key, made)
  return made
}

/** A text as it is kept: one space between its fields. @throws OptionError that says what was expected. */
export function checkPattern(at: unknown): string {
  const text = typeof at === 'string' ? at.trim().replace(/\s+/g, ' ') : ''
  const isText = typeof at === 'string' && at.length <= 200
  if (!isText || ![5, 6].includes(text.split(' ').length))
    throw new OptionError(`expected \`at\` to be ${FORM}, got ${shown(at)}`)
  try {
    compiled(text, 'UTC')
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/^CronPattern: /, '') : 'it cannot be read'
    throw new OptionError(`expected \`at\` to be ${FORM}, got ${shown(at)}: ${why}`)
  }
  return text
}

/** @throws OptionError that says what was expected. */
export function checkZone(zone: unknown): string {
  try {
    if (typeof zone === 'string' && zone !== '') {
      return new Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone === '' ? 'UTC' : zone
    }
  } catch {
    // Said below.
  }
  throw new OptionError(`expected \`zone\` to be a time zone such as "Europe/Berlin" or "UTC", got ${shown(zone)}`)
}
