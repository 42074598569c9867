import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { BulkPublish } from '../../cli/bulk-publish.ts'
import { parseDelay, parseDuration } from '../../cli/duration.ts'
import { readLines } from '../../cli/ndjson.ts'
import { progressLine } from '../../cli/progress.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { millrace, startMillrace } from './run.ts'

const redis = withRedis()

const cli = (args: readonly string[], stdin: string | Buffer = '') => millrace(args, { redis: redis.url, stdin })

async function fileOf(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  onEnd(() => rm(folder, { recursive: true, force: true }))
  const path = join(folder, 'jobs.ndjson')
  await writeFile(path, text)
  return path
}

const jobLines = (count: number) =>
  Array.from({ length: count }, (_, at) => `{"job":"mail","data":{"order":${at}}}\n`).join('')

const idsOf = async (stream: string) => (await redis.client.xrange(stream, '-', '+')).map(([id]) => id)

interface BulkDocument {
  schemaVersion: number
  stream: string
  published: number
  failed: number
  unknown: number
  firstId: string | null
  lastId: string | null
}

describe('one job', () => {
  test('is in Redis once its id, and nothing else, is on stdout', async () => {
    const { code, stdout, stderr } = await cli(['publish', 'orders', 'mail', '{"order":42}'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const entries = await redis.client.xrange('orders', '-', '+')
    expect(entries).toEqual([[stdout.trim(), ['job', 'mail', 'data', '{"order":42}']]])
  })

  test('without data has null as its payload', async () => {
    expect(await cli(['publish', 'orders', 'mail'])).toMatchObject({ code: 0 })
    const [entry] = await redis.client.xrange('orders', '-', '+')
    expect(entry?.[1]).toEqual(['job', 'mail', 'data', 'null'])
  })

  test('has the headers that --header gives it, and those that cannot be are refused', async () => {
    await cli(['publish', 'orders', 'mail', '--header', 'tenant=acme', '--header', 'filter=a=b'])
    const [entry] = await redis.client.xrange('orders', '-', '+')
    expect(entry?.[1]).toEqual(['job', 'mail', 'data', 'null', 'h-tenant', 'acme', 'h-filter', 'a=b'])
    for (const [args, message] of [
      [['mail', '--header', 'tenant'], 'expected `--header` to be a name, = and a text'],
      [['mail', '--header', 'a=1', '--header', 'a=2'], 'expected `--header` with a once'],
      [['mail', '--header', 'Tenant=acme'], 'in lower case, got "Tenant"'],
      [['--file', '-', '--header', 'a=1'], 'expected no `--header` with `--file`'],
    ] as const) {
      const { code, stderr } = await cli(['publish', 'orders', ...args])
      expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    }
    expect(await redis.client.xlen('orders')).toBe(1)
  })

  test('has the key that --key gives it, and what can be none is refused', async () => {
    await cli(['publish', 'orders', 'book', '{"cents":100}', '--key', 'ada'])
    const [entry] = await redis.client.xrange('orders', '-', '+')
    expect(entry?.[1]).toEqual(['job', 'book', 'data', '{"cents":100}', 'key', 'ada'])
    for (const [args, message] of [
      [['book', '--key', ''], 'expected `--key` to be 1 to 256 bytes of printable text, got 0 bytes'],
      [['--file', '-', '--key', 'ada'], 'expected no `--key` with `--file`: lines have "key"'],
    ] as const) {
      const { code, stderr } = await cli(['publish', 'orders', ...args])
      expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    }
    expect(await redis.client.xlen('orders')).toBe(1)
  })

  test('is told as a document with --json', async () => {
    const { code, stdout } = await cli(['publish', 'orders', 'mail', '--json'])
    const [id] = await idsOf('orders')
    const counts = { published: 1, failed: 0, unknown: 0, firstId: id, lastId: id }
    expect([code, JSON.parse(stdout)]).toEqual([0, { schemaVersion: 1, stream: 'orders', ...counts }])
  })

  test('goes where --redis says, before the environment, and MILLRACE_REDIS_URL goes before REDIS_URL', async () => {
    const nowhere = 'redis://127.0.0.1:1'
    const args = ['publish', 'orders', 'mail']
    const flag = await millrace([...args, '--redis', redis.url], { redis: nowhere })
    const env = await millrace(args, { redis: redis.url, env: { REDIS_URL: nowhere } })
    const fallback = await millrace(args, { env: { REDIS_URL: redis.url, MILLRACE_REDIS_URL: '' } })
    expect([flag.code, env.code, fallback.code, (await idsOf('orders')).length]).toEqual([0, 0, 0, 3])
  })
})

describe('one job for later', () => {
  const dueMs = async (id: string) => Number(await redis.client.zscore('{orders}:scheduled', id))

  test('waits for its delay under the id on stdout', async () => {
    const { code, stdout, stderr } = await cli(['publish', 'orders', 'mail', '--delay', '5m'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(/^\d+-1\d{15}\n$/)
    expect(Math.abs((await dueMs(stdout.trim())) - Date.now() - 300_000)).toBeLessThan(60_000)
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('waits for its instant', async () => {
    const at = new Date(Date.now() + 3_600_000)
    const { stdout } = await cli(['publish', 'orders', 'mail', '--json', '--at', at.toISOString()])
    const { published, firstId } = JSON.parse(stdout) as BulkDocument
    expect(published).toBe(1)
    expect(await dueMs(firstId ?? '')).toBe(at.getTime())
  })

  test('whose instant is local tells what it was taken for', async () => {
    const local = `${new Date().getFullYear() + 1}-06-21 10:00`
    const { code, stdout, stderr } = await cli(['publish', 'orders', 'mail', '--at', local])
    const atMs = new Date(local).getTime()
    expect([code, stderr]).toEqual([0, `--at ${local} is ${new Date(atMs).toISOString()}\n`])
    expect(await dueMs(stdout.trim())).toBe(atMs)
  })

  test('whose instant is over is in the stream', async () => {
    const { stdout } = await cli(['publish', 'orders', 'mail', '--at', '2020-02-29T12:00:00+01:00'])
    expect(await idsOf('orders')).toEqual([stdout.trim()])
  })

  test.each([
    [['--delay', '5'], 'expected `--delay` to be a duration up to 3650d, such as 30s, 5m, 2h or 7d, got "5"'],
    [['--delay', '3651d'], 'expected `--delay` to be a duration up to 3650d, such as 30s, 5m, 2h or 7d, got "3651d"'],
    [
      ['--at', '-15m'],
      'expected `--at` to be a time such as 2026-11-21T10:00:00Z, 10:00 (the next, local) or ms since',
    ],
    [['--at', '2500-01-01T10:00Z'], 'at most 10 years ahead, got 16725261600000'],
    [['--delay', '5m', '--at', '2030-01-01T10:00Z'], 'expected either `--delay` or `--at`, got both'],
  ])('with %j is refused: exit code 2', async (flags, message) => {
    const { code, stderr } = await cli(['publish', 'orders', 'mail', ...flags])
    expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    expect(await redis.client.keys('*')).toEqual([])
  })
})

describe('a file of jobs', () => {
  test('is published line by line, in its order, and the count is what Redis has', async () => {
    const { code, stdout, stderr } = await cli(['publish', 'orders', '--file', await fileOf(jobLines(5000))])
    expect({ code, stdout }).toEqual({ code: 0, stdout: '' })
    expect(stderr).toMatch(/^published 5,000 jobs to orders in .+s \([\d,]+\/s\)\n$/)
    const entries = await redis.client.xrange('orders', '-', '+')
    expect(entries.map(([, fields]) => fields[3])).toEqual(
      Array.from({ length: 5000 }, (_, at) => JSON.stringify({ order: at })),
    )
  })

  test('may come from stdin, with blank lines, other line ends, a byte order mark and no newline at the end', async () => {
    const text = '\uFEFF{"job":"a"}\r\n\r\n   \n{"data":[1],"job":"b"}\n\n{"job":"c","data":"ü"}'
    const { code, stdout } = await cli(['publish', 'orders', '--file', '-', '--json'], text)
    const ids = await idsOf('orders')
    const counts = { published: 3, failed: 0, unknown: 0, firstId: ids[0], lastId: ids[2] }
    expect([code, JSON.parse(stdout)]).toEqual([0, { schemaVersion: 1, stream: 'orders', ...counts }])
    const fields = (await redis.client.xrange('orders', '-', '+')).map(([, values]) => [values[1], values[3]])
    expect(fields).toEqual([['a', 'null'], ['b', '[1]'], ['c', '"ü"']]) // prettier-ignore
  })

  test('may say in its lines when they are due; the flag is for those that do not', async () => {
    const soon = Date.now() + 3_600_000
    const lines = [
      { job: 'a', runAt: new Date(soon).toISOString() },
      { job: 'b', runAt: soon + 1 },
      { job: 'c', delayMs: 100_000_000 },
      { job: 'd', delayMs: 0, headers: { tenant: 'acme' } },
      { job: 'e', runAt: 1 },
      { job: 'f' },
      { job: 'g', delayMs: 0, key: 'ada' },
    ]
    const text = lines.map((line) => JSON.stringify(line)).join('\n')
    const { code, stdout } = await cli(['publish', 'orders', '--file', '-', '--json', '--delay', '3d'], text)

    expect([code, (JSON.parse(stdout) as BulkDocument).published]).toEqual([0, 7])
    const entries = await redis.client.xrange('orders', '-', '+')
    expect(entries.map(([, values]) => values[1])).toEqual(['d', 'e', 'g'])
    expect(entries[0]?.[1]).toContain('h-tenant')
    expect(entries[2]?.[1].slice(-2)).toEqual(['key', 'ada'])
    const [, first, , second] = await redis.client.zrange('{orders}:scheduled', '0', '1', 'WITHSCORES')
    expect([first, second].map(Number)).toEqual([soon, soon + 1])
    expect(await redis.client.zcount('{orders}:scheduled', Date.now() + 99_000_000, Date.now() + 100_000_000)).toBe(1)
    expect(await redis.client.zcount('{orders}:scheduled', Date.now() + 250_000_000, '+inf')).toBe(1)
  })

  test('that is empty publishes nothing and is no error', async () => {
    expect(await cli(['publish', 'orders', '--file', '-'])).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^published 0 jobs to orders/) as string,
    })
  })

  test.each([
    ['{"job":"mail"', 'got what is not JSON'],
    ['[]', 'expected {"job":"send-receipt","data":…}, got an array'],
    ['7', 'expected {"job":"send-receipt","data":…}, got a number'],
    ['{"data":1}', 'got no job'],
    ['{"job":5}', 'expected a job name of 1 to 100 letters, digits and _ . : - , got 5'],
    ['{"job":"a b"}', 'expected a job name of 1 to 100 letters, digits and _ . : - , got "a b"'],
    [
      '{"job":"mail","dta":1}',
      'unknown key "dta" (known: job, data, delayMs, runAt, expiresAt, ttlMs, idempotencyToken, uniqueKey, unique, key, headers)',
    ],
    ['{"job":"mail","headers":{"n":5}}', 'expected the header `n` to be a text, got number'],
    ['{"job":"mail","delayMs":-1}', 'expected `delayMs` to be an integer of 0 or more up to 315360000000, got -1'],
    ['{"job":"mail","delayMs":null}', 'expected `delayMs` to be an integer of 0 or more up to 315360000000, got null'],
    ['{"job":"mail","delayMs":1,"runAt":1}', 'expected either `delayMs` or `runAt`, got both'],
    ['{"job":"mail","runAt":"tomorrow"}', 'expected `runAt` to be an instant with its zone'],
    [
      '{"job":"mail","runAt":"2500-01-01T00:00Z"}',
      'expected `runAt` to be a Date or ms since the epoch, at most 10 years',
    ],
    [Buffer.from([0x22, 0xff, 0x22]), 'expected UTF-8 text, got other bytes'],
    [`{"job":"mail","data":"${'x'.repeat(1024 * 1024)}"}`, 'to be at most 1048576 bytes of JSON, got 1048578'],
    ['x'.repeat(2 * 1024 * 1024 + 1), 'expected at most 2097152 bytes, got more'],
  ])('stops at a bad line (case %#), says its number and why, and how much was published before', async (bad, why) => {
    const input = Buffer.concat([Buffer.from(`${jobLines(2)}\n`), Buffer.from(bad), Buffer.from(`\n${jobLines(3)}`)])
    const { code, stdout, stderr } = await cli(['publish', 'orders', '--file', '-', '--json'], input)
    expect(stderr).toMatch(/^error: line 4: .+; 2 jobs were published.*\n$/)
    expect(stderr).toContain(why)
    expect(code).toBe(5)
    expect((JSON.parse(stdout) as BulkDocument).published).toBe(2)
    expect(await redis.client.xlen('orders')).toBe(2)
  })

  test('whose first line is bad has published nothing: exit code 1', async () => {
    const { code, stderr } = await cli(['publish', 'orders', '--file', '-'], 'x\n')
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: line 1: .+; 0 jobs were published\n$/)])
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test.each([
    [100, 20_000, 'two thousand jobs', 2001],
    [1024 * 1024, 100, 'sixteen megabytes', 17],
  ])('with lines of %i bytes is read no further than what is in flight: %3$s', async (bytes, lines, _what, most) => {
    const published = () => new Promise<never>(() => {})
    const bulk = new BulkPublish({ publish: published }, { told: () => {}, failed: () => {} })
    let pulled = 0
    async function* input(): AsyncGenerator<Buffer> {
      for (; pulled < lines; pulled++) yield Buffer.from(`{"job":"mail","data":"${'x'.repeat(bytes - 24)}"}\n`)
    }
    void bulk.run(input())
    for (let before = -1; before < pulled; await setImmediate()) before = pulled
    expect(pulled).toBeGreaterThan(most / 2)
    expect(pulled).toBeLessThanOrEqual(most)
    expect(bulk.inFlight).toBeGreaterThanOrEqual(pulled - 1)
  })

  test('ends at Ctrl-C with what is in flight published, counted exactly: exit code 130', async () => {
    const { process: child, ended } = startMillrace(['publish', 'orders', '--file', '-', '--json'], {
      redis: redis.url,
    })
    const feed = setInterval(() => void (child.stdin.writableLength < 1e6 && child.stdin.write(jobLines(1000))), 1)
    onEnd(() => clearInterval(feed))
    await eventually(async () => expect(await redis.client.xlen('orders')).toBeGreaterThan(2000))
    child.kill('SIGINT')
    const { code, stdout, stderr } = await ended
    const { published, failed, unknown } = JSON.parse(stdout) as BulkDocument
    expect({ code, failed, unknown }).toEqual({ code: 130, failed: 0, unknown: 0 })
    expect(stderr).toMatch(/^interrupted: published [\d,]+ jobs to orders; the rest was not read\n$/)
    expect(await redis.client.xlen('orders')).toBe(published)
  })

  test('that loses Redis in the middle is partly done, and the counts say what Redis may have', async () => {
    const server = await startServer()
    const args = ['publish', 'orders', '--file', '-', '--json', '--timeout', '1s']
    const { process: child, ended } = startMillrace(args, { redis: server.url })
    const feed = setInterval(() => void (child.stdin.writableLength < 1e6 && child.stdin.write(jobLines(1000))), 1)
    onEnd(() => clearInterval(feed))
    const client = connectTo(server.url)
    await eventually(async () => expect(await client.xlen('orders')).toBeGreaterThan(2000))
    server.stopProcess()
    const { code, stdout, stderr } = await ended
    server.continueProcess()
    const { published, failed, unknown } = JSON.parse(stdout) as BulkDocument
    expect(code).toBe(5)
    expect(failed + unknown).toBeGreaterThan(0)
    expect(stderr).toMatch(/^error: could not publish to orders: its time was up.+ jobs were published, .+\n$/)
    await eventually(async () => {
      const entries = await client.xlen('orders')
      expect(entries).toBeGreaterThanOrEqual(published)
      expect(entries).toBeLessThanOrEqual(published + unknown)
    })
  })
})

describe('lines', () => {
  async function* chunksOf(text: string, size: number): AsyncGenerator<Buffer> {
    const bytes = Buffer.from(text)
    for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size)
  }

  test.each([1, 2, 3, 7, 1000])('are the same in chunks of %i bytes', async (size) => {
    const lines: string[] = []
    for await (const some of readLines(chunksOf('één\n\n2\nthree', size), 100)) {
      lines.push(...some.map(({ number, text }) => `${number}:${text}`))
    }
    expect(lines).toEqual(['1:één', '2:', '3:2', '4:three'])
  })

  test('before a line that is too long are handed out first', async () => {
    const lines: string[] = []
    const read = async () => {
      for await (const some of readLines(chunksOf('a\nb\n12345\nc', 1000), 4))
        lines.push(...some.map(({ text }) => text))
    }
    await expect(read()).rejects.toMatchObject({ line: 3, message: 'line 3: expected at most 4 bytes, got more' })
    expect(lines).toEqual(['a', 'b'])
  })
})

describe('what people write and read', () => {
  test.each([
    ['500ms', 500],
    ['1s', 1000],
    ['1.5s', 1500],
    ['2m', 120_000],
    ['1h', 3_600_000],
  ])('%s is %i ms', (text, ms) => expect(parseDuration('--timeout', text)).toBe(ms))

  test.each(['', '5', '5 s', '0s', '-1s', 's', '1e3s', '0.0001s'])('%j is no duration', (text) => {
    expect(() => parseDuration('--timeout', text)).toThrow(
      'expected `--timeout` to be a duration such as 500ms, 1s, 2m or 1h, got ',
    )
  })

  test.each([
    ['0s', 0],
    ['90m', 5_400_000],
    ['7d', 604_800_000],
  ])('a delay of %s is %i ms', (text, ms) => expect(parseDelay('--delay', text)).toBe(ms))

  test('a time that is to pass may be as long as a delay, and not 0', () => {
    expect(parseDelay('--ttl', '3650d', { minMs: 1 })).toBe(315_360_000_000)
    const wanted = 'expected `--ttl` to be a duration up to 3650d, such as 30s, 5m, 2h or 7d, got "0s"'
    expect(() => parseDelay('--ttl', '0s', { minMs: 1 })).toThrow(wanted)
  })

  test('progress has a bar and the time left only where the end is known', () => {
    expect(progressLine(1234, 2, undefined)).toBe('1,234 jobs  617/s')
    expect(progressLine(1000, 2, 0.5)).toBe('████████████░░░░░░░░░░░░ 50%  1,000 jobs  500/s  2.0s left')
    expect(progressLine(0, 0, 0)).toBe('░░░░░░░░░░░░░░░░░░░░░░░░ 0%  0 jobs  0/s')
  })
})
