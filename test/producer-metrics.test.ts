import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { Producer, type Durability, type ProducerOptions } from '../src/index.ts'
import { isBatch, loadScripts } from './fixtures/producers.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { scrape } from './helpers/metrics.ts'
import { startProxy } from './helpers/proxy.ts'
import { startServer, withRedis } from './helpers/redis.ts'
import { readRules } from './helpers/rules.ts'

/** What producers tell of themselves, against what was done to them. */

const redis = withRedis()
const NOWHERE = 'redis://127.0.0.1:1'
const stream = 'orders'

function newProducer<Of extends Durability = 'redis'>(options: ProducerOptions<Of>): Producer<Of> {
  const producer = new Producer({ redis: redis.url, logger: false, ...options })
  onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
  return producer
}

/** The number of rules/thresholds.yml that an alert compares with. */
function threshold(name: string): number {
  const rule = readRules().find(({ record }) => record === name)
  return Number(/^vector\((.*)\)$/.exec(rule?.expr ?? '')?.[1])
}

describe('the alerts on a producer fire in an outage:', () => {
  test.each([
    ['jobs', { maxJobs: 10 }, 'x'],
    ['bytes', { maxBytes: 1000 }, 'x'.repeat(85)],
  ])('its buffer is seen to be above the threshold of %s before it is full', async (of, buffer, data) => {
    const registry = new Registry()
    const producer = newProducer({ redis: NOWHERE, registry, durability: 'buffered', buffer })
    for (let job = 0; job < 9; job++) await producer.publish('mail', data, { stream })
    const seen = await scrape(registry)
    const filled =
      (seen.sum(`millrace_publish_buffer_${of}`) ?? 0) / (seen.sum(`millrace_publish_buffer_limit_${of}`) ?? 0)
    expect(filled).toBeGreaterThan(threshold('millrace:publish_buffer_ratio:threshold'))
    expect(seen.sum('millrace_publish_buffer_high_total')).toBe(1)
  })

  test('the age of its oldest job goes by when that was published, and grows while it waits', async () => {
    const registry = new Registry()
    const producer = newProducer({ redis: NOWHERE, registry, durability: 'buffered' })
    const oldest = async () => (await scrape(registry)).sum('millrace_publish_buffer_oldest_seconds') ?? NaN
    const atMs = performance.now()
    await producer.publish('mail', 1, { stream })
    const first = await eventually(async () => {
      const seconds = await oldest()
      expect(seconds).toBeGreaterThan(0)
      return seconds
    })
    await producer.publish('mail', 2, { stream })
    const second = await oldest()
    expect(second).toBeGreaterThan(first)
    expect(second).toBeLessThanOrEqual((performance.now() - atMs) / 1000)
    await producer.close({ timeoutMs: 0 })
    expect(await oldest()).toBe(0)
  })
})

test('the oldest job may be in a batch that was sent and never answered', async () => {
  const server = await startServer()
  const registry = new Registry()
  const producer = newProducer({ redis: server.url, registry, durability: 'buffered' })
  const oldest = async () => (await scrape(registry)).sum('millrace_publish_buffer_oldest_seconds') ?? NaN
  await producer.publish('mail', 1, { stream })
  await eventually(async () => expect((await scrape(registry)).sum('millrace_publish_buffer_jobs')).toBe(0))
  expect(await oldest()).toBe(0)
  server.stopProcess()
  await producer.publish('mail', 2, { stream })
  await eventually(async () => expect(await oldest()).toBeGreaterThan(0.1))
  server.continueProcess()
  await eventually(async () => expect(await oldest()).toBe(0))
})

test('jobs that were shed are counted by name, and as rejected, too', async () => {
  const registry = new Registry()
  const shed: unknown[] = []
  const buffer = { maxJobs: 2, whenFull: 'shed', onShed: ({ data }: { data: unknown }) => shed.push(data) } as const
  const producer = newProducer({ redis: NOWHERE, registry, durability: 'buffered', buffer })
  for (const job of [1, 2]) await producer.publish('news', job, { stream, bufferPriority: 1 })
  for (const job of [3, 4]) await producer.publish('mail', job, { stream })
  await expect(producer.publish('news', 5, { stream, bufferPriority: 1 })).rejects.toThrow('shed')
  const seen = await scrape(registry)
  expect(shed.sort()).toEqual([1, 2, 5])
  expect(seen.by('job_name', 'millrace_publish_shed_jobs_total')).toEqual({ news: 3 })
  expect(seen.by('job_name', 'millrace_published_jobs_total', { result: 'rejected' })).toEqual({ news: 3 })
})

test('a buffered job is counted when Redis has it or it is given up, not when its publish resolves', async () => {
  const server = await startServer()
  await server.kill()
  const registry = new Registry()
  const results = async () => (await scrape(registry)).by('result', 'millrace_published_jobs_total')
  const producer = newProducer({ redis: server.url, registry, durability: 'buffered', buffer: { maxAgeMs: { 0: 50 } } })
  await producer.publish('mail', 1, { stream, bufferPriority: 0 })
  await producer.publish('mail', 2, { stream })
  await eventually(async () => expect(await results()).toEqual({ rejected: 1 }))
  await server.restart()
  await eventually(async () => expect(await results()).toEqual({ ok: 1, rejected: 1 }))
  expect((await scrape(registry)).sum('millrace_publish_duration_seconds_count')).toBe(1)
})

test('a job whose batch got no answer is counted as unknown', async () => {
  await loadScripts(redis.client)
  const proxy = await startProxy(redis.url)
  const registry = new Registry()
  const producer = newProducer({ redis: proxy.url, registry })
  await producer.publish('mail', 1, { stream })
  const swallowed = proxy.swallowReplyKeepOpen(isBatch)
  const failing = expect(producer.publish('mail', 2, { stream, timeoutMs: 300 })).rejects.toThrow('or not')
  await swallowed
  await failing
  const results = (await scrape(registry)).by('result', 'millrace_published_jobs_total')
  expect(results).toEqual({ ok: 1, unknown: 1 })
})

test('duplicates, too few replicas and what a bound holds up are counted apart', async () => {
  const registry = new Registry()
  const producer = newProducer({ registry, whenStreamFull: 'reject' })
  const token = { stream, idempotencyToken: 'cart-7' }
  for (let time = 0; time < 3; time++) await producer.publish('mail', 1, token)
  const { isReplicated } = await producer.publish('mail', 2, { stream, durability: { replicas: 1, timeoutMs: 1 } })
  expect(isReplicated).toBe(false)
  await redis.client.xgroup('CREATE', stream, 'main', '0')
  await redis.client.hset('{orders}:settings', 'maxBacklog', 2)
  // The bound is looked at once a second.
  await eventually(() =>
    expect(producer.publish('mail', 3, { stream })).rejects.toMatchObject({ code: 'ERR_STREAM_FULL' }),
  )
  const seen = await scrape(registry)
  const results = seen.by('result', 'millrace_published_jobs_total')
  expect(results).toMatchObject({ duplicate: 2, rejected: 1 })
  expect((results['ok'] ?? 0) - (await redis.client.xlen(stream))).toBe(0)
  expect(seen.sum('millrace_publish_unreplicated_jobs_total')).toBe(1)
  expect(seen.by('bound', 'millrace_publish_held_batches_total')).toEqual({ backlog: 1 })
})

test('what is held up for the memory of Redis is counted, too', async () => {
  const server = await startServer({ args: ['--maxmemory', '20mb'] })
  const registry = new Registry()
  const producer = newProducer({ redis: server.url, registry, maxMemoryShare: 0.01, whenStreamFull: 'reject' })
  // What is sent before the memory was looked at goes through.
  await eventually(() =>
    expect(producer.publish('mail', 1, { stream })).rejects.toMatchObject({ code: 'ERR_MEMORY_FULL' }),
  )
  const held = (await scrape(registry)).by('bound', 'millrace_publish_held_batches_total')
  expect(held).toEqual({ memory: expect.any(Number) as number })
})
