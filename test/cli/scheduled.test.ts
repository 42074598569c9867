import { describe, expect, test } from 'vitest'
import { groupScheduledKey } from '../../src/redis/keys.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { delayedId, schedule } from '../helpers/scheduled.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const scheduled = (...args: string[]) => millrace(['scheduled', ...args], { redis: redis.url })

const addGroup = (group = 'main') => redis.client.xgroup('CREATE', 'orders', group, '0', 'MKSTREAM')

/** The rows of a printed table, by cells. */
function rowsOf(text: string): string[][] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/))
}

describe('millrace scheduled list', () => {
  test('shows delayed publishes and retries by due time, and what was set aside last', async () => {
    await addGroup()
    const now = await serverMs(redis.client)
    const delayed = await schedule(redis.client, { id: await delayedId(redis.client), due: now + 7_230_000 })
    await schedule(redis.client, { id: '1-0', group: 'main', due: now - 1, attempt: 3, error: 'Error: no' })
    await schedule(redis.client, { id: '2-0', group: 'main', due: '+inf' }, 'x')
    const { code, stdout, stderr } = await scheduled('list', 'orders')
    const bytes = expect.stringMatching(/^\d+$/) as string
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(rowsOf(stdout)).toEqual([
      ['id', 'job', 'group', 'due', 'attempt', 'bytes', 'error'],
      ['1-0', 'mail', 'main', 'now', '3', bytes, 'Error: no'],
      [delayed, 'mail', '-', 'in 2h', '0', bytes, '-'],
      ['2-0', '(not to be read)', 'main', 'set aside', '0', '1', '-'],
    ])
  })

  test('prints one document of stable names with --json, and goes on after it', async () => {
    await addGroup()
    for (const id of ['1-0', '2-0', '3-0']) await schedule(redis.client, { id, group: 'main', due: 5 })
    const first = JSON.parse((await scheduled('list', 'orders', '--limit', '2', '--json')).stdout) as { next: string }
    expect(first).toEqual({
      schemaVersion: 1,
      stream: 'orders',
      nowMs: expect.any(Number) as number,
      jobs: ['1-0', '2-0'].map((id) => ({
        id,
        job: 'mail',
        group: 'main',
        dueMs: 5,
        attempt: 0,
        error: '',
        bytes: expect.any(Number) as number,
      })),
      next: expect.any(String) as string,
    })
    expect((await scheduled('list', 'orders', '--limit', '2')).stderr).toBe(
      `there are more: millrace scheduled list orders --limit 2 --after ${first.next}\n`,
    )
    const rest = await scheduled('list', 'orders', '--after', first.next, '--json')
    expect(JSON.parse(rest.stdout)).toMatchObject({ jobs: [{ id: '3-0' }], next: null })
  })

  test('of a stream without any says so, and that is no error', async () => {
    await addGroup()
    expect(await scheduled('list', 'orders')).toEqual({
      code: 0,
      stdout: '',
      stderr: 'nothing is scheduled on orders\n',
    })
  })

  test('lets no error from Redis drive the terminal', async () => {
    await addGroup()
    await schedule(redis.client, { id: '1-0', group: 'main', error: '\x1b[2Jbad\nline', job: '\x1b[1m' })
    const { stdout } = await scheduled('list', 'orders')
    expect(stdout).not.toContain('\x1b')
    expect(rowsOf(stdout)).toHaveLength(2)
  })

  test.each([
    [['--limit', '0'], /`--limit` to be a positive integer up to 1000/],
    [['--after', 'x'], /`--after` to be what the page before gave/],
  ])('refuses %j', async (args, message) => {
    const { code, stderr } = await scheduled('list', 'orders', ...args)
    expect(code).toBe(2)
    expect(stderr).toMatch(message)
  })
})

describe('millrace scheduled show', () => {
  test('shows a job with its payload', async () => {
    await addGroup()
    await schedule(redis.client, {
      id: '7-0',
      group: 'main',
      due: 5000,
      data: '{"order":42}',
      attempt: 2,
      error: 'Error: no',
    })
    const { stdout } = await scheduled('show', 'orders', '7-0')
    for (const line of [
      'id               7-0',
      'job              mail',
      'group            main',
      'due              1970-01-01T00:00:05.000Z',
      'attempts failed  2',
      'error            Error: no',
      '  first-failed: 7',
      '  data: {"order":42}',
    ]) {
      expect(stdout.split('\n')).toContain(line)
    }
    expect(JSON.parse((await scheduled('show', 'orders', '7-0', '--json')).stdout)).toMatchObject({
      schemaVersion: 1,
      stream: 'orders',
      jobs: [{ id: '7-0', group: 'main', data: '{"order":42}', fields: expect.any(Array) as string[][] }],
    })
  })
})

describe('millrace scheduled reschedule and promote', () => {
  const dueOf = async (group: string) => Number(await redis.client.zscore(groupScheduledKey('orders', group), '7-0'))

  async function arrange(): Promise<void> {
    for (const group of ['billing', 'main']) {
      await addGroup(group)
      await schedule(redis.client, { id: '7-0', group, due: 5 })
    }
  }

  test('give a job another due time, in one group or in all, and tell it', async () => {
    await arrange()
    const at = Date.UTC(2026, 10, 21, 10) + 3_600_000
    const one = await scheduled('reschedule', 'orders', '7-0', '--at', '2026-11-21T11:00Z', '--group', 'main')
    expect(one).toMatchObject({ code: 0, stderr: '' })
    const dueMs = await dueOf('main')
    expect(dueMs).toBeGreaterThanOrEqual(at)
    expect(one.stdout).toBe(`7-0 is due ${new Date(dueMs).toISOString()} in group main\n`)
    expect(await dueOf('billing')).toBe(5)
    const all = JSON.parse(
      (await scheduled('reschedule', 'orders', '7-0', '--delay', '60d', '--json')).stdout,
    ) as object
    expect(all).toEqual({
      schemaVersion: 1,
      stream: 'orders',
      id: '7-0',
      places: [
        { group: 'billing', dueMs: await dueOf('billing') },
        { group: 'main', dueMs: await dueOf('main') },
      ],
    })
    const promoted = JSON.parse((await scheduled('promote', 'orders', '7-0', '--json')).stdout) as object
    expect(promoted).toMatchObject({ places: [{ dueMs: await dueOf('billing') }, { dueMs: await dueOf('main') }] })
    expect(await dueOf('main')).toBeLessThan((await serverMs(redis.client)) + 30_000)
  })

  test('tell what a local time was taken for', async () => {
    await arrange()
    const local = `${new Date().getFullYear() + 1}-06-21T10:00`
    const { code, stderr } = await scheduled('reschedule', 'orders', '7-0', '--at', local)
    const atMs = new Date(local).getTime()
    expect([code, stderr]).toEqual([0, `--at ${local} is ${new Date(atMs).toISOString()}\n`])
    expect(await dueOf('main')).toBe(atMs)
  })

  test.each([
    [[], /either `--delay` or `--at`, got neither/],
    [['--delay', '1s', '--at', '10:00'], /got both/],
    [['--delay', '4000d'], /`--delay` to be a duration/],
    [['--at', 'noon'], /`--at` to be a time such as 2026-11-21T10:00:00Z, .*, got "noon"/],
    [['--at', '2126-11-21T10:00Z'], /at most ten years from now/],
  ])('refuse %j and change nothing', async (args, message) => {
    await arrange()
    const { code, stdout, stderr } = await scheduled('reschedule', 'orders', '7-0', ...args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(message)
    expect(await dueOf('main')).toBe(5)
  })

  test.each([['promote'], ['show'], ['reschedule', '--delay', '1s'], ['cancel']])(
    'and the others end with 4 where there is no such job: %s',
    async (verb, ...args) => {
      await addGroup()
      expect(await scheduled(verb, 'orders', '7-0', ...args)).toMatchObject({ code: 4, stdout: '' })
    },
  )
})

describe('millrace scheduled', () => {
  test('shows its verbs with examples, and ends with 2 without one', async () => {
    expect((await scheduled('--help')).stdout).toMatch(
      /list [^]*show [^]*reschedule [^]*promote [^]*cancel [^]*Examples:/,
    )
    expect(await scheduled()).toMatchObject({ code: 2, stdout: '' })
  })
})
