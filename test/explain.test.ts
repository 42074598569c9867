import { describe, expect, test } from 'vitest'
import type { ExplainedGroup, Explanation, GroupState } from '../src/index.ts'
import { deadKey, groupScheduledKey, redeliveryKey, settingsKey, tallyKey, workersInfoKey } from '../src/redis/keys.ts'
import { tallySlot } from '../src/redis/entry-id.ts'
import { killJobs, startFailing } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { expectSound } from './helpers/explained.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, withRedis } from './helpers/redis.ts'
import { schedule, snapshot } from './helpers/scheduled.ts'
import { add, gate, LEASE_MS, startWorker, startWorkerProcess } from './helpers/workers.ts'

const redis = withRedis()

/** A group by hand: as a worker's start leaves it behind, with no worker. */
async function makeGroup(group = 'main', start = '0'): Promise<void> {
  await redis.client.xgroup('CREATE', 'orders', group, start, 'MKSTREAM')
  await redis.client.xgroup('CREATE', redeliveryKey('orders', group), group, '0', 'MKSTREAM')
}

const read = (count: number, group = 'main', consumer = 'w') =>
  redis.client.xreadgroup('GROUP', group, consumer, 'COUNT', count, 'STREAMS', 'orders', '>')

async function explain(id: string, options: { group?: string; payload?: boolean } = {}): Promise<Explanation> {
  const explanation = await newInspector(redis.url).explain('orders', id, options)
  expectSound(explanation)
  return explanation
}

/** The one group of the stream. */
async function explainOne(id: string): Promise<ExplainedGroup & { text: string; commands: string[] }> {
  const { isKnown, groups } = await explain(id)
  expect([isKnown, groups.length]).toEqual([true, 1])
  const group = groups[0] as ExplainedGroup
  return { ...group, text: textOf(group), commands: commandsOf(group) }
}

const textOf = ({ sentences }: Pick<ExplainedGroup, 'sentences'>) => sentences.map(({ text }) => text).join('\n')
const commandsOf = ({ sentences }: Pick<ExplainedGroup, 'sentences'>) =>
  sentences.flatMap(({ command }) => (command === null ? [] : [command.join(' ')]))

const stateAt = <At extends GroupState['at']>(group: ExplainedGroup, at: At) => {
  expect(group.state.at).toBe(at)
  return group.state as Extract<GroupState, { at: At }>
}

describe('a job that is not delivered', () => {
  test('has so many entries ahead of it, counted to the last', async () => {
    const ids = [await add(redis.client, 'mail'), await add(redis.client, 'mail'), await add(redis.client, 'mail')]
    await makeGroup()
    const told = await explainOne(ids[2] ?? '')
    expect(stateAt(told, 'not-delivered')).toMatchObject({ ahead: 2, isAheadExact: true, lag: 3, etaSeconds: null })
    expect(told.text).toMatch(/^Not yet delivered: 2 entries ahead of it \(the group has read up to 0-0, 3 entries/)
    expect(told.text).toContain('No worker of the group is alive (none ever was)')
    expect(told.commands).toEqual(['stats orders'])
    await read(2)
    expect((await explainOne(ids[2] ?? '')).text).toMatch(/^Not yet delivered: it is the next one/)
  })

  test('has about so many ahead of it where they are too many to be counted, never more than the lag', async () => {
    const pipeline = redis.client.pipeline()
    for (let n = 1; n <= 3000; n++) pipeline.xadd('orders', `${1_700_000_000_000 + n}-0`, 'job', 'mail')
    await pipeline.exec()
    await makeGroup()
    const told = await explainOne('1700000002000-0')
    const { ahead, isAheadExact, lag } = stateAt(told, 'not-delivered')
    expect([ahead, isAheadExact, lag]).toEqual([2000, false, 3000])
    expect(told.text).toMatch(/^Not yet delivered: about 2,000 entries ahead of it/)
    expect(stateAt(await explainOne('1700000003000-0'), 'not-delivered').ahead).toBe(2999)
    // Several groups, each with its own count of what is ahead.
    for (const [name, start] of Object.entries({ near: 1999, far: 1501, none: 0 })) {
      await makeGroup(name, `${1_700_000_000_000 + start}-0`)
    }
    const { groups } = await explain('1700000002000-0')
    const counts = groups.map(({ group, state }) => [group, state.at === 'not-delivered' && state.ahead])
    expect(Object.fromEntries(counts)).toEqual({ main: 2000, near: 0, far: 498, none: 2000 })
    // Large payloads: fewer are looked at.
    await redis.client.del('orders')
    for (let n = 1; n <= 30; n++)
      await redis.client.xadd('orders', `${n}-1`, 'job', 'mail', 'data', 'x'.repeat(200_000))
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    const { isAheadExact: isExact, ahead: estimate } = stateAt(await explainOne('30-1'), 'not-delivered')
    expect([isExact, estimate]).toEqual([false, 29])
  })

  test('has an unknown number ahead of it where Redis does not know the lag', async () => {
    const pipeline = redis.client.pipeline()
    for (let n = 1; n <= 1000; n++) pipeline.xadd('orders', `${n}-0`, 'job', 'mail')
    await pipeline.exec()
    await makeGroup()
    await redis.client.xdel('orders', '900-0')
    const told = await explainOne('1000-0')
    expect(stateAt(told, 'not-delivered')).toMatchObject({ ahead: null, lag: null, etaSeconds: null })
    expect(told.text).toContain('how many are ahead of it is not known, since Redis does not know the lag')
  })

  test('has its turn at the rate of the workers that are alive', async () => {
    const { wait, open } = gate()
    await startWorker({ redis: redis.url, concurrency: 1, handlers: { mail: wait } })
    const ids: string[] = []
    for (let n = 0; n < 40; n++) ids.push(await add(redis.client, 'mail'))
    const last = ids[39] ?? ''
    const told = await eventually(async () => {
      const found = await explainOne(last)
      expect(stateAt(found, 'not-delivered')).toMatchObject({ workers: 1, perSecond: 0, etaSeconds: null })
      return found
    })
    expect(told.text).toContain('1 live worker completed nothing in the last seconds')
    open()
    // What a worker says of itself, as it would under load.
    const info = workersInfoKey('orders', 'main')
    await makeGroup('slow')
    const now = await serverMs(redis.client)
    await redis.client.zadd('{orders}:group:slow:workers', now, 'a', now, 'b', now - 60_000, 'gone')
    const about = JSON.stringify({ host: 'h', pid: 1, slots: 2, perSecond: 5 })
    await redis.client.hset(info.replace('main', 'slow'), { a: about, b: about, gone: about })
    const { groups } = await explain(last, { group: 'slow' })
    const slow = groups[0] as ExplainedGroup
    expect(stateAt(slow, 'not-delivered')).toMatchObject({ workers: 2, perSecond: 10, ahead: 39, etaSeconds: 3.9 })
    expect(textOf(slow)).toContain('2 live workers complete 10 jobs a second: its turn comes in about 3.9s.')
  })
})

describe('a pending job', () => {
  test('is told with its worker, the delivery and what is left of its lease', async () => {
    const { wait, open } = gate()
    const worker = await startWorker({ redis: redis.url, handlers: { mail: wait } })
    const id = await add(redis.client, 'mail')
    const told = await eventually(async () => {
      const found = await explainOne(id)
      expect(found.state.at === 'pending' && found.state.worker?.host).toBeTruthy()
      return found
    })
    const { worker: at, deliveries, maxDeliveries, leaseMs, leaseLeftMs } = stateAt(told, 'pending')
    expect(at).toMatchObject({
      name: (worker as unknown as { consumer?: string }).consumer ?? at?.name,
      pid: process.pid,
    })
    expect([deliveries, maxDeliveries, leaseMs]).toEqual([1, 3, LEASE_MS])
    expect(leaseLeftMs).toBeGreaterThan(-LEASE_MS)
    expect(told.text).toMatch(
      /^Pending at worker ".+" \(pid \d+ on ".+"\), last heard of .+; delivery 1 of at most 3\./,
    )
    expect(told.text).toMatch(/Its lease was renewed \d.+ ago: /)
    open()
  })

  test('of a worker that was killed waits for a claim', async () => {
    const id = await add(redis.client, 'slow', { ms: 60_000 })
    const worker = await startWorkerProcess({ redis: redis.url })
    await eventually(async () => stateAt(await explainOne(id), 'pending'))
    worker.signal('SIGKILL')
    await worker.exited
    await eventually(async () => {
      const told = await explainOne(id)
      expect(stateAt(told, 'pending').leaseLeftMs).toBeLessThanOrEqual(0)
      expect(told.text).toContain('it ran out')
    })
    await eventually(async () => expect((await explainOne(id)).text).toContain('nobody claims it until one starts'))
  })

  test('that was handed back says so', async () => {
    const id = await add(redis.client, 'mail')
    await makeGroup()
    await read(1)
    await redis.client.xclaim('orders', 'main', ':handback', 0, id, 'RETRYCOUNT', 0, 'JUSTID')
    const told = await explainOne(id)
    expect(stateAt(told, 'pending')).toMatchObject({ worker: null, deliveries: 0 })
    expect(told.text).toMatch(/^Handed back by a worker that stopped, .* its next delivery is 1 of at most 3\./)
  })

  test('whose entry was deleted under it says so', async () => {
    const id = await add(redis.client, 'mail')
    await makeGroup()
    await read(1)
    await redis.client.xdel('orders', id)
    const told = await explainOne(id)
    expect(stateAt(told, 'pending').hasEntry).toBe(false)
    expect(told.text).toContain('Its entry was removed while it was pending')
  })
})

describe('a job that failed', () => {
  test('waits for its next attempt, after which error', async () => {
    const handlers = {
      mail() {
        throw new TypeError('no such \u001b[31maddress\n\nat all')
      },
    }
    await startWorker({ redis: redis.url, handlers, retry: { attempts: 3, delayMs: 3_600_000 } })
    const id = await add(redis.client, 'mail')
    const told = await eventually(async () => {
      const found = await explainOne(id)
      stateAt(found, 'scheduled')
      return found
    })
    const { attempt, dueMs } = stateAt(told, 'scheduled')
    expect(attempt).toBe(1)
    expect(dueMs).toBeGreaterThan(await serverMs(redis.client))
    expect(told.text).toMatch(
      /^Scheduled for attempt 2, \d{4}-.+Z \(in \d+m\), after the error "TypeError: no such \[31maddress at all/,
    )
    expect(told.text).not.toMatch(/\p{Cc}.*\p{Cc}/u)
    expect(told.commands).toEqual([`scheduled promote orders ${id} --group main`])
    await redis.client.zadd(groupScheduledKey('orders', 'main'), '+inf', id)
    const aside = await explainOne(id)
    expect(stateAt(aside, 'scheduled').dueMs).toBeNull()
    expect(aside.text).toMatch(/^Set aside: /)
    expect(aside.commands).toEqual([`scheduled show orders ${id} --group main`])
  })

  test('and is overdue says who must move it', async () => {
    await startFailing(redis.url).then((worker) => worker.stop())
    const id = await add(redis.client, 'mail')
    await read(1)
    await redis.client.xack('orders', 'main', id)
    await schedule(redis.client, { id, group: 'main', due: 1000, attempt: 4, error: 'Error: away' })
    const told = await explainOne(id)
    expect(told.text).toMatch(/^Attempt 5 was due 1970-01-01T00:00:01Z .* after the error "Error: away"/)
  })

  test('is dead for a reason, and the command that redrives it is told', async () => {
    const [id = ''] = await killJobs(redis, 1)
    const told = await explainOne(id)
    const [[deadId] = ['']] = await redis.client.xrange(deadKey('orders', 'main'), '-', '+')
    expect(stateAt(told, 'dead').letter).toMatchObject({ deadId, reason: 'attempts', attempts: 1 })
    expect(told.text).toMatch(/^Dead since .+, reason "attempts" after 1 attempt: "TypeError: no such address"\./)
    expect(told.text).toContain(`It is dead letter ${deadId}, at worker "`)
    expect(told.commands).toEqual([`dead redrive orders main --id ${id} --execute`])
    await newInspector(redis.url).dead.redrive('orders', 'main', { ids: [id], execute: true })
    const again = await explainOne(id)
    expect(stateAt(again, 'not-delivered')).toMatchObject({ source: 'redelivery', ahead: 0 })
    expect(again.text).toMatch(
      /^Waits to be delivered again: it is the next one \(as entry .* of the group's redelivery/,
    )
  })
})

describe('a settled job', () => {
  test('is completed where all jobs of its minute are', async () => {
    const worker = await startWorker({ redis: redis.url, handlers: { mail() {} } })
    const id = await add(redis.client, 'mail')
    const told = await eventually(async () => {
      const found = await explainOne(id)
      expect(stateAt(found, 'settled').outcome).toBe('completed')
      return found
    })
    expect(stateAt(told, 'settled')).toMatchObject({ evidence: 'certain', atMs: null, counts: { completed: 1 } })
    expect(told.text).toMatch(
      /^Settled: completed, being the only settled job that is counted of the minute \d{4}-.*Z\.$/,
    )
    await worker.stop()
    const { hour, minute } = tallySlot(id)
    const key = tallyKey('orders', 'main', hour)
    await redis.client.hset(key, { [`${minute}:completed`]: 7, [`${minute}:cancelled`]: 2, [`${minute}:late`]: 1 })
    const likely = await explainOne(id)
    expect(stateAt(likely, 'settled')).toMatchObject({ outcome: 'completed', evidence: 'likely' })
    expect(likely.text).toMatch(/^Settled, most likely completed: of the jobs .*, 7 completed, 2 cancelled/)
    expect(likely.text).toContain('1 late completion, which ran twice')
    await redis.client.del(key)
    expect((await explainOne(id)).text).toContain('How is not known any more')
    await redis.client.hset(key, { [`${(minute + 1) % 60}:completed`]: 7 })
    expect((await explainOne(id)).text).toMatch(/^Settled, but not by a worker that counts/)
  })

  test('is told exactly where the group records outcomes', async () => {
    const id = await add(redis.client, 'mail')
    await makeGroup()
    await read(1)
    await redis.client.xack('orders', 'main', id)
    const atMs = await serverMs(redis.client)
    await redis.client.hset(`{orders}:group:main:outcomes:${tallySlot(id).hour}`, id, `discarded ${atMs}`)
    const told = await explainOne(id)
    expect(stateAt(told, 'settled')).toMatchObject({ outcome: 'discarded', evidence: 'recorded', atMs })
    expect(told.text).toMatch(
      /^Settled: a dead letter that was deleted, \d{4}-.* ago\) \(the group records outcomes\)\.$/,
    )
  })
})

describe('of a group', () => {
  test('a cancel is told with when and for whom', async () => {
    const id = await add(redis.client, 'mail')
    await makeGroup()
    await makeGroup('billing')
    await newInspector(redis.url).cancel('orders', id, { group: 'billing' })
    const { groups } = await explain(id)
    expect(groups.map(({ group, cancelledMs }) => [group, cancelledMs !== null])).toEqual([
      ['billing', true],
      ['main', false],
    ])
    expect(textOf(groups[0] as ExplainedGroup)).toMatch(
      /It was cancelled .+ ago\): it is not run when its turn comes\.$/,
    )
    await newInspector(redis.url).cancel('orders', id)
    expect((await explain(id)).groups.every(({ cancelledMs }) => cancelledMs !== null)).toBe(true)
  })

  test('a job from before it began is not its own, unless it was rewound', async () => {
    const ids = [await add(redis.client, 'mail'), await add(redis.client, 'mail')]
    await makeGroup('main', '$')
    const [, last = ''] = ids
    await redis.client.hset(settingsKey('orders'), 'group:main:start', last)
    const told = await explainOne(last)
    expect(stateAt(told, 'before-group').startId).toBe(last)
    expect(told.text).toMatch(/^It is not this group's: the group began behind entry/)
    const rewinds = [`${await serverMs(redis.client)}:${ids[0]}:${last}`, 'broken', '1:2:3']
    await redis.client.hset(settingsKey('orders'), 'group:main:rewinds', rewinds.join(' '))
    await redis.client.xgroup('SETID', 'orders', 'main', ids[0] ?? '')
    const again = await explainOne(last)
    expect(again.rewinds).toHaveLength(1)
    expect(again.text).toContain(`The group was rewound from ${last} to ${ids[0]}`)
    expect(again.text).toContain('so that it is delivered again from there on.')
    await read(1)
    await redis.client.xack('orders', 'main', last)
    expect((await explainOne(last)).text).toContain('so that it is delivered again from there on.')
  })

  test('a pause is told with who, why and until when, while it lasts', async () => {
    const id = await add(redis.client, 'mail')
    await makeGroup()
    const now = await serverMs(redis.client)
    const pause = { sinceMs: now - 5000, untilMs: now + 600_000, by: 'ann\u0007', reason: 'the mail host is away' }
    await redis.client.hset(settingsKey('orders'), 'group:main:paused', JSON.stringify(pause))
    const told = await explainOne(id)
    expect(told.paused).toEqual(pause)
    expect(told.text).toMatch(
      /The group is paused since .+ by "ann", because "the mail host is away": .+ until .+ \(in 9m\)/,
    )
    expect(told.commands).toContain('resume orders main')
    await redis.client.hset(settingsKey('orders'), 'paused', JSON.stringify({ ...pause, untilMs: null }))
    expect(textOf(await explain(id))).toContain('The stream is paused since')
    for (const over of [JSON.stringify({ ...pause, untilMs: now }), '{', '7']) {
      await redis.client.hset(settingsKey('orders'), 'group:main:paused', over)
      expect((await explainOne(id)).paused).toBeNull()
    }
  })
})

test('a payload is told only where it is asked for, and nothing is ever written', async () => {
  const id = await add(redis.client, 'mail', { secret: 'hush' })
  await makeGroup()
  const before = await snapshot(redis.client)
  const told = await explain(id)
  expect(JSON.stringify(told)).not.toContain('hush')
  expect(told.job).toEqual({
    name: 'mail',
    entryId: id,
    publishedMs: Number(id.split('-')[0]),
    bytes: 17,
    replayOf: null,
  })
  expect((await explain(id, { payload: true })).job?.payload).toBe('{"secret":"hush"}')
  expect(await snapshot(redis.client)).toEqual(before)
})
