import { hostname, userInfo } from 'node:os'
import { describe, expect, test } from 'vitest'
import { settingsKey } from '../../src/redis/keys.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const run = (...args: string[]) => millrace(args, { redis: redis.url })
const ME = `${userInfo().username}@${hostname()}`
const MOMENT = '\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ'

async function arrange(): Promise<void> {
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
  await redis.client.sadd('millrace:streams', 'orders')
}

describe('millrace pause and resume', () => {
  test('say what they did, who did it before, and how to go on', async () => {
    await arrange()
    const first = await run('pause', 'orders', 'main', '--for', '1h', '--reason', 'migration\u001b[2J')
    expect([first.code, first.stdout]).toEqual([0, ''])
    expect(first.stderr).toMatch(
      new RegExp(`^group main of orders is paused since ${MOMENT} until ${MOMENT} by ${ME} \\(migration \\[2J\\)\n`),
    )
    expect(first.stderr).toMatch(/\nwhat runs finishes; to go on: millrace resume orders main\n$/)
    const second = await run('pause', 'orders', 'main')
    expect(second.stderr).toMatch(/\nit was paused already, since .+ \(migration .+\): this pause replaces that one\n/)
    await run('pause', 'orders')

    const resumed = await run('resume', 'orders', 'main')
    expect([resumed.code, resumed.stdout]).toEqual([0, ''])
    expect(resumed.stderr).toMatch(
      new RegExp(`^resumed group main of orders, which was paused since ${MOMENT} by ${ME}\n`),
    )
    expect(resumed.stderr).toMatch(/\nstream orders stays paused since .+; to go on: millrace resume orders\n$/)
    await run('resume', 'orders')
    const again = await run('resume', 'orders')
    expect([again.code, again.stderr]).toEqual([0, 'stream orders was not paused: nothing was changed\n'])
    expect(await redis.client.exists(settingsKey('orders'))).toBe(0)
  })

  test('print JSON', async () => {
    await arrange()
    const paused = JSON.parse((await run('pause', 'orders', '--for', '60s', '--json')).stdout) as object
    expect(paused).toMatchObject({ schemaVersion: 1, stream: 'orders', group: null, replaced: null })
    expect(paused).toMatchObject({ paused: { by: ME, reason: '' }, command: 'millrace resume orders' })
    const resumed = JSON.parse((await run('resume', 'orders', '--json')).stdout) as object
    expect(resumed).toMatchObject({ schemaVersion: 1, group: null, was: { by: ME }, still: [] })
  })

  test('are seen in the stats and in the list of groups', async () => {
    await arrange()
    await run('pause', 'orders', 'billing', '--reason', 'deploy')
    const stats = await run('stats', 'orders')
    expect(stats.stdout).toMatch(/^orders {2}billing \(paused\) /m)
    expect(stats.stdout).toMatch(/^orders {2}main /m)
    const line = new RegExp(
      `^group billing of orders is paused since ${MOMENT} by ${ME} \\(deploy\\); to go on: millrace resume orders billing$`,
      'm',
    )
    expect(stats.stderr).toMatch(line)
    const list = await run('groups', 'list', 'orders')
    expect([list.stdout, list.stderr]).toEqual([
      expect.stringMatching(/^billing \(paused\) /m),
      expect.stringMatching(line),
    ])
    await run('pause', 'orders')
    expect((await run('stats')).stdout).toMatch(/^orders \(paused\) {2}main /m)
    expect((await run('groups', 'list', 'orders')).stderr).toMatch(/^stream orders is paused since /)
    const told = JSON.parse((await run('stats', 'orders', '--json')).stdout) as object
    expect(told).toMatchObject({
      streams: [{ paused: { by: ME }, groups: [{ paused: { reason: 'deploy', untilMs: null } }, { paused: null }] }],
    })
  })

  test('end with 4 for what there is not, and with 2 for a wrong option', async () => {
    await arrange()
    for (const verb of ['pause', 'resume']) {
      expect((await run(verb, 'order')).code).toBe(4)
      const { code, stderr } = await run(verb, 'orders', 'mian')
      expect([code, stderr]).toEqual([4, expect.stringContaining('did you mean main?')])
    }
    expect((await run('pause', 'orders', '--for', 'ever')).code).toBe(2)
    expect((await run('pause', 'orders', '--reason', 'x'.repeat(201))).code).toBe(2)
    expect(await redis.client.exists(settingsKey('orders'))).toBe(0)
  })

  test.each(['pause', 'resume'])('%s has help with examples that can be run', async (verb) => {
    const { code, stdout } = await run(verb, '--help')
    expect(code).toBe(0)
    expect(stdout).toMatch(new RegExp(`Examples:\n {2}\\$ millrace ${verb} `))
  })
})
