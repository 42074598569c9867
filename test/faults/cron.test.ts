import { describe, expect, test } from 'vitest'
import { cronDueKey } from '../../src/redis/keys.ts'
import { startChild } from '../helpers/child.ts'
import { firedTicks, makeDue, newFirer } from '../helpers/cron.ts'
import { eventually } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { startProxy, type FaultProxy, type Match } from '../helpers/proxy.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'

const redis = withRedis()
const HOUR_MS = 3_600_000

/** Schedules of which so many ticks are over and none was fired; gives `<schedule> <tick>` of all of them. */
async function overdue(schedules: number, ticks: number): Promise<string[]> {
  const { cron } = newInspector(redis.url)
  const nowMs = await serverMs(redis.client)
  const one = async (n: number): Promise<string[]> => {
    // Every second one by the calendar: its hours are those of the clock.
    const isSteps = n % 2 === 0
    const minute = new Date(nowMs - HOUR_MS / 2).getUTCMinutes()
    const hourMs = nowMs - (nowMs % HOUR_MS) - ticks * HOUR_MS
    const firstMs = isSteps ? nowMs - (ticks - 0.5) * HOUR_MS : hourMs + minute * 60_000
    const times = isSteps ? { everyMs: HOUR_MS, start: firstMs } : { at: `${minute} * * * *` }
    await cron.set('orders', { name: `s${n}`, job: 'x', catchUp: 'all', ...times })
    await makeDue(redis.client, `s${n}`, firstMs)
    const count = Math.floor((nowMs - firstMs) / HOUR_MS) + 1
    return Array.from({ length: count }, (_, at) => `s${n} ${firstMs + at * HOUR_MS}`)
  }
  const expected = (await Promise.all(Array.from({ length: schedules }, (_, n) => one(n)))).flat()
  return expected.sort()
}

/** The call that reads what is due has two keys, the one that fires has four. */
const isCall =
  (keys: '2' | '4', nth = 1): Match =>
  ([name, , count, ...rest]) =>
    name === 'evalsha' && count === keys && rest.includes(cronDueKey('orders')) && --nth === 0

describe('each tick is fired once, though a worker is killed by kill -9', () => {
  const steps: [string, (proxy: FaultProxy) => { reached: Promise<void>; after: () => Promise<void> | void }][] = [
    ['before it has looked what is due', (proxy) => held(proxy, isCall('2'), false)],
    ['when it knows what is due, before its call is sent', (proxy) => held(proxy, isCall('4'), false)],
    ['and its call comes to Redis when it is dead', (proxy) => held(proxy, isCall('4'), true)],
    ['when Redis has fired and has not told it', (proxy) => unheard(proxy, isCall('4'))],
    ['in the middle of a backlog', (proxy) => unheard(proxy, isCall('4', 3))],
  ]

  test.each(steps)('%s', async (_step, arrange) => {
    const proxy = await startProxy(redis.url)
    // Has the server know the scripts, so that each call is one command.
    const { firer } = await newFirer(redis.url)
    await overdue(1, 1)
    await firer.runOnce()
    await redis.flush()
    const expected = await overdue(5, 230)
    const { reached, after } = arrange(proxy)
    const child = startChild(new URL('../fixtures/cron-firer.ts', import.meta.url), { env: { REDIS: proxy.url } })
    await reached
    child.signal('SIGKILL')
    await child.exited
    await after()
    await firer.runOnce()

    expect(await firedTicks(redis.client)).toEqual(expected)
  })

  function held(proxy: FaultProxy, match: Match, isSent: boolean) {
    const hold = proxy.holdBefore(match)
    return { reached: hold.held, after: () => (isSent ? hold.release() : proxy.stop()) }
  }

  function unheard(proxy: FaultProxy, match: Match) {
    return { reached: proxy.swallowReplyKeepOpen(match), after: () => {} }
  }
})

test('8 workers fire 1 000 schedules, each of their ticks once', async () => {
  const expected = await overdue(1000, 3)
  const workers = await Promise.all(Array.from({ length: 8 }, () => newFirer(redis.url)))
  for (const { firer } of workers) {
    firer.start()
    firer.note(0)
  }
  // Eight workers in one process work out the same ticks: on a busy machine that takes its time, and the answer to a call may
  // come too late to be counted.
  const fired = () => redis.client.xlen('orders')
  await eventually(async () => expect(await fired()).toBe(expected.length), { timeoutMs: 110_000 })

  expect(await firedTicks(redis.client)).toEqual(expected)
  expect(workers.filter(({ counts }) => counts.cronFired > 0).length).toBeGreaterThan(1)
})

test('each tick is fired once, though the replies to every third call are lost', async () => {
  const proxy = await startProxy(redis.url)
  const expected = await overdue(4, 500)
  const { firer, counts } = await newFirer(proxy.url)
  let seen = 0
  const happened = proxy.swallowReplyTo(([name]) => name === 'evalsha' && ++seen % 3 === 0, 3)
  firer.start()
  firer.note(0)
  await happened
  await eventually(async () => expect(await firedTicks(redis.client)).toEqual(expected))

  expect(counts.cronFired).toBeLessThanOrEqual(expected.length)
})
