import { expect, test, vi } from 'vitest'
import { Permits } from '../src/limits/permits.ts'
import type { Connection } from '../src/redis/connection.ts'
import { limiterKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'

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
