import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import { OptionError, PublishError } from '../src/errors.ts'
import { EVENT_CHANNELS, PRODUCER_EVENT_CHANNELS } from '../src/channels.ts'
import { EVENTS, type EventName, type EventPayloads } from '../src/event-table.ts'
import { Events } from '../src/events.ts'
import { resolveLogger, type Logger } from '../src/logger.ts'
import { PRODUCER_EVENTS, type ProducerEventPayloads } from '../src/producer-events.ts'
import { keepingLogger } from './helpers/log.ts'

const where = { stream: 'orders', group: 'main' }
const job = { ...where, id: '1-0', job: 'send-receipt', attempt: 1, deliveries: 1, entryId: '1-0' }
const dead: EventPayloads['job:dead'] = { ...job, reason: 'attempts', error: new Error('smtp is away') }

interface Said {
  readonly level: string
  readonly message: string
  readonly fields: Record<string, unknown>
}

function newEvents(): { events: Events; said: Said[] } {
  const said: Said[] = []
  const write = (level: string) => (fields: object, message: string) =>
    void said.push({ level, message, fields: { ...fields } })
  const logger: Logger = { debug: write('debug'), info: write('info'), warn: write('warn'), error: write('error') }
  return { events: new Events(resolveLogger(logger), EVENT_CHANNELS), said }
}

describe('who listens', () => {
  test('is told every time, in the order of registration and before emit returns', () => {
    const { events } = newEvents()
    const told: unknown[] = []
    events.on('job:dead', ({ id, reason }) => told.push(['first', id, reason]))
    events.on('job:dead', ({ job }) => told.push(['second', job]))
    events.emit('job:dead', dead)
    events.emit('job:dead', dead)
    const each = [
      ['first', '1-0', 'attempts'],
      ['second', 'send-receipt'],
    ]
    expect(told).toEqual([...each, ...each])
  })

  test('hears of its own event only', () => {
    const { events } = newEvents()
    const told: string[] = []
    events.on('job:completed', () => told.push('completed'))
    events.emit('job:dead', dead)
    events.emit('job:completed', job)
    expect(told).toEqual(['completed'])
  })

  test('with once is told once, also if its own call emits the event again', () => {
    const { events } = newEvents()
    let calls = 0
    let nested = false
    events.on('worker:started', () => {
      if (nested) return
      nested = true
      events.emit('worker:started', where)
    })
    events.once('worker:started', () => {
      calls += 1
      events.emit('worker:started', where)
    })
    events.emit('worker:started', where)
    events.emit('worker:started', where)
    expect(calls).toBe(1)
  })

  test('is told no more after off, which takes back one registration, of once too', () => {
    const { events } = newEvents()
    let calls = 0
    const listener = () => (calls += 1)
    events.on('job:late', listener)
    events.once('job:late', listener)
    events.off('job:late', listener)
    events.emit('job:late', { ...where, count: 1 })
    events.emit('job:late', { ...where, count: 1 })
    expect(calls).toBe(2)
    events.off('job:late', listener)
    events.off('job:late', listener)
    events.emit('job:late', { ...where, count: 1 })
    expect(calls).toBe(2)
  })

  test('may leave or come while the event is told: this telling goes on with the list that it began with', () => {
    const { events } = newEvents()
    const told: string[] = []
    const second = () => told.push('second')
    events.on('job:completed', () => {
      told.push('first')
      events.off('job:completed', second)
      events.once('job:completed', () => told.push('late'))
    })
    events.on('job:completed', second)
    events.emit('job:completed', job)
    expect(told).toEqual(['first', 'second'])
    events.emit('job:completed', job)
    expect(told).toEqual(['first', 'second', 'first', 'late'])
  })
})

describe('has tells whether a payload is worth building', () => {
  test('only while somebody listens to that event', () => {
    const { events } = newEvents()
    const listener = () => {}
    expect(events.has('job:started')).toBe(false)
    events.on('job:started', listener)
    expect(events.has('job:started')).toBe(true)
    expect(events.has('job:completed')).toBe(false)
    events.off('job:started', listener)
    expect(events.has('job:started')).toBe(false)
    events.once('job:started', listener)
    events.emit('job:started', job)
    expect(events.has('job:started')).toBe(false)
  })
})

describe('a listener changes nothing', () => {
  test.each<[string, () => unknown]>([
    [
      'that throws',
      () => {
        throw new Error('full')
      },
    ],
    [
      'that throws what has no text',
      () => {
        throw Object.create(null)
      },
    ],
    ['whose promise is rejected', () => Promise.reject(new Error('full'))],
    [
      'that returns something with a `then` that throws',
      () => ({
        get then() {
          throw new Error('full')
        },
      }),
    ],
    [
      'that returns something with a `then` that rejects',
      () => ({ then: (_: unknown, no: (e: Error) => void) => no(new Error('full')) }),
    ],
  ])('%s is contained and logged, and the others are told', async (_, listener) => {
    const { events, said } = newEvents()
    const told: string[] = []
    events.on('job:dead', listener)
    events.on('job:dead', ({ id }) => told.push(id))
    events.emit('job:dead', dead)
    await nextTurn()
    expect(told).toEqual(['1-0'])
    expect(said).toEqual([
      { level: 'error', message: expect.stringContaining('listener') as unknown, fields: expect.anything() as unknown },
    ])
    expect(said[0]?.fields).toMatchObject({ ...where, event: 'job:dead', failures: 1 })
  })

  test('not even of the event error', async () => {
    const { events, said } = newEvents()
    events.on('error', async ({ error }) => {
      throw error
    })
    events.emit('error', { ...where, error: new Error('Redis is away') })
    await nextTurn()
    expect(said).toHaveLength(1)
  })

  test('that fails with every job does not write a line for every job', () => {
    const { events, said } = newEvents()
    events.on('job:completed', () => {
      throw new Error('full')
    })
    for (let at = 0; at < 1000; at++) events.emit('job:completed', job)
    expect(said.length).toBeGreaterThan(0)
    expect(said.length).toBeLessThan(100)
  })

  test('and a logger that throws changes nothing either', () => {
    const broken = () => {
      throw new Error('disk full')
    }
    const events = new Events(
      resolveLogger({ debug: broken, info: broken, warn: broken, error: broken }),
      EVENT_CHANNELS,
    )
    events.on('job:completed', broken)
    expect(() => events.emit('job:completed', job)).not.toThrow()
  })
})

describe('the events of a producer', () => {
  const newEvents = (logger: Logger) =>
    new Events<ProducerEventPayloads>(resolveLogger(logger), PRODUCER_EVENT_CHANNELS)

  test('are its own: those of a worker are refused', () => {
    const events = newEvents(keepingLogger().logger)
    const told: unknown[] = []
    events.on('job:published', ({ ref, id }) => told.push([ref, id]))
    events.emit('job:published', { stream: 'orders', job: 'mail', ref: 'a', id: '1-0', outcome: 'added' })
    expect(told).toEqual([['a', '1-0']])
    expect(() => events.on('job:publish' as never, () => {})).toThrow('did you mean job:published?')
    expect(() => events.on('worker:started' as never, () => {})).toThrow('there are: job:published, ')
  })

  test('do not write the data of a job into the log when a listener fails', () => {
    const { logger, lines } = keepingLogger()
    const events = newEvents(logger)
    events.on('job:unpublished', () => {
      throw new Error('full')
    })
    const error = new PublishError('ERR_PUBLISH_TIMEOUT', 'its time was up')
    const job = { stream: 'orders', job: 'mail', ref: 'a', published: 'no', error, spilled: false } as const
    events.emit('job:unpublished', {
      ...job,
      data: 'secret',
      options: { stream: 'orders', idempotencyToken: 'secret' },
    })
    expect(lines).toMatchObject([
      { level: 'error', fields: { stream: 'orders', job: 'mail', ref: 'a', error: 'full' } },
    ])
    expect(JSON.stringify(lines)).not.toContain('secret')
  })
})

test('an error that nobody listens to is thrown nowhere', () => {
  const { events, said } = newEvents()
  expect(() => events.emit('error', { ...where, error: new Error('Redis is away') })).not.toThrow()
  expect(said).toEqual([])
})

test('a leak of listeners is said once an event, and they are told all the same', () => {
  const { events, said } = newEvents()
  let calls = 0
  for (let at = 0; at < 100; at++) events.on('job:completed', () => (calls += 1))
  expect(said).toEqual([])
  for (let at = 0; at < 50; at++) events.on('job:completed', () => (calls += 1))
  expect(said).toMatchObject([{ level: 'warn', fields: { event: 'job:completed', listeners: 101 } }])
  events.emit('job:completed', job)
  expect(calls).toBe(150)
})

describe('what cannot be meant is refused', () => {
  const unknown = (name: unknown) => name as EventName

  test.each([
    ['job:complete', 'did you mean job:completed?'],
    ['job:lease_lost', 'did you mean job:lease-lost?'],
    ['Error', 'did you mean error?'],
    ['__proto__', 'there are: job:started, '],
    ['toString', 'there are: job:started, '],
    [undefined, 'there are: job:started, '],
  ])('the event %s', (name, hint) => {
    const { events } = newEvents()
    for (const method of ['on', 'once', 'off'] as const) {
      expect(() => events[method](unknown(name), () => {})).toThrow(OptionError)
      expect(() => events[method](unknown(name), () => {})).toThrow(hint)
    }
  })

  test('a listener that is no function', () => {
    const { events } = newEvents()
    const listener = 3 as unknown as () => void
    expect(() => events.on('job:dead', listener)).toThrow('expected the listener of job:dead to be a function, got 3')
    expect(events.has('job:dead')).toBe(false)
  })
})

test('each event says when it occurs and what it does not mean', () => {
  for (const [name, { when, not }] of [EVENTS, PRODUCER_EVENTS].flatMap((table) => Object.entries(table))) {
    expect(name).toMatch(/^(error|(job|scheduler|worker|group|buffer|spill):[a-z-]+)$/)
    expect(when).toMatch(/^[A-Z`].*\.$/)
    expect(not).toMatch(/^That .*\.$/)
  }
})
