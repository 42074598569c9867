import type { Redis } from 'ioredis'
import {
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
} from './keys.ts'
import { asArray, asNumber, asOptionalNumber, asText } from './replies.ts'
import { run } from './scripts/script.ts'
import { promote } from './scripts/schedule.ts'

/** Which scheduled jobs: with a group that group's retries, with null those that were published with a delay. */
export interface Schedule {
  readonly stream: string
  readonly group: string | null
}

/** Jobs per call; a call also ends after 1 MiB of them. */
const MOST_JOBS = 250

export interface Promoted {
  readonly promoted: number
  /** Jobs that cannot be promoted: they stay in the set, never due. */
  readonly asideIds: readonly string[]
  /** The server's time. */
  readonly nowMs: number
  /** When the first of those left is due, in ms since the epoch; undefined if there is none. */
  readonly nextDueMs: number | undefined
  /** Whether others were due already. */
  readonly more: boolean
}

/** Moves at most 250 of the jobs that are due to where they go. */
export async function promoteDue(client: Redis, schedule: Schedule): Promise<Promoted> {
  const { moved, aside, ...told } = await call(client, schedule, [])
  return { ...told, promoted: moved.length, asideIds: aside }
}

/**
 * Moves the named jobs to where they go, whenever they are due. Returns the ids of those that were moved; the others are not
 * scheduled there, or cannot be promoted.
 */
export async function promoteNow(client: Redis, schedule: Schedule, jobIds: readonly string[]): Promise<string[]> {
  const promoted: string[] = []
  for (let from = 0; from < jobIds.length;) {
    const { moved, looked } = await call(client, schedule, jobIds.slice(from, from + MOST_JOBS))
    promoted.push(...moved)
    from += looked
  }
  return promoted
}

async function call(client: Redis, { stream, group }: Schedule, jobIds: readonly string[]) {
  const keys =
    group === null
      ? [scheduledKey(stream), scheduledJobsKey(stream), stream]
      : [
          groupScheduledKey(stream, group),
          groupScheduledJobsKey(stream, group),
          redeliveryKey(stream, group),
          indexKey(stream, group),
        ]
  const reply = asArray(await run(client, promote, keys, [MOST_JOBS, ...jobIds]))
  const [more, nextDueMs, nowMs, looked, moved, aside] = reply
  return {
    more: asNumber(more) === 1,
    nextDueMs: asOptionalNumber(nextDueMs),
    nowMs: asNumber(nowMs),
    looked: asNumber(looked),
    moved: asArray(moved).map(asText),
    aside: asArray(aside).map(asText),
  }
}
