import { prettyFactory } from 'pino-pretty'
import { printable } from './output.ts'
import { wrapped } from './paragraphs.ts'
import { clipped, widthOf } from './width.ts'

/**
 * A log line for a person at a terminal: time, level, the words, then what else the line says as name=value. pino-pretty sets
 * time, level and colours. The rest is ours: it must not be wider than the terminal, whatever is in it, nor drive it.
 */

export interface PrettyOptions {
  readonly colorize: boolean
  /** How wide the terminal is at the moment; Infinity where there is none. */
  readonly columns: () => number
  /** Fields that are left out: the reader knows them. */
  readonly hidden: readonly string[]
}

interface Line {
  readonly level?: string
  readonly msg?: string
  readonly pid?: number
  readonly role?: string
  readonly err?: { readonly stack?: string }
}

const OWN = ['level', 'time', 'msg', 'pid', 'role', 'err']
/** `[16:20:01] ` before the level, and `: ` after it. */
const TIME_COLUMNS = 11
const INDENT = '    '

/** From a JSON line to what is written for it. */
export function prettyPrinter({ colorize, columns, hidden }: PrettyOptions): (json: string) => string {
  const out = new Set([...OWN, ...hidden])
  return prettyFactory({
    colorize,
    hideObject: true,
    ignore: 'pid,hostname,role',
    translateTime: 'SYS:HH:MM:ss',
    messageFormat: (line: Line) => textOf(line, out, columns()),
  })
}

function textOf(line: Line, hidden: ReadonlySet<string>, columns: number): string {
  const who = line.role === 'worker' ? [`worker ${line.pid}:`] : []
  const said = printable(line.msg ?? '').split(' ')
  const fields = Object.entries(line).filter(([name]) => !hidden.has(name))
  const told = fields.flatMap(([name, value]) => `${printable(name)}=${shown(value)}`.split(' '))
  const words = [...who, ...said, ...told]
  const room = columns - INDENT.length
  // What stands before the message takes its room on the first line.
  const before = 'x'.repeat(TIME_COLUMNS + (line.level ?? '').length + 1)
  const broken = words.flatMap((word) => pieces(word, room - (before.length - INDENT.length) - 1))
  const text = wrapped([before, ...broken], columns, INDENT).join('\n')
  return [text.slice(before.length + 1), ...stackOf(line).flatMap((told) => indented(told, room))].join('\n')
}

function shown(value: unknown): string {
  const text = printable(typeof value === 'string' ? value : JSON.stringify(value))
  return typeof value === 'string' && /[\s"=]|^$/.test(text) ? JSON.stringify(text) : text
}

function stackOf({ err }: Line): string[] {
  return err?.stack?.split('\n').map(printable) ?? []
}

function indented(text: string, room: number): string[] {
  return pieces(text.trim(), room).map((piece) => `${INDENT}${piece}`)
}

/** A word that no line has room for, over as many as it takes. */
function pieces(word: string, room: number): string[] {
  const found: string[] = []
  let left = word
  while (widthOf(left) > room) {
    // The mark of the cut takes a column of its own.
    const piece = clipped(left, room).slice(0, -1)
    if (piece === '') break
    found.push(piece)
    left = left.slice(piece.length)
  }
  return [...found, left]
}
