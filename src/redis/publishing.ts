import type { Redis } from 'ioredis'
import { producerKey } from './keys.ts'
import { asArray, asNumber, asText } from './replies.ts'
import { openProducer, publishBatch } from './scripts/publish.ts'
import { run, type Argument } from './scripts/script.ts'

/** How long Redis remembers a producer's last batch after it: far longer than anybody waits for a publish. */
const PRODUCER_TTL_MS = 3_600_000

/** Makes the key of a new producer; false if another producer has that id. */
export async function open(client: Redis, stream: string, producerId: string): Promise<boolean> {
  return asNumber(await run(client, openProducer, [producerKey(stream, producerId)], [PRODUCER_TTL_MS])) === 1
}

export type Appended =
  | { readonly kind: 'done'; readonly ids: readonly (string | undefined)[] }
  | { readonly kind: 'stale' | 'forgotten' }
  | { readonly kind: 'behind'; readonly stored: number }

/**
 * Appends a batch, once, however often it is sent. Each item is its field names and values in order. `isRemembered`: Redis was
 * told not long ago to remember the producer, and need not be told again.
 */
export async function append(
  client: Redis,
  stream: string,
  batch: { producerId: string; seq: number; items: readonly (readonly string[])[]; isRemembered?: boolean },
): Promise<Appended> {
  const ttlMs = batch.isRemembered === true ? 0 : PRODUCER_TTL_MS
  const args: Argument[] = [batch.seq, ttlMs, batch.items.length]
  pushItems(args, batch.items)
  const keys = [stream, producerKey(stream, batch.producerId)]
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

/** Jobs of one name that follow each other and have the common shape are a run; see the script. */
function pushItems(args: Argument[], items: readonly (readonly string[])[]): void {
  let [runName, runAt] = ['', -1]
  for (const fields of items) {
    const [job, name = '', data, payload = ''] = fields
    if (fields.length !== 4 || job !== 'job' || data !== 'data') {
      runAt = -1
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
}
