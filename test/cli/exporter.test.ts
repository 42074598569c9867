import { createServer } from 'node:net'
import { describe, expect, test } from 'vitest'
import { STREAMS_KEY } from '../../src/redis/keys.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { ask } from '../helpers/health.ts'
import { Scrape } from '../helpers/metrics.ts'
import { startProgram, type Program } from '../helpers/program.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { add } from '../helpers/workers.ts'

/** `millrace exporter`: what it serves, and that it lives on whatever Redis does. */

const redis = withRedis()

interface Served {
  readonly exporter: Program
  readonly port: number
  readonly scrape: () => Promise<Scrape>
  readonly page: (path: string) => Promise<{ status: number; text: string }>
}

/** An exporter on a free port, as soon as it listens. */
async function serve(args: readonly string[] = [], url = redis.url): Promise<Served> {
  const exporter = startProgram(['exporter', '--port', '0', ...args], { env: { MILLRACE_REDIS_URL: url } })
  const [, port] = await exporter.said(/^metrics and health: http:\/\/\S+:(\d+)\/metrics \/livez \/readyz$/)
  return {
    exporter,
    port: Number(port),
    scrape: async () => new Scrape((await ask(Number(port), '/metrics')).text),
    page: (path) => ask(Number(port), path),
  }
}

async function arrange(client = redis.client, streams = ['orders', 'mails']): Promise<void> {
  for (const stream of streams) {
    await add(client, 'x', {}, stream)
    await client.xgroup('CREATE', stream, 'main', '0')
    await client.sadd(STREAMS_KEY, stream)
  }
}

const warnings = ({ log }: Program) => log.filter(({ level }) => level === 'warn').map(({ msg }) => msg)

describe('millrace exporter', () => {
  test('serves all streams in use, what it is, and its own process', async () => {
    await arrange()
    const { scrape, page, exporter } = await serve()
    await exporter.said(/^ready$/)
    const seen = await scrape()
    expect(seen.by('stream', 'millrace_group_lag_jobs')).toEqual({ orders: 1, mails: 1 })
    expect(seen.sum('millrace_exporter_up')).toBe(1)
    expect(seen.rows('millrace_build_info')[0]?.labels['version']).toMatch(/^\d+\.\d+\.\d+/)
    expect(seen.sum('process_start_time_seconds')).toBeGreaterThan(0)
    expect(seen.rows('nodejs_eventloop_lag_seconds')).toHaveLength(1)
    expect(seen.rows('millrace_consumer_pending_jobs')).toEqual([])
    expect(seen.duplicates()).toEqual([])
    expect(await page('/readyz')).toMatchObject({ status: 200, text: 'ready\n' })
    expect(await page('/livez')).toMatchObject({ status: 200, text: 'alive\n' })
    expect((await page('/')).status).toBe(404)
  })

  test('--stream names some, --consumers and --memory tell more', async () => {
    await arrange()
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    const { scrape } = await serve(['--stream', 'orders', 'nobody-knows-it', '--consumers', '--memory'])
    const seen = await scrape()
    expect(seen.by('stream', 'millrace_stream_entries')).toEqual({ orders: 1 })
    expect(seen.by('consumer', 'millrace_consumer_pending_jobs')).toEqual({ w: 1 })
    expect(seen.sum('millrace_stream_memory_bytes')).toBeGreaterThan(0)
  })

  test('starts without Redis, says where it looked, and tells of it as soon as it is there', async () => {
    const server = await startServer()
    await server.kill()
    const { exporter, scrape, page } = await serve([], server.url)
    const away = await scrape()
    expect(away.sum('millrace_exporter_up')).toBe(0)
    expect(away.rows('millrace_build_info')).toHaveLength(1)
    expect((await page('/livez')).status).toBe(200)
    const readiness = await page('/readyz')
    expect(readiness.status).toBe(503)
    expect(readiness.text).toMatch(/^not ready: Redis cannot be reached/)
    await exporter.said(/^cannot read the state of streams for metrics$/)
    const fault = expect.stringMatching(new RegExp(`cannot reach Redis at \\S+:${server.port}`)) as string
    expect(exporter.log.find(({ level }) => level === 'warn')).toMatchObject({ role: 'exporter', fault })

    await server.restart()
    await arrange(connectTo(server.url))
    await eventually(async () => expect((await page('/readyz')).status).toBe(200))
    await eventually(async () => expect((await scrape()).sum('millrace_exporter_streams')).toBe(2), {})
    await eventually(() =>
      expect(warnings(exporter)).toEqual([
        'cannot read the state of streams for metrics',
        'metrics tell again of what could not be read',
      ]),
    )
  })

  test('says once that Redis is away, and once that it is back', async () => {
    const server = await startServer()
    const { exporter, page } = await serve([], server.url)
    await exporter.said(/^ready$/)
    await server.kill()
    await eventually(async () => expect((await page('/readyz')).status).toBe(503))
    await page('/readyz')
    await server.restart()
    await eventually(async () => expect((await page('/readyz')).status).toBe(200))
    expect(warnings(exporter)).toEqual([
      'cannot read the state of streams for metrics',
      'metrics tell again of what could not be read',
    ])
  })

  test.each([
    ['in a pipe as whole lines of JSON', [], /^\{"level":"info",.*"role":"exporter",.*"msg":"metrics and health: /],
    ['in words where asked for', ['--log-format', 'pretty'], /^\[\d\d:\d\d:\d\d\] INFO: metrics and health: /],
  ])('logs %s', async (_what, args, first) => {
    const exporter = startProgram(['exporter', '--port', '0', ...args], { env: { MILLRACE_REDIS_URL: redis.url } })
    await exporter.said(/\bready$/)
    exporter.signal('SIGTERM')
    expect(await exporter.exited).toBe(0)
    await exporter.closed
    const like = (pattern: RegExp) => expect.stringMatching(pattern) as string
    expect(exporter.raw).toEqual([like(first), like(/ready\b/), like(/SIGTERM: exporter ended/)])
  })

  test.each([
    ['the flag', ['--log-level', 'warn'], { MILLRACE_LOG_LEVEL: 'info' }],
    ['the variable', [], { MILLRACE_LOG_LEVEL: 'warn' }],
  ])('logs no more than %s says', async (_what, args, env) => {
    const away = await startServer()
    await away.kill()
    const exporter = startProgram(['exporter', '--port', '0', ...args], {
      env: { MILLRACE_REDIS_URL: away.url, ...env },
    })
    await exporter.said(/^cannot read/)
    exporter.signal('SIGTERM')
    expect(await exporter.exited).toBe(0)
    await exporter.closed
    expect(exporter.log.map(({ level }) => level)).toEqual(['warn'])
  })

  test('ends at once with SIGTERM and SIGINT, also while Redis hangs', async () => {
    const server = await startServer()
    const hanging = await serve([], server.url)
    await hanging.exporter.said(/^ready$/)
    server.stopProcess()
    const scrapes = Promise.all([hanging.page('/readyz'), hanging.scrape()].map((one) => one.catch(() => undefined)))
    hanging.exporter.signal('SIGTERM')
    expect(await hanging.exporter.exited).toBe(0)
    await scrapes
    server.continueProcess()

    const { exporter } = await serve()
    exporter.signal('SIGINT')
    expect(await exporter.exited).toBe(0)
    await exporter.closed
    expect(warnings(exporter)).toEqual([])
    expect(exporter.stderr.at(-1)).toBe('SIGINT: exporter ended')
  })

  test('two of a deployment tell the same', async () => {
    await arrange()
    const [one, other] = await Promise.all([serve(), serve()])
    const [a, b] = await Promise.all([one.scrape(), other.scrape()])
    expect(a.rows('millrace_group_lag_jobs')).toEqual(b.rows('millrace_group_lag_jobs'))
    expect(a.rows('millrace_group_lag_jobs')).toHaveLength(2)
  })
})

describe('refused before anything is served:', () => {
  const refused = async (...args: string[]) => {
    const exporter = startProgram(['exporter', ...args], { env: { MILLRACE_REDIS_URL: redis.url } })
    const code = await exporter.exited
    await exporter.closed
    return { code, said: exporter.stderr }
  }

  test('a port that another process listens on', async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, resolve))
    onEnd(() => void taken.close())
    const address = taken.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0
    expect(await refused('--port', String(port))).toEqual({
      code: 1,
      said: [
        `error: cannot listen on port ${port} for metrics: another process listens there; end it or choose another --port`,
      ],
    })
  })

  test.each([
    [2, ['--port', '65536']],
    [2, ['--port', 'http']],
    [2, ['--host', '']],
    [2, ['--stream', 'bad name']],
    [2, ['--max-streams', '0']],
    [2, ['--log-level', 'loud']],
    [1, ['--port', '0', '--host', '192.0.2.1']],
  ] as const)('with exit code %i: %j', async (expected, args) => {
    const { code, said } = await refused(...args)
    expect(code).toBe(expected)
    expect(said).toHaveLength(1)
    expect(said[0]).toMatch(/^error: /)
  })
})
