import { styled, type Style } from './output.ts'

/**
 * Redraws a few lines in place on a terminal. Each frame is one write that overwrites the last one and clears only what is
 * left over, so nothing flickers; the text above and the last frame stay when it is over.
 */
export class Screen {
  readonly #stream: NodeJS.WriteStream
  #lines = 0

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
    stream.write('\x1b[?25l')
  }

  /** Lines that the terminal has no room for are left out: going up over them would tear the picture. */
  draw(lines: readonly { readonly text: string; readonly style?: Style | undefined }[]): void {
    const [width, height] = [this.#stream.columns || 80, this.#stream.rows || 24]
    const room = Math.max(1, height - 1)
    const left = lines.length - room + 1
    const shown = lines.length > room ? [...lines.slice(0, room - 1), { text: `… ${left} more lines` }] : lines
    const frame = shown.map(({ text, style }: { text: string; style?: Style | undefined }) => {
      const cut = text.slice(0, width - 1)
      return `${style === undefined ? cut : styled(this.#stream, style, cut)}\x1b[K\n`
    })
    const up = this.#lines === 0 ? '' : `\x1b[${this.#lines}A`
    this.#stream.write(`${up}\r${frame.join('')}\x1b[J`)
    this.#lines = shown.length
  }

  /** Gives the cursor back. */
  close(): void {
    this.#stream.write('\x1b[?25h')
  }
}
