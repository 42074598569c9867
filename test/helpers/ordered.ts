import type { Redis } from 'ioredis'
import type { WorkerOptions } from '../../src/index.ts'
import { startChild, type Child } from './child.ts'

/** Workers of jobs in order that write down in Redis when their handlers begin and end (test/fixtures/order-worker.ts). */

export interface Step {
  readonly what: 'begin' | 'end' | 'fail'
  readonly n: number
  readonly attempt: number
  readonly deliveries: number
  readonly pid: number
}

export async function stepsOf(client: Redis, key: string): Promise<Step[]> {
  return (await client.lrange(`steps:${key}`, 0, -1)).map((text) => {
    const [what, ...numbers] = text.split(' ')
    const [n = NaN, attempt = NaN, deliveries = NaN, pid = NaN] = numbers.map(Number)
    return { what: what as Step['what'], n, attempt, deliveries, pid }
  })
}

export async function startOrdered(
  options: Partial<Omit<WorkerOptions, 'handlers' | 'logger'>> & { redis: string; leaseMs: number },
  onFailure: 'block' | 'skip' = 'block',
): Promise<Child> {
  const worker = { stream: 'orders', logger: false, ...options }
  const child = startChild(new URL('../fixtures/order-worker.ts', import.meta.url), {
    env: { WORKER: JSON.stringify(worker), ON_FAILURE: onFailure },
  })
  await child.line(/^ready/, { timeoutMs: 120_000 })
  return child
}
