import type { Redis } from 'ioredis'
import { copyFile, mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { beforeAll, describe, expect, test } from 'vitest'
import { Producer, StreamMetrics } from '../src/index.ts'
import { readPermissions, ROLES } from '../src/redis/permissions.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { connectTo, startServer } from './helpers/redis.ts'
import { startWorker } from './helpers/workers.ts'

/** The users of docs/deploy/users.acl, on a server that loaded that very file. */

const FILE = join(import.meta.dirname, '..', 'docs', 'deploy', 'users.acl')

let url = ''
let admin: Redis

beforeAll(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-acl-'))
  onEnd(() => rm(dir, { recursive: true, force: true }))
  // A copy: ACL SAVE would write to it.
  await copyFile(FILE, join(dir, 'users.acl'))
  const server = await startServer({ args: ['--aclfile', join(dir, 'users.acl'), '--appendonly', 'yes'] })
  url = server.url
  admin = connectTo(as('admin'))
  await admin.ping()
})

const as = (role: string) => url.replace('//', `//millrace-${role}:change-me@`)

/** Commands that somebody was not allowed to run, inside of scripts too. */
async function denied(): Promise<string[]> {
  const log = (await admin.call('ACL', 'LOG', '128')) as unknown[][]
  return log.map((flat) => {
    const entry = new Map(flat.flatMap((name, at) => (at % 2 === 0 ? [[String(name), String(flat[at + 1])]] : [])))
    return `${entry.get('username') ?? ''} ${entry.get('context') ?? ''} ${entry.get('reason') ?? ''} ${entry.get('object') ?? ''}`
  })
}

/** What the client asks of every server and goes on without, and what may tell passwords: a doctor goes on without it. */
const DENIED_BY_DESIGN = /(hello|client\|setinfo|config\|get)$/

test('each user has what its role needs, by name and key', async () => {
  for (const role of ROLES) {
    const seen = await readPermissions(admin, 'orders', `millrace-${role}`)
    expect(seen?.lacks[role], role).toEqual([])
  }
})

test('producer, worker, exporter and inspector do their work as these users, and nothing is denied', async () => {
  await admin.call('ACL', 'LOG', 'RESET')
  const producer = new Producer({ redis: as('producer'), logger: false })
  onEnd(async () => void (await producer.close()))
  // Another one, which meets the bound with its first batch.
  const publisher = new Producer({ redis: as('producer'), logger: false })
  onEnd(async () => void (await publisher.close()))
  const worker = await startWorker({
    redis: as('worker'),
    retry: { attempts: 2, delayMs: 50 },
    // So that it asks what other workers know before it lets a job die.
    unknownJobMs: 1,
    handlers: {
      none() {},
      fails() {
        throw new Error('no')
      },
    },
  })
  const { id } = await producer.publish('none', { n: 1 }, { stream: 'orders' })
  await producer.publish('fails', {}, { stream: 'orders' })
  await producer.publish('strange', {}, { stream: 'orders' })
  await producer.publish('none', {}, { stream: 'orders', delayMs: 50 })
  await producer.publish('none', {}, { stream: 'orders', delayMs: 3_600_000 })
  const inspector = newInspector(as('inspector'))
  await inspector.settings.set('orders', { maxBacklog: 1_000_000 })
  const once = { stream: 'orders', idempotencyToken: 'a' }
  await publisher.publish('none', {}, once)
  expect((await publisher.publish('none', {}, once)).outcome).toBe('duplicate')
  const replicas = await publisher.publish('none', {}, { stream: 'orders', durability: { replicas: 1, timeoutMs: 1 } })
  expect(replicas.isReplicated).toBe(false)
  await eventually(async () => {
    const [stats] = await inspector.stats('orders')
    expect(stats).toMatchObject({ scheduled: 1, groups: [{ lag: 0, pending: 0, dead: 2 }] })
  })
  const registry = new Registry()
  const metrics = new StreamMetrics({ redis: as('exporter'), registry, logger: false, consumers: true, memory: true })
  onEnd(() => metrics.close())
  const served = await registry.metrics()
  expect(served).toContain('millrace_dead_letter_entries{stream="orders",group="main"} 2')
  expect(served).toMatch(/^millrace_stream_memory_bytes\{stream="orders"\} \d+/m)
  expect(served).toMatch(/^millrace_redis_info/m)
  expect(served).not.toMatch(/^millrace_exporter_scrape_errors_total.* [1-9]/m)
  const reader = newInspector(as('exporter'))
  await reader.stats('orders')
  await reader.dead.list('orders', 'main', { filter: { fromMs: 1 } })
  await inspector.doctor()
  await inspector.streams()
  await inspector.pending('orders', 'main')
  await inspector.workers('orders', 'main')
  await inspector.history('orders', 'main')
  expect((await inspector.explain('orders', id)).isKnown).toBe(true)
  expect((await inspector.find('orders', { job: 'none' })).jobs.length).toBeGreaterThan(0)
  const { letters } = await inspector.dead.list('orders', 'main')
  await inspector.dead.show('orders', 'main', letters[0]?.id ?? '')
  await inspector.dead.errors('orders', 'main')
  await inspector.dead.redrive('orders', 'main', { execute: true })
  await inspector.dead.purge('orders', 'main', { execute: true })
  const waiting = await inspector.scheduled.list('orders')
  await inspector.cancel('orders', waiting.jobs[0]?.id ?? '')
  await inspector.pause('orders', { group: 'main' })
  await inspector.resume('orders', { group: 'main' })
  await inspector.settings.set('orders', { retention: { maxEntries: 1000 } })
  await inspector.settings.get('orders')
  await inspector.groups.create('orders', 'billing', { startAt: 'oldest' })
  await inspector.replays.start('orders', { from: 0, group: 'billing' })
  await inspector.replays.list('orders')
  await inspector.audit('orders', { group: 'main' })
  await inspector.groups.remove('orders', 'billing')
  await inspector.trim('orders', { maxEntries: 0, execute: true })
  await inspector.tail('orders').next()
  await worker.stop()
  expect((await denied()).filter((line) => !DENIED_BY_DESIGN.test(line))).toEqual([])
})

describe('none of them can do more', () => {
  const mayRun = async (role: string, ...words: string[]) =>
    (await admin.call('ACL', 'DRYRUN', `millrace-${role}`, ...words)) === 'OK'

  test.each([...ROLES])('%s', async (role) => {
    for (const words of [
      ['FLUSHALL'],
      ['FLUSHDB'],
      ['KEYS', '*'],
      ['SCAN', '0'],
      ['CONFIG', 'GET', '*'],
      ['CONFIG', 'SET', 'maxmemory', '1'],
      ['SHUTDOWN'],
      ['DEBUG', 'SLEEP', '1'],
      ['ACL', 'SETUSER', 'x'],
      ['REPLICAOF', 'NO', 'ONE'],
      ['HGET', 'other', 'f'],
      ['HGET', '{other}:settings', 'f'],
      ['EVALSHA', 'x', '1', 'other'],
      ['EVAL_RO', 'return 1', '1', 'other'],
      ['XADD', 'other', '*', 'f', 'v'],
      ['XGROUP', 'CREATE', 'other', 'g', '0'],
    ]) {
      expect(await mayRun(role, ...words), words.join(' ')).toBe(false)
    }
  })

  test('a producer neither reads jobs nor trims; a worker removes no groups and no streams; an exporter writes nothing', async () => {
    for (const words of [
      ['XRANGE', 'orders', '-', '+'],
      ['XTRIM', 'orders', 'MINID', '0'],
      ['XACK', 'orders', 'g', '1-0'],
      ['DEL', 'orders'],
    ])
      expect(await mayRun('producer', ...words), words.join(' ')).toBe(false)
    for (const words of [
      ['DEL', 'orders'],
      ['UNLINK', 'orders'],
      ['XGROUP', 'DESTROY', 'orders', 'g'],
      ['XGROUP', 'SETID', 'orders', 'g', '0'],
    ])
      expect(await mayRun('worker', ...words), words.join(' ')).toBe(false)
    for (const words of [
      ['EVAL', 'return 1', '1', 'orders'],
      ['EVALSHA', 'x', '1', 'orders'],
      ['XADD', 'orders', '*', 'f', 'v'],
      ['SADD', 'millrace:streams', 'x'],
    ])
      expect(await mayRun('exporter', ...words), words.join(' ')).toBe(false)
  })

  test('nobody is let in without a name', async () => {
    await expect(newInspector(url).streams()).rejects.toMatchObject({ code: 'ERR_REDIS_REFUSED' })
  })

  test('a script of a user is held to what the user may', async () => {
    const worker = connectTo(as('worker'))
    await expect(worker.eval("return redis.call('DEL', KEYS[1])", 1, 'orders')).rejects.toThrow(
      /can't run this command|NOPERM/,
    )
    await expect(worker.eval("return redis.call('HGET', 'other', 'f')", 0)).rejects.toThrow(/can't access|NOPERM/)
  })
})

test('every password of the file is one to be replaced', async () => {
  const text = await readFile(FILE, 'utf8')
  expect(text.match(/>\S+/g)?.every((word) => word === '>change-me')).toBe(true)
})
