import { Connection } from './connection.ts'
import type { RedisTarget } from './target.ts'

/**
 * Whether Redis answers on a connection made just for that. Only a new connection tells a Redis that is away from a
 * connection of ours that is broken. A script is asked for and not a PING: while writes are paused (CLIENT PAUSE, a failover)
 * Redis answers a PING at once and holds scripts, as it holds what a worker asks. An error is no answer: a Redis that loads
 * its data, or refuses us, is as good as away.
 */
export async function answersAnew(target: RedisTarget, timeoutMs: number): Promise<boolean> {
  const connection = new Connection(target, { role: 'probe', socketTimeoutMs: timeoutMs })
  const over = setTimeout(() => connection.close(), timeoutMs)
  try {
    await connection.ready(timeoutMs)
    await connection.client.eval('return 1', 0)
    return true
  } catch {
    return false
  } finally {
    clearTimeout(over)
    connection.close()
  }
}
