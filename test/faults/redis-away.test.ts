import { expect, test } from 'vitest'
import type { Worker } from '../../src/index.ts'
import { claim } from '../../src/redis/scripts/claim.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { startProxy } from '../helpers/proxy.ts'
import { connectTo, startServer, withRedis } from '../helpers/redis.ts'
import { add, gate, pending, startWorker, tally } from '../helpers/workers.ts'

/** Redis stopped, restarted, emptied, or answering into the void. */

const redis = withRedis()

/** Half of it is the time that keepers have to come back on a machine that is busy with other tests. */
const AWAY_LEASE_MS = 5000

/** 20 jobs that run on two workers and wait for a gate; how often each was started. */
async function twentyRunning(url: string) {
  const client = connectTo(url)
  const { wait, open } = gate()
  const starts = new Map<string, number>()
  const hold = async (_data: unknown, job: { id: string }) => {
    starts.set(job.id, (starts.get(job.id) ?? 0) + 1)
    await wait()
  }
  const workers: Worker[] = []
  for (let n = 0; n < 2; n++) {
    workers.push(await startWorker({ redis: url, concurrency: 10, leaseMs: AWAY_LEASE_MS, handlers: { hold } }))
  }
  for (let n = 0; n < 20; n++) await add(client, 'hold')
  await waitFor(() => starts.size === 20, { what: '20 jobs run' })
  const passes = () => workers.reduce((sum, { counts }) => sum + counts.claimPasses, 0)
  return { client, open, starts, workers, passes }
}

test('jobs that run while Redis is stopped for 15 s are not stolen when it goes on: none runs twice', async () => {
  const server = await startServer()
  const { client, open, starts, workers, passes } = await twentyRunning(server.url)
  server.stopProcess()
  await new Promise((resolve) => setTimeout(resolve, 15_000))
  const before = passes()
  server.continueProcess()
  await waitFor(() => passes() >= before + 3, { what: 'claim passes go on' })
  open()

  await eventually(async () => expect(await tally(client)).toEqual({ completed: 20 }))
  expect([...starts.values()]).toEqual(new Array(20).fill(1))
  expect(workers.map(({ counts }) => counts.leaseLost + counts.late + counts.claimed)).toEqual([0, 0])
})

test('jobs that run through a restart of Redis with AOF are not stolen: none runs twice', async () => {
  const server = await startServer({ aof: true })
  const { client, open, starts, workers, passes } = await twentyRunning(server.url)
  await server.kill()
  await new Promise((resolve) => setTimeout(resolve, AWAY_LEASE_MS * 1.5))
  const before = passes()
  await server.restart()
  await waitFor(() => passes() >= before + 3, { what: 'claim passes go on' })
  open()

  await eventually(async () => expect(await tally(client)).toEqual({ completed: 20 }))
  expect([...starts.values()]).toEqual(new Array(20).fill(1))
  expect(workers.map(({ counts }) => counts.leaseLost + counts.late + counts.claimed)).toEqual([0, 0])
})

test('outcomes that Redis would not take while it was away are settled when it is back, without a second run', async () => {
  const server = await startServer({ aof: true })
  const { client, open, starts } = await twentyRunning(server.url)
  await server.kill()
  open()
  await new Promise((resolve) => setTimeout(resolve, AWAY_LEASE_MS * 1.5))
  await server.restart()

  await eventually(async () => expect(await tally(client)).toEqual({ completed: 20 }))
  expect([...starts.values()]).toEqual(new Array(20).fill(1))
  expect(await pending(client)).toEqual([])
})

test('entries whose read reply was lost are run all the same', async () => {
  const proxy = await startProxy(redis.url)
  const ran: string[] = []
  const worker = await startWorker({ redis: proxy.url, handlers: { x: (_data, job) => void ran.push(job.id) } })
  const first = await add(redis.client, 'x')
  await eventually(() => expect(ran).toEqual([first]))
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  const swallowed = proxy.swallowReplyTo(([name]) => name === 'xreadgroup')
  proxy.cut()
  await waitFor(async () => (await readers(worker)) > 0, { what: 'a read is blocked again' })
  const lost = await add(redis.client, 'x')
  await swallowed
  await eventually(async () => expect(await pending(redis.client)).toMatchObject([{ id: lost, deliveries: 1 }]))
  expect(ran).toEqual([first])

  await eventually(() => expect(ran).toEqual([first, lost]))
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 2 }))
})

test('three claims whose replies were lost cost a job no delivery', async () => {
  const proxy = await startProxy(redis.url)
  const id = await add(redis.client, 'x')
  await redis.client.call('XGROUP', 'CREATE', 'orders', 'main', '0')
  await redis.client.call('XREADGROUP', 'GROUP', 'main', 'ghost', 'STREAMS', 'orders', '>')
  await redis.client.call('SCRIPT', 'LOAD', claim.lua)
  const expire = async () => {
    await redis.client.call('XCLAIM', 'orders', 'main', 'ghost', 0, id, 'IDLE', 600_000, 'JUSTID')
    await redis.client.hdel('{orders}:group:main:workers:info', ':sweep', ':tick')
  }
  await expire()
  const ran: number[] = []
  let swallowed = proxy.swallowReplyTo(isClaim)
  await startWorker({ redis: proxy.url, handlers: { x: (_data, job) => void ran.push(job.deliveries) } })
  for (let lost = 0; lost < 3; lost++) {
    await swallowed
    await eventually(async () => expect((await pending(redis.client))[0]?.consumer).not.toBe('ghost'))
    expect(await pending(redis.client)).toMatchObject([{ id, deliveries: 1 }])
    if (lost < 2) swallowed = proxy.swallowReplyTo(isClaim)
    await expire()
  }

  await eventually(() => expect(ran).toEqual([2]))
})

test('a group destroyed while its stream stays is made again at its floor: finished jobs do not run again', async () => {
  const ran = new Map<string, number>()
  await startWorker({
    redis: redis.url,
    handlers: { x: (_data, job) => void ran.set(job.id, (ran.get(job.id) ?? 0) + 1) },
  })
  for (let n = 0; n < 1000; n++) await add(redis.client, 'x')
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1000 }))
  expect(await redis.client.call('XGROUP', 'DESTROY', 'orders', 'main')).toBe(1)
  for (let n = 0; n < 10; n++) await add(redis.client, 'x')

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1010 }))
  expect([...ran.values()].filter((times) => times > 1)).toEqual([])
  expect(ran.size).toBe(1010)
})

test('a worker that starts on a stream whose group vanished goes on at the floor', async () => {
  const ran: string[] = []
  const handlers = { x: (_data: unknown, job: { id: string }) => void ran.push(job.id) }
  const before = await startWorker({ redis: redis.url, handlers })
  for (let n = 0; n < 5; n++) await add(redis.client, 'x')
  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 5 }))
  await before.stop()
  await redis.client.call('XGROUP', 'DESTROY', 'orders', 'main')
  const next = await add(redis.client, 'x')
  await startWorker({ redis: redis.url, handlers })

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 6 }))
  expect(ran).toHaveLength(6)
  expect(ran.at(-1)).toBe(next)
})

test('a worker under which Redis is emptied goes on with new jobs', async () => {
  const ran: string[] = []
  await startWorker({ redis: redis.url, handlers: { x: (_data, job) => void ran.push(job.id) } })
  const first = await add(redis.client, 'x')
  await eventually(() => expect(ran).toEqual([first]))
  await redis.client.flushall()
  const second = await add(redis.client, 'x')

  await eventually(() => expect(ran).toEqual([first, second]))
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  await eventually(async () => expect(await redis.client.zcard('{orders}:group:main:workers')).toBe(1))
})

test('a worker under which Redis is emptied is there again also while long jobs have all its slots, and nothing is read', async () => {
  const handler = gate()
  const worker = await startWorker({ redis: redis.url, concurrency: 1, handlers: { x: () => handler.wait() } })
  await add(redis.client, 'x')
  await eventually(() => expect(worker.counts.delivered).toBe(1))
  await redis.client.flushall()

  await eventually(async () => expect(await redis.client.exists('orders')).toBe(1))
  await eventually(async () => expect(await redis.client.zcard('{orders}:group:main:workers')).toBe(1))
  handler.open()
})

const isClaim = ([name, sha]: string[]) => name === 'evalsha' && sha === claim.sha

/** How many reads of a worker are blocked at the server. */
async function readers(_worker: Worker): Promise<number> {
  const list = (await redis.client.call('CLIENT', 'LIST')) as string
  return list.split('\n').filter((line) => line.includes('cmd=xreadgroup') && line.includes('flags=b')).length
}
