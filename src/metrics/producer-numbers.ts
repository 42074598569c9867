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
}

/** What the producers of this process have published to one stream. */
export class ProducerNumbers {
  readonly stream: string
  readonly jobs: JobNames<PublishNumbers>
  readonly duration = new Buckets(ROUND_TRIP_BOUNDS)
  /** The line of each producer that is open. */
  readonly open = new Set<{ readonly jobs: number; readonly mostJobs: number }>()

  constructor(stream: string, onManyNames: () => void) {
    this.stream = stream
    this.jobs = new JobNames(() => new PublishNumbers(), onManyNames)
  }
}
