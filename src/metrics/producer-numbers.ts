import { Buckets } from './buckets.ts'
import { JobNames } from './job-names.ts'
import { ROUND_TRIP_BOUNDS } from './worker-numbers.ts'

/** What became of the publishes of one job name. */
export class PublishNumbers {
  ok = 0
  /** Failed, and the job is certainly not in Redis. */
  rejected = 0
  /** Failed, and the job may be in Redis. */
  unknown = 0
  /** The job of an earlier publish stands for it: it has the same idempotency token, or holds the same uniqueness key. */
  duplicate = 0
  /** In Redis in the place of a job that had its uniqueness key. */
  replaced = 0
  /** Gave way to others in a full buffer; they count as rejected too. */
  shed = 0
}

/** What a stream's line of jobs in one producer is seen to be. */
export interface LineSeen {
  readonly jobs: number
  readonly mostJobs: number
  readonly bytes: number
  readonly mostBytes: number
  /** How long the oldest job has waited, in ms; 0 if none does. */
  readonly oldestMs: number
}

/** What the producers of this process have published to one stream. */
export class ProducerNumbers {
  readonly stream: string
  readonly jobs: JobNames<PublishNumbers>
  readonly duration = new Buckets(ROUND_TRIP_BOUNDS)
  /** The line of each producer that is open. */
  readonly open = new Set<LineSeen>()
  /** Times that the line has reached 80 % of its bounds. */
  highWaters = 0
  /** Jobs that are in Redis, but not on as many replicas as was asked for in time. */
  unreplicated = 0
  /** Answers of a bound of the server's side: batches that had to wait, or were refused. */
  readonly held = { backlog: 0, memory: 0 }

  constructor(stream: string, onManyNames: () => void) {
    this.stream = stream
    this.jobs = new JobNames(() => new PublishNumbers(), onManyNames)
  }
}
