import { describe, expect, test } from 'vitest'
import { indexKey, settingsKey, workersKey } from '../../src/redis/keys.ts'
import { setBack } from '../../src/redis/scripts/rewind.ts'
import { startProgram } from '../helpers/program.ts'
import { startProxy, type Match } from '../helpers/proxy.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const rewind = (...args: string[]) => millrace(['groups', 'rewind', 'orders', 'main', ...args], { redis: redis.url })
const BEGIN = Date.parse('2026-11-20T10:00:00Z')
const idAt = (minute: number) => `${BEGIN + minute * 60_000}-0`

/** An entry a minute from 10:00 to 10:09 of a day, of which group main has been given eight, and settled six. */
async function arrange(): Promise<void> {
  for (let n = 0; n < 10; n++) await redis.client.xadd('orders', idAt(n), 'job', 'mail')
  await redis.client.xgroup('CREATE', 'orders', 'main', '0')
  await redis.client.xreadgroup('GROUP', 'main', 'gone', 'COUNT', 8, 'STREAMS', 'orders', '>')
  await redis.client.xack('orders', 'main', ...[0, 1, 2, 3, 4, 5].map(idAt))
}

async function live(): Promise<void> {
  await redis.client.zadd(workersKey('orders', 'main'), (await serverMs(redis.client)) + 4000, 'w')
}

const notes = () => redis.client.hget(settingsKey('orders'), 'group:main:rewinds')

describe('millrace groups rewind', () => {
  test('tells how many jobs would run again, what to think of, and the command that does it', async () => {
    await arrange()
    const { code, stdout, stderr } = await rewind('--to', '2026-11-20T10:05:00Z')
    expect(code).toBe(0)
    expect(stdout.split('\n')).toEqual([
      '3 jobs of 2026-11-20T10:05:00Z to 2026-11-20T10:07:00Z would run again in group main of orders',
      `  first entry        ${idAt(5)}`,
      `  last entry         ${idAt(7)}`,
      '  pending of these   2, which run once more and not twice',
      '  not yet delivered  2 before, 5 after',
      '  live workers       0',
      '',
    ])
    expect(stderr).toMatch(/^handlers run again for jobs that completed too: .+ millrace replay runs a part of them/)
    expect(stderr).toMatch(
      /nothing was changed; to rewind the group: millrace groups rewind orders main --to 2026-11-20T10:05:00\.000Z --execute\n$/,
    )
    expect(await notes()).toBeNull()
  })

  test('does it with --execute, by the command that it has printed', async () => {
    await arrange()
    const plan = await rewind('--to', idAt(5))
    const [, command = ''] = /to rewind the group: millrace (.+)\n$/.exec(plan.stderr) ?? []
    const { code, stdout, stderr } = await millrace(command.split(' '), { redis: redis.url })
    expect([code, stderr]).toEqual([0, 'rewound group main of orders: 3 jobs will run again\n'])
    expect(stdout).toMatch(/^3 jobs of .+ will run again in group main of orders\n/)
    const again = await millrace(command.split(' '), { redis: redis.url })
    expect([again.code, again.stdout]).toEqual([0, '0 jobs will run again in group main of orders\n'])
    expect(again.stderr).toMatch(/^nothing was changed: /)
  })

  test('prints JSON, the same before and after', async () => {
    await arrange()
    const plan = JSON.parse((await rewind('--to', idAt(5), '--json')).stdout) as Record<string, unknown>
    expect(plan).toEqual({
      schemaVersion: 1,
      executed: false,
      stream: 'orders',
      group: 'main',
      toId: `${BEGIN + 5 * 60_000 - 1}-18446744073709551615`,
      fromId: idAt(7),
      again: 3,
      pendingAgain: 2,
      firstId: idAt(5),
      lastId: idAt(7),
      lagBefore: 2,
      lagAfter: 5,
      workers: 0,
      also: { scheduled: 0, dead: 0, redelivery: 0 },
      command: `millrace groups rewind orders main --to ${idAt(5)} --execute`,
    })
    const { stdout } = await rewind('--to', idAt(5), '--json', '--execute')
    expect(JSON.parse(stdout)).toEqual({ ...plan, executed: true, command: null })
  })

  test('echoes what a local time was taken for', async () => {
    await arrange()
    expect((await rewind('--to', '2026-11-20 10:05')).stderr).toMatch(
      /^--to 2026-11-20 10:05 is 2026-11-\d\dT\d\d:\d5:00\.000Z\n/,
    )
  })

  test('tells of jobs of the range that the group has elsewhere too', async () => {
    await arrange()
    await redis.client.hset(indexKey('orders', 'main'), { [idAt(5)]: 'scheduled', [idAt(6)]: 'dead 1-1' })
    expect((await rewind('--to', idAt(5))).stderr).toContain(
      'the group has some of these jobs elsewhere too, and runs them from there beside this: 1 scheduled retry, 1 dead letter if redriven\n',
    )
  })

  test('ends with 1 while a worker lives, and changes nothing; with --force it is done', async () => {
    await arrange()
    await live()
    const plan = await rewind('--to', idAt(5))
    expect(plan.stderr).toMatch(/it has 1 live worker: stop them first; with --force .+\n.+ --force --execute\n$/)
    const refused = await rewind('--to', idAt(5), '--execute')
    expect(refused).toMatchObject({ code: 1, stdout: '' })
    expect(refused.stderr).toMatch(/^error: group main of orders has 1 live worker; .+; nothing was changed\n$/)
    expect(await notes()).toBeNull()
    await live()
    expect((await rewind('--to', idAt(5), '--execute', '--force')).code).toBe(0)
    expect(await notes()).toMatch(`${idAt(7)}`)
  })

  test('ends with 2 ahead of the group, with 4 before the history begins and for what there is not', async () => {
    await arrange()
    const ahead = await rewind('--to', idAt(9), '--execute')
    expect([ahead.code, ahead.stderr]).toEqual([2, expect.stringContaining('a rewind skips nothing')])
    await redis.client.xack('orders', 'main', idAt(6), idAt(7))
    await redis.client.xtrim('orders', 'MINID', idAt(3))
    const before = await rewind('--to', '2026-11-20T10:01:00Z', '--execute')
    expect([before.code, before.stderr]).toEqual([
      4,
      expect.stringContaining(`begins at 2026-11-20T10:03:00.000Z with entry ${idAt(3)}`),
    ])
    expect((await millrace(['groups', 'rewind', 'orders', 'mian', '--to', '0-1'], { redis: redis.url })).code).toBe(4)
    expect((await millrace(['groups', 'rewind', 'nothing', 'main', '--to', '0-1'], { redis: redis.url })).code).toBe(4)
  })

  test.each([[[]], [['--to', 'soon']], [['--to', '10:99']], [['--to', '1-1', '--frce']]])(
    'with %j ends with 2',
    async (flags) => {
      expect(await rewind(...flags)).toMatchObject({ code: 2, stdout: '' })
    },
  )

  test.each(['before', 'after'] as const)(
    'killed %s the group is set back and then repeated, sets it back once',
    async (moment) => {
      await arrange()
      await redis.client.script('LOAD', setBack.lua)
      const match: Match = ([name, sha]) => name === 'evalsha' && sha === setBack.sha
      const proxy = await startProxy(redis.url)
      const args = ['groups', 'rewind', 'orders', 'main', '--to', idAt(5), '--execute']
      const happened = moment === 'before' ? proxy.cutBefore(match) : proxy.swallowReplyKeepOpen(match)
      // However often it tries again before it is killed.
      void proxy.cutBefore(match, 1000)
      const program = startProgram(args, { env: { MILLRACE_REDIS_URL: proxy.url } })
      await happened
      program.signal('SIGKILL')
      await program.exited
      await proxy.stop()
      const { stderr } = await rewind('--to', idAt(5), '--execute')
      expect(stderr).toMatch(moment === 'before' ? /^rewound group main/ : /^nothing was changed/)
      expect((await notes())?.split(' ')).toHaveLength(1)
      const [info] = (await redis.client.call('XINFO', 'GROUPS', 'orders')) as unknown[][]
      expect(info?.at(-1)).toBe(5)
    },
  )

  test('has help with examples that can be run', async () => {
    const { code, stdout } = await millrace(['groups', 'rewind', '--help'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/Examples:\n {2}\$ millrace groups rewind /)
  })
})
