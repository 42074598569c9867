import { checkpointText, lineText, progressText } from '../notes/note.ts'
import type { NotedRun, NoteTaker } from '../notes/taking.ts'

/** Keeps what handlers say of a job as a worker does, in memory: under the same limits, and as JSON carries it. */
export class KeptNotes implements NoteTaker {
  #progress: string | undefined
  readonly #lines: string[] = []
  #checkpoint: string | undefined

  /** What was said, without what was not. */
  get told(): { progress?: unknown; log?: readonly string[]; checkpoint?: unknown } {
    return {
      ...(this.#progress !== undefined && { progress: JSON.parse(this.#progress) as unknown }),
      ...(this.#lines.length > 0 && { log: this.#lines.slice(-100) }),
      ...(this.#checkpoint !== undefined && { checkpoint: JSON.parse(this.#checkpoint) as unknown }),
    }
  }

  progress(_: NotedRun, value: unknown): void {
    this.#progress = progressText(value) ?? this.#progress
  }

  log(_: NotedRun, line: unknown): void {
    this.#lines.push(lineText(line, 0).slice(2))
  }

  checkpoint({ ended }: NotedRun, state: unknown): Promise<void> {
    return new Promise((resolve) => {
      const text = checkpointText(state)
      if (ended !== undefined) throw ended
      this.#checkpoint = text
      resolve()
    })
  }

  lastCheckpoint(): Promise<unknown> {
    return Promise.resolve(this.#checkpoint === undefined ? undefined : (JSON.parse(this.#checkpoint) as unknown))
  }

  ending(): void {}

  mayHave(): boolean {
    return false
  }
}
