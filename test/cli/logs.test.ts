import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, openSync, closeSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeEach, describe, expect, test } from 'vitest'
import { prettyPrinter } from '../../cli/pretty-log.ts'
import { widthOf } from '../../cli/width.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { startProgram, type Program } from '../helpers/program.ts'
import { startServer, withRedis } from '../helpers/redis.ts'
import { add, tally } from '../helpers/workers.ts'
import { millrace } from './run.ts'

const redis = withRedis()
const MAIN = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
/** util-linux; what BSD calls so takes other arguments. */
const hasTerminals = spawnSync('script', ['-qec', 'true', '/dev/null']).status === 0
const MARKER = 'payload-that-nobody-may-read'
const HOSTILE = 'no \u001b[2J\u001b]0;owned\u0007 luck,\r\n\u202e日本語の仕事 in "a line" of some length'

let handlers = ''
beforeEach(() => {
  const folder = mkdtempSync(join(tmpdir(), 'millrace-logs-'))
  onEnd(() => rmSync(folder, { recursive: true, force: true }))
  handlers = join(folder, 'handlers.mjs')
  const text = `
    const hostile = ${JSON.stringify(HOSTILE)}
    export const retry = { attempts: 1 }
    export default {
      good() {},
      bad() { throw new Error(hostile) },
      wide() { throw new Error('w'.repeat(5000)) },
      url() { throw new Error('cannot reach ' + process.env.MILLRACE_REDIS_URL) },
      print() { console.log('to stdout'); console.error('to stderr') },
      late() { setTimeout(() => { throw new TypeError('late') }, 1); return new Promise(() => {}) },
      lateUrl() { setTimeout(() => { throw new Error('lost ' + process.env.MILLRACE_REDIS_URL) }, 1); return new Promise(() => {}) },
      odd() { setTimeout(() => { throw Object.create(null) }, 1); return new Promise(() => {}) },
      stop() { process.kill(process.ppid, 'SIGTERM') },
    }`
  writeFileSync(handlers, text)
})

const WORKER = ['--stream', 'orders', '--concurrency', '1']

/** A pool that works through these jobs, one after the other, and then stops. */
async function worked(names: readonly string[], args: readonly string[] = [], env = {}): Promise<Program> {
  for (const name of [...names, 'stop']) await add(redis.client, name, { text: MARKER })
  const pool = startProgram(['worker', handlers, ...WORKER, ...args], {
    env: { MILLRACE_REDIS_URL: redis.url, ...env },
  })
  expect(await pool.exited).toBe(0)
  await pool.closed
  return pool
}

describe('the log of a worker pool in a pipe', () => {
  test('is JSON: whole lines, of both sorts of processes, with the ids', async () => {
    const { raw, log, stdout } = await worked(['good', 'bad', 'nothing-knows-it'])
    expect(log).toHaveLength(raw.length)
    for (const line of log) {
      expect(line).toMatchObject({ stream: 'orders', group: 'main', pid: expect.any(Number) as number })
      expect(line['time']).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
      expect(line.level).toMatch(/^(info|warn)$/)
      if (line.role === 'worker') expect(line['consumer']).toMatch(new RegExp(`:${String(line['pid'])}:`))
    }
    const dead = log.find(({ msg }) => msg === 'job is dead')
    const id = expect.stringMatching(/^\d+-\d+$/) as string
    expect(dead).toMatchObject({ level: 'warn', role: 'worker', id, job: 'bad', attempt: 1, reason: 'attempts' })
    expect(log.filter(({ role }) => role === 'supervisor').map(({ msg }) => msg.replace(/\d+/, 'N'))).toEqual([
      'worker pool: stream orders, group main, N process x 1 slot',
      'worker N ready',
      'ready',
      'SIGTERM: draining, running jobs have N s to finish; a second signal ends at once',
      'worker pool ended: N jobs completed, 1 run failed, 1 job dead-lettered',
    ])
    expect(log.at(-1)).toMatchObject({ completed: 2, failed: 1, dead: 1, replaced: 0, lost: 0 })
    expect(raw.join('\n')).not.toContain(MARKER)
    expect(stdout).toEqual([])
  })

  test('stays whole lines where two processes write long ones at the same time', async () => {
    const names = Array.from({ length: 40 }, () => 'wide')
    const { raw, log } = await worked(names, ['--processes', '2'])
    expect(log).toHaveLength(raw.length)
    expect(log.filter(({ msg }) => msg === 'job is dead')).toHaveLength(40)
  })

  test('has an error that nobody caught as a line, with its stack', async () => {
    await add(redis.client, 'late')
    const pool = startProgram(['worker', handlers, ...WORKER], { env: { MILLRACE_REDIS_URL: redis.url } })
    await pool.said(/^worker \d+ ended \(exit code 1\), a new one in 1 s$/)
    pool.signal('SIGTERM')
    await pool.closed
    expect(pool.log).toHaveLength(pool.raw.length)
    const err = { type: 'TypeError', message: 'late', stack: expect.stringContaining('handlers.mjs') as string }
    expect(pool.log.find(({ level }) => level === 'error')).toMatchObject({ role: 'worker', stream: 'orders', err })
  })

  test('leaves alone what handlers print', async () => {
    const { raw, stdout } = await worked(['print'])
    expect(stdout).toEqual(['to stdout'])
    expect(raw.filter((line) => !line.startsWith('{'))).toEqual(['to stderr'])
  })

  test('shows no password, also where a handler tells it', async () => {
    const server = await startServer({ args: ['--requirepass', 'sesame-street'] })
    const url = server.url.replace('//', '//:sesame-street@')
    const published = await millrace(['publish', 'orders', 'url', '{}'], { redis: url })
    expect(published.code).toBe(0)
    const pool = startProgram(['worker', handlers, ...WORKER], { env: { MILLRACE_REDIS_URL: url } })
    await pool.said(/^job is dead$/)
    expect(pool.log.find(({ msg }) => msg === 'job is dead')?.['error']).toMatch(/^cannot reach redis:\/\/\*\*\*@/)
    expect((await millrace(['publish', 'orders', 'lateUrl', '{}'], { redis: url })).code).toBe(0)
    await pool.said(/^an error was thrown that nobody caught/)
    const { message, stack } = pool.log.find(({ level }) => level === 'error')?.['err'] as Record<string, string>
    expect([message, stack]).toEqual([expect.stringMatching(/^lost redis:/), expect.stringContaining('lost redis:')])
    expect(pool.raw.join('\n')).not.toContain('sesame')
  })

  test('tells of what nobody caught also where that has no text', async () => {
    await add(redis.client, 'odd')
    const pool = startProgram(['worker', handlers, ...WORKER], { env: { MILLRACE_REDIS_URL: redis.url } })
    await pool.said(/^worker \d+ ended \(exit code 1\), a new one in 1 s$/)
    const err = { message: '(what was thrown has no text)' }
    expect(pool.log.find(({ level }) => level === 'error')).toMatchObject({ role: 'worker', err })
  })

  test.skipIf(!existsSync('/dev/full'))('ends nobody where its disk is full', async () => {
    for (const name of ['bad', 'good', 'stop']) await add(redis.client, name)
    const full = openSync('/dev/full', 'w')
    const pool = spawn(process.execPath, [MAIN, 'worker', handlers, ...WORKER], {
      env: { PATH: process.env['PATH'], MILLRACE_REDIS_URL: redis.url },
      stdio: ['ignore', 'ignore', full],
    })
    closeSync(full)
    onEnd(() => void pool.kill('SIGKILL'))
    expect(await once(pool, 'exit')).toEqual([0, null])
    expect(await tally(redis.client)).toEqual({ completed: 2, dead: 1 })
  })

  test('holds nobody up where nobody reads it', async () => {
    for (let at = 0; at < 400; at++) await add(redis.client, 'wide')
    const pool = spawn(process.execPath, [MAIN, 'worker', handlers, ...WORKER], {
      env: { PATH: process.env['PATH'], MILLRACE_REDIS_URL: redis.url },
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: true,
    })
    onEnd(() => void process.kill(-(pool.pid ?? 0), 'SIGKILL'))
    await eventually(async () => expect(await tally(redis.client)).toEqual({ dead: 400 }))
  })

  test('ends with a line of text where the command fails', async () => {
    const pool = startProgram(['worker', handlers, '--stream', 'bad stream', '--log-format', 'json'])
    expect(await pool.exited).toBe(2)
    await pool.closed
    expect(pool.raw).toEqual([expect.stringMatching(/^error: expected a stream name/)])
  })
})

describe('how much is logged', () => {
  test.each([
    ['--log-level warn', ['--log-level', 'warn'], {}, ['warn']],
    ['MILLRACE_LOG_LEVEL=warn', [], { MILLRACE_LOG_LEVEL: 'WARN' }, ['warn']],
    ['the flag before the variable', ['--log-level', 'info'], { MILLRACE_LOG_LEVEL: 'error' }, ['info', 'warn']],
    ['silent', ['--log-level', 'silent'], {}, []],
  ])('%s', async (_what, args, env, levels) => {
    const { log, raw } = await worked(['good', 'bad'], args, env)
    expect([...new Set(log.map(({ level }) => level))].sort()).toEqual(levels)
    expect(log).toHaveLength(raw.length)
  })

  test.each([
    [['--log-level', 'loud'], {}, /'loud' is invalid\. Allowed choices are trace, debug, info, warn, error, silent/],
    [['--log-format', 'xml'], {}, /'xml' is invalid\. Allowed choices are pretty, json/],
    [[], { MILLRACE_LOG_LEVEL: 'loud' }, /^error: expected `MILLRACE_LOG_LEVEL` to be one of trace, .*got "loud"$/],
  ])('a level or a format that there is not is refused: %j %j', async (args, env, message) => {
    const pool = startProgram(['worker', handlers, ...WORKER, ...args], { env })
    expect(await pool.exited).toBe(2)
    await pool.closed
    expect(pool.raw).toEqual([expect.stringMatching(message)])
  })
})

describe('a log for a person', () => {
  test('in a pipe has no colours and is one line each', async () => {
    const { raw, log } = await worked(['bad'], ['--log-format', 'pretty'], { FORCE_COLOR: '1' })
    expect(log).toEqual([])
    expect(raw.join('\n')).not.toMatch(/[^\P{C}\n\p{Cn}\p{Co}]/u)
    for (const line of raw) expect(line).toMatch(/^\[\d\d:\d\d:\d\d\] (INFO|WARN): /)
    expect(raw.join('\n')).toMatch(/WARN: worker \d+: job is dead id=\d+-\d+ job=bad attempt=1 .* error="no +\[2J/)
    expect(raw.join('\n')).not.toContain('worker started')
  })

  const onTerminal = async (columns: number, env: Record<string, string>): Promise<string> => {
    for (const name of ['bad', 'wide', 'stop']) await add(redis.client, name)
    const command = `stty cols ${columns} rows 24; ${process.execPath} ${MAIN} worker ${handlers} ${WORKER.join(' ')}`
    const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
      env: { PATH: process.env['PATH'], MILLRACE_REDIS_URL: redis.url, TERM: 'xterm', LC_ALL: 'C.UTF-8', ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    return String(stdout).replaceAll('\r\n', '\n')
  }

  test.skipIf(!hasTerminals).each([80, 120])(
    'on a terminal of %i columns is no wider, and does not drive it',
    async (columns) => {
      const text = await onTerminal(columns, { NO_COLOR: '1' })
      expect(text).toMatch(/^\[\d\d:\d\d:\d\d\] INFO: worker pool: stream orders, group main, 1 process x 1 slot$/m)
      expect(text.replace(/\s+/g, ' ')).toMatch(
        /worker pool ended: 1 job completed, 2 runs failed, 2 jobs dead-lettered/,
      )
      expect(text.split('\n').filter((line) => widthOf(line) > columns)).toEqual([])
      expect(text).not.toMatch(/[^\P{C}\n\p{Cn}\p{Co}]/u)
      // Nothing of a long word is lost where it is broken.
      expect(/w{10}[\sw]+/.exec(text)?.[0].replaceAll(/\s/g, '')).toBe('w'.repeat(999))
    },
  )

  test.skipIf(!hasTerminals)('has colours there, and only those', async () => {
    const text = await onTerminal(80, {})
    expect(text).toContain('\u001b[33mWARN\u001b[39m')
    // eslint-disable-next-line no-control-regex -- the sequences of colours are what is looked for
    expect(text.replace(/\u001b\[\d+m/g, '')).not.toMatch(/[^\P{C}\n\p{Cn}\p{Co}]/u)
  })

  test('shows an error with its stack, whatever is in it', () => {
    const pretty = prettyPrinter({ colorize: false, columns: () => 40, hidden: ['stream'] })
    const err = { stack: `Error: \u001b[2J${'日'.repeat(40)}\n    at here (/a/b.js:1:2)` }
    const text = pretty(
      `${JSON.stringify({ level: 'error', time: 0, msg: 'it broke', stream: 's', 'a\u001b': '', err })}\n`,
    )
    const lines = text.trimEnd().split('\n')
    expect(lines[0]).toMatch(/^\[\d\d:\d\d:\d\d\] ERROR: it broke a ="" *$/)
    expect(lines.at(-1)).toBe('    at here (/a/b.js:1:2)')
    expect(Math.max(...lines.map(widthOf))).toBeLessThanOrEqual(40)
    expect(text).not.toMatch(/[^\P{C}\n\p{Cn}\p{Co}]/u)
  })
})

test.each([['--help'], ['worker --help'], ['worker nothing.ts --stream s --processes x']])(
  'millrace %s does not load pino',
  async (words) => {
    const loaded = `import { _cache } from 'node:module'
      process.on('exit', () => console.error('loaded', Object.keys(_cache).filter((path) => /pino|prom-client/.test(path)).length))`
    const env = { NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(loaded)}` }
    expect((await millrace(words.split(' '), { env })).stderr).toMatch(/loaded 0\n$/)
  },
)
