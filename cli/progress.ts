import { countText, spanText } from './output.ts'

/** How long a line stands before it is drawn again, in ms: often enough to look alive, seldom enough to cost nothing. */
const EVERY_MS = 100
const BAR_WIDTH = 24

/** One line of progress on a terminal, drawn over itself; nothing at all where the stream is a file or a pipe. */
export class Progress {
  readonly #stream: NodeJS.WriteStream
  readonly #noun: string
  readonly #startedMs = performance.now()
  #drawnMs = 0
  #isShown = false

  constructor(stream: NodeJS.WriteStream, noun = 'jobs') {
    this.#stream = stream
    this.#noun = noun
  }

  /** @param fraction how much of the whole is done, or undefined where the whole is not known. */
  update(count: number, fraction: number | undefined): void {
    const nowMs = performance.now()
    if (!this.#stream.isTTY || nowMs - this.#drawnMs < EVERY_MS) return
    this.#drawnMs = nowMs
    this.#isShown = true
    const line = progressLine(count, (nowMs - this.#startedMs) / 1000, fraction, this.#noun)
    this.#stream.write(`\r${line.slice(0, (this.#stream.columns || 80) - 1)}\x1b[K`)
  }

  /** Clears the line, so that what follows begins on an empty one. */
  end(): void {
    if (this.#isShown) this.#stream.write('\r\x1b[K')
    this.#isShown = false
  }
}

/** The text of the line: bar and remaining time only where the whole is known. */
export function progressLine(count: number, seconds: number, fraction: number | undefined, noun = 'jobs'): string {
  const rate = seconds > 0 ? count / seconds : 0
  const told = `${countText(count)} ${noun}  ${countText(rate)}/s`
  if (fraction === undefined) return told
  const done = Math.min(1, Math.max(0, fraction))
  const filled = Math.round(done * BAR_WIDTH)
  const left = done > 0 ? `  ${spanText((seconds / done) * (1 - done))} left` : ''
  return `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)} ${Math.floor(done * 100)}%  ${told}${left}`
}
