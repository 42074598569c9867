import { connect, createServer } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type * as threading from 'node:worker_threads'
import { expect, test, vi } from 'vitest'
import { Worker } from '../../src/index.ts'
import { renewLeases } from '../../src/redis/scripts/delivery.ts'
import { beside, onEnd } from '../helpers/cleanup.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { ask, bodyOf, portOf, watchHealth } from '../helpers/health.ts'
import { startProxy } from '../helpers/proxy.ts'
import { connectTo, startServer } from '../helpers/redis.ts'
import { add, gate, startWorker, startWorkerProcess, tally } from '../helpers/workers.ts'

/** What `/livez` and `/readyz` say through what can happen to a worker. Each test has a Redis of its own: they run side by side. */

const threads: threading.Worker[] = []

// The real threads, only remembered: a test must be able to kill one.
vi.mock('node:worker_threads', async (original) => {
  const real = await original<typeof threading>()
  class Remembered extends real.Worker {
    constructor(...args: ConstructorParameters<typeof real.Worker>) {
      super(...args)
      threads.push(this)
    }
  }
  return { ...real, Worker: Remembered }
})

const STUCK_MS = 30_000
const LONG_MS = 150_000
const GREEN = { live: 200, ready: 200 }

const statsOf = async (url: string): Promise<{ connections: number; pings: number }> => {
  const client = connectTo(url)
  const text = await client.info('stats', 'commandstats')
  client.disconnect()
  const number = (pattern: RegExp) => Number(pattern.exec(text)?.[1] ?? 0)
  return {
    connections: number(/total_connections_received:(\d+)/) - 1,
    pings: number(/cmdstat_ping:calls=(\d+)/),
  }
}

test.concurrent(
  'a worker with all slots busy for longer than reads may hang stays green, and neither it nor an idle one asks Redis anything for that',
  beside(async () => {
    const server = await startServer()
    const { wait, open } = gate()
    const busy = await startWorker({ redis: server.url, concurrency: 2, healthPort: 0, handlers: { hold: wait } })
    const idle = await startWorker({ redis: server.url, stream: 'others', healthPort: 0 })
    const client = connectTo(server.url)
    for (let n = 0; n < 3; n++) await add(client, 'hold')
    await waitFor(() => busy.counts.delivered >= 2, { what: 'both slots are taken' })
    await eventually(async () => expect((await ask(portOf(idle), '/readyz')).status).toBe(200))
    const before = await statsOf(server.url)
    const watched = [watchHealth(portOf(busy)), watchHealth(portOf(idle))]
    await sleep(STUCK_MS + 6000)
    const after = await statsOf(server.url)
    for (const one of watched) await one.stop()
    open()

    expect(watched.map(({ log }) => log)).toMatchObject([[GREEN], [GREEN]])
    // One is what the first look at the stats itself left.
    expect(after).toEqual({ connections: before.connections + 1, pings: before.pings })
    await eventually(async () => expect(await tally(client)).toEqual({ completed: 3 }))
  }),
  LONG_MS,
)

test.concurrent(
  'Redis stopped for longer than reads may hang: not ready, live all the while, ready again when it goes on',
  beside(async () => {
    const server = await startServer()
    const worker = await startWorker({ redis: server.url, leaseMs: 10_000, healthPort: 0 })
    const watched = watchHealth(portOf(worker))
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready' })
    server.stopProcess()
    await sleep(STUCK_MS + 6000)
    expect(watched.now()).toEqual({ live: 200, ready: 503 })
    expect(worker.health()).toMatchObject({ live: true, ready: false, state: 'running' })
    server.continueProcess()
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready again' })
    // Longer than an old grievance would need to come up.
    await sleep(8000)
    await watched.stop()

    expect(watched.first('live', 503)).toBeUndefined()
    expect(watched.now()).toEqual(GREEN)
  }),
  LONG_MS,
)

test.concurrent(
  'reads that never come back, while Redis answers others: not live after 30 s, live again when they do',
  beside(async () => {
    const server = await startServer()
    const proxy = await startProxy(server.url)
    let isWedged = false
    void proxy.swallowReplyKeepOpen(([name]) => isWedged && name === 'xreadgroup', Infinity)
    const ran: string[] = []
    const worker = await startWorker({
      redis: proxy.url,
      healthPort: 0,
      handlers: { x: (_data, job) => void ran.push(job.id) },
    })
    const watched = watchHealth(portOf(worker))
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready' })
    isWedged = true
    const wedgedAtMs = watched.elapsedMs()
    await waitFor(() => watched.now().live === 503, { what: 'it is not live' })
    const redAtMs = watched.first('live', 503) ?? 0
    expect(watched.log.at(-1)).toMatchObject({ ready: 503, reasons: [expect.stringContaining('no read')] })
    await eventually(() => expect(worker.health()).toMatchObject({ live: false, ready: false, state: 'running' }))
    isWedged = false
    await waitFor(() => watched.now().live === 200, { what: 'it is live again' })
    await watched.stop()

    // The read that was blocked already came back within 5 s; the clock began with it.
    expect(redAtMs - wedgedAtMs).toBeGreaterThan(STUCK_MS - 1000)
    const id = await add(connectTo(server.url), 'x')
    await eventually(() => expect(ran).toContain(id))
    expect(worker.health()).toMatchObject({ live: true, ready: true })
  }),
  LONG_MS,
)

test.concurrent(
  'a Redis that became read-only for 36 s: live, for a restart would change nothing, and at work again afterwards',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    let runs = 0
    const worker = await startWorker({ redis: server.url, healthPort: 0, handlers: { x: () => void (runs += 1) } })
    const watched = watchHealth(portOf(worker))
    await client.replicaof('127.0.0.1', 1)
    await sleep(STUCK_MS + 6000)
    await client.replicaof('NO', 'ONE')
    await add(client, 'x')
    await waitFor(() => runs === 1, { what: 'the job runs' })
    await watched.stop()

    expect(watched.first('live', 503)).toBeUndefined()
  }),
  LONG_MS,
)

test.concurrent(
  'a Redis that holds all writes for 36 s, as in a failover, and answers everything else: live all the while',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const worker = await startWorker({ redis: server.url, healthPort: 0 })
    const watched = watchHealth(portOf(worker))
    await client.call('CLIENT', 'PAUSE', '36000', 'WRITE')
    await sleep(38_000)
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready again' })
    await watched.stop()

    expect(watched.first('live', 503)).toBeUndefined()
    expect(watched.first('ready', 503)).toBeDefined()
  }),
  LONG_MS,
)

test.concurrent(
  'a busy worker whose renewals never come back, while Redis answers others: not live after 30 s',
  beside(async () => {
    const server = await startServer()
    const proxy = await startProxy(server.url)
    const { wait, open } = gate()
    onEnd(open)
    let isWedged = false
    void proxy.swallowReplyKeepOpen(
      ([name, sha]) => isWedged && name === 'evalsha' && sha === renewLeases.sha,
      Infinity,
    )
    const worker = await startWorker({ redis: proxy.url, concurrency: 1, healthPort: 0, handlers: { hold: wait } })
    await add(connectTo(server.url), 'hold')
    await waitFor(() => worker.counts.delivered === 1, { what: 'the slot is taken' })
    const watched = watchHealth(portOf(worker))
    await sleep(2000)
    isWedged = true
    const wedgedAtMs = watched.elapsedMs()
    await waitFor(() => watched.now().live === 503, { what: 'it is not live' })
    const redAtMs = watched.first('live', 503) ?? 0
    isWedged = false
    await waitFor(() => watched.now().live === 200, { what: 'it is live again' })
    await watched.stop()

    expect(redAtMs - wedgedAtMs).toBeGreaterThan(STUCK_MS - 3000)
  }),
  LONG_MS,
)

test.concurrent(
  'an event loop that a handler blocks for 35 s: live and ready all the while, and after',
  beside(async () => {
    const server = await startServer()
    const worker = await startWorkerProcess({ redis: server.url, concurrency: 1, healthPort: 0 })
    const watched = watchHealth(Number((await worker.line(/^health (\d+)$/))[1]))
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready' })
    const client = connectTo(server.url)
    await add(client, 'block', { ms: 35_000 })
    await worker.line(/^ended/)
    await add(client, 'quick')
    await worker.line(/^ran/)
    await sleep(5000)
    await watched.stop()

    expect(watched.log).toMatchObject([GREEN])
  }),
  LONG_MS,
)

test.concurrent(
  'an event loop that stands still for longer than stallMs: not live, live again when it turns',
  beside(async () => {
    const server = await startServer()
    const worker = await startWorkerProcess({ redis: server.url, leaseMs: 1000, stallMs: 3000, healthPort: 0 })
    const watched = watchHealth(Number((await worker.line(/^health (\d+)$/))[1]))
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready' })
    await add(connectTo(server.url), 'block', { ms: 20_000 })
    await worker.line(/^started/)
    const blockedAtMs = watched.elapsedMs()
    await waitFor(() => watched.now().live === 503, { what: 'it is not live' })
    const redAtMs = watched.first('live', 503) ?? 0
    expect(watched.log.at(-1)?.reasons).toContain('the event loop has not turned for stallMs')
    await worker.line(/^ended/)
    await waitFor(() => watched.now().live === 200 && watched.now().ready === 200, { what: 'live and ready again' })
    await watched.stop()

    expect(redAtMs - blockedAtMs).toBeGreaterThan(2500)
  }),
  LONG_MS,
)

test.concurrent(
  'Redis killed and started again after 35 s: live all the while, ready again when it is back',
  beside(async () => {
    const server = await startServer({ aof: true })
    const worker = await startWorker({ redis: server.url, healthPort: 0 })
    const watched = watchHealth(portOf(worker))
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready' })
    await server.kill()
    await sleep(35_000)
    expect(watched.now()).toEqual({ live: 200, ready: 503 })
    await server.restart()
    await waitFor(() => watched.now().ready === 200, { what: 'it is ready again' })
    await watched.stop()

    expect(watched.first('live', 503)).toBeUndefined()
  }),
  LONG_MS,
)

test.concurrent(
  'other paths are not found, other methods not allowed, and a HEAD has no body',
  beside(async () => {
    const server = await startServer()
    const worker = await startWorker({ redis: server.url, healthPort: 0, healthHost: '127.0.0.1' })
    const port = portOf(worker)
    await eventually(async () => expect((await ask(port, '/readyz?verbose')).status).toBe(200))

    expect(worker.healthAddress).toEqual({ host: '127.0.0.1', port })
    expect(await bodyOf(port, '/livez')).toEqual({ live: true, ready: true, state: 'running', reasons: [] })
    for (const path of ['/', '/livez/', '/metrics', '//livez']) expect((await ask(port, path)).status).toBe(404)
    const posted = await ask(port, '/livez', 'POST')
    expect([posted.status, posted.headers['allow']]).toEqual([405, 'GET, HEAD'])
    const head = await ask(port, '/livez', 'HEAD')
    expect([head.status, head.text, head.headers['content-type']]).toEqual([200, '', 'application/json'])
  }),
)

test.concurrent(
  'a port that is taken: the start says so, and nothing is left of the worker',
  beside(async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    const holder = createServer().listen(0)
    onEnd(() => void holder.close())
    await waitFor(() => holder.listening)
    const { port } = holder.address() as { port: number }
    const options = { redis: server.url, stream: 'orders', handlers: { x() {} }, logger: false } as const
    const worker = new Worker({ ...options, healthPort: port })

    await expect(worker.start()).rejects.toMatchObject({
      code: 'ERR_LISTEN',
      message: `cannot listen on port ${port} for health checks: it is in use by another process or worker; choose another healthPort`,
    })
    expect([worker.health().state, worker.healthAddress]).toEqual(['stopped', undefined])
    expect(await worker.stop()).toEqual({ handedBack: 0, unsettled: 0 })
    expect(await client.zcard('{orders}:group:main:workers')).toBe(0)
    expect(await client.call('XINFO', 'CONSUMERS', 'orders', 'main')).toEqual([])
    await eventually(async () => {
      expect(await client.call('CLIENT', 'LIST')).not.toContain('millrace:')
    })
  }),
)

test.concurrent(
  'an address that this machine has not got, or a name that there is not: the start says so',
  beside(async () => {
    const server = await startServer()
    const options = { redis: server.url, stream: 'orders', handlers: { x() {} }, logger: false, healthPort: 0 } as const
    for (const healthHost of ['192.0.2.1', 'no-such-host.invalid']) {
      const started = new Worker({ ...options, healthHost }).start()
      await expect(started).rejects.toMatchObject({
        code: 'ERR_LISTEN',
        message: expect.stringContaining(healthHost) as string,
      })
    }
  }),
)

test.concurrent(
  'health() tells of every state, with or without a port',
  beside(async () => {
    const server = await startServer()
    const { wait, open } = gate()
    const worker = new Worker({ redis: server.url, stream: 'orders', handlers: { hold: wait }, logger: false })
    onEnd(async () => void (await worker.stop({ drainMs: 0 })))
    expect(worker.health()).toEqual({ live: true, ready: false, state: 'new', reasons: ['the worker was not started'] })
    const started = worker.start()
    expect(worker.health()).toMatchObject({ live: true, ready: false, state: 'starting' })
    await started
    expect(worker.health()).toEqual({ live: true, ready: true, state: 'running', reasons: [] })
    await add(connectTo(server.url), 'hold')
    await waitFor(() => worker.counts.delivered === 1)
    const stopped = worker.stop()
    await eventually(() => expect(worker.health()).toMatchObject({ live: true, ready: false, state: 'draining' }))
    open()
    await stopped
    expect(worker.health()).toMatchObject({ live: true, ready: false, state: 'stopped' })
  }),
)

test.concurrent(
  'a worker that drains is live and not ready; when it has stopped nobody listens, though a client kept its connection',
  beside(async () => {
    const server = await startServer()
    const { wait, open } = gate()
    const worker = await startWorker({ redis: server.url, healthPort: 0, handlers: { hold: wait } })
    const port = portOf(worker)
    await add(connectTo(server.url), 'hold')
    await waitFor(() => worker.counts.delivered === 1)
    const stopped = worker.stop()
    await eventually(async () => expect((await ask(port, '/readyz')).status).toBe(503))
    expect(await bodyOf(port, '/readyz')).toMatchObject({ live: true, state: 'draining' })
    expect((await ask(port, '/livez')).status).toBe(200)
    const silent = connect(port, '127.0.0.1')
    silent.on('error', () => {})
    await waitFor(() => silent.readyState === 'open')
    open()
    await stopped

    await expect(ask(port, '/livez')).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    expect(worker.healthAddress).toBeUndefined()
    await waitFor(() => silent.destroyed)
  }),
)

/** The thread of a worker that is started now. */
async function withThread(
  options: Parameters<typeof startWorker>[0],
): Promise<{ worker: Worker; thread: () => threading.Worker }> {
  const known = threads.length
  const worker = await startWorker(options)
  return { worker, thread: () => threads.slice(known).at(-1) as threading.Worker }
}

test('the port is kept when the thread that answers is killed and another one starts', async () => {
  const server = await startServer()
  const { worker, thread } = await withThread({ redis: server.url, healthPort: 0 })
  const port = portOf(worker)
  for (let killed = 0; killed < 2; killed++) {
    const before = thread()
    await before.terminate()
    await waitFor(() => thread() !== before, { what: 'another thread is started' })
    await eventually(async () => expect((await ask(port, '/readyz')).status).toBe(200))
  }

  expect(portOf(worker)).toBe(port)
  await eventually(() => expect(worker.health()).toMatchObject({ live: true, ready: true }))
})

test('a port that is lost while the thread is away is called for loudly and taken again when it is free', async () => {
  const server = await startServer()
  const errors: string[] = []
  const error = ({ fault }: { fault?: string }, text: string) => void errors.push(`${text}: ${fault}`)
  const logger = { info() {}, warn() {}, debug() {}, error }
  const ran: string[] = []
  const handlers = { x: (_data: unknown, job: { id: string }) => void ran.push(job.id) }
  const { worker, thread } = await withThread({ redis: server.url, healthPort: 0, logger, handlers })
  const port = portOf(worker)
  const thief = createServer()
  thief.on('error', () => thief.listen(port))
  // Its port is free as soon as the thread is gone; the next thread starts a moment later.
  thread().once('exit', () => thief.listen(port))
  await thread().terminate()
  await eventually(() => expect(errors).toContainEqual(expect.stringContaining(`cannot listen on port ${port}`)))
  const id = await add(connectTo(server.url), 'x')
  await eventually(() => expect(ran).toEqual([id]))
  expect(worker.health()).toMatchObject({ live: true, state: 'running' })
  await new Promise((resolve) => thief.close(resolve))

  await eventually(async () => expect((await ask(port, '/livez')).status).toBe(200))
  expect(portOf(worker)).toBe(port)
})
