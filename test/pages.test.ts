import { expect, test } from 'vitest'
import { sumEntries } from '../src/redis/auditing.ts'
import { readEntries, readEntriesBack, readEntryBytes } from '../src/redis/reading.ts'
import { countPage } from '../src/redis/rewinding.ts'
import { retainStep } from '../src/redis/trimming.ts'
import { searchEntry } from '../src/redis/whereabouts.ts'
import { withRedis } from './helpers/redis.ts'

/** However a stream is looked through, one call brings about 1 MiB into Redis's script, whatever comes behind small entries. */

const redis = withRedis()
const SMALL = 200
const LARGE_BYTES = 256 * 1024
/** Entries of one step inside the script: what they hold is not known before they are read. */
const STEP = 32

async function smallThenLarge(): Promise<void> {
  await redis.flush()
  for (let n = 1; n <= SMALL; n++) await redis.client.xadd('orders', `${n}-1`, 'job', 'mail', 'data', String(n))
  const large = 'x'.repeat(LARGE_BYTES)
  for (let n = SMALL + 1; n <= SMALL + 60; n++) await redis.client.xadd('orders', `${n}-1`, 'data', large)
  await redis.client.xgroup('CREATE', 'orders', 'main', '0')
}

test('a page that begins with small entries ends soon after large ones begin', async () => {
  await smallThenLarge()
  const { client } = redis
  const range = { from: '-', to: '+' }
  const place = { stream: 'orders', group: 'main' }
  const pages = [
    (await readEntries(client, 'orders', range)).entries.length,
    (await readEntryBytes(client, 'orders', range)).entries.length,
    (await countPage(client, 'orders', range)).entries,
    (await sumEntries(client, place, { source: 0, ...range })).entries,
  ]
  for (const entries of pages) expect(entries).toBeLessThanOrEqual(SMALL + STEP)
  expect((await searchEntry(client, 'orders', '0-1000000000000001')).entryId).toBe('')
})

test('a page read backwards ends soon after large entries begin, too', async () => {
  await smallThenLarge()
  for (let n = 501; n <= 700; n++) await redis.client.xadd('orders', `${n}-1`, 'job', 'mail', 'data', String(n))
  const page = await readEntriesBack(redis.client, 'orders', { from: '+', to: '-' })
  expect(page.entries.length).toBeLessThanOrEqual(200 + STEP)
  expect(page.next).toBe(`(${page.entries.at(-1)?.id ?? ''}`)
})

test('pages bring every entry once, up to the highest id there is', async () => {
  await smallThenLarge()
  await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'mail')
  const ids: string[] = []
  for (let from: string | undefined = '-'; from !== undefined;) {
    const page: Awaited<ReturnType<typeof readEntries>> = await readEntries(redis.client, 'orders', { from, to: '+' })
    ids.push(...page.entries.map(({ id }) => id))
    from = page.next
  }
  expect(ids).toEqual((await redis.client.xrange('orders', '-', '+')).map(([id]) => id))
})

test('entries of thousands of fields without text are bounded by their number of fields', async () => {
  await redis.flush()
  const fields = Array.from({ length: 3800 }, () => ['', '']).flat()
  for (let n = 1; n <= 100; n++) await redis.client.xadd('orders', `${n}-1`, ...fields)
  const page = await readEntryBytes(redis.client, 'orders', { from: '-', to: '+' })
  expect(page.entries.length).toBeLessThanOrEqual(STEP + 20)
})

test('a trim removes what is settled step by step, small entries and large ones', async () => {
  await smallThenLarge()
  await redis.client.xgroup('SETID', 'orders', 'main', '$')
  let removed = 0
  for (;;) {
    const step = await retainStep(redis.client, 'orders', { limit: 500, forced: { maxEntries: 1 }, defaults: {} })
    removed += step.removed
    if (!step.more) break
    expect(step.removed).toBeLessThanOrEqual(SMALL + STEP)
  }
  expect([removed, await redis.client.xlen('orders')]).toEqual([SMALL + 59, 1])
})
