import { expect, test } from 'vitest'
import { Producer } from '../../src/index.ts'
import { onEnd } from '../helpers/cleanup.ts'
import { eventually } from '../helpers/eventually.ts'
import { startOrdered, stepsOf, type Step } from '../helpers/ordered.ts'
import { withRedis } from '../helpers/redis.ts'
import { tally } from '../helpers/workers.ts'

/** Order per key through failures and kill -9, with handlers that write down in Redis when they begin and end. */

const redis = withRedis()

const start = (onFailure: 'block' | 'skip' = 'block') =>
  startOrdered({ redis: redis.url, leaseMs: 3000, concurrency: 20 }, onFailure)

const KEYS = 200
const JOBS = 50

/** Every seventh job fails once, every fiftieth twice: which ones is told by key and number. */
const failuresOf = (key: number, n: number): number =>
  (key * 31 + n * 17) % 50 === 0 ? 2 : (key + n) % 7 === 0 ? 1 : 0

async function publishAll(keys: number, jobs: number): Promise<void> {
  const producer = new Producer({ redis: redis.url, logger: false })
  onEnd(async () => void (await producer.close()))
  const publishes: Promise<unknown>[] = []
  for (let n = 0; n < jobs; n++) {
    for (let key = 0; key < keys; key++) {
      const data = { n, failures: failuresOf(key, n), ms: n % 10 === 0 ? 5 : 0 }
      publishes.push(producer.publish('step', data, { stream: 'orders', key: `k${key}`, timeoutMs: 60_000 }))
    }
  }
  await Promise.all(publishes)
}

test(
  'order per key is never broken by failures and a kill -9, and each job is completed once',
  { timeout: 600_000 },
  async () => {
    const workers = await Promise.all([1, 2, 3, 4].map(() => start()))
    await publishAll(KEYS, JOBS)
    // In the middle of it, with jobs that have their turns, wait for them here, and are on their way.
    await eventually(async () => expect((await tally(redis.client))['completed'] ?? 0).toBeGreaterThan(1500))
    const [killed] = workers
    killed?.signal('SIGKILL')
    await start()
    await eventually(async () => expect((await tally(redis.client))['completed']).toBe(KEYS * JOBS), {
      timeoutMs: 240_000,
    })

    for (let key = 0; key < KEYS; key++) {
      const steps = await stepsOf(redis.client, `k${key}`)
      let at = 0
      for (let n = 0; n < JOBS; n++) {
        for (let attempt = 1; attempt <= failuresOf(key, n) + 1; attempt++) {
          const wanted = attempt <= failuresOf(key, n) ? 'fail' : 'end'
          // A kill leaves a begin without its end, or an end that was not settled: the same run again, by another delivery.
          for (;;) {
            expect(steps[at], `${key} ${n}`).toMatchObject({ what: 'begin', n, attempt })
            const [begin, end, next] = steps.slice(at, at + 3)
            const isCut = end?.what === 'begin' && end.n === n && end.attempt === attempt
            const isUnsettled = next?.what === 'begin' && next.n === n && next.attempt === attempt
            if (!isCut) expect(end).toMatchObject({ what: wanted, n, attempt })
            at += isCut ? 1 : 2
            if (!isCut && !isUnsettled) break
            // Nothing but what the killed worker had, running or not settled yet, runs again.
            expect(begin?.pid).toBe(killed?.pid)
            expect(isCut ? end.deliveries : next?.deliveries).toBeGreaterThan(begin?.deliveries ?? 0)
          }
        }
      }
      expect(steps).toHaveLength(at)
    }
    const keys = await redis.client.keys('{orders}:group:main:order:*')
    expect(keys).toEqual([])
    const { retried = 0 } = await tally(redis.client)
    const wanted = Array.from({ length: KEYS * JOBS }, (_, at) => failuresOf(at % KEYS, Math.floor(at / KEYS)))
    expect(retried).toBe(wanted.reduce((sum, one) => sum + one, 0))
  },
)

test(
  'jobs that are skipped while they wait for their retry run one at a time with their key, in order of their first attempts',
  { timeout: 600_000 },
  async () => {
    const [keys, jobs] = [25, 30]
    const workers = await Promise.all([1, 2, 3, 4].map(() => start('skip')))
    await publishAll(keys, jobs)
    await eventually(async () => expect((await tally(redis.client))['completed'] ?? 0).toBeGreaterThan(200))
    const [killed] = workers
    killed?.signal('SIGKILL')
    await eventually(async () => expect((await tally(redis.client))['completed']).toBe(keys * jobs), {
      timeoutMs: 240_000,
    })

    for (let key = 0; key < keys; key++) {
      const [begun, ended]: [number[], number[]] = [[], []]
      let running: Step | undefined
      for (const step of await stepsOf(redis.client, `k${key}`)) {
        if (step.what === 'begin') {
          // Nothing begins beside another but what comes after a run that was killed.
          if (running !== undefined) expect(running.pid).toBe(killed?.pid)
          if (!begun.includes(step.n)) expect(step).toMatchObject({ n: begun.length, attempt: 1 })
          begun.push(...(begun.includes(step.n) ? [] : [step.n]))
          running = step
          continue
        }
        expect(step).toMatchObject({ n: running?.n, attempt: running?.attempt, pid: running?.pid })
        expect(step.what).toBe(step.attempt <= failuresOf(key, step.n) ? 'fail' : 'end')
        // What ended and was not settled by the killed worker runs again.
        if (step.what === 'end' && ended.includes(step.n)) expect(step.deliveries).toBeGreaterThan(1)
        if (step.what === 'end') ended.push(step.n)
        running = undefined
      }
      expect(begun).toHaveLength(jobs)
      expect([...new Set(ended)]).toHaveLength(jobs)
    }
    expect(await redis.client.keys('{orders}:group:main:order:*')).toEqual([])
  },
)
