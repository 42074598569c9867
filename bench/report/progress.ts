import { printable } from '../../cli/output.ts'
import type { Cell } from '../rounds.ts'
import type { Failure, Result } from '../results.ts'

/** One line a measurement; on a terminal each is written over the last. */
export class Progress {
  readonly #stream: NodeJS.WriteStream

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  begun(cell: Cell): void {
    if (this.#stream.isTTY) this.#rewrite(`${placeOf(cell)}  …`)
  }

  measured(cell: Cell, { figures }: Result): void {
    const texts = cell.measure.rows.map(({ figure, unit, digits }) => {
      const value = figures[figure] ?? Number.NaN
      return `${value.toLocaleString('en-US', { maximumFractionDigits: digits })} ${unit}`
    })
    const line = `${placeOf(cell)}  ${texts.join('  ')}`
    if (this.#stream.isTTY) this.#rewrite(line)
    else this.say(line)
  }

  failed(cell: Cell, { message }: Failure): void {
    this.end()
    this.say(`${placeOf(cell)}  failed: ${message}`)
  }

  say(line: string): void {
    this.#stream.write(`${printable(line)}\n`)
  }

  /** Leaves a free line. */
  end(): void {
    if (this.#stream.isTTY) this.#rewrite('')
  }

  #rewrite(line: string): void {
    this.#stream.write(`\r${printable(line).slice(0, (this.#stream.columns || 80) - 1)}\x1b[K`)
  }
}

function placeOf({ measure, contender, round, rounds }: Cell): string {
  return `${measure.name.padEnd(20)}  ${`${round}/${rounds}`.padEnd(4)}  ${contender.padEnd(9)}`
}
