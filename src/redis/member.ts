import {
  cancelledKey,
  cronDueKey,
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  orderKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  workersInfoKey,
  workersKey,
} from './keys.ts'

/** One worker as Redis knows it: a named member of a group on a stream, with the keys that it touches. Plain data. */
export interface Member {
  readonly stream: string
  readonly group: string
  readonly consumer: string
}

/** Where an entry was read from: the stream itself or the group's redelivery stream. */
export type Source = 0 | 1

export const SOURCES: readonly Source[] = [0, 1]

/** The key that entries of a source are in. */
export function sourceKey({ stream, group }: Member, source: Source): string {
  return source === 0 ? stream : redeliveryKey(stream, group)
}

export const memberKeys = {
  settings: ({ stream }: Member) => settingsKey(stream),
  scheduled: ({ stream }: Member) => scheduledKey(stream),
  scheduledJobs: ({ stream }: Member) => scheduledJobsKey(stream),
  cancelled: ({ stream }: Member) => cancelledKey(stream),
  cronDue: ({ stream }: Member) => cronDueKey(stream),
  retries: ({ stream, group }: Member) => groupScheduledKey(stream, group),
  retryJobs: ({ stream, group }: Member) => groupScheduledJobsKey(stream, group),
  dead: ({ stream, group }: Member) => deadKey(stream, group),
  index: ({ stream, group }: Member) => indexKey(stream, group),
  order: ({ stream, group }: Member) => orderKey(stream, group),
  workers: ({ stream, group }: Member) => workersKey(stream, group),
  info: ({ stream, group }: Member) => workersInfoKey(stream, group),
}
