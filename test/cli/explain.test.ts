import { describe, expect, test } from 'vitest'
import { eventually } from '../helpers/eventually.ts'
import { killJobs } from '../helpers/dead.ts'
import { withRedis } from '../helpers/redis.ts'
import { delayedId, schedule } from '../helpers/scheduled.ts'
import { add, startWorker } from '../helpers/workers.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const explain = (...args: string[]) => millrace(['explain', ...args], { redis: redis.url })
const makeGroup = (group: string) => redis.client.xgroup('CREATE', 'orders', group, '0', 'MKSTREAM')

describe('millrace explain', () => {
  test('says what the job is, and for each group where it is, in lines that fit', async () => {
    const id = await add(redis.client, 'mail', { n: 1 })
    await makeGroup('billing')
    await startWorker({ redis: redis.url, handlers: { mail() {} }, startAt: 'oldest' })
    const { code, stdout, stderr } = await eventually(async () => {
      const told = await explain('orders', id)
      expect(told.stdout).toContain('group main: settled')
      return told
    })
    expect([code, stderr]).toEqual([0, ''])
    const lines = stdout.split('\n')
    expect(lines[0]).toBe(`job ${id} of orders`)
    expect(lines[1]).toMatch(/^ {2}Job "mail", 7 bytes of payload, published \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/)
    expect(stdout).toContain('\n\ngroup billing: not delivered\n  Not yet delivered: it is the next one')
    expect(stdout).toContain('\n\ngroup main: settled\n  Settled: completed, being the only settled job')
    expect(stdout).toMatch(/\n {4}\$ millrace stats orders\n/)
    expect(Math.max(...lines.filter((line) => !line.includes('$ ')).map(({ length }) => length))).toBeLessThanOrEqual(
      80,
    )
  })

  test('of a dead job prints the command that redrives it, which works as it is printed', async () => {
    const [id = ''] = await killJobs(redis, 1)
    const { stdout } = await millrace(['explain', 'orders', id, '--redis', redis.url])
    const [, command = ''] = /^ {4}\$ millrace (dead .+)$/m.exec(stdout) ?? []
    expect(command).toBe(`dead redrive orders main --id ${id} --execute --redis ${redis.url}`)
    expect((await millrace(command.split(' '))).code).toBe(0)
    expect((await explain('orders', id)).stdout).toContain('group main: not delivered\n  Waits to be delivered again:')
  })

  test('prints one document of stable names with --json', async () => {
    const id = await schedule(redis.client, { id: await delayedId(redis.client), data: '{"n":1}' })
    await makeGroup('main')
    const { code, stdout } = await explain('orders', id, '--json', '--payload')
    const told = JSON.parse(stdout) as Record<string, unknown>
    expect([code, Object.keys(told)]).toEqual([
      0,
      [
        ...['schemaVersion', 'stream', 'id', 'asked', 'isKnown', 'nowMs', 'history', 'job', 'delayed', 'lookedTo'],
        ...['cancelledMs', 'paused', 'groups', 'sentences'],
      ],
    ])
    expect(told).toMatchObject({ schemaVersion: 1, id, job: { name: 'mail', payload: '{"n":1}' } })
    expect(told['groups']).toMatchObject([{ group: 'main', state: { at: 'delayed' } }])
  })

  test('of a job that nobody knows exits with 4, and says what to do', async () => {
    const before = await add(redis.client, 'mail')
    await makeGroup('main')
    const { code, stdout } = await explain('orders', `${before.split('-')[0]}-99`)
    expect(code).toBe(4)
    expect(stdout).toMatch(/^ {2}No job \d+-99 is known: /m)
    expect(stdout).not.toContain('group main')
  })

  test('lets nothing that others wrote drive the terminal', async () => {
    const evil = 'a\u001b[2Jb\u009b31mc\u202e\r\nd'
    const raw = ['job', evil, 'data', `"${evil}"`, 'replay-of', evil]
    const id = (await redis.client.xadd('orders', '*', ...raw)) as string
    await makeGroup('main')
    const pause = JSON.stringify({ sinceMs: 1, untilMs: null, by: evil, reason: evil })
    await redis.client.hset('{orders}:settings', { 'group:main:paused': pause, paused: pause })
    const { code, stdout } = await explain('orders', id, '--payload')
    expect(code).toBe(0)
    expect(stdout).not.toMatch(/[^\n\P{C}]/u)
    expect(stdout).toContain('payload: "a [2Jb 31mc d"')
    expect(stdout).toContain('The group is paused since 1970-01-01T00:00:00Z')
  })

  test('refuses what is no id, no stream and no group, with what may have been meant', async () => {
    const id = await add(redis.client, 'mail')
    await makeGroup('billing')
    await redis.client.sadd('millrace:streams', 'orders')
    expect(await explain('orders', 'yesterday')).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('expected a job id') as string,
    })
    expect(await explain('order', id)).toMatchObject({
      code: 4,
      stderr: expect.stringContaining('did you mean orders?') as string,
    })
    const wrong = await explain('orders', id, '--group', 'biling')
    expect([wrong.code, wrong.stdout]).toEqual([4, ''])
    expect(wrong.stderr).toContain('did you mean billing?')
    expect((await explain('orders')).code).toBe(2)
  })
})
