import { OptionError } from './errors.ts'

/**
 * The checks that options go through before anything is opened. Every message has the form
 * "expected `concurrency` to be a positive integer, got 0".
 */

/** The longest that a timer can be set to, in ms: one that is to wait for longer is over at once. */
export const MOST_TIMER_MS = 2 ** 31 - 1

/** Refuses keys that nobody reads: a mistyped option would otherwise be ignored in silence. */
export function refuseUnknownKeys(where: string, given: object, known: readonly string[]): void {
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(`expected the options of ${where} to be an object, got ${kindOf(given)}`)
  }
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    const meant = didYouMean(key, known)
    const hint = meant === undefined ? `known: ${known.join(', ')}` : `did you mean \`${meant}\`?`
    throw new OptionError(`unknown option \`${key}\` of ${where} (${hint})`)
  }
}

/** A whole number in [min, max], or the default when the option is absent. */
export function wholeNumber(
  name: string,
  value: unknown,
  { or, min = 1, max = Number.MAX_SAFE_INTEGER }: { or: number; min?: number; max?: number },
): number {
  if (value === undefined) return or
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value
  const kind = min === 1 ? 'a positive integer' : min === 0 ? 'an integer of 0 or more' : `an integer of ${min} or more`
  const bound = max === Number.MAX_SAFE_INTEGER ? '' : ` up to ${max}`
  throw new OptionError(`expected \`${name}\` to be ${kind}${bound}, got ${shown(value)}`)
}

/** Whether something is asked for; not, when the option is absent. */
export function flag(name: string, value: unknown): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false
  throw new OptionError(`expected \`${name}\` to be true or false, got ${shown(value)}`)
}

/** One of a closed set of words, or undefined when the option is absent. */
export function oneOf<Word extends string>(name: string, value: unknown, words: readonly Word[]): Word | undefined {
  if (value === undefined) return undefined
  const found = words.find((word) => word === value)
  if (found !== undefined) return found
  throw new OptionError(`expected \`${name}\` to be one of ${words.join(', ')}, got ${shown(value)}`)
}

/** A value as an error message shows it: short, one line, never a whole payload. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 57)}...` : value)
  if (typeof value === 'number' || typeof value === 'boolean' || value === null || value === undefined) {
    return String(value)
  }
  if (typeof value === 'bigint') return `${value}n`
  return Array.isArray(value)
    ? 'an array'
    : typeof value === 'function'
      ? 'a function'
      : `a value of type ${typeof value}`
}

/** What a value is, without showing it: it may be a URL with a password. */
function kindOf(value: unknown): string {
  return typeof value === 'string' ? 'a string' : shown(value)
}

/** The known word closest to a mistyped one, by edit distance, if it is close enough to be meant. */
export function didYouMean(word: string, known: readonly string[]): string | undefined {
  let best: string | undefined
  let bestDistance = Math.max(2, Math.floor(word.length / 3)) + 1
  for (const candidate of known) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase())
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance]
  }
  return best
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min((row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1, replaced))
    }
    row = next
  }
  return row[b.length] ?? 0
}
