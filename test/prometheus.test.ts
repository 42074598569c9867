import { describe, expect, test } from 'vitest'
import { dashboardExpressions, filledIn } from './helpers/dashboards.ts'
import { eventually } from './helpers/eventually.ts'
import { ownMetrics } from './helpers/metric-names.ts'
import { startPrometheus, type RunningPrometheus } from './helpers/prometheus.ts'
import { withRedis } from './helpers/redis.ts'
import { readRules } from './helpers/rules.ts'
import { COUNTED, deploy, LATECOMERS } from './helpers/workload.ts'

/** A real Prometheus with our own configuration and rules, on a deployment whose history is known. */

/** What this history cannot move, and why. */
const UNMOVED: Readonly<Record<string, string>> = {
  millrace_cron_fired_jobs_total: 'no stream has a recurring schedule',
  millrace_cron_skipped_ticks_total: 'no stream has a recurring schedule',
  millrace_stream_schedules: 'no stream has a recurring schedule',
  millrace_stream_schedules_overdue_seconds: 'no stream has a recurring schedule',
  millrace_stream_set_aside_schedules: 'no stream has a recurring schedule',
  millrace_shutdown_abandoned_jobs_total: 'the worker that is stopped in the middle of a job hands it back',
  millrace_discarded_dead_letters_total: 'dead letters are kept for 30 days',
  millrace_exporter_scrape_errors_total: 'Redis answers',
  millrace_publish_buffer_high_total: 'a hundredth of the buffer is enough',
  millrace_publish_buffer_oldest_seconds: 'no scrape has to meet a job that waits',
  millrace_publish_held_batches_total: 'no stream has a bound, and neither has the memory',
  millrace_publish_shed_jobs_total: 'no buffer is full',
  millrace_publish_unreplicated_jobs_total: 'nobody asks for replicas',
}
/** Panels that rightly show nothing here: `dashboard / panel`. */
const EMPTY_PANELS: Readonly<Record<string, string>> = {}

const redis = withRedis()
let prometheus: RunningPrometheus

/** Values that are not 0, by one label. */
async function by(label: string, metric: string): Promise<Record<string, number>> {
  const samples = await prometheus.query(`sum by (${label}) (${metric}) != 0`)
  return Object.fromEntries(samples.map(({ labels, value }) => [labels[label] ?? '', value]))
}

test('Prometheus tells the history of a deployment as it was, by rules and dashboards that all work', async () => {
  const deployment = await deploy(redis.url, redis.client)
  prometheus = await startPrometheus(deployment.targets)
  // Prometheus takes some seconds before it scrapes for the first time, and is to see the beginning.
  await eventually(async () => expect(await prometheus.value('sum(up{job="millrace"})')).toBe(1))
  await deployment.begin()
  const ended = async () => (await prometheus.query('sum(millrace_finished_jobs_total)'))[0]?.value
  const all = [...Object.values(COUNTED.completed), ...Object.values(COUNTED.dead), ...Object.values(COUNTED.cancelled)]
  const ends = all.reduce((sum, count) => sum + count, 0)
  // But for those that are not published yet, one of which ends its process, and the one that runs.
  await eventually(async () => expect(await ended()).toBe(ends - 2 - LATECOMERS), {
    intervalMs: 200,
  })
  // The deaf run ends long after its job has.
  const late = 'sum(millrace_acked_jobs_total{result="lost"})'
  await eventually(async () => expect(await prometheus.value(late)).toBe(1), { intervalMs: 200 })
  await deployment.finish()
  await eventually(async () => expect(await ended()).toBe(ends), { intervalMs: 200 })

  await agreesWithHistory()
  await isHealthy()
  await eventually(hasMoved, { intervalMs: 1000 })
  await fillsDashboards()
}, 180_000)

async function agreesWithHistory(): Promise<void> {
  await eventually(
    async () =>
      expect({
        published: await by('job_name', 'millrace_published_jobs_total{stream="orders", result="ok"}'),
        rejected: await prometheus.value('sum(millrace_published_jobs_total{result="rejected"})'),
        completed: await by('job_name', 'millrace_finished_jobs_total{result="completed"}'),
        cancelled: await by('job_name', 'millrace_finished_jobs_total{result="cancelled"}'),
        dead: await by('reason', 'millrace_dead_jobs_total'),
        retried: await by('job_name', 'millrace_retried_jobs_total'),
        promoted: await prometheus.value('sum(millrace_promoted_jobs_total)'),
        gone: await prometheus.value('sum(millrace_missing_jobs_total)'),
        setAside: await prometheus.value('sum(millrace_set_aside_jobs_total)'),
        handedBack: await prometheus.value('sum(millrace_handed_back_jobs_total{stream="mails"})'),
        scheduled: await prometheus.value('max(millrace_group_scheduled_jobs{stream="orders"})'),
        replaced: await prometheus.value('sum(millrace_pool_replaced_processes_total)'),
      }).toEqual({
        ...COUNTED,
        // What was set aside is among what waits.
        scheduled: COUNTED.scheduled + 1,
      }),
    { intervalMs: 200 },
  )
  // The two planes agree: what workers counted is what Redis holds.
  const dead = Object.values(COUNTED.dead).reduce((sum, count) => sum + count, 0)
  expect(await prometheus.value('sum(millrace_finished_jobs_total{result="dead"})')).toBe(dead)
  await eventually(async () =>
    expect(await prometheus.value('max(millrace_dead_letter_entries{stream="orders", group="main"})')).toBe(dead),
  )
  await eventually(async () => {
    const backlog = 'max(millrace_group_lag_jobs{stream="orders"}) + max(millrace_group_pending_jobs{stream="orders"})'
    expect(await prometheus.value(backlog)).toBe(0)
  })
}

async function isHealthy(): Promise<void> {
  // A pool waits longer for a process that is busy than this Prometheus, which asks once a second, waits for the pool.
  await eventually(async () => {
    const targets = await prometheus.targets()
    expect(targets.filter(({ health }) => health !== 'up')).toEqual([])
    expect(targets.map(({ job }) => job).sort()).toEqual(['millrace', 'millrace', 'millrace-exporter'])
  })
  await eventually(async () => {
    const rules = await prometheus.rules()
    expect(rules.map(({ name }) => name).sort()).toEqual(
      readRules()
        .map(({ alert, record }) => alert ?? record)
        .sort(),
    )
    expect(rules.filter(({ health }) => health !== 'ok')).toEqual([])
  })
}

async function hasMoved(): Promise<void> {
  const unmoved: string[] = []
  for (const [name, { type }] of ownMetrics()) {
    const series = type === 'histogram' ? `${name}_count` : name
    const most = await prometheus.value(`max(max_over_time(${series}[5m]))`)
    if (!(most > 0)) unmoved.push(name)
  }
  expect(unmoved.filter((name) => !(name in UNMOVED))).toEqual([])
  expect(Object.keys(UNMOVED).filter((name) => !ownMetrics().has(name))).toEqual([])
}

async function fillsDashboards(): Promise<void> {
  const empty: string[] = []
  for (const { place, expr } of dashboardExpressions()) {
    if (!(await prometheus.hadData(filledIn(expr)))) empty.push(place)
  }
  expect([...new Set(empty)].filter((place) => !(place in EMPTY_PANELS))).toEqual([])
}

describe('the parts of this test find what is wrong:', () => {
  test('a variable that is not known is no expression', () => {
    expect(() => filledIn('rate(x[$interval])')).toThrow('$interval')
    expect(filledIn('rate(x{job=~"$job"}[$__rate_interval])')).toBe('rate(x{job=~".*"}[1m])')
  })
})
