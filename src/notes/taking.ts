import type { Source } from '../redis/member.ts'
import type { RunNotes } from './run-notes.ts'

/** Who writes down what handlers say of their jobs, and the runs of which it is said. Types only. */

/** A delivery, as far as its notes go. */
export interface NotedRun {
  readonly source: Source
  readonly entryId: string
  readonly id: string
  readonly name: string
  readonly stream: string
  readonly attempt: number
  readonly deliveries: number
  readonly ended: Error | undefined
  notes: RunNotes | undefined
}

export interface NoteTaker {
  progress(delivery: NotedRun, value: unknown): void
  log(delivery: NotedRun, line: unknown): void
  checkpoint(delivery: NotedRun, state: unknown): Promise<void>
  lastCheckpoint(delivery: NotedRun): Promise<unknown>
  /** The run has ended, and is about to be settled: what it said last is worth the most. */
  ending(delivery: NotedRun): void
  /** Whether notes of this job are to go with it. */
  mayHave(delivery: NotedRun): boolean
}
