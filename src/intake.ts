import type { Client } from './redis/connection.ts'
import type { RawEntry } from './redis/replies.ts'

/** What a fetcher reads for: the dispatcher of one stream, or those of several. */
export interface Intake {
  /** How many entries to read now; 0 while what is here lasts, or while nothing is to be begun. */
  readonly room: number
  /** Whether nothing is to be read: all of it is paused. */
  readonly isPaused: boolean
  /** The same before `coming` entries run, which were read already; see the dispatcher. */
  roomBeside(coming: number): number
  /** Resolves when there is room, when the worker stops, or after `timeoutMs`. */
  changed(timeoutMs: number): Promise<void>
  /** Reads about `count` entries, and waits up to `blockMs` for the first. */
  read(client: Client, asked: { count: number; blockMs: number }): Promise<Batch>
  /** Counts a read that failed. */
  failed(): void
}

/** What one read brought. */
export interface Batch {
  /** How many entries. */
  readonly size: number
  readonly entries: readonly (readonly RawEntry[])[]
  /** Hands them on to be run. */
  take(): void
}
