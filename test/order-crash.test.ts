import { describe, expect, test } from 'vitest'
import { defineJob, handle } from '../src/index.ts'
import { groupScheduledKey, lineKey } from '../src/redis/keys.ts'
import { settleCompleted } from '../src/redis/scripts/delivery.ts'
import { askTurns } from '../src/redis/scripts/order.ts'
import { settleFenced } from '../src/redis/scripts/outcomes.ts'
import type { Script } from '../src/redis/scripts/script.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { startOrdered, stepsOf } from './helpers/ordered.ts'
import { startProxy } from './helpers/proxy.ts'
import { withRedis } from './helpers/redis.ts'
import { gate, LEASE_MS, startWorker } from './helpers/workers.ts'

/** What becomes of the jobs of a key when a worker is killed at each of its steps: before Redis hears of it, or after it was done. */

const redis = withRedis()
const add = (n: number, more: object = {}) =>
  redis.client.xadd('orders', '*', 'job', 'step', 'data', JSON.stringify({ n, ...more }), 'key', 'k') as Promise<string>
const line = () => redis.client.zrange(lineKey('orders', 'main', 'k'), '0', '-1')
const turns = () => redis.client.zcount(lineKey('orders', 'main', 'k'), '-inf', '(0')

type When = 'before' | 'after'

/** A worker of its own process, which is killed where it calls a script: before Redis hears of it, or when it was done. */
async function startDoomed(script: Script, when: When, onFailure?: 'block' | 'skip') {
  await redis.client.script('LOAD', script.lua)
  const proxy = await startProxy(redis.url)
  const match = ([name, sha]: readonly string[]) => name === 'evalsha' && sha === script.sha
  const hold = when === 'before' ? proxy.holdBefore(match) : undefined
  const reached = hold?.held ?? proxy.swallowReplyKeepOpen(match)
  const child = await startOrdered({ redis: proxy.url, leaseMs: LEASE_MS }, onFailure)
  const killed = reached.then(async () => {
    child.signal('SIGKILL')
    await child.exited
  })
  return { killed, release: () => hold?.release() }
}

/** The one that goes on, and what began there: number and attempt. */
async function startHeir(onFailure: 'block' | 'skip' = 'block') {
  const doors = new Map<number, ReturnType<typeof gate>>()
  onEnd(() => doors.forEach((door) => door.open()))
  const begun: string[] = []
  const job = defineJob<{ n: number; failures?: number }>('step', { onFailure, retry: { attempts: 5, delayMs: 20 } })
  const run = async ({ n, failures = 0 }: { n: number; failures?: number }, { attempt }: { attempt: number }) => {
    begun.push(`${n}.${attempt}`)
    await doors.get(n)?.wait()
    if (attempt <= failures) throw new Error('not yet')
  }
  const hold = (n: number) => {
    const door = gate()
    doors.set(n, door)
    return door.open
  }
  const start = () => startWorker({ redis: redis.url, concurrency: 1, handlers: [handle(job, run)] })
  return { begun, hold, start }
}

const done = async (begun: readonly string[], wanted: readonly string[]) => {
  await eventually(() => expect(begun).toEqual(wanted))
  await eventually(async () => expect(await line()).toEqual([]))
  expect(await redis.client.zcard(groupScheduledKey('orders', 'main'))).toBe(0)
}

describe('a worker that is killed', () => {
  test.each<[When, number]>([
    ['before', 0],
    ['after', 1],
  ])('%s Redis has given a turn leaves a line that goes on in its order', async (when, given) => {
    for (const n of [1, 2, 3]) await add(n)
    const { killed } = await startDoomed(askTurns, when)
    await killed
    expect(await turns()).toBe(given)
    expect(await stepsOf(redis.client, 'k')).toEqual([])
    const heir = await startHeir()
    await heir.start()
    await done(heir.begun, ['1.1', '2.1', '3.1'])
  })

  test.each<[When, string[]]>([
    ['before', ['1.1', '2.1', '3.1']],
    ['after', ['2.1', '3.1']],
  ])('%s a completion was settled runs again only what was not, and all behind it', async (when, wanted) => {
    for (const n of [1, 2, 3]) await add(n)
    const { killed, release } = await startDoomed(settleCompleted, when)
    await killed
    expect((await stepsOf(redis.client, 'k')).map(({ what, n }) => `${what} ${n}`)).toEqual(['begin 1', 'end 1'])
    const heir = await startHeir()
    const open = heir.hold(2)
    await heir.start()
    await eventually(() => expect(heir.begun.at(-1)).toBe('2.1'))
    const [second] = await line()
    // What was on its way still arrives: it takes the turn from nobody.
    release()
    await eventually(async () => expect(await turns()).toBe(1))
    expect((await line())[0]).toBe(second)
    open()
    await done(heir.begun, wanted)
  })

  test.each<[When, number]>([
    ['before', 0],
    ['after', 1],
  ])('%s a job was put off that waits for its turn leaves it to the others', async (when, scheduled) => {
    const heir = await startHeir()
    const open = heir.hold(1)
    await add(1)
    await heir.start()
    await eventually(() => expect(heir.begun).toEqual(['1.1']))
    const { killed } = await startDoomed(settleFenced, when)
    for (const n of [2, 3]) await add(n)
    await killed
    expect(await redis.client.zcard(groupScheduledKey('orders', 'main'))).toBeGreaterThanOrEqual(scheduled)
    open()
    await done(heir.begun, ['1.1', '2.1', '3.1'])
  })

  test.each<['block' | 'skip', string[]]>([
    ['block', ['1.2', '2.1']],
    ['skip', ['2.1', '1.2']],
  ])('after a retry was written, of a job that would %s, loses neither it nor the order', async (how, wanted) => {
    await add(1, { failures: 1 })
    await add(2)
    const { killed } = await startDoomed(settleFenced, 'after', how)
    await killed
    expect(await turns()).toBe(how === 'block' ? 1 : 0)
    const heir = await startHeir(how)
    await heir.start()
    await done(heir.begun, wanted)
  })
})
