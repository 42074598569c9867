import { inspect } from 'node:util'
import { Cluster, Redis } from 'ioredis'
import { afterEach, describe, expect, test } from 'vitest'
import {
  defineJob,
  handle,
  OptionError,
  Producer,
  Worker,
  type ProducerOptions,
  type WorkerOptions,
} from '../src/index.ts'
import { newProducer } from './fixtures/producers.ts'
import { refused, thrownBy } from './fixtures/refusals.ts'
import { withRedis } from './helpers/redis.ts'

const redis = withRedis()

afterEach(async () => {
  expect(await redis.client.keys('*')).toEqual([])
})

/** Values for options that are whole numbers. */
const NO_WHOLE_NUMBERS = [-1, 1.5, NaN, Infinity, 2 ** 53, '5', '', null, true, {}, [], 5n, () => 5]
const handlers = { x() {} }

const BAD_REDIS: readonly (readonly [unknown, RegExp])[] = [
  [5, /^expected `redis` to be a URL, ioredis options or an ioredis instance, got 5$/],
  [null, /^expected `redis` to be .*, got null$/],
  [true, /^expected `redis` to be .*, got true$/],
  [[], /^expected `redis` to be .*, got an array$/],
  ['', /^expected `redis` to be a URL that starts with redis:\/\/ or rediss:\/\/, or a socket path$/],
  ['localhost:6379', /starts with redis:/],
  ['http://localhost', /starts with redis:/],
  [{ keyPrefix: 'app:' }, /^expected `redis` without keyPrefix: scripts/],
  ['redis://localhost?keyPrefix=app:', /without keyPrefix/],
  ['redis://localhost:notaport', /^expected `redis` to be a URL/],
  ['redis://:%zz@localhost', /^expected `redis` to be a URL/],
]

describe('Producer refuses', () => {
  const make = (options: unknown) => () => new Producer(options as ProducerOptions)

  test.each([null, 5, true, []])('options that are %j', (options) => {
    refused(make(options), 'ERR_OPTION', /^expected the options of Producer to be an object, got /)
  })

  test.each([
    [{ timeoutms: 1 }, 'unknown option `timeoutms` of Producer (did you mean `timeoutMs`?)'],
    [{ maxPayloadByte: 1 }, 'unknown option `maxPayloadByte` of Producer (did you mean `maxPayloadBytes`?)'],
  ])('an unknown option, and says which was meant: %j', (options, message) => {
    refused(make(options), 'ERR_OPTION', message)
  })

  test('an unknown option like no other, and says which there are', () => {
    refused(
      make({ zoom: 1 }),
      'ERR_OPTION',
      /^unknown option `zoom` of Producer \(known: redis, durability, .*logger\)$/,
    )
  })

  test.each(['timeoutMs', 'maxPayloadBytes'])('%s but a positive integer', (name) => {
    for (const value of [0, ...NO_WHOLE_NUMBERS]) {
      const message = new RegExp(`^expected \`${name}\` to be a positive integer.*, got `)
      refused(make({ [name]: value }), 'ERR_OPTION', message)
    }
  })

  test('an option of close that there is not, and options that are none', async () => {
    const producer = new Producer({ redis: 'redis://127.0.0.1:1', logger: false })
    await expect(producer.close({ timeout: 5 } as never)).rejects.toThrow('unknown option `timeout` of close')
    await expect(producer.close(null as never)).rejects.toThrow(
      'expected the options of close to be an object, got null',
    )
    await producer.close()
  })

  test.each(['maxJobs', 'maxBytes'])('buffer.%s but a positive integer', (name) => {
    for (const value of [0, ...NO_WHOLE_NUMBERS]) {
      const message = new RegExp(`^expected \`buffer.${name}\` to be a positive integer.*, got `)
      refused(make({ buffer: { [name]: value } }), 'ERR_OPTION', message)
    }
  })

  test('a payload limit beyond what a field of Redis may hold', () => {
    const message = 'expected `maxPayloadBytes` to be a positive integer up to 536870912, got 536870913'
    refused(make({ maxPayloadBytes: 2 ** 29 + 1 }), 'ERR_OPTION', message)
  })

  test.each([null, true, 'pino', {}, { warn() {} }])('a logger that is %j', (logger) => {
    refused(make({ logger }), 'ERR_OPTION', /^expected `logger` to have a method \w+, as pino has, or to be false$/)
  })

  test.each(BAD_REDIS)('redis: %j', (given, message) => {
    refused(make({ redis: given }), 'ERR_OPTION', message)
  })
})

describe('both sides refuse', () => {
  const sides: [string, (given: unknown) => unknown][] = [
    ['Producer', (given) => new Producer({ redis: given as string })],
    ['Worker', (given) => new Worker({ redis: given as string, stream: 'orders', handlers })],
  ]

  test.each(sides)('an instance with a keyPrefix, and a cluster: %s', (_side, make) => {
    const prefixed = new Redis({ keyPrefix: 'app:', lazyConnect: true })
    const cluster = new Cluster([{ host: '127.0.0.1', port: 1 }], { lazyConnect: true })
    refused(() => make(prefixed), 'ERR_OPTION', /without keyPrefix/)
    refused(() => make(cluster), 'ERR_OPTION', /an ioredis Cluster is not supported/)
  })

  test.each(
    sides.flatMap(([side, make]) =>
      ['http://u:hunter2@host', 'host?password=hunter2', 'redis://:hunter2@host:port', 'redis://:hunter2%zz@host'].map(
        (url) => [side, url, make] as const,
      ),
    ),
  )('with the password of a URL in no part of the error: %s, %s', (_side, url, make) => {
    expect(
      inspect(
        thrownBy(() => make(url)),
        { depth: 20, showHidden: true },
      ),
    ).not.toContain('hunter2')
  })

  test.each([
    ['Producer', (url: string) => new Producer(url as ProducerOptions)],
    ['Worker', (url: string) => new Worker(url as unknown as WorkerOptions)],
  ])('a URL in place of the options, with its password in no part of the error: %s', (_side, make) => {
    const error = thrownBy(() => make('redis://:hunter2@localhost'))
    expect(error).toBeInstanceOf(OptionError)
    expect(inspect(error, { depth: 20, showHidden: true })).not.toContain('hunter2')
  })
})

describe('a URL with options of the client in its query', () => {
  test.each(['lazyConnect=', 'maxRetriesPerRequest=9', 'autoResendUnfulfilledCommands=1', 'stringNumbers=1'])(
    'is refused, for they would count before our rules of a connection: %s',
    (query) => {
      const message = /^expected `redis`/
      refused(() => new Producer({ redis: `redis://127.0.0.1:1?${query}`, logger: false }), 'ERR_OPTION', message)
    },
  )

  test.each(['redis://127.0.0.1:1?db=3', 'redis://127.0.0.1:1?family=6'])(
    'is taken where it says where Redis is: %s',
    (url) => {
      newProducer({ redis: url })
    },
  )
})

describe('Worker refuses', () => {
  const make = (options: unknown) => () => new Worker(options as WorkerOptions)
  const makeWith = (options: object) => make({ redis: redis.url, stream: 'orders', handlers, ...options })

  test.each([undefined, null, 5, []])('options that are %j', (options) => {
    refused(make(options), 'ERR_OPTION', /^expected the options of Worker to be an object, got /)
  })

  test.each<[object, string, string | RegExp]>([
    [{ concurency: 5 }, 'ERR_OPTION', 'unknown option `concurency` of Worker (did you mean `concurrency`?)'],
    [{ lease: 5 }, 'ERR_OPTION', 'unknown option `lease` of Worker (did you mean `leaseMs`?)'],
    [{ concurrency: 0 }, 'ERR_OPTION', 'expected `concurrency` to be a positive integer up to 10000, got 0'],
    [{ concurrency: 10_001 }, 'ERR_OPTION', /`concurrency`.* up to 10000, got 10001$/],
    [{ leaseMs: 499 }, 'ERR_OPTION', /^expected `leaseMs` to be an integer of 500 or more up to 86400000, got 499$/],
    [{ leaseMs: 86_400_001 }, 'ERR_OPTION', /`leaseMs`/],
    [{ maxDeliveries: 0 }, 'ERR_OPTION', /`maxDeliveries` to be a positive integer up to 1000, got 0$/],
    [{ maxDeliveries: 1001 }, 'ERR_OPTION', /`maxDeliveries`/],
    [{ timeoutMs: 0 }, 'ERR_OPTION', /`timeoutMs` to be a positive integer up to 2147483647, got 0$/],
    [{ timeoutMs: true }, 'ERR_OPTION', /`timeoutMs`.*false.*got true$/],
    [{ timeoutMs: 2 ** 31 }, 'ERR_OPTION', /`timeoutMs`/],
    [{ drainMs: -1 }, 'ERR_OPTION', /^expected `drainMs` to be an integer of 0 or more up to 2147483647, got -1$/],
    [{ stallMs: 0 }, 'ERR_OPTION', /`stallMs`/],
    [{ leaseMs: 2000, stallMs: 1999 }, 'ERR_OPTION', 'expected `stallMs` to be at least `leaseMs` (2000), got 1999'],
    [{ healthPort: -1 }, 'ERR_OPTION', /^expected `healthPort` to be an integer of 0 or more up to 65535, got -1$/],
    [{ healthPort: 65_536 }, 'ERR_OPTION', /`healthPort`/],
    [
      { healthPort: 0, healthHost: '' },
      'ERR_OPTION',
      /^expected `healthHost` to be an address or a host name, got ""$/,
    ],
    [{ healthPort: 0, healthHost: 5 }, 'ERR_OPTION', /`healthHost`.* got 5$/],
    [{ healthHost: 'localhost' }, 'ERR_OPTION', 'expected `healthPort` beside `healthHost`'],
    [{ startAt: 'new' }, 'ERR_OPTION', 'expected `startAt` to be one of oldest, now, got "new"'],
    [{ startAt: null }, 'ERR_OPTION', /`startAt`/],
    [{ logger: {} }, 'ERR_OPTION', /`logger`/],
    [{ group: '' }, 'ERR_NAME', /^expected a group name of 1 to 64 letters, digits and _ \. - , got ""$/],
    [{ group: 'a:b' }, 'ERR_NAME', /group name/],
    [{ group: 'a b' }, 'ERR_NAME', /group name/],
    [{ group: 'g'.repeat(65) }, 'ERR_NAME', /group name/],
    [{ group: 5 }, 'ERR_NAME', /group name.* got 5$/],
    [{ stream: undefined }, 'ERR_NAME', /^expected a stream name .*, got undefined$/],
    [{ handlers: undefined }, 'ERR_HANDLERS', /^expected handlers to be .*, got undefined$/],
    [{ handlers: null }, 'ERR_HANDLERS', /got null$/],
    [{ handlers: {} }, 'ERR_HANDLERS', 'expected at least one handler, got none'],
    [{ handlers: [] }, 'ERR_HANDLERS', /at least one/],
    [{ handlers: [5] }, 'ERR_HANDLERS', /^expected a list of handle\(job, function\), got 5 in it$/],
    [{ handlers: [null] }, 'ERR_HANDLERS', /got null in it$/],
    [{ handlers: { x: 5 } }, 'ERR_HANDLERS', 'expected the handler of x to be a function, got 5'],
    [{ handlers: { 'a b': () => {} } }, 'ERR_NAME', /job name.*got "a b"$/],
    [
      { handlers: [0, 1].map(() => handle(defineJob('x'), () => {})) },
      'ERR_HANDLERS',
      /one handler for job x, got two/,
    ],
  ])('%j', (options, code, message) => {
    refused(makeWith(options), code, message)
  })

  test.each(['concurrency', 'leaseMs', 'maxDeliveries', 'timeoutMs', 'drainMs', 'stallMs', 'healthPort'])(
    '%s but an integer',
    (name) => {
      for (const value of NO_WHOLE_NUMBERS)
        refused(makeWith({ [name]: value }), 'ERR_OPTION', new RegExp(`\`${name}\``))
    },
  )

  test.each(BAD_REDIS)('redis: %j', (given, message) => {
    refused(makeWith({ redis: given }), 'ERR_OPTION', message)
  })
})

test('nothing is opened by a Producer or a Worker that was only made', async () => {
  newProducer({ redis: redis.url })
  const worker = new Worker({ redis: redis.url, stream: 'orders', handlers })
  expect(await redis.client.client('LIST')).not.toContain('millrace:')
  await worker.stop()
})
