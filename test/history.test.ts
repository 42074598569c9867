import { describe, expect, test } from 'vitest'
import { bucketed, hourLines, isUnicode, sparkline } from '../cli/sparkline.ts'
import { historyOf, minutesUntil } from '../src/history.ts'
import { tallyKey } from '../src/redis/keys.ts'
import { makeGroup } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

const redis = withRedis()
const MINUTE_MS = 60_000

/** As a settling script counts it. */
async function count(ms: number, outcome: string, by: number): Promise<void> {
  const text = new Date(ms).toISOString()
  await redis.client.hincrby(
    tallyKey('orders', 'main', text.slice(0, 13)),
    `${Number(text.slice(14, 16))}:${outcome}`,
    by,
  )
}

describe('the history of a group', () => {
  test('has what became of its jobs, at the minute in which they were published', async () => {
    const handlers = {
      mail() {},
      bad() {
        throw new Error('no')
      },
    }
    await startWorker({ redis: redis.url, handlers, retry: { attempts: 1 } })
    const ids = [await add(redis.client, 'mail'), await add(redis.client, 'mail'), await add(redis.client, 'bad')]
    const sums = await eventually(async () => {
      const { minutes } = await newInspector(redis.url).history('orders', 'main')
      const found = minutes.filter(({ completed, dead }) => completed + dead > 0)
      expect(found.reduce((sum, { completed, dead }) => sum + completed + dead, 0)).toBe(3)
      return found
    })
    const publishedMs = ids.map((id) => Math.floor(Number.parseInt(id) / MINUTE_MS) * MINUTE_MS)
    expect(sums.map(({ ms }) => ms)).toEqual([...new Set(publishedMs)])
  })

  test('has every minute once, oldest first, over hours, and each outcome under its name', async () => {
    await makeGroup(redis.client)
    const now = await serverMs(redis.client)
    await count(now - 90 * MINUTE_MS, 'completed', 5)
    await count(now - 90 * MINUTE_MS, 'dead', 2)
    await count(now - 30 * MINUTE_MS, 'retried', 3)
    for (const outcome of ['cancelled', 'late', 'redriven', 'replayed']) await count(now - 3 * MINUTE_MS, outcome, 1)
    await count(now - 121 * MINUTE_MS, 'completed', 100)
    const { group, minutes } = await newInspector(redis.url).history('orders', 'main', { minutes: 120 })
    expect([group, minutes.length]).toEqual(['main', 120])
    expect(minutes.every(({ ms }, at) => at === 0 || ms - (minutes[at - 1]?.ms ?? 0) === MINUTE_MS)).toBe(true)
    const none = { completed: 0, retried: 0, dead: 0, cancelled: 0, skipped: 0, late: 0, redriven: 0, replayed: 0 }
    expect(minutes.filter((minute) => Object.values(minute).some((value) => value > 0 && value < 1000))).toEqual([
      { ms: expect.any(Number) as number, ...none, completed: 5, dead: 2 },
      { ms: expect.any(Number) as number, ...none, retried: 3 },
      { ms: expect.any(Number) as number, ...none, cancelled: 1, late: 1, redriven: 1, replayed: 1 },
    ])
  })

  test('takes what is no count for none', () => {
    const minutes = minutesUntil(Date.UTC(2026, 10, 21, 10, 1, 59), 3)
    expect(minutes.map((ms) => new Date(ms).toISOString())).toEqual([
      '2026-11-21T09:59:00.000Z',
      '2026-11-21T10:00:00.000Z',
      '2026-11-21T10:01:00.000Z',
    ])
    const tallies = new Map([
      ['2026-11-21T09', { '59:completed': '7', '58:completed': '9' }],
      ['2026-11-21T10', { '0:completed': 'x', '1:dead': '-3' }],
    ])
    expect(historyOf(minutes, tallies).map(({ completed, dead }) => [completed, dead])).toEqual([
      [7, 0],
      [0, 0],
      [0, 0],
    ])
  })

  test('is asked for up to a day, of a group that exists', async () => {
    await makeGroup(redis.client)
    const inspector = newInspector(redis.url)
    expect((await inspector.history('orders', 'main', { minutes: 1440 })).minutes).toHaveLength(1440)
    await expect(inspector.history('orders', 'main', { minutes: 1441 })).rejects.toMatchObject({ code: 'ERR_OPTION' })
    await expect(inspector.history('orders', 'mian')).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
  })
})

describe('a line of bars', () => {
  test('shows nothing as the lowest bar, the highest value as the highest, and once in an hour too', () => {
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], true)).toBe('▁▂▃▄▅▆▇█')
    expect(sparkline([0, 1000, 1], true)).toBe('▁█▂')
    expect(sparkline([0, 0], true)).toBe('▁▁')
    expect(sparkline([0, 1, 2, 3, 4, 5, 6, 7], false)).toBe('_.:-=+*#')
    expect(sparkline([], true)).toBe('')
  })

  test('adds neighbours up where there is room for fewer bars than values', () => {
    expect(bucketed([1, 2, 3, 4], 2)).toEqual([3, 7])
    expect(bucketed([1, 2, 3], 2)).toEqual([1, 5])
    expect(bucketed([1, 2, 3], 30)).toEqual([1, 2, 3])
  })

  test('has characters that the terminal has', () => {
    expect(isUnicode({ LANG: 'en_US.UTF-8' })).toBe(true)
    expect(isUnicode({ LANG: 'en_US.UTF-8', LC_ALL: 'C' })).toBe(false)
    expect(isUnicode({})).toBe(false)
  })

  test.each([80, 140])('fits into %i columns with the longest name and the largest counts', (columns) => {
    const minutes = minutesUntil(1e12, 60).map((ms) => {
      return {
        ms,
        completed: 9_999_999,
        retried: 9,
        dead: 1,
        cancelled: 0,
        skipped: 0,
        late: 0,
        redriven: 0,
        replayed: 0,
      }
    })
    const lines = hourLines([{ group: 'g'.repeat(64), minutes }], { columns, env: { LANG: 'C.UTF-8' } })
    expect(lines).toHaveLength(4)
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns)
    expect(lines[2]).toContain('█'.repeat(columns === 80 ? 30 : 60))
  })

  test('have a line for what was skipped only of groups that skipped something', () => {
    const nothing = { completed: 0, retried: 0, dead: 0, cancelled: 0, skipped: 0, late: 0, redriven: 0, replayed: 0 }
    const of = (group: string, counts: object) => ({ group, minutes: [{ ms: 0, ...nothing, ...counts }] })
    const groups = [of('all', { completed: 1 }), of('some', { skipped: 3 }), of('idle', {})]
    const titles = hourLines(groups, { columns: 80, env: {} }).map((line) => line.split(/ +/).slice(0, 2).join(' '))
    expect(titles.slice(2)).toEqual(['all completed', 'all failed', 'some completed', 'some failed', 'some skipped'])
  })
})
