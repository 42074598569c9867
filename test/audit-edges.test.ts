import { describe, expect, test } from 'vitest'
import { Asking } from '../src/asking.ts'
import { auditStream } from '../src/audit/audit.ts'
import type { AuditOptions, AuditResult, Inspector } from '../src/index.ts'
import { indexKey, settingsKey } from '../src/redis/keys.ts'
import { settle } from '../src/redis/settling.ts'
import { readNew } from '../src/redis/stream.ts'
import { decodeJob } from '../src/wire.ts'
import {
  complete,
  completeRedelivered,
  copyByHand,
  deliverAll,
  end,
  joinAs,
  MEMBER,
  MINUTE_MS,
  minutesAgo,
  publishAt,
} from './helpers/audits.ts'
import { onEnd } from './helpers/cleanup.ts'
import { DEAD } from './helpers/dead.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'

/** Sound histories that look odd, and faults that hide behind one another. */

const redis = withRedis()

const inspector = (): Inspector => newInspector(redis.url)
const audit = (options: Partial<AuditOptions> = {}): Promise<AuditResult> =>
  inspector().audit('orders', { group: 'main', ...options })
const found = ({ findings }: AuditResult) => findings.map(({ kind, count, ids }) => ({ kind, count, ids }))

/** Publishes an entry under an id of its own choice. */
const foreign = (id: string, ...fields: string[]) =>
  redis.client.xadd('orders', id, 'job', 'mail', 'data', '1', ...fields)

/** Completes everything that there is to be delivered from the stream, as a worker would know it. */
async function completeAll(): Promise<void> {
  const [entries] = await readNew(redis.client, MEMBER, { count: 500, blockMs: 1 })
  const done = entries.map(({ id, fields }) => {
    const job = decodeJob(id, fields)
    return { entryId: id, id: job.kind === 'job' ? job.id : id }
  })
  await settle(redis.client, MEMBER, { source: 0, done, resent: false })
}

describe('an audit of a sound history', () => {
  test('takes the ids of jobs for what workers take them for', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    // Beyond 64 bits: for a worker that is no id.
    for (const [n, id] of [
      '99999999999999999999-1',
      `${ms - MINUTE_MS}-99999999999999999999`,
      'none',
      '1-2-3',
    ].entries()) {
      await foreign(`${ms + n}-0`, 'id', id)
    }
    await completeAll()
    expect(await audit()).toMatchObject({ ok: true, expected: 4, totals: { completed: 4 } })
  })

  test('knows the dead and redelivered jobs whose ids are ahead of the clock', async () => {
    const nowMs = await serverMs(redis.client)
    await joinAs(redis.client)
    const ids = await publishAt(redis.client, nowMs + 20 * MINUTE_MS, 4)
    await deliverAll(redis.client)
    await end(redis.client, 'dead', ids.slice(0, 2))
    await end(redis.client, 'retry', ids.slice(2, 3))
    await inspector().dead.redrive('orders', 'main', { ids: ids.slice(0, 1), execute: true })
    expect(await audit()).toMatchObject({
      ok: true,
      findings: [],
      expected: 4,
      totals: { dead: 1, redelivery: 1, scheduled: 1, pending: 1 },
    })
    expect(await audit({ from: nowMs + 15 * MINUTE_MS })).toMatchObject({ ok: true, expected: 4 })
  })

  test.each([
    ['behind the range', 5],
    ['before the range', -5],
  ])('counts jobs whose entries carry the id of another minute and are %s', async (_, away) => {
    const ms = await minutesAgo(redis.client, 20)
    await joinAs(redis.client)
    await foreign(`${ms - 6 * MINUTE_MS}-0`)
    const carrier = [`${ms + away * MINUTE_MS}-0`, 'id', `${ms}-0`] as const
    if (away < 0) await foreign(...carrier)
    await foreign(`${ms}-0`)
    if (away > 0) await foreign(...carrier)
    await completeAll()
    expect(await audit({ from: ms, to: ms + MINUTE_MS })).toMatchObject({ ok: true, expected: 2, findings: [] })
  })

  test('says of minutes that were trimmed while it ran that nothing is known', async () => {
    const ms = await minutesAgo(redis.client, 20)
    await joinAs(redis.client)
    const ids = await publishAt(redis.client, ms, 10)
    await deliverAll(redis.client)
    await complete(redis.client, ids.slice(1))
    await redis.client.xack('orders', 'main', ids[0] as string)
    const asking = new Asking({ redis: redis.url, logger: false })
    onEnd(() => asking.close())
    const wait = async () => void (await redis.client.xtrim('orders', 'MINID', ids[5] as string))
    const result = await auditStream(asking, 'orders', { group: 'main' }, { tries: 4, wait })
    expect([result.ok, result.minutes.map(({ state }) => state)]).toEqual([true, ['unknown']])
  })

  test('of a group that was made by hand begins where that began', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await publishAt(redis.client, ms, 5)
    await redis.client.xgroup('CREATE', 'orders', 'main', '$')
    await joinAs(redis.client)
    const [id = ''] = await publishAt(redis.client, ms + 1000, 1)
    await deliverAll(redis.client)
    await complete(redis.client, [id])
    expect(await audit()).toMatchObject({ ok: true, expected: 1, totals: { completed: 1 } })
  })

  test('of a group that was removed and made again counts no minute of the one before', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    await foreign('5000-0')
    await foreign(`${ms}-0`)
    await completeAll()
    for (const startAt of ['oldest', 'now', 'oldest'] as const) {
      await inspector().groups.remove('orders', 'main', { force: true })
      await inspector().groups.create('orders', 'main', { startAt })
      await joinAs(redis.client)
      if (startAt === 'oldest') await completeAll()
      expect(await audit({ from: ms })).toMatchObject({ ok: true, expected: startAt === 'now' ? 0 : 1 })
    }
  })

  test('follows copies that fail, die, are redriven and cancelled', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    const ids = await publishAt(redis.client, ms, 4)
    await deliverAll(redis.client)
    await complete(redis.client, ids)
    const copies = await copyByHand(redis.client, ids)
    await inspector().cancel('orders', copies[0] as string)
    await deliverAll(redis.client)
    expect(await audit()).toMatchObject({ ok: true, expected: 8 })
    await inspector().groups.rewind('orders', 'main', { to: ids[2] as string, execute: true, force: true })
    expect(await audit()).toMatchObject({ ok: true, expected: 10, totals: { waiting: 2, redelivery: 4 } })
  })
})

describe('a fault in a minute with others', () => {
  test('of a dead letter that was deleted is not hidden by entries that were deleted', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    await publishAt(redis.client, ms - MINUTE_MS * 2, 1)
    const ids = await publishAt(redis.client, ms, 5)
    await deliverAll(redis.client)
    await complete(redis.client, [`${ms - MINUTE_MS * 2}-0`, ...ids.slice(1)])
    await end(redis.client, 'dead', ids.slice(0, 1))
    await redis.client.del(DEAD)
    await redis.client.xdel('orders', ids[3] as string)
    const result = await audit()
    expect(found(result)).toEqual([
      { kind: 'letter-missing', count: 1, ids: ids.slice(0, 1) },
      { kind: 'surplus', count: 1, ids: [] },
    ])
    await redis.client.del(indexKey('orders', 'main'))
    expect(found(await audit())).toEqual([
      { kind: 'missing', count: 1, ids: [] },
      { kind: 'surplus', count: 1, ids: [] },
    ])
  })

  test('of a retry that lost its time is not hidden by jobs that ran twice', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    const ids = await publishAt(redis.client, ms, 5)
    await deliverAll(redis.client)
    await end(redis.client, 'retry', ids.slice(0, 1))
    await complete(redis.client, ids.slice(1))
    await redis.client.xgroup('SETID', 'orders', 'main', ids[3] as string)
    await deliverAll(redis.client)
    await complete(redis.client, ids.slice(4))
    await redis.client.del('{orders}:group:main:scheduled')
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([
      { kind: 'retry-without-time', count: 1, ids: ids.slice(0, 1) },
      { kind: 'surplus', count: 1, ids: [] },
    ])
    expect(result.ok).toBe(false)
    expect(await completeRedelivered(redis.client)).toEqual(ids.slice(0, 1))
    expect(found(await audit())).toEqual([{ kind: 'surplus', count: 1, ids: [] }])
  })
})

test('a repair that is asked for by several at once hands each job back once', async () => {
  const ms = await minutesAgo(redis.client, 10)
  await joinAs(redis.client)
  await inspector().settings.set('orders', { groups: { main: { record: 'outcomes' } } })
  const ids = await publishAt(redis.client, ms, 20)
  await deliverAll(redis.client)
  await complete(redis.client, ids.slice(10))
  await redis.client.xack('orders', 'main', ...ids.slice(0, 5))
  const all = await Promise.all([1, 2, 3].map(() => audit({ repair: true, execute: true })))
  expect(all.reduce((sum, { repair }) => sum + (repair?.handedBack ?? 0), 0)).toBe(5)
  expect(await completeRedelivered(redis.client)).toEqual(ids.slice(0, 5))
  expect(await audit({ repair: true, execute: true })).toMatchObject({ ok: true, repair: { handedBack: 0 } })
  expect(await redis.client.hget(settingsKey('orders'), 'group:main:start')).toBe('0-0')
})

test('large dead letters are looked for over several steps', async () => {
  const ms = await minutesAgo(redis.client, 10)
  await joinAs(redis.client)
  const ids: string[] = []
  for (let n = 0; n < 30; n++) ids.push((await foreign(`${ms + n}-0`, 'h-big', 'x'.repeat(200_000))) ?? '')
  await deliverAll(redis.client)
  for (const id of ids) await end(redis.client, 'dead', [id])
  const letters = (await redis.client.xrange(DEAD, '-', '+')).map(([id]) => id)
  await redis.client.xdel(DEAD, letters[3] as string, letters[25] as string)
  const missing = [ids[3] as string, ids[25] as string].sort()
  const { findings } = await audit()
  expect(findings.map(({ kind, count, ids: told }) => [kind, count, [...told].sort()])).toEqual([
    ['letter-missing', 2, missing],
  ])
  expect((await inspector().explain('orders', missing[0] as string)).groups[0]?.state).toMatchObject({ at: 'nowhere' })
})

test('a cancel of a job that is dead, and was rewound, ends both', async () => {
  for (const how of ['dead', 'retry'] as const) {
    await redis.flush()
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    const [id = ''] = await publishAt(redis.client, ms, 1)
    await deliverAll(redis.client)
    await end(redis.client, how, [id])
    await inspector().groups.rewind('orders', 'main', { to: id, execute: true, force: true })
    const before = await inspector().explain('orders', id)
    expect(before.groups[0]?.sentences.map(({ text }) => text).join(' ')).not.toContain('was delivered again')
    expect((await inspector().cancel('orders', id)).cancelled).toBe(true)
    await deliverAll(redis.client)
    // As a worker that has it: what it comes to does not count any more.
    await end(redis.client, 'dead', [id])
    expect(await audit()).toMatchObject({ ok: true, expected: 2, totals: { dead: 0, scheduled: 0 } })
  }
})

test('an explanation of a job that was acked by hand is not certain where outcomes are recorded', async () => {
  const ms = await minutesAgo(redis.client, 10)
  await joinAs(redis.client)
  await inspector().settings.set('orders', { groups: { main: { record: 'outcomes' } } })
  const ids = await publishAt(redis.client, ms, 3)
  await deliverAll(redis.client)
  await complete(redis.client, ids.slice(1))
  await redis.client.xack('orders', 'main', ids[0] as string)
  const { groups } = await inspector().explain('orders', ids[0] as string)
  expect(groups[0]?.state).toMatchObject({ at: 'settled', evidence: 'likely', outcome: 'completed' })
})

test('a job that has ended is not taken for a copy that is missing, and not handed back in its place', async () => {
  const nowMs = await serverMs(redis.client)
  await joinAs(redis.client)
  const ids = await publishAt(redis.client, nowMs, 1)
  await deliverAll(redis.client)
  await complete(redis.client, ids)
  await copyByHand(redis.client, ids)
  await redis.client.del('{orders}:group:main:redelivery', indexKey('orders', 'main'))
  await joinAs(redis.client)
  const result = await audit({ repair: true, execute: true })
  expect(found(result)).toEqual([{ kind: 'missing', count: 1, ids: [] }])
  expect(result.repair).toMatchObject({ handedBack: 0 })
})
