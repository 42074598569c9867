import { countText, styled, type Style } from '../output.ts'
import { Screen } from '../screen.ts'

/** How the demo stands. */
export interface Standing {
  /** What is under way, as the line beside the bar says it. */
  readonly doing: 'done' | 'verified'
  readonly done: number
  readonly files: number
  /** Undefined where Redis has not been asked yet. */
  readonly lag: number | undefined
  readonly pending: number | undefined
  readonly recovered: number
}

const BAR_WIDTH = 40
/** Between two lines of progress where nothing can be redrawn, in ms. */
const LINE_EVERY_MS = 1000

/** The demo while it runs: redrawn in place on a terminal, a plain line every second elsewhere. */
export class Display {
  readonly #stream: NodeJS.WriteStream
  readonly #startedMs = performance.now()
  readonly #events: { readonly text: string; readonly style?: Style | undefined }[] = []
  #screen: Screen | undefined
  #standing: Standing | undefined
  #lineAtMs = 0

  constructor(stream: NodeJS.WriteStream) {
    this.#stream = stream
  }

  /** Seconds since the start. */
  get seconds(): number {
    return (performance.now() - this.#startedMs) / 1000
  }

  title(title: string, ...lines: readonly string[]): void {
    this.#stream.write(`\n${styled(this.#stream, 'bold', title)}\n`)
    for (const line of lines) this.#stream.write(`${line}\n`)
    this.#stream.write('\n')
    if (this.#stream.isTTY) this.#screen = new Screen(this.#stream)
  }

  /** Something happened that stays on the screen. */
  event(text: string, style?: Style): void {
    const line = `${this.seconds.toFixed(1).padStart(6)} s  ${text}`
    this.#events.push({ text: line, style })
    if (this.#screen === undefined) this.#stream.write(`${line}\n`)
    else this.#draw()
  }

  update(standing: Standing): void {
    this.#standing = standing
    const nowMs = performance.now()
    if (this.#screen !== undefined) return this.#draw()
    if (nowMs - this.#lineAtMs < LINE_EVERY_MS) return
    this.#lineAtMs = nowMs
    this.#stream.write(`${this.seconds.toFixed(1).padStart(6)} s  ${standingText(standing)}\n`)
  }

  /** Leaves the last picture on the screen. */
  end(): void {
    if (this.#screen === undefined) return
    this.#draw()
    this.#screen.close()
    this.#screen = undefined
  }

  #draw(): void {
    const standing = this.#standing
    const lines: { text: string; style?: Style | undefined }[] = []
    if (standing !== undefined) {
      lines.push({ text: `  ${bar(standing)}`, style: 'cyan' }, { text: `  ${standingText(standing)}` }, { text: '' })
    }
    this.#screen?.draw([...lines, ...this.#events])
  }
}

function standingText({ doing, done, files, lag, pending, recovered }: Standing): string {
  const facts = [`${countText(done)} of ${countText(files)} ${doing}`]
  if (doing === 'done')
    facts.push(`lag ${known(lag)}`, `pending ${known(pending)}`, `recovered ${countText(recovered)}`)
  return facts.join('   ')
}

function known(count: number | undefined): string {
  return count === undefined ? '?' : countText(count)
}

function bar({ done, files }: Standing): string {
  const share = files === 0 ? 1 : Math.min(1, done / files)
  const filled = Math.floor(share * BAR_WIDTH)
  return `${'█'.repeat(filled)}${'░'.repeat(BAR_WIDTH - filled)} ${String(Math.floor(share * 100)).padStart(3)}%`
}
