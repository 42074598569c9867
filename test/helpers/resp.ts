/** One whole command or reply as it came over the wire. */
export interface Frame {
  bytes: Buffer
  /** First byte: `*` of an array, `$` of a bulk string, `>` of a push message … */
  type: string
  /** The bulk strings in it, in order: of a command its name and arguments. Empty if they were not asked for. */
  strings: string[]
}

const CRLF = Buffer.from('\r\n')
const AGGREGATES: Record<string, number> = { '*': 1, '~': 1, '>': 1, '%': 2, '|': 2 }
const BULKS = '$=!'

/**
 * Cuts a RESP2 or RESP3 byte stream into frames, whatever the chunks are. Where it stopped is kept between chunks, so a
 * large frame in many chunks is looked at once.
 */
export class FrameReader {
  #buffer: Buffer = Buffer.alloc(0)
  #position = 0
  /** Values that are still missing from the frame at the head of the buffer. */
  #missing = 1
  #strings: string[] = []
  readonly #wantsStrings: boolean

  constructor(options: { strings: boolean }) {
    this.#wantsStrings = options.strings
  }

  /** The frames that this chunk completes. */
  read(chunk: Buffer): Frame[] {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk])
    const frames: Frame[] = []
    while (this.#readValue()) {
      if (this.#missing > 0) continue
      const bytes = this.#buffer.subarray(0, this.#position)
      frames.push({ bytes, type: String.fromCharCode(bytes[0] ?? 0), strings: this.#strings })
      this.#buffer = this.#buffer.subarray(this.#position)
      this.#position = 0
      this.#missing = 1
      this.#strings = []
    }
    return frames
  }

  /** Steps over one value, or over the head of an aggregate; false if the buffer ends before. */
  #readValue(): boolean {
    const lineEnd = this.#buffer.indexOf(CRLF, this.#position)
    if (lineEnd === -1) return false
    const type = String.fromCharCode(this.#buffer[this.#position] ?? 0)
    const count = Number(this.#buffer.subarray(this.#position + 1, lineEnd).toString('latin1'))
    let end = lineEnd + 2
    if (BULKS.includes(type) && count >= 0) {
      if (this.#buffer.length < end + count + 2) return false
      if (this.#wantsStrings) this.#strings.push(this.#buffer.toString('utf8', end, end + count))
      end += count + 2
    }
    this.#position = end
    // An attribute stands before a value and is none itself.
    if (type !== '|') this.#missing -= 1
    if (count > 0) this.#missing += count * (AGGREGATES[type] ?? 0)
    return true
  }
}
