import { describe, expect, test } from 'vitest'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()
const BASE_MS = 1_700_000_000_000

const find = (...args: string[]) => millrace(['find', 'orders', ...args], { redis: redis.url })

async function fill(count: number): Promise<void> {
  const pipeline = redis.client.pipeline()
  for (let n = 0; n < count; n++) {
    const data = JSON.stringify({ n, text: `it's ${n}` })
    pipeline.xadd('orders', `${BASE_MS + n}-0`, 'job', n % 2 === 0 ? 'mail' : 'bill', 'data', data)
  }
  await pipeline.exec()
}

/** The words of a command as a shell would take it apart; knows single quotes. */
function wordsOf(command: string): string[] {
  return (command.match(/(?:'[^']*'|\\'|[^\s'])+/g) ?? []).map((word) =>
    word.replace(/'([^']*)'|\\(')/g, (_, inner: string | undefined, quote: string | undefined) => inner ?? quote ?? ''),
  )
}

describe('millrace find', () => {
  test('prints a table of the jobs, and on stderr what was looked at', async () => {
    await fill(4)
    const { code, stdout, stderr } = await find('--job', 'mail')
    expect(code).toBe(0)
    expect(stdout).toBe(
      [
        'id               published             job   payload',
        '1700000000000-0  2023-11-14T22:13:20Z  mail  {"n":0,"text":"it\'s 0"}',
        '1700000000002-0  2023-11-14T22:13:20Z  mail  {"n":2,"text":"it\'s 2"}',
        '',
      ].join('\n'),
    )
    expect(stderr).toBe('looked at 4 entries, 2023-11-14T22:13:20Z to 2023-11-14T22:13:20Z\n')
  })

  test.each([[[]], [['--newest']]])(
    'prints the command that goes on, which works as it is printed (%j)',
    async (flags) => {
      await fill(50)
      const text = "it's "
      let words = [
        'find',
        'orders',
        '--from',
        '2023-11-14T22:13:20Z',
        '--text',
        text,
        '--where',
        "job != 'mail'",
        '--limit',
        '10',
        ...flags,
      ]
      const seen: string[] = []
      for (let rounds = 0; rounds < 5; rounds++) {
        const { code, stdout, stderr } = await millrace(words, { redis: redis.url })
        expect(code).toBe(0)
        seen.push(
          ...stdout
            .split('\n')
            .slice(1, -1)
            .map((line) => line.split(' ')[0] ?? ''),
        )
        const [, command] = /; to go on: millrace (.+)$/m.exec(stderr) ?? []
        if (command === undefined) break
        expect(stderr).toMatch(/looked at \d+ of about 50 entries|looked at \d+ of about \d+ entries/)
        words = wordsOf(command)
      }
      const expected = Array.from({ length: 25 }, (_, n) => `${BASE_MS + 2 * n + 1}-0`)
      expect(seen).toEqual(flags.length === 0 ? expected : expected.reverse())
    },
  )

  test('exits with 4 where there is none in all that was asked for, and with 0 where the bound was reached', async () => {
    await fill(20)
    const none = await find('--job', 'none')
    expect([none.code, none.stdout]).toEqual([4, ''])
    expect(none.stderr).toContain('no such job in 20 entries')
    const bound = await find('--job', 'none', '--scan', '7')
    expect([bound.code, bound.stdout]).toEqual([0, ''])
    expect(bound.stderr).toContain('found none so far: looked at 7 of about 20 entries')
    expect(bound.stderr).toContain('--scan 7 --after 1700000000006-0')
  })

  test('prints one document of stable names with --json', async () => {
    await fill(3)
    const { stdout } = await find('--json', '--limit', '1')
    const told = JSON.parse(stdout) as Record<string, unknown>
    expect(Object.keys(told)).toEqual([
      ...['schemaVersion', 'stream', 'jobs', 'scanned', 'about', 'fromId', 'toId', 'next', 'interrupted', 'unclear'],
      'command',
    ])
    expect(told).toMatchObject({ stream: 'orders', scanned: 1, next: '1700000000000-0' })
    expect(told['command']).toBe('millrace find orders --limit 1 --after 1700000000000-0')
  })

  test('shows payloads without what drives a terminal, cut to a line', async () => {
    const evil = '\u001b[2J\r\n\u202e'
    await redis.client.xadd('orders', '*', 'job', `x${evil}`, 'data', `${evil}${'y'.repeat(5000)}`, 'replay-of', evil)
    const { stdout } = await find()
    expect(stdout).not.toMatch(/[^\n\P{C}]/u)
    expect(stdout.split('\n')).toHaveLength(3)
    expect(Math.max(...stdout.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(400)
  })

  test('says of which jobs the expression could not tell', async () => {
    await fill(3)
    const { code, stderr } = await find('--where', 'data.missing > 1')
    expect(code).toBe(4)
    expect(stderr).toContain('the expression could not tell of 3 jobs, which are left out (1700000000000-0: ')
  })

  test('draws where an expression goes wrong, and refuses what is no time, stream or count', async () => {
    await fill(1)
    const wrong = await find('--where', 'data.n >')
    expect(wrong.code).toBe(2)
    expect(wrong.stderr).toMatch(/\n {2}data\.n >\n +\^\n$/)
    expect((await find('--from', 'noon')).code).toBe(2)
    expect((await find('--scan', '0')).code).toBe(2)
    expect((await find('--after', 'x')).code).toBe(2)
    expect((await find('--from', '2020-01-01T00:00:00Z', '--to', '2019-01-01T00:00:00Z')).code).toBe(2)
    expect((await millrace(['find', 'nowhere'], { redis: redis.url })).code).toBe(4)
  })
})
