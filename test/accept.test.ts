import { Registry } from 'prom-client'
import { describe, expect, test } from 'vitest'
import { resolveAccept } from '../src/accept.ts'
import { Worker, type WorkerOptions } from '../src/index.ts'
import { settle } from '../src/redis/settling.ts'
import { drained, runJob } from '../src/testing.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { keepingLogger } from './helpers/log.ts'
import { scrape } from './helpers/metrics.ts'
import { withRedis } from './helpers/redis.ts'
import { add, gate, pending, startWorker, tally } from './helpers/workers.ts'

/** Groups that want some of the jobs of a stream: the others are settled as skipped, for that group alone. */

const redis = withRedis()
const quiet = (group: string) => drained({ redis: redis.url, stream: 'orders', group, timeoutMs: 60_000 })
const wants = (accept: readonly string[], options: Partial<Omit<WorkerOptions, 'redis'>> = {}) =>
  startWorker({ redis: redis.url, group: 'billing', startAt: 'oldest', accept, ...options })

test('a job that no pattern accepts is settled as skipped, and another group runs it', async () => {
  const ran: string[] = []
  const ids: string[] = []
  for (const name of ['order.paid', 'user.seen', 'order.sent', 'user.gone']) ids.push(await add(redis.client, name, 1))
  const run =
    (group: string) =>
    (_: unknown, { name }: { name: string }) =>
      void ran.push(`${group} ${name}`)
  const names = ['order.paid', 'order.sent', 'user.seen', 'user.gone']
  const all = Object.fromEntries(names.map((name) => [name, run('main')]))
  const worker = await wants(['order.*'], {
    handlers: { 'order.paid': run('billing'), 'order.sent': run('billing') },
  })
  await startWorker({ redis: redis.url, handlers: all, startAt: 'oldest' })
  await Promise.all([quiet('billing'), quiet('main')])
  expect(ran.sort()).toEqual([
    ...['billing order.paid', 'billing order.sent'],
    ...['main order.paid', 'main order.sent', 'main user.gone', 'main user.seen'],
  ])
  await eventually(() => expect(worker.counts).toMatchObject({ completed: 2, skipped: 2, late: 0, waited: 0, dead: 0 }))

  const inspector = newInspector(redis.url)
  const [{ groups = [] } = {}] = await inspector.stats('orders')
  const hours = groups.map(({ group, lastHour }) => [group, lastHour.completed, lastHour.skipped, lastHour.dead])
  expect(hours).toEqual([
    ['billing', 2, 2, 0],
    ['main', 4, 0, 0],
  ])
  const { minutes } = await inspector.history('orders', 'billing')
  expect(minutes.reduce((sum, { skipped }) => sum + skipped, 0)).toBe(2)
  const audit = await inspector.audit('orders', { group: 'billing', from: '0-0' })
  expect([audit.ok, audit.expected, audit.accounted]).toEqual([true, 4, 4])
  expect(audit.totals).toMatchObject({ completed: 2, skipped: 2 })
})

test('travels in the same command as what was completed, and is late without having run twice', async () => {
  const member = { stream: 'orders', group: 'billing', consumer: 'a' }
  await redis.client.xgroup('CREATE', 'orders', 'billing', '0', 'MKSTREAM')
  const ids = await Promise.all(['order.paid', 'user.seen', 'user.gone'].map((name) => add(redis.client, name, 1)))
  await redis.client.xreadgroup('GROUP', 'billing', 'a', 'COUNT', 10, 'STREAMS', 'orders', '>')
  const done = ids.map((id, at) => ({ entryId: id, id, isSkipped: at > 0 }))
  const settled = () => settle(redis.client, member, { source: 0, done, resent: false })
  await settled() // which loads the script
  await redis.client.config('RESETSTAT')
  expect(await settled()).toEqual({ late: 1, skippedLate: 2 })
  const calls = [...(await redis.client.info('commandstats')).matchAll(/cmdstat_(evalsha|eval):calls=(\d+)/g)]
  expect(calls.map(([, name, count]) => [name, count])).toEqual([['evalsha', '1']])
  expect(await tally(redis.client, 'orders', 'billing')).toEqual({ completed: 1, skipped: 2, late: 1 })
})

test('explain says that a job was skipped, as it is counted and as it is recorded', async () => {
  const inspector = newInspector(redis.url)
  const counted = await add(redis.client, 'user.seen', 1)
  await wants(['order.*'], { handlers: { 'order.paid'() {} } })
  await quiet('billing')
  const say = async (id: string) => (await inspector.explain('orders', id, { group: 'billing' })).groups[0]
  expect((await say(counted))?.state).toMatchObject({ at: 'settled', outcome: 'skipped' })
  expect((await say(counted))?.sentences.map(({ text }) => text).join(' ')).toContain(
    'its name is none that the group wants',
  )
  await inspector.settings.set('orders', { groups: { billing: { record: 'outcomes' } } })
  const recorded = await add(redis.client, 'user.seen', 2)
  await quiet('billing')
  expect((await say(recorded))?.state).toMatchObject({ at: 'settled', outcome: 'skipped', evidence: 'recorded' })
})

test('a worker says that it skips what another one of its group has a handler for, and not what none has', async () => {
  const [busy, { lines, logger }] = [gate(), keepingLogger()]
  const handlers = { 'order.paid'() {}, 'user.seen': busy.wait }
  await wants(['*'], { handlers, concurrency: 1 })
  await add(redis.client, 'user.seen', 1)
  await eventually(async () => expect(await pending(redis.client, 'orders', 'billing')).toHaveLength(1))
  const told = () => redis.client.hvals('{orders}:group:billing:workers:info')
  await eventually(async () => expect((await told()).join('')).toContain('user.seen'))
  const narrow = await wants(['order.*'], { handlers: { 'order.paid'() {} }, logger })
  await add(redis.client, 'user.seen', 2)
  await add(redis.client, 'user.gone', 3)
  await eventually(() => expect(narrow.counts.skipped).toBe(2))
  const said = () => lines.filter(({ message }) => message.startsWith('skipped jobs that another worker'))
  await eventually(() => expect(said()).toMatchObject([{ level: 'warn', fields: { jobs: ['user.seen'] } }]))
  busy.open()
})

test('a rewind brings what was skipped to workers that want more', async () => {
  const id = await add(redis.client, 'user.seen', 1)
  const before = await wants(['order.*'], { handlers: { 'order.paid'() {} } })
  await quiet('billing')
  await before.stop()
  const inspector = newInspector(redis.url)
  await inspector.groups.rewind('orders', 'billing', { to: '0-0', execute: true })
  const ran: string[] = []
  await wants(['order.*', 'user.*'], {
    handlers: { 'order.paid'() {}, 'user.seen': (_, job) => void ran.push(job.id) },
  })
  await eventually(() => expect(ran).toEqual([id]))
  await quiet('billing')
  expect(await inspector.audit('orders', { group: 'billing', from: '0-0' })).toMatchObject({ ok: true })
})

test('a replay brings copies of what was skipped alone, and skips what is still not wanted', async () => {
  await add(redis.client, 'order.paid', 1)
  const id = await add(redis.client, 'user.seen', 1)
  const before = await wants(['order.*'], { handlers: { 'order.paid'() {} } })
  await quiet('billing')
  const inspector = newInspector(redis.url)
  const again = { from: 0, job: 'user.seen', group: 'billing' }
  await inspector.replays.start('orders', again)
  await quiet('billing')
  await eventually(() => expect(before.counts).toMatchObject({ completed: 1, skipped: 2 }))
  await before.stop()
  const ran: unknown[] = []
  await wants(['*'], {
    handlers: { 'order.paid'() {}, 'user.seen': (_, job) => void ran.push(job.replayOf?.id) },
  })
  await inspector.replays.start('orders', again)
  await quiet('billing')
  expect(ran).toEqual([id])
  expect(await inspector.audit('orders', { group: 'billing', from: '0-0' })).toMatchObject({ ok: true })
})

test('a name that is accepted and has no handler waits as ever, and what is no job is malformed', async () => {
  await add(redis.client, 'order.paid', 1)
  await redis.client.xadd('orders', '*', 'data', '1')
  const worker = await wants(['order.*'], { handlers: { 'order.sent'() {} } })
  await eventually(() => expect(worker.counts).toMatchObject({ waited: 1, dead: 1, skipped: 0 }))
})

test('is skipped also where it is redelivered, has taken workers down, or is past its deadline', async () => {
  const worker = await wants(['order.*'], { handlers: { 'order.paid'() {} } })
  await worker.stop()
  const id = await add(redis.client, 'user.seen', 1)
  await redis.client.xreadgroup('GROUP', 'billing', 'gone', 'COUNT', 1, 'STREAMS', 'orders', '>')
  await redis.client.xclaim('orders', 'billing', 'gone', 0, id, 'IDLE', 60_000, 'RETRYCOUNT', 9)
  await redis.client.xadd('orders', '*', 'job', 'user.late', 'expires', '1')
  await redis.client.xadd('{orders}:group:billing:redelivery', '*', 'job', 'user.again', 'id', '5-1')
  const next = await wants(['order.*'], { handlers: { 'order.paid'() {} } })
  await eventually(() => expect(next.counts).toMatchObject({ skipped: 3, dead: 0 }))
  await quiet('billing')
})

test('metrics count it under its name and its outcome, and as no end of a job', async () => {
  const registry = new Registry()
  await add(redis.client, 'user.seen', 1)
  await wants(['order.*'], { handlers: { 'order.paid'() {} }, registry })
  await eventually(async () => {
    const scraped = await scrape(registry)
    const labels = { job_name: 'user.seen', outcome: 'skipped' }
    expect(scraped.sum('millrace_processed_jobs_total', labels)).toBe(1)
    expect(scraped.sum('millrace_finished_jobs_total')).toBe(0)
  })
})

describe('patterns', () => {
  const matched = (pattern: string, ...names: string[]) => names.filter(resolveAccept([pattern], []) ?? (() => false))

  test('are names, and * is any run of characters', () => {
    expect(matched('order', 'order', 'orders', 'xorder')).toEqual(['order'])
    expect(matched('order.*', 'order.', 'order.paid', 'order.a.b', 'order', 'orderx')).toEqual([
      ...['order.', 'order.paid', 'order.a.b'],
    ])
    expect(matched('*.paid', 'a.paid', '.paid', 'a.paid.b')).toEqual(['a.paid', '.paid'])
    expect(matched('a*b*c', 'abc', 'axbxc', 'ac', 'abcb', 'acbc')).toEqual(['abc', 'axbxc', 'acbc'])
    expect(matched('ab*ba', 'aba', 'abba', 'abxba')).toEqual(['abba', 'abxba'])
    expect(matched('*', 'a', 'b.c')).toEqual(['a', 'b.c'])
    expect(matched('a.c', 'abc')).toEqual([])
    expect(matched(`${'*a'.repeat(45)}*b`, 'a'.repeat(100))).toEqual([])
  })

  test.each([
    ['order', 'expected `accept` to be a list of 1 to 100 patterns of job names, got "order"'],
    [[], 'got 0 of them'],
    [
      ['order.*', 5],
      'expected `accept[1]` to be a job name, with * for any run of characters, such as `order.*`, got 5',
    ],
    [['order.?'], 'got "order.?"'],
    [[''], 'got ""'],
  ])('%j is refused', (accept, text) => {
    expect(() => new Worker({ stream: 'orders', handlers: { a() {} }, accept: accept as string[] })).toThrow(text)
  })

  test('a handler that would never be called is refused', () => {
    const options = { stream: 'orders', handlers: { 'order.paid'() {}, 'user.seen'() {} }, accept: ['order.*'] }
    expect(() => new Worker(options)).toThrow(
      'expected `accept` to have a pattern for each job that has a handler, and none is for user.seen',
    )
  })
})

test('runJob tells of it', async () => {
  const asked = { data: 1, worker: { accept: ['order.*'] } }
  const handlers = { 'order.paid': () => 'ran' }
  expect(await runJob(handlers, { job: 'user.seen', ...asked })).toEqual({ outcome: 'skipped' })
  expect(await runJob(handlers, { job: 'order.paid', ...asked })).toEqual({ outcome: 'completed', result: 'ran' })
})
