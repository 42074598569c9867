import { describe, expect, test } from 'vitest'
import { deadKey, groupScheduledKey, settingsKey, workersInfoKey, workersKey } from '../../src/redis/keys.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const groups = (...args: string[]) => millrace(['groups', ...args], { redis: redis.url })
const nowMs = () => serverMs(redis.client)

/** Three entries of long ago, one of them pending, a retry and two dead letters of billing, whose workers left two days ago. */
async function arrange(): Promise<void> {
  const now = await nowMs()
  for (const ago of [300, 200, 100]) await redis.client.xadd('orders', `${now - ago * 1000}-0`, 'job', 'mail')
  await redis.client.xgroup('CREATE', 'orders', 'main', '$')
  await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
  await redis.client.xreadgroup('GROUP', 'billing', 'w', 'COUNT', 1, 'STREAMS', 'orders', '>')
  await redis.client.zadd(groupScheduledKey('orders', 'billing'), now + 60_000, 'a')
  for (let n = 0; n < 2; n++) await redis.client.xadd(deadKey('orders', 'billing'), '*', 'dead-reason', 'attempts')
  await redis.client.hset(workersInfoKey('orders', 'billing'), ':beat', now - 172_800_000)
  await redis.client.hset(settingsKey('orders'), 'group:billing:floor', '0-0')
}

const rowsOf = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/))

describe('millrace groups list', () => {
  test('shows what each group has before it, when it was last seen and what it pins; warns of an abandoned one', async () => {
    await arrange()
    const { code, stdout, stderr } = await groups('list', 'orders')
    expect(code).toBe(0)
    expect(rowsOf(stdout)).toEqual([
      ['group', 'lag', 'pending', 'scheduled', 'dead', 'workers', 'last seen', 'pins'],
      [
        'billing',
        '2',
        '1',
        '1',
        '2',
        '0',
        expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:]+Z$/),
        expect.stringMatching(/^3 entries, the oldest of \dm ago$/),
      ],
      ['main', '0', '0', '0', '0', '0', 'never', 'nothing yet'],
    ])
    expect(stderr).toMatch(
      /^group billing of orders has had no worker since \S+Z; it pins 3 entries, .+; to remove it: /,
    )
    expect(stderr).toMatch(/millrace groups remove orders billing\n$/)
  })

  test('prints one document with --json, and no warning beside it', async () => {
    await arrange()
    const { code, stdout, stderr } = await groups('list', 'orders', '--json')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(JSON.parse(stdout)).toMatchObject({
      schemaVersion: 1,
      stream: 'orders',
      groups: [
        { group: 'billing', lag: 2, pending: 1, scheduled: 1, dead: 2, abandoned: true, pins: { entries: 3 } },
        { group: 'main', lastSeenMs: null, abandoned: false, pins: null },
      ],
    })
  })

  test('of a stream without groups says so; of none ends with 4', async () => {
    await redis.client.xadd('orders', '*', 'job', 'mail')
    const next = 'its first worker makes one, or: millrace groups create orders main --start oldest'
    const stderr = `stream orders has no group yet; ${next}\n`
    expect(await groups('list', 'orders')).toEqual({ code: 0, stdout: '', stderr })
    expect(await groups('list', 'mails')).toMatchObject({ code: 4, stdout: '' })
  })
})

describe('millrace groups create', () => {
  test('makes a group, also before its stream, and says where it starts', async () => {
    const made = await groups(
      'create',
      'orders',
      'billing',
      '--start',
      'now',
      '--lease',
      '20s',
      '--max-deliveries',
      '5',
    )
    expect(made).toEqual({
      code: 0,
      stdout: '',
      stderr: 'made group billing of orders: it starts with what is published from now on\n',
    })
    expect(await redis.client.hgetall(settingsKey('orders'))).toMatchObject({
      'group:billing:leaseMs': '20000',
      'group:billing:maxDeliveries': '5',
    })
  })

  test.each([
    [['orders', 'billing'], "required option '--start <where>' not specified"],
    [['orders', 'billing', '--start', 'end'], 'Allowed choices are oldest, now'],
    [['orders', 'billing', '--start', 'now', '--lease', '1ms'], 'expected `--lease` to be a duration of 500ms or more'],
    [['orders', '__other__', '--start', 'now'], 'are reserved'],
    [['orders', 'millrace', '--start', 'now'], 'are reserved'],
    [['bad name', 'billing', '--start', 'now'], 'expected a stream name'],
  ])('%j ends with 2, and makes nothing', async (args, message) => {
    const { code, stdout, stderr } = await groups('create', ...args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(message)
    expect(await redis.client.dbsize()).toBe(0)
  })

  test('of one that exists ends with 2, and changes nothing', async () => {
    await arrange()
    const { code, stderr } = await groups('create', 'orders', 'billing', '--start', 'now')
    expect([code, stderr]).toEqual([2, 'error: stream orders has a group billing already; nothing was changed\n'])
  })
})

describe('millrace groups remove', () => {
  const remove = (...args: string[]) => groups('remove', 'orders', 'billing', ...args)

  test('tells what would be abandoned and how to do it, and removes nothing', async () => {
    await arrange()
    const keys = (await redis.client.keys('*')).sort()
    const { code, stdout, stderr } = await remove()
    expect(rowsOf(stdout)).toEqual([
      ['group billing of orders', 'would be abandoned'],
      ['not yet delivered', '2'],
      ['pending', '1'],
      ['scheduled retries', '1'],
      ['dead letters', '2'],
      ['live workers', expect.stringMatching(/^0, last heard of \S+Z$/)],
    ])
    expect([code, stderr]).toEqual([
      0,
      'nothing was removed; to remove it: millrace groups remove orders billing --execute\n',
    ])
    expect((await redis.client.keys('*')).sort()).toEqual(keys)
  })

  test('names the Redis that was named, but no password', async () => {
    await arrange()
    const named = await millrace(['groups', 'remove', 'orders', 'billing', '--redis', redis.url])
    expect(named.stderr).toContain(`--execute --redis ${redis.url}\n`)
    await redis.client.acl('SETUSER', 'ops', 'reset', 'on', '>hunter22', '~*', '+@all')
    const secret = redis.url.replace('//', '//ops:hunter22@')
    const { stderr } = await millrace(['groups', 'remove', 'orders', 'billing', '--redis', secret])
    await redis.client.acl('DELUSER', 'ops')
    expect(stderr).toContain("--execute --redis '<url>'\n")
    expect(stderr).not.toContain('hunter22')
  })

  test('removes it with --execute; then it is unknown', async () => {
    await arrange()
    const { code, stdout, stderr } = await remove('--execute', '--json')
    expect([code, stderr]).toEqual([0, 'removed group billing of orders\n'])
    expect(JSON.parse(stdout)).toMatchObject({ schemaVersion: 1, lag: 2, pending: 1, dead: 2, isExecuted: true })
    expect((await redis.client.keys('*')).filter((key) => key.includes('billing'))).toEqual([])
    const again = await remove('--execute')
    expect(again).toMatchObject({ code: 4, stdout: '' })
    expect(again.stderr).toMatch(/stream orders has no group billing/)
  })

  test('says that nothing is left that reads the stream', async () => {
    await arrange()
    await redis.client.xgroup('DESTROY', 'orders', 'main')
    expect((await remove()).stderr).toMatch(/^the stream has no other group: nobody reads it, and it is not trimmed\n/)
    expect((await remove('--execute')).stderr).toMatch(
      /^removed group billing of orders; the stream has no other group/,
    )
  })

  test('ends with 1 while a worker lives, and touches nothing; with --force it is done', async () => {
    await arrange()
    await redis.client.zadd(workersKey('orders', 'billing'), (await nowMs()) + 4000, 'w')
    expect((await remove()).stderr).toMatch(/^it has 1 live worker: stop them first/)
    const refused = await remove('--execute')
    expect(refused).toMatchObject({ code: 1, stdout: '' })
    expect(refused.stderr).toMatch(/^error: group billing of orders has 1 live worker; .+; nothing was removed\n$/)
    expect(await redis.client.xinfo('GROUPS', 'orders')).toHaveLength(2)
    await redis.client.zadd(workersKey('orders', 'billing'), (await nowMs()) + 4000, 'w')
    expect((await remove('--execute', '--force')).code).toBe(0)
    expect(await redis.client.xinfo('GROUPS', 'orders')).toHaveLength(1)
  })

  test('of a mistyped group ends with 4, with the one that was meant', async () => {
    await arrange()
    const { code, stderr } = await groups('remove', 'orders', 'biling')
    expect(code).toBe(4)
    expect(stderr).toContain('did you mean billing?')
  })
})

test.each([[['groups']], [['groups', 'list']], [['groups', 'create']], [['groups', 'remove']]])(
  'the help of %j has examples that can be run',
  async (words) => {
    const { code, stdout } = await millrace([...words, '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/Examples:\n {2}\$ millrace groups /)
  },
)
