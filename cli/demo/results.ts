import { openSync, writeSync } from 'node:fs'
import { open, readdir, type FileHandle } from 'node:fs/promises'
import { join } from 'node:path'
import type { Look } from './hash.ts'

/** One run of one job, as the worker that ran it has written it down. */
export interface Run {
  readonly id: string
  readonly file: string
  readonly pid: number
  readonly deliveries: number
  readonly startedMs: number
  readonly endedMs: number
  readonly look: Look
}

/**
 * Writes a line for every run, in the worker, before the job is acked. The write is synchronous: once it returns the system
 * has the line, and a SIGKILL of this process takes nothing back. So a job without a line was not run to its end.
 */
export function resultWriter(folder: string): (run: Run) => void {
  const file = openSync(join(folder, `${process.pid}.ndjson`), 'a')
  return (run) => void writeSync(file, `${JSON.stringify(run)}\n`)
}

/** Reads what the workers write, a piece at a time. */
export class ResultReader {
  /** Every run by file, in the order in which they were read. */
  readonly runs = new Map<string, Run[]>()
  /** Runs of jobs that had been delivered before. */
  readonly redelivered: Run[] = []
  readonly #folder: string
  readonly #open = new Map<string, { handle: FileHandle; rest: Buffer }>()
  readonly #chunk = Buffer.alloc(256 * 1024)

  constructor(folder: string) {
    this.#folder = folder
  }

  /** Reads what is new, in full. */
  async read(): Promise<void> {
    for (const name of await readdir(this.#folder)) {
      if (name.endsWith('.ndjson')) await this.#readFile(name)
    }
  }

  async close(): Promise<void> {
    for (const { handle } of this.#open.values()) await handle.close()
    this.#open.clear()
  }

  async #readFile(name: string): Promise<void> {
    const file = this.#open.get(name) ?? { handle: await open(join(this.#folder, name)), rest: Buffer.alloc(0) }
    this.#open.set(name, file)
    for (;;) {
      const { bytesRead } = await file.handle.read(this.#chunk)
      if (bytesRead === 0) return
      const bytes = Buffer.concat([file.rest, this.#chunk.subarray(0, bytesRead)])
      const end = bytes.lastIndexOf(0x0a) + 1
      file.rest = bytes.subarray(end)
      for (const line of bytes.toString('utf8', 0, end).split('\n')) if (line !== '') this.#add(JSON.parse(line) as Run)
    }
  }

  #add(run: Run): void {
    const runs = this.runs.get(run.file)
    if (runs === undefined) this.runs.set(run.file, [run])
    else runs.push(run)
    if (run.deliveries > 1) this.redelivered.push(run)
  }
}
