import { wrongValue } from './exit.ts'

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
/** What Node's timers can hold; a longer one would fire at once. */
const LONGEST_MS = 2 ** 31 - 1
const LONGEST_DELAY_MS = 3650 * UNIT_MS.d

/** The most that a retention may be: what is longer is a mistake. */
export const LONGEST_AGE_MS = 36_500 * UNIT_MS.d

/**
 * A duration as people write it, in ms: 500ms, 1s, 1.5s, 2m, 1h, 3d; `mostMs` above 24 days is for what no timer waits for.
 * @throws CliError that says what was expected.
 */
export function parseDuration(
  option: string,
  text: string,
  { minMs = 1, mostMs = LONGEST_MS }: { minMs?: number; mostMs?: number } = {},
): number {
  const ms = durationMs(text)
  if (ms >= minMs && ms <= mostMs) return ms
  // In whole days, where there are any: what a timer can hold is no number that anybody wants to read.
  if (ms > mostMs) {
    const wholeMs = mostMs < UNIT_MS.d ? mostMs : mostMs - (mostMs % UNIT_MS.d)
    throw wrongValue(option, `a duration of at most ${exactDuration(wholeMs)}`, text)
  }
  const least = minMs > 1 ? ` of ${exactDuration(minMs)} or more` : ''
  const examples = EXAMPLES.filter((example) => durationMs(example) >= minMs)
  throw wrongValue(option, `a duration${least} such as ${examples.slice(0, -1).join(', ')} or 1h`, text)
}

const EXAMPLES = ['500ms', '1s', '2m', '1h']

/** A duration that no timer of ours has to hold, so that it may be long, and 0. @throws CliError that says what was expected. */
export function parseDelay(option: string, text: string, { minMs = 0 }: { minMs?: number } = {}): number {
  const ms = durationMs(text)
  if (ms >= minMs && ms <= LONGEST_DELAY_MS) return ms
  throw wrongValue(option, 'a duration up to 3650d, such as 30s, 5m, 2h or 7d', text)
}

/** How long ago at least, in ms. @throws CliError that says what was expected. */
export function parseAge(option: string, text: string): number {
  const ms = durationMs(text)
  if (ms > 0 && ms <= LONGEST_DELAY_MS) return ms
  throw wrongValue(option, 'an age up to 3650d, such as 90s, 15m, 12h or 30d', text)
}

/** NaN for what is no duration. */
export function durationMs(text: string): number {
  const [, amount = '', unit = ''] = /^(\d{1,12}(?:\.\d{1,3})?)(ms|s|m|h|d)$/.exec(text) ?? []
  return amount === '' ? NaN : Math.round(Number(amount) * UNIT_MS[unit as keyof typeof UNIT_MS])
}

/** A duration to the millisecond, as it can be given again: 48h, 30d, 1500ms. */
export function exactDuration(ms: number): string {
  if (ms === 0) return '0s'
  // Up to two days in hours, as people say them.
  const units = (['d', 'h', 'm', 's'] as const).filter((unit) => unit !== 'd' || ms > 172_800_000)
  const unit = units.find((candidate) => ms % UNIT_MS[candidate] === 0) ?? 'ms'
  return `${ms / UNIT_MS[unit]}${unit}`
}
