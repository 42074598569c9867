import type { Redis } from 'ioredis'
import { provenanceOf } from '../../src/decide.ts'
import { tallySlot } from '../../src/redis/entry-id.ts'
import { indexKey, settingsKey, tallyKey } from '../../src/redis/keys.ts'
import { sourceKey, type Member } from '../../src/redis/member.ts'
import { settle, settleOthers } from '../../src/redis/settling.ts'
import { join, readNew } from '../../src/redis/stream.ts'
import { serverMs } from './redis.ts'

/** Jobs for audits, without workers: each is where a test puts it, and the books are kept by the scripts of workers. */

export const MEMBER: Member = { stream: 'orders', group: 'main', consumer: 'a' }
export const MINUTE_MS = 60_000

/** The beginning of a minute so long ago. */
export async function minutesAgo(client: Redis, minutes: number): Promise<number> {
  return (Math.floor((await serverMs(client)) / MINUTE_MS) - minutes) * MINUTE_MS
}

/** Publishes so many jobs in a minute; gives their ids. */
export async function publishAt(client: Redis, ms: number, count: number): Promise<string[]> {
  const ids = Array.from({ length: count }, (_, n) => `${ms + n}-0`)
  const pipeline = client.pipeline()
  for (const [n, id] of ids.entries()) pipeline.xadd('orders', id, 'job', 'mail', 'data', JSON.stringify({ n }))
  await pipeline.exec()
  return ids
}

export const joinAs = (client: Redis, member: Member = MEMBER) =>
  join(client, member, { startAt: 'oldest', leaseMs: 10_000, maxDeliveries: 3 })

/** Delivers everything that there is to the member. */
export async function deliverAll(client: Redis, member: Member = MEMBER): Promise<void> {
  for (;;) {
    const [stream, redelivery] = await readNew(client, member, { count: 500, blockMs: 1 })
    if (stream.length + redelivery.length === 0) return
  }
}

export async function complete(client: Redis, ids: readonly string[]): Promise<void> {
  for (let from = 0; from < ids.length; from += 500) {
    const done = ids.slice(from, from + 500).map((id) => ({ entryId: id, id }))
    await settle(client, MEMBER, { source: 0, done, resent: false })
  }
}

/** Settles deliveries of the stream as failed for now, for ever, or cancelled. */
export async function end(client: Redis, kind: 'retry' | 'dead' | 'cancelled', ids: readonly string[]): Promise<void> {
  for (let from = 0; from < ids.length; from += 100) {
    const outcomes = ids.slice(from, from + 100).map((id) => {
      const same = { entryId: id, id, deliveries: 1 }
      if (kind === 'retry') {
        return { ...same, kind, delayMs: 3_600_000, attempt: 1, firstFailedMs: undefined, error: 'no' } as const
      }
      if (kind === 'cancelled') return { ...same, kind } as const
      const told = { id, entryId: id, source: 0, attempt: 1, past: 0, deliveries: 1, firstFailedMs: undefined } as const
      const provenance = provenanceOf({ reason: 'attempts', error: new Error('no') }, told, MEMBER.consumer)
      return { ...same, kind, provenance } as const
    })
    await settleOthers(client, MEMBER, { source: 0, outcomes, resent: false })
  }
}

/** Runs everything that the redelivery stream has for the group, and completes it. Gives the job ids. */
export async function completeRedelivered(client: Redis): Promise<string[]> {
  const [, entries] = await readNew(client, MEMBER, { count: 500, blockMs: 1 })
  const done = entries.map(({ id, fields }) => ({ entryId: id, id: fields[fields.lastIndexOf('id') + 1] ?? id }))
  await settle(client, MEMBER, { source: 1, done, resent: false })
  return done.map(({ id }) => id).sort()
}

export const REDELIVERY = sourceKey(MEMBER, 1)

/** Brings copies of jobs into the group, as a replay does: entries, index and tally in one step. Gives the ids of the copies. */
export async function copyByHand(client: Redis, ids: readonly string[], member: Member = MEMBER): Promise<string[]> {
  const nowMs = await serverMs(client)
  const { hour, minute } = tallySlot(`${nowMs}-0`)
  const copy = `
    local ms, copies = tonumber(ARGV[1]), {}
    for at = 3, #ARGV do
      local raw = redis.call('XRANGE', KEYS[1], ARGV[at], ARGV[at])[1][2]
      local n = redis.call('HINCRBY', KEYS[3], 'copied-seq', 1)
      local id = string.format('%.0f-%.0f', ms, 2000000000000000 + n)
      local fields = {unpack(raw)}
      for _, field in ipairs({'id', id, 'replay-of', ARGV[at]}) do fields[#fields + 1] = field end
      redis.call('HSET', KEYS[4], id, 'redelivery ' .. redis.call('XADD', KEYS[2], '*', unpack(fields)))
      copies[#copies + 1] = id
    end
    redis.call('HINCRBY', KEYS[5], ARGV[2] .. ':replayed', #copies)
    return copies`
  const { stream, group } = member
  const keys = [
    stream,
    sourceKey(member, 1),
    settingsKey(stream),
    indexKey(stream, group),
    tallyKey(stream, group, hour),
  ]
  return (await client.eval(copy, keys.length, ...keys, nowMs, minute, ...ids)) as string[]
}
