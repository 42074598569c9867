import type { EventNote } from './event-table.ts'
import type { UnpublishedJob } from './publish/unpublished.ts'

/** What a producer tells of, as event-table.ts does of a worker. docs/events.md is made of this file too. */

/** What the listeners of each event of a producer are given. */
export interface ProducerEventPayloads {
  'job:published': {
    readonly stream: string
    readonly job: string
    /** The ref that its publish resolved with. */
    readonly ref: string
    readonly id: string
    readonly outcome: 'added' | 'scheduled' | 'duplicate' | 'replaced'
    readonly replacedId?: string
  }
  'job:unpublished': UnpublishedJob
  'buffer:high': BufferLevel
  'buffer:eased': BufferLevel
  'spill:recovered': SpillRecovery
}

export type ProducerEventName = keyof ProducerEventPayloads

export const PRODUCER_EVENTS: Readonly<Record<ProducerEventName, EventNote>> = {
  'job:published': {
    when: "Redis has confirmed that it has a job that was published with `durability: 'buffered'`.",
    not: 'That it was run, or that a group waits for it. A publish that is awaited is told by its promise, and not here.',
    fields:
      '`ref`: what its publish resolved with; `id`: the id of the job; `outcome`: `added`, `scheduled`, `duplicate` where ' +
      'its idempotency token had a job already or another holds its uniqueness key, whose id it is, or `replaced` where it is there ' +
      'in the place of a job that held that key; `replacedId`: that job, where it is another one',
  },
  'job:unpublished': {
    when:
      "A job that was published with `durability: 'buffered'` was given up: older than its `maxAgeMs`, refused for good by " +
      'Redis, or left by a `close()`.',
    not:
      'That the job is not in Redis, if `published` is `unknown`: publish that one again only with an idempotency token. Of ' +
      'a shed job `onShed` is told, not this.',
    fields:
      '`ref`, `data`, `options`: what is needed to publish it again; `published`: `no` or `unknown`; `error`: why; `spilled`: ' +
      'whether it is in the spill file, which the next producer with it publishes',
  },
  'buffer:high': {
    when: 'What waits for Redis has reached 80 % of `maxJobs` or of `maxBytes`; told again only after a `buffer:eased`.',
    not: 'That anything was refused or shed yet: there is still a fifth of the room.',
    fields: '`jobs`, `maxJobs`, `bytes`, `maxBytes`: what waits, and the bounds',
  },
  'buffer:eased': {
    when: 'A buffer that was high is at half of its bounds or less.',
    not: 'That what left it is in Redis: some of it may have been given up, of which `job:unpublished` tells.',
    fields: '`jobs`, `maxJobs`, `bytes`, `maxBytes`: what waits, and the bounds',
  },
  'spill:recovered': {
    when: 'The recovery of a spill file is over: what could be published from it is in Redis.',
    not: 'That all of it was: `unknown` and `broken` jobs are left in a file, which `left` names, for somebody to look at.',
    fields:
      '`file`; `published`: jobs of it that are in Redis, once each; `unknown`: jobs of which Redis no longer knows whether ' +
      'it has them; `broken`: lines that were cut or are no job, and jobs that Redis refuses for good; `left`: the file with the last two, if there are any',
  },
}

export interface BufferLevel {
  readonly stream: string
  readonly jobs: number
  readonly maxJobs: number
  readonly bytes: number
  readonly maxBytes: number
}

/** What became of a spill file. */
export interface SpillRecovery {
  readonly file: string
  /** Jobs of it that are in Redis, once each; those of an interrupted recovery before included. */
  readonly published: number
  /** Jobs of it of which Redis no longer knows whether it has them: they are in `left`. */
  readonly unknown: number
  /** Lines that were cut by a crash or are no job, and jobs that Redis refuses for good: they are in `left`. */
  readonly broken: number
  /** The file with what could not be published; undefined if there is nothing. Moved to the path, it is tried again. */
  readonly left: string | undefined
}
