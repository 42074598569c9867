import type { Redis } from 'ioredis'
import { holdsKey, redeliveryKey } from '../../src/redis/keys.ts'

/** History to replay, and what came of it. */

/** Jobs of 10 ms each from this moment on, with what a test gives of each of them; returns their ids. */
export async function history(
  client: Redis,
  count: number,
  { stream = 'orders', job = () => 'mail', startMs = HISTORY_MS }: HistoryOptions = {},
): Promise<string[]> {
  const ids = Array.from({ length: count }, (_, n) => `${startMs + n * 10}-0`)
  const pipeline = client.pipeline()
  for (const [n, id] of ids.entries()) pipeline.xadd(stream, id, 'job', job(n), 'data', JSON.stringify({ n }))
  await pipeline.exec()
  return ids
}

interface HistoryOptions {
  readonly stream?: string
  readonly job?: (n: number) => string
  readonly startMs?: number
}

export const HISTORY_MS = 1_795_000_000_000

export interface CopySeen {
  readonly id: string
  readonly fields: Readonly<Record<string, string>>
}

/** The copies that a group was brought, in their order; or what a stream holds. */
export async function copies(client: Redis, key = redeliveryKey('orders', 'main')): Promise<CopySeen[]> {
  const rows = await client.xrange(key, '-', '+')
  return rows.map(([id, flat]) => {
    const fields: Record<string, string> = {}
    for (let at = 0; at < flat.length; at += 2) fields[flat[at] ?? ''] ??= flat[at + 1] ?? ''
    return { id, fields }
  })
}

/** What they are copies of, in their order. */
export async function originals(client: Redis, key?: string): Promise<string[]> {
  return (await copies(client, key)).map(({ fields }) => fields['replay-of'] ?? '')
}

export async function holds(client: Redis, stream = 'orders'): Promise<Record<string, string>> {
  return client.hgetall(holdsKey(stream))
}
