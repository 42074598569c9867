import { context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import type { ReadableSpan } from '@opentelemetry/sdk-trace-base'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Producer, type Handlers, type ProducerOptions, type WorkerOptions } from '../src/index.ts'
import { openTelemetry } from '../src/otel.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { keptSpans, linksOf, outcomeOf, parentOf, spanIdOf, traceIdOf } from './helpers/spans.ts'
import { add, gate, startWorker } from './helpers/workers.ts'

const redis = withRedis()
const spans = keptSpans()

function newProducer(options: ProducerOptions = {}): Producer {
  const producer = new Producer({ redis: redis.url, logger: false, tracing: openTelemetry(), ...options })
  onEnd(() => void producer.close())
  return producer
}

const startTraced = (handlers: Handlers, options: Partial<Omit<WorkerOptions, 'redis'>> = {}) =>
  startWorker({ redis: redis.url, handlers, tracing: openTelemetry(), retry: { delayMs: 10 }, ...options })

describe('a job that is published and runs', () => {
  test('is one trace: what published it, its publish, its run, what the handler does, its ack', async () => {
    await startTraced({
      mail: async () => {
        await sleep(1)
        spans.tracer.startSpan('smtp').end()
      },
    })
    const request = spans.tracer.startSpan('request')
    const { id } = await context.with(trace.setSpan(ROOT_CONTEXT, request), () =>
      newProducer().publish('mail', { secret: 'payload' }, { stream: 'orders' }),
    )
    const [send, process, smtp, ack] = [
      await spans.one('send'),
      await spans.one('process'),
      await spans.one('smtp'),
      await spans.one('ack'),
    ]
    expect(new Set([send, process, smtp, ack].map(traceIdOf))).toEqual(new Set([traceIdOf(request)]))
    expect(parentOf(send)).toBe(spanIdOf(request))
    expect(parentOf(process)).toBe(spanIdOf(send))
    expect(parentOf(smtp)).toBe(spanIdOf(process))
    expect(parentOf(ack)).toBe(spanIdOf(process))
    expect(process.links).toEqual([])
    expect(process.attributes['messaging.message.id']).toBe(id)
  })

  test('has spans of the kinds, with the names and attributes, that the conventions say, and never its payload', async () => {
    const worker = await startTraced({ mail() {} }, { group: 'billing', startAt: 'oldest' })
    const { id } = await newProducer().publish('mail', { secret: 'payload' }, { stream: 'orders' })
    const ack = await spans.one('ack')
    const common = { 'messaging.system': 'redis', 'messaging.destination.name': 'orders' }
    const own = { 'messaging.consumer.group.name': 'billing', 'messaging.client.id': worker.consumer }
    const operation = (type: string, name = type) => ({
      ...common,
      'messaging.operation.type': type,
      'messaging.operation.name': name,
    })
    const told = [...spans.of('send'), ...spans.of('process'), ack]
    expect(told.map(({ name, kind, attributes }) => [name, kind, attributes])).toEqual([
      [
        'send orders',
        SpanKind.PRODUCER,
        { ...operation('send'), 'millrace.job.name': 'mail', 'messaging.message.id': id },
      ],
      [
        'process orders',
        SpanKind.CONSUMER,
        {
          ...operation('process'),
          ...own,
          'messaging.message.id': id,
          'millrace.job.name': 'mail',
          'millrace.job.attempt': 1,
          'millrace.job.deliveries': 1,
          'millrace.job.outcome': 'completed',
        },
      ],
      ['ack orders', SpanKind.CLIENT, { ...operation('settle', 'ack'), ...own, 'messaging.batch.message_count': 1 }],
    ])
    expect(told.map(({ status }) => status.code)).toEqual([0, 0, 0])
    expect(JSON.stringify(told.map(({ attributes, events }) => [attributes, events]))).not.toContain('payload')
  })

  test('has its span active in its handler, a sync one and an async one, and not after it', async () => {
    const seen: unknown[] = []
    const note = () => seen.push(trace.getActiveSpan()?.spanContext().spanId)
    await startTraced({
      sync: note,
      later: async () => {
        await sleep(1)
        note()
      },
    })
    const producer = newProducer()
    await producer.publish('sync', {}, { stream: 'orders' })
    const [first] = await spans.ended('process')
    await producer.publish('later', {}, { stream: 'orders' })
    const [, second] = await spans.ended('process', 2)
    expect(seen).toEqual([first, second].map((span) => spanIdOf(span as ReadableSpan)))
    expect(trace.getActiveSpan()).toBeUndefined()
  })

  test('does not join the trace in which its worker was started', async () => {
    const startup = spans.tracer.startSpan('startup')
    await context.with(trace.setSpan(ROOT_CONTEXT, startup), () => startTraced({ mail() {} }))
    await add(redis.client, 'mail')
    const process = await spans.one('process')
    expect([process.parentSpanContext, traceIdOf(process) === traceIdOf(startup)]).toEqual([undefined, false])
  })

  test('is traced through its delay', async () => {
    await startTraced({ mail() {} })
    const { outcome } = await newProducer().publish('mail', {}, { stream: 'orders', delayMs: 50 })
    const [send, process] = [await spans.one('send'), await spans.one('process')]
    expect([outcome, parentOf(process)]).toEqual(['scheduled', spanIdOf(send)])
  })

  test('of a publishMany is a child of the one span of the call, which says how many they are', async () => {
    await startTraced({ mail() {} })
    await newProducer().publishMany('mail', [1, 2, 3], { stream: 'orders' })
    const processes = await spans.ended('process', 3)
    const send = await spans.one('send')
    expect(send.attributes['messaging.batch.message_count']).toBe(3)
    expect(processes.map(parentOf)).toEqual(Array(3).fill(spanIdOf(send)))
  })

  test('settles with others in a span that is linked to the run of each', async () => {
    const { wait, open } = gate()
    await startTraced({ mail: wait })
    await newProducer().publishMany('mail', [1, 2, 3], { stream: 'orders' })
    await eventually(async () => expect(await redis.client.xpending('orders', 'main')).toHaveProperty('0', 3))
    open()
    const ack = await spans.one('ack')
    expect(ack.attributes['messaging.batch.message_count']).toBe(3)
    expect(ack.parentSpanContext).toBeUndefined()
    const runs = (await spans.ended('process', 3)).map(spanIdOf)
    expect(ack.links.map((link) => link.context.spanId).sort()).toEqual(runs.sort())
  })
})

describe('a run that fails', () => {
  test('says with what, and each further one is a trace of its own, linked to the publish and to the run before', async () => {
    await startTraced({
      mail: (_data, { attempt }) => {
        if (attempt < 3) throw new TypeError(`attempt ${attempt}`)
      },
    })
    await newProducer().publish('mail', {}, { stream: 'orders' })
    const [one, two, three] = (await spans.ended('process', 3)) as [ReadableSpan, ReadableSpan, ReadableSpan]
    const send = await spans.one('send')
    expect([one, two, three].map(outcomeOf)).toEqual(['retry', 'retry', 'completed'])
    expect([one.status, two.status, three.status].map(({ code, message }) => [code, message])).toEqual([
      [SpanStatusCode.ERROR, 'attempt 1'],
      [SpanStatusCode.ERROR, 'attempt 2'],
      [SpanStatusCode.UNSET, undefined],
    ])
    expect(one.attributes['error.type']).toBe('TypeError')
    expect(one.events.map(({ name }) => name)).toEqual(['exception'])
    expect([one, two, three].map(linksOf)).toEqual([
      [],
      [
        ['publish', spanIdOf(send)],
        ['attempt', spanIdOf(one)],
      ],
      [
        ['publish', spanIdOf(send)],
        ['attempt', spanIdOf(two)],
      ],
    ])
    expect(two.parentSpanContext).toBeUndefined()
    expect(new Set([one, two, three].map(traceIdOf)).size).toBe(3)
    expect((await spans.ended('settle', 2)).map(parentOf)).toEqual([spanIdOf(one), spanIdOf(two)])
  })

  test.each([
    ['a code', () => Object.assign(new Error('no'), { code: 'ECONNREFUSED' }), 'ECONNREFUSED'],
    ['no error', () => 'a text', 'string'],
    ['nothing', () => undefined, 'undefined'],
    ['what throws when it is looked at', hostileError, '(what was thrown has no text)'],
  ])('with %s ends in a span that says so', async (_what, thrown, type) => {
    await startTraced({
      mail: () => {
        throw thrown() as Error
      },
    })
    await add(redis.client, 'mail')
    const [span] = await eventually(() => {
      expect(spans.of('process')).not.toEqual([])
      return spans.of('process')
    })
    expect([span?.status.code, span?.attributes['error.type']]).toEqual([SpanStatusCode.ERROR, type])
  })
})

function hostileError(): Error {
  const deny = () => {
    throw new Error('do not look')
  }
  return new Proxy(new Error('hidden'), { get: deny, getPrototypeOf: deny, has: deny })
}
