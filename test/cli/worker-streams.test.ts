import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { eventually } from '../helpers/eventually.ts'
import { startProgram } from '../helpers/program.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, tally } from '../helpers/workers.ts'
import { millrace } from './run.ts'

const redis = withRedis()
const handlers = fileURLToPath(new URL('../fixtures/handlers/object.js', import.meta.url))

describe('a pool on several streams', () => {
  test('works on all of them in each of its processes, and tells them apart in its metrics', async () => {
    const args = ['worker', handlers, '--stream', 'orders', '--stream', 'mails', '--weight', 'orders=3']
    const pool = startProgram([...args, '--processes', '2', '--metrics-port', '0', '--stream-metrics'], {
      env: { MILLRACE_REDIS_URL: redis.url, LOG: '/dev/null' },
    })
    await pool.said(/^ready$/)
    expect(pool.stderr.join()).toContain('streams orders, mails, group main, 2 processes x 32 slots')
    for (const stream of ['orders', 'mails']) {
      for (let n = 0; n < 20; n++) await add(redis.client, 'quick', {}, stream)
      await eventually(async () => expect(await tally(redis.client, stream)).toEqual({ completed: 20 }))
      const key = `{${stream}}:group:main:workers`
      await eventually(async () => expect(await redis.client.zcard(key)).toBe(2))
    }
    const port = pool.stderr.map((line) => /:(\d+)\/metrics/.exec(line)?.[1]).find((found) => found !== undefined)
    await eventually(async () => {
      const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
      for (const stream of ['orders', 'mails']) {
        const done = `millrace_processed_jobs_total\\{[^}]*stream="${stream}"[^}]*outcome="completed"[^}]*\\} (\\d+)`
        expect(Number(new RegExp(done).exec(text)?.[1])).toBe(20)
        expect(text).toMatch(
          new RegExp(`millrace_stream_entries\\{stream="${stream}"\\}|stream="${stream}",group="main"`),
        )
      }
    })
    pool.signal('SIGTERM')
    expect(await pool.exited).toBe(0)
    for (const stream of ['orders', 'mails']) {
      expect(await redis.client.zcard(`{${stream}}:group:main:workers`)).toBe(0)
    }
  })

  test.each([
    [['--weight', 'orders=3'], '`--weight` and `--priority` are for several streams: repeat `--stream`'],
    [['--priority', 'strict'], '`--weight` and `--priority` are for several streams: repeat `--stream`'],
    [['--stream', 'mails', '--weight', 'order=3'], '`--weight` speaks of order, which no `--stream` names'],
    [['--stream', 'mails', '--weight', 'mails=2', '--weight', 'mails=3'], '`--weight` is given twice for mails'],
    [['--stream', 'mails', '--weight', 'mails'], 'expected `--weight` to be a stream and its weight, as in orders=3'],
    [['--stream', 'mails', '--weight', '=3'], 'expected `--weight` to be a stream and its weight, as in orders=3'],
    [['--stream', 'mails', '--weight', 'mails=0'], 'expected `--weight` to be a positive integer up to 1000, got 0'],
    [['--stream', 'mails', '--weight', 'mails=1001'], 'to be a positive integer up to 1000, got 1001'],
    [['--stream', 'mails', '--priority', 'fair'], 'Allowed choices are weighted, strict'],
    [['--stream', 'orders'], 'expected each `--stream` to name another one, got orders twice'],
    [['--stream', 'mails', '--stream', 'orders', '--weight', 'orders=2'], 'got orders twice'],
  ])('%j is refused with one line and exit code 2, before a process is started', async (args, text) => {
    // A worker process would look for the file first of all.
    const asked = ['worker', './no-such-handlers.ts', '--stream', 'orders', ...args]
    const { code, stdout, stderr } = await millrace(asked, { redis: redis.url })
    expect(stderr).toContain(text)
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect([code, stdout]).toEqual([2, ''])
  })

  test('a name that no stream can have is refused with one line and exit code 2', async () => {
    const asked = ['worker', handlers, '--stream', 'orders', '--stream', 'bad name']
    const { code, stdout, stderr } = await millrace(asked, { redis: redis.url })
    expect(stderr).toContain('expected a stream name')
    expect(stderr.trim().split('\n')).toHaveLength(1)
    expect([code, stdout]).toEqual([2, ''])
  })
})
