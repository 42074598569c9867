import { describe, expect, test } from 'vitest'
import { cronDueKey } from '../../src/redis/keys.ts'
import { firedJobs, makeDue, newFirer } from '../helpers/cron.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const cron = (...args: string[]) => millrace(['cron', ...args], { redis: redis.url })
const json = async (...args: string[]) => JSON.parse((await cron(...args, '--json')).stdout) as Record<string, unknown>

/** The rows of a printed table, by cells. */
function rowsOf(text: string): string[][] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/))
}

test('set makes a schedule with all that its flags say, list shows it, run publishes its job, and remove takes it away', async () => {
  const flags = ['--zone', 'Europe/Berlin', '--overlap', 'skip', '--catch-up', 'all', '--grace', '5m', '--ttl', '1h']
  const bounds = ['--header', 'tenant=acme', '--start', '2099-01-01T00:00Z', '--end', '2099-12-31T00:00Z']
  const made = await json('set', 'orders', 'nightly', 'report', '{"a":1}', '--at', '0 3 * * *', ...flags, ...bounds)
  const nextMs = Date.parse('2099-01-01T02:00:00Z')
  expect(made).toEqual({ schemaVersion: 1, stream: 'orders', name: 'nightly', outcome: 'new', nextMs })

  expect(await json('list', 'orders')).toMatchObject({
    ...{ schemaVersion: 1, stream: 'orders', nowMs: expect.any(Number) as number, next: null },
    schedules: [
      {
        ...{ name: 'nightly', job: 'report', at: '0 3 * * *', zone: 'Europe/Berlin', everyMs: null },
        ...{ startMs: Date.parse('2099-01-01T00:00Z'), endMs: Date.parse('2099-12-31T00:00Z') },
        ...{ overlap: 'skip', catchUp: 'all', graceMs: 300_000, nextMs, state: 'waiting' },
        ...{ lastTickMs: null, lastJobId: null, fired: 0, skipped: 0 },
      },
    ],
  })

  const { id } = await json('run', 'orders', 'nightly')
  expect(await firedJobs(redis.client)).toEqual([
    { id, fields: { job: 'report', data: '{"a":1}', expires: '+3600000', 'h-tenant': 'acme', cron: 'nightly run' } },
  ])
  expect(await json('remove', 'orders', 'nightly')).toMatchObject({ name: 'nightly', removed: true })
  expect(await json('list', 'orders')).toMatchObject({ schedules: [] })
})

test('list says in words what is due, overdue, queued, ended and set aside', async () => {
  for (const name of ['ended', 'late', 'queued', 'waits', 'wrong']) {
    const options = name === 'queued' ? ['--overlap', 'queue-one'] : name === 'late' ? ['--catch-up', 'none'] : []
    await cron('set', 'orders', name, 'x', '--every', '1h', '--start', '2020-01-01T00:30Z', ...options)
  }
  const { firer } = await newFirer(redis.url)
  await cron('set', 'orders', 'ended', 'x', '--at', '0 3 1 1 *', '--end', '2021-01-01T00:00Z')
  await cron('run', 'orders', 'queued')
  await makeDue(redis.client, 'queued', Date.now() - 1)
  await firer.runOnce()
  await redis.client.zadd(cronDueKey('orders'), '+inf', 'wrong')
  await makeDue(redis.client, 'late', Date.now() - 7_200_000)
  const rows = rowsOf((await cron('list', 'orders')).stdout).map(([name, , when, next]) => [name, when, next])

  expect(rows).toEqual([
    ['name', 'when', 'next'],
    ['late', 'every 1h', 'overdue by 2h'],
    ['queued', 'every 1h', 'queued'],
    ['waits', 'every 1h', expect.stringMatching(/^in \d+[ms]/) as string],
    ['ended', '0 3 1 1 *', 'ended'],
    ['wrong', 'every 1h', 'set aside'],
  ])
})

describe('what cannot be is refused with what was expected, and the exit code', () => {
  test.each<[string[], number, string]>([
    [['set', 'orders', 'a', 'x', '--at', '70 * * * *'], 2, 'expected `--at` to be five fields'],
    [['set', 'orders', 'a', 'x', '--at', '0 3 * * *', '--zone', 'Mars'], 2, 'a time zone such as "Europe/Berlin"'],
    [['set', 'orders', 'a', 'x', '--every', '5m', '--at', '* * * * *'], 2, 'expected either `--at` or `--every`'],
    [['set', 'orders', 'a', 'x', '{'], 2, 'expected either `--at` or `--every`'],
    [['set', 'orders', 'a', 'x', '{', '--every', '5m'], 2, 'expected the data to be JSON'],
    [['set', 'orders', 'a', 'x', '--every', '1ms'], 2, 'expected `--every` to be a duration of 100ms or more'],
    [
      ['set', 'orders', 'a', 'x', '--every', '5m', '--overlap', 'queue'],
      2,
      'Allowed choices are allow, skip, queue-one',
    ],
    [['remove', 'orders', 'a'], 4, 'stream orders has no schedule a (it has none)'],
    [['run', 'orders', 'a'], 4, 'stream orders has no schedule a (it has none)'],
    [['list', 'orders'], 4, 'stream orders does not exist'],
  ])('%j', async (args, code, message) => {
    const told = await cron(...args)
    expect(told.code).toBe(code)
    expect(told.stderr.replace(/\s+/g, ' ')).toContain(message)
    expect(await redis.client.dbsize()).toBe(0)
  })
})
