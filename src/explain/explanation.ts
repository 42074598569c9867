import type { CronTick } from '../cron/tick.ts'
import type { DeadLetter } from '../redis/dead.ts'
import type { Counted } from '../redis/explaining.ts'

/** Where a job is and why, as an inspector tells it. Times are in ms since the epoch, by the server's clock. */

/** A sentence with its evidence. `command` are the words of a command line that says or does more, without `millrace`. */
export interface Sentence {
  readonly text: string
  readonly command: readonly string[] | null
}

export interface Explanation {
  readonly stream: string
  /** The job's id. */
  readonly id: string
  /** What the id that was asked for is, where it is not the job's own. */
  readonly asked: AskedId | null
  /** False where neither the stream nor a group knows the job: the sentences say what that may mean. */
  readonly isKnown: boolean
  readonly nowMs: number
  readonly history: StreamHistory
  /** Null where neither an entry nor a record of it is there. */
  readonly job: ExplainedJob | null
  /** While it waits to come into the stream; `dueMs` is null if it was set aside. */
  readonly delayed: { readonly dueMs: number | null; readonly problem: string } | null
  /** Up to where its entry was looked for, where that was given up. */
  readonly lookedTo: string | null
  /** When it was cancelled for all groups. */
  readonly cancelledMs: number | null
  /** While the whole stream is paused. */
  readonly paused: Paused | null
  readonly sentences: readonly Sentence[]
  /** By name. */
  readonly groups: readonly ExplainedGroup[]
}

export interface AskedId {
  readonly id: string
  readonly is: 'dead letter' | 'entry of the redelivery stream' | 'entry'
  /** The group whose dead letter or redelivery stream it is. */
  readonly group: string | null
}

export interface StreamHistory {
  readonly entries: number
  readonly oldestId: string | null
  readonly newestId: string | null
  /** Whether older entries were removed; null where the server does not tell. */
  readonly hasLost: boolean | null
}

export interface ExplainedJob {
  /** Null where it has no name. */
  readonly name: string | null
  /** Its entry in the stream; null if it is not (or no longer) there. */
  readonly entryId: string | null
  readonly publishedMs: number
  /** Size of the payload; null if it has none. */
  readonly bytes: number | null
  /** The job that it is a copy of. */
  readonly replayOf: string | null
  /** Of a job with a uniqueness key: which job holds that now, null for none. */
  readonly unique?: { readonly key: string; readonly holder: string | null }
  /** Of a job that a recurring schedule has published: which, and when it was due; null of one that was run out of turn. */
  readonly cron?: CronTick
  /** Only where it was asked for; null if it is over 1 MiB, or there is none. */
  readonly payload?: string | null
}

export interface Paused {
  readonly sinceMs: number
  readonly untilMs: number | null
  readonly by: string
  readonly reason: string
}

/** The group was set back to `toId` when it had been given all up to `fromId`: what lies between is delivered again. */
export interface Rewound {
  readonly atMs: number
  readonly toId: string
  readonly fromId: string
}

/** A line that the handler has kept with the job. */
export interface NotedLine {
  readonly atMs: number
  readonly text: string
}

export interface ExplainedNotes {
  /** How far it said that it was; undefined where it did not. */
  readonly progress?: unknown
  readonly progressMs: number | null
  /** Its last lines, all that are kept: up to 100, and 16 KiB. */
  readonly lines: readonly NotedLine[]
  /** Lines that were dropped for later ones, or could not be written. */
  readonly dropped: number
  /** How large its last checkpoint is; null if it has none. */
  readonly checkpointBytes: number | null
  readonly checkpointMs: number | null
}

export interface ExplainedGroup {
  readonly group: string
  readonly state: GroupState
  /** When it was cancelled, for this group alone or for all. */
  readonly cancelledMs: number | null
  readonly paused: Paused | null
  /** Those that had the group deliver this job again. */
  readonly rewinds: readonly Rewound[]
  /** What its handler has said of it; left out of one that has said nothing, or is completed. */
  readonly notes?: ExplainedNotes
  readonly sentences: readonly Sentence[]
}

/** Where a group has a job: exactly one of these. */
export type GroupState =
  | NotDelivered
  | Pending
  | Scheduled
  | Dead
  | Settled
  /** A delayed publish: it is in no group yet. */
  | { readonly at: 'delayed'; readonly dueMs: number | null }
  /** It was published before the group began: it is not the group's. */
  | { readonly at: 'before-group'; readonly startId: string }
  /** The group's index has it in a place where it is not: it was deleted or acked by hand. `place` as in the index. */
  | { readonly at: 'nowhere'; readonly place: string }
  /** It is older than the history, and no group has it. */
  | { readonly at: 'trimmed'; readonly counts: Counted | null }
  | { readonly at: 'unknown'; readonly why: UnknownWhy }

/**
 * `never`: it has no entry, though its time is within the history; `newer`: its id is above all that were given; `older`: it is
 * below the first one, and nothing was ever removed; `delayed`:
 * the id of a delayed publish that is neither scheduled nor in the stream; `not-found`: its entry was looked for, but not
 * to the end.
 */
export type UnknownWhy = 'never' | 'newer' | 'older' | 'delayed' | 'not-found'

export type SourceName = 'stream' | 'redelivery'

export interface NotDelivered extends Drain {
  readonly at: 'not-delivered'
  readonly source: SourceName
  readonly entryId: string
  /** Up to where the group was given the stream, or its redelivery stream. */
  readonly lastDeliveredId: string
  /** Entries that are delivered before it; null where they could not be counted. */
  readonly ahead: number | null
  /** Whether they were counted; else they are estimated. */
  readonly isAheadExact: boolean
  /** Entries that are not delivered, on this source; null where Redis does not know. */
  readonly lag: number | null
  /** At the rate of now; null where that cannot be told. */
  readonly etaSeconds: number | null
  /** Attempts that failed before. */
  readonly attempt: number
}

/** What the workers of the group do. */
export interface Drain {
  /** Those that were heard of in the last 5 seconds. */
  readonly workers: number
  /** Jobs that they complete a second. */
  readonly perSecond: number
  readonly lastHeardMs: number | null
}

export interface Pending extends Drain {
  readonly at: 'pending'
  readonly source: SourceName
  readonly entryId: string
  /** Null if it was handed back, and no other worker has taken it yet. */
  readonly worker: PendingWorker | null
  /** Since its lease was renewed. */
  readonly idleMs: number
  readonly deliveries: number
  readonly maxDeliveries: number
  readonly leaseMs: number
  /** Below 0 if the lease is over: the next claim takes it. */
  readonly leaseLeftMs: number
  /** False if its entry was removed meanwhile. */
  readonly hasEntry: boolean
}

export interface PendingWorker {
  readonly name: string
  readonly host: string | null
  readonly pid: number | null
  readonly lastHeardMs: number | null
}

export interface Scheduled extends Drain {
  readonly at: 'scheduled'
  /** Null if it was set aside: it could not be moved when it was due. */
  readonly dueMs: number | null
  /** Attempts that failed. */
  readonly attempt: number
  readonly problem: string
}

export interface Dead {
  readonly at: 'dead'
  readonly letter: DeadLetter
}

export interface Settled {
  readonly at: 'settled'
  /** How, where that is known or all but known; null where it is not. */
  readonly outcome: string | null
  /** `recorded`: the group records outcomes. `certain`: all of its minute that were counted had this
   * one. `likely`: most of them had. */
  readonly evidence: 'recorded' | 'certain' | 'likely' | 'none'
  /** When, if that is recorded. */
  readonly atMs: number | null
  /** What was counted of the jobs whose ids are of the same minute; null if nothing is kept of that hour. */
  readonly counts: Counted | null
}
