import { asArray, asText } from './replies.ts'

/** A pause as it is stored: text in the settings of a stream, which anybody could have written. */

/** Why nothing of a stream or a group is begun now. */
export interface Pause {
  readonly sinceMs: number
  /** When it is over, in ms since the epoch by the time of Redis; null if somebody must end it. */
  readonly untilMs: number | null
  /** Who began it. */
  readonly by: string
  readonly reason: string
}

/** Beyond it there are no Dates: what shows a pause would throw. */
const LAST_MS = 8.64e15

/**
 * A stored pause that is in force; undefined where there is none, where it is over, and for what is no pause. One that ends
 * beyond all time must be resumed, as one without an end.
 */
export function pauseOf(stored: unknown, nowMs: number): Pause | undefined {
  const text = asText(stored)
  if (text === '') return undefined
  let told: unknown
  try {
    told = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof told !== 'object' || told === null) return undefined
  const { sinceMs, untilMs = null, by, reason } = told as Record<string, unknown>
  if (typeof sinceMs !== 'number' || Math.abs(sinceMs) > LAST_MS) return undefined
  if (untilMs !== null && (typeof untilMs !== 'number' || untilMs <= nowMs)) return undefined
  const textOf = (value: unknown) => (typeof value === 'string' ? value : '')
  const endMs = untilMs !== null && untilMs > LAST_MS ? null : untilMs
  return { sinceMs, untilMs: endMs, by: textOf(by), reason: textOf(reason) }
}

/** Of the pauses of a stream and of one of its groups, as a script answers them, the one that lasts longer. */
export function pauseInForce(stored: unknown, nowMs: number): Pause | undefined {
  const [first, second] = asArray(stored).flatMap((one) => pauseOf(one, nowMs) ?? [])
  if (first === undefined || second === undefined) return first
  return (second.untilMs ?? Infinity) > (first.untilMs ?? Infinity) ? second : first
}
