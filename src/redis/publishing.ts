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

/** Appends a batch, once, however often it is sent. Each item is its field names and values in order. */
export async function append(
  client: Redis,
  stream: string,
  batch: { producerId: string; seq: number; items: readonly (readonly string[])[] },
): Promise<Appended> {
  const args: Argument[] = [batch.seq, PRODUCER_TTL_MS, batch.items.length]
  for (const fields of batch.items) {
    args.push(fields.length)
    for (const field of fields) args.push(field)
  }
  const keys = [stream, producerKey(stream, batch.producerId)]
  const [kind, detail] = asArray(await run(client, publishBatch, keys, args))
  switch (asText(kind)) {
    case 'done':
      return {
        kind: 'done',
        ids: asText(detail)
          .split(' ')
          .map((id) => (id === '!' ? undefined : id)),
      }
    case 'behind':
      return { kind: 'behind', stored: asNumber(detail) }
    case 'stale':
      return { kind: 'stale' }
    default:
      return { kind: 'forgotten' }
  }
}
