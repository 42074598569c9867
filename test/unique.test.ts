import { expect, test } from 'vitest'
import { Inspector, type PublishOptions } from '../src/index.ts'
import { uniqueKey } from '../src/redis/keys.ts'
import { newProducer } from './fixtures/producers.ts'
import { eventually } from './helpers/eventually.ts'
import { withRedis } from './helpers/redis.ts'
import { gate, startWorker } from './helpers/workers.ts'

const redis = withRedis()

const publish = (n: number, options: PublishOptions = {}) =>
  newProducer({ redis: redis.url }).publish('x', n, { stream: 'orders', uniqueKey: 'a', ...options })

test('a job that runs holds its key until it is completed, and lets go of it then', async () => {
  const handler = gate()
  const began: unknown[] = []
  await startWorker({ redis: redis.url, handlers: { x: (n) => (began.push(n), handler.wait()) } })
  const first = await publish(1)
  await eventually(() => expect(began).toEqual([1]))
  const second = await publish(2)
  handler.open()
  await eventually(async () => expect(await redis.client.exists(uniqueKey('orders', 'a'))).toBe(0))
  const third = await publish(3)

  expect(second).toEqual({ id: first.id, outcome: 'duplicate' })
  expect(third.outcome).toBe('added')
})

test('a job whose key is held until it is started lets go of it before its handler is called', async () => {
  const handler = gate()
  const held: number[] = []
  await startWorker({
    redis: redis.url,
    handlers: {
      x: async () => {
        held.push(await redis.client.exists(uniqueKey('orders', 'a')))
        await handler.wait()
      },
    },
  })
  const first = await publish(1, { unique: { scope: 'until-started' } })
  await eventually(() => expect(held).toEqual([0]))
  const second = await publish(2, { unique: { scope: 'until-started' } })
  handler.open()

  expect([first.outcome, second.outcome]).toEqual(['added', 'added'])
})
void Inspector
