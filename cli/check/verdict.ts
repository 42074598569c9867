/**
 * What a monitoring plugin says: a state, one line of text and figures behind a bar. Monitors read the exit code, take the
 * line apart at `|` and at blanks, and show it to people, so no name from outside may bring such a character into it. Pure.
 */

export const STATES = ['ok', 'warning', 'critical', 'unknown'] as const
export type State = (typeof STATES)[number]

/** 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN: what every monitor that runs plugins understands. */
export function stateCode(state: State): number {
  return STATES.indexOf(state)
}

export interface Thresholds {
  /** A figure above it is a warning. */
  readonly warn: number
  /** A figure above it is critical. */
  readonly crit: number
}

/** What is not known is neither fine nor wrong. */
export function stateOf(value: number | null, { warn, crit }: Thresholds): State {
  if (value === null) return 'unknown'
  return value > crit ? 'critical' : value > warn ? 'warning' : 'ok'
}

/** An alarm that is known counts before something that is not known, which counts before what is fine. */
export function worstOf(states: readonly State[]): State {
  const order: readonly State[] = ['critical', 'warning', 'unknown']
  return order.find((state) => states.includes(state)) ?? 'ok'
}

/** One figure: what it is called, and its bounds where it is what the thresholds are about. */
export interface Figure {
  readonly label: string
  readonly value: number | null
  readonly unit?: 's'
  readonly thresholds?: Thresholds | undefined
}

/** `label=value;warn;crit;0`, with U for what is not known. */
export function figureText({ label, value, unit, thresholds }: Figure): string {
  const told = value === null ? 'U' : `${plainNumber(value)}${unit ?? ''}`
  const bounds = thresholds === undefined ? ';;' : `;${plainNumber(thresholds.warn)};${plainNumber(thresholds.crit)}`
  return `${label.replace(/[^\w.-]/g, '_')}=${told}${bounds};0`
}

/** `MILLRACE LAG OK - … | …`: one line, however many lines its parts have. */
export function verdictLine(what: string, state: State, text: string, figures: readonly Figure[] = []): string {
  const head = `MILLRACE ${what.toUpperCase()}`.trim()
  const data = figures.length === 0 ? '' : ` | ${figures.map(figureText).join(' ')}`
  return `${head} ${state.toUpperCase()} - ${lineSafe(text)}${data}`
}

/** On one line, without the bar that ends the text, and without what a terminal would obey. */
export function lineSafe(text: string): string {
  return text
    .replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu, ' ')
    .replaceAll('|', '/')
    .trim()
}

/** No exponent and no more digits than mean something. */
function plainNumber(value: number): string {
  return String(Number(value.toFixed(3)))
}
