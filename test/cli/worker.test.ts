import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { beforeEach, describe, expect, test } from 'vitest'
import { finalFailure } from '../../cli/pool.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { isRunning, startProgram, type Program } from '../helpers/program.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { add, pending, tally } from '../helpers/workers.ts'
import { millrace } from './run.ts'

const redis = withRedis()
const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/handlers/${name}`, import.meta.url))

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'millrace-worker-'))
  onEnd(() => rmSync(folder, { recursive: true, force: true }))
})

/** What the handlers wrote, as words. */
const log = (): string[][] => {
  try {
    const lines = readFileSync(join(folder, 'log'), 'utf8').trim().split('\n')
    return lines.map((line) => line.split(' '))
  } catch {
    return []
  }
}
const logged = (word: string, id: string) =>
  eventually(() => {
    const found = log().find((words) => words[0] === word && words[1] === id)
    if (found === undefined) throw new Error(`${word} ${id} was not logged: ${JSON.stringify(log())}`)
    return { deliveries: Number(found[2]), pid: Number(found[3]) }
  })

const start = (handlers: string, ...args: string[]): Program =>
  startProgram(['worker', handlers, '--stream', 'orders', ...args], {
    env: { MILLRACE_REDIS_URL: redis.url, LOG: join(folder, 'log') },
    cwd: folder,
  })

async function startReady(handlers: string, ...args: string[]): Promise<{ pool: Program; pids: number[] }> {
  const pool = start(handlers, ...args)
  await pool.said(/^ready$/)
  const pids = pool.stderr.map((line) => /^worker (\d+) ready/.exec(line)?.[1]).filter((pid) => pid !== undefined)
  return { pool, pids: pids.map(Number) }
}

/** A handlers file of this test. */
function handlersFile(name: string, text: string): string {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

describe('a worker pool', () => {
  test('runs TypeScript handlers without a build step, in as many processes as it is told', async () => {
    const { pool, pids } = await startReady(fixture('list.ts'), '--processes', '2', '--concurrency', '50')
    expect(pool.stderr[0]).toBe('worker pool: stream orders, group main, 2 processes x 50 slots')
    expect(new Set(pids).size).toBe(2)
    const id = await add(redis.client, 'quick')
    expect(pids).toContain((await logged('ran', id)).pid)
    expect(pool.stdout).toEqual([])
  })

  test('runs an object of functions too, in JavaScript', async () => {
    await startReady(fixture('object.js'))
    await logged('ran', await add(redis.client, 'quick'))
  })

  test('skips what no --accept names, and says at its end how many it skipped', async () => {
    const { pool } = await startReady(fixture('object.js'), '--accept', 'qui*', '--accept', 'slow')
    await add(redis.client, 'other')
    await logged('ran', await add(redis.client, 'quick'))
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1, skipped: 1 }))
    pool.signal('SIGTERM')
    expect(await pool.exited).toBe(0)
    expect(pool.stderr.at(-1)).toBe('worker pool ended: 1 job completed, 1 job skipped')
    const refused = start(fixture('object.js'), '--accept', 'slow')
    expect(await refused.exited).toBe(2)
    expect(refused.stderr.join()).toContain('and none is for quick')
  })

  test('traces what it runs if its handlers file says so, and sends the last spans before its processes end', async () => {
    const { pool, pids } = await startReady(fixture('traced.js'))
    const [traceId, spanId] = ['0af7651916cd43dd8448eb211c80319c', 'b7ad6b7169203331']
    const traceparent = `00-${traceId}-${spanId}-01`
    const id = await redis.client.xadd('orders', '*', 'job', 'quick', 'traceparent', traceparent)
    await logged('ran', id ?? '')
    pool.signal('SIGTERM')
    expect(await pool.exited).toBe(0)
    expect(log().filter(([word]) => word !== 'ran')).toEqual([
      ['process-orders', traceId, spanId, String(pids[0])],
      ['ack-orders', traceId, expect.stringMatching(/^[0-9a-f]{16}$/), String(pids[0])],
    ])
  })

  test('puts the middleware of its handlers file around every run, and refuses what is none', async () => {
    const text = (middleware: string) =>
      [
        "import { appendFileSync } from 'node:fs'",
        'const note = (...words) => appendFileSync(process.env.LOG, `${words.join(" ")} ${process.pid}\\n`)',
        'export default { quick: (_, job) => note("ran", job.id, job.state.tenant) }',
        `export const middleware = ${middleware}`,
      ].join('\n')
    const layer = '(run, next) => ((run.state.tenant = run.job.headers.tenant), next())'
    await startReady(handlersFile('mine.mjs', text(`[${layer}]`)))
    const id = await redis.client.xadd('orders', '*', 'job', 'quick', 'h-tenant', '7')
    expect(await logged('ran', id ?? '')).toMatchObject({ deliveries: 7 })
    for (const [middleware, message] of [
      [layer, 'expected `middleware` to be a list of functions (run, next), got function'],
      ['[5]', 'expected a middleware to be a function (context, next), got 5'],
    ] as const) {
      const file = handlersFile('wrong.mjs', text(middleware))
      const { code, stderr } = await millrace(['worker', file, '--stream', 'orders'], { redis: redis.url })
      expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    }
  })

  test('keeps the limits of its handlers file over all its processes, and refuses what is none before it starts', async () => {
    const text = (limits: string) =>
      [
        "import { appendFileSync, existsSync } from 'node:fs'",
        "import { setTimeout as sleep } from 'node:timers/promises'",
        'const note = (...words) => appendFileSync(process.env.LOG, `${words.join(" ")} ${process.pid}\\n`)',
        'const gated = async ({ file }, job) => {',
        '  note("started", job.id, job.deliveries)',
        '  while (file && !existsSync(file)) await sleep(20)',
        '  note("ended", job.id, job.deliveries)',
        '}',
        `export default { gated }; export const limits = ${limits}`,
      ].join('\n')
    for (const [limits, message] of [
      ['{}', 'expected `limits` to be a list of limits, got a value of type object'],
      ['[{ jobs: ["gatd"], concurrency: 1 }]', 'did you mean gated?'],
    ] as const) {
      const file = handlersFile('wrong.mjs', text(limits))
      const { code, stderr } = await millrace(['worker', file, '--stream', 'orders'], { redis: redis.url })
      expect([code, stderr]).toEqual([2, expect.stringContaining(message)])
    }
    expect(await redis.client.dbsize()).toBe(0)

    const mine = handlersFile('mine.mjs', text('[{ concurrency: 1 }]'))
    await startReady(mine, '--processes', '2', '--concurrency', '1')
    const file = join(folder, 'open')
    const first = await add(redis.client, 'gated', { file })
    const { pid } = await logged('started', first)
    const second = await add(redis.client, 'gated')
    // The other process has it, and a slot for it.
    await eventually(async () => {
      expect(new Set((await pending(redis.client)).map(({ consumer }) => consumer)).size).toBe(2)
    })
    expect(log()).toHaveLength(1)
    writeFileSync(file, '')

    expect((await logged('ended', second)).pid).not.toBe(pid)
    expect(log().map(([what, id]) => [what, id])).toEqual([
      ['started', first],
      ['ended', first],
      ['started', second],
      ['ended', second],
    ])
  })

  test('runs handlers that lie where millrace is not installed', async () => {
    const lines = ["import { defineJob, handle } from 'millrace'", "import { appendFileSync } from 'node:fs'"]
    const run = '(_: null, job): void => appendFileSync(process.env.LOG!, `ran ${job.id} 1 ${process.pid}\\n`)'
    await startReady(
      handlersFile('mine.ts', [...lines, `export default [handle(defineJob('quick'), ${run})]`].join('\n')),
    )
    await logged('ran', await add(redis.client, 'quick'))
  })

  test('replaces a worker that was killed, and its job is finished by another one', async () => {
    const { pool } = await startReady(fixture('list.ts'), '--processes', '2', '--lease', '1500ms')
    const id = await add(redis.client, 'once')
    const { pid } = await logged('started', id)
    process.kill(pid, 'SIGKILL')
    await pool.said(new RegExp(`^worker ${pid} ended \\(SIGKILL\\), a new one in 1 s$`))
    await pool.said(/^worker \d+ ready/, { skip: 2 })
    const end = await logged('ended', id)
    expect(end.deliveries).toBe(2)
    expect(end.pid).not.toBe(pid)
    await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  })

  test('replaces its only worker, which then finishes the job itself', async () => {
    const { pool, pids } = await startReady(fixture('list.ts'), '--lease', '1500ms')
    const id = await add(redis.client, 'once')
    await logged('started', id)
    process.kill(pids[0] ?? 0, 'SIGKILL')
    await pool.said(/^worker \d+ ready/, { skip: 1 })
    expect((await logged('ended', id)).deliveries).toBe(2)
  })

  test('starts a further group where --start says, and one that the command line made needs no --start', async () => {
    const waiting = await add(redis.client, 'quick')
    await redis.client.xgroup('CREATE', 'orders', 'main', '0')
    await startReady(fixture('object.js'), '--group', 'late', '--start', 'now')
    const made = startProgram(['groups', 'create', 'orders', 'all', '--start', 'oldest'], {
      env: { MILLRACE_REDIS_URL: redis.url },
    })
    expect(await made.exited).toBe(0)
    await startReady(fixture('object.js'), '--group', 'all')
    await logged('ran', waiting)
    const id = await add(redis.client, 'quick')
    await eventually(() => expect(log().filter((words) => words[1] === id)).toHaveLength(2))
    expect(log().filter((words) => words[1] === waiting)).toHaveLength(1)
  })

  test('says which lease counts where the group has another', async () => {
    await (async () => {
      const { pool } = await startReady(fixture('list.ts'), '--lease', '3s')
      pool.signal('SIGTERM')
      expect(await pool.exited).toBe(0)
    })()
    const { pool } = await startReady(fixture('list.ts'), '--lease', '5s')
    expect(pool.stderr.join('\n')).toMatch(/worker \d+ ready, with the group's lease of 3.0s/)
  })

  test('shows no password in the arguments of its processes', async () => {
    const server = await startServer({ args: ['--requirepass', 'sesame-street'] })
    const url = server.url.replace('//', '//:sesame-street@')
    const pool = startProgram(['worker', fixture('object.js'), '--stream', 'orders'], { env: { REDIS_URL: url } })
    const [, pid] = await pool.said(/^worker (\d+) ready/)
    expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).not.toContain('sesame')
  })
})

describe('a worker pool that is told to stop', () => {
  test('lets running jobs finish, leaves nothing pending, and ends with 0', async () => {
    const { pool, pids } = await startReady(fixture('list.ts'), '--processes', '2')
    const id = await add(redis.client, 'wait', { ms: 700 })
    await logged('started', id)
    pool.signal('SIGTERM')
    expect(await pool.exited).toBe(0)
    await logged('ended', id)
    expect(await pending(redis.client)).toEqual([])
    expect(pids.filter(isRunning)).toEqual([])
    expect(pool.stderr.slice(-2)).toEqual([
      'SIGTERM: draining, running jobs have 25 s to finish; a second signal ends at once',
      'worker pool ended: 1 job completed',
    ])
  })

  test('hands back what is not done when the drain is over, still with 0', async () => {
    const { pool } = await startReady(fixture('list.ts'), '--drain', '200ms')
    const id = await add(redis.client, 'once')
    await logged('started', id)
    pool.signal('SIGINT')
    expect(await pool.exited).toBe(0)
    expect((await pending(redis.client)).map(({ consumer, deliveries }) => [consumer, deliveries])).toEqual([
      [':handback', 0],
    ])
    expect(pool.stderr.at(-1)).toMatch(/^worker pool ended: 0 jobs completed, .*1 job handed back$/)
  })

  test('takes a Ctrl-C, which goes to all its processes and comes again through npm, for one signal', async () => {
    const { pool } = await startReady(fixture('list.ts'), '--processes', '2')
    const id = await add(redis.client, 'wait', { ms: 700 })
    await logged('started', id)
    pool.signalGroup('SIGINT')
    pool.signal('SIGINT')
    expect(await pool.exited).toBe(0)
    await logged('ended', id)
    expect(await pending(redis.client)).toEqual([])
  })

  test.each([
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const)('ends at once at a second signal: %s with %i', async (signal, code) => {
    const { pool, pids } = await startReady(fixture('list.ts'), '--processes', '2')
    await logged('started', await add(redis.client, 'wait', { ms: 60_000 }))
    pool.signal('SIGTERM')
    await pool.said(/draining/)
    const repeating = setInterval(() => pool.signal(signal), 50)
    onEnd(() => clearInterval(repeating))
    expect(await pool.exited).toBe(code)
    await eventually(() => expect(pids.filter(isRunning)).toEqual([]))
  })

  test('drains also where the signal goes to a worker, which is then replaced', async () => {
    const { pool, pids } = await startReady(fixture('list.ts'))
    const id = await add(redis.client, 'wait', { ms: 300 })
    await logged('started', id)
    process.kill(pids[0] ?? 0, 'SIGTERM')
    await logged('ended', id)
    await pool.said(/^worker \d+ ended \(drained\), a new one in 1 s$/)
    await pool.said(/^worker \d+ ready/, { skip: 1 })
    expect(await pending(redis.client)).toEqual([])
  })

  test('has no worker left when its supervisor is killed: they finish their jobs and end', async () => {
    const { pool, pids } = await startReady(fixture('list.ts'), '--processes', '2')
    const id = await add(redis.client, 'wait', { ms: 700 })
    await logged('started', id)
    pool.signal('SIGKILL')
    await pool.closed
    await logged('ended', id)
    expect(pids.filter(isRunning)).toEqual([])
    expect(await pending(redis.client)).toEqual([])
  })
})

describe('a worker pool that cannot start ends with one line and the exit code that says why', () => {
  const expectFailure = async (pool: Program, code: number, message: string | RegExp) => {
    expect(await pool.exited).toBe(code)
    await pool.closed
    expect(pool.stderr.filter((line) => line.startsWith('error: '))).toHaveLength(1)
    expect(pool.stderr.at(-1)).toMatch(message)
    expect(pool.stderr).toHaveLength(1)
    expect(pool.stdout).toEqual([])
  }

  test.each([
    ['nope.ts', undefined, /the handlers file \S+nope.ts does not exist$/],
    ['a.txt', '', /expected the handlers file to end in .ts, .mts, /],
    ['none.ts', 'export const sendReceipt = () => {}', /handlers as its default, .* got only sendReceipt$/],
    ['empty.mjs', '', /handlers as its default, .* got no export$/],
    ['object.mjs', 'export default {}', /object.mjs: expected at least one handler, got none$/],
    ['number.mjs', 'export default { mail: 1 }', /expected the handler of mail to be a function, got 1$/],
    [
      'trace.mjs',
      'export const tracing = 7; export default { a() {} }',
      /trace.mjs: expected `tracing` to be what openT/,
    ],
    ['throws.ts', "throw new Error('DATABASE_URL is not set')", /cannot load \S+throws.ts: DATABASE_URL is not set$/],
    ['throws.mjs', "throw new Error('DATABASE_URL is not set')", /cannot load \S+throws.mjs: DATABASE_URL is not set$/],
    ['syntax.ts', 'const x: = 1', /cannot load \S+syntax.ts: .*Unexpected token/],
    ['import.ts', "import { x } from './gone.ts'; export default { x }", /Cannot find module '.\/gone.ts'$/],
  ])('handlers: %s', async (name, text, message) => {
    const file = text === undefined ? join(folder, name) : handlersFile(name, text)
    await expectFailure(start(file, '--processes', '3'), 2, message)
  })

  test('handlers that lack their extension, with the name that was meant', async () => {
    handlersFile('handlers.ts', 'export default { quick() {} }')
    await expectFailure(start('./handlers'), 2, /does not exist; did you mean .\/handlers.ts\?$/)
  })

  test('handlers that end their process', async () => {
    await expectFailure(
      start(handlersFile('exit.mjs', 'process.exit(0)')),
      1,
      /ended before it was ready \(exit code 0\)/,
    )
  })

  test.each([
    [['--concurrency', '0'], 'expected `--concurrency` to be a positive integer up to 10000, got 0'],
    [['--processes', 'two'], 'expected `--processes` to be a positive integer up to 256, got "two"'],
    [['--processes', '1.5'], 'expected `--processes` to be a positive integer up to 256, got 1.5'],
    [['--lease', '10'], 'expected `--lease` to be a duration of 500ms or more'],
    [['--timeout', 'never'], 'expected `--timeout` to be a duration'],
    [['--start', 'here'], 'Allowed choices are oldest, now'],
    [['--group', 'bad group'], 'expected a group name'],
  ])('options: %j', async (args, message) => {
    await expectFailure(start(fixture('object.js'), ...args), 2, new RegExp(message.replace(/[`()]/g, '.')))
  })

  test('an unknown group, with the one that was meant and how to start a further one', async () => {
    await redis.client.xgroup('CREATE', 'orders', 'billing', '0', 'MKSTREAM')
    const pool = start(fixture('object.js'), '--group', 'biling', '--processes', '2')
    await expectFailure(pool, 4, /did you mean billing\?\); to start .* --start oldest or --start now$/)
    expect(await redis.client.xinfo('GROUPS', 'orders')).toHaveLength(1)
    expect((await redis.client.keys('*')).sort()).toEqual(['orders'])
  })

  test('a Redis that refuses the password, which is not shown', async () => {
    const server = await startServer({ args: ['--requirepass', 'right-password'] })
    const url = server.url.replace('//', '//:wrong-password@')
    const pool = startProgram(['worker', fixture('object.js'), '--stream', 'orders', '--redis', url])
    await expectFailure(pool, 3, /^error: Redis at 127.0.0.1:\d+ refused the connection: WRONGPASS/)
    expect(pool.stderr.join('\n')).not.toContain('wrong-password')
  })

  test('a Redis that is a replica, which a pool with metrics waits for until its failover is over', async () => {
    const server = await startServer({ args: ['--replicaof', '127.0.0.1 1'] })
    const run = (...args: string[]) =>
      startProgram(['worker', fixture('object.js'), '--stream', 'orders', '--redis', server.url, ...args])
    await expectFailure(run(), 3, /^error: Redis does not let the worker start now: READONLY [^@]*$/)

    const patient = run('--metrics-port', '0')
    await patient.said(/^worker \d+ ended \(Redis does not let the worker start now: READONLY/)
    await connectTo(server.url).replicaof('NO', 'ONE')
    await patient.said(/^ready$/)
  })

  test('a Redis that is away, after it has said that it waits', async () => {
    const server = await startServer()
    await server.kill()
    const pool = startProgram(['worker', fixture('object.js'), '--stream', 'orders', '--redis', server.url])
    expect(await pool.exited).toBe(3)
    expect(pool.stderr).toEqual([
      'worker pool: stream orders, group main, 1 process x 32 slots',
      'waiting for Redis, 10 s at most',
      expect.stringMatching(/^error: cannot reach Redis at 127.0.0.1:\d+: .*ECONNREFUSED/),
    ])
  })
})

test('a new worker of a running pool tries again only where trying again can help', () => {
  const away = { message: 'cannot reach Redis', exitCode: 3, mayPass: true }
  const refused = { message: 'wrong password', exitCode: 3, mayPass: false }
  expect(finalFailure(away, 'exit code 3', true)).toBeUndefined()
  expect(finalFailure(away, 'exit code 3', false)).toBe(away)
  expect(finalFailure(refused, 'exit code 3', true)).toBe(refused)
  expect(finalFailure(undefined, 'SIGKILL', false)).toBeUndefined()
  expect(finalFailure(undefined, 'exit code 1', true)).toBeUndefined()
  expect(finalFailure(undefined, 'exit code 1', false)).toMatchObject({ exitCode: 1 })
})
