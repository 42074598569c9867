import type { Redis } from 'ioredis'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { findingsOf } from '../src/doctor/doctor.ts'
import type { Facts } from '../src/doctor/facts.ts'
import { hasFlaw, versionFindings } from '../src/doctor/version.ts'
import type { DoctorCheck, DoctorFinding } from '../src/index.ts'
import {
  cronDueKey,
  groupScheduledKey,
  holdsKey,
  scheduledKey,
  STREAMS_KEY,
  workersInfoKey,
  workersKey,
} from '../src/redis/keys.ts'
import { serverFacts, type ServerFacts } from '../src/redis/server-info.ts'
import { bury, makeGroup } from './helpers/dead.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, startServer, type ControlledServer } from './helpers/redis.ts'
import { add, startWorker } from './helpers/workers.ts'

/** One server whose settings the tests bend; each test begins with settings that are as they should be. */

const SOUND = {
  'maxmemory-policy': 'noeviction',
  maxmemory: '1gb',
  appendonly: 'yes',
  appendfsync: 'everysec',
  save: '3600 1',
  'min-replicas-to-write': '0',
}

let server: ControlledServer
let client: Redis

beforeAll(async () => {
  server = await startServer({ args: ['--appendonly', 'yes', '--save', '3600 1', '--maxmemory', '1gb'] })
  client = connectTo(server.url)
})

beforeEach(async () => {
  for (const [name, value] of Object.entries(SOUND)) await client.config('SET', name, value)
  await client.flushall()
})

const diagnose = async (stream?: string): Promise<readonly DoctorFinding[]> =>
  (await newInspector(server.url).doctor(stream === undefined ? {} : { stream })).findings

/** What was found by one check, without what is fine. */
async function found(check: DoctorCheck): Promise<DoctorFinding[]> {
  return (await diagnose()).filter((finding) => finding.check === check && finding.level !== 'ok')
}

const list = (...streams: string[]) => client.sadd(STREAMS_KEY, ...streams)
const DAY_MS = 86_400_000

test('a sound server with a worker has nothing that fails and no warning, and is not written to', async () => {
  const worker = await startWorker({ redis: server.url, leaseMs: 10_000 })
  await add(client, 'none')
  await eventually(() => expect(worker.health().ready).toBe(true))
  const findings = await diagnose()
  const bad = findings.filter(({ level }) => ['fail', 'warn', 'unknown'].includes(level))
  expect(bad).toEqual([])
  expect(findings.map(({ check }) => check)).toEqual(
    expect.arrayContaining(['version', 'mode', 'eviction', 'memory', 'persistence', 'write-errors', 'clock']),
  )
  await worker.stop()
  const changes = async () => /rdb_changes_since_last_save:(\d+)/.exec(await client.info('persistence'))?.[1]
  const before = await changes()
  await diagnose()
  expect(await changes()).toBe(before)
})

describe('of the server it finds', () => {
  test('an eviction policy: failed where memory is bounded, else a warning', async () => {
    await client.config('SET', 'maxmemory-policy', 'allkeys-lru')
    expect(await found('eviction')).toMatchObject([
      { level: 'fail', fix: expect.stringContaining('maxmemory-policy noeviction') as string },
    ])
    await client.config('SET', 'maxmemory', '0')
    expect(await found('eviction')).toMatchObject([{ level: 'warn' }])
  })

  test('memory that is nearly full, and a bound that is not set', async () => {
    const used = Number(/used_memory:(\d+)/.exec(await client.info('memory'))?.[1])
    await client.config('SET', 'maxmemory', String(Math.round(used * 1.1)))
    const why = (text: string) => expect.stringContaining(text) as string
    expect(await found('memory')).toMatchObject([{ level: 'warn', why: why('Producers hold their publishes') }])
    await client.config('SET', 'maxmemory-policy', 'volatile-lru')
    expect(await found('memory')).toMatchObject([{ level: 'warn', why: why('refuses publishes') }])
    await client.config('SET', 'maxmemory', '0')
    expect(await found('memory')).toMatchObject([{ level: 'note' }])
  })

  test('persistence that is off, or loses more than a second', async () => {
    await client.config('SET', 'appendfsync', 'no')
    expect(await found('persistence')).toMatchObject([{ level: 'warn' }])
    await client.config('SET', 'appendonly', 'no')
    expect(await found('persistence')).toMatchObject([
      { level: 'warn', found: expect.stringContaining('3600 1') as string },
    ])
    await client.config('SET', 'save', '')
    expect(await found('persistence')).toMatchObject([
      { level: 'fail', why: expect.stringContaining('every job') as string },
    ])
  })

  test('a snapshot that failed', async () => {
    const broken = await startServer({ args: ['--save', '3600 1', '--dbfilename', 'dump.rdb'] })
    const own = connectTo(broken.url)
    await own.set('x', '1')
    // A folder of that name: the snapshot is written beside it and cannot take its place.
    const [, dir = ''] = await own.config('GET', 'dir')
    const { mkdir } = await import('node:fs/promises')
    await mkdir(`${dir}/dump.rdb/in-the-way`, { recursive: true })
    await own.bgsave()
    await eventually(async () => {
      expect(await own.info('persistence')).toContain('rdb_last_bgsave_status:err')
    })
    const { findings } = await newInspector(broken.url).doctor()
    expect(findings).toContainEqual(expect.objectContaining({ check: 'write-errors', level: 'fail' }))
  })

  test('that nobody copies it, or that it takes jobs while nobody does', async () => {
    expect(await found('replicas')).toMatchObject([{ level: 'note', found: 'no replica is connected' }])
    const replica = await startServer({ args: ['--replicaof', '127.0.0.1', String(server.port)] })
    await eventually(async () => expect(await client.info('replication')).toContain('connected_slaves:1'))
    expect(await found('replicas')).toMatchObject([
      { level: 'note', fix: expect.stringContaining('min-replicas') as string },
    ])
    await client.config('SET', 'min-replicas-to-write', '1')
    expect(await found('replicas')).toEqual([])
    const { findings } = await newInspector(replica.url).doctor()
    expect(findings).toContainEqual(
      expect.objectContaining({ check: 'mode', level: 'fail', found: 'this is a replica' }),
    )
  })

  test('what is forbidden as not known, and that is no error', async () => {
    await client.call(
      'ACL',
      'SETUSER',
      'narrow',
      'on',
      '>p',
      '~*',
      '+@read',
      '+@scripting',
      '+time',
      '-info',
      '-config',
      '-acl',
    )
    const url = server.url.replace('//', '//narrow:p@')
    await add(client, 'none')
    await list('orders')
    const { findings, server: told } = await newInspector(url).doctor()
    const unknown = findings.filter(({ level }) => level === 'unknown').map(({ check }) => check)
    expect(told).toBeNull()
    expect(unknown).toEqual([
      ...['version', 'mode', 'eviction', 'memory', 'persistence', 'write-errors', 'replicas', 'permissions'],
    ])
    expect(findings).toContainEqual(expect.objectContaining({ check: 'retention', where: { stream: 'orders' } }))
    await client.call('ACL', 'DELUSER', 'narrow')
  })

  test('a user that can be no part of millrace, with what it lacks', async () => {
    await client.call('ACL', 'SETUSER', 'half', 'on', '>p', '~*', '+@all', '-xadd', '-xinfo')
    const { findings } = await newInspector(server.url.replace('//', '//half:p@')).doctor()
    expect(findings).toContainEqual(
      expect.objectContaining({
        check: 'permissions',
        level: 'warn',
        found: 'user half can be no part of millrace: for a producer it lacks XADD, XINFO|GROUPS',
      }),
    )
    await client.call('ACL', 'SETUSER', 'half', 'resetkeys', '~other*', '+@all')
    const other = await newInspector(server.url.replace('//', '//half:p@')).doctor()
    const named = await newInspector(server.url.replace('//', '//half:p@')).doctor({ stream: 'orders' })
    for (const { findings: all } of [other, named]) {
      expect(all).toContainEqual(expect.objectContaining({ check: 'permissions', level: 'warn' }))
      expect(all).toContainEqual(expect.objectContaining({ check: 'streams', level: 'unknown' }))
    }
    await client.call('ACL', 'DELUSER', 'half')
  })
})

describe('of streams it finds', () => {
  test('keys of another type, and streams that are gone', async () => {
    await client.set('text', 'x')
    await add(client, 'none')
    await client.set(scheduledKey('orders'), 'bent')
    await list('text', 'gone', 'orders')
    expect((await found('streams')).map(({ level, where }) => [level, where.stream])).toEqual([
      ['fail', 'orders'],
      ['fail', 'text'],
      ['note', 'gone'],
    ])
  })

  test('recurring schedules that no worker fires, and none that are due or over', async () => {
    const { cron } = newInspector(server.url)
    for (const name of ['a', 'b']) await cron.set('orders', { name, job: 'none', everyMs: DAY_MS })
    await makeGroup(client)
    expect(await found('cron')).toEqual([])
    await client.zadd(cronDueKey('orders'), Date.now() - 600_000, 'a')
    expect(await found('cron')).toMatchObject([
      { level: 'warn', where: { stream: 'orders' }, found: expect.stringContaining('the first by 10 min') as string },
    ])
    for (const name of ['a', 'b']) {
      await cron.set('orders', { name, job: 'none', everyMs: DAY_MS, end: Date.now() - 1000 })
    }
    expect(await found('cron')).toEqual([])
  })

  test('those of a stream to which nothing was published yet, and that it is awaited', async () => {
    const { cron } = newInspector(server.url)
    await cron.set('orders', { name: 'a', job: 'none', everyMs: DAY_MS })
    expect([await found('streams'), await found('cron')]).toEqual([[], []])

    await client.zadd(cronDueKey('orders'), Date.now() - 600_000, 'a')
    const overdue = { check: 'cron', level: 'warn', found: expect.stringContaining('the first by 10 min') as string }
    expect(await found('streams')).toEqual([])
    expect(await diagnose('orders')).toContainEqual(expect.objectContaining(overdue))
  })

  test('recurring schedules that were set aside, and not those that are over', async () => {
    const { cron } = newInspector(server.url)
    for (const name of ['a', 'b']) await cron.set('orders', { name, job: 'none', everyMs: DAY_MS })
    await cron.set('orders', { name: 'over', job: 'none', everyMs: DAY_MS, end: Date.now() - 1000 })
    await makeGroup(client)

    await client.zadd(cronDueKey('orders'), '+inf', 'b')
    expect(await found('cron')).toMatchObject([
      {
        level: 'warn',
        where: { stream: 'orders' },
        found: '1 recurring schedule could not be fired: never due until set again',
      },
    ])
  })

  test('ids ahead of the clock', async () => {
    await client.xadd('orders', `${Date.now() + 3_600_000}-0`, 'job', 'none')
    await list('orders')
    expect(await found('clock')).toMatchObject([
      { level: 'warn', found: expect.stringContaining('60 min ahead') as string },
    ])
  })

  test('a stream that nobody reads, and one whose retention is no bound', async () => {
    await add(client, 'none')
    await list('orders')
    expect(await found('retention')).toMatchObject([
      { level: 'note', found: expect.stringContaining('no group') as string },
    ])
    await client.xadd('old', `${Date.now() - 2 * DAY_MS}-0`, 'job', 'none')
    await list('old')
    expect(await found('retention')).toMatchObject([{ level: 'warn', where: { stream: 'old' } }, { level: 'note' }])
    await makeGroup(client)
    const retention = { maxAgeMs: 500 * DAY_MS, maxBytes: 2 ** 41 }
    await newInspector(server.url).settings.set('orders', { retention })
    expect(await found('retention')).toMatchObject(
      [
        { level: 'warn', found: expect.stringContaining('without a bound') as string },
        { level: 'warn', where: { stream: 'old' } },
      ].sort((a, b) => (a.where === undefined ? 1 : 0) - (b.where === undefined ? 1 : 0)),
    )
  })

  test('a stream over its bound, and who holds it', async () => {
    await makeGroup(client)
    await list('orders')
    for (let n = 0; n < 50; n++) await add(client, 'none', 'x'.repeat(1000))
    await newInspector(server.url).settings.set('orders', { retention: { maxBytes: 10_000 } })
    expect(await found('retention')).toMatchObject([
      { level: 'warn', found: expect.stringContaining('group main holds it') as string },
    ])
  })

  test('a replay that was left behind', async () => {
    await makeGroup(client)
    await list('orders')
    await client.hset(holdsKey('orders'), 'orders abc', `1-0 ${Date.now() + DAY_MS / 2}`)
    expect(await found('replay-holds')).toMatchObject([
      { level: 'warn', fix: 'millrace replays resume orders abc, or millrace replays cancel orders abc' },
    ])
    await client.hset(holdsKey('orders'), 'orders abc', `1-0 ${Date.now() + DAY_MS}`)
    expect(await found('replay-holds')).toEqual([])
  })

  test('a bound that its entries have reached, while nobody reads it', async () => {
    await add(client, 'none')
    await list('orders')
    await newInspector(server.url).settings.set('orders', { maxBacklog: 2 })
    expect(await found('backlog')).toEqual([])
    await add(client, 'none')
    expect(await found('backlog')).toMatchObject([
      {
        level: 'fail',
        where: { stream: 'orders' },
        found: '2 entries, its maxBacklog is 2, and no group',
        fix: 'start a worker for it, or raise the bound: millrace settings orders backlog.max=…',
      },
    ])
  })

  test('delayed publishes and retries that are overdue or set aside', async () => {
    await makeGroup(client)
    await list('orders')
    for (const key of [scheduledKey('orders'), groupScheduledKey('orders', 'main')]) {
      await client.zadd(key, Date.now() - 600_000, '1-1', '+inf', '2-1')
    }
    const all = await found('delayed')
    expect(all.map(({ level, where }) => [level, where.group])).toEqual([
      ['warn', undefined],
      ['warn', undefined],
      ['warn', 'main'],
      ['warn', 'main'],
    ])
    expect(all.map((one) => one.found)).toEqual(
      expect.arrayContaining(['1 delayed publish could not be moved when due', '1 retry could not be moved when due']),
    )
  })

  test('pauses: a note, and a warning when they last for days', async () => {
    await makeGroup(client)
    await list('orders')
    await newInspector(server.url).pause('orders')
    expect(await found('paused')).toMatchObject([{ level: 'note', fix: 'millrace resume orders' }])
    const old = JSON.stringify({ sinceMs: Date.now() - 3 * DAY_MS, by: 'x', reason: '' })
    await client.hset('{orders}:settings', 'group:main:paused', old)
    expect(await found('paused')).toMatchObject([
      { level: 'warn', where: { stream: 'orders', group: 'main' }, fix: 'millrace resume orders main' },
      { level: 'note' },
    ])
  })
})

describe('of groups it finds', () => {
  test('one that nobody was heard of for a day, and what it pins', async () => {
    await makeGroup(client)
    await list('orders')
    await add(client, 'none')
    await client.hset(workersInfoKey('orders', 'main'), ':beat', Date.now() - 2 * DAY_MS)
    expect(await found('abandoned')).toMatchObject([
      { level: 'warn', fix: expect.stringContaining('millrace groups remove orders main') as string },
    ])
    expect(await found('no-workers')).toEqual([])
  })

  test('one with work and without workers, unless it is paused or has nothing to do', async () => {
    await makeGroup(client)
    await list('orders')
    expect(await found('no-workers')).toEqual([])
    await add(client, 'none')
    expect(await found('no-workers')).toMatchObject([
      { level: 'warn', found: 'no worker, and 1 job unread, 0 pending' },
    ])
    await newInspector(server.url).pause('orders')
    expect(await found('no-workers')).toEqual([])
  })

  test('one that holds a bounded stream full, and what keeps it from settling', async () => {
    await makeGroup(client)
    await list('orders')
    await newInspector(server.url).settings.set('orders', { maxBacklog: 2 })
    await add(client, 'none')
    expect(await found('backlog')).toEqual([])
    await add(client, 'none')
    // What the group alone sees again is in no bound, and takes no room.
    await client.xadd('{orders}:group:main:redelivery', '*', 'job', 'none')
    const where = { stream: 'orders', group: 'main' }
    const bounded = '2 jobs before it, and the maxBacklog is 2'
    const or = '; or raise the bound: millrace settings orders backlog.max=…'
    const expected = (level: string, told: string, fix: string) =>
      expect.objectContaining({ level, where, found: `${bounded}${told}`, fix: `${fix}${or}` }) as DoctorFinding
    expect(await found('backlog')).toEqual([expected('fail', '; it has no worker', 'start its workers')])
    await client.hset(workersInfoKey('orders', 'main'), ':beat', Date.now() - 2 * DAY_MS)
    expect(await found('backlog')).toEqual([
      expected('fail', '; it has no worker', 'start its workers, or remove it: millrace groups remove orders main'),
    ])
    await newInspector(server.url).pause('orders', { group: 'main' })
    expect(await found('backlog')).toEqual([expected('warn', '; it is paused', 'millrace resume orders main')])
    await newInspector(server.url).pause('orders')
    expect(await found('backlog')).toEqual([expected('warn', '; it is paused', 'millrace resume orders')])
    await client.del('{orders}:settings')
    await newInspector(server.url).settings.set('orders', { maxBacklog: 2 })
    await client.zadd(workersKey('orders', 'main'), Date.now(), 'alive')
    expect(await found('backlog')).toEqual([expected('warn', '', 'add workers')])
  })

  test('one whose lag is not known, so that the bound of its stream does not hold', async () => {
    await makeGroup(client)
    await list('orders')
    const ids = [await add(client, 'none'), await add(client, 'none'), await add(client, 'none')]
    await client.xdel('orders', ids[1] ?? '')
    expect(await found('backlog')).toEqual([])
    await newInspector(server.url).settings.set('orders', { maxBacklog: 1 })
    expect(await found('backlog')).toMatchObject([
      {
        level: 'warn',
        where: { stream: 'orders', group: 'main' },
        found: expect.stringContaining('does not hold') as string,
      },
    ])
  })

  test('one of a name that no worker may have, and how it is removed', async () => {
    await list('orders')
    await add(client, 'none')
    for (const name of ["it's not ours", '\u001b[2J']) await client.xgroup('CREATE', 'orders', name, '0')
    expect((await found('no-workers')).map(({ fix }) => fix).sort()).toEqual([
      'if nobody needs it, remove it by XGROUP DESTROY',
      "if nobody needs it: redis-cli XGROUP DESTROY orders 'it'\\''s not ours'",
    ])
  })

  test('pending jobs that nobody renews, beside workers that live', async () => {
    await makeGroup(client)
    await list('orders')
    await add(client, 'none')
    await client.xreadgroup('GROUP', 'main', 'gone', 'STREAMS', 'orders', '>')
    await client.zadd(workersKey('orders', 'main'), Date.now(), 'alive')
    expect(await found('stuck')).toEqual([])
    const [id = ''] = (await client.xrange('orders', '-', '+'))[0] ?? []
    await client.xclaim('orders', 'main', 'gone', 0, id, 'IDLE', 31_000, 'JUSTID')
    expect(await found('stuck')).toMatchObject([
      { level: 'warn', found: '1 pending job that nobody has renewed for up to 31 s' },
    ])
  })

  test('workers of different versions', async () => {
    await startWorker({ redis: server.url })
    await client.zadd(workersKey('orders', 'main'), Date.now(), 'other')
    await client.hset(workersInfoKey('orders', 'main'), 'other', JSON.stringify({ version: '0.0.1', slots: 1 }))
    await eventually(async () => expect(await found('worker-versions')).toMatchObject([{ level: 'note' }]))
  })

  test('dead letters: a note, and a warning before they are discarded', async () => {
    await makeGroup(client)
    await list('orders')
    await bury(client, { id: '1-0' })
    expect(await found('dead-letters')).toMatchObject([
      { level: 'note', found: expect.stringContaining('1 dead letter,') as string },
    ])
    await client.del('{orders}:group:main:dead')
    const oldMs = Date.now() - 29 * DAY_MS
    await bury(client, { id: '1-0', deadId: `${oldMs}-0`, deadMs: oldMs })
    expect(await found('dead-letters')).toMatchObject([
      { level: 'warn', found: expect.stringContaining('29 days') as string },
    ])
  })

  test('lag that is not known', async () => {
    await makeGroup(client)
    await list('orders')
    const ids = [await add(client, 'none'), await add(client, 'none'), await add(client, 'none')]
    await client.xdel('orders', ids[1] ?? '')
    expect(await found('lag')).toMatchObject([{ level: 'note' }])
  })
})

test('of more than 100 streams it looks at the first, and says so; a named one is looked at alone', async () => {
  const names = Array.from({ length: 101 }, (_, n) => `s${String(n).padStart(3, '0')}`)
  for (const name of names) await client.xadd(name, '*', 'job', 'none')
  await list(...names)
  const diagnosis = await newInspector(server.url).doctor()
  expect([diagnosis.streams, diagnosis.more]).toEqual([100, true])
  const one = await newInspector(server.url).doctor({ stream: 's100' })
  expect([one.streams, one.more]).toEqual([1, false])
  await expect(newInspector(server.url).doctor({ stream: 's999' })).rejects.toMatchObject({ code: 'ERR_NOT_FOUND' })
  await expect(newInspector(server.url).doctor({ streams: [] } as never)).rejects.toMatchObject({ code: 'ERR_OPTION' })
})

describe('a version', () => {
  const of = (version: string, software: 'redis' | 'valkey' = 'redis') =>
    versionFindings({ ...SOUND_FACTS, software, version }).map(({ level }) => level)

  test('below the floor fails; with a fault that workers meet it is a warning, else at most a note', () => {
    expect(of('6.0.16')).toEqual(['fail'])
    expect(of('6.2.14')).toEqual(['ok', 'note'])
    expect(of('7.0.15')).toEqual(['ok', 'note'])
    expect(of('7.2.4')).toEqual(['note', 'note', 'warn'])
    expect(of('8.8.2')).toEqual(['ok'])
    expect(of('8.2.9')).toEqual(['ok'])
    expect(of('9.0.0', 'valkey')).toEqual(['ok'])
    expect(of('7.2.4', 'valkey')).toEqual(['ok', 'note'])
    expect(of('unknown')).toEqual(['unknown'])
  })

  test('has a fault until the repair of its own line, or of the last', () => {
    const flaw = { since: '7.2.0', fixedIn: ['7.4.9', '8.2.6', '8.8.0'] }
    const versions = ['7.0.15', '7.2.9', '7.4.8', '7.4.9', '7.4.10', '8.0.9', '8.2.5', '8.2.6', '8.8.0', '10.0.0']
    expect(versions.filter((version) => hasFlaw(version, flaw))).toEqual(['7.2.9', '7.4.8', '8.0.9', '8.2.5'])
  })
})

test('findings come worst first, each with why and what to do, and those that are fine with neither', () => {
  const facts: Facts = {
    nowMs: 0,
    server: {
      facts: { ...SOUND_FACTS, mode: 'cluster', isAofOk: false, evictionPolicy: undefined },
      minReplicas: 0,
      clock: { aheadMs: -60_000, withinMs: 1 },
    },
    permissions: undefined,
    streams: [],
    more: false,
    isListForbidden: false,
  }
  const findings = findingsOf(facts)
  const levels = findings.map(({ level }) => level)
  expect([...levels].sort((a, b) => ORDER.indexOf(a) - ORDER.indexOf(b))).toEqual(levels)
  expect(findings.slice(0, 3).map(({ check, level }) => [check, level])).toEqual([
    ['write-errors', 'fail'],
    ['mode', 'warn'],
    ['clock', 'warn'],
  ])
  for (const { level, why, fix } of findings) expect([why !== '', fix !== '']).toEqual([level !== 'ok', level !== 'ok'])
})

const ORDER = ['fail', 'warn', 'unknown', 'note', 'ok']
const SOUND_FACTS: ServerFacts = serverFacts(
  'redis_version:7.0.15\r\nredis_mode:standalone\r\nrole:master\r\nused_memory:1\r\nmaxmemory:100\r\nmaxmemory_policy:noeviction\r\naof_enabled:1',
  { savePoints: '', fsync: 'everysec' },
)
