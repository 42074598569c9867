import { Connection } from './connection.ts'
import type { RedisTarget } from './target.ts'

/**
 * Whether Redis answers a PING on a connection made just for it. Only a new connection tells a Redis that is away from a
 * connection of ours that is broken. An error is no answer: a Redis that loads its data, or refuses us, is as good as away.
 */
export async function answersAnew(target: RedisTarget, timeoutMs: number): Promise<boolean> {
  const connection = new Connection(target, { role: 'probe', socketTimeoutMs: timeoutMs })
  const over = setTimeout(() => connection.close(), timeoutMs)
  try {
    await connection.ready(timeoutMs)
    await connection.client.ping()
    return true
  } catch {
    return false
  } finally {
    clearTimeout(over)
    connection.close()
  }
}
