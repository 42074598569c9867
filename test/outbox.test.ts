import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import {
  defineJob,
  Producer,
  PublishError,
  type Durability,
  type JobOptions,
  type ProducerOptions,
  type Schema,
} from 'millrace'
import type { Pool, PoolClient } from 'pg'
import { Registry } from 'prom-client'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { freePort } from '../cli/free-port.ts'
import { insertJob, type InsertOptions } from '../examples/outbox/insert-job.ts'
import { registerMetrics } from '../examples/outbox/metrics.ts'
import { fateOf, OutboxRelay, type RelayOptions } from '../examples/outbox/relay.ts'
import { readBacklog } from '../examples/outbox/rows.ts'
import { scheduledKey } from '../src/redis/keys.ts'
import { storedNumbers } from './fixtures/producers.ts'
import { isTokenBatch, loadTokenScript } from './fixtures/tokens.ts'
import { startChild, type Child } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { poolOf, startPostgres } from './helpers/postgres.ts'
import { startProxy } from './helpers/proxy.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'

/** docs/outbox.md and examples/outbox, on a real PostgreSQL and a real Redis. */

const EXAMPLE = join(import.meta.dirname, '../examples/outbox')
const FIXTURE = new URL('./fixtures/outbox-relay.ts', import.meta.url)
const charge = defineJob<number>('x', { stream: 'orders' })

const postgres = await startPostgres()
const redis = withRedis()
let pool: Pool

describe.skipIf(postgres === undefined)('the outbox', () => {
  beforeAll(async () => {
    pool = poolOf(postgres?.url ?? '')
    await pool.query(await readFile(join(EXAMPLE, 'schema.sql'), 'utf8'))
    await loadTokenScript(redis.client)
  })

  beforeEach(() => pool.query('TRUNCATE outbox, outbox_failed RESTART IDENTITY'))

  describe('a transaction', () => {
    test('that commits has its jobs published, once, and their rows removed', async () => {
      await transaction(async (client) => {
        await client.query('CREATE TABLE IF NOT EXISTS sales (number int)')
        await client.query('INSERT INTO sales VALUES (1)')
        await insertJob(client, charge, 1)
        await insertJob(client, charge, 2)
      })
      const { relay } = newRelay()
      expect([await relay.runOnce(), await relay.runOnce()]).toEqual([2, 0])

      expect(await storedNumbers(redis.client)).toEqual([1, 2])
      expect(await rowsLeft()).toEqual({ outbox: 0, failed: 0 })
      expect(relay.counts).toEqual({ published: 2, duplicates: 0, setAside: 0, givenBack: 0 })
    })

    test('that is rolled back has none', async () => {
      const rolledBack = transaction(async (client) => {
        await insertJob(client, charge, 1)
        throw new Error('the card was declined')
      })
      await expect(rolledBack).rejects.toThrow('declined')
      expect(await newRelay().relay.runOnce()).toBe(0)

      expect(await redis.client.exists('orders')).toBe(0)
    })

    test('that has not committed yet does not hold up those that have', async () => {
      const { relay } = newRelay()
      await transaction(async (client) => {
        await insertJob(client, charge, 1)
        await transaction((other) => insertJob(other, charge, 2))
        expect(await relay.runOnce()).toBe(1)
      })
      expect(await relay.runOnce()).toBe(1)

      expect(await storedNumbers(redis.client)).toEqual([2, 1])
    })

    test('fails where Redis would refuse the job: its caller hears of it, not the relay', async () => {
      const insert = (job: string, data: unknown, options: InsertOptions) =>
        transaction((client) => insertJob(client, job, data, options))
      const stream = 'orders'
      await expect(insert('no spaces', 1, { stream })).rejects.toThrow('outbox_job_check')
      await expect(insert('x', 1, { stream: 'a/b' })).rejects.toThrow('outbox_stream_check')
      await expect(insert('x', 'x'.repeat(1024 * 1024), { stream })).rejects.toThrow('outbox_data_check')
      await expect(insert('x', 1, { stream, runAt: new Date(NaN) })).rejects.toThrow('to be a time')
      const never = new Date('2099-01-01')
      await expect(insert('x', 1, { stream, runAt: never })).rejects.toThrow('outbox_check')
      await expect(insert('x', undefined, { stream })).rejects.toThrow('JSON-able')
      await expect(insert('x', 1, {})).rejects.toThrow('where it goes')

      expect(await rowsLeft()).toEqual({ outbox: 0, failed: 0 })
    })

    test('fails where the definition of the job asks for more than the outbox keeps, or the data does not fit it', async () => {
      const insert = (options: JobOptions & { schema?: Schema }, data: unknown) =>
        transaction((client) => insertJob(client, defineJob('x', { stream: 'orders', ...options }), data))
      const schema = schemaOf((data) =>
        data === 'fits' ? { value: data } : { issues: [{ message: '', path: ['a', { key: 0 }] }] },
      )
      await expect(insert({ unique: { key: () => 'k' } }, 1)).rejects.toThrow('expected job x to be without `unique`')
      await expect(insert({ schema }, 'secret')).rejects.toThrow(
        /^expected the data of x to fit its schema; it does not at a\.0$/,
      )
      await expect(insert({ schema: schemaOf(async () => ({ value: 1 })) }, 1)).rejects.toThrow('answers at once')
      await insert({ schema }, 'fits')

      expect(await rowsLeft()).toEqual({ outbox: 1, failed: 0 })
    })

    test('has its jobs in Redis before its rows go, whatever the producer was made for', async () => {
      const server = await startServer()
      await server.kill()
      const { relay } = newRelay({ redis: server.url, producer: { durability: 'buffered' }, timeoutMs: 100 })
      await insertNumbers(1, 1)
      await relay.runOnce()

      expect(await rowsLeft()).toEqual({ outbox: 1, failed: 0 })
    })

    test('may hold every text that JSON can, and has it arrive as it is', async () => {
      const texts = ['\u0000', '\ud800', '"\\\n\u2028', '{"a":1}', "'; DROP TABLE outbox; --", 'äöü€😀']
      await transaction(async (client) => {
        for (const text of texts) await insertJob(client, 'x', { text }, { stream: 'orders' })
      })
      await newRelay().relay.runOnce()

      const entries = await redis.client.xrange('orders', '-', '+')
      expect(entries.map(([, fields]) => (JSON.parse(fields[3] ?? '') as { text: string }).text)).toEqual(texts)
    })

    test('may write a job for later, which is scheduled', async () => {
      const runAt = new Date(Date.now() + 3_600_000)
      await transaction((client) => insertJob(client, charge, 1, { runAt }))
      await newRelay().relay.runOnce()

      const [, score] = await redis.client.zrange(scheduledKey('orders'), '0', '-1', 'WITHSCORES')
      expect(Number(score)).toBe(runAt.getTime())
      expect(await redis.client.exists('orders')).toBe(0)
    })
  })

  describe('a relay', () => {
    test('publishes in the order of the rows', async () => {
      await insertNumbers(1, 1200)
      const { relay } = newRelay()
      while ((await relay.runOnce()) > 0);

      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 1200))
    })

    test('beside three others publishes each row once', async () => {
      await insertNumbers(1, 2000)
      const relays = Array.from({ length: 4 }, () => newRelay({ maxRows: 30 }).relay)
      for (const relay of relays) relay.start()
      await untilEmpty()
      await Promise.all(relays.map((relay) => relay.stop()))

      expect((await storedNumbers(redis.client)).sort((a, b) => a - b)).toEqual(numbers(1, 2000))
      expect(relays.reduce((sum, { counts }) => sum + counts.published, 0)).toBe(2000)
    })

    test('that hears of a commit does not wait for its next look, also after it was cut off', async () => {
      const { relay } = newRelay({ pollMs: 3_600_000, listen: { connectionString: postgres?.url ?? '' } })
      relay.start()
      await insertNumbers(1, 1)
      await untilEmpty()
      const listening = "SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN outbox' AND state = 'idle'"
      // The first row may have been found by a look before it listened.
      const pid = await eventually(async () => {
        const { rows } = await pool.query<{ pid: number }>(listening)
        expect(rows).toHaveLength(1)
        return rows[0]?.pid
      })
      await pool.query('SELECT pg_terminate_backend($1)', [pid])
      await insertNumbers(2, 2)
      await untilEmpty()

      expect(await storedNumbers(redis.client)).toEqual([1, 2])
    })

    test('takes no more bytes at once than it may, but one row whatever its size', async () => {
      await transaction(async (client) => {
        for (const size of [10, 10, 10, 500, 10]) {
          await insertJob(client, 'x', 'x'.repeat(size), { stream: 'orders' })
        }
      })
      const { relay } = newRelay({ maxBytes: 30 })
      const taken: number[] = []
      for (let count = await relay.runOnce(); count > 0; count = await relay.runOnce()) taken.push(count)

      expect(taken).toEqual([3, 1, 1])
    })

    test('that is stopped gives back at once what is not on its way to Redis', async () => {
      const server = await startServer()
      await server.kill()
      const { relay } = newRelay({ redis: server.url, timeoutMs: 1_800_000, leaseMs: 3_600_000 })
      await insertNumbers(1, 10)
      relay.start()
      await eventually(async () => expect(await leased()).toBe(10))
      await relay.stop()

      expect([await leased(), await maybeInRedis()]).toEqual([0, 0])
      expect(await newRelay().relay.runOnce()).toBe(10)
      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 10))
    })

    test('tells how the outbox stands', async () => {
      expect(await readBacklog(pool)).toEqual({ rows: 0, oldestSeconds: 0, failed: 0 })
      await insertNumbers(1, 3)
      await pool.query("UPDATE outbox SET created_at = now() - interval '90 s' WHERE position = 1")

      const { rows, oldestSeconds } = await readBacklog(pool)
      expect(rows).toBe(3)
      expect(oldestSeconds).toBeGreaterThanOrEqual(90)
    })

    test('has no series for what PostgreSQL cannot be asked', async () => {
      const registry = new Registry()
      const away = poolOf('postgres://127.0.0.1:1/none')
      registerMetrics(registry, newRelay().relay, away)
      const text = await registry.metrics()
      expect(text).not.toMatch(/^outbox_(rows|oldest_seconds|failed_rows) /m)
      expect(text).toContain('outbox_relayed_rows_total{result="published"} 0')
    })

    test.each([
      [{ leaseMs: 10_000, timeoutMs: 10_000 }, 'leaseMs'],
      [{ timeoutMs: 0 }, 'timeoutMs'],
      [{ maxRows: 0 }, 'maxRows'],
      [{ pollMs: NaN }, 'pollMs'],
      [{ tokenTtlMs: 59_999 }, 'tokenTtlMs'],
      [{ tokenTtlMs: 60_000, leaseMs: 30_000 }, 'tokenTtlMs'],
      [{ tokenTtlMs: 91 * 86_400_000 }, 'tokenTtlMs'],
    ])('is not made with numbers that are impossible or contradict each other: %j', (times, named) => {
      expect(() => newRelay(times)).toThrow(`expected \`${named}\``)
    })
  })

  describe('a row that cannot be published', () => {
    test('is set aside with the reason, and those around it are published', async () => {
      await insertNumbers(1, 1)
      await transaction((client) => insertJob(client, 'x', 'secret'.repeat(100), { stream: 'orders' }))
      await transaction((client) => insertJob(client, 'x', 1, { stream: '{orders}' }))
      await insertNumbers(2, 2)
      const { relay, problems } = newRelay({ producer: { maxPayloadBytes: 500 } })
      await relay.runOnce()

      expect(await storedNumbers(redis.client)).toEqual([1, 2])
      expect(await rowsLeft()).toEqual({ outbox: 0, failed: 2 })
      const { rows } = await pool.query<{ stream: string; reason: string; data: unknown }>(
        'SELECT stream, reason, data FROM outbox_failed ORDER BY stream DESC',
      )
      expect(rows.map(({ reason }) => reason)).toEqual([
        expect.stringContaining('expected a stream name'),
        expect.stringContaining('at most 500 bytes'),
      ])
      expect(rows[1]?.data).toBe('secret'.repeat(100))
      expect(problems.join()).not.toContain('secret')
      expect(relay.counts.setAside).toBe(2)
    })

    test('for a stream that is refused waits for it, while other streams go on', async () => {
      await redis.client.set('orders', 'no stream')
      await insertNumbers(1, 600)
      await transaction((client) => insertJob(client, 'x', 7, { stream: 'invoices' }))
      const { relay } = newRelay({ pollMs: 20 })
      relay.start()
      await eventually(async () => expect(await rowsLeft()).toEqual({ outbox: 600, failed: 0 }))
      expect(await redis.client.xlen('invoices')).toBe(1)

      await redis.client.del('orders')
      await untilEmpty()
      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 600))
    })

    test('that may be in Redis since longer ago than its token is set aside: it is not doubled', async () => {
      await insertNumbers(1, 2)
      await pool.query("UPDATE outbox SET maybe_since = now() - interval '24 h' WHERE position = 1")
      const { relay } = newRelay({ tokenTtlMs: 86_400_000 })
      await relay.runOnce()

      expect(await storedNumbers(redis.client)).toEqual([2])
      const { rows } = await pool.query('SELECT reason FROM outbox_failed')
      expect(rows).toEqual([{ reason: expect.stringContaining('may be in Redis already') as string }])
    })

    test('can be put back, and has its token still', async () => {
      await insertNumbers(1, 1)
      const { relay } = newRelay()
      await relay.runOnce()
      const [token = ''] = await redis.client.keys('{orders}:token:*')
      const id = token.split(':').at(-1)
      await pool.query(
        `INSERT INTO outbox_failed (id, stream, job, data, created_at, reason) VALUES ($1, 'orders', 'x', '1', now(), '')`,
        [id],
      )
      const [, putBack = ''] = /```sql\n(WITH back AS[^]*?)```/.exec(await readPage()) ?? []
      await pool.query(putBack.replace(/'[0-9a-f-]{36}'/, `'${id}'`))

      expect(await relay.runOnce()).toBe(1)
      expect(relay.counts).toMatchObject({ published: 1, duplicates: 1 })
      expect(await rowsLeft()).toEqual({ outbox: 0, failed: 0 })
      expect(await storedNumbers(redis.client)).toEqual([1])
    })
  })

  test('a row keeps the version of its payload, also when it is set aside and put back', async () => {
    const receipt = defineJob<number>('x', { stream: 'orders', version: 2, upcast: { 1: (old) => old } })
    await transaction((client) => insertJob(client, receipt, 1))
    await newRelay({ producer: { maxPayloadBytes: 1 } }).relay.runOnce()
    await transaction((client) => insertJob(client, receipt, 22))
    const { relay } = newRelay({ producer: { maxPayloadBytes: 1 } })
    await relay.runOnce()
    const { rows } = await pool.query<{ id: string }>('SELECT id FROM outbox_failed')
    const [, putBack = ''] = /```sql\n(WITH back AS[^]*?)```/.exec(await readPage()) ?? []
    await pool.query(putBack.replace(/'[0-9a-f-]{36}'/, `'${rows[0]?.id}'`))
    await newRelay().relay.runOnce()

    const entries = await redis.client.xrange('orders', '-', '+')
    expect(entries.map(([, fields]) => fields.slice(2).join(' '))).toEqual(['data 1 version 2', 'data 22 version 2'])
  })

  test.each<[string, boolean, string, object]>([
    ['ERR_PAYLOAD', false, 'no', { kind: 'set aside' }],
    ['ERR_NAME', false, 'no', { kind: 'set aside' }],
    ['ERR_OPTION', true, 'no', { kind: 'set aside' }],
    ['ERR_OPTION', false, 'no', { kind: 'later' }],
    ['ERR_PUBLISH_TIMEOUT', false, 'no', { kind: 'later', isUntouched: true }],
    ['ERR_PUBLISH_TIMEOUT', false, 'unknown', { kind: 'later', isUntouched: false }],
    ['ERR_PUBLISH_REFUSED', false, 'no', { kind: 'later', isUntouched: true }],
    ['ERR_STREAM_FULL', false, 'no', { kind: 'later', isUntouched: true }],
    ['ERR_BUFFER_FULL', false, 'no', { kind: 'later', isUntouched: true }],
    ['ERR_PRODUCER_CLOSED', false, 'no', { kind: 'later', isUntouched: true }],
  ])('a publish that fails with %s (a time given: %j, in Redis: %s) means %j', (code, timed, published, fate) => {
    const error = new PublishError(code as 'ERR_NAME', 'why', { published: published as 'no' })
    const runAt = timed ? Infinity : null
    expect(fateOf({ isFirst: true, runAt }, error)).toMatchObject(fate)
    if (published === 'no' && 'isUntouched' in fate) {
      expect(fateOf({ isFirst: false, runAt }, error)).toMatchObject({ isUntouched: false })
    }
  })

  test('needs no more permissions than the page gives to those who write and those who relay', async (context) => {
    if (postgres?.restart === undefined)
      return context.skip('roles would outlive the test on a server that is not ours')
    const [, grants = ''] = /```sql\n(CREATE ROLE[^]*?)```/.exec(await readPage()) ?? []
    await pool.query(grants)
    const as = (role: string) => poolOf(postgres.url.replace('millrace@', `${role}@`))
    const client = await as('shop').connect()
    await insertJob(client, charge, 1)
    await insertJob(client, 'x', 2, { stream: '{orders}' })
    await expect(client.query('DELETE FROM outbox')).rejects.toThrow('permission denied')
    await expect(client.query('SELECT data FROM outbox')).rejects.toThrow('permission denied')
    client.release()
    const { relay } = newRelay({ pool: as('outbox_relay') })

    expect(await relay.runOnce()).toBe(2)
    expect(relay.counts).toMatchObject({ published: 1, setAside: 1 })
    expect(await readBacklog(as('outbox_relay'))).toEqual({ rows: 0, oldestSeconds: 0, failed: 1 })
  })

  describe('Redis', () => {
    test('whose answer is lost has each job once: the next try finds it there', async () => {
      const proxy = await startProxy(redis.url)
      const { relay } = newRelay({ redis: proxy.url, timeoutMs: 300 })
      await insertNumbers(1, 100)
      const swallowed = proxy.swallowReplyKeepOpen(isTokenBatch)
      await relay.runOnce()
      await swallowed
      expect(relay.counts).toMatchObject({ published: 0, givenBack: 100 })
      expect(await maybeInRedis()).toBe(100)
      const { relay: next } = newRelay()
      await next.runOnce()

      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 100))
      expect(next.counts).toMatchObject({ published: 0, duplicates: 100 })
      expect(await rowsLeft()).toEqual({ outbox: 0, failed: 0 })
    })

    test('that was certainly not reached leaves no doubt about the rows, however long it is away', async () => {
      const server = await startServer()
      await server.kill()
      const { relay } = newRelay({ redis: server.url, timeoutMs: 100 })
      await insertNumbers(1, 10)
      await relay.runOnce()

      expect(await rowsLeft()).toEqual({ outbox: 10, failed: 0 })
      expect(await maybeInRedis()).toBe(0)
    })

    test('that has too few replicas keeps the rows until there are enough, and the jobs once', async () => {
      const args = ['--repl-diskless-sync-delay', '0']
      const [primary, replica] = await Promise.all([startServer({ args }), startServer()])
      const client = connectTo(primary.url)
      const durability = { replicas: 1, timeoutMs: 50 }
      const { relay, problems } = newRelay({ redis: primary.url, durability, pollMs: 20 })
      await insertNumbers(1, 10)
      await relay.runOnce()
      expect(await storedNumbers(client)).toEqual(numbers(1, 10))
      expect(await rowsLeft()).toEqual({ outbox: 10, failed: 0 })
      expect(await maybeInRedis()).toBe(10)
      expect(problems).toEqual(['cannot publish to orders now; trying again'])

      await connectTo(replica.url).replicaof('127.0.0.1', primary.port)
      relay.start()
      await untilEmpty()
      expect(await storedNumbers(client)).toEqual(numbers(1, 10))
      expect(relay.counts).toMatchObject({ published: 0, duplicates: 10 })
    })

    test('and PostgreSQL, killed and started again while rows go through, lose and double nothing', async () => {
      const server = await startServer({ aof: true })
      const client = connectTo(server.url)
      const { relay } = newRelay({ redis: server.url, maxRows: 20, pollMs: 50 })
      await insertNumbers(1, 1500)
      relay.start()
      await untilPublished(client, 200)
      await postgres?.restart?.()
      await untilPublished(client, 500)
      await server.kill()
      await server.restart()
      await untilPublished(client, 800)
      await Promise.all([postgres?.restart?.(), server.kill().then(() => server.restart())])
      await untilEmpty()
      await relay.stop()

      expect(await storedNumbers(client)).toEqual(numbers(1, 1500))
      expect(await rowsLeft()).toEqual({ outbox: 0, failed: 0 })
    })
  })

  describe('a relay that is killed', () => {
    test('between publishing and removing leaves rows that another finds published', async () => {
      await insertNumbers(1, 500)
      const release = await holdDeletes()
      const child = startRelay(redis.url)
      await eventually(async () => expect(await deletesWaiting()).toBe(1))
      await endOf(child)
      await release()
      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 500))
      expect(await rowsLeft()).toEqual({ outbox: 500, failed: 0 })

      const { relay } = newRelay()
      expect(await relay.runOnce()).toBe(0)
      await endLeases()
      expect(await relay.runOnce()).toBe(500)
      expect(relay.counts).toMatchObject({ published: 0, duplicates: 500 })
      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 500))
    })

    test('with a batch still on the way to Redis: another is faster, and what comes late appends nothing', async () => {
      await insertNumbers(1, 100)
      const proxy = await startProxy(redis.url)
      const batch = proxy.holdBefore(isTokenBatch)
      const child = startRelay(proxy.url)
      await batch.held
      await endOf(child)
      await endLeases()
      const { relay } = newRelay()
      await relay.runOnce()
      expect(relay.counts.published).toBe(100)

      batch.release()
      await eventually(async () => expect(await duplicateBatches()).toBe(1))
      expect(await storedNumbers(redis.client)).toEqual(numbers(1, 100))
    })

    test('again and again, at any point, while transactions commit and roll back, loses and doubles nothing', async () => {
      await insertNumbers(1, 2500)
      let number = 2500
      const committed: number[] = []
      let isWriting = true
      const writing = (async () => {
        while (isWriting) {
          const own = (number += 1)
          const write = transaction(async (client) => {
            await insertJob(client, charge, own)
            if (own % 3 === 0) throw new Error('rolled back')
          })
          await write.then(
            () => committed.push(own),
            () => {},
          )
        }
      })()
      for (const killAt of [40, 701, 1500]) {
        const child = startRelay(redis.url, { maxRows: 20 })
        await untilPublished(redis.client, killAt)
        child.signal('SIGKILL')
        await child.exited
        await endLeases()
      }
      isWriting = false
      await writing
      const { relay } = newRelay({ pollMs: 20 })
      relay.start()
      await eventually(async () => {
        // A statement of the last one may have been executed after it was killed.
        await endLeases()
        expect((await rowsLeft()).outbox).toBe(0)
      })

      const expected = [...numbers(1, 2500), ...committed]
      expect((await storedNumbers(redis.client)).sort((a, b) => a - b)).toEqual(expected)
      expect((await rowsLeft()).failed).toBe(0)
    })
  })

  test('the program of the recipe relays, and ends by itself on SIGTERM', async () => {
    const port = await freePort()
    const env = { DATABASE_URL: postgres?.url, REDIS_URL: redis.url, METRICS_PORT: String(port) }
    const child = startChild(join(EXAMPLE, 'main.ts'), { env })
    await child.line(/^ready$/)
    await insertNumbers(1, 10)
    await untilEmpty()
    const metrics = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
    expect(metrics).toContain('outbox_relayed_rows_total{result="published"} 10')
    for (const name of ['rows', 'oldest_seconds', 'failed_rows']) expect(metrics).toContain(`\noutbox_${name} 0\n`)
    child.signal('SIGTERM')

    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toContain('stopped {"published":10,"duplicates":0,"setAside":0,"givenBack":0}')
    expect(child.stderr).toEqual([])
    expect(await storedNumbers(redis.client)).toEqual(numbers(1, 10))
  })

  test('the page shows the table that is tested here', async () => {
    expect(await readPage()).toContain(await readFile(join(EXAMPLE, 'schema.sql'), 'utf8'))
  })
})

const readPage = () => readFile(join(EXAMPLE, '../../docs/outbox.md'), 'utf8')

const schemaOf = (validate: Schema['~standard']['validate']): Schema => ({
  '~standard': { version: 1, vendor: 'test', validate },
})

const numbers = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, n) => from + n)

interface TestRelayOptions extends Partial<Omit<RelayOptions, 'producer'>> {
  redis?: string
  producer?: ProducerOptions<Durability>
}

/** Stopped at the end of the test. */
function newRelay({ redis: url = redis.url, producer: more = {}, ...options }: TestRelayOptions = {}) {
  const producer = new Producer<Durability>({ redis: url, logger: false, ...more })
  const problems: string[] = []
  const report = (problem: string) => void problems.push(problem)
  const relay = new OutboxRelay({ pool, producer, report, ...options })
  onEnd(async () => {
    const stopped = relay.stop()
    await producer.close({ timeoutMs: 0 })
    await stopped
  })
  return { relay, problems }
}

function startRelay(url: string, options: Partial<RelayOptions> = {}): Child {
  const relay = { postgres: postgres?.url, redis: url, pollMs: 20, ...options }
  return startChild(FIXTURE, { env: { RELAY: JSON.stringify(relay) } })
}

/** Kills it, and ends its connections as the server would once it has noticed. */
async function endOf(child: Child): Promise<void> {
  child.signal('SIGKILL')
  await child.exited
  await pool.query(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'DELETE FROM outbox%' AND state = 'active'",
  )
  await eventually(async () => expect(await deletesWaiting()).toBe(0))
}

async function transaction<T>(body: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  try {
    await client.query('BEGIN')
    const result = await body(client)
    await client.query('COMMIT')
    return result
  } catch (error) {
    await client.query('ROLLBACK')
    throw error
  } finally {
    client.release()
  }
}

/** In one statement, as another program could. */
async function insertNumbers(from: number, to: number): Promise<void> {
  await pool.query(
    "INSERT INTO outbox (stream, job, data) SELECT 'orders', 'x', to_json(n) FROM generate_series($1::int, $2) n ORDER BY n",
    [from, to],
  )
}

/** Removing rows waits from here on, until released. */
async function holdDeletes(): Promise<() => Promise<void>> {
  const client = await pool.connect()
  await client.query('SELECT pg_advisory_lock(7)')
  await client.query(`
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NULL; END $$;
    CREATE TRIGGER hold BEFORE DELETE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION hold()`)
  let isHeld = true
  const release = async () => {
    if (!isHeld) return
    isHeld = false
    await client.query('SELECT pg_advisory_unlock(7); DROP FUNCTION hold CASCADE')
    client.release()
  }
  onEnd(release)
  return release
}

const count = async (sql: string): Promise<number> =>
  (await pool.query<{ count: number }>(`SELECT count(*)::int AS count FROM ${sql}`)).rows[0]?.count ?? 0

const deletesWaiting = () =>
  count("pg_stat_activity WHERE query LIKE 'DELETE FROM outbox%' AND wait_event_type = 'Lock' AND state = 'active'")

const leased = () => count('outbox WHERE taken_until > now()')

const maybeInRedis = () => count('outbox WHERE maybe_since IS NOT NULL')

const rowsLeft = async () => ({ outbox: await count('outbox'), failed: await count('outbox_failed') })

const untilEmpty = () => eventually(async () => expect((await rowsLeft()).outbox).toBe(0))

async function untilPublished(client: Redis, least: number): Promise<void> {
  await eventually(async () => expect(await client.xlen('orders')).toBeGreaterThanOrEqual(least), { intervalMs: 2 })
}

/** As if they had been over: nobody waits half a minute here. */
async function endLeases(): Promise<void> {
  await pool.query("UPDATE outbox SET taken_until = now() - interval '1 s' WHERE taken_until > now()")
}

/** Producers whose last batch was nothing but duplicates. */
async function duplicateBatches(): Promise<number> {
  const keys = await redis.client.keys('{orders}:producer:*')
  const answers = await Promise.all(keys.map((key) => redis.client.hget(key, 'ids')))
  return answers.filter((ids) => ids?.split(' ').every((id) => id.startsWith('='))).length
}
