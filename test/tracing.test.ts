import { propagation, SpanStatusCode, trace } from '@opentelemetry/api'
import { AlwaysOffSampler, BasicTracerProvider } from '@opentelemetry/sdk-trace-base'
import { readdir, readFile } from 'node:fs/promises'
import { describe, expect, test } from 'vitest'
import { Producer, Worker, type Logger, type Tracing } from '../src/index.ts'
import { openTelemetry } from '../src/otel.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { importGraph } from './helpers/source-rules.ts'
import { keptSpans, parentOf, spanIdOf, traceIdOf } from './helpers/spans.ts'
import { startWorker, tally } from './helpers/workers.ts'

/** What tracing does not do: cost a job, trust an entry, need an SDK. */

const redis = withRedis()
const spans = keptSpans({ isRegistered: false })
const traced = () => openTelemetry({ tracerProvider: spans.provider })
const TRACEPARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

function newProducer(
  tracing: Tracing,
  options: { timeoutMs?: number; redis?: string; logger?: Logger } = {},
): Producer {
  const producer = new Producer({ redis: redis.url, logger: false, tracing, ...options })
  onEnd(() => void producer.close({ timeoutMs: 0 }))
  return producer
}

const entries = async () => (await redis.client.xrange('orders', '-', '+')).map(([, fields]) => fields)
const settled = (count: number) =>
  eventually(async () => expect(await tally(redis.client)).toEqual({ completed: count }))

describe('an entry of anybody', () => {
  test('that carries a traceparent is a child of whoever wrote it', async () => {
    await startWorker({ redis: redis.url, handlers: { mail() {} }, tracing: traced() })
    const state = 'vendor=1'
    await redis.client.xadd('orders', '*', 'job', 'mail', 'traceparent', TRACEPARENT, 'tracestate', state)
    const span = await spans.one('process')
    expect([traceIdOf(span), parentOf(span)]).toEqual(TRACEPARENT.split('-').slice(1, 3))
    expect(span.spanContext().traceState?.serialize()).toBe(state)
  })

  test.each([
    ['empty', ''],
    ['a word', 'none'],
    ['too long', `${TRACEPARENT}-more`],
    ['in capitals', TRACEPARENT.toUpperCase()],
    ['no text', '\uFFFD\u0000'],
    ['100 kB', 'x'.repeat(100_000)],
  ])('whose traceparent is %s runs, in a trace of its own', async (_what, traceparent) => {
    await startWorker({ redis: redis.url, handlers: { mail() {} }, tracing: traced() })
    await redis.client.xadd('orders', '*', 'job', 'mail', 'traceparent', traceparent, 'tracestate', '\u0000=')
    const span = await spans.one('process')
    expect([parentOf(span), span.links]).toEqual([undefined, []])
    await settled(1)
  })

  test('whose last attempt is none is linked to its publish alone', async () => {
    await startWorker({ redis: redis.url, handlers: { mail() {} }, tracing: traced() })
    const own = ['attempt', '1', 'traceparent', TRACEPARENT, 'trace-last', "'; DROP"]
    await redis.client.xadd('orders', '*', 'job', 'mail', ...own)
    const span = await spans.one('process')
    expect(span.links.map((link) => link.context.spanId)).toEqual([TRACEPARENT.split('-')[2]])
  })
})

describe('a publish', () => {
  test('that is refused, or whose time is up, ends its span as a failure', async () => {
    const producer = newProducer(traced())
    await expect(producer.publish('mail', 1n, { stream: 'orders' })).rejects.toThrow('JSON-able')
    const away = newProducer(traced(), { redis: 'redis://127.0.0.1:1', timeoutMs: 50 })
    await expect(away.publish('mail', {}, { stream: 'orders' })).rejects.toThrow('its time was up')
    const ended = spans.of('send orders')
    expect(ended.map(({ status, attributes }) => [status.code, attributes['error.type']])).toEqual([
      [SpanStatusCode.ERROR, 'ERR_PAYLOAD'],
      [SpanStatusCode.ERROR, 'ERR_PUBLISH_TIMEOUT'],
    ])
  })

  test('of many that fails in its middle says how many are in Redis', async () => {
    const publishing = newProducer(traced()).publishMany('mail', [1, 2, 3n], { stream: 'orders' })
    await expect(publishing).rejects.toThrow('2 jobs were published before')
    const span = await spans.one('send orders')
    expect([span.status.code, span.attributes['messaging.batch.message_count']]).toEqual([SpanStatusCode.ERROR, 2])
  })

  test('that is not sampled says so in its entry, and makes no spans there or where it runs', async () => {
    const provider = new BasicTracerProvider({ sampler: new AlwaysOffSampler() })
    await newProducer(openTelemetry({ tracerProvider: provider })).publish('mail', {}, { stream: 'orders' })
    await startWorker({ redis: redis.url, handlers: { mail() {} }, tracing: traced() })
    await settled(1)
    expect(await entries()).toEqual([
      ['job', 'mail', 'data', '{}', 'traceparent', expect.stringMatching(/^00-[0-9a-f]{32}-[0-9a-f]{16}-00$/)],
    ])
    expect(spans.of()).toEqual([])
  })
})

describe('without an SDK', () => {
  test('nothing is written into entries, and one that is registered later is found', async () => {
    await startWorker({ redis: redis.url, handlers: { mail() {} }, tracing: openTelemetry() })
    const producer = newProducer(openTelemetry())
    await producer.publish('mail', {}, { stream: 'orders' })
    await producer.publishMany('mail', [{}], { stream: 'orders' })
    await settled(2)
    expect(await entries()).toEqual(Array(2).fill(['job', 'mail', 'data', '{}']))
    trace.setGlobalTracerProvider(spans.provider)
    onEnd(() => trace.disable())
    await producer.publish('mail', {}, { stream: 'orders' })
    const [send, process] = [await spans.one('send'), await spans.one('process')]
    expect(parentOf(process)).toBe(spanIdOf(send))
  })

  test('no propagator is needed', () => {
    expect(propagation.fields()).toEqual([])
  })

  test('millrace itself is loaded without @opentelemetry/api, its types too: only millrace/otel knows it', async () => {
    const root = new URL('../src/', import.meta.url)
    const names = (await readdir(root, { recursive: true })).filter((name) => name.endsWith('.ts'))
    const read = async (name: string) => [`src/${name}`, await readFile(new URL(name, root), 'utf8')] as const
    const sources = new Map(await Promise.all(names.map(read)))
    const graph = importGraph(sources)
    const reached = new Set(['src/index.ts'])
    for (const path of reached) for (const target of graph.get(path) ?? []) reached.add(target)
    const knowing = [...sources].filter(([, text]) => text.includes("'@opentelemetry")).map(([path]) => path)
    expect(knowing.sort()).toEqual(['src/otel.ts', 'src/trace-context.ts'])
    expect(knowing.filter((path) => reached.has(path))).toEqual([])
    expect(reached.size).toBeGreaterThan(50)
  })
})

describe('a tracing whose hooks fail', () => {
  const broken = (): never => {
    throw new Error('tracing is broken')
  }
  const later = (() => Promise.reject(new Error('tracing is broken'))) as () => never
  const done = { context: undefined, ended: broken }

  test.each<[string, Tracing]>([
    ['at once', { publish: broken, process: broken, settle: broken }],
    ['at the end', { publish: () => done, process: () => ({ ...done, run: (work) => work() }), settle: () => done }],
    ['before the work', { publish: () => done, process: () => ({ ...done, run: broken }), settle: broken }],
    [
      'after the work',
      {
        publish: () => done,
        process: () => ({
          ...done,
          run(work) {
            work()
            return broken()
          },
        }),
        settle: () => undefined,
      },
    ],
    [
      'by doing the work twice',
      {
        publish: () => undefined,
        process: () => ({ ...done, run: (work) => (work(), work()) }),
        settle: () => undefined,
      },
    ],
    [
      'later, in hooks that are async',
      {
        publish: () => ({ ...done, ended: later }),
        process: () => ({ ...done, run: (work) => work(), ended: later }),
        settle: () => ({ ended: later }),
      },
    ],
    [
      'by a promise in place of what they are to return',
      {
        publish: async () => broken(),
        process: () => ({ ...done, run: async (work: () => unknown) => await work() }),
        settle: async () => broken(),
      } as never,
    ],
    ['by returning nonsense', { publish: () => 1, process: () => ({ context: 7 }), settle: () => 'x' } as never],
  ])('%s changes no outcome: each job runs once an attempt', async (_when, tracing) => {
    const runs: string[] = []
    const said: string[] = []
    const note = (_fields: object, message: string) => void said.push(message)
    const logger: Logger = { debug() {}, info() {}, warn() {}, error: note }
    const handlers = {
      good: (_data: unknown, job: { attempt: number }) => runs.push(`good ${job.attempt}`),
      flaky: async (_data: unknown, job: { attempt: number }) => {
        runs.push(`flaky ${job.attempt}`)
        if (job.attempt === 1) throw new Error('not yet')
      },
    }
    await startWorker({ redis: redis.url, handlers, tracing, logger, retry: { delayMs: 1 } })
    const producer = newProducer(tracing, { logger })
    await producer.publish('good', {}, { stream: 'orders' })
    await producer.publish('flaky', {}, { stream: 'orders' })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2, retried: 1 }))
    expect(runs.sort()).toEqual(['flaky 1', 'flaky 2', 'good 1'])
    expect(new Set(said).size).toBeLessThanOrEqual(1)
    // Nor does it end the process, as a rejection would that nobody hears.
    await new Promise((resolve) => setImmediate(resolve))
    for (const message of said) expect(message).toBe('the tracing failed; publishes and jobs are not affected')
  })

  test.each([[null], [true], [{}], [{ publish() {}, process() {} }], ['openTelemetry']])('%j is refused', (tracing) => {
    const wrong = { tracing: tracing as never }
    expect(() => new Producer(wrong)).toThrow('expected `tracing` to be what openTelemetry() of millrace/otel returns')
    expect(() => new Worker({ stream: 'orders', handlers: { mail() {} }, ...wrong })).toThrow(
      'expected `tracing` to be',
    )
  })

  test('options of openTelemetry that there are not are refused', () => {
    expect(() => openTelemetry({ provider: 1 } as object)).toThrow('unknown option `provider` of openTelemetry')
    expect(() => openTelemetry({ tracerProvider: 1 as never })).toThrow('expected `tracerProvider` to have a method')
  })
})
