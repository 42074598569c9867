import { describe, expect, test } from 'vitest'
import {
  complete,
  deliverAll,
  end,
  joinAs,
  MEMBER,
  MINUTE_MS,
  minutesAgo,
  publishAt,
  REDELIVERY,
} from '../helpers/audits.ts'
import { DEAD } from '../helpers/dead.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { withRedis } from '../helpers/redis.ts'
import { millrace } from './run.ts'

const redis = withRedis()
const audit = (...args: string[]) => millrace(['audit', 'orders', ...args], { redis: redis.url })
const lines = (text: string) => text.split('\n').slice(0, -1)
const minuteText = (ms: number) => new Date(ms).toISOString().slice(0, 16)

/** Jobs of two minutes, the first of them with all kinds of ends. */
async function arrange(count = 20): Promise<{ first: string[]; second: string[]; ms: number }> {
  const ms = await minutesAgo(redis.client, 10)
  await joinAs(redis.client)
  const first = await publishAt(redis.client, ms, count)
  const second = await publishAt(redis.client, ms + MINUTE_MS, count)
  await deliverAll(redis.client)
  await end(redis.client, 'dead', first.slice(0, 2))
  await end(redis.client, 'retry', first.slice(2, 5))
  await complete(redis.client, [...first.slice(6), ...second])
  return { first, second, ms }
}

describe('millrace audit', () => {
  test('says in one sentence that every job is accounted for, and where, within 80 columns', async () => {
    const { ms } = await arrange(2000)
    const { code, stdout, stderr } = await audit()
    expect([code, stderr]).toEqual([0, ''])
    expect(stdout.replaceAll('\n', ' ')).toMatch(
      new RegExp(
        `^all 4,000 jobs of ${minuteText(ms)}Z to .+Z in group main are accounted for: ` +
          '3,994 completed, 2 dead, 3 to be tried again, 1 pending $',
      ),
    )
    expect(lines(stdout).every((line) => line.length <= 80)).toBe(true)
  })

  test('shows with --all the minutes that add up', async () => {
    const { ms } = await arrange()
    const { stdout } = await audit('--all')
    expect(
      lines(stdout)
        .slice(-3)
        .map((line) => line.split(/ {2,}/)),
    ).toEqual([
      ['minute (UTC)', 'jobs', 'ended', 'dead', 'waiting', 'pending', 'missing', 'state'],
      [minuteText(ms), '20', '14', '2', '3', '1', '0', 'ok'],
      [minuteText(ms + MINUTE_MS), '20', '20', '0', '0', '0', '0', 'ok'],
    ])
    expect(lines(stdout).every((line) => line.length <= 80)).toBe(true)
  })

  test('ends with 1 where jobs are missing, with the minute, the count, what may be the cause and what to do', async () => {
    const { first, ms } = await arrange()
    await redis.client.xgroup('DELCONSUMER', 'orders', 'main', MEMBER.consumer)
    const { code, stdout, stderr } = await audit('--from', String(ms), '--to', String(ms + MINUTE_MS))
    expect(code).toBe(1)
    expect(stdout).toMatch(
      /^1 of 20 jobs of .+ in\s+group main is not\s+accounted for;\s+the others: 14 completed, 2 dead, 3 to be tried again$/m,
    )
    const sentence = `- 1 job of ${minuteText(ms)}Z is nowhere: acked by hand, or pending at a consumer that was deleted`
    expect(stdout.replaceAll(/\n +/g, ' ')).toContain(sentence)
    expect(lines(stdout).at(-1)?.split(/ {2,}/)).toEqual([minuteText(ms), '20', '14', '2', '3', '0', '1', 'fault'])
    expect(stderr).toBe('to know the ids of such jobs from now on: millrace settings orders main.record=outcomes\n')
    expect(stdout).not.toContain(first[5])
  })

  test('names what is missing where outcomes are recorded, tells how to hand it back, and does it', async () => {
    await joinAs(redis.client)
    await newInspector(redis.url).settings.set('orders', { groups: { main: { record: 'outcomes' } } })
    const { first } = await arrange()
    await redis.client.xgroup('DELCONSUMER', 'orders', 'main', MEMBER.consumer)
    await redis.client.xtrim(DEAD, 'MAXLEN', 1)

    const told = await audit('--from', '-1h')
    expect(told.code).toBe(1)
    expect(lines(told.stdout)).toEqual(
      expect.arrayContaining([`    ${first[0]}`, `    ${first[5]}`, '- 1 dead letter was deleted by hand']),
    )
    const [, from] = /^--from -1h is (\S+)\n/.exec(told.stderr) ?? []
    const next = `millrace audit orders --group main --from ${from} --repair`
    expect(told.stderr).toContain(`to see what can be handed back: ${next}\n`)

    const planned = await audit('--repair')
    expect([planned.code, planned.stderr]).toEqual([
      1,
      'nothing was changed; to hand back 2 jobs: millrace audit orders --group main --repair --execute\n',
    ])
    expect(await redis.client.xlen(REDELIVERY)).toBe(0)
    const executed = await audit('--repair', '--execute')
    expect([executed.code, executed.stderr]).toEqual([0, 'handed back 2 jobs\n'])
    expect(await redis.client.xlen(REDELIVERY)).toBe(2)
    expect((await audit()).code).toBe(0)
  })

  test('says what cannot be handed back, and why', async () => {
    const { first } = await arrange()
    await redis.client.hdel('{orders}:group:main:scheduled:jobs', first[2] as string)
    await redis.client.xdel('orders', first[2] as string)
    const { code, stdout, stderr } = await audit('--repair', '--execute')
    expect(code).toBe(1)
    expect(stdout).toContain(`  cannot be handed back: ${first[2]} (neither its record nor its entry is left)`)
    expect(stderr).toBe('handed back 0 jobs\n')
  })

  test('prints one document with --json', async () => {
    const { ms } = await arrange()
    const { code, stdout } = await audit('--json')
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({
      ...{ schemaVersion: 1, stream: 'orders', group: 'main', fromMs: ms, ok: true, isRecording: false },
      ...{ expected: 40, accounted: 40, totals: { completed: 34, dead: 2, scheduled: 3, pending: 1 }, delayed: 0 },
      ...{ minutes: [], findings: [], repair: null },
    })
    const { minutes } = JSON.parse((await audit('--json', '--all')).stdout) as { minutes: unknown[] }
    expect(minutes).toHaveLength(2)
  })

  test('wants to be told which group, where there are several', async () => {
    await arrange()
    await redis.client.xgroup('CREATE', 'orders', 'billing', '0')
    const { code, stderr } = await audit()
    expect([code, stderr]).toEqual([2, 'error: expected `--group` to say whose jobs (there are: billing, main)\n'])
    expect((await audit('--group', 'main')).code).toBe(0)
    expect((await audit('--group', 'mian')).code).toBe(4)
  })

  test.each([
    [['--execute'], 'expected `--execute` together with `--repair`'],
    [['--from', 'soon'], 'expected `--from` to be a time such as 10:00'],
    [['--from', '-5m', '--to', '-10m'], 'expected `--to` to be after `--from`'],
  ])('%j ends with 2', async (args, message) => {
    await arrange()
    const { code, stderr } = await audit(...args)
    expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
  })

  test('ends with 4 for a stream that is not there, and for history that is not there any more', async () => {
    expect((await audit()).code).toBe(4)
    const { first, second, ms } = await arrange()
    await redis.client.xtrim('orders', 'MINID', second[0] as string)
    const { code, stderr } = await audit('--from', String(ms))
    expect(code).toBe(4)
    expect(stderr).toContain('its first whole minute is ')
    expect(first).toHaveLength(20)
  })
})
