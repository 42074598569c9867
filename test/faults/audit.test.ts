import { expect, test } from 'vitest'
import { Producer } from '../../src/index.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { DEAD, deadJobs } from '../helpers/dead.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { newInspector } from '../helpers/inspectors.ts'
import { withRedis } from '../helpers/redis.ts'
import { pending, startWorker, startWorkerProcess, tally, type WorkerProcess } from '../helpers/workers.ts'

/** Audits of what real workers have done, some of them killed. */

const redis = withRedis()
const RETRY = { attempts: 2, delayMs: 200 }

/** Jobs of which every hundredth fails once, and every thousandth for good. */
function* jobs(count: number): Generator<{ failures: number }> {
  for (let n = 0; n < count; n++) yield { failures: n % 1000 === 0 ? 99 : n % 100 === 0 ? 1 : 0 }
}

const flaky = (data: unknown, job: { attempt: number }): void => {
  if (job.attempt <= (data as { failures: number }).failures) throw new Error('not yet')
}

test('all of 100 000 jobs are accounted for while they run and afterwards, through failures, retries, kills and a replay', async () => {
  const producer = new Producer({ redis: redis.url })
  onEnd(async () => void (await producer.close()))
  const inspector = newInspector(redis.url)
  await startWorker({ redis: redis.url, handlers: { flaky }, retry: RETRY })
  await inspector.settings.set('orders', { groups: { main: { record: 'outcomes' } } })
  // Before there is anything to run: a process takes its time to start on a busy machine.
  const victims: WorkerProcess[] = []
  for (let count = 0; count < 3; count++) {
    victims.push(await startWorkerProcess({ redis: redis.url, concurrency: 50, retry: RETRY }))
  }
  const published = producer.publishMany('flaky', jobs(100_000), { stream: 'orders' })
  let isOver = false
  const audits = (async () => {
    let count = 0
    for (; !isOver; count++) expect((await inspector.audit('orders', { group: 'main' })).findings).toEqual([])
    return count
  })()
  audits.catch(() => {})
  for (const [at, victim] of victims.entries()) {
    await waitFor(() => victim.log().length >= 200 * (at + 1), { what: 'the victim ran some' })
    victim.signal('SIGKILL')
  }
  await published
  const first = (await redis.client.xrange('orders', '-', '+', 'COUNT', 1000)).map(([id]) => id)
  const [from = '', to = ''] = [first[0], first.at(-1)]
  await inspector.replays.start('orders', { from, to, group: 'main' })
  const ended = async () => {
    const { completed = 0, dead = 0 } = await tally(redis.client)
    expect(completed + dead).toBe(101_000)
    expect(await pending(redis.client)).toEqual([])
  }
  await eventually(ended, { timeoutMs: 120_000, intervalMs: 200 })
  isOver = true
  expect(await audits).toBeGreaterThan(1)

  const result = await inspector.audit('orders', { group: 'main' })
  expect(result).toMatchObject({ ok: true, expected: 101_000, accounted: 101_000, findings: [] })
  expect(result.totals).toMatchObject({ completed: 101_000 - 101, dead: 101, pending: 0, waiting: 0, scheduled: 0 })
  expect(result.minutes.every(({ state }) => state === 'ok')).toBe(true)

  const [lost = ''] = await deadJobs(redis.client)
  await redis.client.xtrim(DEAD, 'MAXLEN', 100)
  const { findings } = await inspector.audit('orders', { group: 'main' })
  expect(findings).toMatchObject([{ kind: 'letter-missing', count: 1, ids: [lost] }])
}, 240_000)

test('a pending job that was trimmed is told by id until a worker finds it gone, and by minute then', async () => {
  const victim = await startWorkerProcess({ redis: redis.url, leaseMs: 1000, concurrency: 2 })
  const ids: string[] = []
  for (let n = 0; n < 2; n++) {
    ids.push((await redis.client.xadd('orders', '*', 'job', 'slow', 'data', '{"ms":120000}')) as string)
  }
  await waitFor(() => victim.log().length === 2, { what: 'both started' })
  victim.signal('SIGKILL')
  await redis.client.xdel('orders', ids[1] as string)
  const inspector = newInspector(redis.url)
  const before = await inspector.audit('orders', { group: 'main' })
  expect(before.findings).toMatchObject([{ kind: 'pending-without-entry', count: 1, ids: [ids[1]] }])

  await startWorker({ redis: redis.url, leaseMs: 1000, handlers: { slow() {} } })
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1, gone: 1 }))
  expect(await pending(redis.client)).toEqual([])
})

test('what a repair hands back runs once, also when the one who repairs is asked again', async () => {
  const ran: string[] = []
  const worker = await startWorker({ redis: redis.url, handlers: { mail() {} } })
  const inspector = newInspector(redis.url)
  await inspector.settings.set('orders', { groups: { main: { record: 'outcomes' } } })
  await worker.stop()
  const ids: string[] = []
  for (let n = 0; n < 150; n++) ids.push((await redis.client.xadd('orders', '*', 'job', 'mail')) as string)
  await redis.client.xreadgroup('GROUP', 'main', 'crashed', 'STREAMS', 'orders', '>')
  await redis.client.xgroup('DELCONSUMER', 'orders', 'main', 'crashed')

  const ask = () => inspector.audit('orders', { group: 'main', repair: true, execute: true })
  const results = await Promise.all([ask(), ask()])
  const handedBack = results.map(({ repair }) => repair?.handedBack ?? 0)
  expect(handedBack.reduce((sum, count) => sum + count)).toBe(150)
  await startWorker({ redis: redis.url, handlers: { mail: (_data, job) => void ran.push(job.id) } })
  await eventually(() => expect(ran.length).toBeGreaterThanOrEqual(150))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 150 }))
  expect([...ran].sort()).toEqual([...ids].sort())
  expect(await inspector.audit('orders', { group: 'main' })).toMatchObject({ ok: true, totals: { completed: 150 } })
})
