import { createServer } from 'node:http'
import { fileURLToPath } from 'node:url'
import type { Redis } from 'ioredis'
import { Registry } from 'prom-client'
import { freePort } from '../../cli/free-port.ts'
import { Inspector, Producer, Worker, type Job } from '../../src/index.ts'
import { onEnd } from './cleanup.ts'
import { eventually } from './eventually.ts'
import { startProgram, type Program } from './program.ts'

/** A deployment on real processes, and a history of which every number is known: what Prometheus is to tell at the end. */

const HANDLERS = fileURLToPath(new URL('../fixtures/handlers/mixed.ts', import.meta.url))

/** Published to `orders`, by name. */
const PUBLISHED = {
  ...{ plain: 300, gathered: 20, slow: 40, flaky: 30, poison: 6, fatal: 5 },
  ...{ later: 2, dropped: 4, hold: 1, crash: 1, deaf: 1, stray: 2 },
}
const DELAYED = 10
/** Published when Prometheus has seen the pool, half of them for a batch: the first jobs are all done before, and what never rises has no rate. */
export const LATECOMERS = 10
const REFUSED = 3
const MALFORMED = 3
/** Deleted while they were pending. */
const GONE = 2
const ATTEMPTS = 3
const DAY_MS = 86_400_000

/** What must have been counted when all is done. */
export const COUNTED = {
  published: { ...PUBLISHED, plain: PUBLISHED.plain + DELAYED },
  rejected: REFUSED,
  completed: {
    ...{ plain: PUBLISHED.plain + DELAYED - GONE, slow: PUBLISHED.slow, flaky: PUBLISHED.flaky },
    ...{ gathered: PUBLISHED.gathered, crash: 1, deaf: 1 },
  },
  dead: { attempts: PUBLISHED.poison, fatal: PUBLISHED.fatal, malformed: MALFORMED, 'unknown-job': PUBLISHED.stray },
  cancelled: { dropped: PUBLISHED.dropped, hold: 1 },
  retried: { flaky: PUBLISHED.flaky, poison: (ATTEMPTS - 1) * PUBLISHED.poison, later: PUBLISHED.later, hold: 1 },
  promoted: DELAYED + PUBLISHED.flaky + (ATTEMPTS - 1) * PUBLISHED.poison + 1,
  gone: GONE,
  /** A delayed publish and a retry of which only the id is there. */
  setAside: 2,
  /** By a worker that was stopped in the middle of a job. */
  handedBack: 1,
  /** Retries that wait for an hour. */
  scheduled: PUBLISHED.later,
  replaced: 1,
} as const

export interface Deployment {
  /** Where Prometheus finds what, by job of its configuration; known before any of it runs. */
  readonly targets: Readonly<Record<string, readonly string[]>>
  /** Publishes, and works until one job runs and two wait for an hour. */
  begin(): Promise<void>
  /** The rest: a process dies, connections are cut, the last run is cancelled. */
  finish(): Promise<void>
}

export async function deploy(url: string, client: Redis): Promise<Deployment> {
  const [poolPort, servicePort, exporterPort] = [await freePort(), await freePort(), await freePort()]
  const registry = new Registry()
  const producer = new Producer({ redis: url, registry, logger: false })
  const inspector = new Inspector({ redis: url })
  onEnd(async () => {
    inspector.close()
    await producer.close()
  })
  await serve(registry, servicePort)
  const at = (port: number) => `127.0.0.1:${port}`
  const publish = (name: string) => producer.publish(name, { n: 1 }, { stream: 'orders' })
  let pool: Program | undefined

  return {
    targets: { millrace: [at(poolPort), at(servicePort)], 'millrace-exporter': [at(exporterPort)] },
    async begin() {
      await client.config('SET', 'maxmemory', '512mb')
      await neglect(client, producer, inspector)
      await inspector.groups.create('orders', 'main', { startAt: 'oldest' })
      await publishAll(client, producer, inspector)
      await startExporter(url, exporterPort)
      await stopInTheMiddle(url, producer, registry)
      await holdUp(url, producer, registry)
      pool = startPool(url, poolPort)
      await pool.said(/^ready$/)
    },
    async finish() {
      await publish('crash')
      await pool?.said(/ended \(SIGKILL\)/)
      await pool?.said(/^worker \d+ ready/, { skip: 2 })
      await Promise.all(Array.from({ length: LATECOMERS }, (_, n) => publish(n % 2 === 0 ? 'plain' : 'gathered')))
      await client.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
      const held = await eventually(async () => {
        const { jobs } = await inspector.pending('orders', 'main')
        return jobs.find(({ job }) => job === 'hold') ?? Promise.reject(new Error('it does not run'))
      })
      await inspector.cancel('orders', held.jobId)
    },
  }
}

/** A stream as nobody wants it: abandoned, overdue, paused, with an id from the future. */
async function neglect(client: Redis, producer: Producer, inspector: Inspector): Promise<void> {
  for (const n of [0, 1]) await client.xadd('archive', `${Date.now() - DAY_MS - 3_600_000}-${n}`, 'job', 'plain')
  await inspector.groups.create('archive', 'forgotten', { startAt: 'oldest' })
  await client.xreadgroup('GROUP', 'forgotten', 'ghost', 'COUNT', 1, 'STREAMS', 'archive', '>')
  const [[id]] = (await client.xpending('archive', 'forgotten', '-', '+', 1)) as [[string]]
  await client.call('XCLAIM', 'archive', 'forgotten', 'ghost', '0', id, 'IDLE', '600000', 'JUSTID')
  await producer.publish('plain', { n: 1 }, { stream: 'archive', delayMs: 1 })
  await client.zadd('{archive}:group:forgotten:scheduled', 1, 'without a record')
  await client.xadd('archive', `${Date.now() + 600_000}-0`, 'job', 'plain')
  await inspector.pause('archive', { reason: 'nobody works on it' })
  // What is in use by its name, and is no stream.
  await client.sadd('millrace:streams', 'impostor')
  await client.set('impostor', 'text')
}

async function publishAll(client: Redis, producer: Producer, inspector: Inspector): Promise<void> {
  for (let n = 0; n < GONE; n++) await producer.publish('plain', { n }, { stream: 'orders' })
  await client.xreadgroup('GROUP', 'main', 'ghost', 'COUNT', GONE, 'STREAMS', 'orders', '>')
  const ghosts = (await client.xpending('orders', 'main', '-', '+', GONE)) as [string][]
  await client.xdel('orders', ...ghosts.map(([id]) => id))
  await client.zadd('{orders}:scheduled', 1, 'without a record')
  await client.zadd('{orders}:group:main:scheduled', 1, 'without a record')
  for (let n = 0; n < MALFORMED; n++) await client.xadd('orders', '*', 'no', 'job')
  for (let n = 0; n < REFUSED; n++) {
    await producer.publish('plain', undefined, { stream: 'orders' }).catch(() => {})
  }
  // For some scrapes what is published waits in the producer.
  await client.client('PAUSE', 3000, 'WRITE')
  const late = LATECOMERS / 2
  const early = { plain: PUBLISHED.plain - GONE - late, gathered: PUBLISHED.gathered - late, crash: 0 }
  const left = { ...PUBLISHED, ...early }
  const publish = async (name: string, n: number, delayMs = 0): Promise<{ name: string; id: string }> => {
    const { id } = await producer.publish(name, { n }, { stream: 'orders', delayMs })
    return { name, id }
  }
  const published = Object.entries(left).flatMap(([name, count]) =>
    Array.from({ length: count }, (_, n) => publish(name, n)),
  )
  for (let n = 0; n < DELAYED; n++) published.push(publish('plain', n, 300))
  const ids = (await Promise.all(published)).filter(({ name }) => name === 'dropped').map(({ id }) => id)
  for (const id of ids) await inspector.cancel('orders', id)
}

/** A service that has a worker of its own, which is stopped while a job runs. */
async function stopInTheMiddle(url: string, producer: Producer, registry: Registry): Promise<void> {
  let begun = () => {}
  const running = new Promise<void>((resolve) => (begun = resolve))
  const unended = async (_data: unknown, job: Job) => {
    begun()
    await new Promise((resolve) => job.signal.addEventListener('abort', resolve))
    throw new Error('stopped')
  }
  const worker = new Worker({ redis: url, stream: 'mails', handlers: { unended }, registry, logger: false })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  await worker.start()
  await producer.publish('unended', null, { stream: 'mails' })
  await running
  await worker.stop({ drainMs: 0 })
}

/** Another one, whose limit lets one job run at once: of two, one waits for as long as the other runs. */
async function holdUp(url: string, producer: Producer, registry: Registry): Promise<void> {
  const call = (_data: unknown, job: Job) =>
    new Promise<void>((resolve) => job.signal.addEventListener('abort', () => resolve()))
  const limits = [{ name: 'api', concurrency: 1 }]
  const worker = new Worker({ redis: url, stream: 'calls', handlers: { call }, limits, registry, logger: false })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  await worker.start()
  for (let n = 0; n < 2; n++) await producer.publish('call', null, { stream: 'calls' })
}

function startPool(url: string, port: number): Program {
  const retries = ['--retry-attempts', String(ATTEMPTS), '--retry-delay', '100ms']
  return startProgram(
    ['worker', HANDLERS, '--stream', 'orders', '--metrics-port', String(port), '--processes', '2'].concat(
      ...['--lease', '1500ms', '--unknown-jobs', '0s', ...retries],
    ),
    { env: { MILLRACE_REDIS_URL: url } },
  )
}

/** The exporter serves itself before it has reached Redis. */
async function startExporter(url: string, port: number): Promise<void> {
  const exporter = startProgram(['exporter', '--port', String(port), '--consumers', '--memory'], {
    env: { MILLRACE_REDIS_URL: url },
  })
  await exporter.said(/^ready$/)
}

/** As a service does: its registry at /metrics. */
async function serve(registry: Registry, port: number): Promise<void> {
  const server = createServer((_request, response) => {
    void registry.metrics().then((text) => response.setHeader('Content-Type', registry.contentType).end(text))
  })
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve))
  onEnd(() => {
    server.closeAllConnections()
    server.close()
  })
}
