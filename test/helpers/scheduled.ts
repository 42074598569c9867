import type { Redis } from 'ioredis'
import {
  deadKey,
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  redeliveryKey,
  scheduledJobsKey,
  scheduledKey,
} from '../../src/redis/keys.ts'
import type { Schedule } from '../../src/redis/scheduling.ts'
import { serverMs } from './redis.ts'

/** Scheduled jobs and dead letters put into Redis by hand, in the form that publishers and workers write. */

/** What scheduled jobs go by: group null is a delayed publish. */
export interface ScheduledItem {
  id: string
  group?: string | null
  stream?: string
  /** Ms since the epoch, or +inf for one that was set aside. */
  due?: number | '+inf'
  job?: string
  data?: string
  error?: string
  attempt?: number
}

let counter = 1_000_000_000_000_000

/** The id of a delayed publish of now. */
export async function delayedId(client: Redis): Promise<string> {
  return `${await serverMs(client)}-${++counter}`
}

/** Puts one in. With `raw` its record is that; with null it has none. */
export async function schedule(client: Redis, item: ScheduledItem, raw?: string | null): Promise<string> {
  const { id, group = null, stream = 'orders', due, job = 'mail', data = '{}', error = '', attempt = 0 } = item
  const dueMs = due ?? (await serverMs(client)) + 60_000
  const fields = ['job', job, 'data', data, 'id', id]
  if (group !== null) fields.push('attempt', String(attempt), 'first-failed', id.slice(0, id.indexOf('-')))
  const where = { stream, group }
  const { jobs } = keysOf(where)
  await scheduleFields(client, where, { id, dueMs, fields, error })
  if (raw === null) await client.hdel(jobs, id)
  else if (raw !== undefined) await client.hset(jobs, id, raw)
  return id
}

/** Moves one as a worker does when it is due. Returns the id of its entry, or null if it is not scheduled any more. */
export async function promoteByHand(
  client: Redis,
  { id, group = null, stream = 'orders' }: { id: string; group?: string | null; stream?: string },
): Promise<string | null> {
  const move = `
    if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then return nil end
    local fields = cmsgpack.unpack(redis.call('HGET', KEYS[2], ARGV[1]))[2]
    redis.call('HDEL', KEYS[2], ARGV[1])
    local entry = redis.call('XADD', KEYS[3], '*', unpack(fields))
    if KEYS[4] then redis.call('HSET', KEYS[4], ARGV[1], 'redelivery ' .. entry) end
    return entry`
  const { set, jobs, target, index } = keysOf({ stream, group })
  const keys = [set, jobs, target, ...(group === null ? [] : [index])]
  return (await client.eval(move, keys.length, ...keys, id)) as string | null
}

/** A dead letter of a group. Returns the id of its entry there. */
export async function buryByHand(client: Redis, id: string, group = 'main', stream = 'orders'): Promise<string> {
  const fields = ['dead-reason', 'attempts', 'dead-id', id, 'dead-fields', '2', 'job', 'mail', 'data', '{}']
  const deadId = (await client.xadd(deadKey(stream, group), '*', ...fields)) as string
  await client.hset(indexKey(stream, group), id, `dead ${deadId}`)
  return deadId
}

/** A job of the group's redelivery stream. Returns the id of its entry there. */
export async function redeliverByHand(client: Redis, id: string, group = 'main', stream = 'orders'): Promise<string> {
  await schedule(client, { id, group, stream, attempt: 1 })
  return (await promoteByHand(client, { id, group, stream })) as string
}

/** All that Redis holds, to see that nothing has changed. */
export async function snapshot(client: Redis): Promise<Record<string, string>> {
  const all: Record<string, string> = {}
  for (const key of (await client.keys('*')).sort()) {
    all[key] = (await client.dumpBuffer(key))?.toString('base64') ?? ''
  }
  return all
}

export const DELAYED: Schedule = { stream: 'orders', group: null }
export const RETRIES: Schedule = { stream: 'orders', group: 'main' }

/** The keys of a schedule: the set, the hash beside it, where its jobs go, and the index of a group. */
export function keysOf({ stream, group }: Schedule): { set: string; jobs: string; target: string; index: string } {
  return group === null
    ? { set: scheduledKey(stream), jobs: scheduledJobsKey(stream), target: stream, index: '' }
    : {
        set: groupScheduledKey(stream, group),
        jobs: groupScheduledJobsKey(stream, group),
        target: redeliveryKey(stream, group),
        index: indexKey(stream, group),
      }
}

/** Schedules one job; `fields` may be bytes. */
export async function scheduleFields(
  client: Redis,
  where: Schedule,
  { id, dueMs, fields, error = '' }: ScheduledFields,
): Promise<void> {
  const { set, jobs, index } = keysOf(where)
  const script = `
    local fields = {}
    for i = 4, #ARGV do fields[i - 3] = ARGV[i] end
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
    redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack({ARGV[3], fields}))
    if KEYS[3] ~= '' then redis.call('HSET', KEYS[3], ARGV[1], 'scheduled') end`
  await client.eval(script, 3, set, jobs, index, id, dueMs, error, ...fields)
}

interface ScheduledFields {
  id: string
  dueMs: number | string
  fields: readonly (string | Buffer)[]
  error?: string
}

/** Schedules `count` jobs numbered from 0, the id of job n being `1-<n>`, all due at `dueMs`. */
export async function scheduleMany(
  client: Redis,
  where: Schedule,
  { count, dueMs, padding = '' }: { count: number; dueMs: number; padding?: string },
): Promise<void> {
  const { set, jobs, index } = keysOf(where)
  const script = `
    for n = tonumber(ARGV[1]), tonumber(ARGV[2]) do
      local id = '1-' .. string.format('%.0f', n)
      redis.call('ZADD', KEYS[1], ARGV[3], id)
      redis.call('HSET', KEYS[2], id, cmsgpack.pack({'', {'job', 'x', 'data', n .. ARGV[4], 'id', id}}))
      if KEYS[3] ~= '' then redis.call('HSET', KEYS[3], id, 'scheduled') end
    end`
  for (let from = 0; from < count; from += 5000) {
    await client.eval(script, 3, set, jobs, index, from, Math.min(count, from + 5000) - 1, dueMs, padding)
  }
}

/** The ids of the jobs that were promoted, in the order of the stream that they went to. */
export async function promotedIds(client: Redis, where: Schedule): Promise<string[]> {
  const { target } = keysOf(where)
  const ids: string[] = []
  for (let from = '-'; ;) {
    const entries = await client.xrange(target, from, '+', 'COUNT', 10_000)
    if (entries.length === 0) return ids
    for (const [, fields] of entries) ids.push(fields[fields.indexOf('id') + 1] ?? '')
    from = `(${entries.at(-1)?.[0]}`
  }
}

/** The call that promotes: a script with three keys, or with four for a group's retries. */
export const isPromotion = ([name, , keys]: string[]): boolean => name === 'evalsha' && (keys === '3' || keys === '4')
