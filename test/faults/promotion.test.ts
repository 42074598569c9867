import { describe, expect, test } from 'vitest'
import { DELAYED, isPromotion, keysOf, promotedIds, RETRIES, scheduleMany } from '../helpers/scheduled.ts'
import { newScheduler } from '../fixtures/schedulers.ts'
import { eventually } from '../helpers/eventually.ts'
import { startProxy, type FaultProxy, type Match } from '../helpers/proxy.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'

const redis = withRedis()
const JOBS = 10_000

/** The nth of those commands, the first being 1, and every `n`th after it. */
function every(n: number): Match {
  let seen = 0
  return (command) => isPromotion(command) && ++seen % n === 0
}

describe.each([
  ['delayed publishes', DELAYED],
  ['retries', RETRIES],
])('of 10 000 %s each ends in its stream exactly once', (_what, where) => {
  async function expectEachOnce(client = redis.client): Promise<void> {
    const { set, jobs, index } = keysOf(where)
    await eventually(async () => expect(await client.zcard(set)).toBe(0))
    const ids = await promotedIds(client, where)
    expect([ids.length, new Set(ids).size]).toEqual([JOBS, JOBS])
    expect(await client.hlen(jobs)).toBe(0)
    if (index === '') return
    const places = await client.hvals(index)
    expect(places.every((place) => place.startsWith('redelivery '))).toBe(true)
  }

  test.each<[string, (proxy: FaultProxy, match: Match, times: number) => Promise<void>, number]>([
    ['the connection is cut before every seventh promotion', (proxy, match, times) => proxy.cutBefore(match, times), 7],
    ['the reply to every seventh promotion is lost', (proxy, match, times) => proxy.swallowReplyTo(match, times), 7],
    ['the connection goes silent after two promotions', (proxy, match) => proxy.swallowReplyKeepOpen(match, 2), 20],
  ])('though %s', async (_fault, arrange, n) => {
    const proxy = await startProxy(redis.url)
    const { scheduler } = await newScheduler(proxy.url)
    // Has the server know the script, so that each call of it is one command.
    await scheduler.runOnce()
    await scheduleMany(redis.client, where, { count: JOBS, dueMs: 1 })
    const happened = arrange(proxy, every(n), 5)
    scheduler.start()

    await happened
    await expectEachOnce()
  })

  test('though two schedulers lose their connections again and again while they move them', async () => {
    const proxy = await startProxy(redis.url)
    const both = await Promise.all([newScheduler(proxy.url), newScheduler(proxy.url)])
    await scheduleMany(redis.client, where, { count: JOBS, dueMs: 1 })
    for (const { scheduler } of both) scheduler.start()
    for (const share of [0.9, 0.6, 0.3]) {
      await eventually(
        async () => expect(await redis.client.zcard(keysOf(where).set)).toBeLessThanOrEqual(JOBS * share),
        { intervalMs: 1 },
      )
      proxy.cut()
    }

    await expectEachOnce()
  })

  test('though Redis is killed in the middle and comes back with what it had answered', async () => {
    const server = await startServer({ aof: true })
    const client = connectTo(server.url)
    await scheduleMany(client, where, { count: JOBS, dueMs: 1 })
    const { scheduler } = await newScheduler(server.url)
    scheduler.start()
    await eventually(async () => expect(await client.zcard(keysOf(where).set)).toBeLessThan(JOBS), { intervalMs: 1 })
    await server.kill()
    await server.restart()

    await expectEachOnce(client)
  })
})
