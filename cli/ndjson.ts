import { isUtf8 } from 'node:buffer'
import { crc32 } from 'node:zlib'

/** One line of a file, from 1. `bytes` counts its line end too; `crc` is the CRC-32 of the whole input up to its end. */
export interface Line {
  readonly number: number
  readonly text: string
  readonly bytes: number
  readonly crc: number
}

/** A line that cannot be taken; the ones before it were handed out. */
export class LineError extends Error {
  override readonly name = 'LineError'
  readonly line: number

  constructor(line: number, why: string) {
    super(`line ${line}: ${why}`)
    this.line = line
  }
}

const NEWLINE = 10

/**
 * The lines of a byte stream, as many at a time as came together. No more is held than one chunk and one line of `maxBytes`,
 * however long the input or a line in it is. `before`: the last line before the input, where it does not begin with the first.
 */
export async function* readLines(
  input: AsyncIterable<Buffer>,
  maxBytes: number,
  before: { readonly line: number; readonly crc: number } = { line: 0, crc: 0 },
): AsyncGenerator<Line[], void> {
  const reader = new LineReader(maxBytes, before)
  for await (const chunk of input) {
    const lines: Line[] = []
    const error = reader.read(chunk, lines)
    if (lines.length > 0) yield lines
    if (error !== undefined) throw error
  }
  const lines: Line[] = []
  const error = reader.end(lines)
  if (lines.length > 0) yield lines
  if (error !== undefined) throw error
}

class LineReader {
  readonly #maxBytes: number
  #begun: Buffer[] = []
  #begunBytes = 0
  #number: number
  #crc: number

  constructor(maxBytes: number, before: { readonly line: number; readonly crc: number }) {
    this.#maxBytes = maxBytes
    this.#number = before.line + 1
    this.#crc = before.crc
  }

  read(chunk: Buffer, lines: Line[]): LineError | undefined {
    let from = 0
    for (;;) {
      const at = chunk.indexOf(NEWLINE, from)
      const part = chunk.subarray(from, at === -1 ? chunk.length : at)
      if (part.length > 0) this.#begun.push(part)
      this.#begunBytes += part.length
      this.#crc = crc32(at === -1 ? part : chunk.subarray(from, at + 1), this.#crc)
      if (this.#begunBytes > this.#maxBytes) {
        return new LineError(this.#number, `expected at most ${this.#maxBytes} bytes, got more`)
      }
      if (at === -1) return undefined
      const error = this.#complete(lines, 1)
      if (error !== undefined) return error
      from = at + 1
    }
  }

  /** The last line may be without a line end. */
  end(lines: Line[]): LineError | undefined {
    return this.#begunBytes === 0 ? undefined : this.#complete(lines, 0)
  }

  #complete(lines: Line[], endBytes: 0 | 1): LineError | undefined {
    const [first] = this.#begun
    const bytes = first !== undefined && this.#begun.length === 1 ? first : Buffer.concat(this.#begun)
    const number = this.#number
    this.#begun = []
    this.#begunBytes = 0
    this.#number += 1
    if (!isUtf8(bytes)) return new LineError(number, 'expected UTF-8 text, got other bytes')
    const text = bytes.toString()
    // Some editors begin a file with a byte order mark.
    const bare = number === 1 ? text.replace(/^\uFEFF/, '') : text
    lines.push({ number, text: bare, bytes: bytes.length + endBytes, crc: this.#crc })
    return undefined
  }
}
