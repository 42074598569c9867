import { describe, expect, test } from 'vitest'
import { Inspector, Producer, Worker, type GroupStats, type Handlers } from '../src/index.ts'
import { deadKey, redeliveryKey, STREAMS_KEY, workersInfoKey, workersKey } from '../src/redis/keys.ts'
import { startChild } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { serverMs, startServer, withRedis } from './helpers/redis.ts'
import { gate } from './helpers/workers.ts'

const redis = withRedis()

function inspect(options: { url?: string; warnings?: string[] } = {}): Inspector {
  const { url = redis.url, warnings = [] } = options
  const none = () => {}
  const warn = ({ fault = '' }: { fault?: string }, message: string) => void warnings.push(message + fault)
  return newInspector(url, { logger: { debug: none, info: none, warn, error: none } })
}

async function onlyGroup(inspector = inspect()): Promise<GroupStats> {
  const [stats] = await inspector.stats('orders')
  expect(stats?.groups).toHaveLength(1)
  return stats?.groups[0] as GroupStats
}

const nowMs = () => serverMs(redis.client)

/** Entries with ids so many seconds ago. */
async function addAged(key: string, ...secondsAgo: number[]): Promise<string[]> {
  const now = await nowMs()
  const ids = secondsAgo.map((seconds) => `${now - seconds * 1000}-0`)
  for (const id of ids) await redis.client.xadd(key, id, 'job', 'mail')
  return ids
}

async function startWorker(handlers: Handlers, concurrency = 4): Promise<Worker> {
  // A lease that a busy machine does not lose: a job that another worker took over would be counted twice.
  const own = { concurrency, leaseMs: 30_000, logger: false } as const
  const worker = new Worker({ redis: redis.url, stream: 'orders', handlers, ...own })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  await worker.start()
  return worker
}

describe('a stream', () => {
  test('has its entries and the time of the oldest told, and no groups before one exists', async () => {
    const [first = ''] = await addAged('orders', 60, 30)
    const [stats] = await inspect().stats('orders')
    expect(stats).toEqual({
      stream: 'orders',
      entries: 2,
      oldestEntryMs: Number(first.split('-')[0]),
      scheduled: 0,
      overdueSeconds: 0,
      setAside: 0,
      paused: null,
      groups: [],
    })
  })

  test('that is empty has no oldest entry', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const [stats] = await inspect().stats('orders')
    expect(stats).toMatchObject({ entries: 0, oldestEntryMs: null, groups: [{ group: 'main', lag: 0, pending: 0 }] })
  })

  test('that does not exist is ERR_NOT_FOUND, with the name that may have been meant', async () => {
    await addAged('orders', 1)
    await redis.client.sadd(STREAMS_KEY, 'orders')
    await expect(inspect().stats('order')).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: 'stream order does not exist (did you mean orders?)',
    })
  })

  test('that is in use and does not exist is not said to be one of those that do, or to be meant itself', async () => {
    await addAged('orders', 1)
    await redis.client.sadd(STREAMS_KEY, 'orders', 'mail')
    await expect(inspect().stats('mail')).rejects.toMatchObject({
      code: 'ERR_NOT_FOUND',
      message: 'stream mail does not exist (nothing has come into it yet, or it was deleted; there are others: orders)',
    })
    await redis.client.srem(STREAMS_KEY, 'orders')
    await expect(inspect().stats('mail')).rejects.toThrow(
      'stream mail does not exist (nothing has come into it yet, or it was deleted)',
    )
  })

  test('whose key is of another type is an error that says of which', async () => {
    await redis.client.lpush('orders', 'x')
    await expect(inspect().stats('orders')).rejects.toMatchObject({
      code: 'ERR_REDIS_REFUSED',
      message: expect.stringContaining('the key orders holds a list, not a stream') as string,
    })
  })

  test.each(['', 'a b', '{a}{b}', '{orders}:group:main:dead'])('cannot be named %j', async (name) => {
    await expect(inspect().stats(name)).rejects.toMatchObject({ code: 'ERR_NAME' })
  })
})

describe('the list of streams', () => {
  test('has what was published to, sorted, and nothing that is no stream name', async () => {
    const producer = new Producer({ redis: redis.url })
    onEnd(async () => void (await producer.close()))
    for (const stream of ['orders', 'mails']) await producer.publish('mail', null, { stream })
    await redis.client.sadd(STREAMS_KEY, 'no name', '{a}{b}')
    await eventually(async () => expect(await inspect().streams()).toEqual(['mails', 'orders']))
  })

  test('is cut at a thousand, with a warning', async () => {
    await redis.client.sadd(STREAMS_KEY, ...Array.from({ length: 1001 }, (_, at) => `stream-${at}`))
    const warnings: string[] = []
    expect(await inspect({ warnings }).streams()).toHaveLength(1000)
    expect(warnings).toEqual(['there are more streams than are looked at'])
  })

  test('is gone through by stats: what no longer exists is left out, what is no stream too, with a warning', async () => {
    await addAged('orders', 1)
    await redis.client.lpush('list', 'x')
    await redis.client.sadd(STREAMS_KEY, 'orders', 'list', 'deleted')
    const warnings: string[] = []
    const found = await inspect({ warnings }).stats()
    expect(found.map(({ stream }) => stream)).toEqual(['orders'])
    expect(warnings).toEqual([expect.stringContaining('the key list holds a list, not a stream')])
  })

  test('that is a key of another type is an error, not an empty list', async () => {
    await redis.client.set(STREAMS_KEY, 'x')
    await expect(inspect().streams()).rejects.toMatchObject({ code: 'ERR_REDIS_REFUSED' })
  })
})

describe('lag', () => {
  test('is what was not delivered, in entries and in seconds since the oldest of it', async () => {
    await addAged('orders', 100, 50, 20)
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 1, 'STREAMS', 'orders', '>')
    const { lag, lagSeconds, pending } = await onlyGroup()
    expect({ lag, pending }).toEqual({ lag: 2, pending: 1 })
    expect(lagSeconds).toBeGreaterThanOrEqual(50)
    expect(lagSeconds).toBeLessThan(100)
  })

  test('is null and never 0 where Redis does not know it; in seconds it is known all the same', async () => {
    const [, , third = ''] = await addAged('orders', 100, 50, 20, 10)
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 1, 'STREAMS', 'orders', '>')
    await redis.client.xdel('orders', third)
    const { lag, lagSeconds } = await onlyGroup()
    expect(lag).toBe(null)
    expect(lagSeconds).toBeGreaterThanOrEqual(50)
  })

  test('is 0 as soon as nothing is left to deliver, also where Redis does not know it', async () => {
    const [, , third = ''] = await addAged('orders', 100, 50, 20, 10)
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    await redis.client.xdel('orders', third)
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    expect(await onlyGroup()).toMatchObject({ lag: 0, lagSeconds: 0, pending: 3 })
  })

  test('in seconds is not negative for ids in the future, and the highest id of all is no error', async () => {
    await redis.client.xadd('orders', `${(await nowMs()) + 60_000}-0`, 'job', 'mail')
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    expect(await onlyGroup()).toMatchObject({ lag: 1, lagSeconds: 0 })
    await redis.client.xadd('orders', '18446744073709551615-18446744073709551615', 'job', 'mail')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    expect(await onlyGroup()).toMatchObject({ lag: 0, lagSeconds: 0, pending: 2, oldestPendingSeconds: 0 })
  })

  test('and pending include what waits in the redelivery stream', async () => {
    const key = redeliveryKey('orders', 'main')
    await addAged('orders', 20, 10)
    await addAged(key, 300, 200, 100)
    for (const name of ['orders', key]) await redis.client.xgroup('CREATE', name, 'main', '0')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'COUNT', 1, 'STREAMS', 'orders', key, '>', '>')
    const { oldestPendingSeconds, lagSeconds, ...stats } = await onlyGroup()
    expect(stats).toMatchObject({ lag: 3, pending: 2, redelivery: 3 })
    expect(oldestPendingSeconds).toBeGreaterThanOrEqual(300)
    expect(lagSeconds).toBeGreaterThanOrEqual(200)
  })
})

describe('a group', () => {
  test('has what was handed back counted among its pending entries', async () => {
    const [first = '', second = ''] = await addAged('orders', 30, 20, 10)
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    await redis.client.xreadgroup('GROUP', 'main', 'w', 'STREAMS', 'orders', '>')
    await redis.client.xclaim('orders', 'main', ':handback', 0, first, second, 'JUSTID')
    expect(await onlyGroup()).toMatchObject({ pending: 3, handedBack: 2 })
  })

  test('has the slots, the running jobs and the rate of its live workers added up', async () => {
    const { wait, open } = gate()
    const handlers = { mail: wait }
    const workers = [await startWorker(handlers, 3), await startWorker(handlers, 4)]
    for (let jobs = 0; jobs < 5; jobs++) await redis.client.xadd('orders', '*', 'job', 'mail')
    await eventually(async () => expect(await onlyGroup()).toMatchObject({ workers: 2, slots: 7, running: 5 }))
    open()
    // A rate is of the last seconds: jobs come until somebody has looked at it.
    await eventually(async () => {
      await redis.client.xadd('orders', '*', 'job', 'mail')
      expect((await onlyGroup()).perSecond).toBeGreaterThan(0)
    })
    await eventually(async () => expect(await onlyGroup()).toMatchObject({ running: 0 }))
    await Promise.all(workers.map((worker) => worker.stop()))
    expect(await onlyGroup()).toMatchObject({ workers: 0, slots: 0, perSecond: 0 })
  })

  test('does not count a worker that was not heard of for five seconds, by the time of the server', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const now = await nowMs()
    await redis.client.zadd(
      workersKey('orders', 'main'),
      now - 7000,
      'killed',
      now,
      'live',
      now + 60_000,
      'of the future',
    )
    await redis.client.hset(workersInfoKey('orders', 'main'), { killed: '{"slots":5}', live: '{"slots":2}' })
    expect(await onlyGroup()).toMatchObject({ workers: 1, slots: 2 })
  })

  test.each(['', 'no json', '[]', 'null', '{"slots":"9","running":-1,"perSecond":1e99}'])(
    'counts a worker that says %j of itself as one of no slots',
    async (about) => {
      await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
      await redis.client.zadd(workersKey('orders', 'main'), await nowMs(), 'foreign')
      if (about !== '') await redis.client.hset(workersInfoKey('orders', 'main'), 'foreign', about)
      expect(await onlyGroup()).toMatchObject({ workers: 1, slots: 0, running: 0, perSecond: 0 })
    },
  )

  test('has its dead letters, and what became of the jobs of the last hour', async () => {
    for (let jobs = 0; jobs < 3; jobs++) await redis.client.xadd('orders', '*', 'job', 'mail')
    await redis.client.xadd('orders', '*', 'no', 'job')
    await startWorker({ mail: () => {} })
    await eventually(async () => {
      expect(await onlyGroup()).toMatchObject({
        lag: 0,
        pending: 0,
        dead: 1,
        lastHour: { completed: 3, dead: 1, late: 0, retried: 0, cancelled: 0, skipped: 0 },
      })
    })
    expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(1)
  })

  test('of any name that Redis takes is shown, and at most two hundred of them, with a warning', async () => {
    await redis.client.xgroup('CREATE', 'orders', ' foreign\n{group} ', '0', 'MKSTREAM')
    expect(await onlyGroup()).toMatchObject({ group: ' foreign\n{group} ', lag: 0 })
    for (let made = 0; made < 200; made++) await redis.client.xgroup('CREATE', 'orders', `group-${made}`, '0')
    const warnings: string[] = []
    const [stats] = await inspect({ warnings }).stats('orders')
    expect(stats?.groups).toHaveLength(200)
    expect(warnings).toEqual(['the stream has more groups than are looked at'])
  })
})

describe('an inspector', () => {
  const viewer = ['on', '>secret', 'resetkeys', '%R~*', '-@all', '+@read', '+time', '+info', '+client', '+select']

  async function asViewer(...rules: string[]): Promise<string> {
    await redis.client.acl('SETUSER', 'viewer', 'reset', ...viewer, ...rules)
    onEnd(async () => void (await redis.client.acl('DELUSER', 'viewer')))
    const url = new URL(redis.url)
    url.username = 'viewer'
    url.password = 'secret'
    return url.href
  }

  test('writes nothing and creates nothing: permission to read is enough', async () => {
    await addAged('orders', 20, 10)
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    await redis.client.sadd(STREAMS_KEY, 'orders')
    const url = await asViewer('+evalsha_ro', '+eval_ro')
    const changes = async () => /rdb_changes_since_last_save:\d+/.exec(await redis.client.info('persistence'))?.[0]
    const [before, keys] = [await changes(), await redis.client.dbsize()]
    expect(await inspect({ url }).stats()).toMatchObject([{ stream: 'orders', groups: [{ lag: 2 }] }])
    expect([await changes(), await redis.client.dbsize()]).toEqual([before, keys])
  })

  test('works where there is no EVALSHA_RO, as before Redis 7.0', async () => {
    await addAged('orders', 20, 10)
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    const inspector = inspect({ url: await asViewer('+evalsha', '+eval', '~*') })
    for (let times = 0; times < 2; times++) {
      expect(await inspector.stats('orders')).toMatchObject([{ groups: [{ lag: 2 }] }])
    }
  })

  test('says which permission is missing', async () => {
    await addAged('orders', 20, 10)
    const inspector = inspect({ url: await asViewer() })
    await expect(inspector.stats('orders')).rejects.toMatchObject({ code: 'ERR_REDIS_REFUSED' })
  })

  test('fails within seconds where nobody listens, and works again when Redis is back', async () => {
    const server = await startServer()
    const inspector = inspect({ url: server.url })
    expect(await inspector.stats()).toEqual([])
    await server.kill()
    await expect(inspector.stats()).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
    await server.restart()
    expect(await inspector.stats()).toEqual([])
  })

  test('fails within seconds when Redis no longer answers, and works again when it does', async () => {
    const server = await startServer()
    const inspector = inspect({ url: server.url })
    await inspector.streams()
    server.stopProcess()
    await expect(inspector.stats()).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
    server.continueProcess()
    expect(await inspector.stats()).toEqual([])
  })

  test('that was closed refuses to look, and does not keep the process running while it is idle', async () => {
    const inspector = inspect()
    await inspector.streams()
    inspector.close()
    await expect(inspector.streams()).rejects.toMatchObject({ code: 'ERR_REDIS_UNREACHABLE' })
    const index = new URL('../src/index.ts', import.meta.url).href
    const code = `import { Inspector } from '${index}'
      console.log(JSON.stringify(await new Inspector({ redis: '${redis.url}' }).streams()))`
    const child = startChild('--input-type=module', { args: ['--eval', code] })
    expect(await child.exited).toEqual({ code: 0, signal: null })
    expect(child.stdout).toEqual(['[]'])
  })

  test.each([
    [{ redsi: 'x' }, 'unknown option `redsi` of Inspector (did you mean `redis`?)'],
    [{ redis: 'localhost' }, 'expected `redis` to be a URL that starts with redis:// or rediss://, or a socket path'],
    [{ logger: {} }, 'expected `logger` to have a method debug'],
  ])('refuses %j before it connects', (options, message) => {
    expect(() => new Inspector(options as object)).toThrow(message)
  })
})
