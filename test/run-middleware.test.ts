import { AsyncLocalStorage } from 'node:async_hooks'
import { describe, expect, test } from 'vitest'
import {
  FatalError,
  handle,
  defineJob,
  Worker,
  type RunContext,
  type RunMiddleware,
  type WorkerOptions,
} from '../src/index.ts'
import { openTelemetry } from '../src/otel.ts'
import { deadKey } from '../src/redis/keys.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { keptSpans } from './helpers/spans.ts'
import { add, gate, tally } from './helpers/workers.ts'

/** What a worker's middleware sees and may do, and that it cannot make a job look done that is not. */

const redis = withRedis()
const spans = keptSpans({ isRegistered: false })

async function start<State = object>(
  layers: readonly RunMiddleware<State>[],
  options: Partial<WorkerOptions<State>> = {},
): Promise<Worker<State>> {
  const worker = new Worker<State>({
    redis: redis.url,
    stream: 'orders',
    leaseMs: 1500,
    logger: false,
    handlers: { mail() {} },
    retry: { attempts: 1 },
    ...options,
  })
  onEnd(async () => void (await worker.stop({ drainMs: 0 })))
  for (const layer of layers) worker.use(layer)
  await worker.start()
  return worker
}

const settled = (counts: object) => eventually(async () => expect(await tally(redis.client)).toEqual(counts))

async function deadError(): Promise<{ reason: string; error: string }> {
  await eventually(async () => expect(await redis.client.xlen(deadKey('orders', 'main'))).toBe(1))
  const { letters } = await newInspector(redis.url).dead.list('orders', 'main')
  return { reason: letters[0]?.reason ?? '', error: letters[0]?.message ?? '' }
}

test('middleware is run in onion order around the handler, and sees the job, its data and its result', async () => {
  const seen: unknown[] = []
  const layer =
    (name: string): RunMiddleware =>
    async ({ job, data }, next) => {
      seen.push([name, job.name, job.attempt, data])
      seen.push([name, await next()])
    }
  const handlers = {
    mail: (data: unknown) => {
      seen.push(['handler', data])
      return 'sent'
    },
  }
  await start([layer('outer'), layer('inner')], { handlers })
  await add(redis.client, 'mail', { to: 'a' })
  await settled({ completed: 1 })
  expect(seen).toEqual([
    ['outer', 'mail', 1, { to: 'a' }],
    ['inner', 'mail', 1, { to: 'a' }],
    ['handler', { to: 'a' }],
    ['inner', 'sent'],
    ['outer', 'sent'],
  ])
})

test('its state is that of the handler, of this one run, and typed', async () => {
  interface State {
    user: { name: string }
    depth: number
  }
  const seen: unknown[] = []
  const mail = defineJob<{ to: string }>('mail')
  const load: RunMiddleware<State> = ({ state }, next) => {
    seen.push({ ...state })
    state.user = { name: 'Ada' }
    return next()
  }
  const count = ({ state }: RunContext<{ depth: number }>, next: () => Promise<unknown>) => {
    state.depth = (state.depth ?? 0) + 1
    return next()
  }
  await start<State>([load, count], {
    handlers: [handle(mail, ({ to }, job) => void seen.push([to, job.state.user.name, job.state.depth]))],
    concurrency: 1,
  })
  await add(redis.client, 'mail', { to: 'a' })
  await add(redis.client, 'mail', { to: 'b' })
  await settled({ completed: 2 })
  expect(seen).toEqual([{}, ['a', 'Ada', 1], {}, ['b', 'Ada', 1]])
})

test('what is made current around next is current in the handler, each run its own', async () => {
  const requests = new AsyncLocalStorage<string>()
  const seen: unknown[] = []
  const { wait, open } = gate()
  const handlers = {
    mail: async (data: unknown) => {
      if (data === 2) open()
      await wait()
      seen.push([data, requests.getStore()])
    },
  }
  await start([({ job }, next) => requests.run(job.headers['request-id'] ?? '', next)], { handlers })
  for (const n of [1, 2]) await redis.client.xadd('orders', '*', 'job', 'mail', 'data', n, 'h-request-id', `r-${n}`)
  await settled({ completed: 2 })
  expect(seen.sort()).toEqual([
    [1, 'r-1'],
    [2, 'r-2'],
  ])
})

describe('a middleware that', () => {
  test('throws fails the run, before the handler or after it, by the usual rules of retries', async () => {
    const attempts: number[] = []
    let ran = 0
    const layer: RunMiddleware = async ({ job }, next) => {
      attempts.push(job.attempt)
      if (job.attempt === 1) throw new Error('not yet')
      await next()
      if (job.attempt === 2) throw new Error('not quite')
    }
    await start([layer], { handlers: { mail: () => void (ran += 1) }, retry: { attempts: 5, delayMs: 1 } })
    await add(redis.client, 'mail')
    await settled({ retried: 2, completed: 1 })
    expect([attempts, ran]).toEqual([[1, 2, 3], 2])
  })

  test('throws a FatalError for what the handler threw decides that it is dead', async () => {
    const layer: RunMiddleware = (_run, next) =>
      next().catch((error: unknown) => {
        throw new FatalError('no such user', { cause: error })
      })
    const handlers = {
      mail: () => {
        throw new TypeError('null')
      },
    }
    await start([layer], { handlers, retry: { attempts: 5 } })
    await add(redis.client, 'mail')
    expect(await deadError()).toMatchObject({
      reason: 'fatal',
      error: expect.stringContaining('no such user') as string,
    })
  })

  test('swallows the failure of the handler does not make the job look done', async () => {
    const handlers = { mail: () => Promise.reject(new Error('no such address')) }
    await start([(_run, next) => next().catch(() => 'fine')], { handlers })
    await add(redis.client, 'mail')
    expect(await deadError()).toMatchObject({
      reason: 'attempts',
      error: expect.stringContaining('no such address') as string,
    })
  })

  test('does not call next fails the run: a job that is skipped must not look done', async () => {
    let ran = 0
    await start([function onlyOnTuesdays() {}], { handlers: { mail: () => void (ran += 1) } })
    await add(redis.client, 'mail')
    const { error } = await deadError()
    expect(error).toContain('middleware 1 (onlyOnTuesdays) ended without calling next(); the run of the job has failed')
    expect(ran).toBe(0)
  })

  test('calls next twice runs the handler once, and fails the run', async () => {
    let ran = 0
    const twice: RunMiddleware = async (_run, next) => {
      await next()
      await next()
    }
    await start([twice], { handlers: { mail: () => void (ran += 1) } })
    await add(redis.client, 'mail')
    expect((await deadError()).error).toContain('called next() twice')
    expect(ran).toBe(1)
  })

  test('does not wait for the handler does not end the run before it', async () => {
    const { wait, open } = gate()
    let began = false
    const handlers = {
      mail: () => {
        began = true
        return wait()
      },
    }
    await start([(_run, next) => void next()], { handlers })
    await add(redis.client, 'mail')
    await eventually(() => expect(began).toBe(true))
    await add(redis.client, 'mail')
    await eventually(async () => expect((await redis.client.xpending('orders', 'main'))[0]).toBe(2))
    expect(await tally(redis.client)).toEqual({})
    open()
    await settled({ completed: 2 })
  })

  test('takes too long is timed out with the run, and its signal is that of the job', async () => {
    const reasons: unknown[] = []
    const layer: RunMiddleware = ({ job }, next) =>
      job.attempt > 1
        ? next()
        : new Promise((_resolve, reject) =>
            job.signal.addEventListener('abort', () => {
              reasons.push((job.signal.reason as { code?: string }).code)
              reject(job.signal.reason as Error)
            }),
          )
    await start([layer], { timeoutMs: 100, retry: { attempts: 2, delayMs: 1 } })
    await add(redis.client, 'mail')
    await settled({ retried: 1, completed: 1 })
    expect(reasons).toEqual(['ERR_JOB_TIMEOUT'])
  })

  test('writes to the job fails its own run, and holds up no other', async () => {
    const refused: unknown[] = []
    const layer: RunMiddleware = ({ job, data }, next) => {
      if (typeof data === 'string') Object.assign(job, { [data]: 7 })
      return next()
    }
    const worker = await start([layer])
    worker.on('job:dead', ({ error }) => refused.push(error))
    const names = ['id', 'name', 'attempt', 'deliveries', 'stream', 'group', 'headers', 'state', 'signal', 'replayOf']
    for (const name of names) {
      await add(redis.client, 'mail', name)
      await add(redis.client, 'mail')
    }
    await settled({ dead: names.length, completed: names.length })
    await eventually(() => expect(refused.filter((error) => error instanceof TypeError)).toHaveLength(names.length))
  })

  test('comes after the start, or is no function, is refused', async () => {
    const worker = await start([])
    const state = { code: 'ERR_WORKER_STATE', message: expect.stringContaining('before it is started') as string }
    expect(() => worker.use(() => {})).toThrow(expect.objectContaining(state) as Error)
    const other = new Worker({ stream: 'orders', handlers: { mail() {} }, logger: false })
    expect(() => other.use(5 as unknown as RunMiddleware)).toThrow('expected a middleware to be a function')
  })
})

test('what has no run has no middleware: a job without a handler, and a payload that is none', async () => {
  let runs = 0
  await start([(_run, next) => ((runs += 1), next())])
  await redis.client.xadd('orders', '*', 'job', 'mail', 'data', '{')
  await add(redis.client, 'mail')
  await settled({ dead: 1, completed: 1 })
  expect(runs).toBe(1)
})

test('the span of a run is around its middleware, and says what that threw', async () => {
  const layer: RunMiddleware = () => {
    throw new TypeError('no tenant')
  }
  await start([layer], { tracing: openTelemetry({ tracerProvider: spans.provider }) })
  await add(redis.client, 'mail')
  const span = await spans.one('process')
  expect(span.attributes).toMatchObject({ 'millrace.job.outcome': 'dead', 'error.type': 'TypeError' })
})
