import { createInterface } from 'node:readline'
import { describe, expect, test } from 'vitest'
import { printable, spanText, tableLines } from '../../cli/output.ts'
import { Screen } from '../../cli/screen.ts'
import {
  groupScheduledKey,
  scheduledKey,
  STREAMS_KEY,
  tallyKey,
  workersInfoKey,
  workersKey,
} from '../../src/redis/keys.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { connectTo, serverMs, startServer, withRedis } from '../helpers/redis.ts'
import { millrace, startMillrace } from './run.ts'

const redis = withRedis()

const stats = (...args: string[]) => millrace(['stats', ...args], { redis: redis.url })

/** Two entries unread and one pending, for a group with one worker. */
async function arrangeOrders(): Promise<void> {
  const now = await serverMs(redis.client)
  for (const ago of [100, 50, 20]) await redis.client.xadd('orders', `${now - ago * 1000}-0`, 'job', 'mail')
  await redis.client.xgroup('CREATE', 'orders', 'main', '0')
  await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 1, 'STREAMS', 'orders', '>')
  // Far enough ahead to be present for the time of a test.
  await redis.client.zadd(workersKey('orders', 'main'), now + 4000, 'w')
  await redis.client.hset(workersInfoKey('orders', 'main'), 'w', '{"slots":8,"running":1,"perSecond":12.5}')
  await redis.client.sadd(STREAMS_KEY, 'orders')
}

/** The titles of a printed table and its rows by title. */
function tableOf(text: string): { titles: string[]; rows: string[][] } {
  const [titles = [], ...rows] = text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/))
  return { titles, rows }
}

describe('millrace stats', () => {
  test('shows a row for each group', async () => {
    await arrangeOrders()
    const { code, stdout, stderr } = await stats()
    const { titles, rows } = tableOf(stdout)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(titles).toEqual(
      'stream,group,lag,lag s,pending,oldest,scheduled,dead,workers,slots busy,jobs/s,history since'.split(','),
    )
    expect(rows).toEqual([
      [
        'orders',
        'main',
        '2',
        expect.stringMatching(/^5\d\.\d$/),
        '1',
        expect.stringMatching(/^1\d\ds|1m$/),
        '0',
        '0',
        '1',
        '1/8',
        '12.5',
        expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/),
      ],
    ])
  })

  test('shows a lag that Redis does not know as ?, never as 0', async () => {
    await arrangeOrders()
    const [, , third = ''] = (await redis.client.xrange('orders', '-', '+')).map(([id]) => id)
    await redis.client.xdel('orders', third)
    const { rows } = tableOf((await stats('orders')).stdout)
    expect(rows[0]?.slice(0, 4)).toEqual(['orders', 'main', '?', expect.stringMatching(/^5\d\.\d$/)])
    expect(JSON.parse((await stats('orders', '--json')).stdout)).toMatchObject({
      streams: [{ groups: [{ lag: null }] }],
    })
  })

  test('prints one document of stable names with --json', async () => {
    await arrangeOrders()
    const { code, stdout } = await stats('orders', '--json')
    expect([code, JSON.parse(stdout)]).toEqual([
      0,
      {
        schemaVersion: 1,
        at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.+Z$/) as string,
        streams: [
          {
            stream: 'orders',
            entries: 3,
            oldestEntryMs: expect.any(Number) as number,
            scheduled: 0,
            overdueSeconds: 0,
            setAside: 0,
            paused: null,
            groups: [
              {
                group: 'main',
                lag: 2,
                lagSeconds: expect.any(Number) as number,
                pending: 1,
                handedBack: 0,
                oldestPendingSeconds: expect.any(Number) as number,
                scheduled: 0,
                overdueSeconds: 0,
                setAside: 0,
                workers: 1,
                slots: 8,
                running: 1,
                perSecond: 12.5,
                dead: 0,
                redelivery: 0,
                lastSeenMs: null,
                abandoned: false,
                pins: {
                  oldestId: expect.stringMatching(/^\d+-0$/) as string,
                  seconds: expect.any(Number) as number,
                  entries: 3,
                },
                lastHour: { completed: 0, dead: 0, late: 0, retried: 0, cancelled: 0, skipped: 0 },
                paused: null,
              },
            ],
          },
        ],
        history: [{ group: 'main', minutes: expect.any(Array) as unknown[] }],
      },
    ])
  })

  test('shows what became of the jobs of the last hour, of one stream, in characters that the terminal has', async () => {
    await arrangeOrders()
    const now = new Date(await serverMs(redis.client)).toISOString()
    const fields = { completed: 70, retried: 2, dead: 1 }
    for (const [outcome, count] of Object.entries(fields)) {
      await redis.client.hset(
        tallyKey('orders', 'main', now.slice(0, 13)),
        `${Number(now.slice(14, 16))}:${outcome}`,
        count,
      )
    }
    const shown = async (env: NodeJS.ProcessEnv) =>
      (await millrace(['stats', 'orders'], { redis: redis.url, env })).stdout.split('\n').slice(-4)
    // A minute may end in between.
    expect(await shown({ LC_ALL: 'en_US.UTF-8' })).toEqual([
      'jobs published in the last hour, by minute',
      expect.stringMatching(/^main {2}completed {2}▁{28,29}█▁? {2}max {4}70\/min {2}total {4}70$/),
      expect.stringMatching(/^main {2}failed {5}▁{28,29}█▁? {2}max {5}3\/min {2}total {5}3$/),
      '',
    ])
    expect((await shown({ LC_ALL: 'C' }))[1]).toMatch(/^main {2}completed {2}_{28,29}#_? /)
    expect((await stats()).stdout).not.toContain('last hour')
    const { history } = JSON.parse((await stats('orders', '--json')).stdout) as {
      history: { minutes: { completed: number }[] }[]
    }
    expect(history[0]?.minutes).toHaveLength(60)
    expect(history[0]?.minutes.reduce((sum, { completed }) => sum + completed, 0)).toBe(70)
  })

  test('says what to do where there are no streams yet, and that is no error', async () => {
    expect(await stats()).toEqual({
      code: 0,
      stdout: '',
      stderr: `no streams yet; publish a first job with: millrace publish orders send-receipt '{"order":42}'\n`,
    })
    expect(JSON.parse((await stats('--json')).stdout)).toMatchObject({ schemaVersion: 1, streams: [] })
  })

  test('names a stream that nobody reads, with its entries', async () => {
    for (let entries = 0; entries < 2; entries++) await redis.client.xadd('orders', '*', 'job', 'mail')
    expect((await stats('orders')).stdout).toMatch(/^orders +\(no group yet; 2 entries\)$/m)
  })

  test('shows what is scheduled: retries in their column, delayed jobs on a line of their own', async () => {
    await arrangeOrders()
    const now = await serverMs(redis.client)
    await redis.client.zadd(groupScheduledKey('orders', 'main'), now + 60_000, 'a', now + 90_000, 'b')
    await redis.client.zadd(scheduledKey('orders'), now - 30_000, 'c', '+inf', 'd')
    await redis.client.zadd(scheduledKey('mails'), now + 60_000, 'e')
    await redis.client.sadd(STREAMS_KEY, 'mails')

    const { stdout, stderr } = await stats()
    expect(tableOf(stdout).rows.map((row) => row[6] ?? row.slice(0, 2))).toEqual([
      ['mails', '(no group yet; 0 entries)'],
      ['mails', '(1 delayed job scheduled)'],
      '2',
      ['orders', expect.stringMatching(/^\(2 delayed jobs scheduled, the first due 3\ds ago, 1 set aside\)$/)],
    ])
    expect(stderr).toBe('')
  })

  test('warns of a group that nobody works for, and of retries that stand aside, beside the data', async () => {
    await arrangeOrders()
    const now = await serverMs(redis.client)
    await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
    await redis.client.hset(workersInfoKey('orders', 'billing'), ':beat', now - 90_000_000)
    await redis.client.zadd(groupScheduledKey('orders', 'billing'), '+inf', 'a')

    const { stdout, stderr } = await stats()
    expect(tableOf(stdout).rows).toHaveLength(2)
    expect(stderr.split('\n')).toEqual([
      'group billing of orders: 1 retry could not be moved and stands aside',
      expect.stringMatching(
        /^group billing of orders has had no worker since \S+Z; it pins 3 entries, the oldest of 10\ds ago; to remove it: millrace groups remove orders billing$/,
      ),
      '',
    ])
    expect(await stats('--json')).toMatchObject({ stderr: '' })
  })

  test('lets no name from Redis drive the terminal', async () => {
    await redis.client.xgroup('CREATE', 'orders', '\x1b[2Jbad\n\u202Egroup', '0', 'MKSTREAM')
    const { stdout } = await stats('orders')
    expect(tableOf(stdout).rows[0]?.[1]).toBe('[2Jbad group')
    expect(stdout).not.toContain('\x1b')
  })
})

describe('millrace stats --watch', () => {
  test('prints a line of JSON each time, goes on after Redis was away, and ends with 0 at Ctrl-C', async () => {
    const server = await startServer({ aof: true })
    await connectTo(server.url).sadd(STREAMS_KEY, 'orders')
    const { process: child } = startMillrace(['stats', '--watch', '100ms', '--json'], { redis: server.url })
    const [lines, complaints]: [string[], string[]] = [[], []]
    createInterface({ input: child.stdout }).on('line', (line) => lines.push(line))
    createInterface({ input: child.stderr }).on('line', (line) => complaints.push(line))
    await eventually(() => expect(lines.length).toBeGreaterThan(2))
    await server.kill()
    await eventually(() => expect(complaints[0]).toMatch(/Redis.+; trying again$/))
    await server.restart()
    const before = lines.length
    await eventually(() => expect(lines.length).toBeGreaterThan(before + 1))
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ schemaVersion: 1, streams: [] })
    const closed = new Promise((resolve) => child.once('close', resolve))
    child.kill('SIGINT')
    expect(await closed).toBe(0)
  })

  test('fails at once where the stream does not exist', async () => {
    expect(await stats('orders', '--watch')).toMatchObject({ code: 4, stdout: '' })
  })

  test('of a reader that has seen enough ends quietly', async () => {
    const { process: child, ended } = startMillrace(['stats', '--watch', '100ms', '--json'], { redis: redis.url })
    ended.catch(() => {}) // its reader goes away here
    await new Promise((resolve) => child.stdout.once('data', resolve))
    child.stdout.destroy()
    expect(await new Promise((resolve) => child.once('exit', resolve))).toBe(0)
  })
})

describe('a screen', () => {
  function terminal(columns: number, rows: number): { stream: NodeJS.WriteStream; written: string[] } {
    const written: string[] = []
    const write = (text: string) => void written.push(text)
    return { stream: { columns, rows, write } as unknown as NodeJS.WriteStream, written }
  }

  test('draws each frame in one write over the last one, and gives the cursor back', () => {
    const { stream, written } = terminal(20, 10)
    const screen = new Screen(stream)
    screen.draw([{ text: 'one' }, { text: 'two' }])
    screen.draw([{ text: 'three' }])
    screen.close()
    expect(written).toEqual([
      '\x1b[?25l',
      '\rone\x1b[K\ntwo\x1b[K\n\x1b[J',
      '\x1b[2A\rthree\x1b[K\n\x1b[J',
      '\x1b[?25h',
    ])
  })

  test('never draws more than the terminal has room for', () => {
    const { stream, written } = terminal(8, 4)
    const screen = new Screen(stream)
    onEnd(() => screen.close())
    screen.draw(['a wide line', 'b', 'c', 'd'].map((text) => ({ text })))
    expect(written[1]).toBe('\ra wide \x1b[K\nb\x1b[K\n… 2 mor\x1b[K\n\x1b[J')
  })
})

describe('output for people', () => {
  test('is aligned by its widest cells, and a remark at the end of a short row widens nothing', () => {
    const columns = [{ title: 'a' }, { title: 'b' }, { title: 'count', align: 'right' as const }]
    expect(
      tableLines(columns, [
        ['x', 'yy', '7'],
        ['long', 'a remark of any width'],
      ]),
    ).toEqual([
      // prettier-ignore
      'a     b   count',
      'x     yy      7',
      'long  a remark of any width',
    ])
  })

  test('has nothing that a terminal would obey', () => {
    expect(printable('a\x1b[31m\r\nb\u202Ec\u2028d\x9b')).toBe('a [31m b c d ')
  })

  test.each([
    [0.44, '0.4s'],
    [42, '42s'],
    [300, '5m'],
    [7300, '2h'],
    [200_000, '2d'],
  ])('shows %f seconds as %s', (seconds, text) => expect(spanText(seconds)).toBe(text))
})
