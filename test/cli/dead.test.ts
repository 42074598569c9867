import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { shellCommand } from '../../cli/command-line.ts'
import {
  bury,
  buryMany,
  DEAD,
  deadJobs,
  deadOrRedelivered,
  FAILED_REASON,
  killJobs,
  makeGroup,
  PUBLISHED_MS,
  redelivered,
} from '../helpers/dead.ts'
import { eventually } from '../helpers/eventually.ts'
import { startProgram } from '../helpers/program.ts'
import { serverMs, withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()

const dead = (...args: string[]) => millrace(['dead', ...args], { redis: redis.url })

/** The command that a message tells to enter, as words for `millrace`. */
function commandIn(text: string): string[] {
  const [, words = ''] = /: millrace (.+)$/m.exec(text) ?? []
  return words.replaceAll("'", '').split(' ')
}

async function eachInOnePlace(ids: readonly string[]): Promise<void> {
  expect(await deadOrRedelivered(redis.client)).toEqual([...ids].sort())
}

describe('millrace dead list', () => {
  test('shows a row for each dead letter, the newest first', async () => {
    const ids = await killJobs(redis, 2)
    const { code, stdout, stderr } = await dead('list', 'orders', 'main')
    const [titles = '', ...rows] = stdout
      .trimEnd()
      .split('\n')
      .map((line) => line.trim().split(/ {2,}/))
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(titles).toEqual(['died', 'id', 'job', 'reason', 'attempts', 'error'])
    expect(rows).toEqual(
      [ids[1], ids[0]].map((id): unknown[] => [
        expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
        id,
        'mail',
        FAILED_REASON,
        '1',
        'TypeError: no such address',
      ]),
    )
  })

  test('prints one document of stable names with --json, without payloads', async () => {
    const [id = ''] = await killJobs(redis, 1)
    const { code, stdout } = await dead('list', 'orders', 'main', '--json', '--id', id)
    const document = JSON.parse(stdout) as { letters: object[] }
    expect([code, document]).toMatchObject([
      0,
      { schemaVersion: 1, stream: 'orders', group: 'main', total: 1, next: null, unknownIds: [], letters: [{ id }] },
    ])
    expect(Object.keys(document.letters[0] ?? {})).toEqual(
      'deadId,id,job,reason,error,message,attempts,totalAttempts,deliveries,worker,origin,source,firstFailedMs,deadMs,publishedMs'.split(
        ',',
      ),
    )
  })

  test('says how to go on where there is more, and goes on', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 5)
    const first = await dead('list', 'orders', 'main', '--limit', '3', '--job', 'mail')
    expect(first.code).toBe(0)
    const second = await millrace(commandIn(first.stderr), { redis: redis.url })
    const shown = [first, second].flatMap(({ stdout }) => stdout.match(/\d{13}-0(?= {2}mail)/g) ?? [])
    expect(shown).toEqual([...ids].reverse())
    expect(second.stderr).toBe('')
  })

  test('puts letters of the same error together with --by-error', async () => {
    await makeGroup(redis.client)
    await bury(redis.client, { id: '1-0', message: 'order 5 is gone' }, { id: '2-0', message: 'order 66 is gone' })
    await bury(redis.client, { id: '3-0', reason: 'fatal' })
    const { stdout } = await dead('list', 'orders', 'main', '--by-error')
    const [, first = '', second = ''] = stdout.split('\n')
    expect(first).toMatch(/^ +2 {2}attempts .* 2-0 +Error: order <n> is gone$/)
    expect(second).toMatch(/^ +1 {2}fatal /)
    const json = JSON.parse(
      (await dead('list', 'orders', 'main', '--by-error', '--json', '--limit', '2')).stdout,
    ) as object
    expect(json).toMatchObject({ scanned: 2, groups: [{ count: 1 }, { count: 1 }], next: expect.any(String) as string })
  })

  test('ends with 4 where nothing matches, or an id is unknown, and with 0 where nothing is dead', async () => {
    await makeGroup(redis.client)
    const none = await dead('list', 'orders', 'main')
    expect(none).toEqual({ code: 0, stdout: '', stderr: 'group main of orders has no dead letters\n' })
    await bury(redis.client, { id: '1-0' })
    const filtered = await dead('list', 'orders', 'main', '--job', 'bill')
    expect(filtered).toMatchObject({ code: 4, stderr: 'error: no dead letter of group main of orders matches\n' })
    const unknown = await dead('list', 'orders', 'main', '--id', '1-0', '--id', '2-0')
    expect(unknown).toMatchObject({ code: 4, stderr: 'error: 1 id is of no dead letter: 2-0\n' })
    expect(unknown.stdout).toContain('1-0')
  })

  test('echoes what local times mean', async () => {
    await makeGroup(redis.client)
    await bury(redis.client, { id: '1-0' })
    const { code, stderr } = await dead('list', 'orders', 'main', '--from', '-15m', '--to', '2036-01-01T00:00:00Z')
    expect(code).toBe(0)
    expect(stderr).toMatch(/^--from -15m is \d{4}-\d\d-\d\dT[\d:.]+Z\n$/)
  })

  test('shows no byte that a terminal would obey', async () => {
    await makeGroup(redis.client)
    await bury(redis.client, { id: '1-0', job: 'a\x1b[31mb', message: 'x\x1b]0;y\x07\nz', error: '\x9b' })
    for (const args of [['list'], ['show'], ['redrive']] as const) {
      const { stdout } = await dead(args[0], 'orders', 'main', ...(args[0] === 'show' ? ['1-0'] : []))
      // eslint-disable-next-line no-control-regex
      expect(stdout).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f]/)
    }
  })

  test.each([
    [['list', 'orders', 'mian'], 4, /has no group mian \(did you mean main\?\)/],
    [['list', 'order', 'main'], 4, /stream order does not exist/],
    [['list', 'orders', 'main', '--reason', 'attempt'], 2, /expected `--reason` to be one of attempts, deliveries/],
    [['list', 'orders', 'main', '--from', 'soon'], 2, /expected `--from` to be a time such as/],
    [['list', 'orders', 'main', '--by-error', '--id', '1-0'], 2, /expected either `--id` or `--by-error`, got both/],
    [['show', 'orders', 'main', 'x'], 2, /expected `id` to be an id such as 1795245552380-0, got "x"/],
    [['show', 'orders', 'main', '1-0'], 4, /group main of orders has no dead letter 1-0/],
    [['redrive', 'orders', 'main', '--rate', '0'], 2, /expected `--rate` to be a positive integer/],
    [['purge', 'orders', 'main', '--older-than', '7'], 2, /expected `--older-than` to be an age up to 3650d, such as/],
    [['redrive', 'orders', 'main', '--execute'], 4, /no dead letter of group main of orders matches/],
  ])('%j ends with %i', async (args, exitCode, message) => {
    await makeGroup(redis.client)
    const { code, stderr, stdout } = await dead(...args)
    expect({ code, stdout }).toEqual({ code: exitCode, stdout: '' })
    expect(stderr).toMatch(message)
  })
})

describe('millrace dead show', () => {
  test('shows error, stack and fields of one letter', async () => {
    const [id = ''] = await killJobs(redis, 1)
    const { code, stdout } = await dead('show', 'orders', 'main', id)
    expect(code).toBe(0)
    expect(stdout).toContain(`id            ${id}\n`)
    expect(stdout).toContain('error         TypeError: no such address\n')
    expect(stdout).toMatch(/\nstack\n {2}TypeError: no such address\n {2} +at .*\n/)
    expect(stdout).toContain('fields\n  job: mail\n  data: {"n":0}\n')
  })

  test('has everything as JSON, and bytes that are no text as base64', async () => {
    await makeGroup(redis.client)
    const bytes = Buffer.from([0xff, 0xfe])
    await bury(redis.client, { id: '1-0', raw: ['job', 'mail', 'data', bytes] })
    expect(JSON.parse((await dead('show', 'orders', 'main', '1-0', '--json')).stdout)).toMatchObject({
      schemaVersion: 1,
      id: '1-0',
      payload: null,
      payloadBase64: '//4=',
      fields: [
        { name: 'job', value: 'mail' },
        { name: 'data', valueBase64: '//4=' },
      ],
    })
  })
})

describe('millrace dead redrive', () => {
  test('only says what it would do, with the command that does it; and that one does exactly this', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 12, { error: "Can't" })
    const plan = await dead(
      'redrive',
      'orders',
      'main',
      '--error',
      "can't",
      '--from',
      String(PUBLISHED_MS),
      '--rate',
      '500',
    )
    expect(plan.code).toBe(0)
    expect(plan.stdout).toContain('12 dead letters of group main of orders would be redriven\n')
    expect(plan.stdout).toContain('reason  attempts 12\n')
    expect(plan.stdout).toContain('job     mail 12\n')
    expect(plan.stderr).toMatch(/^nothing was changed; to redrive them: millrace dead redrive orders main --error /)
    expect(await redelivered(redis.client)).toEqual([])

    await bury(redis.client, { id: '9-9', error: "Can't" })
    const [, words = ''] = /: millrace (.+)$/m.exec(plan.stderr) ?? []
    const { stdout } = await promisify(execFile)('sh', ['-c', `printf '%s\\n' ${words}`])
    const { code, stderr } = await millrace(stdout.trimEnd().split('\n'), { redis: redis.url })
    expect(code).toBe(0)
    expect(stderr).toMatch(/^redriven 12 dead letters of group main of orders in [\d.]+s/)
    expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(ids)
    expect(await deadJobs(redis.client)).toEqual(['9-9'])
  })

  test('tells of both as JSON', async () => {
    await makeGroup(redis.client)
    await buryMany(redis.client, 2)
    const args = ['redrive', 'orders', 'main', '--json']
    const plan = JSON.parse((await dead(...args)).stdout) as { untilDeadId: string }
    expect(plan).toMatchObject({
      schemaVersion: 1,
      executed: false,
      count: 2,
      byReason: [{ reason: 'attempts', count: 2 }],
      command: `millrace dead redrive orders main --until ${plan.untilDeadId} --execute`,
    })
    expect(JSON.parse((await dead(...args, '--execute')).stdout)).toEqual({
      schemaVersion: 1,
      stream: 'orders',
      group: 'main',
      executed: true,
      done: 2,
      already: 0,
      refused: 0,
      refusals: [],
      unknownIds: [],
      untilDeadId: plan.untilDeadId,
      interrupted: false,
      command: null,
    })
  })

  test('ends with 5 where only a part could be done, with 1 where nothing could, and says why', async () => {
    await makeGroup(redis.client)
    await bury(redis.client, { id: '1-0', rest: [] }, { id: '2-0' })
    const unknown = await dead('redrive', 'orders', 'main', '--id', '2-0', '--id', '8-0', '--execute')
    expect(unknown.code).toBe(5)
    expect(unknown.stderr).toContain('error: 1 id is of no dead letter: 8-0')
    await bury(redis.client, { id: '3-0' })
    const partly = await dead('redrive', 'orders', 'main', '--execute')
    expect(partly.code).toBe(5)
    expect(partly.stderr).toContain('left 1-0: it is not what a worker writes\n')
    expect(partly.stderr).toContain('error: 1 dead letter could not be redriven\n')
    expect((await dead('redrive', 'orders', 'main', '--execute')).code).toBe(1)
    expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(['2-0', '3-0'])
  })

  test('an interrupted one says what was done and how to go on, and goes on from there', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 40)
    const args = ['dead', 'redrive', 'orders', 'main', '--rate', '10', '--job', 'mail', '--execute']
    const program = startProgram(args, { env: { MILLRACE_REDIS_URL: redis.url } })
    await eventually(async () => expect((await redelivered(redis.client)).length).toBeGreaterThan(3))
    program.signal('SIGINT')
    expect(await program.exited).toBe(130)
    await program.closed
    const said = program.stderr.join('\n')
    expect(said).toMatch(
      /^interrupted: redriven \d+ dead letters of group main of orders, of 40; to go on: millrace dead redrive orders main --job mail --rate 10 --until \d+-\d+ --execute$/,
    )
    const done = Number(/redriven (\d+)/.exec(said)?.[1])
    expect(await redelivered(redis.client)).toHaveLength(done)
    await eachInOnePlace(ids)

    await bury(redis.client, { id: '9-9' })
    const words = commandIn(said).map((word, at, all) => (all[at - 1] === '--rate' ? '1000' : word))
    const { code, stderr } = await millrace(words, { redis: redis.url })
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringContaining(`redriven ${40 - done} `) as string,
    })
    expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(ids)
    expect(await deadJobs(redis.client)).toEqual(['9-9'])
    const again = await millrace(words, { redis: redis.url })
    expect(again).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^nothing is left to redrive up to /) as string,
    })
  })

  test('one that is killed leaves every job in one place, and the same command goes on', async () => {
    await makeGroup(redis.client)
    const ids = await buryMany(redis.client, 2000)
    const args = ['dead', 'redrive', 'orders', 'main', '--execute']
    const program = startProgram([...args, '--rate', '100'], { env: { MILLRACE_REDIS_URL: redis.url } })
    await eventually(async () => expect((await redelivered(redis.client)).length).toBeGreaterThan(20))
    program.signal('SIGKILL')
    await program.exited
    // A batch that it had sent may still be on its way to Redis.
    await eventually(() => eachInOnePlace(ids))
    expect((await millrace(args, { redis: redis.url })).code).toBe(0)
    expect((await redelivered(redis.client)).map(({ fields }) => fields['id'])).toEqual(ids)
  })
})

describe('millrace dead purge', () => {
  test('deletes what is meant once it is told to, and nothing before', async () => {
    await makeGroup(redis.client)
    const now = await serverMs(redis.client)
    const aged = (id: string, hours: number) => ({ id, deadMs: now - hours * 3_600_000 })
    await bury(redis.client, aged('1-0', 49), aged('2-0', 47), { ...aged('3-0', 49), job: 'bill' })
    const args = ['purge', 'orders', 'main', '--older-than', '2d', '--job', 'mail']
    const plan = await dead(...args)
    expect(plan.stdout).toContain('1 dead letter of group main of orders would be purged')
    expect(plan.stderr).toMatch(
      /to purge it: millrace dead purge orders main --job mail --older-than 48h --until \S+ --execute\n$/,
    )
    expect(await redis.client.xlen(DEAD)).toBe(3)
    const { code, stderr } = await dead(...args, '--execute')
    expect(code).toBe(0)
    expect(stderr).toMatch(/^purged 1 dead letter of group main of orders/)
    expect(await deadJobs(redis.client)).toEqual(['2-0', '3-0'])
  })
})

test('a command that is told to be entered is taken apart by a shell into the same words', async () => {
  const words = ['millrace', "it's", 'a b', '$HOME', '`x`', '"', '\\', '-15m', '', 'é']
  const { stdout } = await promisify(execFile)('sh', ['-c', `printf '%s\\n' ${shellCommand(words)}`])
  expect(stdout.trimEnd().split('\n')).toEqual(words)
})
