import type { Redis } from 'ioredis'
import { look } from './inspection.ts'
import { groupScheduledJobsKey, groupScheduledKey, scheduledJobsKey, scheduledKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { run } from './scripts/script.ts'
import { listScheduled, rescheduleJob, showScheduled } from './scripts/scheduled.ts'

/** What waits to become due: delayed publishes of a stream (group null) and each group's retries. */

/** A scheduled job as Redis has it. */
export interface ScheduledRow {
  readonly id: string
  readonly group: string | null
  /** Its due time as Redis writes it. */
  readonly score: string
  readonly bytes: number
  /** How many entries it will be: more than one where a job failed twice beside itself, as after a rewind. */
  readonly entries: number
  /** Undefined if what it will be is missing or not to be read. */
  readonly record: { readonly job: string; readonly attempt: string; readonly error: string } | undefined
}

/** A page of what waits in one place; `from` is where it begins, which may have gone meanwhile. */
export async function readScheduled(
  client: Redis,
  stream: string,
  group: string | null,
  { from, limit }: { from: { score: string; id: string; inclusive: boolean } | undefined; limit: number },
): Promise<{ rows: ScheduledRow[]; more: boolean }> {
  const args = [from?.score ?? '', from?.id ?? '', from?.inclusive === true ? 1 : 0, limit]
  const [more, ...rows] = asArray(await look(client, listScheduled, keysOf(stream, group), args))
  return { rows: rows.map((row) => asRow(row, group)), more: asNumber(more) === 1 }
}

/** One scheduled job with its flat fields, or undefined if it is not in this place. */
export async function readOneScheduled(
  client: Redis,
  stream: string,
  group: string | null,
  jobId: string,
): Promise<{ row: ScheduledRow; fields: string[] } | undefined> {
  const [row, fields] = asArray(await look(client, showScheduled, keysOf(stream, group), [jobId]))
  return row === undefined ? undefined : { row: asRow(row, group), fields: asArray(fields).map(asText) }
}

/** Gives it another due time: so many ms from now, or at a time; what lies in the past is now. */
export async function moveDue(
  client: Redis,
  stream: string,
  group: string | null,
  { jobId, due, mostMs }: { jobId: string; due: { how: 'in' | 'at'; ms: number }; mostMs: number },
): Promise<{ outcome: 'ok'; dueMs: number } | { outcome: 'none' | 'broken' | 'far' }> {
  const args = [jobId, due.how, due.ms, mostMs]
  const [outcome, dueMs] = asArray(await run(client, rescheduleJob, keysOf(stream, group), args)).map(asText)
  return outcome === 'ok' ? { outcome, dueMs: asNumber(dueMs) } : { outcome: outcome as 'none' | 'broken' | 'far' }
}

/** Whether anything waits to come into the stream, also where there is no stream yet. */
export async function hasDelayed(client: Redis, stream: string): Promise<boolean> {
  return (await client.zcard(scheduledKey(stream))) > 0
}

/** The server's time in ms since the epoch. */
export async function readTime(client: Redis): Promise<number> {
  const [seconds, micros] = await client.time()
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

function keysOf(stream: string, group: string | null): string[] {
  return group === null
    ? [scheduledKey(stream), scheduledJobsKey(stream)]
    : [groupScheduledKey(stream, group), groupScheduledJobsKey(stream, group)]
}

function asRow(reply: unknown, group: string | null): ScheduledRow {
  const [id, score, bytes, job, attempt, error, entries = 1] = asArray(reply)
  const record = job === undefined ? undefined : { job: asText(job), attempt: asText(attempt), error: asText(error) }
  return { id: asText(id), group, score: asText(score), bytes: asNumber(bytes), entries: asNumber(entries), record }
}
