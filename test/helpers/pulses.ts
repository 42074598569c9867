import type { Redis } from 'ioredis'
import { expect } from 'vitest'
import { workersKey } from '../../src/redis/keys.ts'
import { eventually } from './eventually.ts'

export interface PulseOptions {
  /** At least so many are waited for. @default 1 */
  workers?: number
  /** The group. @default 'main' */
  of?: string
  /** Consumers that are dead, and send none. @default none */
  but?: readonly string[]
}

/** Waits until as many workers of the group are there, and each has sent so many pulses more. */
export async function awaitPulses(client: Redis, count: number, options: PulseOptions = {}): Promise<void> {
  const { workers = 1, of = 'main', but = [] } = options
  const beats = async () => {
    const flat = await client.zrangebyscore(workersKey('orders', of), '-inf', '+inf', 'WITHSCORES')
    const all = flat.flatMap((name, at) => (at % 2 ? [] : [[name, flat[at + 1]] as const]))
    return new Map(all.filter(([name]) => !but.includes(name)))
  }
  await eventually(async () => expect((await beats()).size).toBeGreaterThanOrEqual(workers))
  for (let n = 0; n < count; n++) {
    const before = await beats()
    await eventually(async () => {
      const now = await beats()
      for (const [name, score] of before) expect(now.get(name)).not.toBe(score)
    })
  }
}
