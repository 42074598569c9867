import { describe, expect, test } from 'vitest'
import type { Settings, SettingsChange } from '../src/index.ts'
import { settingsKey } from '../src/redis/keys.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, startServer, withRedis } from './helpers/redis.ts'
import { startWorker } from './helpers/workers.ts'

const redis = withRedis()
const KEY = settingsKey('orders')

const settingsOf = (url = redis.url): Settings => newInspector(url).settings

async function arrange(...groups: string[]): Promise<void> {
  await redis.client.xadd('orders', '*', 'job', 'mail')
  for (const group of groups) await redis.client.xgroup('CREATE', 'orders', group, '0')
}

const DAY_MS = 86_400_000

describe('the settings of a stream', () => {
  test('are all told, each with what counts, its default and whether it is set', async () => {
    await arrange('main', 'billing')
    await redis.client.hset(KEY, 'retention:maxBytes', 5000, 'group:main:leaseMs', 2000, 'group:main:floor', '0-0')

    expect(await settingsOf().get('orders')).toEqual({
      stream: 'orders',
      retention: {
        maxAgeMs: { value: DAY_MS, default: DAY_MS, isSet: false },
        maxBytes: { value: 5000, default: 1024 ** 3, isSet: true },
        maxEntries: { value: null, default: null, isSet: false },
      },
      dead: { maxAgeMs: { value: 30 * DAY_MS, default: 30 * DAY_MS, isSet: false } },
      maxBacklog: { value: null, default: null, isSet: false },
      groups: [
        {
          group: 'billing',
          leaseMs: { value: 10_000, default: 10_000, isSet: false },
          maxDeliveries: { value: 3, default: 3, isSet: false },
          record: { value: null, default: null, isSet: false },
        },
        {
          group: 'main',
          leaseMs: { value: 2000, default: 10_000, isSet: true },
          maxDeliveries: { value: 3, default: 3, isSet: false },
          record: { value: null, default: null, isSet: false },
        },
      ],
    })
  })

  test('that are no numbers, as a foreign hand may write them, count as not set', async () => {
    await arrange()
    await redis.client.hset(
      KEY,
      'retention:maxBytes',
      'much',
      'retention:maxAgeMs',
      '-5',
      'retention:maxEntries',
      '1e3',
    )
    await redis.client.hset(KEY, 'maxBacklog', '0x10')
    const { retention, maxBacklog } = await settingsOf().get('orders')
    expect([...Object.values(retention), maxBacklog].map(({ isSet }) => isSet)).toEqual([false, false, false, false])
  })

  test('are changed together, and what is not named stays', async () => {
    await arrange('main')
    const settings = settingsOf()
    await settings.set('orders', { retention: { maxAgeMs: 2 * DAY_MS } })
    const stand = await settings.set('orders', {
      retention: { maxBytes: 2 ** 31, maxEntries: 1_000_000 },
      dead: { maxAgeMs: DAY_MS },
      maxBacklog: 1e12,
      groups: { main: { leaseMs: 20_000 } },
    })

    expect(stand).toEqual(await settings.get('orders'))
    expect(await redis.client.hgetall(KEY)).toEqual({
      'retention:maxAgeMs': '172800000',
      'retention:maxBytes': '2147483648',
      'retention:maxEntries': '1000000',
      'dead:maxAgeMs': '86400000',
      maxBacklog: '1000000000000',
      'group:main:leaseMs': '20000',
    })
  })

  test('go back to their defaults with null; a running group is told so, and not left without', async () => {
    await arrange('main')
    const settings = settingsOf()
    await settings.set('orders', {
      retention: { maxAgeMs: 5000 },
      maxBacklog: 7,
      groups: { main: { leaseMs: 600, maxDeliveries: 9 } },
    })
    await settings.set('orders', {
      retention: { maxAgeMs: null },
      maxBacklog: null,
      groups: { main: { leaseMs: null } },
    })

    expect(await redis.client.hgetall(KEY)).toEqual({ 'group:main:leaseMs': '10000', 'group:main:maxDeliveries': '9' })
  })

  test('of a group say what it records of its jobs, and null ends that', async () => {
    await arrange('main')
    const settings = settingsOf()
    const stand = await settings.set('orders', { groups: { main: { record: 'outcomes' } } })
    expect(stand.groups[0]?.record).toEqual({ value: 'outcomes', default: null, isSet: true })
    expect(await redis.client.hgetall(KEY)).toEqual({ 'group:main:record': 'outcomes' })

    await settings.set('orders', { groups: { main: { record: null } } })
    expect(await redis.client.exists(KEY)).toBe(0)
  })

  test('of a group reach its running workers within a pulse', async () => {
    const worker = await startWorker({ redis: redis.url, leaseMs: 2000 })
    await settingsOf().set('orders', { groups: { main: { leaseMs: 30_000, maxDeliveries: 7 } } })
    await eventually(() => expect(worker.groupSettings).toEqual({ leaseMs: 30_000, maxDeliveries: 7 }))
  })

  test('of a group that is not there are refused, with the one that was meant, and nothing is written', async () => {
    await arrange('main', 'billing')
    const change = { retention: { maxEntries: 5 }, groups: { main: { leaseMs: 900 }, biling: { leaseMs: 900 } } }
    await expect(settingsOf().set('orders', change)).rejects.toMatchObject({
      code: 'ERR_UNKNOWN_GROUP',
      message: expect.stringContaining('did you mean billing?') as string,
    })
    expect(await redis.client.exists(KEY)).toBe(0)
  })

  test('of a stream that is not there are refused, and none comes into being', async () => {
    await expect(settingsOf().get('orders')).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    const change = { retention: { maxBytes: 5 } }
    await expect(settingsOf().set('orders', change)).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
    expect(await redis.client.dbsize()).toBe(0)
  })

  test('can have a bound before the first job: a stream is there from its first group on', async () => {
    const inspector = newInspector(redis.url)
    await inspector.groups.create('orders', 'main', { startAt: 'oldest' })
    const { maxBacklog } = await inspector.settings.set('orders', { maxBacklog: 5 })
    expect(maxBacklog).toEqual({ value: 5, default: null, isSet: true })
    expect(await redis.client.xlen('orders')).toBe(0)
  })

  test('can be lowered while Redis is out of memory: that is when it helps', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.xadd('orders', '*', 'job', 'mail')
    await client.config('SET', 'maxmemory', 1)
    await settingsOf(server.url).set('orders', { retention: { maxBytes: 1000 } })
    expect(await client.hgetall(KEY)).toEqual({ 'retention:maxBytes': '1000' })
  })

  test.each<[SettingsChange | object, string]>([
    [{ retention: { maxAgeMs: 999 } }, 'expected `retention.maxAgeMs` to be an integer of 1000 or more up to'],
    [{ retention: { maxAgeMs: 0 } }, 'expected `retention.maxAgeMs` to be an integer of 1000 or more up to'],
    [{ retention: { maxBytes: 0 } }, 'expected `retention.maxBytes` to be a positive integer'],
    [{ retention: { maxEntries: 1.5 } }, 'expected `retention.maxEntries` to be a positive integer'],
    [{ retention: { maxAge: 1 } }, 'unknown option `maxAge` of retention (did you mean `maxAgeMs`?)'],
    [{ dead: { maxAgeMs: '1d' } }, 'expected `dead.maxAgeMs` to be an integer of 1000 or more'],
    [{ maxBacklog: 0 }, 'expected `maxBacklog` to be a positive integer up to 1000000000000, got 0'],
    [{ maxBacklog: 1e12 + 1 }, 'expected `maxBacklog` to be a positive integer up to 1000000000000'],
    [{ maxBacklog: NaN }, 'expected `maxBacklog` to be a positive integer'],
    [{ maxBacklog: '5' }, 'expected `maxBacklog` to be a positive integer'],
    [{ groups: { main: { record: 'all' } } }, 'expected `main.record` to be one of outcomes'],
    [{ groups: { main: { leaseMs: 499 } } }, 'expected `main.leaseMs` to be an integer of 500 or more up to 86400000'],
    [
      { groups: { main: { maxDeliveries: 1001 } } },
      'expected `main.maxDeliveries` to be a positive integer up to 1000',
    ],
    [{ groups: { main: { floor: 1 } } }, 'unknown option `floor` of group main'],
    [{ groups: { 'a b': {} } }, 'expected a group name'],
    [{ groups: 'main' }, 'expected `groups` to be an object of settings by group'],
    [{ retentions: {} }, 'unknown option `retentions` of settings (did you mean `retention`?)'],
  ])('cannot be %j', async (change, message) => {
    await arrange('main')
    await expect(settingsOf().set('orders', change)).rejects.toThrow(message)
    expect(await redis.client.exists(KEY)).toBe(0)
  })
})
