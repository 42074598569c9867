import { test } from 'vitest'
import { startChild } from './helpers/child.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()

test('examples/typed-jobs.ts runs as it is: an entry of the first version too', async () => {
  const old = JSON.stringify({ order: '7', to: 'bob@example.com' })
  await redis.client.xadd('orders', '*', 'job', 'send-receipt', 'data', old)
  const child = startChild(new URL('../examples/typed-jobs.ts', import.meta.url), { env: { REDIS_URL: redis.url } })
  await child.line(/^1 receipt of order 7 to bob@example.com, of 2026$/, { timeoutMs: 40_000 })
  await child.line(/^1 receipt of order 42 to ada@example.com, of \d{4}$/)
  await child.line(/^reminder of order 42$/)
})
