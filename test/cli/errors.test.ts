import { describe, expect, test } from 'vitest'
import { CliError, exitCodeOf, isExpected } from '../../cli/exit.ts'
import { checkRedisUrl, redact } from '../../cli/redis-url.ts'
import { MillraceError, PublishError, RedisError, UnknownGroupError, type ErrorCode } from '../../src/index.ts'
import { STREAMS_KEY } from '../../src/redis/keys.ts'
import { startServer, withRedis } from '../helpers/redis.ts'
import { millrace, type Outcome } from './run.ts'

const redis = withRedis()

/** One line on stderr that says what is wrong; nothing on stdout; no trace. */
function expectOneLine({ stdout, stderr }: Outcome, message: string | RegExp): void {
  expect(stdout).toBe('')
  expect(stderr).toMatch(/^error: [^\n]+\n$/)
  expect(stderr).not.toMatch(/\n {4}at |unexpected/)
  if (typeof message === 'string') expect(stderr).toContain(message)
  else expect(stderr).toMatch(message)
}

describe('a command line that is wrong ends with 2, one line, and nothing done', () => {
  test.each([
    [['publsh', 'orders', 'mail'], "unknown command 'publsh' (Did you mean publish?)"],
    [['stats', '--jsno'], "unknown option '--jsno' (Did you mean --json?)"],
    [['publish', 'orders', 'mail', '--fil', 'x'], "unknown option '--fil' (Did you mean --file?)"],
    [['publish'], "missing required argument 'stream'"],
    [['publish', 'orders'], 'expected the name of a job, or `--file`, got neither'],
    [['publish', 'orders', 'mail', '--file', 'x'], 'expected either a job or `--file`, got both'],
    [['publish', 'orders', 'mail', '1', '2'], 'too many arguments'],
    [['publish', 'orders', 'mail', '{order:42}'], `expected the data to be JSON, such as '{"order":42}'`],
    [['publish', 'orders', 'mail', 'hello'], `or '"text"'; check the shell's quotes`],
    [['publish', 'orders', 'mail', ''], 'expected the data to be JSON'],
    [['publish', 'orders', 'bad name'], 'expected a job name of 1 to 100 letters, digits and _ . : - , got "bad name"'],
    [['publish', 'orders', ''], 'expected a job name'],
    [['publish', 'bad stream', 'mail'], 'expected a stream name of letters, digits and _ . : - with at most one {tag}'],
    [['publish', '{orders}:group:a:dead', 'mail'], "the name of a key of millrace's own"],
    [['publish', 'orders', 'mail', '--timeout', '5'], 'expected `--timeout` to be a duration such as 500ms, 1s'],
    [['publish', 'orders', 'mail', '--timeout'], 'argument missing'],
    [['publish', 'orders', '--file', '/no/such/file'], 'cannot read /no/such/file: there is no such file'],
    [['publish', 'orders', '--file', '/'], 'cannot read /: it is a directory'],
    [['stats', 'bad stream'], 'expected a stream name'],
    [['stats', '--watch', '10ms'], 'expected `--watch` to be a duration of 100ms or more'],
    [['stats', '--redis', 'http://localhost'], 'expected `--redis` to be a URL such as redis://host:6379/0'],
    [['stats', '--redis', 'redis://localhost:99999'], 'got one that cannot be read'],
    [['stats', '--redis', 'redis://localhost/abc'], 'whose database is not a number'],
    [['stats', '--redis', ''], 'expected `--redis` to be a URL'],
  ])('%j', async (args, message) => {
    const outcome = await millrace(args, { redis: redis.url })
    expectOneLine(outcome, message)
    expect(outcome.code).toBe(2)
    expect(await redis.client.dbsize()).toBe(0)
  })

  test('a bad stream name for a file', async () => {
    const outcome = await millrace(['publish', 'a b', '--file', '-'], { redis: redis.url, stdin: '{"job":"mail"}\n' })
    expectOneLine(outcome, /^error: expected a stream name/)
    expect(outcome.code).toBe(2)
  })

  test('a bad URL in the environment, named by its variable', async () => {
    const outcome = await millrace(['stats'], { env: { REDIS_URL: 'localhost:6379' } })
    expectOneLine(outcome, 'expected `REDIS_URL` to be a URL')
    expect(outcome.code).toBe(2)
  })

  test('no command at all shows the help', async () => {
    const { code, stdout, stderr } = await millrace([])
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^Usage: millrace/)
  })
})

describe('help', () => {
  test.each([[['--help']], [['help', 'publish']], [['stats', '--help']]])(
    '%j has examples that can be run',
    async (args) => {
      const { code, stdout, stderr } = await millrace(args)
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(/Examples:\n {2}\$ millrace /)
      expect(stdout).toContain('--redis <url>')
    },
  )
})

describe('without a Redis that takes us', () => {
  const nowhere = 'redis://:hunter22@127.0.0.1:1/0'

  test.each([
    [['stats']],
    [['stats', 'orders', '--json']],
    [['stats', '--watch']],
    [['publish', 'orders', 'mail', '--timeout', '2s']],
  ])('%j ends with 3, one line that says where it looked', async (args) => {
    const outcome = await millrace(args, { redis: nowhere })
    expectOneLine(outcome, /cannot reach Redis at 127\.0\.0\.1:1: connect ECONNREFUSED/)
    expect([outcome.code, outcome.stderr.includes('hunter22')]).toEqual([3, false])
  })

  test('a file is given up within seconds, though each of its jobs may take longer', async () => {
    const args = ['publish', 'orders', '--file', '-', '--timeout', '1h']
    const outcome = await millrace(args, { redis: nowhere, stdin: '{"job":"mail"}\n' })
    expectOneLine(outcome, 'cannot reach Redis')
    expect(outcome.code).toBe(3)
  })

  test.each([[['stats']], [['publish', 'orders', 'mail']], [['publish', 'orders', '--file', '-']]])(
    '%j with a wrong password ends with 3, at once, and shows no password',
    async (args) => {
      const server = await startServer({ args: ['--requirepass', 'right-secret'] })
      for (const userinfo of ['', ':wrong-secret@', 'someone:wrong-secret@']) {
        const url = server.url.replace('//', `//${userinfo}`)
        const outcome = await millrace(args, { redis: url, stdin: '{"job":"mail"}\n' })
        expectOneLine(
          outcome,
          userinfo === '' ? 'NOAUTH Authentication required' : 'WRONGPASS invalid username-password pair',
        )
        expect([outcome.code, outcome.stderr.includes('secret')]).toEqual([3, false])
      }
      const right = await millrace(['stats'], { redis: server.url.replace('//', '//:right-secret@') })
      expect(right.code).toBe(0)
    },
  )

  test.each([[['stats', 'orders']], [['publish', 'orders', 'mail']], [['publish', 'orders', '--file', '-']]])(
    '%j where the key is of another type ends with 3 and says so',
    async (args) => {
      await redis.client.lpush('orders', 'x')
      const outcome = await millrace(args, { redis: redis.url, stdin: '{"job":"mail"}\n' })
      expectOneLine(outcome, /holds a list/)
      expect(outcome.code).toBe(3)
    },
  )
})

describe('what does not exist', () => {
  test('a stream ends with 4, with the name that may have been meant', async () => {
    await redis.client.xadd('orders', '*', 'job', 'mail')
    await redis.client.sadd(STREAMS_KEY, 'orders')
    const outcome = await millrace(['stats', 'oders'], { redis: redis.url })
    expectOneLine(outcome, 'stream oders does not exist (did you mean orders?)')
    expect(outcome.code).toBe(4)
  })
})

describe('exit codes', () => {
  const codes: Record<ErrorCode, number> = {
    ERR_OPTION: 2,
    ERR_NAME: 2,
    ERR_INVALID_DATA: 2,
    ERR_SCHEMA: 2,
    ERR_PAYLOAD: 2,
    ERR_HANDLERS: 2,
    ERR_PUBLISH_TIMEOUT: 3,
    ERR_PUBLISH_REFUSED: 3,
    ERR_PUBLISH_ABORTED: 1,
    ERR_PUBLISH_SHED: 1,
    ERR_BUFFER_FULL: 1,
    ERR_STREAM_FULL: 3,
    ERR_RUN_ENDED: 1,
    ERR_RUN_PUBLISHES: 1,
    ERR_UNIQUE_GROUP: 2,
    ERR_MEMORY_FULL: 3,
    ERR_SPILL: 1,
    ERR_MIDDLEWARE: 1,
    ERR_FEED_BEHIND: 1,
    ERR_FEED_LOST: 1,
    ERR_FEED_TAKEN: 1,
    ERR_PRODUCER_CLOSED: 1,
    ERR_REDIS_UNREACHABLE: 3,
    ERR_REDIS_REFUSED: 3,
    ERR_REDIS_REPLY: 1,
    ERR_UNKNOWN_GROUP: 4,
    ERR_NOT_FOUND: 4,
    ERR_WORKER_STATE: 1,
    ERR_LISTEN: 1,
    ERR_LEASE_LOST: 1,
    ERR_JOB_TIMEOUT: 1,
    ERR_STOPPING: 1,
    ERR_CANCELLED: 1,
    ERR_RETRY_AFTER: 1,
    ERR_FATAL: 1,
    ERR_PENDING: 1,
    ERR_WORKERS_ALIVE: 1,
    ERR_CANCELLED_FULL: 1,
    ERR_HISTORY: 4,
    ERR_REPLAY: 1,
    ERR_NOT_DRAINED: 1,
    ERR_RESULT_TIMEOUT: 1,
    ERR_RESULT_ABORTED: 1,
    ERR_RESULT_FAILED: 1,
    ERR_RESULT_CANCELLED: 1,
    ERR_RESULT_SKIPPED: 1,
    ERR_RESULT_TOO_LARGE: 1,
    ERR_RESULT_NOT_JSON: 1,
    ERR_RESULT_NOT_ASKED: 1,
  }

  test.each(Object.entries(codes) as [ErrorCode, number][])('%s is %i, of whatever class', (code, exitCode) => {
    for (const error of [new MillraceError(code, 'x'), new PublishError(code, 'x'), new RedisError(code, 'x')]) {
      expect([exitCodeOf(error), isExpected(error)]).toEqual([exitCode, true])
    }
  })

  test('what was not foreseen is 1', () => {
    const unknown = new UnknownGroupError({ stream: 'orders', group: 'a', groups: ['b'] }, undefined)
    expect(exitCodeOf(unknown)).toBe(4)
    expect(exitCodeOf(new CliError('x', 5))).toBe(5)
    for (const error of [new TypeError('x'), 'x', undefined]) {
      expect([exitCodeOf(error), isExpected(error)]).toEqual([1, false])
    }
  })
})

describe('the URL of Redis', () => {
  test.each(['redis://127.0.0.1:6379', 'rediss://user:p%40ss@host:6380/3', 'redis://[::1]:6379', '/run/redis.sock'])(
    'may be %s',
    (url) => expect(checkRedisUrl(url, '--redis')).toBe(url),
  )

  test('is never shown with what is secret in it', () => {
    const url = 'redis://user:p%40ssword@host:6379'
    expect(redact(`at ${url}: p@ssword, p%40ssword, redis://:x@other?password=y&a=1`, url)).toBe(
      'at redis://***@host:6379: ***, ***, redis://***@other?password=***&a=1',
    )
    expect(redact('the password is not an ordinary word', 'redis://:is@host')).toBe(
      'the password is not an ordinary word',
    )
  })
})
