import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { STREAMS_KEY } from '../../src/redis/keys.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { withRedis } from '../helpers/redis.ts'
import { copies, HISTORY_MS, history, originals } from '../helpers/replays.ts'
import { startProgram } from '../helpers/program.ts'
import { millrace, type CliOptions } from './run.ts'

const redis = withRedis()

const run = (args: readonly string[], options: CliOptions = {}) => millrace(args, { redis: redis.url, ...options })
const replay = (...args: string[]) => run(['replay', 'orders', ...args])

async function arrange(count: number): Promise<string[]> {
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  await redis.client.sadd(STREAMS_KEY, 'orders')
  return history(redis.client, count, { job: (n) => (n % 4 === 0 ? 'mail' : 'charge') })
}

/** The command that a message tells to enter, as words for `millrace`. */
function commandIn(text: string): string[] {
  const [, words = ''] = /: millrace (.+)$/m.exec(text) ?? []
  return [...words.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '')
}

const at = (ms: number) => new Date(ms).toISOString()

describe('millrace replay', () => {
  test('tells what would be replayed, and changes nothing', async () => {
    const ids = await arrange(1000)
    const { code, stdout, stderr } = await replay(
      '--from',
      at(HISTORY_MS),
      '--where',
      'data.n < 800',
      '--group',
      'main',
    )
    expect(code).toBe(0)
    const lines = stdout.split('\n')
    expect(lines.slice(0, 8)).toEqual([
      '800 jobs of orders would be replayed into group main',
      `  from  ${ids[0]} (${at(HISTORY_MS)})`,
      `  to    ${ids[999]} (${at(HISTORY_MS + 9990)})`,
      expect.stringMatching(/^ {2}size {2}800 of 1,000 entries, [\d.]+ KiB$/),
      '  job   charge 600, mail 200',
      '  time  less than a second',
      '',
      'published, by 500ms (UTC)',
    ])
    const bars = lines.slice(8, lines.indexOf('', 8))
    expect(bars.length).toBeLessThanOrEqual(24)
    expect(bars[0]).toMatch(/^ {2}\d{4}-\d\d-\d\d [\d:.]+ {2}50 {2}█+$/)
    expect(stdout).toMatch(new RegExp(`${ids[2]} .*charge  {"n":2}`))
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(80)
    expect(stderr).toBe(
      `nothing was changed; to replay them: millrace replay orders --from ${ids[0]} --to ${ids[999]} --where 'data.n < 800' --group main --execute\n`,
    )
    expect(await copies(redis.client)).toEqual([])
  })

  test('replays with the command that it has printed what it has shown, and no entry that came later', async () => {
    const ids = await arrange(100)
    const { stderr } = await replay(
      '--from',
      '0-0',
      '--job',
      'mail',
      '--limit',
      '20',
      '--rate',
      '9999',
      '--group',
      'main',
    )
    await history(redis.client, 5, { startMs: HISTORY_MS + 1_000_000 })
    const done = await run(commandIn(stderr))
    expect([done.code, done.stdout]).toEqual([0, ''])
    expect(done.stderr).toMatch(
      /^replay r\w{8}: replayed 20 jobs of orders into group main in [\d.]+s \([\d,]+\/s\)\n$/,
    )
    expect(await originals(redis.client)).toEqual(ids.filter((_, n) => n % 4 === 0).slice(0, 20))
  })

  test('prints documents of stable names with --json', async () => {
    const ids = await arrange(10)
    const plan = await replay('--from', '0-0', '--group', 'main', '--json')
    expect(JSON.parse(plan.stdout)).toMatchObject({
      schemaVersion: 1,
      executed: false,
      stream: 'orders',
      target: { stream: 'orders', group: 'main' },
      matches: 10,
      fromId: ids[0],
      toId: ids[9],
      command: `millrace replay orders --from ${ids[0]} --to ${ids[9]} --group main --execute`,
    })
    const result = await replay('--from', '0-0', '--group', 'main', '--execute', '--json')
    expect(JSON.parse(result.stdout)).toMatchObject({ executed: true, status: 'done', copied: 10, command: null })
  })

  test('takes ids from a file and from stdin, with remarks; says which are unknown', async () => {
    const ids = await arrange(10)
    const dir = await mkdtemp(join(tmpdir(), 'millrace-ids-'))
    onEnd(() => rm(dir, { recursive: true, force: true }))
    const file = join(dir, 'ids.txt')
    await writeFile(file, `# those that failed\n${ids[7]}\r\n\n${ids[2]} # first\n1-1\n`)
    const plan = await replay('--ids', file, '--group', 'main')
    expect([plan.code, plan.stderr]).toEqual([
      4,
      expect.stringContaining('1 id is of no job that the stream holds: 1-1'),
    ])
    expect(commandIn(plan.stderr)).toEqual(['replay', 'orders', '--ids', file, '--group', 'main', '--execute'])
    const done = await run(commandIn(plan.stderr))
    expect([done.code, done.stderr]).toEqual([5, expect.stringContaining('1 id is of no job')])
    expect(await originals(redis.client)).toEqual([ids[2], ids[7]])
    const piped = await run(['replay', 'orders', '--ids', '-', '--group', 'main', '--execute'], {
      stdin: `${ids[0]}\n`,
    })
    expect(piped.code).toBe(0)
    await writeFile(file, `${ids[7]}\nnonsense\n`)
    const bad = await replay('--ids', file, '--group', 'main')
    expect([bad.code, bad.stderr]).toEqual([2, expect.stringContaining(`expected line 2 of ${file} to be a job id`)])
  })

  test.each([
    [['--group', 'main'], 2, 'expected `--from` or `--ids`'],
    [['--from', '0-0'], 2, 'expected either `--group` or `--to-stream`, got neither'],
    [['--from', '0-0', '--group', 'main', '--to-stream', 'x'], 2, 'got both'],
    [
      ['--from', '5-0', '--to', '4-0', '--group', 'main'],
      2,
      'expected `--to` to be after `--from`, got a range from 5-0 to 4-0',
    ],
    [['--from', '0-0', '--ids', 'x', '--group', 'main'], 2, 'expected either `--ids` or `--from` and `--to`'],
    [['--ids', '/nowhere', '--group', 'main'], 2, 'cannot read the ids from /nowhere'],
    [['--from', '0-0', '--to-stream', 'orders'], 2, 'give `--group` to have one group of it run them again'],
    [['--from', '0-0', '--group', 'mian'], 4, 'did you mean main?'],
    [['--from', '0-0', '--to-stream', 'order'], 4, 'millrace groups create order main --start oldest'],
    [['--from', '0-0', '--group', 'main', '--job', 'none'], 4, 'no job of orders matches'],
    [['--from', '0-0', '--group', 'main', '--job', 'none', '--execute'], 4, 'no job of orders matches'],
    [['--from', '0-0', '--group', 'main', '--rate', '0'], 2, 'expected `--rate` to be a positive integer'],
  ])('refuses %j', async (args, exitCode, message) => {
    await arrange(3)
    const { code, stderr } = await replay(...args)
    expect([code, stderr]).toEqual([exitCode, expect.stringContaining(message)])
    expect(await copies(redis.client)).toEqual([])
  })

  test('points at the character where a condition goes wrong', async () => {
    await arrange(1)
    const { code, stderr } = await replay('--from', '0-0', '--group', 'main', '--where', 'data.n > > 4')
    expect(code).toBe(2)
    expect(stderr).toMatch(/\n {2}data\.n > > 4\n {11}\^\n$/)
  })

  test('says since when there is history if the range begins before it', async () => {
    const ids = await arrange(10)
    await redis.client.xtrim('orders', 'MINID', ids[5] ?? '')
    const { code, stderr } = await replay('--from', '0-0', '--group', 'main')
    expect([code, stderr]).toEqual([
      4,
      expect.stringContaining(`begins at ${at(HISTORY_MS + 50)} with entry ${ids[5]}`),
    ])
  })

  test('prints nothing that a terminal would obey', async () => {
    await arrange(0)
    await redis.client.xadd('orders', '*', 'job', 'a\x1b[31mb', 'data', '"\x1b]0;title\x07"')
    const { stdout } = await replay('--from', '0-0', '--group', 'main')
    // eslint-disable-next-line no-control-regex
    expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f]/)
    expect(stdout).toContain('(none) 1')
  })

  test('says of which jobs the condition cannot tell, and of copies that it leaves', async () => {
    await arrange(2)
    await redis.client.xadd('orders', '*', 'job', 'mail', 'data', '{}')
    await redis.client.xadd('orders', '*', 'job', 'mail', 'data', '{"n":1}', 'replay-of', 'other 1-1')
    const flags = ['--from', '0-0', '--group', 'main', '--where', 'data.n >= 0']
    const { stdout } = await replay(...flags)
    expect(stdout).toMatch(/left {2}1 entry that is a copy of an earlier replay \(see --include-replays\)/)
    expect(stdout).toMatch(/left {2}1 job of which --where cannot tell, the first: .+/)
    const { stderr } = await replay(...flags, '--execute')
    expect(stderr).toMatch(/left 1 copy of an earlier replay/)
    expect((await replay(...flags, '--include-replays')).stdout).toMatch(/^3 jobs/)
  })

  test('is paused by Ctrl-C, ends with 130, and the command that it prints goes on', async () => {
    const ids = await arrange(2000)
    const args = ['replay', 'orders', '--from', '0-0', '--group', 'main', '--rate', '1000', '--execute']
    const program = startProgram(args, { env: { MILLRACE_REDIS_URL: redis.url } })
    await eventually(async () => expect((await copies(redis.client)).length).toBeGreaterThan(200))
    program.signal('SIGINT')
    expect(await program.exited).toBe(130)
    const said = program.stderr.join('\n')
    expect(said).toMatch(
      /^paused: replayed [\d,]+ jobs of orders into group main so far; to go on: millrace replays resume/m,
    )
    const [stopped] = await newInspector(redis.url).replays.list('orders')
    expect(stopped).toMatchObject({ status: 'paused', copied: (await copies(redis.client)).length })
    const done = await run([...commandIn(said), '--rate', '100000'])
    expect([done.code, done.stderr]).toEqual([0, expect.stringContaining('replayed 2,000 jobs of orders')])
    expect(await originals(redis.client)).toEqual(ids)
  })
})

describe('millrace replays', () => {
  async function paused(): Promise<string> {
    await arrange(1000)
    const stopping = new AbortController()
    const result = await newInspector(redis.url).replays.start('orders', {
      from: 0,
      group: 'main',
      perSecond: 1000,
      where: 'data.n >= 0',
      signal: stopping.signal,
      onProgress: ({ copied }) => void (copied > 0 && stopping.abort()),
    })
    return result.id
  }

  test('lists, shows, goes on with and cancels replays', async () => {
    const id = await paused()
    const list = await run(['replays', 'list', 'orders'])
    const row = list.stdout.trimEnd().split('\n')[1]?.split(/ {2,}/)
    expect(row).toEqual([id, 'paused', expect.any(String), expect.any(String), 'orders', 'group main', '100', '100'])
    const show = await run(['replays', 'show', 'orders', id])
    expect(show.stdout).toMatch(/^where {7}data\.n >= 0$/m)
    expect(show.stdout).toMatch(/^into {8}group main of orders$/m)
    expect(show.stderr).toBe(`to go on: millrace replays resume orders ${id}\n`)
    expect((await run(['trim', 'orders'])).stdout).not.toContain(id)
    const resumed = await run(['replays', 'resume', 'orders', id, '--rate', '100000', '--json'])
    expect(JSON.parse(resumed.stdout)).toMatchObject({ schemaVersion: 1, id, status: 'done', copied: 1000 })
    expect((await run(['replays', 'resume', 'orders', id])).code).toBe(0)
    expect(JSON.parse((await run(['replays', 'list', 'orders', '--json'])).stdout)).toMatchObject({
      stream: 'orders',
      replays: [{ id, status: 'done', perSecond: 100_000 }],
    })
    expect((await run(['replays', 'cancel', 'orders', id])).stderr).toContain('was done already')
  })

  test('cancels one that is not over, which then cannot be resumed', async () => {
    const id = await paused()
    expect((await run(['replays', 'cancel', 'orders', id])).stderr).toBe(
      `replay ${id} is cancelled; it had replayed 100 jobs\n`,
    )
    const { code, stderr } = await run(['replays', 'resume', 'orders', id])
    expect([code, stderr]).toEqual([1, expect.stringContaining('was cancelled: begin another one')])
  })

  test('says what there is not', async () => {
    await arrange(1)
    const none = await run(['replays', 'list', 'orders'])
    expect([none.code, none.stdout, none.stderr]).toEqual([0, '', 'there are no replays into orders\n'])
    expect((await run(['replays', 'list', 'order'])).stderr).toContain('did you mean orders?')
    expect((await run(['replays', 'show', 'orders', 'raaaaaaaa'])).code).toBe(4)
    expect((await run(['replays', 'show', 'orders', 'x'])).code).toBe(2)
  })
})
