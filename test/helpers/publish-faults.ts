/**
 * What can happen to a Redis, and to the way there, while jobs are published. Each fault is begun, and ended by what it gives:
 * the tests end it when it has shown, the soak when it likes.
 */
import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis, type RedisOptions } from 'ioredis'
import type { ControlledServer } from './controlled-server.ts'
import type { FaultProxy } from './network.ts'

/** A Redis, the only way there that producers are given, and a client beside it. */
export interface Ground {
  readonly server: ControlledServer
  readonly proxy: FaultProxy
  /** Not through the proxy. */
  readonly admin: Redis
}

export type Fault = (ground: Ground) => Promise<EndFault>
/** Resolves when Redis takes jobs again, as far as this fault is concerned. */
export type EndFault = () => Promise<void>

/** A client that outlives whatever is done to the server. */
export function openAdmin(url: string, options: RedisOptions = {}): Redis {
  const client = new Redis(url, { maxRetriesPerRequest: null, ...options, replyMapping: 'legacy' })
  client.on('error', () => {})
  return client
}

/** A batch on its way, of whichever script. */
export const isBatch = ([name = '', , keys]: string[]): boolean => name.startsWith('eval') && Number(keys) >= 2

const killed: Fault = async ({ server }) => {
  await server.kill()
  return () => server.restart()
}

const stopped: Fault = async ({ server }) => {
  server.stopProcess()
  return async () => server.continueProcess()
}

/** A replica of a primary that is not there: it answers, and takes no write. Nothing of its data is touched. */
const readonly: Fault = async ({ admin }) => {
  await admin.replicaof('127.0.0.1', 1)
  return async () => void (await admin.replicaof('NO', 'ONE'))
}

const outOfMemory: Fault = async ({ admin }) => {
  await admin.config('SET', 'maxmemory', '100kb')
  return async () => void (await admin.config('SET', 'maxmemory', '0'))
}

/** A directory in the place of the file: the snapshot cannot be put there, and Redis refuses writes until one succeeds. */
const failingSnapshots: Fault = async ({ server, admin }) => {
  const inTheWay = join(server.dir, 'dump.rdb')
  await rm(inTheWay, { recursive: true, force: true })
  await mkdir(inTheWay)
  await admin.config('SET', 'save', '86400 100000000')
  await saveUntil(admin, 'err')
  return async () => {
    await rm(inTheWay, { recursive: true, force: true })
    await saveUntil(admin, 'ok')
    await admin.config('SET', 'save', '')
  }
}

/** A password from one moment to the next, which nobody has. */
const password: Fault = async ({ admin }) => {
  await admin.config('SET', 'requirepass', 'nobody-has-it')
  await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  return async () => void (await admin.config('SET', 'requirepass', ''))
}

/** Fifty ms for each of the keys that `addBallast` has made: it answers between them, LOADING. */
const loading: Fault = async ({ server }) => {
  await server.kill()
  const restarted = server.restart(['--key-load-delay', '50000'])
  const visitor = openAdmin(server.url, { enableReadyCheck: false, maxRetriesPerRequest: 0 })
  const isLoading = () =>
    visitor.get('ballast').then(
      () => false,
      (error: Error) => error.message.startsWith('LOADING'),
    )
  while (!(await isLoading())) await sleep(5)
  // Not longer: what follows the snapshot in the file is many keys, and it answers nobody between those.
  const loaded = sleep(250).then(async () => {
    await visitor.config('SET', 'key-load-delay', '0')
    visitor.disconnect()
    await restarted
  })
  return () => loaded
}

const cut: Fault = async ({ proxy }) => {
  proxy.cut()
  return async () => {}
}

const blackhole: Fault = async ({ proxy }) => {
  proxy.blackhole(true)
  return async () => proxy.blackhole(false)
}

const slow: Fault = async ({ proxy }) => {
  proxy.delay(40)
  return async () => proxy.delay(0)
}

/** A connection that ends in the meantime takes with it what was to happen on it. */
async function orSoon(happened: Promise<void>): Promise<void> {
  const enough = new AbortController()
  await Promise.race([happened, sleep(3000, undefined, { signal: enough.signal }).catch(() => {})])
  enough.abort()
}

const lostReplies: Fault = async ({ proxy }) => {
  const happened = proxy.swallowReplyTo(isBatch, 3)
  return () => orSoon(happened)
}

const lostBatches: Fault = async ({ proxy }) => {
  const happened = proxy.cutBefore(isBatch, 3)
  return () => orSoon(happened)
}

/** Until the client makes a new connection by itself. */
const silence: Fault = async ({ proxy }) => {
  const happened = proxy.swallowReplyKeepOpen(isBatch)
  return () => orSoon(happened)
}

/** Held longer than the client waits, the batch arrives after its resend, and after what followed that. */
const lateBatch: Fault = async ({ proxy }) => {
  const hold = proxy.holdBefore(isBatch)
  return async () => {
    await orSoon(hold.held)
    hold.release()
  }
}

const clientsKilled: Fault = async ({ admin }) => {
  await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
  return async () => {}
}

const scriptsForgotten: Fault = async ({ admin }) => {
  await admin.script('FLUSH')
  return async () => {}
}

/** While one of these is on, nothing that is published gets to Redis. */
export const STOPPING = {
  'is killed and started again': killed,
  'is stopped and continued (SIGSTOP)': stopped,
  'is read-only': readonly,
  'is out of memory': outOfMemory,
  'cannot save its snapshot (MISCONF)': failingSnapshots,
  'wants a password (NOAUTH)': password,
  'loads its data (LOADING)': loading,
  'is behind a black hole': blackhole,
} as const satisfies Record<string, Fault>

/** These disturb, and jobs go on. */
export const DISTURBING = {
  'is cut off for a moment': cut,
  'gets batches whose replies are lost': lostReplies,
  'does not get batches before which the connection is cut': lostBatches,
  'is far away': slow,
  'loses its clients': clientsKilled,
  'forgets its scripts': scriptsForgotten,
} as const satisfies Record<string, Fault>

/** These last until the client gives its connection up, after some seconds. */
export const LINGERING = {
  'goes silent on one connection': silence,
  'gets a batch late': lateBatch,
} as const satisfies Record<string, Fault>

/** A server that can be started so slowly that it says so. */
export const SLOW_TO_LOAD = { aof: true, args: ['--rdbcompression', 'no'] } as const

/** What `loading` needs: keys so large that Redis answers between them, in the part of the file that is a snapshot. */
export async function addBallast(admin: Redis, keys = 12): Promise<void> {
  for (let key = 0; key < keys; key++) await admin.set(`ballast${key}`, Buffer.alloc(2_200_000, key))
  await admin.bgrewriteaof()
  await untilInfo(admin, /aof_rewrite_in_progress:0[^]*aof_rewrite_scheduled:0/)
}

async function saveUntil(admin: Redis, status: 'ok' | 'err'): Promise<void> {
  // Another save, or a rewrite of the append-only file, may be under way.
  while (
    !(await admin.bgsave().then(
      () => true,
      () => false,
    ))
  )
    await sleep(10)
  await untilInfo(admin, new RegExp(`rdb_bgsave_in_progress:0[^]*rdb_last_bgsave_status:${status}`))
}

async function untilInfo(admin: Redis, pattern: RegExp): Promise<void> {
  while (!pattern.test(await admin.info('persistence'))) await sleep(10)
}
