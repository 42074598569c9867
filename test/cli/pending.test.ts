import { describe, expect, test } from 'vitest'
import { fittingTable } from '../../cli/fitting-table.ts'
import { clipped, fitted, widthOf } from '../../cli/width.ts'
import { settingsKey } from '../../src/redis/keys.ts'
import { makeGroup, REDELIVERY } from '../helpers/dead.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const pending = (...args: string[]) => millrace(['pending', ...args], { redis: redis.url })

async function arrange(): Promise<void> {
  await makeGroup(redis.client)
  await redis.client.hset(settingsKey('orders'), 'group:main:leaseMs', 10_000)
  for (const n of [1, 2, 3]) await redis.client.xadd('orders', `${n}-0`, 'job', 'mail')
  await redis.client.xadd(REDELIVERY, '4-0', 'job', '\x1b[2Jevil', 'id', '1-7')
  for (const key of ['orders', REDELIVERY])
    await redis.client.xreadgroup('GROUP', 'main', 'w\x1b]0;x\x07', 'STREAMS', key, '>')
  await redis.client.xclaim('orders', 'main', ':handback', 0, '2-0', 'IDLE', 300_000)
  await redis.client.xclaim('orders', 'main', 'w\x1b]0;x\x07', 0, '3-0', 'IDLE', 3_600_000, 'RETRYCOUNT', 7)
}

describe('millrace pending', () => {
  test('shows a row for each entry, and nothing that a terminal would obey', async () => {
    await arrange()
    const { code, stdout, stderr } = await pending('orders', 'main')
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.trim().split(/ {2,}/))
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(rows).toEqual([
      ['id', 'job', 'idle', 'left', 'sent', 'worker'],
      ['1-0', 'mail', expect.stringMatching(/^\d\.\ds$/), expect.stringMatching(/^(10|\d\.\d)s$/), '1', 'w ]0;x'],
      ['2-0', 'mail', '5m', '-', '2', '(handed back)'],
      ['3-0', 'mail', '60m', 'over', '7', 'w ]0;x'],
      ['1-7', '(no job) r', expect.any(String), expect.any(String), '1', 'w ]0;x'],
    ])
    expect(stdout).not.toMatch(/[\x1b\x07]/) // eslint-disable-line no-control-regex
  })

  test('prints one document of stable names with --json', async () => {
    await arrange()
    const { stdout } = await pending('orders', 'main', '--json', '--idle', '30m')
    expect(JSON.parse(stdout)).toEqual({
      schemaVersion: 1,
      stream: 'orders',
      group: 'main',
      jobs: [
        {
          source: 'stream',
          entryId: '3-0',
          jobId: '3-0',
          job: 'mail',
          worker: 'w\x1b]0;x\x07',
          idleMs: expect.any(Number) as number,
          deliveries: 7,
          leaseLeftMs: 0,
          publishedMs: 3,
          isGone: false,
        },
      ],
      next: null,
      total: 4,
      onRedelivery: 1,
      leaseMs: 10_000,
    })
  })

  test('says how to go on where there is more, and goes on', async () => {
    await arrange()
    const first = await pending('orders', 'main', '--limit', '3')
    const [, words = ''] = /: millrace (.+)$/m.exec(first.stderr) ?? []
    const second = await millrace(words.split(' '), { redis: redis.url })
    const ids = [first, second].flatMap(({ stdout }) => stdout.match(/^\d+-\d+/gm) ?? [])
    expect([first.code, second.code, second.stderr, ids]).toEqual([0, 0, '', ['1-0', '2-0', '3-0', '1-7']])
  })

  test('says what there is none of, and that is no error; what is not there is one', async () => {
    await arrange()
    expect(await pending('orders', 'main', '--worker', 'nobody')).toEqual({
      code: 0,
      stdout: '',
      stderr: 'of 4 pending entries of group main of orders none is meant\n',
    })
    await redis.client.xgroup('CREATE', 'orders', 'new', '$')
    expect((await pending('orders', 'new')).stderr).toBe('group new of orders has nothing pending\n')
    expect(await pending('orders', 'mian')).toMatchObject({ code: 4, stdout: '' })
    expect(await pending('orders', 'main', '--limit', 'x')).toMatchObject({ code: 2, stdout: '' })
    expect(await pending('orders', 'main', '--after', '1-0')).toMatchObject({ code: 2, stdout: '' })
  })

  test('has help with examples', async () => {
    const { stdout } = await pending('--help')
    expect(stdout.match(/^ {2}\$ millrace pending /gm)?.length).toBeGreaterThanOrEqual(2)
  })
})

describe('a table on a terminal', () => {
  const columns = [{ title: 'name' }, { title: 'size' }, { title: 'much', spare: 1 }, { title: 'more', spare: 2 }]
  const rows = [
    ['a', '7', 'b'.repeat(20), 'c'.repeat(20)],
    ['x', 'a remark'],
  ]

  test('loses the columns that it has no room for, and is cut where that is not enough', () => {
    const at = (width: number) => fittingTable({ isTTY: true, columns: width }, columns, rows)
    expect(at(80)[1]).toBe(`a     7     ${'b'.repeat(20)}  ${'c'.repeat(20)}`)
    expect(at(40)).toEqual(['name  size  much', `a     7     ${'b'.repeat(20)}`, 'x     a remark'])
    expect(at(12)).toEqual(['name  size', 'a     7', 'x     a rem…'])
  })

  test('is whole in a pipe', () => {
    expect(fittingTable({ isTTY: false, columns: 10 }, columns, rows)[0]).toContain('more')
  })
})

describe('the width of a text', () => {
  test('counts wide characters twice and marks not at all', () => {
    expect(['abc', '日本', 'e\u0301', '🎉', ''].map(widthOf)).toEqual([3, 4, 1, 2, 0])
  })

  test('is never more than there is room for, with no character cut in half', () => {
    expect(clipped('日本語', 6)).toBe('日本語')
    expect(clipped('日本語', 5)).toBe('日本…')
    expect(clipped('日本語', 4)).toBe('日…')
    expect(clipped('🎉🎉', 3)).toBe('🎉…')
    expect(clipped('abc', 0)).toBe('')
    expect(fitted('日本', 6)).toBe('日本  ')
    expect(fitted('7', 3, 'right')).toBe('  7')
  })
})
