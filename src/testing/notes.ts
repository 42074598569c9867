import { LeaseLostError } from '../errors.ts'
import { checkpointText, lineText, progressText } from '../notes/note.ts'
import type { NotedRun, NoteTaker } from '../notes/taking.ts'
import { MOST_LOG_BYTES, MOST_LOG_LINES } from '../redis/scripts/notes.ts'

/** Keeps what handlers say of a job as a worker does, in memory: under the same limits, and as JSON carries it. */
export class KeptNotes implements NoteTaker {
  #progress: string | undefined
  readonly #lines: string[] = []
  #checkpoint: string | undefined

  /** What was said, without what was not. */
  get told(): { progress?: unknown; log?: readonly string[]; checkpoint?: unknown } {
    return {
      ...(this.#progress !== undefined && { progress: JSON.parse(this.#progress) as unknown }),
      ...(this.#lines.length > 0 && { log: lastOf(this.#lines) }),
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
      // In any other case the job is still this worker's, and what is kept last is what its next run goes on from.
      if (ended instanceof LeaseLostError) throw ended
      this.#checkpoint = text
      resolve()
    })
  }

  lastCheckpoint({ ended }: NotedRun): Promise<unknown> {
    if (ended instanceof LeaseLostError) return Promise.reject(ended)
    return Promise.resolve(this.#checkpoint === undefined ? undefined : (JSON.parse(this.#checkpoint) as unknown))
  }

  ending(): void {}

  mayHave(): boolean {
    return false
  }
}

/** The time that a line begins with in Redis, and the end of it. */
const STAMP_BYTES = 15

function lastOf(lines: readonly string[]): readonly string[] {
  let [first, bytes] = [lines.length - 1, 0]
  for (let at = first; at >= 0 && lines.length - at <= MOST_LOG_LINES; at--) {
    bytes += Buffer.byteLength(lines[at] ?? '') + STAMP_BYTES
    if (bytes > MOST_LOG_BYTES + 1) break
    first = at
  }
  return lines.slice(first)
}
