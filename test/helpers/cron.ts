import type { Redis } from 'ioredis'
import { CronFirer } from '../../src/cron/firer.ts'
import { resolveLogger, type Logger } from '../../src/logger.ts'
import { Connection } from '../../src/redis/connection.ts'
import { cronDueKey, cronKey } from '../../src/redis/keys.ts'
import { resolveRedis } from '../../src/redis/target.ts'
import { ServerClock } from '../../src/server-clock.ts'
import { onEnd } from './cleanup.ts'

/** What fires the schedules of `orders` in a worker, with a connection of its own; both end with the test. */
export async function newFirer(url: string, logger: Logger = resolveLogger(false)) {
  const connection = new Connection(resolveRedis(url), { role: 'test', socketTimeoutMs: 1000 })
  const counts = { cronFired: 0, cronSkipped: 0 }
  const firer = new CronFirer({ connection, stream: 'orders', clock: new ServerClock(), counts, logger })
  onEnd(async () => {
    await firer.stop()
    connection.close()
  })
  await connection.ready(5000)
  return { firer, counts }
}

/** As if it had waited for this tick since then, and no worker had been there. */
export async function makeDue(client: Redis, name: string, dueMs: number): Promise<void> {
  const state = ((await client.hget(cronKey('orders'), `${name}/state`)) ?? '').split(' ')
  state[1] = String(dueMs)
  await client.hset(cronKey('orders'), `${name}/state`, state.join(' '))
  await client.zadd(cronDueKey('orders'), dueMs, name)
}

export interface FiredJob {
  readonly id: string
  readonly fields: Readonly<Record<string, string>>
}

/** All jobs of the stream, in its order. */
export async function firedJobs(client: Redis): Promise<FiredJob[]> {
  const entries = await client.xrange('orders', '-', '+')
  return entries.map(([id, flat]) => {
    const pairs = flat.flatMap((name, at) => (at % 2 === 0 ? [[name, flat[at + 1] ?? '']] : []))
    return { id, fields: Object.fromEntries(pairs) as Record<string, string> }
  })
}

/** `<schedule> <tick>` of all of them, in order. */
export async function firedTicks(client: Redis): Promise<string[]> {
  return (await firedJobs(client)).map(({ fields }) => fields['cron'] ?? '').sort()
}
