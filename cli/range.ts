import type { Command } from 'commander'
import type { Range } from '../src/index.ts'
import type { CliContext } from './context.ts'
import { wrongValue } from './exit.ts'
import { echoInstant, parsePastInstant, type Instant } from './instant.ts'

/** The ends of a range of history, as options give them: entry ids and times. */

export interface RangeFlags {
  readonly from?: RangeEnd
  readonly to?: RangeEnd
}

export type RangeEnd = Instant | { readonly text: string; readonly id: string }

export const RANGE_HELP = `
Times are 2026-11-21T10:00:00Z, 10:00 (today, local time), -15m (so long ago), or ms since the epoch. --from is part of the
range; so is --to if it is an entry id, while a time ends the range before it.`

export function withRangeFlags(command: Command): Command {
  return command
    .option('--from <time|entry>', 'from this time or entry on', (text) => parseRangeEnd('--from', text))
    .option('--to <time|entry>', 'before this time, or up to this entry (default: the newest)', (text) =>
      parseRangeEnd('--to', text),
    )
}

/** @throws CliError */
export function parseRangeEnd(option: string, text: string, nowMs: number = Date.now()): RangeEnd {
  if (/^\d+-\d+$/.test(text)) return { text, id: text }
  if (!/^[-\d]/.test(text)) throw wrongValue(option, 'a time such as 10:00 or -15m, or an entry id', text)
  return parsePastInstant(option, text, nowMs)
}

/** What the flags mean. Tells what local times were taken for. */
export function rangeOf(context: CliContext, { from, to }: RangeFlags): Range {
  return {
    ...(from === undefined ? {} : { from: endOf(context, '--from', from) }),
    ...(to === undefined ? {} : { to: endOf(context, '--to', to) }),
  }
}

/** The words of a command line that mean this end again, whenever it is run. */
export function rangeWords(option: '--from' | '--to', end: number | string | undefined): string[] {
  if (end === undefined) return []
  return [option, typeof end === 'number' ? new Date(end).toISOString() : end]
}

/** What one end means. Tells what a local time was taken for. */
export function endOf(context: CliContext, option: string, end: RangeEnd): number | string {
  if ('id' in end) return end.id
  echoInstant(context, option, end)
  return end.ms
}
