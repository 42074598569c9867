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

export async function serverMs(client: Redis): Promise<number> {
  const [seconds] = await client.time()
  return Number(seconds) * 1000
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
  const record = `
    local fields = {}
    for i = 4, #ARGV do fields[i - 3] = ARGV[i] end
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
    redis.call('HSET', KEYS[2], ARGV[1], cmsgpack.pack({ARGV[3], fields}))`
  const [scheduled, jobs] = keysOf(stream, group)
  await client.eval(record, 2, scheduled, jobs, id, String(dueMs), error, ...fields)
  if (raw === null) await client.hdel(jobs, id)
  else if (raw !== undefined) await client.hset(jobs, id, raw)
  if (group !== null) await client.hset(indexKey(stream, group), id, 'scheduled')
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
  const target = group === null ? [stream] : [redeliveryKey(stream, group), indexKey(stream, group)]
  const keys = [...keysOf(stream, group), ...target]
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

function keysOf(stream: string, group: string | null): [string, string] {
  return group === null
    ? [scheduledKey(stream), scheduledJobsKey(stream)]
    : [groupScheduledKey(stream, group), groupScheduledJobsKey(stream, group)]
}
