import { expect, test } from 'vitest'
import { Producer } from '../../src/index.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually, waitFor } from '../helpers/eventually.ts'
import { withRedis } from '../helpers/redis.ts'
import {
  add,
  LEASE_MS,
  pending,
  startWorker,
  startWorkerProcess,
  tally,
  type WorkerProcess,
} from '../helpers/workers.ts'

/** Workers that are killed, stopped and continued: real processes, real signals. */

const redis = withRedis()

test('all 50 jobs of a killed worker are taken by one claim while 40 000 others wait, and every job finishes', async () => {
  const ran = new Map<string, number>()
  for (let n = 0; n < 50; n++) await add(redis.client, 'slow', { ms: 120_000 })
  const victim = await startWorkerProcess({ redis: redis.url, concurrency: 50 })
  await waitFor(() => victim.log().filter((line) => line.startsWith('started')).length === 50, { what: '50 started' })
  const lostIds = (await pending(redis.client)).map(({ id }) => id)
  const producer = new Producer({ redis: redis.url })
  onEnd(async () => void (await producer.close()))
  const backlog = (function* () {
    for (let n = 0; n < 40_000; n++) yield { n }
  })()
  await producer.publishMany('quick', backlog, { stream: 'orders' })
  const count = (_data: unknown, job: { id: string }) => void ran.set(job.id, (ran.get(job.id) ?? 0) + 1)
  // Slow enough that the backlog outlasts the lease, so that the claim has to get past it.
  const quick = async (data: unknown, job: { id: string }) => {
    count(data, job)
    if ((data as { n: number }).n % 20 === 0) await new Promise((resolve) => setTimeout(resolve, 50))
  }
  victim.signal('SIGKILL')
  const survivor = await startWorker({ redis: redis.url, concurrency: 50, handlers: { quick, slow: count } })

  const left = await eventually(
    async () => {
      const rows = await pending(redis.client, 'orders', 'main', victim.consumer)
      expect(rows.length).toBeLessThan(50)
      return rows.length
    },
    { intervalMs: 5 },
  )
  const waitingAtClaim = 40_000 + 50 - ran.size
  expect(left).toBe(0)
  expect(waitingAtClaim).toBeGreaterThan(1000)
  await waitFor(() => ran.size === 40_050, { what: 'all ran' })
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  expect(lostIds.map((id) => ran.get(id))).toEqual(new Array(50).fill(1))
  expect([...ran.values()].every((times) => times === 1)).toBe(true)
  expect(survivor.counts.claimed).toBe(50)
  expect(await tally(redis.client)).toEqual({ completed: 40_050 })
})

test('a worker stopped past its lease and continued completes late: counted, and nothing else changes', async () => {
  const stopped = await startWorkerProcess({ redis: redis.url })
  const id = await add(redis.client, 'deaf', { ms: 400 })
  await stopped.line(/^started/)
  stopped.signal('SIGSTOP')
  const ranElsewhere: number[] = []
  await startWorker({ redis: redis.url, handlers: { deaf: (_data, job) => void ranElsewhere.push(job.deliveries) } })
  await waitFor(() => ranElsewhere.length === 1, { what: 'ran elsewhere' })
  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  const before = await redis.client.xrange('orders', '-', '+')
  stopped.signal('SIGCONT')
  await stopped.line(/^ended/)

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1, late: 1 }))
  const counts = await countsOf(stopped)
  expect(counts).toMatchObject({ completed: 0, late: 1, failed: 0, dead: 0 })
  expect(ranElsewhere).toEqual([2])
  expect(await redis.client.xrange('orders', '-', '+')).toEqual(before)
  expect(before.map(([entry]) => entry)).toEqual([id])
  expect(await redis.client.exists('{orders}:group:main:dead')).toBe(0)
})

test('a worker stopped past its lease and continued fails late: the new run is not disturbed', async () => {
  const stopped = await startWorkerProcess({ redis: redis.url, maxDeliveries: 2 })
  await add(redis.client, 'deafFail', { ms: 400 })
  await stopped.line(/^started/)
  stopped.signal('SIGSTOP')
  const running: number[] = []
  let finish = () => {}
  const survivor = await startWorker({
    redis: redis.url,
    handlers: {
      deafFail: (_data, job) =>
        new Promise<void>((resolve) => {
          running.push(job.deliveries)
          finish = resolve
        }),
    },
  })
  await waitFor(() => running.length === 1, { what: 'runs elsewhere' })
  stopped.signal('SIGCONT')
  await stopped.line(/^failed/)
  await eventually(async () => expect((await countsOf(stopped))['failed']).toBe(1))
  const [row] = await pending(redis.client)
  expect(row).toMatchObject({ consumer: survivor.consumer, deliveries: 2 })
  finish()

  await eventually(async () => expect(await tally(redis.client)).toEqual({ completed: 1 }))
  expect(running).toEqual([2])
  expect(await redis.client.exists('{orders}:group:main:dead')).toBe(0)
})

test('one poison job among 32 slow ones kills its worker again and again: it alone ends dead', async () => {
  for (let n = 0; n < 16; n++) await add(redis.client, 'slow', { ms: 250 })
  const poison = await add(redis.client, 'poison')
  for (let n = 0; n < 16; n++) await add(redis.client, 'slow', { ms: 250 })
  const workers: WorkerProcess[] = []
  const isOver = async () => (await redis.client.exists('{orders}:group:main:dead')) === 1
  while (!(await isOver())) {
    const worker = await startWorkerProcess({ redis: redis.url, concurrency: 40 })
    workers.push(worker)
    await Promise.race([worker.exited, waitFor(isOver)])
    expect(workers.length).toBeLessThan(6)
  }

  await eventually(async () => expect(await pending(redis.client)).toEqual([]))
  const log = workers.flatMap((worker) => worker.log())
  expect(log.filter((line) => line.startsWith('poisoned'))).toEqual([1, 2, 3].map((n) => `poisoned ${poison} ${n}`))
  const dead = await redis.client.xrange('{orders}:group:main:dead', '-', '+')
  expect(dead.map(([, fields]) => fields[fields.indexOf('dead-origin') + 1])).toEqual([poison])
  expect(await tally(redis.client)).toEqual({ completed: 32, dead: 1 })
}, 120_000)

async function countsOf(worker: WorkerProcess): Promise<Record<string, number>> {
  const seen = worker.stdout.length
  worker.signal('SIGUSR2')
  const line = await eventually(() => {
    const found = worker.stdout.slice(seen).find((printed) => printed.startsWith('counts '))
    expect(found).toBeDefined()
    return found ?? ''
  })
  return JSON.parse(line.slice('counts '.length)) as Record<string, number>
}

test('a job of a killed worker is not claimed before its lease is over', async () => {
  const victim = await startWorkerProcess({ redis: redis.url, leaseMs: LEASE_MS * 2 })
  await add(redis.client, 'slow', { ms: 60_000 })
  await victim.line(/^started/)
  let idleAtClaim = 0
  const ran: number[] = []
  victim.signal('SIGKILL')
  await startWorker({ redis: redis.url, handlers: { slow: (_data, job) => void ran.push(job.deliveries) } })
  while (ran.length === 0) {
    const [row] = await pending(redis.client, 'orders', 'main', victim.consumer)
    if (row !== undefined) idleAtClaim = row.idleMs
    await new Promise((resolve) => setImmediate(resolve))
  }

  // The last look before the claim saw it idle for nearly a lease; the claim script itself asks for a whole one.
  expect(idleAtClaim).toBeGreaterThan(LEASE_MS)
  expect(ran).toEqual([2])
})
