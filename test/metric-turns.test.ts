import { AggregatorRegistry, Registry } from 'prom-client'
import { expect, test } from 'vitest'
import { PoolMetrics } from '../cli/pool-metrics.ts'
import type { Pool } from '../cli/pool.ts'
import type { MetricsSnapshot } from '../cli/pool-messages.ts'
import { bookOf } from '../src/metrics/book.ts'
import { Scrape } from './helpers/metrics.ts'

/** Pages of thousands of series are made a few hundred at a time: in between the event loop turns, and whatever waits for it runs. */

const silent = { debug() {}, info() {}, warn() {}, error() {} }

/** A registry as of a worker that has run jobs of so many names: 55 histogram series each and more. */
function registryOf(jobs: number, prefix = 'job'): Registry {
  const registry = new Registry()
  const numbers = bookOf(registry).worker('orders', 'main', silent)
  for (let n = 0; n < jobs; n++) {
    const job = numbers.jobs.of(`${prefix}-${n}`)
    job.outcomes.completed += n
    job.completed += n
    for (let k = 0; k < n; k++) job.okDuration.observe(k / 10)
  }
  return registry
}

/** How often the event loop turned while something was done. */
async function turnsOf<Done>(run: () => Promise<Done>): Promise<{ turns: number; done: Done }> {
  let turns = 0
  let isRunning = true
  const tick = () => {
    turns += 1
    if (isRunning) setImmediate(tick)
  }
  setImmediate(tick)
  const done = await run()
  isRunning = false
  return { turns, done }
}

const seriesOf = (text: string) => text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))

/** A pool whose processes have told these, and what its supervisor makes of them. */
function poolOf(snapshots: readonly MetricsSnapshot[]): PoolMetrics {
  const members = snapshots.map((metrics) => ({ metrics, measure: async () => {} }))
  return new PoolMetrics({ size: members.length, workers: members, members, replaced: 0 } as unknown as Pool)
}

test('a page of 5 000 series, as text and as what goes to the supervisor of a pool', async () => {
  const registry = registryOf(70)
  const page = await turnsOf(() => registry.metrics())
  expect(seriesOf(page.done).length).toBeGreaterThan(5000)
  expect(page.turns).toBeGreaterThanOrEqual(3)
  expect((await turnsOf(() => registry.getMetricsAsJSON())).turns).toBeGreaterThanOrEqual(3)
})

test('a small page is made in one turn, however busy the loop is', async () => {
  const registry = registryOf(1)
  await registry.metrics()
  expect((await turnsOf(() => registry.metrics())).turns).toBeLessThanOrEqual(1)
})

test('the text that shares labels is the one that writes them out', async () => {
  const registry = registryOf(3)
  const [text, written] = [
    await registry.metrics(),
    await AggregatorRegistry.aggregate([await registry.getMetricsAsJSON()]).metrics(),
  ]
  const rows = (page: string) => {
    const scrape = new Scrape(page)
    return [...new Set(seriesOf(page).map((line) => line.split(/[{ ]/, 1)[0] ?? ''))].sort().map((name) => [
      name,
      scrape
        .rows(name)
        .map(({ labels, value }) => JSON.stringify([Object.entries(labels).sort(), value]))
        .sort(),
    ])
  }
  expect(rows(text)).toEqual(rows(written))
  expect(rows(text).length).toBeGreaterThan(10)
})

test('the sum of a pool is what prom-client makes of it in one go', async () => {
  const snapshots = await Promise.all(
    [registryOf(70), registryOf(50), registryOf(20)].map((one) => one.getMetricsAsJSON()),
  )
  const { turns, done: text } = await turnsOf(() => poolOf(snapshots).scrape())
  const whole = await AggregatorRegistry.aggregate(snapshots).metrics()

  expect(turns).toBeGreaterThanOrEqual(6)
  const own = seriesOf(text).filter((line) => !line.startsWith('millrace_pool_'))
  expect(own.sort()).toEqual(seriesOf(whole).sort())
  // Each metric is told of once, before its series.
  const told = text.split('\n').filter((line) => line.startsWith('# TYPE'))
  expect(new Set(told).size).toBe(told.length)
})

test('10 000 job names of processes that come and go stay 102 names and what is beyond them', async () => {
  const finished = async (registry: Registry) =>
    (await registry.getMetricsAsJSON()).filter(({ name }) => name === 'millrace_finished_jobs_total')
  const first = await finished(registryOf(101))
  const pool = poolOf([first])
  let published = 100
  for (let n = 0; n < 100; n++) {
    pool.ended(await finished(registryOf(101, `made-up-${n}`)))
    published += 100
  }
  expect(published).toBeGreaterThan(10_000)
  const seen = new Scrape(await pool.scrape())
  const names = seen
    .rows('millrace_finished_jobs_total', { result: 'completed' })
    .map(({ labels }) => labels['job_name'])
  expect(new Set(names).size).toBeLessThanOrEqual(102)
  expect(names).toContain('__other__')
  expect(seen.duplicates()).toEqual([])
  const perProcess = (100 * 101) / 2
  expect(seen.sum('millrace_finished_jobs_total', { result: 'completed' })).toBe(101 * perProcess)
})
