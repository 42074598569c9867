import { spawnSync } from 'node:child_process'
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { beforeEach, describe, expect, test } from 'vitest'
import { behind, unpacked } from '../../cli/bulk-input.ts'
import { placeOf, positionOf } from '../../cli/bulk-place.ts'
import { readState, removeState, statePathOf, writeState } from '../../cli/bulk-state.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { millrace, startMillrace, type Outcome } from './run.ts'

const redis = withRedis()

let folder = ''
let path = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'millrace-test-'))
  path = join(folder, 'jobs.ndjson')
  onEnd(() => rm(folder, { recursive: true, force: true }))
})

const cli = (...args: string[]): Promise<Outcome> => millrace(['publish', 'orders', ...args], { redis: redis.url })

const lines = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, at) => `{"job":"mail","data":{"order":${from + at}}}\n`).join('')

const orders = async (): Promise<number[]> =>
  (await redis.client.xrange('orders', '-', '+')).map(
    ([, fields]) => (JSON.parse(fields[3] ?? '') as { order: number }).order,
  )

const range = (to: number): number[] => Array.from({ length: to }, (_, at) => at)

/** A file whose fourth line is bad: the three before it are published, and it is begun. */
async function beginFile(): Promise<void> {
  await writeFile(path, `${lines(0, 3)}{"job":"a b"}\n${lines(4, 8)}`)
  const { code, stderr } = await cli('--file', path)
  expect([code, stderr]).toEqual([
    5,
    'error: line 4: expected a job name of 1 to 100 letters, digits and _ . : - , got "a b"; 3 jobs were published; go on with --resume\n',
  ])
}

describe('a file that was interrupted', () => {
  test('goes on with --resume, once what is behind its last published line was mended', async () => {
    await beginFile()
    await writeFile(path, lines(0, 9))
    const { code, stdout, stderr } = await cli('--file', path, '--resume', '--json')
    expect(stderr).toMatch(/^going on behind line 3: 3 jobs were published before\npublished 6 jobs to orders in .+\n$/)
    expect([code, JSON.parse(stdout)]).toMatchObject([0, { published: 6, publishedBefore: 3, failed: 0, unknown: 0 }])
    expect(await orders()).toEqual(range(9))
    expect(await readdir(folder)).toEqual(['jobs.ndjson'])
  })

  test('is not begun again by mistake: the refusal says how to go on, and how to begin anew', async () => {
    await beginFile()
    const state = join(folder, '.jobs.ndjson.millrace-publish')
    const { code, stderr } = await cli('--file', path)
    expect(code).toBe(2)
    expect(stderr).toMatch(
      /was begun to be published at \d{4}-.+Z and not finished; nothing was done: go on with `--resume`, /,
    )
    expect(stderr).toContain(`or remove ${state} to publish it again from its first line`)
    expect(await orders()).toEqual(range(3))
    await rm(state)
    await writeFile(path, lines(0, 2))
    expect(await cli('--file', path)).toMatchObject({ code: 0 })
    expect(await orders()).toEqual([0, 1, 2, 0, 1])
  })

  test.each([
    ['changed', lines(1, 9)],
    ['cut', lines(0, 2)],
    ['emptied', ''],
  ])('is refused when what was published of it was %s', async (_what, text) => {
    await beginFile()
    await writeFile(path, text)
    const { code, stderr } = await cli('--file', path, '--resume')
    expect([code, stderr]).toEqual([
      2,
      expect.stringContaining('what was published of it has changed since (up to line 3)'),
    ])
    expect(await orders()).toEqual(range(3))
    expect(await readdir(folder)).toHaveLength(2)
  })

  test('goes to the stream and at the time that it was begun with, and to no other', async () => {
    await writeFile(path, `${lines(0, 1)}x\n`)
    expect(await cli('--file', path, '--delay', '1h')).toMatchObject({ code: 5 })
    await writeFile(path, lines(0, 2))
    const other = await millrace(['publish', 'others', '--file', path, '--resume'], { redis: redis.url })
    expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining('expected the stream orders') as string })
    const later = await cli('--file', path, '--resume', '--delay', '2h')
    expect(later).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('was begun with another `--delay`') as string,
    })
    expect(await cli('--file', path, '--resume')).toMatchObject({ code: 0 })
    expect(await redis.client.zcard('{orders}:scheduled')).toBe(2)
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('says so when Redis does not know it, and publishes nothing', async () => {
    await beginFile()
    await redis.flush()
    const { code, stderr } = await cli('--file', path, '--resume')
    expect([code, stderr]).toEqual([1, expect.stringContaining('Redis does not know how far it was published')])
    expect(await redis.client.keys('*')).toEqual([])
  })

  test('by Ctrl-C goes on where that was', async () => {
    await writeFile(path, lines(0, 20_000))
    const first = startMillrace(['publish', 'orders', '--file', path], { redis: redis.url, stdin: '' })
    await eventually(async () => expect(await redis.client.xlen('orders')).toBeGreaterThan(0), { intervalMs: 1 })
    first.process.kill('SIGINT')
    const { code, stderr } = await first.ended
    expect([code, stderr]).toEqual([
      130,
      expect.stringMatching(/^interrupted: .+ was not read; go on with --resume\n$/),
    ])
    expect(await cli('--file', path, '--resume')).toMatchObject({ code: 0 })
    expect(await orders()).toEqual(range(20_000))
  })

  test('that another process has gone on with is left to it', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.hset('{orders}:settings', 'maxBacklog', 1000)
    await writeFile(path, lines(0, 3000))
    const first = startMillrace(['publish', 'orders', '--file', path], { redis: server.url, stdin: '' })
    await eventually(async () => expect(await client.xlen('orders')).toBe(1000))
    const second = startMillrace(['publish', 'orders', '--file', path, '--resume'], { redis: server.url, stdin: '' })
    const { code, stderr } = await first.ended
    expect([code, stderr]).toEqual([5, expect.stringContaining('another process goes on with the file')])
    await client.hdel('{orders}:settings', 'maxBacklog')
    expect(await second.ended).toMatchObject({ code: 0 })
    const entries = await client.xrange('orders', '-', '+')
    expect(entries.map(([, fields]) => fields[3])).toEqual(range(3000).map((order) => JSON.stringify({ order })))
    expect(await readdir(folder)).toEqual(['jobs.ndjson'])
  })

  test('because Redis has lost some of it goes on by itself from what Redis still has', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.hset('{orders}:settings', 'maxBacklog', 1000)
    await writeFile(path, lines(0, 3000))
    const running = startMillrace(['publish', 'orders', '--file', path], { redis: server.url, stdin: '' })
    await eventually(async () => expect(await client.xlen('orders')).toBe(1000))
    await client.save()
    await client.hset('{orders}:settings', 'maxBacklog', 2000)
    await eventually(async () => expect(await client.xlen('orders')).toBe(2000))
    await server.kill()
    await server.restart()
    await eventually(async () => expect(await client.hdel('{orders}:settings', 'maxBacklog')).toBe(1))
    const { code, stderr } = await running.ended
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/^Redis has lost jobs that it had confirmed .+\npublished 3,000 jobs/),
    ])
    const entries = await client.xrange('orders', '-', '+')
    expect(entries.map(([, fields]) => fields[3])).toEqual(range(3000).map((order) => JSON.stringify({ order })))
  })

  test.each([
    [
      ['--file', '-', '--resume'],
      'expected a file with `--resume`: what comes from stdin cannot be read a second time',
    ],
    [['--file', '-', '--state', 'x'], 'expected a file with `--state`: what comes from stdin cannot be read'],
    [['mail', '--resume'], 'expected a `--file` with `--resume`'],
    [['mail', '--state', 'x'], 'expected a `--file` with `--state`'],
  ])('%j is refused', async (args, message) => {
    expect(await cli(...args)).toMatchObject({ code: 2, stderr: expect.stringContaining(message) as string })
    expect(await redis.client.keys('*')).toEqual([])
  })

  test('is not resumed where nothing was begun: exit code 4', async () => {
    await writeFile(path, lines(0, 3))
    const { code, stderr } = await cli('--file', path, '--resume')
    expect([code, stderr]).toEqual([
      4,
      expect.stringMatching(/^error: nothing to resume: there is no .+, or never begun\n$/),
    ])
    expect(await redis.client.keys('*')).toEqual([])
  })
})

describe('the state file', () => {
  test('is kept where --state says, so that the folder of the file may be read-only', async () => {
    await writeFile(path, `${lines(0, 3)}x\n`)
    const elsewhere = await mkdtemp(join(tmpdir(), 'millrace-test-'))
    onEnd(() => rm(elsewhere, { recursive: true, force: true }))
    const state = join(elsewhere, 'state')
    expect(await cli('--file', path, '--state', state)).toMatchObject({ code: 5 })
    expect(await readdir(folder)).toEqual(['jobs.ndjson'])
    expect(await readdir(elsewhere)).toEqual(['state'])
    await writeFile(path, lines(0, 4))
    expect(await cli('--file', path, '--state', state, '--resume')).toMatchObject({ code: 0 })
    expect(await orders()).toEqual(range(4))
    expect(await readdir(elsewhere)).toEqual([])
  })

  test('of one file is not for another, even one that begins in the same way', async () => {
    const state = join(folder, 'state')
    await writeFile(path, `${lines(0, 1)}x\n`)
    expect(await cli('--file', path, '--state', state)).toMatchObject({ code: 5 })
    const other = join(folder, 'next.ndjson')
    await writeFile(other, lines(0, 3))
    const resumed = await cli('--file', other, '--state', state, '--resume')
    expect([resumed.code, resumed.stderr]).toEqual([
      2,
      expect.stringMatching(
        /^error: expected the file jobs.ndjson, of which .+state keeps that it was begun, got .+next/,
      ),
    ])
    const anew = await cli('--file', other, '--state', state)
    expect([anew.code, anew.stderr]).toEqual([
      2,
      expect.stringMatching(/^error: jobs.ndjson was begun to be published/),
    ])
    expect(await orders()).toEqual([0])
  })

  test('that cannot be written keeps everything from being published', async () => {
    await writeFile(path, lines(0, 3))
    const { code, stderr } = await cli('--file', path, '--state', join(folder, 'no', 'such', 'state'))
    expect([code, stderr]).toEqual([
      1,
      expect.stringMatching(/ENOENT.+nothing was published; give it another place with --state/),
    ])
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('that is none is left as it is', async () => {
    await writeFile(path, lines(0, 3))
    for (const text of ['', '{}', 'null', '{"millrace":"spill"}', lines(0, 1)]) {
      const other = join(folder, 'precious')
      await writeFile(other, text)
      const { code, stderr } = await cli('--file', path, '--state', other)
      expect([code, stderr]).toEqual([2, expect.stringContaining('got something else; it was left as it is')])
      expect(await readFile(other, 'utf8')).toBe(text)
    }
    expect(await redis.client.exists('orders')).toBe(0)
  })

  test('of another feed is neither written over nor removed', async () => {
    const state = { feed: 'a', stream: 'orders', file: 'jobs.ndjson', when: {}, begunAt: 'now' }
    const at = statePathOf(path)
    await writeState(at, state)
    await expect(writeState(at, { ...state, feed: 'b' })).rejects.toThrow('published by another process?')
    await removeState(at, { ...state, feed: 'b' })
    expect(await readState(at)).toEqual(state)
    await removeState(at, state)
    await removeState(at, state)
    expect(await readdir(folder)).toEqual([])
  })

  test('is not left behind where nothing was begun: no Redis, a bad first line, an empty file', async () => {
    await writeFile(path, 'x\n')
    expect(await cli('--file', path)).toMatchObject({ code: 1 })
    await writeFile(path, '\n\n')
    expect(await cli('--file', path)).toMatchObject({ code: 0 })
    await writeFile(path, lines(0, 1))
    await chmod(path, 0o600)
    const nowhere = await millrace(['publish', 'orders', '--file', path], { redis: 'redis://127.0.0.1:1' })
    expect(nowhere).toMatchObject({ code: 3 })
    expect(await readdir(folder)).toEqual(['jobs.ndjson'])
  })
})

describe('a file that is packed by gzip', () => {
  test('is published like any other, from a file of any name and from stdin', async () => {
    await writeFile(path, Buffer.concat([gzipSync(lines(0, 3)), gzipSync(lines(3, 5))]))
    expect(await cli('--file', path)).toMatchObject({ code: 0 })
    const stdin = gzipSync(lines(5, 1000))
    expect(await millrace(['publish', 'orders', '--file', '-'], { redis: redis.url, stdin })).toMatchObject({ code: 0 })
    expect(await orders()).toEqual(range(1000))
  })

  test('that was cut is published up to there, and can be resumed when it is whole', async () => {
    const whole = gzipSync(lines(0, 2000), { level: 0 })
    await writeFile(path, whole.subarray(0, whole.length - 10_000))
    const { code, stderr } = await cli('--file', path)
    expect([code, stderr]).toEqual([
      5,
      expect.stringMatching(/cannot read .+: unexpected end of file; .+go on with --resume\n$/),
    ])
    expect(await redis.client.xlen('orders')).toBeGreaterThan(500)
    await writeFile(path, whole)
    expect(await cli('--file', path, '--resume')).toMatchObject({ code: 0 })
    expect(await orders()).toEqual(range(2000))
  })

  test('from a pipe that is named is published, though it cannot be resumed', async () => {
    const fifo = join(folder, 'pipe')
    expect(spawnSync('mkfifo', [fifo]).status).toBe(0)
    const publishing = cli('--file', fifo)
    await writeFile(fifo, gzipSync(lines(0, 3)))
    expect(await publishing).toMatchObject({ code: 0 })
    expect(await orders()).toEqual(range(3))
    expect(await readdir(folder)).toEqual(['pipe'])
  })
})

describe('what is read', () => {
  async function* chunksOf(bytes: Buffer, size: number): AsyncGenerator<Buffer, void> {
    for (let from = 0; from < bytes.length; from += size) yield bytes.subarray(from, from + size)
  }

  const textOf = async (chunks: AsyncIterable<Buffer>): Promise<string> => {
    const all: Buffer[] = []
    for await (const chunk of chunks) all.push(chunk)
    return Buffer.concat(all).toString()
  }

  test.each([1, 2, 3, 1000])(
    'is unpacked in chunks of %i bytes, and left as it is if it is not packed',
    async (size) => {
      for (const text of ['', '\u001f', '\u001fx', 'x', 'some text']) {
        expect(await textOf(unpacked(chunksOf(Buffer.from(text), size)))).toBe(text)
        expect(await textOf(unpacked(chunksOf(gzipSync(text), size)))).toBe(text)
      }
    },
  )

  test.each([1, 3, 4, 1000])(
    'begins behind a place, in chunks of %i bytes, if what is before it is what it was',
    async (size) => {
      const at = (bytes: number, crc: number) =>
        textOf(behind(chunksOf(Buffer.from('abcdef'), size), { jobs: 1, line: 1, bytes, crc }))
      expect(await at(3, 0x352441c2)).toBe('def')
      expect(await at(6, 0x4b8e39ef)).toBe('')
      await expect(at(3, 1)).rejects.toThrow('has changed since')
      await expect(at(7, 0x4b8e39ef)).rejects.toThrow('has changed since')
    },
  )

  test('has places that are told as text and read back', () => {
    const place = { jobs: 1, line: 2, bytes: 3, crc: 4_294_967_295 }
    expect(placeOf(positionOf(place))).toEqual(place)
    for (const text of ['1', 'line 1 jobs 1 bytes 1', `${positionOf(place)} `, 'line -1 jobs 1 bytes 1 crc32 1']) {
      expect(placeOf(text)).toBeUndefined()
    }
  })
})
