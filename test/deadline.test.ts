import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { PublishOptions } from '../src/index.ts'
import { resolveDeadline, type DeadlineOptions } from '../src/publish/deadline.ts'
import { decodeJob } from '../src/wire.ts'
import { millrace } from './cli/run.ts'
import { failureOf, newProducer } from './fixtures/producers.ts'
import { DEAD } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { startWorker } from './helpers/workers.ts'

const redis = withRedis()
const NOW_MS = 1_700_000_000_000
const HOUR_MS = 3_600_000
const TEN_YEARS_MS = 10 * 365 * 24 * HOUR_MS

describe('a deadline as the entry tells it', () => {
  test.each<[DeadlineOptions, string | undefined]>([
    [{}, undefined],
    [{ delayMs: 5 }, undefined],
    [{ expiresAt: NOW_MS + 1 }, String(NOW_MS + 1)],
    [{ expiresAt: new Date(NOW_MS + HOUR_MS) }, String(NOW_MS + HOUR_MS)],
    [{ expiresAt: NOW_MS + TEN_YEARS_MS }, String(NOW_MS + TEN_YEARS_MS)],
    [{ expiresAt: NOW_MS + 10, delayMs: 9 }, String(NOW_MS + 10)],
    [{ expiresAt: NOW_MS + 10, runAt: NOW_MS - HOUR_MS }, String(NOW_MS + 10)],
    [{ ttlMs: 1 }, '+1'],
    [{ ttlMs: 10, runAt: new Date(NOW_MS + 9) }, '+10'],
  ])('%j', (options, field) => {
    expect(resolveDeadline(options, NOW_MS)).toBe(field)
  })

  test.each<[object, string]>([
    [{ expiresAt: NOW_MS }, 'in the future and at most 10 years ahead, got 1700000000000'],
    [{ expiresAt: new Date(NOW_MS - 1) }, 'got 2023-11-14T22:13:19.999Z'],
    [{ expiresAt: -1 }, 'in the future'],
    [{ expiresAt: 0 }, 'in the future'],
    [{ expiresAt: NOW_MS + TEN_YEARS_MS + 1 }, 'at most 10 years ahead'],
    [{ expiresAt: new Date(NaN) }, 'got an invalid Date'],
    [{ expiresAt: '2030-01-01' }, 'expected `expiresAt` to be a Date or ms since the epoch'],
    [{ expiresAt: null }, 'got null'],
    [{ ttlMs: 0 }, 'expected `ttlMs` to be a positive integer'],
    [{ ttlMs: -5 }, 'expected `ttlMs` to be a positive integer'],
    [{ ttlMs: 1.5 }, 'expected `ttlMs` to be a positive integer'],
    [{ ttlMs: TEN_YEARS_MS + 1 }, 'up to 315360000000'],
    [{ ttlMs: 5, expiresAt: NOW_MS + 5 }, 'expected either `expiresAt` or `ttlMs`, got both'],
    [{ expiresAt: NOW_MS + 10, delayMs: 10 }, 'to be behind 2023-11-14T22:13:20.010Z, when the job is due'],
    [{ expiresAt: NOW_MS + 10, runAt: NOW_MS + 11 }, 'when the job is due'],
    [{ ttlMs: 10, delayMs: 10 }, "expected `ttlMs` to end behind the job's own delay of 10 ms, got 10"],
    [{ ttlMs: 10, runAt: new Date(NOW_MS + 11) }, "the job's own delay of 11 ms"],
  ])('%j is refused', (options, message) => {
    expect(() => resolveDeadline(options as DeadlineOptions, NOW_MS)).toThrow(message)
  })

  test('of so many ms counts from the id of the job, which is the time of Redis, also in a later entry of it', () => {
    expect(decodeJob('5000-0', ['job', 'x', 'expires', '+250'])).toMatchObject({ extra: { expiresMs: 5250 } })
    expect(decodeJob('9000-0', ['job', 'x', 'id', '5000-0', 'expires', '+250'])).toMatchObject({
      extra: { expiresMs: 5250 },
    })
    for (const bad of ['+', '+x', '++1', '+-1', '+1.5', '-1'])
      expect(decodeJob('9-0', ['job', 'x', 'expires', bad])).toMatchObject({ kind: 'malformed' })
  })
})

describe('a publish with a deadline', () => {
  const publish = (options: PublishOptions) =>
    newProducer({ redis: redis.url }).publish('x', 1, { stream: 'orders', ...options })

  test('that is over is refused before anything is sent', async () => {
    for (const options of [{ expiresAt: 1 }, { ttlMs: 0 }, { ttlMs: 5, delayMs: 5 }]) {
      expect(await failureOf(publish(options))).toMatchObject({ code: 'ERR_OPTION', published: 'no' })
    }
    expect(await redis.client.dbsize()).toBe(0)
  })

  test('is not run once it is over by the time of Redis, and is run before; a redrive runs it', async () => {
    const [late, early] = [await publish({ ttlMs: 1 }), await publish({ ttlMs: HOUR_MS })]
    const absolute = await publish({ expiresAt: Date.now() + HOUR_MS })
    const ran: string[] = []
    const inspector = newInspector(redis.url)
    await inspector.groups.create('orders', 'main', { startAt: 'oldest' })
    await eventually(async () => {
      const [seconds] = (await redis.client.time()).map(Number) as [number]
      expect(seconds * 1000).toBeGreaterThan(Number(late.id.split('-')[0]) + 1)
    })
    const worker = await startWorker({ redis: redis.url, handlers: { x: (_, job) => void ran.push(job.id) } })
    await eventually(() => expect(ran).toEqual([early.id, absolute.id]))
    await eventually(() => expect(worker.counts.dead).toBe(1))
    const [[, letter] = []] = await redis.client.xrange(DEAD, '-', '+')
    expect(letter).toEqual(expect.arrayContaining(['expired', late.id]))

    await inspector.dead.redrive('orders', 'main', { ids: [late.id], execute: true })
    await eventually(() => expect(ran).toContain(late.id))
  })

  test('of a delayed job counts from its publish and is kept while it waits', async () => {
    const { id } = await publish({ delayMs: HOUR_MS, ttlMs: 2 * HOUR_MS })
    const [shown] = await newInspector(redis.url).scheduled.show('orders', id)
    expect(shown?.fields).toContainEqual(['expires', `+${2 * HOUR_MS}`])
  })

  test('of many is that of each', async () => {
    await newProducer({ redis: redis.url }).publishMany('x', [1, 2], { stream: 'orders', ttlMs: 77 })
    for (const [, flat] of await redis.client.xrange('orders', '-', '+'))
      expect(flat.slice(-2)).toEqual(['expires', '+77'])
  })
})

describe('millrace publish', () => {
  const cli = (...args: string[]) => millrace(['publish', 'orders', ...args], { redis: redis.url })
  const expires = async () =>
    (await redis.client.xrange('orders', '-', '+')).map(([, flat]) => flat[flat.indexOf('expires') + 1])

  test('takes a deadline as a time or a duration, and refuses both, or one that is over', async () => {
    expect((await cli('x', '1', '--ttl', '30d')).code).toBe(0)
    expect((await cli('x', '1', '--expires-at', '2035-01-01T00:00Z')).code).toBe(0)
    expect(await expires()).toEqual(['+2592000000', String(Date.UTC(2035, 0, 1))])
    for (const [args, message] of [
      [['--ttl', '1m', '--expires-at', '2035-01-01T00:00Z'], 'expected either `--expires-at` or `--ttl`, got both'],
      [['--expires-at', '2020-01-01T00:00Z'], 'in the future'],
      [['--ttl', '1m', '--delay', '1m'], "the job's own delay"],
    ] as const) {
      const { code, stderr } = await cli('x', '1', ...args)
      expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    }
  })

  test('takes the deadlines of a file, a line for itself or all by a flag', async () => {
    const file = join(tmpdir(), `millrace-deadlines-${process.pid}.ndjson`)
    const lines = [{ ttlMs: 5 }, { expiresAt: '2035-01-01T00:00:00Z' }, {}].map((own) => ({ job: 'x', ...own }))
    await writeFile(file, lines.map((line) => JSON.stringify(line)).join('\n'))
    expect((await cli('--file', file, '--ttl', '1h')).code).toBe(0)
    expect(await expires()).toEqual(['+5', String(Date.UTC(2035, 0, 1)), '+3600000'])
  })
})
