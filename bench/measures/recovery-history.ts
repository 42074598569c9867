import type { Redis } from 'ioredis'

/** The history that recovery is measured on: entries of two hours, all but the last of them settled. */
export const HISTORY = 'history'
export const SMALL = 'small'

const HOURS_MS = 2 * 3_600_000
const AT_ONCE = 5000
/** Of these the group has read all, and settled all but as many as a worker would hold. */
const PENDING = 100

/**
 * Fills a stream, and has its group settle it with what a worker's script would have counted. Returns the id of an entry in
 * its middle.
 */
export async function fillHistory(redis: Redis, stream: string, entries: number): Promise<string> {
  const startMs = Math.floor((Date.now() - HOURS_MS) / 60_000) * 60_000
  const idOf = (order: number) => `${startMs + Math.floor((order / entries) * (HOURS_MS - 60_000))}-${order}`
  const settled = new Map<number, number>()
  for (let from = 0; from < entries; from += AT_ONCE) {
    const pipeline = redis.pipeline()
    for (let order = from; order < Math.min(entries, from + AT_ONCE); order++) {
      const job = order % 2 === 0 ? 'send-receipt' : 'charge'
      const data = JSON.stringify({
        order,
        customer: `c-${order % 1000}`,
        email: 'mira.holm@example.com',
        amount: 129.95,
      })
      const id = idOf(order)
      pipeline.xadd(stream, id, 'job', job, 'data', data)
      const minute = Math.floor(Number(id.split('-')[0]) / 60_000)
      if (order < entries - PENDING) settled.set(minute, (settled.get(minute) ?? 0) + 1)
    }
    await pipeline.exec()
  }
  await redis.call('XGROUP', 'CREATE', stream, 'main', idOf(entries - PENDING - 1), 'ENTRIESREAD', entries - PENDING)
  await redis.call('XGROUP', 'CREATE', `{${stream}}:group:main:redelivery`, 'main', '0', 'MKSTREAM')
  await redis.call('XREADGROUP', 'GROUP', 'main', 'somebody', 'COUNT', PENDING, 'STREAMS', stream, '>')
  for (const [minute, count] of settled) {
    const [hour = '', rest = ''] = new Date(minute * 60_000).toISOString().split(':')
    await redis.hset(`{${stream}}:group:main:tally:${hour}`, `${Number(rest)}:completed`, count)
  }
  await redis.sadd('millrace:streams', stream)
  return idOf(Math.floor(entries / 2))
}
