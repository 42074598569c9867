import type { NotesToWrite } from '../redis/notes.ts'

/** What the handler of one run has said and nobody has written down yet: the last progress, and the last lines. */
export class RunNotes {
  #progress: string | undefined
  #lines: string[] = []
  #dropped = 0

  get isDirty(): boolean {
    return this.#progress !== undefined || this.#lines.length > 0
  }

  progress(json: string): void {
    this.#progress = json
  }

  /** A handler may say more in a second than is kept of a job at all. */
  log(line: string, most: number): void {
    this.#lines.push(line)
    if (this.#lines.length <= most) return
    this.#lines.shift()
    this.#dropped += 1
  }

  /** Takes what is to be written. */
  take(): Pick<NotesToWrite, 'progress' | 'lines' | 'dropped'> {
    const taken = {
      ...(this.#progress !== undefined && { progress: this.#progress }),
      lines: this.#lines,
      dropped: this.#dropped,
    }
    this.#progress = undefined
    this.#lines = []
    this.#dropped = 0
    return taken
  }

  /** They could not be written: the next ones say how many there were. */
  lost(lines: number): void {
    this.#dropped += lines
  }
}
