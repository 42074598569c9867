import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { dashboards } from '../grafana/src/dashboards.ts'
import { expressions, selectorsOf, shown, substituted, type Dashboard, type Panel } from './helpers/dashboard-model.ts'
import { RULES, type World } from './helpers/dashboard-rules.ts'
import { knownMetrics, ownMetrics } from './helpers/metric-names.ts'
import { findPrometheus } from './helpers/prometheus-package.ts'
import { readRules } from './helpers/rules.ts'

const run = promisify(execFile)
const files = await dashboards()
const all = files.map(({ text }) => JSON.parse(text) as Dashboard)
const runbook = await readFile(join(import.meta.dirname, '../docs/runbook.md'), 'utf8')
const world: World = {
  metrics: knownMetrics(),
  recorded: new Set(readRules().flatMap(({ record }) => (record === undefined ? [] : [record]))),
  sections: new Set([...runbook.matchAll(/^#+ (\w+)$/gm)].map(([, title = '']) => title.toLowerCase())),
  dashboards: all,
}

describe('the dashboards', () => {
  test.each(files.map((file) => ({ name: basename(file.path), ...file })))(
    '$name is what `npm run dashboards` writes',
    async ({ path, text }) => {
      expect(await readFile(path, 'utf8')).toBe(text)
    },
  )

  test.each(Object.keys(RULES))('keep the rule %s', (name) => {
    expect(all.flatMap((dashboard) => RULES[name]?.(dashboard, world))).toEqual([])
  })

  test('ask for what Prometheus takes', async () => {
    await expect(
      checkedByPrometheus(all.flatMap((each) => expressions(each).map(({ expr }) => expr))),
    ).resolves.toMatch(/SUCCESS: \d+ rules found/)
  })

  test('show every metric that there is', () => {
    const asked = new Set(
      all.flatMap((each) => expressions(each).flatMap(({ expr }) => selectorsOf(expr).map(({ metric }) => metric))),
    )
    const isShown = (name: string) => asked.has(name) || asked.has(`${name}_bucket`)
    expect([...ownMetrics().keys()].filter((name) => !isShown(name))).toEqual([])
  })

  test('have names of their own', () => {
    expect(new Set(all.map(({ uid }) => uid)).size).toBe(all.length)
    for (const dashboard of all) {
      const titles = shown(dashboard).map(({ title }) => title)
      expect(titles.filter((title, at) => titles.indexOf(title) !== at)).toEqual([])
    }
  })
})

describe('each rule finds what breaks it', () => {
  type Break = (dashboard: Dashboard, panel: Panel) => void
  const variable = (name: string, change: object): Break => {
    return ({ templating }) => void Object.assign(templating.list.find((each) => each.name === name) ?? {}, change)
  }
  const asks = (expr: string): Break => {
    return (_, { targets }) => void Object.assign(targets?.[0] ?? {}, { expr })
  }
  const RATE =
    'rate(millrace_processed_jobs_total{job=~"$job", instance=~"$instance", stream=~"$stream", group=~"$group"}'

  const breaks: [rule: string, what: string, damage: Break][] = [
    ['template-datasource', 'no data source to choose', ({ templating }) => void templating.list.shift()],
    ['template-job', 'one job at a time', variable('job', { multi: false })],
    ['template-instance', 'all instances of everything', variable('instance', { allValue: '.*' })],
    ['template-stream', 'no streams to choose', variable('stream', { name: 'queue' })],
    ['template-group', 'groups of another data source', variable('group', { datasource: { uid: 'prometheus' } })],
    ['template-label-promql', 'half a selector', variable('job', { query: 'label_values(up{, job)' })],
    [
      'template-label-promql',
      'a label that is not there',
      variable('job', { query: 'label_values(millrace_build_info, no)' }),
    ],
    ['template-on-time-change-reload', 'read on load', variable('group', { refresh: 1 })],
    ['panel-datasource', 'a data source of its own', (_, panel) => void (panel.datasource = { uid: 'prometheus' })],
    ['panel-datasource', 'in a query', (_, { targets = [] }) => void delete targets[0]?.datasource],
    ['panel-title-description', 'no title', (_, panel) => void delete panel.title],
    ['panel-title-description', 'no description', (_, panel) => void (panel.description = '')],
    [
      'panel-units',
      'a unit that Grafana does not know',
      (_, panel) => void (panel.fieldConfig!.defaults.unit = 'jobs'),
    ],
    ['panel-no-targets', 'no query', (_, panel) => void (panel.targets = [])],
    ['panel-links', 'a dead end', (_, panel) => void (panel.links = [])],
    ['target-promql', 'half an expression', asks('sum(rate(millrace_processed_jobs_total[5m])')],
    ['target-rate-interval', 'a fixed range', asks(`sum(${RATE}[5m]))`)],
    [
      'target-job',
      'workers of all jobs',
      asks('max by (stream, group) (millrace_in_flight_jobs{instance=~"$instance"})'),
    ],
    ['target-job', 'a group by the job of its exporter', asks('max(millrace_group_lag_jobs{job=~"$job"})')],
    ['target-instance', 'all workers', asks('max by (stream, group) (millrace_in_flight_jobs{job=~"$job"})')],
    ['target-stream-plane', 'a sum over exporters', asks('sum(millrace_group_lag_jobs)')],
    ['target-stream-plane', 'all of them as they are', asks('millrace_group_lag_jobs')],
    ['target-stream', 'all streams', asks('max by (stream, group) (millrace_group_lag_jobs{group=~"$group"})')],
    ['target-group', 'all groups', asks('max by (stream, group) (millrace_group_lag_jobs{stream=~"$stream"})')],
    ['target-counter-agg', 'a counter as it is', asks('sum(millrace_processed_jobs_total)')],
    ['target-counter-agg', 'the rate of a gauge', asks('max(rate(millrace_group_lag_jobs[$__rate_interval]))')],
    ['metrics-exist', 'a metric that nobody has', asks('max(millrace_group_lag_minutes)')],
    ['metrics-exist', 'a rule that nobody wrote', asks('stream_group:millrace_nothing:max')],
    ['metrics-exist', 'a histogram without its parts', asks('sum(rate(millrace_job_wait_seconds[$__rate_interval]))')],
    ['labels-exist', 'a label to group by', asks('max by (stream, role) (millrace_group_lag_jobs)')],
    ['labels-exist', 'a label to choose by', asks('max(millrace_group_lag_jobs{queue="x"})')],
    ['uneditable', 'editable', (dashboard) => void (dashboard.editable = true)],
    ['links-lead-somewhere', 'no such dashboard', (_, { links = [] }) => void (links[0]!.url = '/d/millrace-jobs?')],
    ['links-lead-somewhere', 'no such panel', (_, { links = [] }) => void (links[0]!.url += '9999')],
    [
      'links-lead-somewhere',
      'no such section',
      (_, { links = [] }) => void (links[0]!.url = '${docs}/runbook.md#nothing'),
    ],
    [
      'links-encoded',
      'a name as it is',
      (_, { links = [] }) => void (links[0]!.url = '/d/millrace-stream?var-stream=${__field.labels.stream}'),
    ],
    ['ids-unique', 'one id twice', ({ panels }, panel) => void (panel.id = panels[0]!.id)],
    ['grid-overlap', 'one over the other', (_, panel) => void (panel.gridPos.y += 1)],
    ['grid-overlap', 'over the edge', (_, panel) => void (panel.gridPos.w = 25)],
  ]

  test('and none is left out', () => {
    expect(new Set(breaks.map(([rule]) => rule))).toEqual(new Set(Object.keys(RULES)))
  })

  test.each(breaks)('%s: %s', (rule, _, damage) => {
    const dashboard = structuredClone(all[0]!)
    expect(RULES[rule]?.(dashboard, world)).toEqual([])
    // The first panel: one number, of what Redis tells, with a link to a panel and one to the runbook.
    damage(dashboard, shown(dashboard)[0]!)

    expect(RULES[rule]?.(dashboard, world)).not.toEqual([])
  })

  test('what only Prometheus sees: a rate of what is no range', async () => {
    await expect(checkedByPrometheus(['rate(millrace_processed_jobs_total)'])).rejects.toThrow(
      /expected type range vector/,
    )
  })
})

/** As rules of a file, each under a name of its own: types of PromQL are checked too. */
async function checkedByPrometheus(asked: readonly string[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'millrace-dashboards-'))
  try {
    const path = join(folder, 'rules.json')
    const made = asked.map((expr, at) => ({ record: `expression:${at}`, expr: substituted(expr) }))
    // JSON is YAML.
    await writeFile(path, JSON.stringify({ groups: [{ name: 'dashboards', rules: made }] }))
    const { promtool, env } = await findPrometheus()
    const { stdout } = await run(promtool, ['check', 'rules', path], { env })
    return stdout
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}
