import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { shellCommand } from '../../cli/command-line.ts'
import { fittingTable } from '../../cli/fitting-table.ts'
import { messageLines } from '../../cli/message.ts'
import { widthOf } from '../../cli/width.ts'
import { STREAMS_KEY } from '../../src/redis/keys.ts'
import { cliMain } from '../helpers/cli-main.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

/** util-linux; what BSD calls so takes other arguments. */
const hasTerminals = spawnSync('script', ['-qec', 'true', '/dev/null']).status === 0

describe('a message on a terminal', () => {
  test('is broken between words, and a command in it stands alone, uncut', () => {
    const command = `millrace replay orders --from 1-0 --where 'data.order % 7 == 0' --group main --execute`
    const lines = messageLines(`nothing was changed; to replay them and what else there may be: ${command}`, 40)
    expect(lines).toEqual(['nothing was changed; to replay them and', 'what else there may be:', `  ${command}`])
    expect(messageLines('short: millrace stats', 40)).toEqual(['short: millrace stats'])
  })
})

describe('a command to be copied', () => {
  test('gives a shell the same words again, and nothing to a terminal', () => {
    const words = ['a b', "it's", 'x\u001b[2J\n日本\u202e', '$(rm)', '']
    const command = shellCommand(['printf', '%s\\0', ...words])
    expect(command).not.toMatch(/[\p{Cc}\p{Cf}]/u)
    expect(spawnSync('bash', ['-c', command], { encoding: 'utf8' }).stdout).toBe(
      words.map((word) => `${word}\0`).join(''),
    )
  })
})

describe('a table on a terminal', () => {
  const columns = [
    { title: 'id' },
    { title: 'job', least: 8 },
    { title: 'died', spare: 1 },
    { title: 'error', least: 12 },
  ]
  const rows = [
    ['1795245552380-0', '日本語の仕事'.repeat(9), '2026-11-21', 'e'.repeat(90)],
    ['1-0', 'mail', '2026-11-21', 'no'],
  ]

  test('cuts long cells and leaves out what is spare, but never an id', () => {
    for (const width of [60, 80, 140]) {
      const lines = fittingTable({ isTTY: true, columns: width }, columns, rows)
      expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(width)
      expect(lines[1]).toMatch(/^1795245552380-0 {2}日本/)
    }
    expect(fittingTable({ isTTY: true, columns: 40 }, columns, rows)[0]).not.toContain('died')
    expect(fittingTable({ isTTY: true, columns: 60 }, columns, rows)[0]).toContain('died')
  })

  test('stands under each other also where characters are wide, and is whole in a pipe', () => {
    const lines = fittingTable({ isTTY: false, columns: 40 }, columns, rows)
    expect(lines[1]).toContain('e'.repeat(90))
    expect(widthOf(lines[1]?.split('2026')[0] ?? '')).toBe(widthOf(lines[2]?.split('2026')[0] ?? ''))
  })
})

describe.skipIf(!hasTerminals)('millrace on a terminal', () => {
  const redis = withRedis()

  test('prints no line that is wider, but commands, and nothing that a terminal would obey', async () => {
    await redis.client.sadd(STREAMS_KEY, 'orders')
    const groups = ['main', 'g'.repeat(60), 'gr\u001b[2J日本']
    const names = ['mail', '日本語の仕事'.repeat(6), 'a\u001b[2Jb\r\n', '\u202eעברית', '🎉'.repeat(40), 'n'.repeat(200)]
    for (const name of names) await redis.client.xadd('orders', '*', 'job', name, 'data', JSON.stringify({ name }))
    for (const group of groups) await redis.client.xgroup('CREATE', 'orders', group, '0')
    await redis.client.xreadgroup('GROUP', 'main', `c\u001b[2J${'c'.repeat(90)}`, 'COUNT', 3, 'STREAMS', 'orders', '>')
    const commands = [
      ...['stats', 'stats orders', 'groups list orders', 'workers orders main', 'pending orders main', 'tail orders'],
      ...[
        'find orders --limit 2',
        'trim orders',
        'settings orders',
        'groups remove orders main',
        'audit orders --group main',
      ],
      ...[
        'groups rewind orders main --to 0-0',
        'replay orders --from 0-0 --group main',
        'explain orders 5-0',
        'stats nowhere',
      ],
    ]
    for (const columns of [80, 140]) {
      for (const words of commands) {
        const printed = onTerminal(words, redis.url, columns)
        const wide = printed.filter((line) => widthOf(line) > columns && !line.includes(' millrace '))
        expect(wide, words).toEqual([])
        expect(printed.join('\n'), words).not.toMatch(/[^\P{C}\n\p{Cn}\p{Co}]/u)
      }
    }
  }, 120_000)
})

/** The lines that stay on a terminal; progress that was drawn over is gone. */
function onTerminal(words: string, url: string, columns: number): string[] {
  const env = { PATH: process.env['PATH'], MILLRACE_REDIS_URL: url, TERM: 'xterm', LC_ALL: 'C.UTF-8', NO_COLOR: '1' }
  const command = `stty cols ${columns} rows 24; ${process.execPath} ${cliMain(words.split(' '))} ${words}`
  const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  return String(stdout)
    .replaceAll('\r\n', '\n')
    .replace(/[^\n]*\x1b\[K/g, '') // eslint-disable-line no-control-regex -- lines of progress that were cleared
    .replace(/^.*\r/gm, '')
    .split('\n')
}

test('usage errors name the help of the command that was called', async () => {
  const { code, stderr } = await millrace(['groups', 'rewind', 'orders', 'main'])
  expect([code, stderr]).toEqual([
    2,
    `error: required option '--to <time|entry>' not specified (see millrace groups rewind --help)\n`,
  ])
})
