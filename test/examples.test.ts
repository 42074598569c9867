import { expect, test, vi } from 'vitest'
import handlers from '../examples/handlers.ts'
import { runJob, runToEnd } from '../src/testing.ts'
import { startChild } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { add } from './helpers/workers.ts'

/** The examples, executed. */

const redis = withRedis()
const example = (name: string) =>
  startChild(new URL(`../examples/${name}`, import.meta.url), { env: { REDIS_URL: redis.url, PORT: '0' } })

test('error-reporting.ts reports an attempt that is followed by another as a warning, and the last one as the error', async () => {
  const id = await add(redis.client, 'send-receipt', { order: 42 })
  const child = example('error-reporting.ts')
  await child.line(/"level":"error"/, { timeoutMs: 30_000 })
  const message = 'the mail server is away'
  const tags = { stream: 'orders', job: 'send-receipt', id }
  expect(child.stdout.map((line) => JSON.parse(line) as unknown)).toEqual([
    { level: 'warning', message, tags: { ...tags, attempt: 1 }, notes: ['looked up order 42'] },
    { level: 'error', message, tags: { ...tags, attempt: 2, reason: 'attempts' }, notes: ['looked up order 42'] },
  ])
})

test('request-context.ts has the id of the request in what the worker logs, in every attempt', async () => {
  const child = example('request-context.ts')
  const [, port = ''] = await child.line(/^listening on port (\d+)$/, { timeoutMs: 30_000 })
  const order = (headers: Record<string, string>) =>
    fetch(`http://127.0.0.1:${port}/orders`, { method: 'POST', headers }).then(({ status }) => status)
  expect([await order({ 'x-request-id': 'r-1' }), await order({ 'x-request-id': 'a b' })]).toEqual([202, 202])
  await eventually(() => expect(child.stdout).toHaveLength(7))
  expect(child.stdout).toContain('[r-1] order 1 is taken')
  const attempts = (order: number) => child.stdout.filter((line) => line.includes(`receipt for order ${order},`))
  expect(attempts(1)).toEqual([1, 2].map((attempt) => `[r-1] receipt for order 1, attempt ${attempt}`))
  const [, own] = /^\[([0-9a-f-]{36})\]/.exec(attempts(2)[0] ?? '') ?? []
  expect(attempts(2)).toEqual([1, 2].map((attempt) => `[${own}] receipt for order 2, attempt ${attempt}`))
  child.signal('SIGTERM')
  expect(await child.exited).toEqual({ code: 0, signal: null })
})

test('order.ts books for each account in order, though one booking has to be tried again', async () => {
  const child = example('order.ts')
  await child.line(/^ada: booking 3$/, { timeoutMs: 30_000 })
  await child.line(/^bob: booking 3$/, { timeoutMs: 30_000 })
  for (const account of ['ada', 'bob']) {
    const booked = child.stdout.filter((line) => line.startsWith(account))
    expect(booked).toEqual([1, 2, 3].map((number) => `${account}: booking ${number}`))
  }
  child.signal('SIGTERM')
  expect(await child.exited).toEqual({ code: 0, signal: null })
})

test('handlers.ts charges a card at most four times, a declined one once, and heeds its signal', async () => {
  const chance = vi.spyOn(Math, 'random').mockReturnValue(0.1)
  onEnd(() => chance.mockRestore())
  const charge = (declined: boolean) => runToEnd(handlers, { job: 'charge-card', data: { order: 42, declined } })
  const [declined, unanswered] = await Promise.all([charge(true), charge(false)])
  expect(declined).toMatchObject({ outcome: 'dead', reason: 'fatal', runs: [{ attempt: 1 }] })
  expect(unanswered).toMatchObject({ outcome: 'dead', reason: 'attempts', tookMs: 7000 })
  expect(unanswered.runs).toHaveLength(4)
  const stopped = handlers.map(({ job: { name: job } }) =>
    runJob(handlers, { job, data: { seconds: 600 }, abort: 'stop' }),
  )
  expect((await Promise.all(stopped)).map(({ outcome }) => outcome)).toEqual(handlers.map(() => 'handed-back'))
})

test('results.ts answers with the result of a short report, and with where a long one is to be asked for', async () => {
  const child = example('results.ts')
  const [, port = ''] = await child.line(/^listening on port (\d+)$/, { timeoutMs: 30_000 })
  const ask = async (path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { method })
    return { status: response.status, body: (await response.json()) as { id?: string; text?: string } }
  }
  const seen = await Promise.all(Array.from({ length: 12 }, () => ask('/reports', 'POST')))
  for (const { status, body } of seen) {
    if (status === 200) expect(body.text).toMatch(/^(3|23) pages$/)
    else {
      expect(status).toBe(202)
      await eventually(async () => expect((await ask(`/reports/${body.id}`)).body.text).toMatch(/ pages$/))
    }
  }
  expect((await ask('/reports/1-1')).status).toBe(404)
  child.signal('SIGTERM')
  expect(await child.exited).toEqual({ code: 0, signal: null })
})

test('cron.ts runs what it declares at its ticks, and what somebody runs out of turn', async () => {
  const child = example('cron.ts')
  await child.line(/^items below 10, of .*\.(000|500)Z$/, { timeoutMs: 30_000 })
  const { cron } = newInspector(redis.url)
  expect((await cron.list('reports')).schedules.map(({ name }) => name).sort()).toEqual(['nightly', 'stock'])
  await cron.run('reports', 'nightly')
  await child.line(/^full report, out of turn$/, { timeoutMs: 30_000 })
  child.signal('SIGTERM')
  expect(await child.exited).toEqual({ code: 0, signal: null })
  const ticks = child.stdout.filter((line) => line.startsWith('items'))
  expect(new Set(ticks).size).toBe(ticks.length)
})

test('selective-groups.ts has each group run what it accepts, and skip the rest', async () => {
  const child = example('selective-groups.ts')
  expect(await child.exited).toEqual({ code: 0, signal: null })
  const told = (group: string) => child.stdout.filter((line) => line.startsWith(`${group}: `)).sort()
  expect(told('shipping')).toEqual([
    'shipping: 3 completed, 1 skipped',
    'shipping: leaves order 2',
    'shipping: packs order 1',
    'shipping: packs order 2',
  ])
  expect(told('mailing')).toEqual(['mailing: 1 completed, 3 skipped', 'mailing: sends the receipt of order 1'])
})

test('batches.ts adds up a thousand views in a few statements, and fails the one that is wrong alone', async () => {
  const child = example('batches.ts')
  expect(await child.exited).toEqual({ code: 0, signal: null })
  expect(child.stdout).toEqual(['999 views of 3 pages', 'in fewer than 100 statements'])
  const { letters } = await newInspector(redis.url).dead.list('views', 'main')
  expect(letters).toMatchObject([{ job: 'count-view', attempts: 2, message: 'it took less than no time' }])
})

test('chain.ts packs every order once, also those whose first run has failed', async () => {
  const child = example('chain.ts')
  await eventually(() => expect(child.stdout).toHaveLength(4), { timeoutMs: 30_000 })
  child.signal('SIGTERM')
  expect(await child.exited).toEqual({ code: 0, signal: null })
  expect(child.stdout.toSorted()).toEqual([1, 2, 3, 4].map((order) => `order ${order} is packed`))
  expect(await redis.client.xlen('{orders}:packing')).toBe(4)
})
