/** Times, spans and counts as sentences tell them: pure, and the same on every machine. */

const LAST_DATE_MS = 253_402_300_799_999

/** `2026-11-21T10:00:00Z (5m ago)`: when it was, and how long that is from now. */
export function whenText(ms: number, nowMs: number): string {
  if (!(ms >= 0 && ms <= LAST_DATE_MS)) return `at ${ms} ms`
  const away = ms > nowMs ? `in ${spanText(ms - nowMs)}` : `${spanText(nowMs - ms)} ago`
  return `${new Date(ms).toISOString().slice(0, 19)}Z (${away})`
}

/** `2026-11-21T10:00Z`: a minute of the tallies. */
export function minuteText(ms: number): string {
  if (!(ms >= 0 && ms <= LAST_DATE_MS)) return `minute ${Math.floor(ms / 60_000)}`
  return `${new Date(ms).toISOString().slice(0, 16)}Z`
}

/** 0.4s, 12s, 5m, 3h, 2d. */
export function spanText(ms: number): string {
  const seconds = Math.max(0, ms) / 1000
  if (seconds < 10) return `${seconds.toFixed(1)}s`
  if (seconds < 120) return `${Math.floor(seconds)}s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`
  return `${Math.floor(seconds / 86_400)}d`
}

/** `1 job`, `1,234 jobs`. */
export function countedText(count: number, noun: string, nouns = `${noun}s`): string {
  return `${numberText(count)} ${count === 1 ? noun : nouns}`
}

export function numberText(count: number): string {
  return count.toLocaleString('en-US', { maximumFractionDigits: 1 })
}

/** 512 bytes, 1.2 KiB, 3.4 MiB. */
export function bytesText(bytes: number): string {
  if (bytes < 1024) return countedText(bytes, 'byte')
  const units = ['KiB', 'MiB', 'GiB']
  let [size, at] = [bytes / 1024, 0]
  for (; size >= 1024 && at < units.length - 1; at++) size /= 1024
  return `${size.toFixed(1)} ${units[at] ?? ''}`
}

/** What somebody else wrote, on one line and short. */
export function quoted(text: string, most = 300): string {
  const line = text.replace(/[\s\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu, ' ').trim()
  return `"${line.length > most ? `${line.slice(0, most - 1)}…` : line}"`
}
