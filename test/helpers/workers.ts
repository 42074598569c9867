import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import { Worker, type WorkerOptions } from '../../src/index.ts'
import { startChild, type Child } from './child.ts'
import { onEnd } from './cleanup.ts'

/** Short, so that a test waits seconds and not minutes; long enough for a busy machine. */
export const LEASE_MS = 1500

type Options = Partial<WorkerOptions> & { redis: string }

/** A worker in this process, stopped at the end of the test. */
export async function startWorker(options: Options): Promise<Worker> {
  const worker = new Worker({ stream: 'orders', leaseMs: LEASE_MS, logger: false, handlers: { none() {} }, ...options })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  await worker.start()
  return worker
}

/** A worker in a process of its own (test/fixtures/worker-process.ts); `only`: it knows this job alone. */
export interface WorkerProcess extends Child {
  readonly consumer: string
  /** Lines that its handlers wrote, also through a SIGKILL. */
  log(): string[]
}

export async function startWorkerProcess({
  only,
  ...options
}: Omit<Options, 'handlers' | 'logger'> & { only?: string }): Promise<WorkerProcess> {
  const dir = mkdtempSync(join(tmpdir(), 'millrace-log-'))
  onEnd(() => rmSync(dir, { recursive: true, force: true }))
  const file = join(dir, 'log')
  const child = startChild(new URL('../fixtures/worker-process.ts', import.meta.url), {
    env: {
      WORKER: JSON.stringify({ stream: 'orders', leaseMs: LEASE_MS, ...options }),
      LOG: file,
      ...(only !== undefined && { ONLY: only }),
    },
  })
  const [, consumer = ''] = await child.line(/^ready (.+)$/)
  const log = () => {
    try {
      return readFileSync(file, 'utf8').split('\n').filter(Boolean)
    } catch {
      return []
    }
  }
  return Object.assign(child, { consumer, log })
}

/** A handler that waits until it is let go. */
export function gate(): { wait: () => Promise<void>; open: () => void } {
  let open = () => {}
  const opened = new Promise<void>((resolve) => (open = resolve))
  return { wait: () => opened, open }
}

export interface PendingRow {
  id: string
  consumer: string
  idleMs: number
  deliveries: number
}

/** What a group has pending, in order of id. */
export async function pending(
  client: Redis,
  stream = 'orders',
  group = 'main',
  consumer?: string,
): Promise<PendingRow[]> {
  const args = consumer === undefined ? [] : [consumer]
  const rows = (await client.call('xpending', stream, group, '-', '+', '200000', ...args)) as [
    string,
    string,
    number,
    number,
  ][]
  return rows.map(([id, owner, idleMs, deliveries]) => ({ id, consumer: owner, idleMs, deliveries }))
}

/** The tally of a group summed over its minutes, by outcome. */
export async function tally(client: Redis, stream = 'orders', group = 'main'): Promise<Record<string, number>> {
  const sums: Record<string, number> = {}
  for (const key of await client.keys(`{${stream}}:group:${group}:tally:*`)) {
    for (const [field, count] of Object.entries(await client.hgetall(key))) {
      const outcome = field.slice(field.indexOf(':') + 1)
      sums[outcome] = (sums[outcome] ?? 0) + Number(count)
    }
  }
  return sums
}

/** An entry as a foreign producer writes it. */
export async function add(client: Redis, name: string, data: unknown = {}, stream = 'orders'): Promise<string> {
  return (await client.xadd(stream, '*', 'job', name, 'data', JSON.stringify(data))) as string
}
