import { styled } from '../output.ts'
import type { Line, Size } from './draw.ts'
import { keysIn, keysOfRest } from './keys.ts'

/** The alternate screen, no cursor, and no line that goes on in the next one. */
const ENTER = '\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J'
const LEAVE = '\x1b[?7h\x1b[?25h\x1b[?1049l'
/** How long the beginning of a sequence waits for its end: keys come in one piece, but for slow lines. */
const SEQUENCE_MS = 50

export interface TerminalEvents {
  readonly key: (key: string) => void
  readonly resized: () => void
  /** Nobody is there any more. */
  readonly gone: () => void
}

/** The whole screen of a terminal, and its keys. However the process ends, the terminal is as it was before. */
export class Terminal {
  readonly #stdin: NodeJS.ReadStream
  readonly #stdout: NodeJS.WriteStream
  readonly #events: TerminalEvents
  #rest = ''
  #waiting: NodeJS.Timeout | undefined
  #isOpen = false

  constructor(stdin: NodeJS.ReadStream, stdout: NodeJS.WriteStream, events: TerminalEvents) {
    this.#stdin = stdin
    this.#stdout = stdout
    this.#events = events
  }

  get size(): Size {
    return { columns: this.#stdout.columns || 80, rows: this.#stdout.rows || 24 }
  }

  open(): void {
    this.#isOpen = true
    process.on('exit', this.#close)
    process.on('SIGHUP', this.#events.gone)
    this.#stdout.on('resize', this.#events.resized)
    this.#stdin.setRawMode(true)
    this.#stdin.setEncoding('utf8')
    this.#stdin.on('data', this.#read)
    for (const name of ['end', 'close', 'error']) this.#stdin.on(name, this.#events.gone)
    this.#stdin.resume()
    this.#stdout.write(ENTER)
  }

  /** One write a frame, over the last one, so that nothing flickers. A terminal that does not keep up misses frames. */
  draw(lines: readonly Line[]): void {
    if (!this.#isOpen || this.#stdout.writableNeedDrain) return
    const frame = lines.map(({ text, style }) => {
      return `${style === undefined ? text : styled(this.#stdout, style, text)}\x1b[K`
    })
    this.#stdout.write(`\x1b[H${frame.join('\r\n')}\x1b[J`)
  }

  close(): void {
    this.#close()
  }

  readonly #close = (): void => {
    if (!this.#isOpen) return
    this.#isOpen = false
    clearTimeout(this.#waiting)
    process.off('exit', this.#close)
    process.off('SIGHUP', this.#events.gone)
    this.#stdout.off('resize', this.#events.resized)
    this.#stdin.off('data', this.#read)
    this.#stdin.pause()
    try {
      this.#stdin.setRawMode(false)
      this.#stdout.write(LEAVE)
    } catch {
      // The terminal is closed: nothing is left to be restored.
    }
  }

  readonly #read = (text: string): void => {
    clearTimeout(this.#waiting)
    const { keys, rest } = keysIn(this.#rest + text)
    this.#rest = rest
    for (const key of keys) this.#events.key(key)
    if (rest === '' || !this.#isOpen) return
    this.#waiting = setTimeout(() => {
      this.#rest = ''
      for (const key of keysOfRest(rest)) this.#events.key(key)
    }, SEQUENCE_MS)
  }
}
