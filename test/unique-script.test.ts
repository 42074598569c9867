import { describe, expect, test } from 'vitest'
import { producerKey, scheduledJobsKey, scheduledKey, uniqueKey } from '../src/redis/keys.ts'
import { append, fateOf, isRefused, open, type Appended, type Item, type UniqueItem } from '../src/redis/publishing.ts'
import { uniqueFields } from '../src/publish/unique.ts'
import { storedNumbers } from './fixtures/producers.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()
const IN_AN_HOUR = '+3600000'
const HOUR_MS = 3_600_000

/** A job that is a number, unique by a key. */
function item(n: number, key: string, { due, ...how }: Partial<UniqueItem> & { due?: string } = {}): Item {
  const unique = { key, until: 'settled' as const, ttlMs: 0, group: '', mode: 'reject' as const, maxWaitMs: 0, ...how }
  return { fields: ['job', 'x', 'data', String(n), ...uniqueFields(unique)], due, unique }
}

/** Sends one batch as producer `producerId`, which is made for its first. */
async function send(seq: number, items: readonly Item[], { producerId = 'p', client = redis.client } = {}) {
  if (seq === 1) await open(client, 'orders', producerId)
  return append(client, 'orders', { producerId, seq, items })
}

function fates(answer: Appended) {
  if (answer.kind !== 'done') throw new Error(`expected a batch that is done, got ${answer.kind}`)
  return answer.ids.map((id) => (isRefused(id) ? (id ?? '!') : fateOf(id)))
}

describe('a job with a key', () => {
  test('is appended, and another of the key is told the id of the first', async () => {
    const [first] = fates(await send(1, [item(1, 'a')]))
    const [second] = fates(await send(1, [item(2, 'a')], { producerId: 'q' }))

    expect(first).toMatchObject({ outcome: 'added' })
    expect(second).toEqual({ id: (first as { id: string }).id, outcome: 'duplicate' })
    expect(await storedNumbers(redis.client)).toEqual([1])
  })
})
