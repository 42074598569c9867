import { expect, test } from 'vitest'
import { defineJob, handle, Inspector, type Job, type RetryOptions } from '../../src/index.ts'
import { decideRetry, mergeRetry } from '../../src/retry.ts'
import { settleOthers } from '../../src/redis/settling.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { withRedis } from '../helpers/redis.ts'
import { add, gate, pending, startWorker, tally } from '../helpers/workers.ts'

/** What users' functions, thrown values and bent keys can do: nothing to other jobs, and nothing that is not said. */

const redis = withRedis()
const GROUP = '{orders}:group:main:'
const failure = { id: '1-1', name: 'x', attempt: 1, error: new Error('x'), publishedMs: 0, firstFailedMs: 0 }
const decide = (options: unknown) => decideRetry(options as RetryOptions, failure, { nowMs: 1, chance: 0 })

/** Promises that were rejected while nobody listened, during the test. */
function unheard(): unknown[] {
  const seen: unknown[] = []
  const note = (error: unknown) => void seen.push(error)
  process.on('unhandledRejection', note)
  onEnd(() => void process.off('unhandledRejection', note))
  return seen
}

test('an arrow function in a list of error classes is refused where it is given', () => {
  const isTimeout = (error: { code?: string }) => error.code === 'ETIMEDOUT'
  expect(() => defineJob('x', { retry: { retryOn: [isTimeout as never] } })).toThrow('expected `retry.retryOn` to be')
  expect(decide({ retryOn: [isTimeout] })).toMatchObject({
    kind: 'retry',
    complaint: expect.stringContaining('threw') as string,
  })
})

test('a definition that was written by hand is checked like one of defineJob', async () => {
  const byHand = { name: 'x', stream: undefined, timeoutMs: undefined, retry: { delayMs: NaN } }
  await expect(startWorker({ redis: redis.url, handlers: [handle(byHand, () => {})] })).rejects.toThrow(
    'expected `x.retry.delayMs` to be an integer of 0 or more',
  )
})

test('an async function of the retry options is no answer: it is complained of, and its rejection ends nothing', async () => {
  const seen = unheard()
  const fails = () => Promise.reject(new Error('async'))
  for (const name of ['backoff', 'retryUntil', 'failOn', 'retryOn']) {
    expect(decide({ [name]: fails })).toMatchObject({
      kind: 'retry',
      complaint: `the function \`${name}\` returned a promise, which is not waited for`,
    })
  }
  expect(decide({ retryUntil: () => Object.create(null) as Date })).toMatchObject({ kind: 'retry' })
  await new Promise((resolve) => setImmediate(resolve))
  expect(seen).toEqual([])
})

test('what a definition says to be undefined is as the worker says', () => {
  expect(mergeRetry({ attempts: undefined } as never, { attempts: 1 })).toEqual({ attempts: 1 })
})

test('a thrown value that throws when it is looked at settles its job, and holds up none beside it', async () => {
  const seen = unheard()
  const go = gate()
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  let started = 0
  const x = async () => {
    const mine = started++
    await go.wait()
    throw mine === 3 ? (proxy as Error) : new Error('plain')
  }
  await startWorker({ redis: redis.url, concurrency: 10, retry: { attempts: 1, failOn: [TypeError] }, handlers: { x } })
  for (let n = 0; n < 10; n++) await add(redis.client, 'x')
  await waitFor(() => started === 10, { what: 'all started' })
  go.open()

  await eventually(async () => expect(await tally(redis.client)).toEqual({ dead: 10 }))
  expect(await pending(redis.client)).toEqual([])
  expect(seen).toEqual([])
})

test('an error whose name throws after its run was aborted gives its slot back', async () => {
  class Hostile extends Error {
    override get name(): string {
      throw new Error('no name')
    }
  }
  const x = async (_data: unknown, job: Job) => {
    await new Promise<void>((resolve) => job.signal.addEventListener('abort', () => resolve()))
    throw new Hostile('x')
  }
  const seen: string[] = []
  const y = (_data: unknown, job: Job) => void seen.push(job.id)
  await startWorker({ redis: redis.url, concurrency: 1, timeoutMs: 50, retry: { attempts: 1 }, handlers: { x, y } })
  await add(redis.client, 'x')
  const id = await add(redis.client, 'y')

  await eventually(() => expect(seen).toEqual([id]))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ dead: 1, completed: 1 }))
})

test('a tally that cannot be written keeps no job from its place: each is settled once, the others too', async () => {
  const id = await add(redis.client, 'good')
  const hour = new Date(Number(id.split('-')[0])).toISOString().slice(0, 13)
  for (const at of [hour, new Date(Number(id.split('-')[0]) + 3_600_000).toISOString().slice(0, 13)]) {
    await redis.client.set(`${GROUP}tally:${at}`, 'of another type')
  }
  for (const name of ['bad', 'worse', 'good']) await add(redis.client, name)
  const worker = await startWorker({
    redis: redis.url,
    handlers: [
      handle(defineJob('bad', { retry: { attempts: 1 } }), () => Promise.reject(new Error('x'))),
      handle(defineJob('worse', { retry: { attempts: 2, delayMs: 1 } }), () => Promise.reject(new Error('x'))),
      handle(defineJob('good'), () => {}),
    ],
  })

  await eventually(() => expect(worker.counts).toMatchObject({ completed: 2, retried: 1, dead: 2, late: 0 }))
  expect(await redis.client.xlen(`${GROUP}dead`)).toBe(2)
  expect(await pending(redis.client)).toEqual([])
  expect(await redis.client.zcard(`${GROUP}scheduled`)).toBe(0)
})

test('a job whose last attempt fails after it was cancelled is cancelled, and no dead letter', async () => {
  const go = gate()
  const x = async () => {
    await go.wait()
    throw new Error('x')
  }
  await startWorker({ redis: redis.url, leaseMs: 10_000, retry: { attempts: 1 }, handlers: { x } })
  const id = await add(redis.client, 'x')
  await eventually(async () => expect(await pending(redis.client)).toHaveLength(1))
  const inspector = new Inspector({ redis: redis.url })
  onEnd(() => inspector.close())
  await inspector.cancel('orders', id)
  go.open()

  await eventually(async () => expect(await tally(redis.client)).toEqual({ cancelled: 1 }))
  expect(await redis.client.xlen(`${GROUP}dead`)).toBe(0)
})

test('a job that is dead for its deliveries keeps the attempts that it had, and when the first one failed', async () => {
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  const earlier = ['attempt', '5', 'first-failed', '1234567890123', 'past-attempts', '25']
  const id = (await redis.client.xadd('orders', '*', 'job', 'x', 'data', '1', ...earlier)) as string
  await redis.client.xreadgroup('GROUP', 'main', 'gone', 'STREAMS', 'orders', '>')
  const spent = ['RETRYCOUNT', '3', 'IDLE', '9999999', 'JUSTID']
  await redis.client.call('XCLAIM', 'orders', 'main', 'gone', '0', id, ...spent)
  await startWorker({ redis: redis.url, handlers: { x() {} } })

  const [letter] = await eventually(async () => {
    const found = await redis.client.xrange(`${GROUP}dead`, '-', '+')
    expect(found).toHaveLength(1)
    return found
  })
  const value = (name: string) => letter?.[1][letter[1].indexOf(`dead-${name}`) + 1]
  expect(['reason', 'attempts', 'total-attempts', 'first-failed'].map(value)).toEqual([
    'deliveries',
    '5',
    '30',
    '1234567890123',
  ])
})

test('a retry whose delay is no number changes nothing in Redis', async () => {
  await redis.client.xgroup('CREATE', 'orders', 'main', '0', 'MKSTREAM')
  const id = await add(redis.client, 'x')
  await redis.client.xreadgroup('GROUP', 'main', 'me', 'STREAMS', 'orders', '>')
  const member = { stream: 'orders', group: 'main', consumer: 'me' }
  const retry = {
    entryId: id,
    id,
    deliveries: 1,
    kind: 'retry',
    delayMs: NaN,
    attempt: 1,
    firstFailedMs: undefined,
    error: 'x',
  } as const
  await expect(settleOthers(redis.client, member, { source: 0, outcomes: [retry], resent: false })).rejects.toThrow()

  expect(await redis.client.exists([`${GROUP}scheduled`, `${GROUP}scheduled:jobs`, `${GROUP}index`])).toBe(0)
  expect(await pending(redis.client)).toHaveLength(1)
})

test('a due time below all others is set aside, and no pulse fails of it', async () => {
  const said: string[] = []
  const say = (_fields: object, message: string) => void said.push(message)
  const logger = { debug() {}, info() {}, warn: say, error: say }
  const worker = await startWorker({ redis: redis.url, logger, handlers: { x() {} } })
  await redis.client.hset(`${GROUP}scheduled:jobs`, '7-7', 'junk')
  await redis.client.zadd(`${GROUP}scheduled`, '-inf', '7-7')

  await eventually(() => expect(worker.counts.setAside).toBe(1))
  expect(await redis.client.zscore(`${GROUP}scheduled`, '7-7')).toBe('inf')
  expect(said).toEqual(['scheduled jobs cannot be promoted; they are set aside and never due'])
})
