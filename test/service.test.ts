import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import { expect, test } from 'vitest'
import { startChild, type Child } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { connectTo, startServer } from './helpers/redis.ts'

/** examples/service.ts: a service that publishes, as its callers see it while Redis is away. */

/** How long Redis is away under load, at least. For figures: `MILLRACE_SERVICE_OUTAGE_MS=30000 npx vitest run test/service.test.ts`. */
const OUTAGE_MS = Number(process.env['MILLRACE_SERVICE_OUTAGE_MS'] ?? 1000)
const CALLERS = 16
const LEAST_ORDERS = 200

interface Service {
  readonly child: Child
  /** Takes an order; gives the status of the answer. */
  order(order: number, headers?: Record<string, string>): Promise<number>
  get(path: string): Promise<Response>
}

async function startService(redis: string, env: NodeJS.ProcessEnv = {}): Promise<Service> {
  const child = startChild(new URL('../examples/service.ts', import.meta.url), {
    env: { REDIS_URL: redis, PORT: '0', SPILL_FILE: join(tmpdir(), `none-${process.pid}.spill`), ...env },
  })
  const [, port = ''] = await child.line(/^listening on port (\d+)$/)
  const get = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${port}${path}`, init)
  return {
    child,
    get,
    async order(order, headers = {}) {
      const response = await get('/orders', { method: 'POST', headers, body: JSON.stringify({ order }) })
      await response.arrayBuffer()
      return response.status
    },
  }
}

/** The orders of the stream, in its order. */
async function ordersIn(client: Redis): Promise<number[]> {
  const orders: number[] = []
  for (let from = '-'; ;) {
    const page = await client.xrange('orders', from, '+', 'COUNT', 10_000)
    for (const [, fields] of page) orders.push((JSON.parse(fields[3] ?? '{}') as { order: number }).order)
    const last = page.at(-1)
    if (last === undefined) return orders
    from = `(${last[0]}`
  }
}

const sorted = (numbers: Iterable<number>): number[] => [...numbers].sort((a, b) => a - b)

/** Callers that order one thing after the other, each with the next number, and what they were answered. */
function callersOf(service: Service) {
  const answers = new Map<number, number>()
  const durationsMs: number[] = []
  let isOver = false
  const call = async (): Promise<void> => {
    while (!isOver) {
      const order = answers.size + 1
      answers.set(order, 0)
      const atMs = performance.now()
      answers.set(order, await service.order(order))
      durationsMs.push(performance.now() - atMs)
    }
  }
  const all = Promise.all(Array.from({ length: CALLERS }, call))
  return {
    answers,
    durationsMs,
    answered: (more: number) => {
      const enough = durationsMs.length + more
      return eventually(() => expect(durationsMs.length).toBeGreaterThanOrEqual(enough))
    },
    async end() {
      isOver = true
      await all
    },
  }
}

test(
  'answers every order through an outage under load, and each one that it has taken is published once',
  async () => {
    const server = await startServer({ aof: true })
    const service = await startService(server.url, { BUFFER_JOBS: '1000000' })
    const callers = callersOf(service)
    await callers.answered(LEAST_ORDERS)

    await server.kill()
    const awayAtMs = performance.now()
    const before = callers.durationsMs.length
    await callers.answered(LEAST_ORDERS)
    await eventually(() => expect(performance.now() - awayAtMs).toBeGreaterThan(OUTAGE_MS), {
      timeoutMs: OUTAGE_MS + 60_000,
    })
    expect((await service.get('/healthz')).status).toBe(200)
    const during = callers.durationsMs.length - before
    await server.restart()
    await callers.answered(LEAST_ORDERS)
    await callers.end()

    const taken = callers.answers
    expect(new Set(taken.values())).toEqual(new Set([202]))
    const client = connectTo(server.url)
    await eventually(async () => expect(await client.xlen('orders')).toBeGreaterThanOrEqual(taken.size))
    expect(sorted(await ordersIn(client))).toEqual(sorted(taken.keys()))

    service.child.signal('SIGTERM')
    expect(await service.child.exited).toEqual({ code: 0, signal: null })
    if (process.env['MILLRACE_SERVICE_OUTAGE_MS'] !== undefined) {
      const slowest = sorted(callers.durationsMs)
      const at = (share: number) => `${slowest[Math.floor(share * (slowest.length - 1))]?.toFixed(1)} ms`
      console.log(
        `${taken.size} orders, ${during} of them in ${OUTAGE_MS} ms without Redis; p50 ${at(0.5)}, p99 ${at(0.99)}, slowest ${at(1)}`,
      )
    }
  },
  OUTAGE_MS + 120_000,
)

test('says 503 while its buffer is full, takes no order twice, and publishes what it said 202 to', async () => {
  const server = await startServer({ aof: true })
  const service = await startService(server.url, { BUFFER_JOBS: '50' })
  const key = { 'idempotency-key': 'cart-7' }
  expect([await service.order(0, key), await service.order(0, key)]).toEqual([202, 202])
  expect([await service.order(0, { 'idempotency-key': 'é'.repeat(300) }), await service.order(NaN)]).toEqual([400, 400])
  await eventually(async () => {
    const metrics = await (await service.get('/metrics')).text()
    expect(metrics).toMatch(/millrace_published_jobs_total\{.*result="duplicate"\} 1\n/)
  })
  await server.kill()
  const statuses = new Map<number, number>()
  for (let order = 1; order <= 80; order++) statuses.set(order, await service.order(order))
  const taken = [...statuses].filter(([, status]) => status === 202).map(([order]) => order)
  expect(taken).toHaveLength(50)
  expect([...statuses.values()].filter((status) => status === 503)).toHaveLength(30)
  expect(service.child.stderr.join()).toContain('40 orders wait for Redis; 50 may')
  await server.restart()
  const client = connectTo(server.url)
  await eventually(async () => expect(await ordersIn(client)).toEqual([0, ...taken]))
})

test('that is stopped in an outage publishes first, when it is started again, what it had taken', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-service-'))
  onEnd(() => rm(dir, { recursive: true, force: true }))
  const env = { SPILL_FILE: join(dir, 'orders.spill'), CLOSE_MS: '100' }
  const server = await startServer({ aof: true })
  const first = await startService(server.url, env)
  expect(await first.order(1)).toBe(202)
  const client = connectTo(server.url)
  await eventually(async () => expect(await ordersIn(client)).toEqual([1]))
  await server.kill()
  const orders = Array.from({ length: 40 }, (_, at) => at + 2)
  for (const order of orders) expect(await first.order(order)).toBe(202)
  first.child.signal('SIGTERM')
  expect(await first.child.exited).toEqual({ code: 0, signal: null })
  expect(first.child.stderr.join()).toContain('40 orders wait in ')
  expect(first.child.stderr.join()).not.toContain('unpublished: ')

  // Still without Redis: the second start takes orders, too.
  const second = await startService(server.url, env)
  expect(await second.order(42)).toBe(202)
  await server.restart()
  await eventually(async () => expect(await ordersIn(client)).toEqual([1, ...orders, 42]))
  await second.child.line(/^40 orders of .* are published$/)
  expect(await readdir(dir)).toEqual([])
})
