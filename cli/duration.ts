import { usageError } from './exit.ts'

const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
/** What Node's timers can hold; a longer one would fire at once. */
const LONGEST_MS = 2 ** 31 - 1
const LONGEST_DELAY_MS = 3650 * UNIT_MS.d

/** A duration as people write it, in ms: 500ms, 1s, 1.5s, 2m, 1h. @throws CliError that says what was expected. */
export function parseDuration(option: string, text: string, { minMs = 1 }: { minMs?: number } = {}): number {
  const ms = durationMs(text, 'ms|s|m|h')
  if (ms >= minMs && ms <= LONGEST_MS) return ms
  const least = minMs > 1 ? ` of ${minMs}ms or more` : ''
  throw usageError(`expected \`${option}\` to be a duration${least} such as 500ms, 1s, 2m or 1h, got ${quoted(text)}`)
}

/** A duration that no timer of ours has to hold, so that it may be 0, and days. @throws CliError that says what was expected. */
export function parseDelay(option: string, text: string): number {
  const ms = durationMs(text, 'ms|s|m|h|d')
  if (ms <= LONGEST_DELAY_MS) return ms
  throw usageError(
    `expected \`${option}\` to be a duration up to 3650d, such as 30s, 5m, 2h or 7d, got ${quoted(text)}`,
  )
}

/** NaN for what is no duration in one of these units. */
function durationMs(text: string, units: string): number {
  const [, amount = '', unit = ''] = new RegExp(`^(\\d{1,12}(?:\\.\\d{1,3})?)(${units})$`).exec(text) ?? []
  return Math.round(Number(amount) * (UNIT_MS[unit as keyof typeof UNIT_MS] ?? NaN))
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 57)}...` : text)
}
