import type { PublishOptions } from '../producer-options.ts'
import { PUBLISH_KNOWN } from '../producer-options.ts'

/** What means nothing where nobody waits for the publish, and nothing is buffered: the job is kept until Redis has both. */
const OF_PRODUCERS = ['timeoutMs', 'durability', 'bufferPriority', 'signal'] as const

/** Options of `job.publish`: those of a publish, without what is about waiting for it. */
export type JobPublishOptions = Omit<PublishOptions, (typeof OF_PRODUCERS)[number]>

/** A run that waited for the result of what it publishes would wait for its own end. */
const REFUSED: readonly string[] = [...OF_PRODUCERS, 'result']

export const JOB_PUBLISH_KNOWN = PUBLISH_KNOWN.filter((name) => !REFUSED.includes(name))
