import { Redis, type RedisOptions } from 'ioredis'

/** The stream that millrace and the raw contender work on, and what is asked of it beside the measured work. */
export const STREAM = 'bench'
export const GROUP = 'main'

/** A client with the protocol that millrace uses, so that the client is no difference between the two. */
export function connect(url: string, options: RedisOptions = {}): Redis {
  const ours: RedisOptions & { replyMapping: 'legacy' } = { ...options, protocol: 2, replyMapping: 'legacy' }
  return new Redis(url, ours)
}

/** Entries that the group has not been given yet, and those that are pending. */
export async function unsettledEntries(redis: Redis, key = STREAM): Promise<number> {
  const groups = (await redis.xinfo('GROUPS', key).catch(() => [])) as unknown[][]
  const group = groups.map(namedFields).find((fields) => fields.get('name') === GROUP)
  if (group === undefined) return redis.xlen(key)
  const lag = group.get('lag')
  const unread = typeof lag === 'number' ? lag : await countAfter(redis, key, String(group.get('last-delivered-id')))
  return unread + Number(group.get('pending'))
}

/** The time of Redis. */
export async function serverMs(redis: Redis): Promise<number> {
  const [seconds, micros] = await redis.time()
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

/** For a Redis that does not know the lag: before 7.0, or after certain trims. */
async function countAfter(redis: Redis, key: string, id: string): Promise<number> {
  let from = id
  for (let count = 0; ;) {
    const entries = await redis.xrange(key, `(${from}`, '+', 'COUNT', 10_000)
    count += entries.length
    const last = entries.at(-1)
    if (last === undefined) return count
    from = last[0]
  }
}

function namedFields(flat: unknown[]): Map<string, unknown> {
  const fields = new Map<string, unknown>()
  for (let at = 0; at + 1 < flat.length; at += 2) fields.set(String(flat[at]), flat[at + 1])
  return fields
}
