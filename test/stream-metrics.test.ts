import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { Inspector, Producer, StreamMetrics, type Logger, type StreamMetricsOptions } from '../src/index.ts'
import {
  cronDueKey,
  cronKey,
  deadKey,
  groupScheduledKey,
  HANDBACK,
  redeliveryKey,
  scheduledKey,
  settingsKey,
  STREAMS_KEY,
  workersInfoKey,
  workersKey,
} from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { scrape, type Scrape } from './helpers/metrics.ts'
import { connectTo, serverMs, startServer, withRedis, type ControlledServer } from './helpers/redis.ts'
import { add, gate, pending, startWorker } from './helpers/workers.ts'

/** Streams and groups as metrics: the same numbers as an inspector tells, at a bounded cost, whatever somebody has made of them. */

const redis = withRedis()

interface Metered {
  readonly metrics: StreamMetrics
  readonly registry: Registry
  /** What it was warned of. */
  readonly lines: string[]
  /** A scrape that asks Redis, whatever is known already. */
  readonly fresh: () => Promise<Scrape>
}

function metered(options: Partial<StreamMetricsOptions> = {}): Metered {
  const registry = new Registry()
  const lines: string[] = []
  const logger: Logger = { debug() {}, info() {}, warn: (_fields, line) => void lines.push(line), error() {} }
  const metrics = new StreamMetrics({ redis: redis.url, registry, logger, ...options })
  onEnd(() => metrics.close())
  const fresh = async () => {
    await metrics.runOnce()
    return scrape(registry)
  }
  return { metrics, registry, lines, fresh }
}

/** Streams in use, each with a group that has an entry before it. */
async function arrange(...streams: string[]): Promise<void> {
  for (const stream of streams) {
    await add(redis.client, 'x', {}, stream)
    await redis.client.xgroup('CREATE', stream, 'main', '0')
    await redis.client.sadd(STREAMS_KEY, stream)
  }
}

/** How often Redis was asked for something since it was told to forget. */
async function calls(): Promise<Record<string, number>> {
  const stats = await redis.client.info('commandstats')
  const counts: Record<string, number> = {}
  for (const [, name = '', count] of stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)) counts[name] = Number(count)
  return counts
}

describe('the metrics of a stream', () => {
  test('tell lag and pending of every group, whoever works on it', async () => {
    const { registry } = metered({ streams: ['orders', 'nobody-knows-it'] })
    const held = gate()
    onEnd(held.open)
    await startWorker({ redis: redis.url, handlers: { x: () => held.wait() }, concurrency: 2 })
    for (let n = 0; n < 5; n++) await add(redis.client, 'x')
    await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
    await eventually(async () => expect(await pending(redis.client)).toHaveLength(2))
    await eventually(async () => expect(await redis.client.zcard(workersKey('orders', 'main'))).toBe(1))

    const seen = await scrape(registry)
    expect(seen.by('group', 'millrace_group_lag_jobs', { stream: 'orders' })).toEqual({ main: 3, billing: 5 })
    expect(seen.by('group', 'millrace_group_lag_known')).toEqual({ main: 1, billing: 1 })
    expect(seen.sum('millrace_group_lag_seconds', { group: 'billing' })).toBeGreaterThan(0)
    expect(seen.by('group', 'millrace_group_pending_jobs')).toEqual({ main: 2 })
    expect(seen.sum('millrace_group_oldest_pending_seconds', { group: 'main' })).toBeGreaterThan(0)
    expect(seen.by('group', 'millrace_group_workers')).toEqual({ main: 1 })
    expect(seen.by('group', 'millrace_group_slots')).toEqual({ main: 2 })
    expect(seen.sum('millrace_stream_entries')).toBe(5)
    expect(seen.sum('millrace_dead_letter_entries', { group: 'main' })).toBe(0)
    expect(seen.sum('millrace_exporter_up')).toBe(1)
    expect(seen.sum('millrace_exporter_streams')).toBe(1)
  })

  test('are the numbers that an inspector tells of the same state', async () => {
    const { client } = redis
    const now = await serverMs(client)
    await add(client, 'x')
    for (const group of ['main', 'billing', 'lost', 'idle']) await client.xgroup('CREATE', 'orders', group, '0')
    for (let n = 0; n < 20; n++) await add(client, 'x', n)
    const read = (group: string, count: number, key = 'orders') =>
      client.xreadgroup('GROUP', group, 'w', 'COUNT', count, 'STREAMS', key, '>')
    await read('main', 7)
    await read('billing', 21)
    await client.xack('orders', 'billing', ...(await pending(client, 'orders', 'billing')).map(({ id }) => id))
    const unread = (await client.xrange('orders', '-', '+'))[15]?.[0] ?? ''
    await client.xdel('orders', unread)
    await read('lost', 3)
    await client.xclaim('orders', 'main', HANDBACK, 0, (await pending(client))[0]?.id ?? '', 'JUSTID')
    const redelivery = redeliveryKey('orders', 'main')
    await client.xgroup('CREATE', redelivery, 'main', '0', 'MKSTREAM')
    for (let n = 0; n < 4; n++) await add(client, 'x', n, redelivery)
    await read('main', 3, redelivery)
    await client.zadd(scheduledKey('orders'), now - 5000, 'a', now + 60_000, 'b', '+inf', 'c')
    await client.zadd(groupScheduledKey('orders', 'main'), now - 9000, 'd', now - 8000, 'e', '+inf', 'f')
    await client.xadd(deadKey('orders', 'main'), `${now - 70_000}-0`, 'dead-reason', 'attempts')
    await client.xadd(deadKey('orders', 'main'), '*', 'dead-reason', 'attempts')
    for (const [at, name] of [
      [now + 3000, 'a'],
      [now + 3000, 'b'],
      [now - 60_000, 'gone'],
    ] as const) {
      await client.zadd(workersKey('orders', 'main'), at, name)
      await client.hset(workersInfoKey('orders', 'main'), name, '{"slots":8,"running":1}')
    }
    await client.hset(workersInfoKey('orders', 'lost'), ':beat', now - 25 * 3_600_000)
    await client.hset(settingsKey('orders'), 'group:idle:paused', JSON.stringify({ sinceMs: 1, by: 'x', reason: '' }))

    const inspector = new Inspector({ redis: redis.url })
    onEnd(() => inspector.close())
    const { registry } = metered({ streams: ['orders'] })
    const seen = await scrape(registry)
    const [stats] = await inspector.stats('orders')

    const of = (name: string, group: string) => seen.sum(`millrace_${name}`, { group })
    for (const told of stats?.groups ?? []) {
      const { group } = told
      expect({
        group,
        lag: of('group_lag_jobs', group) ?? null,
        pending: of('group_pending_jobs', group),
        scheduled: of('group_scheduled_jobs', group),
        setAside: of('group_set_aside_jobs', group),
        workers: of('group_workers', group),
        slots: of('group_slots', group),
        dead: of('dead_letter_entries', group),
        redelivery: of('group_redelivery_jobs', group) ?? null,
        abandoned: of('group_abandoned', group) === 1,
        isPaused: of('group_paused', group) === 1,
      }).toEqual({
        group,
        lag: told.lag,
        pending: told.pending,
        scheduled: told.scheduled,
        setAside: told.setAside,
        workers: told.workers,
        slots: told.slots,
        dead: told.dead,
        redelivery: told.redelivery,
        abandoned: told.abandoned,
        isPaused: told.paused !== null,
      })
      // The inspector looked a moment later.
      expect(told.lagSeconds - (of('group_lag_seconds', group) ?? NaN)).toBeLessThan(60)
      expect(told.oldestPendingSeconds - (of('group_oldest_pending_seconds', group) ?? NaN)).toBeLessThan(60)
      expect(told.overdueSeconds - (of('group_scheduled_overdue_seconds', group) ?? NaN)).toBeLessThan(60)
    }
    expect(stats?.groups.map(({ group, lag }) => [group, lag])).toEqual([
      ['billing', 0],
      ['idle', null],
      ['lost', null],
      ['main', null],
    ])
    expect(seen.sum('millrace_stream_entries')).toBe(stats?.entries)
    expect(seen.sum('millrace_stream_scheduled_jobs')).toBe(stats?.scheduled)
    expect(seen.sum('millrace_stream_set_aside_jobs')).toBe(stats?.setAside)
  })

  test('tell what came, what was delivered, what is due and what died', async () => {
    const { client } = redis
    const now = await serverMs(client)
    await arrange('orders')
    await add(client, 'x')
    const [first] = (await client.xrange('orders', '-', '+')).map(([id]) => id)
    await client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 1, 'STREAMS', 'orders', '>')
    await client.zadd(scheduledKey('orders'), now - 5000, 'a', now - 4000, 'b', now + 60_000, 'c', '+inf', 'd')
    await client.zadd(groupScheduledKey('orders', 'main'), now + 90_000, 'e')
    await client.zadd(cronDueKey('orders'), now - 60_000, 'nightly', now + 60_000, 'hourly', '+inf', 'over')
    await client.xadd(deadKey('orders', 'main'), `${now - 70_000}-0`, 'dead-reason', 'attempts')
    await client.hset(settingsKey('orders'), 'paused', JSON.stringify({ sinceMs: 1, by: 'x', reason: '' }))
    const { fresh } = metered()

    const seen = await fresh()
    expect(seen.sum('millrace_stream_added_entries_total')).toBe(2)
    expect(seen.sum('millrace_group_entries_read')).toBe(1)
    expect(seen.sum('millrace_group_last_delivered_timestamp_seconds')).toBe(Number(first?.split('-')[0]) / 1000)
    expect(seen.sum('millrace_group_consumers')).toBe(1)
    expect(seen.sum('millrace_stream_scheduled_overdue_jobs')).toBe(2)
    expect(seen.sum('millrace_stream_scheduled_next_due_timestamp_seconds')).toBe((now - 5000) / 1000)
    expect(seen.sum('millrace_stream_schedules')).toBe(3)
    const overdueSeconds = seen.sum('millrace_stream_schedules_overdue_seconds')
    expect(overdueSeconds).toBeGreaterThanOrEqual(60)
    expect(overdueSeconds).toBeLessThanOrEqual(60 + ((await serverMs(client)) - now) / 1000)
    expect(seen.sum('millrace_group_scheduled_overdue_jobs')).toBe(0)
    expect(seen.sum('millrace_group_scheduled_next_due_timestamp_seconds')).toBe((now + 90_000) / 1000)
    expect(seen.sum('millrace_dead_letter_oldest_timestamp_seconds')).toBe((now - 70_000) / 1000)
    expect(seen.sum('millrace_stream_paused')).toBe(1)
    expect(seen.sum('millrace_group_paused')).toBe(1)
    expect(seen.sum('millrace_redis_clock_ahead_seconds')).toBe(0)

    await client.xadd('orders', `${now + 3_600_000}-0`, 'job', 'x')
    await client.hdel(settingsKey('orders'), 'paused')
    await client.del(scheduledKey('orders'), groupScheduledKey('orders', 'main'), deadKey('orders', 'main'))
    const later = await fresh()
    expect(later.sum('millrace_redis_clock_ahead_seconds')).toBeGreaterThan(3500)
    expect(later.sum('millrace_group_paused')).toBe(0)
    expect(later.rows('millrace_stream_scheduled_next_due_timestamp_seconds')).toEqual([])
    expect(later.rows('millrace_group_scheduled_next_due_timestamp_seconds')).toEqual([])
    expect(later.rows('millrace_dead_letter_oldest_timestamp_seconds')).toEqual([])
  })

  test('a recurring schedule that was set aside is told from those that have ended, until it is set again', async () => {
    const { fresh } = metered()
    const inspector = new Inspector({ redis: redis.url })
    onEnd(() => inspector.close())
    const { cron } = inspector
    const set = (name: string, until = {}) => cron.set('orders', { name, job: 'x', everyMs: 60_000, ...until })
    await add(redis.client, 'x')
    await set('nightly')
    await set('sale', { end: 1_000 })
    await set('broken')
    expect((await fresh()).sum('millrace_stream_set_aside_schedules')).toBe(0)
    await redis.client.zadd(cronDueKey('orders'), '+inf', 'broken')

    const seen = await fresh()
    expect(seen.sum('millrace_stream_schedules')).toBe(3)
    expect(seen.sum('millrace_stream_set_aside_schedules')).toBe(1)
    await redis.client.hset(cronKey('orders'), 'sale/state', 'damaged')
    expect((await fresh()).sum('millrace_stream_set_aside_schedules')).toBe(2)
    await set('broken')
    await cron.remove('orders', 'sale')
    expect((await fresh()).sum('millrace_stream_set_aside_schedules')).toBe(0)
  })

  test('an unknown lag is missing and never 0; the lag in seconds is known all the same', async () => {
    const { registry } = metered({ streams: ['orders'] })
    for (let n = 0; n < 3; n++) await add(redis.client, 'x')
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    const second = (await redis.client.xrange('orders', '-', '+'))[1]?.[0] ?? ''
    await redis.client.xdel('orders', second)
    await redis.client.xreadgroup('GROUP', 'main', 'c', 'COUNT', 1, 'STREAMS', 'orders', '>')

    const seen = await scrape(registry)
    expect(seen.rows('millrace_group_lag_jobs')).toEqual([])
    expect(seen.sum('millrace_group_lag_known')).toBe(0)
    expect(seen.sum('millrace_group_lag_seconds')).toBeGreaterThan(0)
  })

  test('jobs that nobody has renewed for three leases are stuck, handed-back ones too, and no others', async () => {
    const { client } = redis
    const agoMs = (await serverMs(client)) - 3_600_000
    for (let n = 1; n <= 4; n++) await client.xadd('orders', `${agoMs}-${n}`, 'job', 'x')
    await client.xgroup('CREATE', 'orders', 'main', '0')
    await client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 4, 'STREAMS', 'orders', '>')
    const [a = '', b = '', c = ''] = (await pending(client)).map(({ id }) => id)
    await client.xgroup('CREATE', redeliveryKey('orders', 'main'), 'main', '0', 'MKSTREAM')
    const again = `${agoMs}-1`
    await client.xadd(redeliveryKey('orders', 'main'), again, 'job', 'x')
    await client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', redeliveryKey('orders', 'main'), '>')
    await client.hset(settingsKey('orders'), 'group:main:leaseMs', 20_000)
    await client.call('XCLAIM', 'orders', 'main', 'w', '0', a, 'IDLE', '61000', 'JUSTID')
    await client.call('XCLAIM', 'orders', 'main', HANDBACK, '0', b, 'IDLE', '61000', 'JUSTID')
    await client.call('XCLAIM', 'orders', 'main', 'w', '0', c, 'IDLE', '40000', 'JUSTID')
    await client.call('XCLAIM', redeliveryKey('orders', 'main'), 'main', 'w', '0', again, 'IDLE', '61000', 'JUSTID')
    const { metrics, fresh, registry } = metered({ streams: ['orders'] })

    expect((await fresh()).sum('millrace_group_stuck_jobs')).toBe(3)
    await client.xack('orders', 'main', ...(await pending(client)).map(({ id }) => id))
    await client.xack(redeliveryKey('orders', 'main'), 'main', again)
    // Read 30 s ago or less; what is settled since is stuck no more.
    await metrics.refresh()
    expect((await scrape(registry)).sum('millrace_group_stuck_jobs')).toBeLessThanOrEqual(3)
    expect((await fresh()).sum('millrace_group_stuck_jobs')).toBe(0)
  })

  test('jobs are found stuck also where the clock of Redis went back after their ids were made', async () => {
    const { client } = redis
    const id = `${(await serverMs(client)) + 3_600_000}-1`
    await client.xadd('orders', id, 'job', 'x')
    await client.xgroup('CREATE', 'orders', 'main', '0')
    await client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    await client.call('XCLAIM', 'orders', 'main', 'w', '0', id, 'IDLE', '61000', 'JUSTID')
    expect((await metered({ streams: ['orders'] }).fresh()).sum('millrace_group_stuck_jobs')).toBe(1)
  })

  test('consumers and memory are told of where they are asked for, of consumers those that hold the most', async () => {
    const { client } = redis
    await arrange('orders')
    for (let n = 0; n < 200; n++) await add(client, 'x')
    for (let n = 1; n <= 60; n++) {
      const count = n > 40 ? 5 : 1
      await client.xreadgroup('GROUP', 'main', `w${n}\u0007"`, 'COUNT', count, 'STREAMS', 'orders', '>')
    }
    const plain = await metered().fresh()
    expect(plain.rows('millrace_consumer_pending_jobs')).toEqual([])
    expect(plain.rows('millrace_stream_memory_bytes')).toEqual([])

    const seen = await metered({ consumers: true, memory: true }).fresh()
    const rows = seen.rows('millrace_consumer_pending_jobs', { stream: 'orders', group: 'main' })
    expect(rows).toHaveLength(50)
    expect(rows.filter(({ value }) => value === 5)).toHaveLength(20)
    expect(rows[0]?.labels['consumer']).toMatch(/^w\d+\\\\u\{7\}\\"$/)
    expect(seen.rows('millrace_consumer_last_seen_timestamp_seconds')).toHaveLength(50)
    expect(seen.sum('millrace_stream_memory_bytes')).toBeGreaterThan(1000)
    expect(seen.duplicates()).toEqual([])
    for (const collector of ['streams', 'redis', 'stuck', 'consumers', 'memory']) {
      expect(seen.sum('millrace_exporter_scrape_duration_seconds', { collector })).toBeGreaterThan(0)
      expect(seen.sum('millrace_exporter_scrape_errors_total', { collector })).toBe(0)
    }
  })

  test('and of the server tell what it is and how safe it is set up', async () => {
    const { fresh } = metered()
    const seen = await fresh()
    expect(seen.sum('millrace_redis_unsafe_config', { check: 'eviction' })).toBe(0)
    expect(seen.sum('millrace_redis_unsafe_config', { check: 'no_replicas' })).toBe(1)
    expect(seen.rows('millrace_redis_info')[0]?.labels['version']).toMatch(/^\d+\.\d+/)
    expect(seen.sum('millrace_redis_memory_used_bytes')).toBeGreaterThan(100_000)
    expect(seen.rows('millrace_redis_memory_limit_bytes')).toEqual([])

    await redis.client.config('SET', 'maxmemory', '1gb', 'maxmemory-policy', 'allkeys-lru')
    onEnd(async () => {
      await redis.client.config('SET', 'maxmemory', '0', 'maxmemory-policy', 'noeviction')
    })
    const later = await fresh()
    expect(later.sum('millrace_redis_unsafe_config', { check: 'eviction' })).toBe(1)
    expect(later.sum('millrace_redis_memory_limit_bytes')).toBe(1024 ** 3)
  })

  test('belong to one StreamMetrics per registry, so that none is silently left out', () => {
    const { registry } = metered()
    expect(() => metered({ registry, streams: ['mails'] })).toThrow('from somebody else already')
  })

  test.each([
    { streams: [] },
    { streams: 'orders' },
    { streams: ['bad name'] },
    { streams: null },
    { streams: ['a', 'b'], maxStreams: 1 },
    { maxStreams: 0 },
    { maxStreams: 5001 },
    { consumers: 'yes' },
    { memory: 1 },
    { stream: ['orders'] },
  ])('of %j are refused', (options) => {
    expect(() => metered(options as unknown as Partial<StreamMetricsOptions>)).toThrow(/expected|unknown/)
  })
})

describe('which streams', () => {
  test('all in use by default, as they come and go; what is no name of a stream is none', async () => {
    const { fresh, lines } = metered()
    expect((await fresh()).sum('millrace_exporter_streams')).toBe(0)
    await arrange('orders', 'mails')
    for (const name of [
      '',
      'a b',
      'quote"',
      'line\nbreak',
      '\u0000\u001b[2J',
      'x'.repeat(10_000),
      '{orders}:settings',
    ]) {
      await redis.client.sadd(STREAMS_KEY, name)
    }
    await redis.client.sadd(STREAMS_KEY, Buffer.from([0xff, 0xfe, 0x22]))
    await redis.client.sadd(STREAMS_KEY, 'listed-and-not-there')
    expect((await fresh()).by('stream', 'millrace_stream_entries')).toEqual({ orders: 1, mails: 1 })

    await redis.client.del('mails')
    await redis.client.xgroup('DESTROY', 'orders', 'main')
    await redis.client.xgroup('CREATE', 'orders', 'other', '0')
    const seen = await fresh()
    expect(seen.by('stream', 'millrace_stream_entries')).toEqual({ orders: 1 })
    expect(seen.by('group', 'millrace_group_lag_jobs')).toEqual({ other: 1 })
    expect(seen.by('reason', 'millrace_exporter_left_out_streams')).toEqual({})
    expect(lines).toEqual([])
  })

  test('beyond maxStreams are left out by name, counted, and said once', async () => {
    await arrange('a', 'b', 'c', 'd', 'e')
    const { fresh, lines } = metered({ maxStreams: 3 })
    for (let n = 0; n < 2; n++) {
      const seen = await fresh()
      expect(Object.keys(seen.by('stream', 'millrace_stream_entries'))).toEqual(['a', 'b', 'c'])
      expect(seen.by('reason', 'millrace_exporter_left_out_streams')).toEqual({ too_many: 2 })
    }
    expect(lines).toEqual(['there are more streams than metrics tell of'])
  })

  test('a key of another type takes its stream away and no other, and is said once until it is mended', async () => {
    await arrange('orders', 'bent-dead', 'bent-redelivery', 'bent-settings')
    await redis.client.set('no-stream', 'x')
    await redis.client.sadd(STREAMS_KEY, 'no-stream')
    await redis.client.set(deadKey('bent-dead', 'main'), 'x')
    await redis.client.set(redeliveryKey('bent-redelivery', 'main'), 'x')
    await redis.client.set(settingsKey('bent-settings'), 'x')
    const { fresh, lines } = metered()
    for (let n = 0; n < 2; n++) {
      const seen = await fresh()
      expect(seen.by('stream', 'millrace_stream_entries')).toEqual({ orders: 1 })
      expect(seen.by('reason', 'millrace_exporter_left_out_streams')).toEqual({ wrong_type: 4 })
      expect(seen.sum('millrace_exporter_up')).toBe(1)
    }
    expect(lines).toHaveLength(4)

    await redis.client.del(deadKey('bent-dead', 'main'), redeliveryKey('bent-redelivery', 'main'), 'no-stream')
    await redis.client.del(settingsKey('bent-settings'))
    const mended = await fresh()
    expect(mended.sum('millrace_exporter_streams')).toBe(4)
    expect(mended.by('reason', 'millrace_exporter_left_out_streams')).toEqual({})
  })

  test('groups of any name are told of, as text on one line', async () => {
    await add(redis.client, 'x')
    const long = 'long-'.repeat(2000)
    const names = ['quote"', 'back\\slash', 'line\nbreak', 'cr\rnul\u0000esc\u001b[2J', 'ünïcode ✓', long, `${long}2`]
    for (const name of names) await redis.client.xgroup('CREATE', 'orders', name, '0')
    for (const bytes of [[0xff], [0xfe, 0x0a], [0xc3]]) {
      await redis.client.xgroup('CREATE', 'orders', Buffer.from(bytes), '0')
    }
    await redis.client.xreadgroup('GROUP', 'quote"', 'w', 'STREAMS', 'orders', '>')
    const { fresh } = metered({ streams: ['orders'], consumers: true })
    const seen = await fresh()

    const labels = seen.rows('millrace_group_lag_seconds').map(({ labels }) => labels['group'] ?? '')
    expect(labels).toHaveLength(10)
    expect(new Set(labels).size).toBe(10)
    expect(labels).toEqual(
      expect.arrayContaining([
        ...['quote\\"', 'back\\\\slash', 'line\\\\u{a}break', 'cr\\\\u{d}nul\\\\u{0}esc\\\\u{1b}[2J', 'ünïcode ✓'],
        ...['%FF', '%FE%0A', '%C3'],
      ]),
    )
    expect(Math.max(...labels.map((label) => label.length))).toBeLessThanOrEqual(110)
    expect(seen.by('group', 'millrace_group_pending_jobs')).toEqual({ 'quote\\"': 1 })
    expect(seen.by('group', 'millrace_consumer_pending_jobs')).toEqual({ 'quote\\"': 1 })
    expect(seen.by('group', 'millrace_group_lag_jobs')['%FF']).toBe(1)
    // Nothing that ends a page or drives a terminal.
    // eslint-disable-next-line no-control-regex
    expect(seen.text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f]/)
    expect(seen.duplicates()).toEqual([])
  })

  test('of many groups 200 are told of, and it is said once that there are more', async () => {
    await add(redis.client, 'x')
    const pipeline = redis.client.pipeline()
    for (let n = 0; n < 230; n++) pipeline.xgroup('CREATE', 'orders', `g${String(n).padStart(3, '0')}`, '0')
    await pipeline.exec()
    const { fresh, lines } = metered({ streams: ['orders'] })
    for (let n = 0; n < 2; n++) {
      const groups = (await fresh()).rows('millrace_group_lag_jobs').map(({ labels }) => labels['group'])
      expect(groups).toHaveLength(200)
      expect(groups.at(-1)).toBe('g199')
    }
    expect(lines).toEqual(['the stream has more groups than metrics tell of'])
  })

  test('of all streams together 2000 groups are told of, the same ones every time', async () => {
    for (let s = 0; s < 11; s++) {
      const stream = `s${String(s).padStart(2, '0')}`
      const pipeline = redis.client.pipeline()
      pipeline.xadd(stream, '*', 'job', 'x')
      pipeline.sadd(STREAMS_KEY, stream)
      for (let n = 0; n < 200; n++) pipeline.xgroup('CREATE', stream, `g${n}`, '0')
      await pipeline.exec()
    }
    const { metrics, registry, lines } = metered()
    // One metric and not the page: that would be 50 000 series.
    const groups = async () => {
      expect(await metrics.runOnce()).toEqual({ streams: 11 })
      const text = await registry.getSingleMetricAsString('millrace_group_lag_known')
      return text.split('\n').filter((line) => !line.startsWith('#'))
    }
    const told = await groups()
    expect(told).toHaveLength(2000)
    expect(await groups()).toEqual(told)
    expect(lines).toEqual(['there are more groups than metrics tell of: some are left out'])
  })
})

describe('what it costs', () => {
  test('however many scrape, Redis is asked once in 5 s', async () => {
    const { registry } = metered({ streams: ['orders'] })
    await add(redis.client, 'x')
    await scrape(registry)
    const before = await calls()
    expect(before['evalsha_ro'] ?? before['evalsha'] ?? 0).toBeGreaterThan(0)
    await Promise.all(Array.from({ length: 50 }, () => scrape(registry)))

    expect({ ...(await calls()), info: 0 }).toEqual({ ...before, info: 0 })
  })

  test('one call a stream where nothing is new, and a bounded number of commands in it', async () => {
    const STREAMS = 30
    const GROUPS = 3
    for (let s = 0; s < STREAMS; s++) {
      const stream = `stream-${s}`
      await arrange(stream)
      for (const group of ['billing', 'audit']) await redis.client.xgroup('CREATE', stream, group, '0')
      for (const group of ['main', 'billing', 'audit']) {
        await redis.client.xgroup('CREATE', redeliveryKey(stream, group), group, '0', 'MKSTREAM')
        await add(redis.client, 'x', {}, redeliveryKey(stream, group))
        await redis.client.xreadgroup('GROUP', group, 'w', 'STREAMS', stream, '>')
        await redis.client.zadd(groupScheduledKey(stream, group), 1, 'a')
        await redis.client.xadd(deadKey(stream, group), '*', 'job', 'x')
      }
    }
    const { registry, metrics } = metered()
    await metrics.runOnce()
    await redis.client.config('RESETSTAT')
    await metrics.runOnce()
    const all = await calls()
    const scripts = (all['evalsha_ro'] ?? 0) + (all['evalsha'] ?? 0)
    // A stream each, and once in 30 s a group each that has something pending.
    expect(scripts).toBe(STREAMS + STREAMS * GROUPS)
    expect(all['sscan']).toBe(1)
    const inScripts = ['evalsha', 'evalsha_ro', 'sscan', 'info', 'config|get', 'config|resetstat']
    const commands = Object.entries(all).filter(([name]) => !inScripts.includes(name))
    const sum = commands.reduce((count, [, n]) => count + n, 0)
    expect(sum / STREAMS).toBeLessThanOrEqual(8 + GROUPS * (13 + 3))
    expect(all['hgetall']).toBeUndefined()
    expect((await scrape(registry)).rows('millrace_group_lag_jobs')).toHaveLength(STREAMS * GROUPS)
  })
})

describe('when Redis refuses or is away', () => {
  test.each([
    ['refuses connections', (server: ControlledServer) => server.kill()],
    ['does not answer', async (server: ControlledServer) => server.stopProcess()],
  ])('while Redis %s they are missing, the rest is served, and they come back', async (_what, takeAway) => {
    const server = await startServer()
    const { registry, metrics, lines } = metered({ redis: server.url, consumers: true, memory: true })
    const producer = new Producer({ redis: server.url, registry, logger: false })
    onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
    await producer.publish('x', 1, { stream: 'orders' })
    expect(await metrics.runOnce()).toEqual({ streams: 1 })
    expect((await scrape(registry)).sum('millrace_redis_unsafe_config', { check: 'eviction' })).toBe(0)
    await takeAway(server)
    expect(await metrics.runOnce()).toEqual({ streams: 0 })

    const away = await scrape(registry)
    expect(away.rows('millrace_stream_entries')).toEqual([])
    expect(away.rows('millrace_stream_memory_bytes')).toEqual([])
    expect(away.rows('millrace_redis_unsafe_config')).toEqual([])
    expect(away.rows('millrace_exporter_streams')).toEqual([])
    expect(away.rows('millrace_exporter_left_out_streams')).toEqual([])
    expect(away.sum('millrace_exporter_up')).toBe(0)
    expect(away.sum('millrace_exporter_last_success_timestamp_seconds')).toBeGreaterThan(0)
    expect(away.sum('millrace_exporter_scrape_errors_total', { collector: 'streams' })).toBeGreaterThanOrEqual(1)
    expect(away.sum('millrace_published_jobs_total')).toBe(1)
    expect(lines).toEqual(['cannot read the state of streams for metrics'])

    await server.restart()
    await eventually(async () => {
      await metrics.runOnce()
      const back = await scrape(registry)
      expect(back.sum('millrace_exporter_up')).toBe(1)
      expect(back.rows('millrace_redis_info')).toHaveLength(1)
    })
    expect(lines.slice(1)).toEqual(['metrics tell again of what could not be read'])
  })

  test('what a user may not ask for is missing alone: INFO, CONFIG, MEMORY', async () => {
    await arrange('orders')
    const { client } = redis
    const rules = ['+@read', '+@connection', '+evalsha_ro', '+eval_ro', '+time', '-memory', '-info', '-config']
    await client.acl('SETUSER', 'scraper', 'reset', 'on', '>pw', '%R~*', ...rules)
    onEnd(async () => void (await client.acl('DELUSER', 'scraper')))
    const url = new URL(redis.url)
    url.username = 'scraper'
    url.password = 'pw'
    const { fresh, lines } = metered({ redis: url.href, memory: true, consumers: true })

    const seen = await fresh()
    expect(seen.sum('millrace_group_lag_jobs')).toBe(1)
    expect(seen.sum('millrace_exporter_up')).toBe(1)
    expect(seen.by('collector', 'millrace_exporter_scrape_errors_total')).toEqual({ redis: 1, memory: 1 })
    expect(seen.sum('millrace_group_stuck_jobs')).toBe(0)
    expect(seen.rows('millrace_redis_info')).toEqual([])
    expect(seen.rows('millrace_stream_memory_bytes')).toEqual([])
    await fresh()
    expect(lines).toHaveLength(2)

    await client.acl('SETUSER', 'scraper', '+info', '+config|get', '+memory|usage')
    const allowed = await fresh()
    expect(allowed.rows('millrace_redis_info')).toHaveLength(1)
    expect(allowed.sum('millrace_stream_memory_bytes')).toBeGreaterThan(0)
    await client.acl('SETUSER', 'scraper', '-config')
    expect((await fresh()).rows('millrace_redis_unsafe_config', { check: 'no_persistence' })).toEqual([])
    expect((await fresh()).sum('millrace_redis_unsafe_config', { check: 'no_replicas' })).toBe(1)

    await client.acl('SETUSER', 'scraper', '-evalsha_ro', '-eval_ro')
    const blind = await fresh()
    expect(blind.sum('millrace_exporter_up')).toBe(0)
    expect(blind.rows('millrace_redis_info')).toHaveLength(1)
  })

  test('the user that the documentation makes may do all that there is to do', async () => {
    await arrange('orders')
    const told = await readFile(join(import.meta.dirname, '../docs/metrics.md'), 'utf8')
    const [, name = '', rules = ''] = /ACL SETUSER (\S+) (.+)/.exec(told) ?? []
    await redis.client.acl('SETUSER', name, 'reset', ...rules.split(' '))
    onEnd(async () => void (await redis.client.acl('DELUSER', name)))
    const url = new URL(redis.url)
    url.username = name
    url.password = 'password'
    const { fresh, lines } = metered({ redis: url.href, memory: true, consumers: true })

    const seen = await fresh()
    expect(seen.by('collector', 'millrace_exporter_scrape_errors_total')).toEqual({})
    expect(seen.sum('millrace_redis_unsafe_config', { check: 'no_persistence' })).toBeDefined()
    expect(seen.sum('millrace_exporter_streams')).toBe(1)
    expect(lines).toEqual([])
    await expect(connectTo(url.href).set('orders', 'x')).rejects.toThrow('NOPERM')
  })

  test('two of them tell the same and do not disturb each other', async () => {
    await arrange('orders', 'mails')
    const [one, other] = [metered(), metered()]
    const [a, b] = await Promise.all([one.fresh(), other.fresh()])
    for (const name of ['millrace_group_lag_jobs', 'millrace_stream_entries', 'millrace_exporter_up']) {
      expect(a.rows(name)).toEqual(b.rows(name))
    }
  })

  test('a closed one finds nothing, and says nothing of it', async () => {
    await arrange('orders')
    const { metrics, fresh, lines } = metered()
    expect((await fresh()).sum('millrace_exporter_streams')).toBe(1)
    metrics.close()
    expect((await fresh()).sum('millrace_exporter_up')).toBe(0)
    expect(lines).toEqual([])
  })

  test('a password is in nothing that is said', async () => {
    const server = await startServer({ args: ['--requirepass', 'right'] })
    const url = new URL(server.url)
    url.password = 'wrong-and-secret'
    const said: unknown[] = []
    const logger: Logger = { debug() {}, info() {}, warn: (...args) => void said.push(args), error() {} }
    const { metrics } = metered({ redis: url.href, logger })
    expect(await metrics.refresh()).toBe(false)
    expect(said).toHaveLength(1)
    expect(JSON.stringify(said)).toContain('WRONGPASS')
    expect(JSON.stringify(said)).not.toContain('secret')
    connectTo(server.url).disconnect()
  })
})
