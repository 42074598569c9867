import { describe, expect, test } from 'vitest'
import { holdsKey, settingsKey } from '../../src/redis/keys.ts'
import { startProxy } from '../helpers/proxy.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { millrace, startMillrace } from './run.ts'

const redis = withRedis()

const trim = (...args: string[]) => millrace(['trim', 'orders', ...args], { redis: redis.url })

/** Entries of ten minutes ago that group main has settled but for the last one; of billing the one of this number is pending. */
async function arrange(count: number, pendingAt?: number): Promise<string[]> {
  const firstMs = (await serverMs(redis.client)) - 600_000
  const ids = Array.from({ length: count }, (_, n) => `${firstMs + n}-0`)
  const pipeline = redis.client.pipeline()
  for (const id of ids) pipeline.xadd('orders', id, 'job', 'mail')
  await pipeline.exec()
  for (const group of ['main', ...(pendingAt === undefined ? [] : ['billing'])]) {
    await redis.client.xgroup('CREATE', 'orders', group, '0')
    await redis.client.xreadgroup('GROUP', group, 'worker-1', 'STREAMS', 'orders', '>')
    const settled = ids.filter((_, n) => group === 'main' || n !== pendingAt)
    for (let from = 0; from < settled.length; from += 1000) {
      await redis.client.xack('orders', group, ...settled.slice(from, from + 1000))
    }
  }
  return ids
}

describe('millrace trim', () => {
  test('tells what the stream holds, what keeps it from being trimmed, and how to trim it; removes nothing', async () => {
    const ids = await arrange(300, 120)
    const { code, stdout, stderr } = await trim('--max-age', '5m')
    expect(code).toBe(0)
    expect(stdout.split('\n')).toEqual([
      expect.stringMatching(/^stream orders: 300 entries, about [\d.]+ KiB, history since \d{4}-\d\d-\d\dT[\d:]+Z$/),
      'retention: keep the last 5m, at most 1.0 GiB',
      expect.stringMatching(
        new RegExp(
          `^watermark: ${ids[120]} of group billing, pending at worker-1 \\(1 delivery, not renewed for [\\d.]+s\\); the oldest it keeps is of 10m ago$`,
        ),
      ),
      'settled by every group: 120; to be removed of these: 120',
      '',
    ])
    expect(stderr).toBe('nothing was removed; to remove it: millrace trim orders --max-age 5m --execute\n')
    expect(await redis.client.xlen('orders')).toBe(300)
  })

  test('says up to where the last group has read where nothing is pending, and that there may be nothing to do', async () => {
    const ids = await arrange(10)
    const { stdout, stderr } = await trim()
    expect(stdout).toContain(`watermark: ${ids[9]}, up to where group main has read; the oldest it keeps is of 10m ago`)
    expect(stderr).toBe('there is nothing to remove\n')
  })

  test('names the replay that holds the history, and how to look at it', async () => {
    const ids = await arrange(10)
    await redis.client.hset(
      holdsKey('orders'),
      'copies rk3m7q2ab',
      `${ids[4]} 9999999999999`,
      'x raaaaaaaa',
      `${ids[2]} 5`,
    )
    const { stdout, stderr } = await trim('--max-age', '0s', '--execute')
    expect(stdout).toContain(
      `watermark: ${ids[4]}, up to where replay rk3m7q2ab into copies has read; the oldest it keeps is`,
    )
    expect(stderr).toContain('to see the replay that keeps it: millrace replays show copies rk3m7q2ab\n')
    expect(stdout).toContain('settled by every group: 4; to be removed of these: 4')
    expect(await redis.client.xlen('orders')).toBe(6)
  })

  test('says of a stream without a group that nothing is ever removed', async () => {
    await redis.client.xadd('orders', '*', 'job', 'mail')
    expect((await trim()).stdout).toContain('watermark: none, for no group reads the stream: nothing is ever removed')
  })

  test('removes with --execute what it said, within the bounds that it was given', async () => {
    await arrange(300, 120)
    await redis.client.hset(settingsKey('orders'), 'retention:maxEntries', 250)
    const { code, stdout, stderr } = await trim('--execute', '--json')
    expect([code, stderr]).toEqual([0, ''])
    expect(JSON.parse(stdout)).toMatchObject({
      schemaVersion: 1,
      stream: 'orders',
      entries: 300,
      bounds: { maxAgeMs: 86_400_000, maxEntries: 250 },
      watermark: { group: 'billing', heldBy: 'pending', pending: { consumer: 'worker-1', deliveries: 1 } },
      settled: { entries: 120, isExact: true },
      wouldRemove: { entries: 50, isExact: true },
      isExecuted: true,
      isInterrupted: false,
      removed: 50,
    })
    expect(await redis.client.xlen('orders')).toBe(250)
    expect((await trim('--execute', '--max-entries', '1')).stderr).toBe('removed 70 entries\n')
    expect((await trim('--execute', '--max-age', '0s')).stderr).toBe('removed 0 entries\n')
  })

  /** The third trim: the first one is not known to Redis by its hash yet. */
  const third = () => {
    let trims = 0
    return ([name]: string[]) => name === 'evalsha' && ++trims === 3
  }
  const ARGS = ['trim', 'orders', '--max-age', '0s', '--execute']

  test('ends at Ctrl-C with 130 between two steps, and says what it did; the rest goes the next time', async () => {
    await arrange(12_000)
    const proxy = await startProxy(redis.url)
    const hold = proxy.holdBefore(third())
    const { process: child, ended } = startMillrace(ARGS, { redis: proxy.url, stdin: '' })
    await hold.held
    child.kill('SIGINT')
    hold.release()
    const { code, stderr } = await ended
    expect(code).toBe(130)
    const [, removed = ''] = /^interrupted: removed ([\d,]+) entries\n$/.exec(stderr) ?? []
    expect(await redis.client.xlen('orders')).toBe(12_000 - Number(removed.replace(',', '')))
    expect((await trim('--max-age', '0s', '--execute')).code).toBe(0)
    expect(await redis.client.xlen('orders')).toBe(1)
  })

  test('ends with 5 where Redis is lost in the middle, and says what is certain to be removed', async () => {
    await arrange(5000)
    const proxy = await startProxy(redis.url)
    void proxy.swallowReplyTo(third())
    const { code, stderr } = await startMillrace(ARGS, { redis: proxy.url, stdin: '' }).ended
    expect(code).toBe(5)
    expect(stderr).toMatch(/^error: lost Redis while .+; \d+ entries were removed\n$/)
    expect(await redis.client.xlen('orders')).toBeGreaterThan(3000)
  })

  test.each([
    [['--max-age', '5'], 'expected `--max-age` to be a duration'],
    [['--max-bytes', 'much'], 'expected `--max-bytes` to be a size such as 500MB'],
    [['--max-entries', '0'], 'expected `--max-entries` to be a positive integer'],
  ])('%j ends with 2', async (args, message) => {
    const { code, stderr } = await trim(...args)
    expect(code).toBe(2)
    expect(stderr).toContain(message)
  })

  test('of a stream that is not there ends with 4', async () => {
    expect(await trim('--execute')).toMatchObject({ code: 4, stdout: '' })
  })

  test('has help with examples', async () => {
    expect((await millrace(['trim', '--help'])).stdout).toMatch(/Examples:\n {2}\$ millrace trim orders\n/)
  })
})
