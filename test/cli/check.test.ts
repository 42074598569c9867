import { describe, expect, test } from 'vitest'
import { figureText, lineSafe, stateOf, verdictLine, worstOf } from '../../cli/check/verdict.ts'
import { settingsKey } from '../../src/redis/keys.ts'
import { bury, makeGroup } from '../helpers/dead.ts'
import { eventually } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { startWorker } from '../helpers/workers.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const check = (...args: string[]) => millrace(['check', ...args], { redis: redis.url })

/** Two jobs that nobody has read, published so long ago. */
async function behind(seconds: number): Promise<void> {
  await makeGroup(redis.client)
  const atMs = Date.now() - seconds * 1000
  for (const n of [0, 1]) await redis.client.xadd('orders', `${atMs}-${n}`, 'job', 'mail')
}

/** One line as a monitor takes it apart. */
function parsed(stdout: string): { head: string; text: string; figures: Record<string, string> } {
  const [line = '', ...others] = stdout.replace(/\n$/, '').split('\n')
  expect(others, 'more than one line').toEqual([])
  const [told = '', data = '', ...rest] = line.split(' | ')
  expect(rest, 'more than one bar').toEqual([])
  const figures = data.split(' ').filter(Boolean)
  for (const figure of figures) expect(figure).toMatch(/^[\w.-]+=(U|[\d.]+s?);[\d.]*;[\d.]*;0$/)
  const [, head = '', text = ''] = /^(MILLRACE .*?) - (.*)$/.exec(told) ?? []
  return { head, text, figures: Object.fromEntries(figures.map((figure) => figure.split('=') as [string, string])) }
}

describe('millrace check lag', () => {
  test.each([
    [1, 0, 'OK'],
    [90, 1, 'WARNING'],
    [900, 2, 'CRITICAL'],
  ])('of jobs that wait %i s is exit code %i by the ordinary thresholds', async (seconds, code, word) => {
    await behind(seconds)
    const outcome = await check('lag', 'orders', 'main')
    const { head, text, figures } = parsed(outcome.stdout)
    expect([outcome.code, outcome.stderr, head]).toEqual([code, '', `MILLRACE LAG ${word}`])
    expect(text).toMatch(/^orders\/main \d+(\.\d)? [sm] behind \(2 jobs\), no workers$/)
    expect(figures).toEqual({ lag_seconds: expect.stringMatching(/^[\d.]+s;60;300;0$/) as string, lag_jobs: '2;;;0' })
  })

  test('follows the thresholds that are given, in time or in jobs; what is not above one is fine', async () => {
    await behind(30)
    const code = async (...args: string[]) => (await check('lag', 'orders', 'main', ...args)).code
    expect(await code('--warn', '10s', '--crit', '20s')).toBe(2)
    expect(await code('--warn', '10s')).toBe(1)
    expect(await code('--crit', '10s')).toBe(2)
    expect(await code('--warn', '1h')).toBe(0)
    expect(await code('--jobs', '--warn', '2', '--crit', '3')).toBe(0)
    expect(await code('--jobs', '--warn', '1', '--crit', '2')).toBe(1)
    expect(await code('--jobs', '--warn', '0', '--crit', '1')).toBe(2)
  })

  test('of jobs whose number Redis does not know is unknown by jobs, and known by time', async () => {
    await behind(1)
    const id = (await redis.client.xrange('orders', '-', '+'))[1]?.[0] ?? ''
    await redis.client.xadd('orders', '*', 'job', 'mail')
    await redis.client.xdel('orders', id)
    const byJobs = await check('lag', 'orders', 'main', '--jobs')
    expect([byJobs.code, parsed(byJobs.stdout).figures['lag_jobs']]).toEqual([3, 'U;1000;10000;0'])
    expect(parsed(byJobs.stdout).text).toContain('an unknown number of jobs')
    expect((await check('lag', 'orders', 'main')).code).toBe(0)
  })

  test('without a group is of all groups: the worst counts, stands first and is what the first figures are of', async () => {
    await behind(900)
    await redis.client.xgroup('CREATE', 'orders', 'billing', '$')
    const { code, stdout } = await check('lag', 'orders')
    const { text, figures } = parsed(stdout)
    expect(code).toBe(2)
    expect(text).toMatch(/^orders\/main 15 m behind.*; orders\/billing 0\.0 s behind \(0 jobs\)/)
    expect(figures['lag_seconds']).toMatch(/^9\d\d/)
    expect(figures['main.lag_seconds']).toMatch(/^9\d\d/)
    expect(figures['billing.lag_seconds']).toBe('0s;60;300;0')
  })

  test('says when a group is paused, abandoned or without workers, and nothing of one that works', async () => {
    await behind(1)
    await newInspector(redis.url).pause('orders', { group: 'main' })
    expect(parsed((await check('lag', 'orders', 'main')).stdout).text).toContain(', paused, no workers')
    await redis.client.del(settingsKey('orders'))
    await redis.client.xadd('orders', '*', 'job', 'mail')
    await redis.client.del('orders')
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    await redis.client.xadd('orders', '1-0', 'job', 'mail')
    expect(parsed((await check('lag', 'orders', 'main')).stdout).text).toContain('abandoned')
    await redis.client.del('orders')
    await startWorker({ redis: redis.url })
    await eventually(async () => {
      const { stdout } = await check('lag', 'orders', 'main')
      expect(parsed(stdout).text).toBe('orders/main 0.0 s behind (0 jobs)')
    })
  })
})

describe('millrace check pending', () => {
  test('is of the age of the oldest, or of how many there are', async () => {
    await behind(2400)
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    const byAge = await check('pending', 'orders', 'main')
    const byCount = await check('pending', 'orders', 'main', '--jobs')
    expect([byAge.code, byCount.code]).toEqual([1, 0])
    expect(parsed(byAge.stdout).text).toContain('2 pending, the oldest published 40 m ago')
    expect(parsed(byAge.stdout).figures['oldest_pending_seconds']).toMatch(/^24\d\d(\.\d+)?s;1800;3600;0$/)
    expect(parsed(byCount.stdout).figures['pending_jobs']).toBe('2;1000;10000;0')
  })

  test('is fine where nothing is', async () => {
    await makeGroup(redis.client)
    const { code, stdout } = await check('pending', 'orders')
    expect([code, parsed(stdout).text]).toEqual([0, 'orders/main nothing pending, no workers'])
  })
})

describe('millrace check dead', () => {
  test('counts dead letters, all or those that died lately', async () => {
    await makeGroup(redis.client)
    expect((await check('dead', 'orders', 'main')).code).toBe(0)
    const oldMs = Date.now() - 3_600_000
    await bury(redis.client, { id: '1-0', deadId: `${oldMs}-0`, deadMs: oldMs })
    const all = await check('dead', 'orders', 'main')
    expect([all.code, parsed(all.stdout).figures]).toEqual([1, { dead_letters: '1;0;100;0' }])
    expect((await check('dead', 'orders', 'main', '--newer', '10m')).code).toBe(0)
    await bury(redis.client, { id: '2-0' })
    const lately = await check('dead', 'orders', 'main', '--newer', '10m', '--crit', '0')
    expect([lately.code, parsed(lately.stdout).text]).toEqual([2, 'orders/main 1 dead letter, no workers'])
    expect((await check('dead', 'orders', 'main', '--crit', '1')).code).toBe(2)
  })
})

describe('what cannot be checked is UNKNOWN, 3, with the reason on the line that a monitor shows', () => {
  test.each([
    [['lag', 'nothing'], /stream nothing does not exist/],
    [['lag', 'orders', 'mian'], /stream orders has no group mian \(its groups: main\)/],
    [['dead', 'no|such\nname'], /expected a stream name/],
    [['lag'], /missing required argument 'stream'/],
    [['lag', 'orders', '--nope'], /unknown option '--nope'/],
    [['dead', 'orders', '--jobs'], /unknown option '--jobs'/],
    [['lag', 'orders', '--warn'], /argument missing/],
    [['lag', 'orders', '--warn', '5m', '--crit', '1m'], /expected `--warn` to be at most `--crit`/],
    [['lag', 'orders', '--warn', '5'], /expected `--warn` to be an age/],
    [['pending', 'orders', '--jobs', '--crit', '5m'], /expected `--crit` to be a number of jobs/],
    [['dead', 'orders', '--newer', 'soon'], /expected `--newer` to be an age/],
    [['lag', 'orders', '--redis'], /argument missing/],
    [['lag', 'orders', '--redis', 'http://x'], /expected `--redis` to be a URL/],
    [['lagg', 'orders'], /unknown command/],
    [[], /say what to check/],
  ])('%j', async (args, reason) => {
    await makeGroup(redis.client)
    const { code, stdout } = await check(...args)
    expect(code).toBe(3)
    expect(stdout.trimEnd()).toMatch(/^MILLRACE ((LAG|PENDING|DEAD) )?UNKNOWN - /)
    expect(parsed(stdout).text).toMatch(reason)
  })

  test('a stream without a group, and one whose key is something else', async () => {
    await redis.client.xadd('orders', '*', 'job', 'mail')
    await redis.client.set('text', 'x')
    const none = await check('lag', 'orders')
    const other = await check('lag', 'text')
    expect([none.code, other.code]).toEqual([3, 3])
    expect(parsed(none.stdout).text).toContain('has no group')
    expect(parsed(other.stdout).text).toContain('holds a string, not a stream')
  })

  test('a Redis that is away, and the password of its URL is not shown', async () => {
    const server = await startServer()
    const url = server.url.replace('//', '//user:secret-word@')
    await server.stop()
    const { code, stdout, stderr } = await millrace(['--redis', url, 'check', 'lag', 'orders'])
    expect([code, stdout + stderr]).toEqual([3, expect.not.stringContaining('secret-word')])
    expect(parsed(stdout).head).toBe('MILLRACE LAG UNKNOWN')
  })

  test('with --json too', async () => {
    const { code, stdout } = await check('lag', 'orders', '--json')
    expect(code).toBe(3)
    expect(JSON.parse(stdout)).toMatchObject({ schemaVersion: 1, check: 'lag', state: 'unknown' })
  })
})

test('--json is one document, with what the line says', async () => {
  await behind(900)
  const { code, stdout } = await check('lag', 'orders', '--json')
  expect([code, JSON.parse(stdout)]).toEqual([
    2,
    {
      schemaVersion: 1,
      check: 'lag',
      state: 'critical',
      stream: 'orders',
      unit: 'seconds',
      warn: 60,
      crit: 300,
      groups: [
        {
          group: 'main',
          state: 'critical',
          value: expect.any(Number) as number,
          text: expect.stringContaining('orders/main 15 m behind') as string,
          figures: { lag_seconds: expect.any(Number) as number, lag_jobs: 2 },
        },
      ],
    },
  ])
})

test('names that others chose end neither the line nor its text, nor drive a terminal', async () => {
  await redis.client.xadd('orders', '*', 'job', 'mail')
  for (const group of ['a|b=1;2', 'c\nMILLRACE LAG OK - fine', '\x1b[2Jd', "e'f g"])
    await redis.client.xgroup('CREATE', 'orders', group, '0')
  const { code, stdout } = await check('lag', 'orders')
  const { text, figures } = parsed(stdout)
  expect(code).toBe(0)
  expect(text).toContain('orders/a/b=1;2 ')
  expect(stdout).not.toMatch(/\x1b/) // eslint-disable-line no-control-regex
  expect(Object.keys(figures)).toContain('a_b_1_2.lag_seconds')
})

test('a name of 10 kB is told in part, and one that millrace refuses keeps no other group from being judged', async () => {
  await makeGroup(redis.client)
  await bury(redis.client, { id: '1-0' })
  for (const group of ['x'.repeat(10_000), '%41']) await redis.client.xgroup('CREATE', 'orders', group, '0')
  const outcome = await check('dead', 'orders', '--newer', '10m')
  expect(parsed(outcome.stdout).text).toContain(`orders/${'x'.repeat(99)}… 0 dead letters`)
  expect(outcome.stdout.length).toBeLessThan(1000)
  expect(outcome.code).toBe(1)
})

test('a Redis that takes connections and does not answer is said to load its data, or to hang', async () => {
  const server = await startServer()
  server.stopProcess()
  const { code, stdout } = await millrace(['check', 'lag', 'orders'], { redis: server.url })
  server.continueProcess()
  expect(code).toBe(3)
  expect(parsed(stdout).text).toMatch(
    /^Redis at \S+ took the connection and is not ready: is it still loading its data/,
  )
})

test('a Redis that is busy is not said to be looked for in the wrong place', async () => {
  const server = await startServer({ args: ['--lua-time-limit', '50'] })
  const busy = connectTo(server.url)
  busy.eval('while true do end', 0).catch(() => {})
  // A busy Redis refuses the check too, and what waits for it: the kill would be refused unsent.
  const other = connectTo(server.url, { enableReadyCheck: false })
  await eventually(() => expect(other.ping()).rejects.toThrow('BUSY'))
  const outcome = await millrace(['check', 'lag', 'orders'], { redis: server.url })
  await other.script('KILL')
  expect(outcome.code).toBe(3)
  expect(outcome.stdout).toMatch(/^MILLRACE LAG UNKNOWN - Redis at \S+ refuses for now: BUSY [^;]*\n$/)
})

describe('a verdict', () => {
  test('is by what is above a threshold', () => {
    const thresholds = { warn: 1, crit: 2 }
    expect([0, 1, 1.5, 2, 2.1, null].map((value) => stateOf(value, thresholds))).toEqual([
      ...['ok', 'ok', 'warning', 'warning', 'critical', 'unknown'],
    ])
  })

  test('of several is the worst: an alarm that is known before what is not known', () => {
    expect(worstOf(['ok', 'unknown', 'warning'])).toBe('warning')
    expect(worstOf(['unknown', 'critical'])).toBe('critical')
    expect(worstOf(['ok', 'unknown'])).toBe('unknown')
    expect(worstOf([])).toBe('ok')
  })

  test('has figures without exponents, and U for what is not known', () => {
    expect(figureText({ label: "a b='", value: 1e-9, unit: 's' })).toBe('a_b__=0s;;;0')
    expect(figureText({ label: 'x', value: null, thresholds: { warn: 0, crit: 1.5 } })).toBe('x=U;0;1.5;0')
  })

  test('is one line without a second bar', () => {
    expect(verdictLine('lag', 'ok', 'a|b\r\nc')).toBe('MILLRACE LAG OK - a/b c')
    expect(lineSafe(' \u2028x\u0000 ')).toBe('x')
  })
})
