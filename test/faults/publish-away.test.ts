import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { startProxy } from '../helpers/proxy.ts'
import { openAdmin } from '../helpers/publish-faults.ts'
import { Field } from '../helpers/publish-field.ts'
import { Ledger } from '../helpers/publish-ledger.ts'
import { Load, readStream, type LoadOptions } from '../helpers/publish-load.ts'
import { startServer, type ControlledServer } from '../helpers/redis.ts'

/** Outages that need more than one server, or a server that is not there at first. */

/** A primary waits some seconds for more replicas before it gives one its data. */
const NO_SYNC_DELAY = ['--repl-diskless-sync-delay', '0']

function adminOf(server: ControlledServer) {
  const admin = openAdmin(server.url)
  onEnd(() => admin.disconnect())
  return admin
}

test('every publish is told the truth while Redis is away at the start of its producers', async () => {
  const server = await startServer({ aof: true })
  const ground = { server, admin: adminOf(server), proxy: await startProxy(server.url) }
  await server.kill()
  const field = new Field(ground)
  onEnd(() => field.close())
  await field.stalls()
  await server.restart()
  await field.flows()

  const { violations, counts } = await field.settle()
  expect(violations).toEqual([])
  expect(counts.in).toBeGreaterThan(0)
})

test('every publish is told the truth while Redis has lost its data directory, and until writes are allowed again', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-gone-'))
  onEnd(() => rm(dir, { recursive: true, force: true }))
  await mkdir(join(dir, 'data'))
  const server = await startServer({ args: ['--dir', join(dir, 'data'), '--save', '86400 100000000'] })
  const ground = { server, admin: adminOf(server), proxy: await startProxy(server.url) }
  const field = new Field(ground)
  onEnd(() => field.close())
  await field.flows()
  await rm(join(dir, 'data'), { recursive: true })
  await ground.admin.bgsave()
  await field.stalls()
  await ground.admin.config('SET', 'stop-writes-on-bgsave-error', 'no')
  await field.flows()

  const { violations } = await field.settle()
  expect(violations).toEqual([])
})

test('a job that a replica was said to have is there once after its promotion, and what is published then too', async () => {
  const start = () => startServer({ args: NO_SYNC_DELAY })
  const [primary, replica] = await Promise.all([start(), start()])
  const [before, after] = [adminOf(primary), adminOf(replica)]
  await after.replicaof('127.0.0.1', primary.port)
  await eventually(async () => expect(await after.info('replication')).toMatch(/master_link_status:up/))
  const proxy = await startProxy(primary.url)
  const ledger = new Ledger()
  const open = (name: string, more: LoadOptions['producer']) =>
    new Load({ name, ledger, timeoutMs: 30_000, everyMs: 25, producer: { redis: proxy.url, ...more } })
  const load = open('a producer that wants a replica', { durability: { replicas: 1, timeoutMs: 30_000 } })
  onEnd(() => load.close(0))
  await before.ping()
  load.start()
  await eventually(() => expect(load.counts.replicated).toBeGreaterThan(100))
  await primary.kill()
  await after.replicaof('NO', 'ONE')
  proxy.retarget(replica.url)
  const then = ledger.counts.in
  // What is published now waits for a replica of the new primary: it is the old one, which has lost everything.
  await primary.restart()
  await before.replicaof('127.0.0.1', replica.port)
  await load.stop()
  const last = open('a producer after it', {})
  onEnd(() => last.close(0))
  expect(await last.publish()).toBe('in')
  await eventually(() => expect(ledger.open).toBe(0))
  await readStream(after, ledger)
  ledger.checkMissing()

  expect(ledger.violations).toEqual([])
  expect(ledger.counts.in).toBeGreaterThan(then)
})
