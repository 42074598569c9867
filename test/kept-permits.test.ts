import { expect, test, vi } from 'vitest'
import { KeptPermits } from '../src/lease/kept-permits.ts'
import { Permits } from '../src/limits/permits.ts'
import type { Connection } from '../src/redis/connection.ts'
import { limiterKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { connectTo, withRedis } from './helpers/redis.ts'

/** Permits as workers and their keepers hold them, without a worker. */

const redis = withRedis()

test('what was given back is kept no more: nothing of one round is left for the next', async () => {
  const gathered = vi.spyOn(Promise, 'all')
  onEnd(() => gathered.mockRestore())
  const key = limiterKey({ name: 'one' }, 'permits', undefined)
  const connection = { client: redis.client } as Connection
  const permits = new Permits({ connection, leaseMs: () => 60_000 }, () => {})
  for (let n = 0; n < 3; n++) {
    const permit = { limiter: { name: 'one' }, key: undefined, holder: `holder-${n}` }
    await redis.client.zadd(key, Date.now() * 2, permit.holder)
    permits.hold(permit)
    permits.release([permit])
    await eventually(async () => expect(await redis.client.exists(key)).toBe(0))
  }
  await permits.stop()
  const results = gathered.mock.results.map(({ value }) => value as Promise<unknown[]>)
  const rounds: unknown[][] = []
  for (const result of results) rounds.push(await result)

  expect(rounds.length).toBeGreaterThanOrEqual(3)
  expect(rounds.flat().filter((kept) => Array.isArray(kept))).toEqual([])
})

test('a limiter that cannot be renewed does not keep the permits of others from it, and is told', async () => {
  await redis.client.acl(
    'SETUSER',
    'narrow',
    'on',
    '>secret',
    '+@all',
    '&*',
    '~{millrace:limit:b}*',
    '~{millrace:limit:d}*',
  )
  const client = connectTo(redis.url, { username: 'narrow', password: 'secret' })
  const permits = ['a', 'b', 'c', 'd'].map((name) => ({ limiter: { name }, key: undefined, holder: 'me' }))
  for (const { limiter } of permits) {
    await redis.client.zadd(limiterKey(limiter, 'permits', undefined), Date.now() + 60_000, 'me')
  }
  const before = await untilMs()
  await redis.client.del(limiterKey({ name: 'd' }, 'permits', undefined))
  const { gone, fault } = await new KeptPermits(permits).renew({ client } as Connection, 600_000)
  const after = await untilMs()

  expect(after.map((until, at) => until > (before[at] ?? 0))).toEqual([false, true, false, false])
  expect(gone).toEqual(permits.slice(3))
  expect(String(fault)).toMatch(/NOPERM/)
})

/** When the permits of four limiters are over. */
async function untilMs(): Promise<number[]> {
  const scores: number[] = []
  for (const name of ['a', 'b', 'c', 'd']) {
    scores.push(Number(await redis.client.zscore(limiterKey({ name }, 'permits', undefined), 'me')))
  }
  return scores
}
