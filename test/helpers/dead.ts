import type { Redis } from 'ioredis'
import type { Worker } from '../../src/index.ts'
import { deadKey, indexKey, redeliveryKey } from '../../src/redis/keys.ts'
import { eventually } from './eventually.ts'
import { add, startWorker } from './workers.ts'

/**
 * Dead letters for tests: by a worker, as they come about, and by hand, where their number, age or shape is what matters.
 * All of them of group main on stream orders.
 */

export const DEAD = deadKey('orders', 'main')
export const INDEX = indexKey('orders', 'main')
export const REDELIVERY = redeliveryKey('orders', 'main')

/** The group as a worker's start leaves it behind, with no worker. */
export async function makeGroup(client: Redis): Promise<void> {
  for (const key of ['orders', REDELIVERY]) await client.xgroup('CREATE', key, 'main', '0', 'MKSTREAM')
}

/** A worker whose jobs are dead after one run. */
export function startFailing(url: string): Promise<Worker> {
  const handlers = {
    mail() {
      throw new TypeError('no such address')
    },
  }
  return startWorker({ redis: url, handlers, retry: { attempts: 1 } })
}

/** Why they are. */
export const FAILED_REASON = 'attempts'

/** Publishes jobs that fail at once; gives their ids when all of them are dead. */
export async function killJobs(redis: { url: string; client: Redis }, count: number): Promise<string[]> {
  const worker = await startFailing(redis.url)
  const before = await redis.client.xlen(DEAD)
  const ids: string[] = []
  for (let n = 0; n < count; n++) ids.push(await add(redis.client, 'mail', { n }))
  await eventually(async () => {
    if ((await redis.client.xlen(DEAD)) < before + count) throw new Error('not all of them are dead yet')
  })
  await worker.stop()
  return ids
}

/** What a letter written by hand says; what is left out is ordinary. */
export interface ByHand {
  readonly id: string
  readonly deadId?: string
  readonly job?: string
  readonly reason?: string
  readonly error?: string
  readonly message?: string
  readonly deadMs?: number
  readonly totalAttempts?: number
  /** Raw fields, flat, in place of job and data. */
  readonly raw?: readonly (string | Buffer)[]
  /** What follows the provenance, in place of the raw fields and their count. */
  readonly rest?: readonly (string | Buffer)[]
  /** Provenance left out, as by a worker of an older version. */
  readonly without?: readonly string[]
  readonly isIndexed?: boolean
}

/** Writes dead letters as a worker would; gives their own ids. */
export async function bury(client: Redis, ...letters: readonly ByHand[]): Promise<string[]> {
  const pipeline = client.pipeline()
  for (const letter of letters) pipeline.xadd(DEAD, letter.deadId ?? '*', ...fieldsOf(letter))
  const deadIds = ((await pipeline.exec()) ?? []).map(([error, id]) => {
    if (error !== null) throw error
    return id as string
  })
  const index = client.pipeline()
  for (const [at, { id, isIndexed = true }] of letters.entries()) {
    if (isIndexed) index.hset(INDEX, id, `dead ${deadIds[at] ?? ''}`)
  }
  await index.exec()
  return deadIds
}

/** So many letters by hand, of jobs published at 1-0, 2-0 … of some day. */
export async function buryMany(client: Redis, count: number, shape: Omit<ByHand, 'id'> = {}): Promise<string[]> {
  const ids = Array.from({ length: count }, (_, n) => `${PUBLISHED_MS + n}-0`)
  await bury(client, ...ids.map((id) => ({ ...shape, id })))
  return ids
}

export const PUBLISHED_MS = 1_700_000_000_000

/** What is in the redelivery stream, field names and values, in its order. */
export async function redelivered(client: Redis): Promise<{ id: string; fields: Record<string, string> }[]> {
  const entries = await client.xrange(REDELIVERY, '-', '+')
  return entries.map(([id, flat]) => {
    const pairs = Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at], flat[2 * at + 1]])
    return { id, fields: Object.fromEntries(pairs) as Record<string, string> }
  })
}

/** Job ids of what is dead, in the order of their death. */
export async function deadJobs(client: Redis): Promise<string[]> {
  return (await client.xrange(DEAD, '-', '+')).map(([, flat]) => flat[flat.indexOf('dead-id') + 1] as string)
}

/** Job ids of what is dead and of what is in the redelivery stream, sorted: a job in both is there twice. */
export async function deadOrRedelivered(client: Redis): Promise<string[]> {
  const moved = (await redelivered(client)).map(({ fields }) => fields['id'] as string)
  return [...(await deadJobs(client)), ...moved].sort()
}

function fieldsOf(letter: ByHand): (string | Buffer)[] {
  const { id, job = 'mail', raw = ['job', job, 'data', '{"n":1}'], without = [], rest } = letter
  const provenance: [string, string | number][] = [
    ['dead-reason', letter.reason ?? 'attempts'],
    ['dead-id', id],
    ['dead-origin', id],
    ['dead-source', 'stream'],
    ['dead-attempts', 3],
    ['dead-total-attempts', letter.totalAttempts ?? 3],
    ['dead-deliveries', 1],
    ['dead-worker', 'w'],
    ['dead-error', letter.error ?? 'Error'],
    ['dead-message', letter.message ?? 'no such address'],
    ['dead-stack', 'Error: no such address\n    at mail'],
    ['dead-first-failed', PUBLISHED_MS + 5],
    ['dead-at', letter.deadMs ?? Date.now()],
  ]
  const told = provenance.filter(([name]) => !without.includes(name)).flatMap(([name, value]) => [name, String(value)])
  return [...told, ...(rest ?? ['dead-fields', String(raw.length / 2), ...raw])]
}
