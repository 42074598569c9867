import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeEach, describe, expect, test } from 'vitest'
import { Producer } from '../../src/index.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { ask } from '../helpers/health.ts'
import { Scrape } from '../helpers/metrics.ts'
import { startProgram, type Program } from '../helpers/program.ts'
import { startServer, withRedis } from '../helpers/redis.ts'
import { add } from '../helpers/workers.ts'

/** What a worker pool serves: all its processes as one scrape target, and its health. */

const redis = withRedis()
const LIST = fileURLToPath(new URL('../fixtures/handlers/list.ts', import.meta.url))

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-metrics-'))
  onEnd(() => rmSync(folder, { recursive: true, force: true }))
})

const log = (): string => {
  try {
    return readFileSync(join(folder, 'log'), 'utf8')
  } catch {
    return ''
  }
}

interface Served {
  readonly pool: Program
  readonly port: number
  readonly scrape: () => Promise<Scrape>
  readonly status: (path: string) => Promise<number>
}

/** A pool on a free port, as soon as it listens. */
async function serve(args: readonly string[] = [], url = redis.url): Promise<Served> {
  const pool = startProgram(
    ['worker', LIST, '--stream', 'orders', '--metrics-port', '0', '--stream-metrics', '--lease', '1500ms', ...args],
    { env: { MILLRACE_REDIS_URL: url, LOG: join(folder, 'log') }, cwd: folder },
  )
  const [, port] = await pool.said(/^metrics and health: http:\/\/\S+:(\d+)\/metrics/)
  return {
    pool,
    port: Number(port),
    scrape: async () => new Scrape((await ask(Number(port), '/metrics')).text),
    status: async (path) => (await ask(Number(port), path)).status,
  }
}

const pidsOf = (pool: Program) => pool.stderr.flatMap((line) => /^worker (\d+) ready/.exec(line)?.slice(1) ?? [])

/** Jobs one after the other, so that every process gets some. */
async function publish(count: number): Promise<void> {
  const producer = new Producer({ redis: redis.url, logger: false })
  await producer.publishMany('quick', Array(count).fill(null), { stream: 'orders' })
  await producer.close()
}

describe('/metrics', () => {
  test('tells of all processes as one, and of the stream', async () => {
    const { pool, port, scrape } = await serve(['--processes', '2'])
    await pool.said(/^ready$/)
    await publish(1000)
    await eventually(async () => {
      const seen = await scrape()
      expect(seen.sum('millrace_finished_jobs_total', { job_name: 'quick', result: 'completed' })).toBe(1000)
    })

    const answer = await ask(port, '/metrics')
    const seen = new Scrape(answer.text)
    expect(answer.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(seen.duplicates()).toEqual([])
    expect(seen.sum('millrace_worker_concurrency')).toBe(64)
    expect(seen.sum('millrace_worker_state', { state: 'running' })).toBe(2)
    expect(seen.sum('millrace_job_duration_seconds_count', { job_name: 'quick' })).toBe(1000)
    expect(seen.sum('millrace_redis_up', { role: 'keeper' })).toBe(1)
    expect(seen.rows('millrace_build_info')).toHaveLength(1)
    expect(seen.sum('millrace_pool_ready_processes')).toBe(2)
    expect(seen.sum('process_cpu_seconds_total')).toBeGreaterThan(0)
    expect(seen.sum('millrace_exporter_up')).toBe(1)
    expect(seen.rows('millrace_group_lag_jobs', { stream: 'orders', group: 'main' })).toHaveLength(1)
    expect(seen.rows('millrace_group_pending_jobs', { stream: 'orders', group: 'main' })).toHaveLength(1)
  })

  test('loses no count with a process that ends: killed, drained or replaced, the sum never falls', async () => {
    const { pool, scrape } = await serve(['--processes', '2'])
    await pool.said(/^ready$/)
    await publish(500)
    const finished = async () => (await scrape()).sum('millrace_finished_jobs_total') ?? 0
    await eventually(async () => expect(await finished()).toBe(500))

    for (const pid of pidsOf(pool)) process.kill(Number(pid), 'SIGKILL')
    await pool.said(/^worker \d+ ready/, { skip: 3 })
    expect(await finished()).toBe(500)
    await publish(300)
    await eventually(async () => expect(await finished()).toBe(800))
    const seen = await scrape()
    expect(seen.sum('millrace_pool_replaced_processes_total')).toBe(2)
    expect(seen.sum('millrace_worker_concurrency')).toBe(64)
  })

  test('keeps job names bounded over all processes that there ever were', async () => {
    const { pool, scrape } = await serve()
    const names = async () => Object.keys((await scrape()).by('job_name', 'millrace_processed_jobs_total'))
    for (let round = 0; round < 3; round++) {
      await pool.said(/^worker \d+ ready/, { skip: round })
      for (let n = 0; n < 90; n++) await add(redis.client, `made-up-${round}-${n}`)
      await eventually(async () => {
        const seen = (await scrape()).sum('millrace_processed_jobs_total', { outcome: 'unknown_job' })
        expect(seen).toBeGreaterThanOrEqual(90 * (round + 1))
      })
      process.kill(Number(pidsOf(pool).at(-1)), 'SIGKILL')
      await pool.said(/ended \(SIGKILL\)/, { skip: round })
    }
    expect((await names()).length).toBeLessThanOrEqual(102)
    expect(await names()).toContain('__other__')
    expect((await scrape()).duplicates()).toEqual([])
  })

  test('answers while a handler blocks the event loop of a process, with what that process last told', async () => {
    const { pool, scrape, status } = await serve()
    await pool.said(/^ready$/)
    await publish(10)
    await eventually(async () => expect((await scrape()).sum('millrace_finished_jobs_total')).toBe(10))
    const id = await add(redis.client, 'block', { ms: 8000 })
    await eventually(() => expect(log()).toContain(`started ${id}`))

    expect((await scrape()).sum('millrace_finished_jobs_total')).toBe(10)
    expect(await status('/livez')).toBe(200)
    expect(log()).not.toContain(`ended ${id}`)
  })

  test('is served while Redis is away at the start, and the pool works as soon as Redis is there', async () => {
    const server = await startServer()
    await server.kill()
    const { pool, scrape, status } = await serve([], server.url)
    const away = await eventually(async () => {
      const seen = await scrape()
      expect(seen.sum('millrace_redis_up', { role: 'worker' })).toBe(0)
      return seen
    })
    expect(away.sum('millrace_exporter_up')).toBe(0)
    expect(away.rows('millrace_group_lag_jobs')).toEqual([])
    expect(await status('/livez')).toBe(200)
    expect(await status('/readyz')).toBe(503)
    // Longer than a worker waits by itself: its process is replaced, the pool goes on.
    await pool.said(/^worker \d+ ended \(cannot reach Redis/)
    expect((await scrape()).sum('millrace_redis_errors_total', { role: 'worker', code: 'closed' })).toBeGreaterThan(0)

    await server.restart()
    await pool.said(/^ready$/)
    await eventually(async () => expect(await status('/readyz')).toBe(200))
    await eventually(async () => expect((await scrape()).sum('millrace_exporter_up')).toBe(1))
  })
})

describe('/livez and /readyz', () => {
  test('Redis that goes away makes a pool not ready and leaves it live', async () => {
    const server = await startServer()
    const { pool, status } = await serve(['--processes', '2'], server.url)
    await pool.said(/^ready$/)
    await eventually(async () => expect(await status('/readyz')).toBe(200))
    server.stopProcess()
    await eventually(async () => expect(await status('/readyz')).toBe(503))
    expect(await status('/livez')).toBe(200)
    server.continueProcess()
    await eventually(async () => expect(await status('/readyz')).toBe(200))
  })

  test('a process that is being replaced makes the pool not ready, and so does a drain; it is live all the while', async () => {
    const { pool, port, status } = await serve(['--processes', '2', '--drain', '30s'])
    expect(await status('/readyz')).toBe(503)
    await pool.said(/^ready$/)
    await eventually(async () => expect(await status('/readyz')).toBe(200))
    process.kill(Number(pidsOf(pool)[0]), 'SIGKILL')
    await pool.said(/ended \(SIGKILL\)/)
    expect([await status('/livez'), await status('/readyz')]).toEqual([200, 503])
    await pool.said(/^worker \d+ ready/, { skip: 2 })
    await eventually(async () => expect(await status('/readyz')).toBe(200))

    const id = await add(redis.client, 'wait', { ms: 3000 })
    await eventually(() => expect(log()).toContain(`started ${id}`))
    pool.signal('SIGTERM')
    await pool.said(/draining/)
    expect([await status('/livez'), await status('/readyz')]).toEqual([200, 503])
    const body = JSON.parse((await ask(port, '/readyz')).text) as { processes: { state: string }[] }
    expect(body.processes.some(({ state }) => state === 'draining')).toBe(true)
    expect(await pool.exited).toBe(0)
    expect(log()).toContain(`ended ${id}`)
  })

  test('other paths and methods are refused', async () => {
    const { port, status } = await serve()
    expect(await status('/')).toBe(404)
    expect(await status('/__proto__')).toBe(404)
    expect((await ask(port, '/metrics', 'POST')).status).toBe(405)
    const head = await ask(port, '/metrics', 'HEAD')
    expect([head.status, head.text]).toEqual([200, ''])
  })
})

describe('refused before anything is started:', () => {
  const refused = async (...args: string[]) => {
    const pool = startProgram(['worker', LIST, '--stream', 'orders', ...args], {
      env: { MILLRACE_REDIS_URL: redis.url },
    })
    const code = await pool.exited
    await pool.closed
    expect(await redis.client.exists('orders')).toBe(0)
    return { code, said: pool.stderr }
  }

  test('a port that another process listens on', async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, resolve))
    onEnd(() => void taken.close())
    const address = taken.address()
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0

    expect(await refused('--metrics-port', String(port))).toEqual({
      code: 1,
      said: [
        `error: cannot listen on port ${port} for metrics: another process listens there; end it or choose another --metrics-port`,
      ],
    })
  })

  test.each([
    ['--metrics-port', '65536'],
    ['--metrics-port', 'http'],
    ['--metrics-port', '-1'],
    ['--metrics-port', ''],
    ['--stream-metrics', '--group', 'main'],
    ['--metrics-host', '127.0.0.1'],
  ])('%s %s', async (...args) => {
    const { code, said } = await refused(...args)
    expect(code).toBe(2)
    expect(said).toHaveLength(1)
    expect(said[0]).toContain(args[0])
  })

  test('an address that this machine does not have', async () => {
    const { code, said } = await refused('--metrics-port', '0', '--metrics-host', '192.0.2.1')
    expect(code).toBe(1)
    expect(said).toEqual([expect.stringContaining('this machine has no such address; choose another --metrics-host')])
  })
})
