import { describe, expect, test } from 'vitest'
import type { AuditOptions, AuditResult, Inspector } from '../src/index.ts'
import { tallySlot } from '../src/redis/entry-id.ts'
import {
  groupScheduledJobsKey,
  groupScheduledKey,
  indexKey,
  scheduledJobsKey,
  scheduledKey,
  settingsKey,
  tallyKey,
} from '../src/redis/keys.ts'
import { promoteDue } from '../src/redis/scheduling.ts'
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
  REDELIVERY,
} from './helpers/audits.ts'
import { DEAD } from './helpers/dead.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { delayedId, promoteByHand, schedule } from './helpers/scheduled.ts'

const redis = withRedis()
const RETRIES = groupScheduledKey('orders', 'main')
const RETRY_JOBS = groupScheduledJobsKey('orders', 'main')
const SETTINGS = settingsKey('orders')

const inspector = (): Inspector => newInspector(redis.url)
const audit = (options: Partial<AuditOptions> = {}): Promise<AuditResult> =>
  inspector().audit('orders', { group: 'main', ...options })
const recording = () => inspector().settings.set('orders', { groups: { main: { record: 'outcomes' } } })

/** Jobs of two minutes, ten and nine minutes ago, all of them delivered. */
async function arrange(count = 10): Promise<{ first: string[]; second: string[]; ms: number }> {
  const ms = await minutesAgo(redis.client, 10)
  await joinAs(redis.client)
  const first = await publishAt(redis.client, ms, count)
  const second = await publishAt(redis.client, ms + MINUTE_MS, count)
  await deliverAll(redis.client)
  return { first, second, ms }
}

/** What was found, without the sentences. */
const found = ({ findings }: AuditResult) => findings.map(({ kind, count, ids }) => ({ kind, count, ids }))
const kindOf = (minute: AuditResult, ms: number) => minute.minutes.find(({ fromMs }) => fromMs === ms)?.state

describe('an audit', () => {
  test('accounts for jobs in every place, minute by minute', async () => {
    const { first, second, ms } = await arrange(10)
    await complete(redis.client, first.slice(0, 4))
    await end(redis.client, 'dead', first.slice(4, 7))
    await end(redis.client, 'retry', first.slice(7, 9))
    await end(redis.client, 'cancelled', first.slice(9))
    await complete(redis.client, second.slice(0, 8))
    await publishAt(redis.client, ms + 2 * MINUTE_MS, 5)
    await inspector().dead.redrive('orders', 'main', { ids: first.slice(4, 5), execute: true })
    await inspector().dead.purge('orders', 'main', { ids: first.slice(5, 6), execute: true })

    const result = await audit()
    expect(result).toMatchObject({ ok: true, fromMs: ms, expected: 25, accounted: 25, findings: [], repair: null })
    const none = {
      completed: 0,
      cancelled: 0,
      skipped: 0,
      discarded: 0,
      gone: 0,
      dead: 0,
      scheduled: 0,
      redelivery: 0,
      pending: 0,
      waiting: 0,
    }
    expect(result.minutes).toEqual([
      {
        fromMs: ms,
        expected: 10,
        accounted: 10,
        state: 'ok',
        counts: { ...none, completed: 4, cancelled: 1, discarded: 1, dead: 1, scheduled: 2, redelivery: 1 },
      },
      {
        fromMs: ms + MINUTE_MS,
        expected: 10,
        accounted: 10,
        state: 'ok',
        counts: { ...none, completed: 8, pending: 2 },
      },
      { fromMs: ms + 2 * MINUTE_MS, expected: 5, accounted: 5, state: 'ok', counts: { ...none, waiting: 5 } },
    ])
  })

  test('writes nothing', async () => {
    const { first } = await arrange()
    await end(redis.client, 'retry', first)
    const before = await redis.client.call('DEBUG', 'DIGEST').catch(() => '')
    await audit({ repair: true })
    expect(await redis.client.call('DEBUG', 'DIGEST').catch(() => '')).toBe(before)
  })

  test('accounts for cancels in every state', async () => {
    const { first } = await arrange(4)
    await end(redis.client, 'retry', first.slice(0, 1))
    await end(redis.client, 'dead', first.slice(1, 2))
    for (const id of first) await inspector().cancel('orders', id)
    expect((await audit()).ok).toBe(true)
    await end(redis.client, 'retry', first.slice(2))
    const { ok, totals } = await audit()
    expect([ok, totals]).toEqual([true, expect.objectContaining({ cancelled: 3, discarded: 1 })])
  })

  test('is of whole minutes, and of the range that is asked for', async () => {
    const { first, ms } = await arrange(10)
    await complete(redis.client, first)
    const { minutes, fromMs, toMs } = await audit({ from: ms + 5, to: ms + 30_000 })
    expect([minutes.map((minute) => minute.fromMs), fromMs, toMs]).toEqual([[ms], ms, ms + MINUTE_MS])
    expect((await audit({ from: ms + MINUTE_MS, to: ms + 2 * MINUTE_MS })).expected).toBe(10)
    expect((await audit({ from: first[3] as string, to: first[3] as string })).expected).toBe(10)
  })

  test('begins behind what was trimmed, and refuses to go further back', async () => {
    const { first, ms } = await arrange(10)
    await complete(redis.client, first)
    await redis.client.xtrim('orders', 'MINID', first[5] as string)
    const { ok, fromMs, expected } = await audit()
    expect([ok, fromMs, expected]).toEqual([true, ms + MINUTE_MS, 10])
    await expect(audit({ from: ms })).rejects.toMatchObject({
      code: 'ERR_HISTORY',
      message: expect.stringContaining(`its first whole minute is ${new Date(ms + MINUTE_MS).toISOString()}`) as string,
    })
  })

  test('knows what was there before the group began, and what was never its own', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await publishAt(redis.client, ms, 5)
    await inspector().groups.create('orders', 'main', { startAt: 'now' })
    await publishAt(redis.client, ms + 10, 3)
    expect(await audit()).toMatchObject({ ok: true, expected: 3, totals: { waiting: 3 } })
  })

  test('counts jobs once more that the group was set back to', async () => {
    const { first, second } = await arrange(10)
    await complete(redis.client, [...first, ...second])
    await inspector().groups.rewind('orders', 'main', { to: first[5] as string, execute: true, force: true })
    expect(await audit()).toMatchObject({ ok: true, expected: 35, totals: { completed: 20, waiting: 15 } })
    await deliverAll(redis.client)
    await complete(redis.client, [...first.slice(5), ...second])
    expect(await audit()).toMatchObject({ ok: true, expected: 35, totals: { completed: 35 } })
  })

  test('counts jobs that were pending when the group was set back no more often than they run', async () => {
    const { first, second } = await arrange(3)
    await complete(redis.client, [...first, ...second.slice(1)])
    for (let times = 0; times < 2; times++) {
      await inspector().groups.rewind('orders', 'main', { to: second[0] as string, execute: true, force: true })
      await deliverAll(redis.client)
      await complete(redis.client, second.slice(1))
    }
    expect(await audit()).toMatchObject({ ok: true, expected: 10, totals: { completed: 9, pending: 1 }, findings: [] })
    await complete(redis.client, second.slice(0, 1))
    expect(await audit()).toMatchObject({ ok: true, expected: 10, totals: { completed: 10 } })
  })

  test('accounts for copies that a replay brought, with the jobs themselves', async () => {
    const { first, ms } = await arrange(2)
    await complete(redis.client, first)
    const copies = await copyByHand(redis.client, first)
    expect(await audit()).toMatchObject({ ok: true, expected: 6, totals: { redelivery: 2, completed: 2 } })
    expect(await completeRedelivered(redis.client)).toEqual(copies)
    expect(await audit()).toMatchObject({ ok: true, expected: 6, totals: { redelivery: 0, completed: 4 } })
    expect(kindOf(await audit(), ms)).toBe('ok')
  })

  test('counts delayed publishes by their own ids, also where their entries are behind the range', async () => {
    const { ms } = await arrange(1)
    const id = `${ms + 1000}-1000000000000001`
    await redis.client.hset(SETTINGS, 'scheduled-seq', 1)
    await schedule(redis.client, { id })
    expect(await audit()).toMatchObject({ ok: true, expected: 2, delayed: 1 })
    await promoteByHand(redis.client, { id })
    const range = { from: ms, to: ms + MINUTE_MS }
    expect(await audit(range)).toMatchObject({ ok: true, expected: 2, delayed: 0, totals: { waiting: 1 } })
    expect(await audit({ from: ms + 2 * MINUTE_MS })).toMatchObject({ ok: true, expected: 0 })
  })

  test('of a stream without entries, or without history, has nothing to add up', async () => {
    await joinAs(redis.client)
    expect(await audit()).toMatchObject({ ok: true, expected: 0, minutes: [], findings: [] })
    const [id = ''] = await publishAt(redis.client, await minutesAgo(redis.client, 5), 1)
    await redis.client.xtrim('orders', 'MAXLEN', 0)
    expect(await redis.client.xlen('orders')).toBe(0)
    expect(id).not.toBe('')
    expect(await audit()).toMatchObject({ ok: true, expected: 0 })
  })

  test('refuses what is not there, and options that it does not have', async () => {
    await arrange(1)
    await expect(audit({ group: 'mian' })).rejects.toMatchObject({ code: 'ERR_UNKNOWN_GROUP' })
    await expect(inspector().audit('none', { group: 'main' })).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    await expect(audit({ since: 1 } as object)).rejects.toMatchObject({ code: 'ERR_OPTION' })
    await expect(audit({ repair: 'yes' } as object)).rejects.toMatchObject({ code: 'ERR_OPTION' })
  })

  test('looks at more than a page of entries and of pending ids', async () => {
    const ms = await minutesAgo(redis.client, 10)
    await joinAs(redis.client)
    const ids = await publishAt(redis.client, ms, 3500)
    await deliverAll(redis.client)
    await complete(redis.client, ids.slice(3000))
    let entries = 0
    const result = await audit({ onProgress: (count) => (entries = count) })
    expect(result).toMatchObject({ ok: true, expected: 3500, totals: { pending: 3000, completed: 500 } })
    expect(entries).toBe(3500)

    await redis.client.xtrim('orders', 'MINID', ids[2500] as string)
    expect(found(await audit())).toEqual([{ kind: 'pending-without-entry', count: 2500, ids: ids.slice(0, 100) }])
  })

  test('says of tallies that are kept no longer that nothing is known', async () => {
    const ms = await minutesAgo(redis.client, 60 * 24 * 9)
    await joinAs(redis.client)
    const ids = await publishAt(redis.client, ms, 4)
    await deliverAll(redis.client)
    await redis.client.xack('orders', 'main', ...ids)
    const result = await audit()
    expect([result.ok, result.minutes.map(({ state }) => state)]).toEqual([true, ['unknown']])
  })

  test('tells a surplus as one', async () => {
    const { first, ms } = await arrange(10)
    await complete(redis.client, first)
    await redis.client.xgroup('SETID', 'orders', 'main', first[5] as string)
    await deliverAll(redis.client)
    await complete(redis.client, first.slice(6))
    const result = await audit()
    expect(found(result)).toEqual([{ kind: 'surplus', count: 4, ids: [] }])
    expect(result.findings[0]?.minuteMs).toBe(ms)
    expect([result.ok, kindOf(result, ms)]).toEqual([false, 'fault'])
  })
})

describe('a fault that was planted', () => {
  test('a pending job that was trimmed away is named', async () => {
    const { first, second } = await arrange(5)
    await complete(redis.client, second)
    await redis.client.xtrim('orders', 'MINID', first[2] as string)
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([{ kind: 'pending-without-entry', count: 2, ids: first.slice(0, 2) }])
    expect(result.findings[0]).toMatchObject({ isRepairable: false })
    expect(result.repair).toMatchObject({ handedBack: 0, refusedCount: 0 })
  })

  test('a job that was acked by hand is told by minute and count', async () => {
    const { first, second, ms } = await arrange(5)
    await complete(redis.client, [...first.slice(2), ...second])
    await redis.client.xack('orders', 'main', ...first.slice(0, 2))
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([{ kind: 'missing', count: 2, ids: [] }])
    expect(result.findings[0]).toMatchObject({ minuteMs: ms, isRepairable: false })
    expect(result.findings[0]?.sentence).toMatch(/^2 jobs of .+Z are nowhere: acked by hand, or pending at a consumer/)
  })

  test('a job that was acked by hand is named where outcomes are recorded, and handed back', async () => {
    await joinAs(redis.client)
    await recording()
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(2), ...second])
    const acked = first.slice(0, 2)
    await redis.client.xack('orders', 'main', ...acked)
    const planned = await audit({ repair: true })
    expect(found(planned)).toEqual([{ kind: 'missing', count: 2, ids: acked }])
    expect(planned.repair).toMatchObject({ isExecuted: false, handedBack: 2, ids: acked })
    expect(await redis.client.xlen(REDELIVERY)).toBe(0)

    expect((await audit({ repair: true, execute: true })).repair).toMatchObject({ isExecuted: true, handedBack: 2 })
    expect(await audit({ repair: true, execute: true })).toMatchObject({ ok: true, repair: { handedBack: 0 } })
    expect(await completeRedelivered(redis.client)).toEqual(acked)
    expect(await audit()).toMatchObject({ ok: true, totals: { completed: 10, redelivery: 0 } })
  })

  test('nobody is named where outcomes were recorded for a part of the minute only', async () => {
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(3), ...second])
    await recording()
    await complete(redis.client, first.slice(1, 3))
    await redis.client.xack('orders', 'main', first[0] as string)
    expect(found(await audit())).toEqual([{ kind: 'missing', count: 1, ids: [] }])
  })

  test('a consumer that was deleted with pending jobs is told by minute and count, or by id', async () => {
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(2), ...second])
    await redis.client.xgroup('DELCONSUMER', 'orders', 'main', MEMBER.consumer)
    expect(found(await audit())).toEqual([{ kind: 'missing', count: 2, ids: [] }])

    await redis.flush()
    await joinAs(redis.client)
    await recording()
    const again = await arrange(5)
    await complete(redis.client, [...again.first.slice(2), ...again.second])
    await redis.client.xgroup('DELCONSUMER', 'orders', 'main', MEMBER.consumer)
    expect(found(await audit())).toEqual([{ kind: 'missing', count: 2, ids: again.first.slice(0, 2) }])
  })

  test('a dead letter that was deleted is named, and handed back from its entry', async () => {
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(2), ...second])
    await end(redis.client, 'dead', first.slice(0, 2))
    const [letter] = await redis.client.xrange(DEAD, '-', '+', 'COUNT', 1)
    await redis.client.xdel(DEAD, letter?.[0] as string)
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([{ kind: 'letter-missing', count: 1, ids: first.slice(0, 1) }])
    expect(await completeRedelivered(redis.client)).toEqual(first.slice(0, 1))
    expect(await audit()).toMatchObject({ ok: true, totals: { dead: 1, completed: 9 } })
    // It is counted as redriven: what is missing later has another cause.
    const { hour, minute } = tallySlot(first[0] as string)
    await redis.client.hincrby(tallyKey('orders', 'main', hour), `${minute}:completed`, -1)
    expect((await audit()).findings[0]?.sentence).toContain('acked by hand')
  })

  test('dead letters that were deleted with the index are told by minute and count, or by id', async () => {
    for (const isRecording of [false, true]) {
      await redis.flush()
      await joinAs(redis.client)
      if (isRecording) await recording()
      const { first, second } = await arrange(5)
      await complete(redis.client, [...first.slice(2), ...second])
      await end(redis.client, 'dead', first.slice(0, 2))
      await redis.client.del(DEAD, indexKey('orders', 'main'))
      const result = await audit()
      expect(found(result)).toEqual([{ kind: 'missing', count: 2, ids: isRecording ? first.slice(0, 2) : [] }])
      expect(result.findings[0]?.sentence).toMatch(/ are nowhere: 2 dead letters were deleted by hand$/)
    }
    const { repair } = await audit({ repair: true, execute: true })
    expect(repair?.handedBack).toBe(2)
    expect(await completeRedelivered(redis.client)).toHaveLength(2)
    expect((await audit()).ok).toBe(true)
  })

  test.each([
    ['its time', 'retry-without-time', (id: string) => redis.client.zrem(RETRIES, id)],
    ['its record', 'retry-without-record', (id: string) => redis.client.hdel(RETRY_JOBS, id)],
    ['both', 'retry-missing', (id: string) => redis.client.multi().zrem(RETRIES, id).hdel(RETRY_JOBS, id).exec()],
  ])('a retry that has lost %s is named, and runs once after its repair', async (_, kind, lose) => {
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(2), ...second])
    await end(redis.client, 'retry', first.slice(0, 2))
    await lose(first[0] as string)
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([{ kind, count: 1, ids: first.slice(0, 1) }])
    expect(result.repair).toMatchObject({ handedBack: 1, refused: [] })
    expect(await audit({ repair: true, execute: true })).toMatchObject({ ok: true, repair: { handedBack: 0 } })
    expect(await completeRedelivered(redis.client)).toEqual(first.slice(0, 1))
    expect(await audit()).toMatchObject({ ok: true, totals: { completed: 9, scheduled: 1 } })
  })

  test('a retry whose entry is gone too cannot be handed back, and that is said', async () => {
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(2), ...second])
    await end(redis.client, 'retry', first.slice(0, 2))
    await redis.client.hdel(RETRY_JOBS, first[0] as string)
    await redis.client.xtrim('orders', 'MINID', first[1] as string)
    const { repair } = await audit({ repair: true, execute: true })
    const why = 'neither its record nor its entry is left'
    expect(repair).toMatchObject({ handedBack: 0, refused: [{ id: first[0], why }] })
  })

  test('a job of the redelivery stream that was acked or deleted by hand is named', async () => {
    const { first, second } = await arrange(5)
    await complete(redis.client, [...first.slice(3), ...second])
    await end(redis.client, 'dead', first.slice(0, 3))
    await inspector().dead.redrive('orders', 'main', { execute: true })
    const entries = (await redis.client.xrange(REDELIVERY, '-', '+')).map(([id]) => id)
    await redis.client.xdel(REDELIVERY, entries[0] as string)
    await deliverAll(redis.client)
    await redis.client.xack(REDELIVERY, 'main', entries[1] as string)
    await redis.client.xdel(REDELIVERY, entries[2] as string)
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([
      { kind: 'redelivery-missing', count: 3, ids: expect.arrayContaining(first.slice(0, 3)) as string[] },
    ])
    expect(await completeRedelivered(redis.client)).toEqual(first.slice(0, 3))
    expect((await audit()).ok).toBe(true)
  })

  test('a delayed publish that has lost its time is named, and is published after its repair', async () => {
    await arrange(1)
    const [id, other] = [await delayedId(redis.client), await delayedId(redis.client)]
    await redis.client.hset(SETTINGS, 'scheduled-seq', 2)
    await schedule(redis.client, { id })
    await schedule(redis.client, { id: other })
    await redis.client.zrem(scheduledKey('orders'), id)
    await redis.client.hdel(scheduledJobsKey('orders'), other)
    const result = await audit({ repair: true, execute: true })
    expect(found(result)).toEqual([
      { kind: 'delayed-without-record', count: 1, ids: [other] },
      { kind: 'delayed-without-time', count: 1, ids: [id] },
    ])
    expect(result.repair).toMatchObject({ handedBack: 1, ids: [id], refused: [{ id: other }] })
    await promoteDue(redis.client, { stream: 'orders', group: null })
    const [last] = await redis.client.xrevrange('orders', '+', '-', 'COUNT', 1)
    expect(last?.[1]).toEqual(expect.arrayContaining(['id', id]))
  })

  test('a job that is gone as workers found is told by minute and count', async () => {
    const { first, second, ms } = await arrange(5)
    await complete(redis.client, [...first.slice(1), ...second])
    await redis.client.xdel('orders', first[0] as string)
    const { hour, minute } = tallySlot(first[0] as string)
    await redis.client.xack('orders', 'main', first[0] as string)
    await redis.client.hincrby(tallyKey('orders', 'main', hour), `${minute}:gone`, 1)
    // Of a stream with holes the oldest minute cannot be told from one that was trimmed.
    await publishAt(redis.client, ms + 3 * MINUTE_MS, 1)
    expect((await audit()).fromMs).toBe(ms + MINUTE_MS)
    const { hour: later, minute: at } = tallySlot(second[0] as string)
    await redis.client.xdel('orders', second[0] as string)
    await redis.client.hincrby(tallyKey('orders', 'main', later), `${at}:gone`, 1)
    await redis.client.hincrby(tallyKey('orders', 'main', later), `${at}:completed`, -1)
    expect(found(await audit())).toEqual([{ kind: 'gone', count: 1, ids: [] }])
  })
})
