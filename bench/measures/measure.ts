import type { PrivateRedis } from '../../cli/redis-server.ts'
import type { ContenderName } from '../contenders/contender.ts'
import type { SubjectProcess } from '../subject-process.ts'
import type { Figures, Task } from '../steps/task.ts'

/** One thing that is measured, for one or more contenders, each on a Redis of its own that was just started. */
export interface Measure {
  readonly name: string
  readonly title: string
  readonly contenders: readonly ContenderName[]
  readonly rows: readonly Row[]
  /** Further arguments of the Redis server. @default none: nothing is persisted */
  readonly redisArgs?: readonly string[]
  readonly measure: (bench: Bench) => Promise<Figures>
}

/** A figure, and how a table shows it. */
export interface Row {
  /** Its name among the figures. */
  readonly figure: string
  readonly title: string
  readonly unit: string
  readonly digits: number
}

/** What a measure may use, for one contender in one round. */
export interface Bench {
  readonly contender: ContenderName
  readonly redis: PrivateRedis
  readonly signal: AbortSignal
  /** Starts a fresh process with this task. */
  readonly start: (task: Task) => SubjectProcess
  /** The same, and waits for its figures. */
  readonly run: (task: Task) => Promise<Figures>
}

/** Measures whose rounds are interleaved, since they are compared with each other. */
export interface Group {
  readonly name: string
  /** What is to be known to read its figures. */
  readonly note: string
  readonly rounds: number
  readonly measures: readonly Measure[]
}

export const JOBS_PER_SECOND = { figure: 'jobsPerSecond', unit: 'jobs/s', digits: 0 }
