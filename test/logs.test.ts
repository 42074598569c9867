import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, openSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { inspect } from 'node:util'
import type * as threading from 'node:worker_threads'
import { stdSerializers } from 'pino'
import { describe, expect, test, vi } from 'vitest'
import { FatalError, Inspector, Producer, Worker } from '../src/index.ts'
import { resolveLogger, withFields } from '../src/logger.ts'
import { withoutArguments } from '../src/redis/faults.ts'
import { LOADER } from './helpers/child.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { keepingLogger, type Logged } from './helpers/log.ts'
import { logCalls, logCallsIn } from './helpers/log-messages.ts'
import { connectTo, startServer, type ControlledServer } from './helpers/redis.ts'
import { add, gate, startWorker } from './helpers/workers.ts'

/** What is logged, and what never is. Each test has a Redis of its own, to break as it likes. */

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

const ROOT = join(import.meta.dirname, '..')
const MARKER = 'payload-that-nobody-may-read'
const PASSWORD = 'hunter2-is-secret'

function newProducer(options: ConstructorParameters<typeof Producer>[0]): Producer {
  const producer = new Producer(options)
  onEnd(async () => void (await producer.close({ timeoutMs: 0 })))
  return producer
}

const failureOf = (promise: Promise<unknown>): Promise<Error> =>
  promise.then(
    () => expect.fail('it did not fail'),
    (error: unknown) => error as Error,
  )

describe('a worker', () => {
  /** Drives a worker through what can happen to it, and stops it. */
  async function eventfulLife(server: ControlledServer): Promise<{ lines: Logged[]; worker: Worker }> {
    const { logger, lines, messages } = keepingLogger()
    const client = connectTo(server.url)
    const said = (message: string) => eventually(() => expect([...messages()]).toContain(message))
    await (await startWorker({ redis: server.url, leaseMs: 2000 })).stop()
    const held = [gate(), gate(), gate()]
    const worker = await startWorker({
      redis: server.url,
      leaseMs: 1500,
      retry: { attempts: 2, delayMs: 1 },
      logger,
      handlers: {
        good: () => {},
        bad: () => Promise.reject(new Error('no')),
        fatal: () => Promise.reject(new FatalError('never')),
        late: () => held[0]?.wait(),
        lost: () => held[1]?.wait(),
        cancelled: () => held[2]?.wait(),
      },
    })
    worker.on('job:completed', () => expect.fail('a listener that throws'))
    for (const name of ['good', 'bad', 'fatal', 'nobody-knows']) await add(client, name)
    await client.xadd('orders', '*', 'data', '{}')
    await said('job cannot be run here: it waits at no cost for a worker that can')
    const [late, lost, cancelled] = [
      await add(client, 'late'),
      await add(client, 'lost'),
      await add(client, 'cancelled'),
    ]
    const running = async () => (await client.xpending('orders', 'main', '-', '+', 10)).length
    await eventually(async () => expect(await running()).toBeGreaterThanOrEqual(3))
    await client.xack('orders', 'main', late)
    held[0]?.open()
    await said('completions came late: these jobs were settled already, they ran twice')
    await client.xclaim('orders', 'main', 'somebody-else', 0, lost, 'JUSTID')
    await said('lease lost: the job runs elsewhere')
    await newInspector(server.url).cancel('orders', cancelled)
    held[1]?.open()
    held[2]?.open()
    await newInspector(server.url).pause('orders', { group: 'main', reason: 'a look' })
    await eventually(() => expect([...messages()].join()).toContain('paused until it is resumed'))
    await newInspector(server.url).resume('orders', { group: 'main' })
    await said('the pause is over: the worker goes on')
    await threads.at(-1)?.terminate()
    await said('the lease keeper thread ended; the main thread renews until the next one is up')
    await server.kill()
    await said('cannot read from Redis now; the worker goes on trying')
    await said('the lease keeper cannot reach Redis as it should; it goes on trying')
    // Without a file it comes back empty: the group is gone.
    await server.restart()
    await said('the group had vanished; it was made again where it had settled all')
    await said('the worker reads from Redis again')
    await worker.stop()
    return { lines, worker }
  }

  test('says in every line whose it is, and in every line of a job which', { timeout: 90_000 }, async () => {
    const { lines, worker } = await eventfulLife(await startServer({ args: ['--save', ''] }))
    const { stream, group, consumer } = worker
    const told = lines.map(({ message }) => message)
    expect(told).toEqual(
      expect.arrayContaining([
        ...['worker started', 'worker draining', 'worker stopped', 'job failed; it is tried again', 'job is dead'],
        'a listener failed; the job and the other listeners are not affected',
        "the group's own setting counts, not what this worker declares",
      ]),
    )
    for (const line of lines) expect(line).toMatchObject({ fields: { stream, group, consumer } })
    const ofJobs = lines.filter(({ message, fields }) => 'job' in fields || /\bjob (is|was|failed)/.test(message))
    expect(ofJobs.length).toBeGreaterThanOrEqual(6)
    for (const { message, fields } of ofJobs) {
      const { id, job, entryId, attempt, deliveries } = fields
      const types = [id, job, entryId, attempt, deliveries].map((value) => typeof value)
      expect([message, types]).toEqual([message, ['string', 'string', 'string', 'number', 'number']])
      expect(id).toMatch(/^\d+-\d+$/)
    }
  })

  test('logs nothing for a job that goes well', async () => {
    const { logger, lines } = keepingLogger()
    const server = await startServer()
    const worker = await startWorker({ redis: server.url, logger, handlers: { x() {} } })
    for (let job = 0; job < 50; job++) await add(connectTo(server.url), 'x')
    await eventually(() => expect(worker.counts.completed).toBe(50))
    await worker.stop()
    expect(lines.map(({ level, message }) => `${level} ${message}`)).toEqual([
      'info worker started',
      'info worker draining',
      'info worker stopped',
    ])
    expect(lines.at(-1)?.fields).toMatchObject({ completed: 50, failed: 0, dead: 0, handedBack: 0, unsettled: 0 })
  })

  test('tells an error of a handler on one line, cut, without what drives a terminal', async () => {
    const { logger, lines } = keepingLogger()
    const server = await startServer()
    const handlers = { x: () => Promise.reject(new FatalError(`\u001b[2J\u202e\r\n${'é'.repeat(1_000_000)}`)) }
    await startWorker({ redis: server.url, logger, handlers })
    await add(connectTo(server.url), 'x')
    const dead = await eventually(() => {
      const line = lines.find(({ message }) => message === 'job is dead')
      return line ?? expect.fail('not dead yet')
    })
    const error = dead.fields['error'] as string
    expect(error.length).toBeLessThanOrEqual(1000)
    expect(error).toMatch(/^ \[2J é+…$/)
  })
})

test('a producer says once that it cannot publish and once that it can again, with the stream', async () => {
  const { logger, lines } = keepingLogger()
  const server = await startServer()
  const producer = newProducer({ redis: server.url, logger, timeoutMs: 60_000 })
  await producer.publish('x', {}, { stream: 'orders' })
  await server.kill()
  const waiting = Promise.allSettled([1, 2, 3].map((job) => producer.publish('x', { job }, { stream: 'orders' })))
  await eventually(() => expect(lines).toHaveLength(1))
  await server.restart()
  await waiting
  await producer.publish('x', {}, { stream: 'orders' })
  expect(lines.map(({ level, message, fields }) => [level, message, fields['stream']])).toEqual([
    ['info', 'cannot publish to Redis now', 'orders'],
    ['info', 'the producer publishes to Redis again', 'orders'],
  ])
})

test('an inspector says which stream it leaves out', async () => {
  const { logger, lines } = keepingLogger()
  const server = await startServer()
  await connectTo(server.url).set('orders', 'text')
  await connectTo(server.url).sadd('millrace:streams', 'orders')
  await newInspector(server.url, { logger }).stats()
  expect(lines).toMatchObject([{ level: 'warn', fields: { stream: 'orders' } }])
})

describe('a payload, a password, an argument of a command is in no line, no error and no event', () => {
  /** All that a user could print of it, as pino would and as Node does. */
  const everything = (...what: unknown[]): string =>
    what
      .map((one) => inspect(one, { depth: 20, showHidden: true }) + (JSON.stringify(serialized(one)) ?? ''))
      .join('\n')

  function serialized(value: unknown): unknown {
    return value instanceof Error ? stdSerializers.errWithCause(value) : value
  }

  function expectNoSecret(...what: unknown[]): void {
    const text = everything(...what)
    expect(text).not.toContain(MARKER)
    expect(text).not.toContain(PASSWORD)
    expect(text).not.toMatch(/\bargs\b/)
  }

  test.each([
    ['OOM', async (server: ControlledServer) => connectTo(server.url).config('SET', 'maxmemory', '1')],
    ['READONLY', async (server: ControlledServer) => connectTo(server.url).replicaof('127.0.0.1', 1)],
    ['WRONGTYPE', async (server: ControlledServer) => connectTo(server.url).set('orders', 'text')],
    ['NOPERM', async (server: ControlledServer) => connectTo(server.url).acl('SETUSER', 'app', '-evalsha')],
  ])('where a publish is refused with %s', async (code, spoil) => {
    const { logger, lines } = keepingLogger()
    const server = await startServer()
    await connectTo(server.url).acl('SETUSER', 'app', 'on', `>${PASSWORD}`, '~*', '+@all')
    const redis = server.url.replace('//', `//app:${PASSWORD}@`)
    // Else it would not ask Redis, which is full, at all.
    const producer = newProducer({ redis, logger, timeoutMs: 1000, maxMemoryShare: false })
    await spoil(server)
    const failure = await failureOf(producer.publish('x', { text: MARKER }, { stream: 'orders' }))
    expect(failure.message).toContain(code)
    expect(lines).toHaveLength(1)
    expectNoSecret(failure, lines)
  })

  test('where the server quotes the arguments of a command that it does not have', async () => {
    const { logger, lines } = keepingLogger()
    const server = await startServer({ args: ['--rename-command', 'EVALSHA', ''] })
    const producer = newProducer({ redis: server.url, logger, timeoutMs: 1000 })
    const failure = await failureOf(producer.publish('x', { text: MARKER }, { stream: MARKER }))
    expect(failure.message).toMatch(/unknown command '?`?evalsha/i)
    expect(failure.message).not.toContain('args beginning')
    // The stream is named by ours; the arguments would have been quoted after it.
    expect(
      everything(
        failure.cause,
        lines.map(({ fields }) => fields['fault']),
      ),
    ).not.toContain(MARKER)
    expect(everything(failure)).not.toContain('producer:')
  })

  test('where the password is refused, or the command that tells it', async () => {
    const { logger, lines } = keepingLogger()
    const wrong = await startServer({ args: ['--requirepass', 'another'] })
    const none = await startServer({ args: ['--rename-command', 'AUTH', '', '--rename-command', 'HELLO', ''] })
    for (const { url } of [wrong, none]) {
      const given = [
        url.replace('//', `//app:${PASSWORD}@`),
        { ...addressOf(url), username: 'app', password: PASSWORD },
      ]
      for (const redis of given) {
        const worker = new Worker({ redis, stream: 'orders', handlers: { x() {} }, logger })
        const inspector = new Inspector({ redis, logger })
        const failures = [await failureOf(worker.start()), await failureOf(inspector.streams())]
        inspector.close()
        for (const { message } of failures) expect(message).toContain('refused')
        expectNoSecret(failures, ...failures, lines)
      }
    }
  })

  test('where a worker runs into a Redis that refuses it, its error events too', async () => {
    const { logger, lines, messages } = keepingLogger()
    const server = await startServer()
    const events: Error[] = []
    const worker = await startWorker({
      redis: server.url,
      logger,
      handlers: { x: () => Promise.reject(new Error('no')) },
    })
    worker.on('error', ({ error }) => events.push(error))
    const client = connectTo(server.url)
    await client.acl('SETUSER', 'default', '-xreadgroup')
    await client.xadd('orders', '*', 'job', 'x', 'data', JSON.stringify({ text: MARKER }))
    await eventually(() => expect([...messages()].join()).toContain('cannot read from Redis now'))
    await client.acl('SETUSER', 'default', '+xreadgroup', '-evalsha')
    await eventually(() => expect([...messages()].join()).toMatch(/cannot (reach|settle)|the lease keeper cannot/))
    expect(events.length).toBeGreaterThan(0)
    expectNoSecret(events, ...events, lines)
  })

  test('where buffered jobs are shed or left by a close', async () => {
    const { logger, lines, messages } = keepingLogger()
    const failures: unknown[] = []
    const buffer = {
      maxJobs: 2,
      whenFull: 'shed' as const,
      onShed: ({ error }: { error: unknown }) => {
        failures.push(error)
        throw new Error('full')
      },
    }
    const producer = new Producer({ redis: 'redis://127.0.0.1:1', durability: 'buffered', buffer, logger })
    const publish = (bufferPriority: 0 | 1 | 9, idempotencyToken = MARKER) =>
      producer.publish('x', { text: MARKER }, { stream: 'orders', bufferPriority, idempotencyToken })
    for (const priority of [0, 1, 9] as const) await publish(priority)
    await publish(0).catch((error: unknown) => failures.push(error))
    for (const { error } of (await producer.close({ timeoutMs: 0 })).unpublished) failures.push(error)
    expect(failures).toHaveLength(5)
    expect([...messages()]).toEqual(
      expect.arrayContaining([expect.stringContaining('onShed failed'), 'a buffered job was not published']),
    )
    expectNoSecret(failures, ...failures, lines)
  })

  test('where an inspector is refused', async () => {
    const server = await startServer()
    const client = connectTo(server.url)
    await client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
    const inspector = newInspector(server.url)
    await client.acl('SETUSER', 'default', '-xinfo', '-evalsha', '-eval', '-xrange', '-xpending', '-smembers', '-sscan')
    const asked = [
      () => inspector.stats('orders'),
      () => inspector.streams(),
      () => inspector.pending('orders', 'main'),
    ]
    for (const ask of asked) {
      const failure = await failureOf(ask())
      expect(failure).toMatchObject({ code: 'ERR_REDIS_REFUSED', cause: expect.any(Error) as Error })
      expectNoSecret(failure)
    }
  })

  test('where a URL stands in the place of a host name', () => {
    const host = `redis://app:${PASSWORD}@localhost`
    expect(() => new Producer({ redis: { host } })).toThrow(/^expected `host` of `redis` to be a host name/)
    const error = new Error(`getaddrinfo ENOTFOUND ${host}`)
    expectNoSecret(withoutArguments(error))
  })
})

function addressOf(url: string): { host: string; port: number } {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}

describe('a logger', () => {
  test.skipIf(!existsSync('/dev/full'))('to a full disk does not end the process', () => {
    const module = new URL('../src/logger.ts', import.meta.url).href
    const script = `import { resolveLogger } from ${JSON.stringify(module)}
      const odd = () => { throw Object.create(null) }
      resolveLogger(undefined).error({}, 'told')
      resolveLogger({ debug: odd, info: odd, warn: odd, error: odd }).warn({}, 'told')
      setTimeout(() => console.log('lives'), 10)`
    const full = openSync('/dev/full', 'w')
    const { stdout, status } = spawnSync(process.execPath, ['--import', LOADER, '--input-type=module', '-e', script], {
      env: { PATH: process.env['PATH'] },
      stdio: ['ignore', 'pipe', full],
    })
    closeSync(full)
    expect([String(stdout), status]).toEqual(['lives\n', 0])
  })

  test('that is bound adds its fields, and those of the call count before them', () => {
    const { logger, lines } = keepingLogger()
    withFields(logger, { stream: 'orders', id: 'a' }).warn({ id: 'b' }, 'said')
    expect(lines).toEqual([{ level: 'warn', message: 'said', fields: { stream: 'orders', id: 'b' } }])
  })

  test('of pino is called as its method, and needs no child', () => {
    const given = new (class {
      readonly said: unknown[] = []
      debug = () => {}
      info = () => {}
      error = () => {}
      warn(fields: object, message: string): void {
        this.said.push([fields, message])
      }
    })()
    resolveLogger(given).warn({ list: Array.from({ length: 50 }, (_, at) => `${at}\n`) }, 'two\nlines')
    expect(given.said).toEqual([[{ list: Array.from({ length: 20 }, (_, at) => `${at} `) }, 'two lines']])
  })
})

describe('docs/logs.md', () => {
  test('has a row for every message that src logs, with its level', async () => {
    const rows = (await readFile(join(ROOT, 'docs/logs.md'), 'utf8')).split('\n').map(cellsOf)
    const calls = (await logCalls(join(ROOT, 'src'))).filter(({ message }) => message !== '(message)')
    expect(calls.length).toBeGreaterThan(40)
    for (const { file, level, message } of calls) {
      const row = rows.find((cells) => cells[1] === `\`${message}\``)
      expect([file, message, row?.[0] ?? '']).toEqual([file, message, level])
    }
    const known = new Set(calls.map(({ message }) => message))
    const told = rows.flatMap(([level = '', message = '']) => (/^(debug|info|warn|error)/.test(level) ? [message] : []))
    expect(told.filter((message) => !known.has(message.slice(1, -1)))).toEqual([])
  })

  test.each([
    ["this.#deps.logger.warn({ a }, 'one ' + `two ${x} three`)", [['warn', 'one two … three']]],
    ["logger[level]({}, 'said')", [['warn or error', 'said']]],
    ['logger?.info(fields, made(x))', [['info', '(made(x))']]],
    ["console.warn({}, 'x'); logger.warn('x')", []],
  ])('whose test finds %s', (text, found) => {
    expect(logCallsIn('a.ts', text).map(({ level, message }) => [level, message])).toEqual(found)
  })
})

function cellsOf(row: string): string[] {
  if (!row.startsWith('|')) return []
  return row
    .split('|')
    .slice(1, -1)
    .map((cell) => cell.trim())
}
