import { styleText } from 'node:util'
import { padded, widthOf } from './width.ts'

/** How commands write for people. Everything from outside goes through `printable`: a name must not drive the terminal. */

/** Version of all `--json` documents. Fields may be added to one; what is there keeps its name and meaning. */
export const SCHEMA_VERSION = 1

export type Style = Parameters<typeof styleText>[0]

/** Text without anything that a terminal would obey, on one line. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]+/gu, ' ')
}

/** Somebody else's name may be longer than anybody reads, or than a monitor takes. */
export function shortName(name: string): string {
  return name.length > MOST_NAME ? `${name.slice(0, MOST_NAME - 1)}…` : name
}

const MOST_NAME = 100

/** Coloured where the stream is a terminal that shows colours and NO_COLOR is not set. */
export function styled(stream: NodeJS.WriteStream, style: Style, text: string): string {
  return styleText(style, text, { stream })
}

/** One document, or one line of a series. */
export function jsonLine(document: object): string {
  return `${JSON.stringify({ schemaVersion: SCHEMA_VERSION, ...document })}\n`
}

export interface Column {
  readonly title: string
  /** Numbers stand under each other by their last digit. @default 'left' */
  readonly align?: 'left' | 'right'
}

/** Lines of a table, the first one its titles, as wide as its widest cells. A shorter row ends with a remark, of any width. */
export function tableLines(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => row.map(printable))]
  const aligned = cells.map((row) => (row.length < columns.length ? row.slice(0, -1) : row))
  const widths = columns.map((_, at) => Math.max(...aligned.map((row) => widthOf(row[at] ?? ''))))
  return cells.map((row) =>
    columns
      .map(({ align }, at) => padded(row[at] ?? '', widths[at] ?? 0, align))
      .join('  ')
      .trimEnd(),
  )
}

/** What is known of one thing, a name and a value a line, the values under each other. */
export function factLines(facts: readonly (readonly [name: string, value: string])[]): string[] {
  const names = facts.map(([name]) => printable(name))
  const width = Math.max(...names.map(widthOf))
  return facts.map(([, value], at) => `${padded(names[at] ?? '', width)}  ${printable(value)}`.trimEnd())
}

/** 1234567 as 1,234,567. */
export function countText(count: number): string {
  return count.toLocaleString('en-US', { maximumFractionDigits: 0 })
}

/** `1 job`, `2 jobs`, `2 entries`. */
export function plural(count: number, noun: string, nouns = `${noun}s`): string {
  return `${countText(count)} ${count === 1 ? noun : nouns}`
}

/** A time to the millisecond; what is no date, since anybody may have written it, as the number that it is. */
export function instantText(ms: number): string {
  return ms >= 0 && ms <= LAST_MS ? new Date(ms).toISOString() : String(ms)
}

/** A moment to the second, the same wherever it is read: 2026-11-21T10:00:00Z. Ids can lie beyond all dates. */
export function momentText(ms: number): string {
  return ms <= LAST_DATE_MS ? `${new Date(ms).toISOString().slice(0, -5)}Z` : 'beyond all dates'
}

const LAST_MS = 8_640_000_000_000_000
const LAST_DATE_MS = 253_402_300_799_999

/** A time span at a glance: 0.4s, 12s, 5m, 3h, 2d. */
export function spanText(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)}s`
  if (seconds < 120) return `${Math.floor(seconds)}s`
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m`
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)}h`
  return `${Math.floor(seconds / 86_400)}d`
}
