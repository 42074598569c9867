import { expect, test } from 'vitest'
import { defineJob, handle } from '../src/index.ts'
import { resolveHandlers } from '../src/job.ts'
import { KnownJobs, knownBy, knownText } from '../src/known-jobs.ts'
import { Connection } from '../src/redis/connection.ts'
import { workersInfoKey, workersKey } from '../src/redis/keys.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { MEMBER } from './helpers/audits.ts'
import { onEnd } from './helpers/cleanup.ts'
import { serverMs, withRedis } from './helpers/redis.ts'

/** What workers tell each other of the jobs that they know. */

const redis = withRedis()

/** By what workers told, by name. */
const known = (workers: Record<string, string>) => Object.fromEntries(knownBy(new Map(Object.entries(workers)), 'self'))
const about = (jobs: unknown) => JSON.stringify({ host: 'h', jobs })

function connection(): Connection {
  const opened = new Connection(resolveRedis(redis.url), { role: 'test', socketTimeoutMs: 5000 })
  onEnd(() => opened.close())
  return opened
}

test('a worker tells names, and versions of those that have had more than one; of too many it tells none', () => {
  const upcast = { 1: (old: unknown) => old, 2: (old: unknown) => old }
  const jobs = [defineJob('mail'), defineJob('a.b:c-d', { version: 3, upcast }), defineJob('last', { version: 1 })]
  const text = knownText(resolveHandlers(jobs.map((job) => handle(job, () => {}))))
  expect(text).toBe('mail a.b:c-d@3 last')
  expect(known({ a: about(text) })).toEqual({ mail: 1, 'a.b:c-d': 3, last: 1 })

  const many = (count: number) => Array.from({ length: count }, (_, n) => handle(defineJob(`n${n + 1000}`), () => {}))
  expect(knownText(resolveHandlers(many(333)))).toHaveLength(333 * 6 - 1)
  expect(knownText(resolveHandlers(many(334)))).toBe('')
})

test('the newest version of what others know counts', () => {
  const workers = { self: about('own both@9'), a: about('a both@2'), b: about('both b') }
  expect(known(workers)).toEqual({ a: 1, b: 1, both: 2 })
})

test.each(['', '{', 'null', '5', '{}', about(null), about(5), about(['mail'])])(
  'what no worker says of itself, like %s, is nothing that is known',
  (told) => {
    expect(known({ a: told })).toEqual({})
  },
)

test('a version that is none is no version', () => {
  expect(known({ a: about('mail@x sign@') })).toEqual({ mail: 0, sign: 0 })
})

test('is asked of those alive, once a second at most; what cannot be read is known to nobody, and while Redis is away it cannot be told', async () => {
  const nowMs = await serverMs(redis.client)
  const heard = { b: nowMs, late: nowMs - 60_000, ahead: nowMs + 60_000, mute: nowMs }
  const scores = Object.entries(heard).flatMap(([name, ms]) => [ms, name])
  await redis.client.zadd(workersKey('orders', 'main'), ...scores)
  const told = { b: about('mail'), late: about('late'), ahead: about('ahead') }
  await redis.client.hset(workersInfoKey('orders', 'main'), told)
  const open = connection()
  const asking = new KnownJobs(open, MEMBER)
  await open.ready(10_000)
  const first = asking.elsewhere()
  expect(asking.elsewhere()).toBe(first)
  expect(await first).toEqual(new Map([['mail', 1]]))

  await redis.client.del(workersKey('orders', 'main'))
  await redis.client.set(workersKey('orders', 'main'), 'no list')
  expect(await new KnownJobs(open, MEMBER).elsewhere()).toEqual(new Map())
  await redis.flush()
  expect(await new KnownJobs(open, MEMBER).elsewhere()).toEqual(new Map())
  open.close()
  expect(await new KnownJobs(open, MEMBER).elsewhere()).toBeUndefined()
})
