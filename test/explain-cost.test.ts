import { expect, test } from 'vitest'
import { openMonitor } from '../bench/measures/monitor.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { buryByHand, delayedId } from './helpers/scheduled.ts'

/** What explaining costs is counted, not timed: commands, also those within scripts. */

const redis = withRedis()
const BASE_MS = 1_700_000_000_000

async function fill(count: number): Promise<void> {
  const script = `for n = 0, tonumber(ARGV[1]) - 1 do
    redis.call('XADD', KEYS[1], string.format('%.0f', ${BASE_MS} + n) .. '-0', 'job', 'mail', 'data', '{}')
  end`
  await redis.client.eval(script, 1, 'orders', count)
}

/** Calls of each command since the last reset. */
async function calls(): Promise<Record<string, number>> {
  const stats = await redis.client.info('commandstats')
  const found = [...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name = '', count]) => [name, Number(count)])
  return Object.fromEntries(found.filter(([name]) => !/^(info|config|client)/.test(String(name)))) as Record<
    string,
    number
  >
}

/** What the client itself sent, by command. */
async function sentBy(ask: () => Promise<unknown>): Promise<string[]> {
  const sent: string[] = []
  const monitor = await openMonitor(redis.url, ({ name, isOfScript }) => {
    if (!isOfScript) sent.push(name)
  })
  await ask()
  await redis.client.ping('the end')
  await eventually(() => expect(sent.at(-1)).toBe('ping'))
  monitor.close()
  return sent.filter((name) => !['ping', 'info', 'client', 'hello', 'select'].includes(name))
}

test('explaining touches as much with two hundred thousand entries as with two thousand', async () => {
  const inspector = newInspector(redis.url)
  const seen: Record<string, number>[][] = []
  for (const count of [2000, 200_000]) {
    await redis.flush()
    await fill(count)
    await redis.client.xgroup('CREATE', 'orders', 'main', `${BASE_MS + 99}-0`)
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 10, 'STREAMS', 'orders', '>')
    // Settled, pending, next to be delivered, at the end, never was, newer, delayed.
    const ids = [50, 105, 115, count - 1].map((n) => `${BASE_MS + n}-0`)
    const asked = [...ids, `${BASE_MS + 50}-7`, '9999999999999-0', await delayedId(redis.client)]
    for (const id of asked) await inspector.explain('orders', id)
    const each: Record<string, number>[] = []
    for (const id of asked) {
      await redis.client.config('RESETSTAT')
      await inspector.explain('orders', id)
      each.push(await calls())
    }
    seen.push(each)
  }
  expect(seen[1]).toEqual(seen[0])
  for (const each of seen[0] ?? []) {
    expect(each['xrange']).toBeLessThan(10)
    // Steps of 16 entries, through 500 at most.
    expect(each['xrevrange'] ?? 0).toBeLessThan(40)
  }
})

test.each([1, 50])(
  'explaining takes fewer than 20 commands with %i groups, also while the scripts are new',
  async (count) => {
    await fill(5000)
    for (let n = 0; n < count; n++) await redis.client.xgroup('CREATE', 'orders', `g${n}`, '0')
    const inspector = newInspector(redis.url)
    const deadId = await buryByHand(redis.client, `${BASE_MS}-1000000000000001`, 'g0')
    // Of a job that is found, of a delayed one whose entry is looked for in vain, of an id that may be a dead letter's,
    // and of one that is, that of a delayed one.
    for (const id of [`${BASE_MS}-0`, `${BASE_MS}-1000000000000002`, `${BASE_MS}-9`, deadId]) {
      await redis.client.script('FLUSH')
      const sent = await sentBy(() => inspector.explain('orders', id))
      expect(sent.length).toBeGreaterThan(1)
      expect(sent.length).toBeLessThan(20)
    }
  },
)
