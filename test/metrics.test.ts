import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { register, Registry, Counter } from 'prom-client'
import { describe, expect, test } from 'vitest'
import {
  Producer,
  StreamMetrics,
  Worker,
  type Logger,
  type MetricsRegistry,
  type ProducerOptions,
} from '../src/index.ts'
import { READING_METRICS, SERVER_METRICS } from '../src/metrics/exporter-metrics.ts'
import { GROUP_METRICS } from '../src/metrics/group-metrics.ts'
import { BUILD_METRICS, CONNECTION_METRICS } from '../src/metrics/process-metrics.ts'
import { PRODUCER_METRICS } from '../src/metrics/producer-metrics.ts'
import { WORKER_METRICS } from '../src/metrics/worker-metrics.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { scrape } from './helpers/metrics.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { add, gate, startWorker } from './helpers/workers.ts'

const redis = withRedis()

const METRICS: readonly { readonly name: string; readonly labels: readonly string[] }[] = [
  ...WORKER_METRICS,
  ...PRODUCER_METRICS,
  ...CONNECTION_METRICS,
  ...BUILD_METRICS,
  ...GROUP_METRICS,
  ...SERVER_METRICS,
  ...READING_METRICS,
]

function newProducer(options: ProducerOptions): Producer {
  const producer = new Producer({ redis: redis.url, logger: false, ...options })
  onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
  return producer
}

function newStreamMetrics(registry: MetricsRegistry, url: string, streams = ['orders']): StreamMetrics {
  const metrics = new StreamMetrics({ redis: url, streams, registry, logger: false })
  onEnd(() => metrics.close())
  return metrics
}

/** A logger that keeps what it is warned of. */
function warnings(): Logger & { lines: string[] } {
  const lines: string[] = []
  return { lines, debug() {}, info() {}, warn: (_fields, line) => void lines.push(line), error() {} }
}

describe('names', () => {
  test('names, types, labels and help are what dashboards and alerts were built on', async () => {
    const registry = new Registry()
    const held = gate()
    onEnd(held.open)
    const handlers = { 'send-receipt'() {}, held: () => held.wait() }
    await newProducer({ registry }).publishMany('send-receipt', [1, 2], { stream: 'orders' })
    await newProducer({ registry }).publish('held', {}, { stream: 'orders' })
    newStreamMetrics(registry, redis.url)
    await startWorker({ redis: redis.url, registry, handlers })
    // While something runs: what tells of the oldest run has no series else.
    const seen = await eventually(async () => {
      const served = await scrape(registry)
      expect(served.sum('millrace_finished_jobs_total')).toBe(2)
      expect(served.sum('millrace_in_flight_jobs')).toBe(1)
      return served
    })

    const metrics = await registry.getMetricsAsJSON()
    const labelsOf = new Map(METRICS.map(({ name, labels }) => [name, labels]))
    const lines = metrics.map(({ name, type, help }) => {
      const labels = labelsOf.get(name) ?? []
      for (const row of [name, `${name}_bucket`].flatMap((series) => seen.rows(series))) {
        expect(Object.keys(row.labels).filter((label) => label !== 'le')).toEqual(labels)
      }
      return `${name} ${String(type)} {${labels.join(',')}}\n  ${help}`
    })
    expect(metrics.map(({ name }) => name).sort()).toEqual([...labelsOf.keys()].sort())
    const told = await readFile(join(import.meta.dirname, '../docs/metrics.md'), 'utf8')
    for (const { name, help } of metrics) {
      expect(told).toContain(`\`${name}\``)
      expect(told).toContain(help)
    }
    await expect(`${lines.sort().join('\n')}\n`).toMatchFileSnapshot('fixtures/metrics.txt')
  })

  test('prom-client has a registry by default, and nothing of ours is in it', async () => {
    await newProducer({ registry: new Registry() }).publish('send-receipt', {}, { stream: 'orders' })
    await newProducer({}).publish('send-receipt', {}, { stream: 'orders' })
    await startWorker({ redis: redis.url })

    expect(register.getMetricsAsArray()).toEqual([])
  })

  test('job names that producers make up are bounded: what is beyond 100 is counted together, and said once', async () => {
    const registry = new Registry()
    const logger = warnings()
    const producer = newProducer({ registry, logger })
    await startWorker({ redis: redis.url, registry, logger, unknownJobMs: 0, concurrency: 1100 })
    const hostile = ['__proto__', 'constructor', '__other__', '__malformed__', 'a'.repeat(100)]
    const names = [...hostile, ...Array.from({ length: 1000 }, (_, n) => `made-up-${n}`)]
    await Promise.all(names.map((name) => producer.publish(name, {}, { stream: 'orders' })))
    const seen = await eventually(async () => {
      const scraped = await scrape(registry)
      expect(scraped.sum('millrace_processed_jobs_total', { outcome: 'unknown_job' })).toBe(names.length)
      return scraped
    })
    for (const [name, labels] of [
      ['millrace_published_jobs_total', { result: 'ok' }],
      ['millrace_processed_jobs_total', { outcome: 'unknown_job' }],
    ] as const) {
      const counted = seen.by('job_name', name, labels)
      expect(Object.keys(counted).length).toBeLessThanOrEqual(101)
      expect(Object.values(counted).reduce((sum, count) => sum + count)).toBe(names.length)
      expect(counted['__other__']).toBeGreaterThan(800)
    }
    expect(seen.duplicates()).toEqual([])
    expect(logger.lines.filter((line) => line.includes('more job names'))).toHaveLength(2)
  })
})

describe('one registry', () => {
  test('holds several workers and producers: of one stream and group they add up', async () => {
    const registry = new Registry()
    const handlers = { x() {} }
    const first = await startWorker({ redis: redis.url, registry, handlers, concurrency: 3 })
    await startWorker({ redis: redis.url, registry, handlers, concurrency: 4 })
    await startWorker({ redis: redis.url, registry, handlers, concurrency: 5, stream: 'mails' })
    const [one, other] = [newProducer({ registry }), newProducer({ registry })]
    for (let n = 0; n < 10; n++) await (n % 2 ? one : other).publish('x', n, { stream: 'orders' })
    await one.publish('x', 0, { stream: 'mails' })
    await eventually(async () => {
      expect((await scrape(registry)).by('stream', 'millrace_finished_jobs_total')).toEqual({ orders: 10, mails: 1 })
    })

    const seen = await scrape(registry)
    expect(seen.by('stream', 'millrace_published_jobs_total')).toEqual({ orders: 10, mails: 1 })
    expect(seen.by('stream', 'millrace_worker_concurrency')).toEqual({ orders: 7, mails: 5 })
    expect(seen.duplicates()).toEqual([])

    await first.stop()
    expect((await scrape(registry)).by('stream', 'millrace_worker_concurrency')).toEqual({ orders: 4, mails: 5 })
  })

  test('never sees a counter go back: a worker that follows another in this process adds to what that one did', async () => {
    const registry = new Registry()
    const worker = () => startWorker({ redis: redis.url, registry, handlers: { x() {} } })
    const finished = async () => (await scrape(registry)).sum('millrace_finished_jobs_total')
    const first = await worker()
    await add(redis.client, 'x')
    await eventually(async () => expect(await finished()).toBe(1))
    await first.stop()
    expect(await finished()).toBe(1)
    expect((await scrape(registry)).sum('millrace_delivered_jobs_total', { source: 'new' })).toBe(1)

    await worker()
    await add(redis.client, 'x')
    await eventually(async () => expect(await finished()).toBe(2))
    expect((await scrape(registry)).sum('millrace_delivered_jobs_total', { source: 'new' })).toBe(2)
  })

  test('speaks OpenMetrics too, with the names that it asks for', async () => {
    const registry = new Registry()
    registry.setContentType(Registry.OPENMETRICS_CONTENT_TYPE as unknown as typeof Registry.PROMETHEUS_CONTENT_TYPE)
    await newProducer({ registry }).publish('x', {}, { stream: 'orders' })

    const text = await registry.metrics()
    expect(text).toContain('# TYPE millrace_published_jobs counter')
    expect(text).toContain('millrace_published_jobs_total{stream="orders",job_name="x",result="ok"} 1')
    expect(await registry.metrics()).toBe(text)
  })

  test('that was cleared has our metrics again with the next worker', async () => {
    const registry = new Registry()
    await (await startWorker({ redis: redis.url, registry })).stop()
    registry.clear()
    await startWorker({ redis: redis.url, registry })

    expect((await scrape(registry)).sum('millrace_worker_state', { state: 'running' })).toBe(1)
  })

  test.each([
    ['no registry', {}],
    ['a URL', 'http://localhost:9800'],
    ['null', null],
  ])('that is %s is refused when constructed', (_what, registry) => {
    const given = { registry } as unknown as { registry: Registry }
    const expected = 'expected `registry` to be a Registry of prom-client'
    expect(() => new Producer(given)).toThrow(expected)
    expect(() => new Worker({ ...given, stream: 'orders', handlers: { x() {} } })).toThrow(expected)
    expect(() => new StreamMetrics({ ...given, streams: ['orders'] })).toThrow(expected)
  })

  test('with a metric of our name that is not ours is refused, by that name', () => {
    const registry = new Registry()
    new Counter({ name: 'millrace_polls_total', help: 'not ours', registers: [registry] })

    expect(() => new Worker({ registry, stream: 'orders', handlers: { x() {} } })).toThrow('millrace_polls_total')
  })
})

describe('the connections', () => {
  test('tell reconnects, errors by code, and whether they are up', async () => {
    const server = await startServer()
    const registry = new Registry()
    const producer = newProducer({ registry, redis: server.url })
    await startWorker({ redis: server.url, registry, handlers: { x() {} } })
    await producer.publish('x', 1, { stream: 'orders' })
    const roles = ['worker', 'fetcher', 'keeper', 'producer']
    await eventually(async () => {
      const up = (await scrape(registry)).by('role', 'millrace_redis_up')
      expect(Object.keys(up).sort()).toEqual([...roles].sort())
    })

    await server.kill()
    await eventually(async () => {
      expect(Object.keys((await scrape(registry)).by('role', 'millrace_redis_up'))).toEqual(['producer'])
    })
    const refused = await producer.publish('x', 2, { stream: 'orders', timeoutMs: 100 }).catch(() => 'refused')
    expect(refused).toBe('refused')
    await server.restart()
    await eventually(async () => {
      const seen = await scrape(registry)
      const reconnects = seen.by('role', 'millrace_redis_reconnects_total')
      for (const role of ['worker', 'fetcher', 'keeper']) {
        expect(seen.sum('millrace_redis_up', { role })).toBe(1)
        expect(reconnects[role]).toBeGreaterThanOrEqual(1)
        expect(seen.sum('millrace_redis_errors_total', { role, code: 'closed' })).toBeGreaterThanOrEqual(1)
      }
      expect(seen.by('result', 'millrace_published_jobs_total')).toEqual({ ok: 1, rejected: 1 })
    })
  })

  test('count what Redis refuses by its word', async () => {
    const server = await startServer()
    const registry = new Registry()
    // Else it would not ask Redis, which is full, at all.
    const producer = newProducer({ registry, redis: server.url, maxMemoryShare: false })
    await producer.publish('x', 1, { stream: 'orders' })
    await connectTo(server.url).config('SET', 'maxmemory', '1')
    await producer.publish('x', 2, { stream: 'orders', timeoutMs: 200 }).catch(() => {})

    const seen = await scrape(registry)
    expect(seen.sum('millrace_redis_errors_total', { role: 'producer', code: 'OOM' })).toBeGreaterThanOrEqual(1)
    expect(seen.sum('millrace_publish_buffer_limit_jobs')).toBe(100_000)
  })

  test('jobs that a stopping worker could not settle are counted as abandoned', async () => {
    const server = await startServer()
    const registry = new Registry()
    const held = gate()
    const worker = await startWorker({ redis: server.url, registry, handlers: { x: () => held.wait() } })
    await newProducer({ redis: server.url }).publish('x', 1, { stream: 'orders' })
    await eventually(async () => expect((await scrape(registry)).sum('millrace_in_flight_jobs')).toBe(1))
    await server.kill()
    held.open()
    expect(await worker.stop({ drainMs: 1000 })).toEqual({ handedBack: 0, unsettled: 1 })

    const seen = await scrape(registry)
    expect(seen.sum('millrace_shutdown_abandoned_jobs_total')).toBe(1)
    expect(seen.sum('millrace_acked_jobs_total', { result: 'error' })).toBeGreaterThanOrEqual(1)
    expect(seen.sum('millrace_finished_jobs_total')).toBe(0)
  })
})
