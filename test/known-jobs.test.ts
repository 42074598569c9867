import { expect, test } from 'vitest'
import { defineJob, handle } from '../src/index.ts'
import { resolveHandlers } from '../src/job.ts'
import { KnownJobs, knownBy, knownText } from '../src/known-jobs.ts'
import { Connection } from '../src/redis/connection.ts'
import { workersInfoKey, workersKey } from '../src/redis/keys.ts'
import { resolveRedis } from '../src/redis/target.ts'
import { joinAs, MEMBER } from './helpers/audits.ts'
import { onEnd } from './helpers/cleanup.ts'
import { withRedis } from './helpers/redis.ts'

/** What workers tell each other of the jobs that they know. */

const redis = withRedis()
const NOW_MS = 1_700_000_000_000
const NOTHING = new Map<never, never>()

/** Workers by name: when they were heard of, and what they told. */
const known = (workers: Record<string, [seenMs: number, about: string]>) =>
  Object.fromEntries(
    knownBy(
      {
        ...{ nowMs: NOW_MS, listed: 2, onStream: NOTHING, onRedelivery: NOTHING },
        heard: new Map(Object.entries(workers).map(([name, [seenMs]]) => [name, seenMs])),
        about: new Map(Object.entries(workers).map(([name, [, about]]) => [name, about])),
      },
      'self',
    ),
  )
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
  expect(known({ a: [NOW_MS, about(text)] })).toEqual({ mail: 1, 'a.b:c-d': 3, last: 1 })

  const many = (count: number) => Array.from({ length: count }, (_, n) => handle(defineJob(`n${n + 1000}`), () => {}))
  expect(knownText(resolveHandlers(many(333)))).toHaveLength(333 * 6 - 1)
  expect(knownText(resolveHandlers(many(334)))).toBe('')
})

test('the newest version of what others know counts, if they are alive', () => {
  const workers: Parameters<typeof known>[0] = {
    self: [NOW_MS, about('own both@9')],
    a: [NOW_MS - 5000, about('a both@2')],
    b: [NOW_MS + 5000, about('both b')],
    silent: [NOW_MS - 5001, about('silent both@9')],
    ahead: [NOW_MS + 5001, about('ahead')],
  }
  expect(known(workers)).toEqual({ a: 1, b: 1, both: 2 })
})

test.each(['', '{', 'null', '5', '{}', about(null), about(5), about(['mail'])])(
  'what no worker says of itself, like %s, is nothing that is known',
  (told) => {
    expect(known({ a: [NOW_MS, told] })).toEqual({})
  },
)

test('a version that is none is no version', () => {
  expect(known({ a: [NOW_MS, about('mail@x sign@')] })).toEqual({ mail: 0, sign: 0 })
})

test('is asked of Redis once a second at most; what cannot be read is known to nobody, and while Redis is away it cannot be told', async () => {
  await joinAs(redis.client)
  await redis.client.zadd(workersKey('orders', 'main'), Date.now(), 'b')
  await redis.client.hset(workersInfoKey('orders', 'main'), 'b', about('mail'))
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
