import { AsyncLocalStorage } from 'node:async_hooks'
import { channel, subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { Producer, type JobEvent } from '../src/index.ts'
import { EVENT_CHANNELS, PRODUCER_EVENT_CHANNELS } from '../src/channels.ts'
import { EVENTS } from '../src/event-table.ts'
import { Events } from '../src/events.ts'
import { resolveLogger } from '../src/logger.ts'
import { PRODUCER_EVENTS } from '../src/producer-events.ts'
import { onEnd } from './helpers/cleanup.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { add, startWorker, tally } from './helpers/workers.ts'

/** Channels of node:diagnostics_channel, as a tool subscribes to them: by their names alone. */

const redis = withRedis()

/** What a channel is told until the end of the test. */
function heard(name: string): unknown[] {
  const messages: unknown[] = []
  const note = (message: unknown) => void messages.push(message)
  subscribe(name, note)
  onEnd(() => void unsubscribe(name, note))
  return messages
}

/** Which of the channels of a tracing channel were told, in order, and of what. */
function heardOf(name: string): { told: string[]; messages: Record<string, unknown>[] } {
  const told: string[] = []
  const messages: Record<string, unknown>[] = []
  const note = (what: string) => (message: object) => {
    told.push(what)
    if (!messages.includes(message as Record<string, unknown>)) messages.push(message as Record<string, unknown>)
  }
  const names = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'] as const
  const subscribers = Object.fromEntries(names.map((what) => [what, note(what)])) as Record<
    (typeof names)[number],
    never
  >
  tracingChannel(name).subscribe(subscribers)
  onEnd(() => void tracingChannel(name).unsubscribe(subscribers))
  return { told, messages }
}

function newProducer(): Producer {
  const producer = new Producer({ redis: redis.url, logger: false })
  onEnd(() => void producer.close())
  return producer
}

describe('the channel of an event', () => {
  test.each([
    ...Object.keys(EVENTS).map((name) => [name, EVENT_CHANNELS] as const),
    ...Object.keys(PRODUCER_EVENTS).map((name) => [name, PRODUCER_EVENT_CHANNELS] as const),
  ])('millrace:%s is told what the listeners of its event are', (name, channels) => {
    const events = new Events<Record<string, never>>(resolveLogger(false), channels)
    const payload = { stream: 'orders', group: 'main' } as never
    expect(events.has(name)).toBe(false)
    const messages = heard(`millrace:${name}`)
    expect(events.has(name)).toBe(true)
    events.emit(name, payload)
    events.on(name, () => messages.push('the listener'))
    events.emit(name, payload)
    expect(messages).toEqual([payload, 'the listener', payload])
  })

  test('has no subscribers any more when they are gone, and then nothing is built for it', () => {
    const events = new Events(resolveLogger(false), EVENT_CHANNELS)
    const note = () => {}
    subscribe('millrace:job:completed', note)
    unsubscribe('millrace:job:completed', note)
    expect([events.has('job:completed'), channel('millrace:job:completed').hasSubscribers]).toEqual([false, false])
  })

  test('tells of every worker of the process, though its subscriber was handed none', async () => {
    const completed = heard('millrace:job:completed') as JobEvent[]
    for (const stream of ['orders', 'mails']) {
      await startWorker({ redis: redis.url, stream, handlers: { mail() {} } })
      await add(redis.client, 'mail', {}, stream)
    }
    await eventually(() => expect(completed.map(({ stream }) => stream).sort()).toEqual(['mails', 'orders']))
    expect(completed[0]).toMatchObject({ group: 'main', job: 'mail', attempt: 1, deliveries: 1 })
  })
})

describe('tracing:millrace:publish', () => {
  test('tells of a publish from its call to its answer, and never its payload', async () => {
    const { told, messages } = heardOf('millrace:publish')
    const { id } = await newProducer().publish('mail', { secret: 'payload' }, { stream: 'orders' })
    expect(told).toEqual(['start', 'end', 'asyncStart', 'asyncEnd'])
    expect(messages).toEqual([{ stream: 'orders', job: 'mail', isMany: false, result: { id, outcome: 'added' } }])
  })

  test('tells of a publishMany as one, and of what fails with its error, which the caller gets all the same', async () => {
    const { told, messages } = heardOf('millrace:publish')
    const producer = newProducer()
    await expect(producer.publishMany('mail', [1, 2n], { stream: 'orders' })).rejects.toThrow('JSON-able')
    await expect(producer.publish(undefined as never, 1)).rejects.toThrow('job name')
    expect(told.filter((what) => what === 'error')).toHaveLength(2)
    expect(messages).toMatchObject([
      { stream: 'orders', job: 'mail', isMany: true, error: { confirmed: 1 } },
      { stream: undefined, job: undefined, error: { code: 'ERR_NAME' } },
    ])
  })
})

describe('tracing:millrace:process', () => {
  test('tells of a run from the call of its handler to its end, and changes no outcome', async () => {
    const { told, messages } = heardOf('millrace:process')
    const handlers = {
      sync: () => 7,
      later: () => sleep(1, 8),
      bad: async () => {
        throw new Error('no')
      },
      worse: () => {
        throw new Error('no')
      },
    }
    await startWorker({ redis: redis.url, handlers, retry: { attempts: 1 }, concurrency: 1 })
    for (const name of Object.keys(handlers)) await add(redis.client, name, { secret: 'payload' })
    await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2, dead: 2 }))
    const good = ['start', 'end', 'asyncStart', 'asyncEnd']
    expect(told).toEqual([...good, ...good, 'start', 'end', 'error', 'asyncStart', 'asyncEnd', 'start', 'error', 'end'])
    expect(messages).toMatchObject([
      { stream: 'orders', group: 'main', job: 'sync', attempt: 1, result: 7 },
      { job: 'later', result: 8 },
      { job: 'bad', error: { message: 'no' } },
      { job: 'worse', error: { message: 'no' } },
    ])
    expect(JSON.stringify(messages)).not.toContain('payload')
  })

  test('can bind a store that the handler and all that it calls can read', async () => {
    const store = new AsyncLocalStorage<string>()
    const { start } = tracingChannel<unknown, JobEvent>('millrace:process')
    start.bindStore(store, ({ id }) => id)
    onEnd(() => void start.unbindStore(store))
    const seen: unknown[] = []
    const mail = async () => {
      await sleep(1)
      seen.push(store.getStore())
    }
    await startWorker({ redis: redis.url, handlers: { mail } })
    const id = await add(redis.client, 'mail')
    await eventually(() => expect(seen).toEqual([id]))
  })
})
