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
const kept = new Map<string, Pattern>()
/** Zones that are known here: asking takes as long as parsing a text. */
const zones = new Set<string>()

/** What was worked out: from `fromMs` on, up to `nextMs` itself, that is the next match. */
interface Worked {
  readonly fromMs: number
  readonly nextMs: number | undefined
}

/** A text that was read, with what was worked out from it last: from now, and whether it ever comes. */
class Pattern {
  readonly #cron: Cron
  #worked: readonly Worked[] = []

  constructor(at: string, zone: string) {
    this.#cron = new Cron(at, { timezone: zone, mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard', paused: true })
  }

  /**
   * The first match behind a moment, in ms since the epoch. What it said last holds until that match: thousands of schedules of one text
   * are set, and come due, at about the same time.
   */
  next(afterMs: number): number | undefined {
    for (const worked of this.#worked) {
      if (afterMs >= worked.fromMs && afterMs < (worked.nextMs ?? Infinity)) return worked.nextMs
    }
    const nextMs = this.#cron.nextRun(new Date(afterMs))?.getTime()
    this.#worked = [{ fromMs: afterMs, nextMs }, ...this.#worked.slice(0, 1)]
    return nextMs
  }
}

/** @throws Error on a text that is none, or a zone that is not known here. */
export function compiled(at: string, zone: string): Pattern {
  const key = `${zone} ${at}`
  const found = kept.get(key)
  if (found !== undefined) return found
  const made = new Pattern(at, zone)
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
    const why = error instanceof Error ? inOurWords(error.message) : 'it cannot be read'
    throw new OptionError(`expected \`at\` to be ${FORM}, got ${shown(at)}: ${why}`)
  }
  return text
}

/** Days and months are counted from 0 in what croner says, and from 1 in what was written. */
function inOurWords(message: string): string {
  return message
    .replace(/^CronPattern: /, '')
    .replace(
      /^(Invalid value for (?:day|month): )(-?\d+)$/,
      (_all, what: string, at: string) => what + (Number(at) + 1),
    )
}

/** @throws OptionError that says what was expected. */
export function checkZone(zone: unknown): string {
  if (typeof zone === 'string' && zones.has(zone)) return zone
  try {
    if (typeof zone === 'string' && zone !== '') {
      // Thousands are written alike, and what was refused is not kept.
      const known = new Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone
      if (known !== '' && zones.size < 1000) zones.add(zone)
      return known === '' ? 'UTC' : zone
    }
  } catch {
    // Said below.
  }
  throw new OptionError(`expected \`zone\` to be a time zone such as "Europe/Berlin" or "UTC", got ${shown(zone)}`)
}
