import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { describe, expect, test } from 'vitest'
import { entryLine } from '../../cli/commands/tail.ts'
import { widthOf } from '../../cli/width.ts'
import { eventually } from '../helpers/eventually.ts'
import { startServer, connectTo, withRedis } from '../helpers/redis.ts'
import { millrace, startMillrace } from './run.ts'

const redis = withRedis()

const tail = (...args: string[]) => millrace(['tail', ...args], { redis: redis.url })

async function publish(from: number, to: number, client = redis.client): Promise<void> {
  for (let n = from; n <= to; n++) await client.xadd('orders', `${n}-0`, 'job', 'mail', 'data', `{"n":${n}}`)
}

/** A command that goes on, with the lines that it has written so far. */
function following(url: string, ...args: string[]) {
  const cli = startMillrace(['tail', 'orders', '-f', ...args], { redis: url })
  const lines: string[] = []
  const said: string[] = []
  createInterface({ input: cli.process.stdout }).on('line', (line) => lines.push(line))
  createInterface({ input: cli.process.stderr }).on('line', (line) => said.push(line))
  return { ...cli, lines, said }
}

describe('millrace tail', () => {
  test('shows the newest entries, a line each, and nothing that a terminal would obey', async () => {
    await publish(1, 11)
    await redis.client.xadd('orders', '12-0', 'job', '\x1b[2J', 'data', 'a\nb\x1b]0;owned\x07\u202e')
    const { code, stdout, stderr } = await tail('orders')
    const lines = stdout.trimEnd().split('\n')
    expect({ code, stderr, count: lines.length }).toEqual({ code: 0, stderr: '', count: 10 })
    expect(lines[0]).toBe('1970-01-01T00:00:00.003Z  3-0  mail            {"n":3}')
    expect(lines[9]).toBe('1970-01-01T00:00:00.012Z  12-0  (no job)        a b ]0;owned')
  })

  test('prints a document for each entry with --json, with all of its payload', async () => {
    const payload = JSON.stringify('x'.repeat(5000))
    await redis.client.xadd('orders', '1-0', 'job', 'mail', 'data', payload)
    const { stdout } = await tail('orders', '--json')
    expect(JSON.parse(stdout)).toEqual({
      schemaVersion: 1,
      stream: 'orders',
      entryId: '1-0',
      jobId: '1-0',
      job: 'mail',
      publishedMs: 1,
      payload,
      headers: {},
      replayOf: null,
    })
  })

  test('shows what matches, and says where nothing does', async () => {
    await publish(1, 20)
    const shown = async (...args: string[]) => (await tail('orders', ...args)).stdout.match(/\d+-0(?= {2}mail)/g) ?? []
    expect(await shown('-n', '2')).toEqual(['19-0', '20-0'])
    expect(await shown('--where', 'data.n > 18')).toEqual(['19-0', '20-0'])
    expect(await shown('--text', '"n":7}')).toEqual(['7-0'])
    expect(await shown('--from', '18-0')).toEqual(['18-0', '19-0', '20-0'])
    expect(await tail('orders', '--job', 'none')).toEqual({
      code: 0,
      stdout: '',
      stderr: 'no entry of orders matches\n',
    })
    const wrong = await tail('orders', '--where', 'data.n >')
    expect([wrong.code, wrong.stderr]).toEqual([2, expect.stringMatching(/\n {2}data\.n >\n +\^\n$/)])
    expect((await tail('orders', '--where', 'data.m > 1')).stderr).toContain('for which --where could not tell')
    expect(await tail('none')).toMatchObject({ code: 4 })
    expect(await tail('orders', '-n', '-3')).toMatchObject({ code: 2 })
  })

  test('has help with examples', async () => {
    expect((await tail('--help')).stdout.match(/^ {2}\$ millrace tail /gm)?.length).toBeGreaterThanOrEqual(2)
  })
})

describe('millrace tail -f', () => {
  test('goes on with what comes, until Ctrl-C, which is no error', async () => {
    await publish(1, 3)
    const cli = following(redis.url, '-n', '1')
    await eventually(() => expect(cli.lines).toHaveLength(1))
    await publish(4, 300)
    await eventually(() => expect(cli.lines).toHaveLength(298))
    cli.process.kill('SIGINT')
    expect((await cli.ended).code).toBe(0)
    expect(cli.lines.map((line) => / (\d+)-0 /.exec(line)?.[1])).toEqual(
      Array.from({ length: 298 }, (_, n) => String(n + 3)),
    )
    expect(cli.said).toEqual([])
  })

  test('survives a Redis that goes away, and says so', async () => {
    const server = await startServer({ aof: true })
    await publish(1, 1, connectTo(server.url))
    const cli = following(server.url)
    await eventually(() => expect(cli.lines).toHaveLength(1))
    await server.kill()
    await eventually(() => expect(cli.said[0]).toMatch(/trying again$/))
    await server.restart()
    await publish(2, 3, connectTo(server.url))
    await eventually(() => expect(cli.lines).toHaveLength(3))
    expect(cli.said.slice(1)).toEqual(['Redis is back'])
    cli.process.kill('SIGINT')
    expect((await cli.ended).code).toBe(0)
  })

  test('ends without a word when nobody reads it any more', async () => {
    await publish(1, 1)
    const cli = startMillrace(['tail', 'orders', '-f'], { redis: redis.url })
    cli.ended.catch(() => {}) // its output is not read to its end
    const exited = once(cli.process, 'exit')
    let said = ''
    cli.process.stderr.on('data', (text) => (said += String(text)))
    await once(cli.process.stdout, 'data')
    cli.process.stdout.destroy()
    await publish(2, 400)
    expect(await exited).toEqual([0, null])
    expect(said).toBe('')
  })
})

describe('the line of an entry', () => {
  const entry = {
    entryId: '1795245552380-0',
    jobId: '1795245552380-0',
    job: 'send-receipt',
    publishedMs: 1795245552380,
    payload: JSON.stringify({ text: '日本語 '.repeat(100) }),
    headers: {},
    replayOf: null,
  }

  test.each([80, 140])('is never broken by a terminal of %i columns', (columns) => {
    const line = entryLine(entry, { isTTY: true, columns })
    expect(widthOf(line)).toBeLessThan(columns)
    expect(line).toMatch(/1795245552380-0 {2}send-receipt {4}\{"text":.+…$/)
  })
})
