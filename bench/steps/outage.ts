import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Registry } from 'prom-client'
import { type PrivateRedis, startRedis } from '../../cli/redis-server.ts'
import { Producer } from '../../src/index.ts'
import { connect, STREAM } from '../contenders/stream.ts'
import { JOB_NAME, PAYLOAD } from '../payload.ts'
import { expectCount } from './expect-count.ts'
import type { Figures, OutageTask } from './task.ts'

/** How many are published in one turn of the event loop, as by a service that answers many requests. */
const AT_ONCE = 100
const TURNS = 3
const RESTARTS = 3

export function outage(task: OutageTask): Promise<Figures> {
  return withServer((server) =>
    task.what === 'away' ? publishWhileAway(server, task.jobs) : publishThrough(server, task.jobs),
  )
}

/** The one that is measured must be taken away, so it is not the one that every measurement is given. */
interface Server {
  readonly url: string
  kill(): Promise<void>
  restart(): Promise<void>
}

async function withServer(work: (server: Server) => Promise<Figures>): Promise<Figures> {
  const dir = await mkdtemp(join(tmpdir(), 'millrace-outage-'))
  // Every second would not do: what it has confirmed is then not always written when it is killed.
  const args = ['--appendonly', 'yes', '--appendfsync', 'always']
  let running: PrivateRedis = await startRedis({ args, dir })
  const { url } = running
  const kill = async () => {
    if (running.pid !== undefined) process.kill(running.pid, 'SIGKILL')
    await running.stop()
  }
  try {
    return await work({
      url,
      kill,
      restart: async () => {
        running = await startRedis({ args, dir, port: Number(new URL(url).port) })
      },
    })
  } finally {
    await running.stop()
    await rm(dir, { recursive: true, force: true })
  }
}

/**
 * Buffered publishes, in turns: while Redis is there, which also has to be sent to meanwhile, and while it is away. Timed is
 * until the last one was taken; then how long Redis, being back, takes to have them all.
 */
async function publishWhileAway(server: Server, jobs: number): Promise<Figures> {
  const buffer = { maxJobs: jobs + AT_ONCE, maxBytes: 2 ** 30 }
  const producer = new Producer({ redis: server.url, durability: 'buffered', buffer, registry: new Registry() })
  let told = 0
  producer.on('job:published', () => (told += 1))
  let published = 0
  const publish = async () => {
    const startedAtMs = performance.now()
    for (let left = jobs; left > 0; left -= AT_ONCE) {
      for (let at = 0; at < Math.min(AT_ONCE, left); at++) void producer.publish(JOB_NAME, PAYLOAD, { stream: STREAM })
      await nextTurn()
    }
    published += jobs
    return performance.now() - startedAtMs
  }
  const flushed = async () => {
    while (told < published) await nextTurn()
  }
  await publish()
  await flushed()
  const ms = { connected: 0, away: 0, flush: 0 }
  for (let turn = 0; turn < TURNS; turn++) {
    ms.connected += await publish()
    await flushed()
    await server.kill()
    ms.away += await publish()
    expectCount('jobs told to be published while Redis was away', published - jobs, told)
    await server.restart()
    const backAtMs = performance.now()
    await flushed()
    ms.flush += performance.now() - backAtMs
  }
  await producer.close()
  await expectEntries(server.url, published)
  const perSecond = (all: number) => ((jobs * TURNS) / all) * 1000
  return {
    connectedPerSecond: perSecond(ms.connected),
    awayPerSecond: perSecond(ms.away),
    awayRatio: ms.connected / ms.away,
    flushPerSecond: perSecond(ms.flush),
  }
}

/** Through three kills, at a quarter, half and three quarters of the jobs; each is there once, and in its order. */
async function publishThrough(server: Server, jobs: number): Promise<Figures> {
  const producer = new Producer({ redis: server.url, registry: new Registry(), timeoutMs: 60_000 })
  let outages = 0
  /** One after the other, also where all jobs are handed over before the first is over. */
  let restarted = Promise.resolve()
  const every = Math.floor(jobs / (RESTARTS + 1))
  let awayMs = 0
  const restart = async () => {
    const goneAtMs = performance.now()
    await server.kill()
    await server.restart()
    awayMs += performance.now() - goneAtMs
  }
  async function* orders() {
    for (let order = 0; order < jobs; order++) {
      if (order > 0 && order % every === 0 && outages < RESTARTS) {
        outages += 1
        restarted = restarted.then(restart)
      }
      yield { ...PAYLOAD, order }
    }
  }
  const startedAtMs = performance.now()
  const { published } = await producer.publishMany(JOB_NAME, orders(), { stream: STREAM })
  const elapsedMs = performance.now() - startedAtMs
  const { maxRSS } = process.resourceUsage()
  await restarted
  expectCount('restarts of Redis', RESTARTS, outages)
  expectCount('published jobs', jobs, published)
  await producer.close()
  await expectEntries(server.url, jobs, (order, at) => order === at)
  return { jobsPerSecond: (jobs / elapsedMs) * 1000, maxRssMib: maxRSS / 1024, awayMs }
}

async function expectEntries(
  url: string,
  count: number,
  isRight = (_order: number, _at: number) => true,
): Promise<void> {
  const redis = connect(url)
  try {
    let seen = 0
    for (let from = '-'; ;) {
      const entries = await redis.xrange(STREAM, from, '+', 'COUNT', 10_000)
      for (const [id, fields] of entries) {
        const { order } = JSON.parse(fields[3] ?? '{}') as { order?: number }
        if (!isRight(order ?? -1, seen))
          throw new Error(`expected job ${seen} of the stream to be order ${seen}, got ${order}`)
        seen += 1
        from = `(${id}`
      }
      if (entries.length === 0) break
    }
    expectCount('entries', count, seen)
  } finally {
    redis.disconnect()
  }
}
