import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { FatalError, Producer, type HandlerFunction, type Worker, type WorkerOptions } from '../src/index.ts'
import { openTelemetry } from '../src/otel.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { newInspector } from './helpers/inspectors.ts'
import { withRedis } from './helpers/redis.ts'
import { keptSpans, linksOf, outcomeOf, parentOf, spanIdOf } from './helpers/spans.ts'
import { gate, LEASE_MS, pending, startWorker, startWorkerProcess } from './helpers/workers.ts'

/** However a run ends, its span ends, once; and whatever brings a job again, its run says what it came from. */

const redis = withRedis()
const spans = keptSpans()

const startTraced = (mail: HandlerFunction, options: Partial<Omit<WorkerOptions, 'redis'>> = {}): Promise<Worker> =>
  startWorker({ redis: redis.url, handlers: { mail }, tracing: openTelemetry(), retry: { delayMs: 10 }, ...options })

async function publish(): Promise<string> {
  const producer = new Producer({ redis: redis.url, logger: false, tracing: openTelemetry() })
  onEnd(() => void producer.close())
  return (await producer.publish('mail', {}, { stream: 'orders' })).id
}

/** Runs until its signal aborts, and heeds it. */
const heeding: HandlerFunction = (_data, { signal }) => sleep(60_000, undefined, { signal })

const running = () => eventually(async () => expect(await pending(redis.client)).toHaveLength(1))

describe('the span of a run ends once', () => {
  test('when it ran out of time and heeds that, as a failure', async () => {
    await startTraced(heeding, { timeoutMs: 200, retry: { attempts: 1 } })
    await publish()
    const span = await spans.one('process')
    expect([outcomeOf(span), span.attributes['error.type']]).toEqual(['dead', 'ERR_JOB_TIMEOUT'])
    await spans.one('settle')
  })

  test('when it was cancelled, not as a failure', async () => {
    await startTraced(heeding)
    const id = await publish()
    await running()
    await newInspector(redis.url).cancel('orders', id)
    const span = await spans.one('process')
    expect([outcomeOf(span), span.status.code, span.events]).toEqual(['cancelled', 0, []])
  })

  test('when another worker owns its job', async () => {
    await startTraced(heeding)
    const id = await publish()
    await running()
    await redis.client.xclaim('orders', 'main', 'somebody', 0, id)
    const span = await spans.one('process')
    expect([outcomeOf(span), span.attributes['error.type']]).toEqual(['left', 'ERR_LEASE_LOST'])
  })

  test('when its worker stops and it heeds that, and when it does not', async () => {
    const { wait: deaf } = gate()
    for (const handler of [heeding, deaf]) {
      const worker = await startTraced(handler)
      await publish()
      await running()
      await worker.stop({ drainMs: 0 })
      await redis.flush()
    }
    const ended = await spans.ended('process', 2)
    expect(ended.map((span) => [outcomeOf(span), span.status.code])).toEqual(Array(2).fill(['handed-back', 0]))
  })

  test('when its time is over, its handler goes on, and its worker stops', async () => {
    const { wait, open } = gate()
    const worker = await startTraced(wait, { timeoutMs: 100 })
    await publish()
    await eventually(() => expect(worker.counts.timedOut).toBe(1))
    expect(spans.of('process')).toEqual([])
    await worker.stop({ drainMs: 0 })
    open()
    await sleep(10)
    const span = await spans.one('process')
    expect([outcomeOf(span), span.attributes['error.type']]).toEqual(['overdue', 'ERR_JOB_TIMEOUT'])
  })
})

describe('what brings a job again is linked to, not continued', () => {
  test('by the claim of a job whose worker was killed', async () => {
    const killed = await startWorkerProcess({ redis: redis.url })
    const producer = new Producer({ redis: redis.url, logger: false, tracing: openTelemetry() })
    onEnd(() => void producer.close())
    await producer.publish('slow', { ms: 60_000 }, { stream: 'orders' })
    await killed.line(/^started/)
    killed.signal('SIGKILL')
    await startTraced(() => {}, { handlers: { slow() {} }, leaseMs: LEASE_MS })
    const [send, span] = [await spans.one('send'), await spans.one('process')]
    expect(span.attributes).toMatchObject({ 'millrace.job.deliveries': 2, 'millrace.job.outcome': 'completed' })
    expect([parentOf(span), linksOf(span)]).toEqual([undefined, [['publish', spanIdOf(send)]]])
  })

  test('by a redrive, to the last attempt that was retried too', async () => {
    let isBroken = true
    await startTraced(
      () => {
        if (isBroken) throw new Error('no such address')
      },
      { retry: { attempts: 2, delayMs: 10 } },
    )
    const id = await publish()
    const [first] = await spans.ended('process', 2)
    await spans.ended('settle', 2)
    isBroken = false
    await eventually(async () => {
      const moved = await newInspector(redis.url).dead.redrive('orders', 'main', { ids: [id], execute: true })
      expect(moved).toMatchObject({ executed: true })
    })
    const [, , again] = await spans.ended('process', 3)
    const send = await spans.one('send')
    expect(again?.attributes).toMatchObject({ 'messaging.message.id': id, 'millrace.job.attempt': 1 })
    expect(again && [parentOf(again), linksOf(again)]).toEqual([
      undefined,
      [
        ['publish', spanIdOf(send)],
        ['attempt', first && spanIdOf(first)],
      ],
    ])
  })

  test('by a replay, to the publish of the original', async () => {
    await startTraced(() => {})
    const id = await publish()
    const send = await spans.one('send')
    await spans.one('ack')
    await newInspector(redis.url).replays.start('orders', { ids: [id], group: 'main' })
    const [, copy] = await spans.ended('process', 2)
    expect(copy?.attributes['messaging.message.id']).not.toBe(id)
    expect(copy && [parentOf(copy), linksOf(copy)]).toEqual([undefined, [['publish', spanIdOf(send)]]])
  })

  test('a job that is dead at once leaves no trace of an attempt in its letter', async () => {
    await startTraced(() => {
      throw new FatalError('no such address')
    })
    const id = await publish()
    await spans.one('settle')
    const { fields } = await newInspector(redis.url).dead.show('orders', 'main', id)
    expect(fields?.map(({ name }) => name)).toEqual(['job', 'data', 'traceparent'])
  })
})

test('a worker without tracing carries the trace of the publish along, and not an attempt that is not the last', async () => {
  const inspector = newInspector(redis.url)
  const id = await publish()
  const handlers = {
    mail() {
      throw new Error('not yet')
    },
  }
  const options = { redis: redis.url, handlers, retry: { delayMs: 3_600_000 } }
  const carried = (attempt: string) =>
    eventually(async () => {
      const [job] = await inspector.scheduled.show('orders', id)
      const fields = new Map(job?.fields)
      expect(fields.get('attempt')).toBe(attempt)
      return [...fields.keys()].filter((name) => name.startsWith('trace'))
    })
  const traced = await startWorker({ ...options, tracing: openTelemetry() })
  expect(await carried('1')).toEqual(['traceparent', 'trace-last'])
  await traced.stop()
  await startWorker(options)
  await inspector.scheduled.reschedule('orders', id, { delayMs: 0 })
  expect(await carried('2')).toEqual(['traceparent'])
})
