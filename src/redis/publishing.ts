import type { Redis } from 'ioredis'
import { producerKey, scheduledJobsKey, scheduledKey, settingsKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { openProducer, publishBatch } from './scripts/publish.ts'
import { run, type Argument } from './scripts/script.ts'

/** How long Redis remembers a producer's last batch after it: far longer than anybody waits for a publish. */
const PRODUCER_TTL_MS = 3_600_000

/** Makes the key of a new producer; false if another producer has that id. */
export async function open(client: Redis, stream: string, producerId: string): Promise<boolean> {
  return asNumber(await run(client, openProducer, [producerKey(stream, producerId)], [PRODUCER_TTL_MS])) === 1
}

/** A job as a batch carries it. */
export interface Item {
  /** Its field names and values in order. */
  readonly fields: readonly string[]
  /** When it is due if it is not for now, by the server's clock: ms since the epoch, or `+` and the ms from when Redis has it. */
  readonly due?: string | undefined
}

export type Appended =
  /** What became of each item; see `fateOf`. */
  | { readonly kind: 'done'; readonly ids: readonly (string | undefined)[] }
  | { readonly kind: 'stale' | 'forgotten' }
  | { readonly kind: 'behind'; readonly stored: number }

/** An item's answer: the id of its job, and whether that waits for its time or is in the stream. */
export function fateOf(answer: string): { readonly id: string; readonly outcome: 'added' | 'scheduled' } {
  return answer.startsWith('@') ? { id: answer.slice(1), outcome: 'scheduled' } : { id: answer, outcome: 'added' }
}

/**
 * Appends a batch, once, however often it is sent. `isRemembered`: Redis was told not long ago to remember the producer, and
 * need not be told again.
 */
export async function append(
  client: Redis,
  stream: string,
  batch: { producerId: string; seq: number; items: readonly Item[]; isRemembered?: boolean },
): Promise<Appended> {
  const ttlMs = batch.isRemembered === true ? 0 : PRODUCER_TTL_MS
  const args: Argument[] = [batch.seq, ttlMs, batch.items.length]
  const keys = [stream, producerKey(stream, batch.producerId)]
  if (pushItems(args, batch.items)) keys.push(scheduledKey(stream), scheduledJobsKey(stream), settingsKey(stream))
  const reply = await run(client, publishBatch, keys, args)
  if (typeof reply === 'string')
    return { kind: 'done', ids: reply.split(' ').map((id) => (id === '!' ? undefined : id)) }
  const [kind, detail] = asArray(reply)
  switch (asText(kind)) {
    case 'behind':
      return { kind: 'behind', stored: asNumber(detail) }
    case 'stale':
      return { kind: 'stale' }
    default:
      return { kind: 'forgotten' }
  }
}

/** Jobs of one name that follow each other and have the common shape are a run; see the script. True if some are for later. */
function pushItems(args: Argument[], items: readonly Item[]): boolean {
  let [runName, runAt] = ['', -1]
  let hasLater = false
  for (const { fields, due } of items) {
    const [job, name = '', data, payload = ''] = fields
    if (due !== undefined || fields.length !== 4 || job !== 'job' || data !== 'data') {
      runAt = -1
      if (due !== undefined) args.push(0, due)
      hasLater ||= due !== undefined
      args.push(fields.length, ...fields)
      continue
    }
    if (runAt < 0 || name !== runName) {
      ;[runName, runAt] = [name, args.length]
      args.push(0, name)
    }
    args[runAt] = (args[runAt] as number) - 1
    args.push(payload)
  }
  return hasLater
}
